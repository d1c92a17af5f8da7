#include "logs/inflate.hpp"

#include <array>
#include <cerrno>

#include <isa-l/igzip_lib.h>
#include <unistd.h>

namespace gantry::logs {

struct GzipReader::State {
  int fd = -1;
  off_t offset = 0;
  bool ended = false;
  inflate_state stream{};
  std::array<std::uint8_t, 16 << 10> input{};
};

GzipReader::GzipReader(int fd) : state_(std::make_unique<State>()) {
  state_->fd = fd;
  isal_inflate_init(&state_->stream);
  state_->stream.crc_flag = ISAL_GZIP;
}

GzipReader::~GzipReader() = default;
GzipReader::GzipReader(GzipReader&&) noexcept = default;
GzipReader& GzipReader::operator=(GzipReader&&) noexcept = default;

bool GzipReader::read(std::string& out, std::size_t limit) {
  State& s = *state_;
  const std::size_t before = out.size();
  out.resize(before + limit);
  s.stream.next_out = reinterpret_cast<std::uint8_t*>(out.data() + before);
  s.stream.avail_out = static_cast<std::uint32_t>(limit);
  while (!s.ended && s.stream.avail_out > 0) {
    if (s.stream.avail_in == 0) {
      const ssize_t got = ::pread(s.fd, s.input.data(), s.input.size(), s.offset);
      if (got < 0 && errno == EINTR) continue;
      if (got > 0) {
        s.offset += got;
        s.stream.next_in = s.input.data();
        s.stream.avail_in = static_cast<std::uint32_t>(got);
      } else {
        s.ended = true;
      }
    }
    if (isal_inflate(&s.stream) != ISAL_DECOMP_OK || s.stream.block_state == ISAL_BLOCK_FINISH) s.ended = true;
  }
  const std::size_t produced = limit - s.stream.avail_out;
  out.resize(before + produced);
  return produced > 0;
}

}  // namespace gantry::logs
