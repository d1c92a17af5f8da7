#include "buildops/owner.hpp"

#include "base/text.hpp"
#include "storage/root_access.hpp"

namespace gantry::buildops {
namespace {

struct Entry {
  std::uint32_t id = 0;
  std::uint32_t group = 0;  // passwd: the primary one
};

std::optional<std::uint32_t> parse_id(std::string_view text) {
  const auto number = parse_int(text);
  if (!number || *number < 0 || *number > 0x7fffffff) return std::nullopt;
  return static_cast<std::uint32_t>(*number);
}

/// The line of /etc/passwd or /etc/group whose first field is `name`.
std::optional<Entry> find_entry(int root, const char* file, const std::string& name) {
  if (root < 0) return std::nullopt;
  const auto content = storage::read_file_in_root(root, file);
  if (!content) return std::nullopt;
  for (const std::string& line : split(*content, '\n')) {
    const auto fields = split(trim(line), ':');
    if (fields.size() < 3 || fields[0] != name) continue;
    const auto id = parse_id(fields[2]);
    if (!id) continue;
    return Entry{*id, fields.size() > 3 ? parse_id(fields[3]).value_or(0) : 0};
  }
  return std::nullopt;
}

}  // namespace

std::optional<Owner> resolve_owner(int root, const OwnerName& user, const OwnerName& group) {
  if (user.empty() && group.empty()) return std::nullopt;
  Owner owner;
  if (user.id) {
    owner = {*user.id, *user.id};
  } else if (user.name) {
    const Entry entry = find_entry(root, "/etc/passwd", *user.name).value_or(Entry{});
    owner = {entry.id, entry.group};
  }
  if (group.id) owner.gid = *group.id;
  else if (group.name) owner.gid = find_entry(root, "/etc/group", *group.name).value_or(Entry{}).id;
  return owner;
}

}  // namespace gantry::buildops
