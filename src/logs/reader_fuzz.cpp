#include <cstdint>
#include <string>

#include <sys/mman.h>
#include <unistd.h>

#include "base/fuzz.hpp"
#include "logs/format.hpp"
#include "logs/inflate.hpp"
#include "logs/reader.hpp"
#include "logs/rotated.hpp"
#include "sys/fd.hpp"

namespace logs = gantry::logs;

// What a damaged disk may make of a log: entries, and compressed files.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  logs::Entry entry;
  std::string scratch;
  logs::SecondCache seconds;
  gantry::Timestamp time;
  if (logs::decode_line(bytes, entry, scratch) && seconds.parse(entry.time, time)) {
    for (const bool json : {false, true}) {
      logs::RenderOptions render;
      render.timestamps = render.details = true;
      render.json = json;
      std::string out;
      logs::append_entry(out, entry, time, render, seconds);
      gantry::fuzz::require(out.size() <= size * 8 + 256, "a rendered entry is bounded");
    }
  }
  const gantry::sys::Fd file(::memfd_create("fuzz", MFD_CLOEXEC));
  if (!file || ::write(file.get(), data, size) != static_cast<ssize_t>(size)) return 0;
  (void)logs::read_origin(file.get());
  logs::GzipReader gzip(file.get());
  std::string out;
  for (int i = 0; i < 64 && gzip.read(out, 16 << 10); ++i) {
    gantry::fuzz::require(out.size() <= 16 << 10, "no more than asked for");
    out.clear();
  }
  return 0;
}
