#include "logs/compressor.hpp"

#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.hpp"
#include "base/log.hpp"

namespace gantry::logs {
namespace {

std::uint64_t inode_of(int fd) {
  struct stat info{};
  if (::fstat(fd, &info) != 0) throw Error::from_errno(errno, "stat log");
  return info.st_ino;
}

bool is_file(const sys::Path& path, std::uint64_t inode) {
  struct stat info{};
  return ::lstat(path.c_str(), &info) == 0 && info.st_ino == inode;
}

}  // namespace

Compressor::Compressor(Writer& writer, Start start) : writer_(writer), start_(std::move(start)) {
  ::unlink(unfinished().c_str());
  writer_.on_rotation([this] { rotated(); });
  start_next();
}

Compressor::~Compressor() { writer_.on_rotation({}); }

sys::Path Compressor::unfinished() const {
  sys::Path path = writer_.path();
  return path += ".gz.tmp";
}

void Compressor::rotated() {
  ++index_;
  if (!busy_) start_next();
}

/// The newest of those that are not yet compressed: it will be there for longest.
void Compressor::start_next() {
  sys::Fd from;
  for (index_ = 1; index_ < writer_.options().max_file && !from; ++index_)
    from = sys::Fd(::open(Writer::rotated_path(writer_.path(), index_).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  --index_;
  if (!from) return;
  try {
    plain_ = inode_of(from.get());
    const sys::Fd to = sys::open_file(unfinished(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0640);
    compressed_ = inode_of(to.get());
    busy_ = true;
    start_(from.get(), to.get(), [this](bool good) { done(good); });
  } catch (const Error& e) {
    // The file stays as it is; the next rotation tries again.
    busy_ = false;
    log::error("compress log: {}", e.message());
    ::unlink(unfinished().c_str());
  }
}

void Compressor::done(bool good) {
  busy_ = false;
  // The container may run again, and what is unfinished is then another's.
  if (!is_file(unfinished(), compressed_)) return;
  const sys::Path plain = Writer::rotated_path(writer_.path(), index_);
  // It may have been rotated out or cleared away meanwhile.
  const bool there = index_ < writer_.options().max_file && is_file(plain, plain_);
  if (good && there && ::rename(unfinished().c_str(), Writer::compressed_path(writer_.path(), index_).c_str()) == 0)
    ::unlink(plain.c_str());
  else ::unlink(unfinished().c_str());
  if (good) start_next();
}

}  // namespace gantry::logs
