#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

struct stat;

/// Rotated files that were compressed: `<log>.1.gz` in place of `<log>.1`.
///
/// The gzip header's extra field (RFC 1952, subfield "GL") names the file that was compressed, so that a follower that
/// still holds that one open knows which compressed file not to read again.
namespace gantry::logs {

/// What tells one log file from every other: an inode number alone is used again at once.
struct FileIdentity {
  std::uint64_t inode = 0;
  std::uint64_t size = 0;
  std::int64_t modified_ns = 0;
  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

FileIdentity identity_of(const struct stat& info);
/// The content of the gzip header's extra field.
std::string encode_extra(const FileIdentity& identity);
std::optional<FileIdentity> decode_extra(std::string_view extra);
/// Reads a compressed log's header. nullopt if it is no gzip file or names no origin. Blocks on the disk.
std::optional<FileIdentity> read_origin(int fd);

}  // namespace gantry::logs
