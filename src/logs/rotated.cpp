#include "logs/rotated.hpp"

#include <sys/stat.h>
#include <unistd.h>

namespace gantry::logs {
namespace {

constexpr std::size_t kFixedHeader = 10;  // RFC 1952, 2.3
constexpr unsigned char kExtraFlag = 4;
constexpr std::size_t kPayload = 24;

void put(std::string& out, std::uint64_t value) {
  for (int i = 0; i < 8; ++i) out += static_cast<char>(value >> (8 * i));
}

std::uint64_t get(std::string_view bytes) {
  std::uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(bytes[static_cast<std::size_t>(i)]);
  return value;
}

}  // namespace

FileIdentity identity_of(const struct stat& info) {
  return {info.st_ino, static_cast<std::uint64_t>(info.st_size),
          std::int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec};
}

std::string encode_extra(const FileIdentity& identity) {
  std::string out = "GL";
  out += static_cast<char>(kPayload);
  out += '\0';
  put(out, identity.inode);
  put(out, identity.size);
  put(out, static_cast<std::uint64_t>(identity.modified_ns));
  return out;
}

std::optional<FileIdentity> decode_extra(std::string_view extra) {
  if (extra.size() < 4 + kPayload || !extra.starts_with("GL") || extra[2] != kPayload || extra[3] != 0)
    return std::nullopt;
  extra.remove_prefix(4);
  return FileIdentity{get(extra), get(extra.substr(8)), static_cast<std::int64_t>(get(extra.substr(16)))};
}

std::optional<FileIdentity> read_origin(int fd) {
  char header[kFixedHeader + 2 + 4 + kPayload];
  if (::pread(fd, header, sizeof header, 0) != sizeof header) return std::nullopt;
  if (header[0] != '\x1f' || header[1] != '\x8b' || (static_cast<unsigned char>(header[3]) & kExtraFlag) == 0)
    return std::nullopt;
  return decode_extra({header + kFixedHeader + 2, 4 + kPayload});
}

}  // namespace gantry::logs
