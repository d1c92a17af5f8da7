#include "storage/file_content.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <vector>

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.hpp"
#include "storage/tree.hpp"

namespace gantry::storage {
namespace {

constexpr std::uint64_t kPiece = 64 << 20;

/// Copies the bytes from `at` up to `end`; in the kernel where it can. Returns how far it came.
std::uint64_t copy_range(int from, int to, std::uint64_t at, std::uint64_t end, const std::function<void()>& between) {
  std::vector<char> buffer;
  while (at < end) {
    if (between) between();
    auto source = static_cast<off_t>(at);
    auto target = static_cast<off_t>(at);
    ssize_t count = -1;
    if (buffer.empty()) count = ::copy_file_range(from, &source, to, &target, std::min(end - at, kPiece), 0);
    if (count < 0 && errno != EINTR) {
      // EXDEV, EINVAL, EOPNOTSUPP …: these file systems cannot; a real failure shows again here.
      buffer.resize(256 << 10);
      count = ::pread(from, buffer.data(), std::min<std::uint64_t>(buffer.size(), end - at), source);
      if (count < 0) throw Error::from_errno(errno, "read");
      for (ssize_t done = 0; done < count;) {
        const ssize_t put = ::pwrite(to, buffer.data() + done, static_cast<std::size_t>(count - done), target + done);
        if (put < 0 && errno != EINTR) throw Error::from_errno(errno, "write");
        done += std::max<ssize_t>(put, 0);
      }
    }
    if (count == 0) break;  // it shrank meanwhile
    at += static_cast<std::uint64_t>(std::max<ssize_t>(count, 0));
  }
  return at;
}

}  // namespace

void copy_content(int from, int to, const std::function<void()>& between) {
  if (::ioctl(to, FICLONE, from) == 0) return;
  const auto size = static_cast<std::uint64_t>(get_stat(from).st_size);
  for (std::uint64_t at = 0; at < size;) {
    const off_t data = ::lseek(from, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;  // only a hole is left
    const std::uint64_t begin = data < 0 ? at : static_cast<std::uint64_t>(data);
    const off_t hole = data < 0 ? -1 : ::lseek(from, data, SEEK_HOLE);
    const std::uint64_t end = hole < 0 ? size : static_cast<std::uint64_t>(hole);
    at = copy_range(from, to, begin, end, between);
    if (at < end) break;
  }
  if (::ftruncate(to, static_cast<off_t>(size)) != 0) throw Error::from_errno(errno, "set size");
}

}  // namespace gantry::storage
