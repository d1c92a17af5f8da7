#include "logs/writer.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace gantry::logs {
namespace {

constexpr std::size_t kBufferSize = 512 << 10;
constexpr std::string_view kPrefix = "{\"log\":\"";

}  // namespace

sys::Path Writer::rotated_path(const sys::Path& path, std::uint32_t index) {
  sys::Path out = path;
  out += "." + std::to_string(index);
  return out;
}

sys::Path Writer::compressed_path(const sys::Path& path, std::uint32_t index) {
  return rotated_path(path, index) += ".gz";
}

void Writer::FreeDeleter::operator()(char* p) const noexcept { std::free(p); }

/// Entries formatted but not yet written, and the end that all of them share.
struct Writer::Batch {
  char* begin = nullptr;
  char* end = nullptr;
  std::string suffix;
};

Writer::Writer(sys::Path path, WriterOptions options, std::string attrs)
    : path_(std::move(path)), options_(options), attrs_(std::move(attrs)) {
  options_.max_file = std::max<std::uint32_t>(options_.max_file, 1);
  open_file();
}

Writer::~Writer() = default;

std::size_t Writer::worst_entry(std::size_t size) const noexcept { return size * kWorstEscape + attrs_.size() + 256; }

std::size_t Writer::buffer_size() const noexcept { return std::max(kBufferSize, 2 * worst_entry(kMaxLine)); }

std::optional<Writer::Batch> Writer::begin_batch(Stream stream, Timestamp now) {
  if (!buffer_) buffer_.reset(static_cast<char*>(std::malloc(buffer_size())));
  if (!buffer_) return std::nullopt;
  Batch batch{buffer_.get(), buffer_.get(), {}};
  batch.suffix.append("\",\"stream\":\"").append(stream_name(stream)).append("\"");
  if (!attrs_.empty()) batch.suffix.append(",\"attrs\":").append(attrs_);
  batch.suffix.append(",\"time\":\"").append(render_rfc3339_nano(now)).append("\"}\n");
  return batch;
}

void Writer::append(Stream stream, std::string_view bytes, Timestamp now) {
  std::optional<Batch> batch = begin_batch(stream, now);
  if (!batch) {
    dropped_ += bytes.size();
    return;
  }
  std::string& held = carry(stream);
  while (!bytes.empty()) {
    const std::size_t window = std::min(bytes.size(), kMaxLine - held.size());
    const auto* newline = static_cast<const char*>(std::memchr(bytes.data(), '\n', window));
    std::size_t taken = newline != nullptr ? static_cast<std::size_t>(newline - bytes.data()) + 1 : window;
    if (!held.empty() || (newline == nullptr && window < kMaxLine)) {
      held.append(bytes.data(), taken);
      put_held(*batch, held, newline != nullptr);
    } else {
      if (newline == nullptr) taken = cut_point(bytes.data());
      put_entry(*batch, bytes.data(), newline != nullptr ? taken - 1 : taken, newline != nullptr);
    }
    bytes.remove_prefix(taken);
  }
  if (held.empty() && held.capacity() > 1024) held = std::string();
  write_out(*batch);
}

void Writer::put_held(Batch& batch, std::string& held, bool whole) {
  if (whole) {
    put_entry(batch, held.data(), held.size() - 1, true);
    held.clear();
  } else if (held.size() == kMaxLine) {
    const std::size_t cut = cut_point(held.data());
    put_entry(batch, held.data(), cut, false);
    held.erase(0, cut);
  }
}

void Writer::finish(Timestamp now) {
  for (const Stream stream : {Stream::out, Stream::err}) {
    const std::string rest = std::exchange(carry(stream), {});
    if (rest.empty()) continue;
    std::optional<Batch> batch = begin_batch(stream, now);
    if (!batch) return;
    put_entry(*batch, rest.data(), rest.size(), false);
    write_out(*batch);
  }
  buffer_.reset();
}

void Writer::set_options(WriterOptions options) {
  options_ = options;
  options_.max_file = std::max<std::uint32_t>(options_.max_file, 1);
  remove_rotated(options_.max_file);
}

