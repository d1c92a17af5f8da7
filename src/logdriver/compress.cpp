#include "logdriver/compress.hpp"

#include <cerrno>
#include <string>

#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/error.hpp"
#include "logs/rotated.hpp"
#include "sys/file.hpp"

namespace gantry::logdriver {

void compress_file(int from, int to) {
  constexpr std::size_t kChunk = 64 << 10;
  constexpr int kLevel = 1;  // logs shrink to a tenth; more effort gains little
  struct stat info{};
  if (::fstat(from, &info) != 0) throw Error::from_errno(errno, "compress log");
  z_stream z{};
  if (::deflateInit2(&z, kLevel, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
    throw Error(Errc::internal, "compress log: no memory");
  std::string extra = logs::encode_extra(logs::identity_of(info));
  gz_header header{};
  header.extra = reinterpret_cast<Bytef*>(extra.data());
  header.extra_len = static_cast<uInt>(extra.size());
  header.os = 3;  // RFC 1952: Unix
  (void)::deflateSetHeader(&z, &header);
  std::string in(kChunk, '\0');
  std::string out(kChunk, '\0');
  int result = Z_OK;
  while (result != Z_STREAM_END) {
    const ssize_t got = ::read(from, in.data(), in.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw Error::from_errno(errno, "read log");
    z.next_in = reinterpret_cast<Bytef*>(in.data());
    z.avail_in = static_cast<uInt>(got);
    do {
      z.next_out = reinterpret_cast<Bytef*>(out.data());
      z.avail_out = static_cast<uInt>(out.size());
      result = ::deflate(&z, got == 0 ? Z_FINISH : Z_NO_FLUSH);
      sys::write_all(to, std::string_view(out).substr(0, out.size() - z.avail_out));
    } while (z.avail_out == 0);
  }
  (void)::deflateEnd(&z);
  // So that a reader can tell from its time what is in it.
  const timespec times[2] = {info.st_mtim, info.st_mtim};
  (void)::futimens(to, times);
}

}  // namespace gantry::logdriver
