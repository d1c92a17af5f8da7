#include "image/gzip.hpp"

#include <array>
#include <string>

#include <fmt/format.h>
#include <isa-l/igzip_lib.h>

#include "base/error.hpp"

namespace gantry::image {

struct GzipWriter::State {
  isal_zstream stream{};
  std::array<std::uint8_t, ISAL_DEF_LVL1_DEFAULT> level{};
  std::array<std::uint8_t, 256 << 10> out{};
};

GzipWriter::GzipWriter(storage::ByteSink sink) : sink_(std::move(sink)), state_(std::make_unique<State>()) {
  isal_deflate_init(&state_->stream);
  state_->stream.level = 1;
  state_->stream.level_buf = state_->level.data();
  state_->stream.level_buf_size = static_cast<std::uint32_t>(state_->level.size());
  state_->stream.gzip_flag = IGZIP_GZIP;
}

GzipWriter::~GzipWriter() = default;

void GzipWriter::write(std::string_view bytes) {
  for (; !bytes.empty(); bytes.remove_prefix(std::min<std::size_t>(bytes.size(), 1 << 30)))
    pump(bytes.substr(0, 1 << 30), false);
}

void GzipWriter::finish() { pump({}, true); }

void GzipWriter::pump(std::string_view bytes, bool last) {
  isal_zstream& s = state_->stream;
  s.next_in = reinterpret_cast<std::uint8_t*>(const_cast<char*>(bytes.data()));
  s.avail_in = static_cast<std::uint32_t>(bytes.size());
  s.end_of_stream = last ? 1 : 0;
  do {
    s.next_out = state_->out.data();
    s.avail_out = static_cast<std::uint32_t>(state_->out.size());
    if (const int code = isal_deflate(&s); code != COMP_OK)
      throw Error(Errc::internal, fmt::format("gzip failed: {}", code));
    const std::size_t produced = state_->out.size() - s.avail_out;
    if (produced > 0) sink_({reinterpret_cast<const char*>(state_->out.data()), produced});
  } while (s.avail_out == 0 || (last && s.internal_state.state != ZSTATE_END));
}

}  // namespace gantry::image
