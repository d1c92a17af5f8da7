#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <sys/stat.h>

#include "sys/file.hpp"

namespace gantry::solver {

/// SHA-256 of file's data, in bytes.
using DataDigest = std::array<unsigned char, 32>;

/// Digests of files' data that a directory of ours keeps from build to build. A file is known again by its number,
/// size and times; its change time tells of every write. The file on disk is a table sorted by number, and is mapped,
/// so that a million files cost no memory of ours. A damaged file is no file.
class FileNotes {
 public:
  /// An empty path: nothing is kept.
  explicit FileNotes(sys::Path file);
  ~FileNotes();
  FileNotes(const FileNotes&) = delete;
  FileNotes& operator=(const FileNotes&) = delete;

  const DataDigest* find(const struct stat& st) const;
  void add(const struct stat& st, const DataDigest& digest);
  /// Writes what was added. `all` says that every file of the directory was asked for: what was not is forgotten.
  void save(bool all);

 private:
  struct Note {
    std::uint64_t inode;
    std::int64_t size;
    std::int64_t changed;   // nanoseconds
    std::int64_t modified;  // nanoseconds
    DataDigest digest;
  };
  static Note key_of(const struct stat& st);
  static bool same_file(const Note& a, const Note& b);
  void map();

  const sys::Path file_;
  const Note* known_ = nullptr;
  std::size_t count_ = 0;
  std::size_t mapped_bytes_ = 0;
  void* mapping_ = nullptr;
  mutable std::vector<bool> asked_;
  std::vector<Note> added_;
};

}  // namespace gantry::solver
