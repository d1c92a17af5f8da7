#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "logs/format.hpp"
#include "logs/inflate.hpp"
#include "logs/render.hpp"
#include "logs/rotated.hpp"
#include "sys/file.hpp"

namespace gantry::logs {

struct ReadOptions {
  bool want_stdout = true;
  bool want_stderr = true;
  std::optional<Timestamp> since;  // entries before it are left out
  std::optional<Timestamp> until;  // the first entry after it ends the reading
  /// Only the last `tail` entries of what is there at the start (of both streams together, as Docker counts).
  std::optional<std::uint64_t> tail;
  bool follow = false;
};

/// How entries are written into the reply.
struct RenderOptions {
  bool framed = true;       // the 8-byte stream header before each entry; false for terminals
  bool timestamps = false;  // "2026-11-22T13:29:07.414505377Z " before the text
  bool details = false;     // the attrs as "k=v,k2=v2 " (URL-escaped, sorted) before the text
  bool json = false;        // one JSON object per line instead of all that; details adds the attrs
};

struct OwnedEntry {
  Timestamp time;
  Stream stream = Stream::out;
  std::string text;
  std::string attrs;  // JSON object or empty
};

/// Reads a json-file log from the oldest rotated file to the newest, and then follows it if asked. Rotated files may be
/// compressed, also while they are being read.
///
/// Files that were there when it was opened are held open: rotation during the reading loses and repeats nothing. A
/// follower sees each entry once; only if it falls behind by all of max-file files it misses what was deleted.
/// Damaged lines are skipped and counted; an unfinished last line is left for later (follow) or left out.
///
/// Everything here may block on the disk: call it in a lane. Not thread-safe; may move between threads. While idle in
/// Status::wait it holds no buffer.
class LogReader {
 public:
  enum class Status {
    more,  // call again
    wait,  // everything is read: wait until wait_fd() is readable, then call again
    end,
  };

  /// A log that does not exist is empty. Throws only if follow cannot be set up at all.
  LogReader(sys::Path path, ReadOptions options);

  /// Appends entries to `out` until about `max_bytes` of text are there or nothing is left.
  Status next_batch(std::vector<OwnedEntry>& out, std::size_t max_bytes = 256 << 10);
  /// The fast path: appends entries to `out` as they go to the client.
  Status next_frames(std::string& out, const RenderOptions& render, std::size_t max_bytes = 256 << 10);

  /// Readable (poll) when there may be news. -1 unless following.
  int wait_fd() const noexcept { return notify_.get(); }
  /// The container has ended: what is there is read to the end, and then comes Status::end instead of wait.
  void finish() noexcept { finishing_ = true; }
  std::uint64_t damaged_lines() const noexcept { return damaged_; }

 private:
  struct File {
    sys::Fd fd;
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
    std::uint64_t offset = 0;
    std::uint64_t end = UINT64_MAX;  // without follow: its size at the start, so that reading ends
    bool compressed = false;
    std::optional<FileIdentity> origin;  // of a compressed one
    std::optional<GzipReader> gzip;      // while it is being read
    std::uint64_t skip_lines = 0;        // of a compressed one, from its beginning
  };
  enum class Step { entry, nothing, end };

  static std::optional<File> open_log(const sys::Path& path, bool compressed);
  std::optional<File> open_number(unsigned index) const;
  static bool same_file(const File& a, const File& b);
  static std::uint64_t count_lines(const File& file);
  std::vector<File> open_newer_than(const File* current) const;
  void seek_tail(std::uint64_t lines);
  void skip_before(Timestamp since);
  void watch();
  void drain_notifications();

  template <class Sink>
  Status read_entries(Sink&& sink);
  Step next_entry(Entry& entry, Timestamp& time);
  std::optional<std::string_view> next_line();
  bool fill();
  bool advance_file();
  bool decode_damaged(std::string_view line, Entry& entry);

  sys::Path path_;
  ReadOptions options_;
  std::deque<File> files_;  // front: being read
  std::string buffer_;
  std::size_t begin_ = 0;    // of what is not yet consumed
  bool skipping_ = false;    // inside a line that is too long to be one of ours
  bool final_pass_ = false;  // the front file was found rotated and has been read once more
  bool finishing_ = false;
  bool ended_ = false;
  std::uint64_t damaged_ = 0;
  sys::Fd notify_;
  bool notify_is_timer_ = false;
  std::string scratch_;
  SecondCache second_;
};

}  // namespace gantry::logs