void Writer::remove_rotated(std::uint32_t from) {
  // A rotation that was cut short can leave one number out: go on until two in a row are missing.
  for (std::uint32_t index = from, missing = 0; missing < 2; ++index) {
    const bool plain = ::unlink(rotated_path(path_, index).c_str()) == 0;
    const bool compressed = ::unlink(compressed_path(path_, index).c_str()) == 0;
    missing = plain || compressed ? 0 : missing + 1;
  }
}

void Writer::put_entry(Batch& batch, const char* text, std::size_t size, bool newline) {
  const auto used = static_cast<std::size_t>(batch.end - batch.begin);
  if (used + worst_entry(size) > buffer_size()) write_out(batch);
  char* const start = batch.end;
  char* to = start;
  std::memcpy(to, kPrefix.data(), kPrefix.size());
  to = write_escaped(to + kPrefix.size(), text, size);
  if (newline) *to++ = '\\', *to++ = 'n';
  std::memcpy(to, batch.suffix.data(), batch.suffix.size());
  to += batch.suffix.size();
  batch.end = to;
  if (options_.max_size == 0) return;
  const auto pending = static_cast<std::uint64_t>(to - batch.begin);
  if (size_ + pending <= options_.max_size) return;
  // This entry no longer fits: what came before it goes into the current file, it begins the next one.
  const auto length = static_cast<std::size_t>(to - start);
  batch.end = start;
  write_out(batch);
  if (size_ != 0) rotate();
  std::memmove(batch.begin, start, length);
  batch.end = batch.begin + length;
}

void Writer::write_out(Batch& batch) {
  const auto size = static_cast<std::size_t>(batch.end - batch.begin);
  batch.end = batch.begin;
  if (size == 0) return;
  if (!file_ && !open_file()) {
    dropped_ += size;
    return;
  }
  std::size_t done = 0;
  while (done < size) {
    const ssize_t wrote = ::write(file_.get(), batch.begin + done, size - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) break;
    done += static_cast<std::size_t>(wrote);
  }
  if (done == size) {
    size_ += size;
    return;
  }
  // Keep the whole lines of what was written; half a line would spoil the next one.
  std::size_t keep = done;
  while (keep > 0 && batch.begin[keep - 1] != '\n') --keep;
  struct stat info{};
  if (keep != done && ::fstat(file_.get(), &info) == 0 && info.st_size >= static_cast<off_t>(done - keep))
    (void)::ftruncate(file_.get(), info.st_size - static_cast<off_t>(done - keep));
  size_ += keep;
  dropped_ += size - keep;
}

bool Writer::open_file() {
  file_ = sys::Fd(::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640));
  if (!file_) return false;
  struct stat info{};
  if (::fstat(file_.get(), &info) != 0) info.st_size = 0;
  size_ = static_cast<std::uint64_t>(info.st_size);
  // A crash may have left half a line. It must not swallow the next one.
  char last = '\n';
  if (size_ > 0 && ::pread(file_.get(), &last, 1, info.st_size - 1) == 1 && last != '\n' &&
      ::write(file_.get(), "\n", 1) == 1)
    ++size_;
  return true;
}

void Writer::rotate() {
  file_.reset();
  const std::uint32_t oldest = options_.max_file - 1;
  if (oldest == 0) {
    ::unlink(path_.c_str());
  } else {
    // Away with it first: ext4 writes a file out at once when it is renamed over another (auto_da_alloc).
    ::unlink(rotated_path(path_, oldest).c_str());
    ::unlink(compressed_path(path_, oldest).c_str());
    for (std::uint32_t index = oldest; index > 1; --index) {
      ::rename(rotated_path(path_, index - 1).c_str(), rotated_path(path_, index).c_str());
      ::rename(compressed_path(path_, index - 1).c_str(), compressed_path(path_, index).c_str());
    }
    ::rename(path_.c_str(), rotated_path(path_, 1).c_str());
  }
  size_ = 0;
  open_file();
  if (oldest > 0 && rotated_) rotated_();
}

void Writer::reopen() { open_file(); }

void Writer::clear() {
  file_.reset();
  remove_rotated(1);
  ::unlink(path_.c_str());
  size_ = 0;
  open_file();
}

}  // namespace gantry::logs
