#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "logs/format.hpp"
#include "sys/file.hpp"

namespace gantry::logs {

struct WriterOptions {
  std::uint64_t max_size = 0;  // bytes of one file; 0: no limit
  std::uint32_t max_file = 1;  // files in all; at least 1
};

/// Writes a container's output to its json-file log: `path`, and older files as `path`.1, `path`.2 …; somebody may have
/// compressed those into `path`.1.gz and so on (see on_rotation), which then take part in the rotation.
///
/// It never throws after construction and never waits for anything but the disk. Output that cannot be written (disk
/// full, directory gone) is dropped and counted, the file is left whole, and the next output tries again.
/// A file is never larger than max_size, unless a single entry is. Rotation renames; no file is truncated in place, so
/// a reader that has it open reads all of it.
class Writer {
 public:
  Writer(sys::Path path, WriterOptions options, std::string attrs = {});
  ~Writer();
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  /// Takes output as it comes, cuts it into lines and writes all whole ones with one write(2), stamped `now`. The
  /// start of an unfinished line is kept until its end, or kMaxLine bytes of it, have come.
  void append(Stream stream, std::string_view bytes, Timestamp now);
  /// Writes unfinished lines as they are. At the end of the output.
  void finish(Timestamp now);
  /// Called after each rotation that kept the old file, which is `path`.1 then, and the others one number higher.
  void on_rotation(std::function<void()> action) { rotated_ = std::move(action); }
  /// Removes rotated files that a smaller max_file no longer allows.
  void set_options(WriterOptions options);
  const WriterOptions& options() const noexcept { return options_; }
  /// Opens `path` anew, for when somebody has moved the file away.
  void reopen();
  /// Removes rotated files and begins a new one.
  void clear();
  /// Gives the formatting buffer back; the next append allocates it again.
  void release_memory() noexcept { buffer_.reset(); }

  std::uint64_t dropped_bytes() const noexcept { return dropped_; }
  const sys::Path& path() const noexcept { return path_; }
  /// `path`.<index>, and the name of the same file compressed.
  static sys::Path rotated_path(const sys::Path& path, std::uint32_t index);
  static sys::Path compressed_path(const sys::Path& path, std::uint32_t index);

 private:
  struct Batch;
  struct FreeDeleter {
    void operator()(char* p) const noexcept;
  };
  std::optional<Batch> begin_batch(Stream stream, Timestamp now);
  void put_held(Batch& batch, std::string& held, bool whole);
  void put_entry(Batch& batch, const char* text, std::size_t size, bool newline);
  void write_out(Batch& batch);
  void rotate();
  bool open_file();
  void remove_rotated(std::uint32_t from);
  std::string& carry(Stream stream) { return carry_[stream == Stream::err ? 1 : 0]; }
  std::size_t worst_entry(std::size_t size) const noexcept;
  std::size_t buffer_size() const noexcept;

  sys::Path path_;
  WriterOptions options_;
  std::string attrs_;
  sys::Fd file_;
  std::uint64_t size_ = 0;  // of the current file
  std::uint64_t dropped_ = 0;
  std::string carry_[2];
  std::function<void()> rotated_;
  std::unique_ptr<char, FreeDeleter> buffer_;
};

}  // namespace gantry::logs
