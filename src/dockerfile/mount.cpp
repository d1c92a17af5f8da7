#include "dockerfile/mount.hpp"

#include <charconv>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/text.hpp"
#include "dockerfile/suggest.hpp"
#include "dockerfile/values.hpp"

namespace gantry::dockerfile {
namespace {

[[noreturn]] void refuse(const std::string& message) { throw Error(Errc::invalid_argument, message); }

constexpr std::pair<std::string_view, MountType> kTypes[] = {{"bind", MountType::bind},
                                                             {"cache", MountType::cache},
                                                             {"secret", MountType::secret},
                                                             {"ssh", MountType::ssh},
                                                             {"tmpfs", MountType::tmpfs}};
constexpr std::pair<std::string_view, MountSharing> kSharings[] = {
    {"locked", MountSharing::locked}, {"private", MountSharing::private_}, {"shared", MountSharing::shared}};

std::string_view name_of(MountType type) {
  for (const auto& [name, value] : kTypes)
    if (value == type) return name;
  return "";
}

std::vector<std::string> fields_of(std::string_view text) {
  try {
    return parse_csv_record(text);
  } catch (Error& e) {
    e.prefix("failed to parse csv mounts");
    throw;
  }
}

class Reader {
 public:
  explicit Reader(const ExpandWord& expand) : expand_(expand) {}

  Mount read(std::string_view text) {
    for (const std::string& field : fields_of(text)) {
      const auto [key, value] = split_once(field, '=');
      if (field.find('=') == std::string::npos) {
        read_word(to_lower(key), field);
      } else {
        read_pair(to_lower(key), expand_ ? expand_(value) : std::string(value), field);
      }
    }
    check();
    return std::move(mount_);
  }

 private:
  [[noreturn]] void refuse_key(const std::string& key) const {
    refuse("unexpected key '" + key + "' for mount type '" + std::string(name_of(mount_.type)) + "'");
  }

  bool may_be_required() const { return mount_.type == MountType::secret || mount_.type == MountType::ssh; }

  void set_read_only(bool read_only) {
    mount_.read_only = read_only;
    said_read_only_ = true;
  }

  void read_word(const std::string& key, const std::string& field) {
    if (key == "readonly" || key == "ro") {
      set_read_only(true);
    } else if (key == "readwrite" || key == "rw") {
      set_read_only(false);
    } else if (key == "required") {
      if (!may_be_required()) refuse_key(key);
      mount_.required = true;
    } else {
      refuse("invalid field '" + field + "' must be a key=value pair");
    }
  }

  static bool flag(const std::string& key, const std::string& value) {
    const auto parsed = parse_bool(value);
    if (!parsed) refuse("invalid value for " + key + ": " + value);
    return *parsed;
  }

  static std::uint32_t number(const std::string& key, const std::string& value, int base) {
    std::uint32_t result = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), result, base);
    if (value.empty() || error != std::errc() || end != value.data() + value.size())
      refuse("invalid value " + value + " for " + key);
    return result;
  }

  void read_pair(const std::string& key, const std::string& value, const std::string& field) {
    if (key == "type") {
      set_type(value);
    } else if (key == "from") {
      mount_.from = value;
    } else if (key == "source" || key == "src") {
      mount_.source = value;
    } else if (key == "target" || key == "dst" || key == "destination") {
      mount_.target = value;
    } else if (key == "readonly" || key == "ro") {
      set_read_only(flag(key, value));
    } else if (key == "readwrite" || key == "rw") {
      set_read_only(!flag(key, value));
    } else if (key == "required") {
      if (!may_be_required()) refuse_key(key);
      mount_.required = flag(key, value);
    } else if (key == "id") {
      mount_.id = value;
    } else if (key == "mode") {
      mount_.mode = number(key, value, 8);
    } else if (key == "uid") {
      mount_.uid = number(key, value, 10);
    } else if (key == "gid") {
      mount_.gid = number(key, value, 10);
    } else {
      read_rare_pair(key, value, field);
    }
  }

  void read_rare_pair(const std::string& key, const std::string& value, const std::string& field) {
    if (key == "size") {
      if (mount_.type != MountType::tmpfs) refuse_key(key);
      const auto size = parse_size(value);
      if (!size) refuse("invalid value for size: " + value);
      mount_.size = *size;
    } else if (key == "env") {
      if (mount_.type != MountType::secret) refuse_key(key);
      mount_.env = value;
    } else if (key == "sharing") {
      set_sharing(value);
    } else {
      static const std::vector<std::string> kKeys = {
          "type", "from", "source", "target", "readonly",    "id", "sharing", "required",  "size", "mode",
          "uid",  "gid",  "src",    "dst",    "destination", "ro", "rw",      "readwrite", "env"};
      refuse("unexpected key '" + key + "' in '" + field + "'" + did_you_mean(key, kKeys, true));
    }
  }

  void set_type(const std::string& value) {
    const std::string wanted = to_lower(value);
    std::vector<std::string> names;
    for (const auto& [name, type] : kTypes) {
      names.emplace_back(name);
      if (name != wanted) continue;
      mount_.type = type;
      return;
    }
    refuse("unsupported mount type " + quote(value) + did_you_mean(value, names, true));
  }

  void set_sharing(const std::string& value) {
    const std::string wanted = to_lower(value);
    std::vector<std::string> names;
    for (const auto& [name, sharing] : kSharings) {
      names.emplace_back(name);
      if (name != wanted) continue;
      mount_.sharing = sharing;
      return;
    }
    refuse("unsupported sharing value " + quote(value) + did_you_mean(value, names, true));
  }

  void check() {
    const MountType type = mount_.type;
    if (type == MountType::bind || type == MountType::tmpfs) {
      const std::string kind = " not allowed for " + quote(name_of(type)) + " type mounts";
      if (mount_.mode) refuse("mode" + kind);
      if (mount_.uid) refuse("uid" + kind);
      if (mount_.gid) refuse("gid" + kind);
    }
    if (!said_read_only_) mount_.read_only = type != MountType::cache && type != MountType::tmpfs;
    if (type == MountType::secret) check_secret();
    if (type == MountType::ssh && !mount_.source.empty()) refuse("ssh does not support source");
    if (mount_.sharing && type != MountType::cache)
      refuse("invalid cache sharing set for " + std::string(name_of(type)) + " mount");
  }

  void check_secret() const {
    if (!mount_.from.empty()) refuse("secret mount should not have a from");
    if (mount_.sharing) refuse("secret mount should not define sharing");
    if (mount_.source.empty() && mount_.target.empty() && mount_.id.empty())
      refuse("invalid secret mount. one of source, target required");
    if (!mount_.source.empty() && !mount_.id.empty()) refuse("both source and id can't be set");
  }

  const ExpandWord& expand_;
  Mount mount_;
  bool said_read_only_ = false;
};

}  // namespace

Mount parse_mount(std::string_view text, const ExpandWord& expand) { return Reader(expand).read(text); }

MountFlag scan_mount(std::string_view text) {
  MountFlag flag{std::string(text), "", ""};
  for (const std::string& field : fields_of(text)) {
    const auto [key, value] = split_once(field, '=');
    const std::string name = to_lower(key);
    if (name == "target" || name == "dst" || name == "destination") flag.target = std::string(value);
    if (name != "from") continue;
    const std::size_t dollar = value.find('$');
    if (dollar != std::string_view::npos && dollar + 1 < value.size())
      refuse("'from' doesn't support variable expansion, define alias stage instead");
    flag.from = std::string(value);
  }
  return flag;
}

}  // namespace gantry::dockerfile
