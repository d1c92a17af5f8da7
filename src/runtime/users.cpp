#include "runtime/users.hpp"

#include <algorithm>

#include <fcntl.h>
#include <sys/stat.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "sys/file.hpp"

namespace gantry::runtime {
namespace {

constexpr std::int64_t kMaxId = 2147483647;  // Docker's bound; above it, ids wrap in some programs (CVE-2024-40635)
constexpr std::size_t kFileLimit = 16 << 20;

[[noreturn]] void out_of_range() { throw Error(Errc::invalid_argument, "uids and gids must be in range 0-2147483647"); }

/// Whether the text is meant as a number. Names may not begin with a digit and end with something else only in a
/// number's disguise: "+0", "-1" and digits alone are numbers.
bool looks_numeric(std::string_view text) {
  if (text.starts_with('+') || text.starts_with('-')) text.remove_prefix(1);
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

std::uint32_t parse_id(std::string_view text) {
  const auto number = parse_int(text);
  if (!number || *number < 0 || *number > kMaxId) out_of_range();
  return static_cast<std::uint32_t>(*number);
}

/// An id inside a passwd or group file; nullopt if the line makes no sense.
std::optional<std::uint32_t> entry_id(const std::string& text) {
  const auto number = parse_int(text);
  if (!number || *number < 0 || *number > kMaxId) return std::nullopt;
  return static_cast<std::uint32_t>(*number);
}

struct PasswdEntry {
  std::string name;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::string home;
};
struct GroupEntry {
  std::string name;
  std::uint32_t gid = 0;
  std::vector<std::string> members;
};

/// name:password:uid:gid:gecos:home:shell
std::optional<PasswdEntry> find_passwd(const std::optional<std::string>& file, auto&& matches) {
  if (!file) return std::nullopt;
  for (const std::string& line : split(*file, '\n')) {
    const auto fields = split(trim(line), ':');
    if (fields.size() < 4 || fields[0].empty() || fields[0].starts_with('#')) continue;
    const auto uid = entry_id(fields[2]), gid = entry_id(fields[3]);
    if (!uid || !gid) continue;
    PasswdEntry entry{fields[0], *uid, *gid, fields.size() > 5 ? fields[5] : std::string()};
    if (matches(entry)) return entry;
  }
  return std::nullopt;
}

/// name:password:gid:member,member
std::vector<GroupEntry> read_groups(const std::optional<std::string>& file) {
  std::vector<GroupEntry> groups;
  if (!file) return groups;
  for (const std::string& line : split(*file, '\n')) {
    const auto fields = split(trim(line), ':');
    if (fields.size() < 3 || fields[0].empty() || fields[0].starts_with('#')) continue;
    const auto gid = entry_id(fields[2]);
    if (gid)
      groups.push_back({fields[0], *gid, fields.size() > 3 ? split(fields[3], ',') : std::vector<std::string>()});
  }
  return groups;
}

std::optional<std::uint32_t> group_id(const std::vector<GroupEntry>& groups, std::string_view text) {
  if (looks_numeric(text)) return parse_id(text);
  for (const GroupEntry& group : groups)
    if (group.name == text) return group.gid;
  return std::nullopt;
}

std::optional<std::string> read_inside(int root, const std::string& path) {
  sys::Fd fd;
  try {
    // O_NONBLOCK: the image may have put a FIFO there, whose open would wait for a writer.
    fd = sys::open_in_root(root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  } catch (const Error& e) {
    if (e.sys_errno() == ENOENT || e.sys_errno() == ENOTDIR) return std::nullopt;
    throw;
  }
  struct stat st{};
  if (::fstat(fd.get(), &st) != 0) throw Error::from_errno(errno, "stat " + path);
  if (!S_ISREG(st.st_mode)) throw Error(Errc::invalid_argument, fmt::format("{} is not a regular file", path));
  return sys::read_all(fd.get(), kFileLimit);
}

}  // namespace

ResolvedUser resolve_user(const std::optional<std::string>& passwd, const std::optional<std::string>& group,
                          std::string_view user, const std::vector<std::string>& group_add) {
  const auto [user_text, group_text] = split_once(user, ':');
  const bool numeric = user_text.empty() || looks_numeric(user_text);
  const std::uint32_t wanted = user_text.empty() || !numeric ? 0 : parse_id(user_text);
  const auto entry =
      find_passwd(passwd, [&](const PasswdEntry& e) { return numeric ? e.uid == wanted : e.name == user_text; });
  if (!entry && !numeric)
    throw Error(Errc::invalid_argument,
                fmt::format("unable to find user {}: no matching entries in passwd file", user_text));

  ResolvedUser out;
  out.user.uid = entry ? entry->uid : wanted;
  out.user.gid = entry ? entry->gid : 0;
  out.name = entry ? entry->name : std::string();
  out.home = entry && !entry->home.empty() ? entry->home : "/";

  const auto groups = read_groups(group);
  std::vector<std::uint32_t> additional;
  if (!group_text.empty()) {
    const auto gid = group_id(groups, group_text);
    if (!gid)
      throw Error(Errc::invalid_argument,
                  fmt::format("unable to find group {}: no matching entries in group file", group_text));
    out.user.gid = *gid;
  } else if (entry) {
    for (const GroupEntry& g : groups)
      if (std::ranges::find(g.members, entry->name) != g.members.end()) additional.push_back(g.gid);
  }
  for (const std::string& text : group_add) {
    const auto gid = group_id(groups, text);
    if (!gid) throw Error(Errc::invalid_argument, fmt::format("Unable to find group {}", text));
    additional.push_back(*gid);
  }
  // Docker lists the primary group among the additional ones.
  out.user.additional_gids.push_back(out.user.gid);
  for (const std::uint32_t gid : additional)
    if (std::ranges::find(out.user.additional_gids, gid) == out.user.additional_gids.end())
      out.user.additional_gids.push_back(gid);
  return out;
}

ResolvedUser resolve_user_blocking(const std::string& rootfs, std::string_view user,
                                   const std::vector<std::string>& group_add) {
  const sys::Fd root = sys::open_file(rootfs, O_PATH | O_DIRECTORY);
  return resolve_user(read_inside(root.get(), "etc/passwd"), read_inside(root.get(), "etc/group"), user, group_add);
}

}  // namespace gantry::runtime
