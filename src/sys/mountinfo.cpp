#include "sys/mountinfo.hpp"

#include "base/text.hpp"
#include "sys/file.hpp"

namespace gantry::sys {
namespace {

/// The kernel writes space, tab, newline and backslash of a path as "\040" and the like.
std::string unescape(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  const auto octal = [&](std::size_t at) { return text[at] >= '0' && text[at] <= '7'; };
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && octal(i + 1) && octal(i + 2) && octal(i + 3)) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace

std::vector<MountInfo> parse_mountinfo(std::string_view text) {
  std::vector<MountInfo> mounts;
  for (const std::string& line : split(text, '\n')) {
    const auto fields = split(line, ' ');
    if (fields.size() < 10) continue;
    MountInfo mount;
    mount.id = static_cast<int>(parse_int(fields[0]).value_or(0));
    mount.parent = static_cast<int>(parse_int(fields[1]).value_or(0));
    mount.root = unescape(fields[3]);
    mount.mount_point = unescape(fields[4]);
    mount.options = fields[5];
    std::size_t at = 6;
    for (; at < fields.size() && fields[at] != "-"; ++at) {
      mount.shared |= fields[at].starts_with("shared:");
      mount.slave |= fields[at].starts_with("master:");
    }
    if (at + 3 >= fields.size()) continue;
    mount.type = fields[at + 1];
    mount.source = unescape(fields[at + 2]);
    mount.super_options = fields[at + 3];
    mounts.push_back(std::move(mount));
  }
  return mounts;
}

std::vector<MountInfo> list_mounts() { return parse_mountinfo(read_file("/proc/self/mountinfo")); }

bool is_mount_point(const std::vector<MountInfo>& mounts, std::string_view path) {
  for (const MountInfo& mount : mounts)
    if (mount.mount_point == path) return true;
  return false;
}

const MountInfo* find_mount_of(const std::vector<MountInfo>& mounts, std::string_view path) {
  const MountInfo* best = nullptr;
  for (const MountInfo& mount : mounts) {
    const std::string& point = mount.mount_point;
    const bool contains = point == "/" || path == point ||
                          (path.starts_with(point) && path.size() > point.size() && path[point.size()] == '/');
    if (contains && (best == nullptr || point.size() >= best->mount_point.size())) best = &mount;
  }
  return best;
}

}  // namespace gantry::sys
