#include "shim/log_compressor.hpp"

#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.hpp"
#include "base/log.hpp"
#include "sys/process.hpp"

namespace gantry::shim {

using logs::Writer;

LogCompressor::LogCompressor(Reaper& reaper, std::string program, Writer& writer)
    : reaper_(reaper), program_(std::move(program)), writer_(writer) {
  ::unlink(unfinished().c_str());
  writer_.on_rotation([this] { rotated(); });
  start_next();
}

LogCompressor::~LogCompressor() {
  writer_.on_rotation({});
  if (child_ > 0) reaper_.forget(child_);
}

sys::Path LogCompressor::unfinished() const {
  sys::Path path = writer_.path();
  return path += ".gz.tmp";
}

void LogCompressor::rotated() {
  ++index_;
  if (child_ < 0) start_next();
}

/// The newest of those that are not yet compressed: it will be there for longest.
void LogCompressor::start_next() {
  sys::Fd from;
  for (index_ = 1; index_ < writer_.options().max_file && !from; ++index_)
    from = sys::Fd(::open(Writer::rotated_path(writer_.path(), index_).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  --index_;
  if (!from) return;
  try {
    struct stat info{};
    if (::fstat(from.get(), &info) != 0) throw Error::from_errno(errno, "stat log");
    inode_ = info.st_ino;
    const sys::Fd to = sys::open_file(unfinished(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0640);
    sys::SpawnOptions spawn;
    spawn.argv = {program_, "compress"};
    spawn.stdin_fd = from.get();
    spawn.stdout_fd = to.get();
    spawn.directory = "/";
    const Reaper::Hold hold(reaper_);
    child_ = sys::spawn(spawn).pid;
    reaper_.expect(child_, [this](int status, std::int64_t) { done(status == 0); });
  } catch (const Error& e) {
    // The file stays as it is; the next rotation tries again.
    log::error("compress log: {}", e.message());
    ::unlink(unfinished().c_str());
  }
}

void LogCompressor::done(bool good) {
  child_ = -1;
  const sys::Path plain = Writer::rotated_path(writer_.path(), index_);
  struct stat info{};
  // It may have been rotated out or cleared away meanwhile.
  const bool there = index_ < writer_.options().max_file && ::lstat(plain.c_str(), &info) == 0 && info.st_ino == inode_;
  if (good && there && ::rename(unfinished().c_str(), Writer::compressed_path(writer_.path(), index_).c_str()) == 0)
    ::unlink(plain.c_str());
  else ::unlink(unfinished().c_str());
  if (good) start_next();
}

}  // namespace gantry::shim
