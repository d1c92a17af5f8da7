#include "runtime/subordinate_ids.hpp"

#include <grp.h>
#include <pwd.h>

#include <optional>
#include <vector>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::runtime {
namespace {

constexpr std::string_view kDefaultUser = "dockremap";
constexpr std::size_t kMostRanges = 340;  // user_namespaces(7)
constexpr std::int64_t kMostIds = 0xffffffff;

struct Identity {
  std::string name;
  std::int64_t id = 0;
};

[[noreturn]] void reject(std::string text) { throw Error(Errc::invalid_argument, std::move(text)); }

std::optional<Identity> find_user(const std::string& text) {
  char buffer[16384];
  passwd entry{};
  passwd* found = nullptr;
  const auto number = parse_int(text);
  if (number) (void)::getpwuid_r(static_cast<uid_t>(*number), &entry, buffer, sizeof buffer, &found);
  else (void)::getpwnam_r(text.c_str(), &entry, buffer, sizeof buffer, &found);
  if (found == nullptr) return std::nullopt;
  return Identity{found->pw_name, found->pw_uid};
}

std::optional<Identity> find_group(const std::string& text) {
  char buffer[65536];
  group entry{};
  group* found = nullptr;
  const auto number = parse_int(text);
  if (number) (void)::getgrgid_r(static_cast<gid_t>(*number), &entry, buffer, sizeof buffer, &found);
  else (void)::getgrnam_r(text.c_str(), &entry, buffer, sizeof buffer, &found);
  if (found == nullptr) return std::nullopt;
  return Identity{found->gr_name, found->gr_gid};
}

Identity require_user(const std::string& text) {
  if (auto found = find_user(text)) return *found;
  if (parse_int(text)) reject(fmt::format("Uid {} has no entry in /etc/passwd: unknown userid {}", text, text));
  reject(fmt::format("Error during {} user lookup: unknown user {}", quote(text), text));
}

Identity require_group(const std::string& text) {
  if (auto found = find_group(text)) return *found;
  if (parse_int(text)) reject(fmt::format("Gid {} has no entry in /etc/group: unknown groupid {}", text, text));
  reject(fmt::format("Error during {} group lookup: unknown group {}", quote(text), text));
}

std::vector<sys::IdRange> read_ranges(const sys::Path& file, const Identity& who, std::string_view kind) {
  std::vector<sys::IdRange> ranges;
  const auto text = sys::find_file(file, 4 << 20);
  std::int64_t inside = 0;
  for (const std::string& line : split(text.value_or(""), '\n')) {
    const auto fields = split(trim(line), ':');
    if (fields.size() != 3 || fields[0].starts_with('#')) continue;
    if (fields[0] != who.name && fields[0] != std::to_string(who.id)) continue;
    const auto first = parse_int(fields[1]), count = parse_int(fields[2]);
    if (!first || !count || *first < 0 || *count <= 0 || *first + *count > kMostIds || inside + *count > kMostIds)
      reject(fmt::format("Can't create ID mappings: {} has an invalid range: {}", file.string(), quote(line)));
    ranges.push_back(
        {static_cast<std::uint32_t>(inside), static_cast<std::uint32_t>(*first), static_cast<std::uint32_t>(*count)});
    inside += *count;
  }
  if (ranges.empty())
    reject(
        fmt::format("Can't create ID mappings: no {} ranges found for {} {}: add a line such as \"{}:100000:65536\" "
                    "to {}",
                    kind, kind == "subuid" ? "user" : "group", quote(who.name), who.name, file.string()));
  if (ranges.size() > kMostRanges)
    reject(fmt::format("Can't create ID mappings: {} has more than {} ranges for {}", file.string(), kMostRanges,
                       quote(who.name)));
  return ranges;
}

}  // namespace

sys::IdMapping read_id_mapping_blocking(const std::string& setting, const RemapFiles& files) {
  const auto parts = split(setting, ':');
  if (parts.size() > 2 || parts[0].empty() || (parts.size() == 2 && parts[1].empty()))
    reject(fmt::format("invalid user/group specification in userns-remap: {}", quote(setting)));
  const bool by_default = parts[0] == "default";
  if (by_default && parts.size() == 2)
    reject(fmt::format("invalid user/group specification in userns-remap: {}", quote(setting)));
  const std::string user_text = by_default ? std::string(kDefaultUser) : parts[0];
  if (by_default && !find_user(user_text))
    reject(
        fmt::format("userns-remap \"default\" needs the user and group {}: make them with `useradd --system {}`, and "
                    "give them ranges in {} and {}",
                    user_text, user_text, files.subuid.string(), files.subgid.string()));
  const Identity user = require_user(user_text);
  // Docker's rule: a number alone stands for the group too, a name alone for the group of that name.
  const Identity group = require_group(parts.size() == 2                  ? parts[1]
                                       : parse_int(user_text).has_value() ? std::to_string(user.id)
                                                                          : user.name);
  if (user.id == 0) return {};
  return {read_ranges(files.subuid, user, "subuid"), read_ranges(files.subgid, group, "subgid")};
}

}  // namespace gantry::runtime
