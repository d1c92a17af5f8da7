#include "logs/reader.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/error.hpp"
#include "logs/render.hpp"
#include "logs/writer.hpp"

namespace gantry::logs {
namespace {

constexpr std::size_t kChunk = 256 << 10;
/// Longer lines are not ours: an entry of kMaxLine bytes takes at most 100 KiB, and attrs are bounded by the API.
constexpr std::size_t kMaxLineOnDisk = 1 << 20;
constexpr unsigned kMaxFiles = 1000;

}  // namespace

LogReader::LogReader(sys::Path path, ReadOptions options) : path_(std::move(path)), options_(options) {
  if (options_.follow) watch();  // before the first look, so that nothing falls between the two
  for (File& file : open_newer_than(nullptr)) {
    struct stat info{};
    if (!options_.follow && !file.compressed && ::fstat(file.fd.get(), &info) == 0)
      file.end = static_cast<std::uint64_t>(info.st_size);
    files_.push_back(std::move(file));
  }
  if (options_.tail) seek_tail(*options_.tail);
  else if (options_.since) skip_before(*options_.since);
}

std::optional<LogReader::File> LogReader::open_log(const sys::Path& path, bool compressed) {
  File file;
  file.fd = sys::Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat info{};
  if (!file.fd || ::fstat(file.fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) return std::nullopt;
  file.device = info.st_dev;
  file.inode = info.st_ino;
  file.compressed = compressed;
  if (compressed) file.origin = read_origin(file.fd.get());
  return file;
}

/// Where both forms are there, the plain one is the whole one.
std::optional<LogReader::File> LogReader::open_number(unsigned index) const {
  if (index == 0) return open_log(path_, false);
  std::optional<File> file = open_log(Writer::rotated_path(path_, index), false);
  return file ? std::move(file) : open_log(Writer::compressed_path(path_, index), true);
}

/// Also true of a file and what it was compressed to.
bool LogReader::same_file(const File& a, const File& b) {
  if (a.device == b.device && a.inode == b.inode) return true;
  if (a.compressed == b.compressed) return false;
  const std::optional<FileIdentity>& origin = a.compressed ? a.origin : b.origin;
  struct stat info{};
  return origin && ::fstat((a.compressed ? b : a).fd.get(), &info) == 0 && *origin == identity_of(info);
}

std::uint64_t LogReader::count_lines(const File& file) {
  GzipReader gzip(file.fd.get());
  std::string chunk;
  std::uint64_t lines = 0;
  while (gzip.read(chunk, kChunk)) {
    lines += static_cast<std::uint64_t>(std::count(chunk.begin(), chunk.end(), '\n'));
    chunk.clear();
  }
  return lines;
}

/// The files that are newer than `current`, oldest first; all if it is null or no longer there.
///
/// The newest is opened first: a rotation in between then shows the same file twice, which is noticed, instead of
/// hiding one.
std::vector<LogReader::File> LogReader::open_newer_than(const File* current) const {
  std::vector<File> found;
  for (unsigned index = 0, missing = 0; index <= kMaxFiles && missing < 2; ++index) {
    std::optional<File> file = open_number(index);
    if (!file) {
      // One number may be missing for a moment, in the middle of a rotation.
      ++missing;
      continue;
    }
    missing = 0;
    const auto same = [&file](const File& other) { return same_file(other, *file); };
    if (current != nullptr && same(*current)) break;
    if (std::none_of(found.begin(), found.end(), same)) found.push_back(std::move(*file));
  }
  std::reverse(found.begin(), found.end());
  return found;
}

/// Sets the files and the first one's offset so that `lines` whole lines remain.
void LogReader::seek_tail(std::uint64_t lines) {
  std::string chunk(64 << 10, '\0');
  for (std::size_t i = files_.size(); i-- > 0;) {
    if (files_[i].compressed) {
      const std::uint64_t there = count_lines(files_[i]);
      if (there < lines) {
        lines -= there;
        continue;
      }
      files_[i].skip_lines = there - lines;
      files_.erase(files_.begin(), files_.begin() + static_cast<std::ptrdiff_t>(i));
      return;
    }
    struct stat info{};
    if (::fstat(files_[i].fd.get(), &info) != 0) continue;
    auto at = static_cast<std::uint64_t>(info.st_size);
    bool in_last_line = true;  // what follows the last newline is torn and no line
    while (at > 0) {
      const std::uint64_t size = std::min<std::uint64_t>(at, chunk.size());
      const ssize_t got = ::pread(files_[i].fd.get(), chunk.data(), size, static_cast<off_t>(at - size));
      if (got != static_cast<ssize_t>(size)) break;
      at -= size;
      std::uint64_t end = size;
      while (const void* newline = ::memrchr(chunk.data(), '\n', end)) {
        end = static_cast<std::uint64_t>(static_cast<const char*>(newline) - chunk.data());
        if (!in_last_line && lines > 0) --lines;
        in_last_line = false;
        if (lines != 0) continue;
        files_[i].offset = at + end + 1;
        files_.erase(files_.begin(), files_.begin() + static_cast<std::ptrdiff_t>(i));
        return;
      }
    }
    if (!in_last_line && lines > 0) --lines;  // the file's first line has no newline before it
    if (lines == 0) {
      files_.erase(files_.begin(), files_.begin() + static_cast<std::ptrdiff_t>(i));
      return;
    }
  }
}

/// Leaves out files that were last written before `since`.
void LogReader::skip_before(Timestamp since) {
  while (files_.size() > 1) {
    struct stat info{};
    if (::fstat(files_.front().fd.get(), &info) != 0) return;
    // File times are coarser than log times; an hour's grace also covers a corrected clock.
    const Timestamp written{std::chrono::seconds(info.st_mtim.tv_sec + 3600)};
    if (written >= since) return;
    files_.pop_front();
  }
}

void LogReader::watch() {
  notify_ = sys::Fd(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  const sys::Path directory = path_.parent_path();
  if (notify_ && ::inotify_add_watch(notify_.get(), directory.c_str(),
                                     IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_ONLYDIR) >= 0)
    return;
  // Out of inotify instances (fs.inotify.max_user_instances): look five times a second instead.
  notify_ = sys::Fd(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
  const timespec period{0, 200'000'000};
  const itimerspec when{period, period};
  if (!notify_ || ::timerfd_settime(notify_.get(), 0, &when, nullptr) != 0)
    throw Error::from_errno(errno, "follow log");
  notify_is_timer_ = true;
}

void LogReader::drain_notifications() {
  if (!notify_) return;
  alignas(inotify_event) char events[4096];
  while (::read(notify_.get(), events, notify_is_timer_ ? 8 : sizeof events) > 0) {
  }
}

/// Reads more of the front file into the buffer. false at its end.
bool LogReader::fill() {
  if (begin_ > 0) {
    buffer_.erase(0, begin_);
    begin_ = 0;
  }
  File& file = files_.front();
  if (file.compressed) {
    if (!file.gzip) file.gzip.emplace(file.fd.get());
    return file.gzip->read(buffer_, kChunk);
  }
  if (file.offset >= file.end) return false;
  const std::size_t chunk = std::min<std::uint64_t>(kChunk, file.end - file.offset);
  const std::size_t old = buffer_.size();
  buffer_.resize(old + chunk);
  const ssize_t got = ::pread(file.fd.get(), buffer_.data() + old, chunk, static_cast<off_t>(file.offset));
  buffer_.resize(old + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  if (got > 0) {
    file.offset += static_cast<std::uint64_t>(got);
    return true;
  }
  struct stat info{};
  if (got == 0 && ::fstat(file.fd.get(), &info) == 0 && static_cast<std::uint64_t>(info.st_size) < file.offset) {
    // Somebody emptied the file in place.
    file.offset = 0;
    buffer_.clear();
    return info.st_size > 0 && fill();
  }
  return false;
}

std::optional<std::string_view> LogReader::next_line() {
  std::size_t searched = 0;
  for (;;) {
    if (!buffer_.empty()) {
      const char* const start = buffer_.data() + begin_;
      const std::size_t size = buffer_.size() - begin_;
      const auto* newline = static_cast<const char*>(std::memchr(start + searched, '\n', size - searched));
      if (newline != nullptr) {
        const auto length = static_cast<std::size_t>(newline - start);
        begin_ += length + 1;
        std::uint64_t& skip = files_.front().skip_lines;
        if (std::exchange(skipping_, false) || skip > 0) {
          if (skip > 0) --skip;
          searched = 0;
          continue;
        }
        return std::string_view(start, length);
      }
      searched = size;
      if (size > kMaxLineOnDisk) {
        if (!skipping_) ++damaged_;
        skipping_ = true;
        buffer_.clear();
        begin_ = searched = 0;
      }
    }
    if (!fill()) return std::nullopt;
  }
}

/// Called at the end of the front file. true if there is something more to read, in it or in the next one.
bool LogReader::advance_file() {
  if (files_.empty()) {
    for (File& file : open_newer_than(nullptr)) files_.push_back(std::move(file));
    return !files_.empty();
  }
  if (files_.size() == 1) {
    struct stat info{};
    const File& front = files_.front();
    if (!options_.follow ||
        (::lstat(path_.c_str(), &info) == 0 && info.st_dev == front.device && info.st_ino == front.inode))
      return false;
    for (File& file : open_newer_than(&front)) files_.push_back(std::move(file));
    if (files_.size() == 1) return false;  // the next file is about to be made
  }
  // It is known now that nobody writes to the front file any more: what is there is all there will be.
  if (!std::exchange(final_pass_, true)) return true;
  final_pass_ = false;
  files_.pop_front();
  if (begin_ < buffer_.size()) ++damaged_;  // half a line at the end
  buffer_.clear();
  begin_ = 0;
  skipping_ = false;
  return true;
}

LogReader::Step LogReader::next_entry(Entry& entry, Timestamp& time) {
  for (;;) {
    std::optional<std::string_view> line;
    if (!files_.empty()) line = next_line();
    if (!line) {
      if (advance_file()) continue;
      return Step::nothing;
    }
    if (line->empty()) continue;
    if (!decode_line(*line, entry, scratch_) && !decode_damaged(*line, entry)) continue;
    if (!second_.parse(entry.time, time)) {
      ++damaged_;
      continue;
    }
    if (options_.until && time > *options_.until) return Step::end;
    if (options_.since && time < *options_.since) continue;
    if (!(entry.stream == Stream::err ? options_.want_stderr : options_.want_stdout)) continue;
    return Step::entry;
  }
}

/// After a crash a good entry may stand behind zeros or half of another one.
bool LogReader::decode_damaged(std::string_view line, Entry& entry) {
  ++damaged_;
  const std::size_t start = line.rfind("{\"log\":");
  return start != std::string_view::npos && start > 0 && decode_line(line.substr(start), entry, scratch_);
}

template <class Sink>
LogReader::Status LogReader::read_entries(Sink&& sink) {
  if (ended_) return Status::end;
  drain_notifications();
  Entry entry;
  Timestamp time;
  for (;;) {
    switch (next_entry(entry, time)) {
      case Step::entry:
        if (sink(entry, time)) return Status::more;
        break;
      case Step::nothing:
        if (options_.follow && !finishing_) {
          if (begin_ == buffer_.size()) buffer_ = std::string(), begin_ = 0;
          return Status::wait;
        }
        [[fallthrough]];
      case Step::end: ended_ = true; return Status::end;
    }
  }
}

LogReader::Status LogReader::next_batch(std::vector<OwnedEntry>& out, std::size_t max_bytes) {
  std::size_t bytes = 0;
  return read_entries([&](const Entry& entry, Timestamp time) {
    out.push_back({time, entry.stream, std::string(entry.text), std::string(entry.attrs)});
    bytes += entry.text.size() + sizeof(OwnedEntry);
    return bytes >= max_bytes;
  });
}

LogReader::Status LogReader::next_frames(std::string& out, const RenderOptions& render, std::size_t max_bytes) {
  const std::size_t limit = out.size() + max_bytes;
  return read_entries([&](const Entry& entry, Timestamp time) {
    append_entry(out, entry, time, render, second_);
    return out.size() >= limit;
  });
}

}  // namespace gantry::logs
