#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>
#include <time.h>

#include "storage/budget.hpp"
#include "storage/byte_source.hpp"
#include "sys/xattr.hpp"

namespace gantry::storage {

enum class TarType { file, directory, symlink, hardlink, character_device, block_device, fifo };

struct TarEntry {
  TarType type = TarType::file;
  std::string name;  // as written: bytes, perhaps absolute, perhaps with ".."
  std::string link;  // of symlink and hardlink, as written
  mode_t mode = 0;   // permission and set-id bits
  uid_t uid = 0;
  gid_t gid = 0;
  std::uint64_t size = 0;  // of a file, holes included
  timespec mtime{};
  dev_t device = 0;
  std::vector<sys::Xattr> xattrs;
};

/// Reads a tar: v7, ustar, pax, GNU (long names, sparse), by libarchive. Numbers and sizes are checked here, names are
/// not: that is the writer's duty (unpack.hpp). Everything throws invalid_argument naming the entry, corrupted when
/// the stream is cut short, and what the source throws.
/// Requires  one thread from construction to destruction: it sets that thread's locale, which libarchive consults to
/// decide whether names may hold UTF-8.
class TarReader {
 public:
  TarReader(ByteSource& source, const UnpackBudget& budget);
  ~TarReader();
  TarReader(const TarReader&) = delete;
  TarReader& operator=(const TarReader&) = delete;

  /// False at the end of the archive; what is left of the source is read and dropped then. The entry is valid until
  /// the next call.
  const TarEntry* next();

  /// The next piece of the current file's content. Pieces come in order and do not overlap; what lies between them is
  /// zeros. False after the last.
  bool read_data(std::string_view& bytes, std::uint64_t& offset);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// A name for messages: quoted, and cut after 256 bytes.
std::string shown_name(std::string_view name);

}  // namespace gantry::storage
