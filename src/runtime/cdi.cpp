#include "runtime/cdi.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "json/codec.hpp"
#include "runtime/yaml.hpp"
#include "sys/file.hpp"

namespace gantry::runtime {
namespace {

constexpr std::size_t kLargestFile = 4 << 20;
constexpr std::size_t kMostFiles = 1024;

// The file format, member for member.
struct CdiNode {
  std::string path;
  std::string hostPath;
  std::string type;
  std::int64_t major = 0;
  std::int64_t minor = 0;
  std::optional<std::uint32_t> fileMode;
  std::string permissions;
  std::optional<std::uint32_t> uid;
  std::optional<std::uint32_t> gid;
};
BOOST_DESCRIBE_STRUCT(CdiNode, (), (path, hostPath, type, major, minor, fileMode, permissions, uid, gid))

struct CdiMount {
  std::string hostPath;
  std::string containerPath;
  std::optional<std::vector<std::string>> options;
  std::string type;
};
BOOST_DESCRIBE_STRUCT(CdiMount, (), (hostPath, containerPath, options, type))

struct CdiHook {
  std::string hookName;
  std::string path;
  std::optional<std::vector<std::string>> args;
  std::optional<std::vector<std::string>> env;
  std::optional<std::int64_t> timeout;
};
BOOST_DESCRIBE_STRUCT(CdiHook, (), (hookName, path, args, env, timeout))

struct CdiEdits {
  std::optional<std::vector<std::string>> env;
  std::optional<std::vector<CdiNode>> deviceNodes;
  std::optional<std::vector<CdiMount>> mounts;
  std::optional<std::vector<CdiHook>> hooks;
  std::optional<std::vector<std::uint32_t>> additionalGids;
};
BOOST_DESCRIBE_STRUCT(CdiEdits, (), (env, deviceNodes, mounts, hooks, additionalGids))

struct CdiDevice {
  std::string name;
  CdiEdits containerEdits;
};
BOOST_DESCRIBE_STRUCT(CdiDevice, (), (name, containerEdits))

struct CdiFile {
  std::string cdiVersion;
  std::string kind;
  std::optional<std::vector<CdiDevice>> devices;
  CdiEdits containerEdits;
};
BOOST_DESCRIBE_STRUCT(CdiFile, (), (cdiVersion, kind, devices, containerEdits))

struct Registry {
  struct Entry {
    std::size_t file = 0;
    std::size_t device = 0;
    std::size_t directory = 0;
    bool ambiguous = false;  // two files of one directory describe it
  };
  std::vector<CdiFile> files;
  std::map<std::string, Entry> devices;
  std::vector<std::string> problems;
};

bool is_word(std::string_view text, std::string_view more) {
  const auto good = [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           more.find(c) != std::string_view::npos;
  };
  return !text.empty() && text.size() < 256 && std::ranges::all_of(text, good);
}

void check_file(const CdiFile& file) {
  const auto [vendor, type] = split_once(file.kind, '/');
  if (!is_word(vendor, "-_.") || !is_word(type, "-_"))
    throw Error(Errc::invalid_argument, fmt::format("invalid kind {}", quote(file.kind)));
  if (!file.cdiVersion.starts_with("0.") && !file.cdiVersion.starts_with("1."))
    throw Error(Errc::invalid_argument, fmt::format("invalid cdiVersion {}", quote(file.cdiVersion)));
  for (const CdiDevice& device : file.devices.value_or(std::vector<CdiDevice>{}))
    if (!is_word(device.name, "-_.:"))
      throw Error(Errc::invalid_argument, fmt::format("invalid device name {}", quote(device.name)));
}

void read_directory(Registry& registry, const std::string& directory, std::size_t number) {
  std::vector<std::string> names;
  try {
    names = sys::list_directory(directory);
  } catch (const Error& e) {
    if (e.code() != Errc::not_found) registry.problems.push_back(directory + ": " + e.message());
    return;
  }
  std::ranges::sort(names);
  for (const std::string& name : names) {
    if (!name.ends_with(".json") && !name.ends_with(".yaml")) continue;
    if (registry.files.size() >= kMostFiles) return;
    const std::string path = directory + "/" + name;
    try {
      const std::string text = sys::read_file(path, kLargestFile);
      CdiFile file = json::decode<CdiFile>(name.ends_with(".json") ? json::parse(text) : parse_yaml(text));
      check_file(file);
      const std::size_t index = registry.files.size();
      for (std::size_t i = 0; file.devices && i < file.devices->size(); ++i) {
        const std::string qualified = file.kind + "=" + (*file.devices)[i].name;
        const auto [known, added] = registry.devices.try_emplace(qualified, Registry::Entry{index, i, number, false});
        if (added) continue;
        if (known->second.directory == number) known->second.ambiguous = true;
        else known->second = {index, i, number, false};
      }
      registry.files.push_back(std::move(file));
    } catch (const Error& e) {
      registry.problems.push_back(path + ": " + e.message());
    }
  }
}

Registry read_registry(const std::vector<std::string>& directories) {
  Registry registry;
  for (std::size_t i = 0; i < directories.size(); ++i) read_directory(registry, directories[i], i);
  return registry;
}

[[noreturn]] void failed(const std::string& why) { throw Error(Errc::internal, "CDI device injection failed: " + why); }

void add_node(ContainerSpec& spec, const CdiNode& node) {
  Device device{
      .path = node.path, .type = node.type.empty() ? '\0' : node.type[0], .major = node.major, .minor = node.minor};
  struct stat st{};
  const std::string& host = node.hostPath.empty() ? node.path : node.hostPath;
  const bool found = ::stat(host.c_str(), &st) == 0 && (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode));
  if (device.type == '\0' || (device.major == 0 && device.minor == 0 && device.type != 'p')) {
    if (!found) failed(fmt::format("failed to stat CDI host device {}", quote(host)));
    device.type = S_ISBLK(st.st_mode) ? 'b' : 'c';
    device.major = major(st.st_rdev);
    device.minor = minor(st.st_rdev);
  }
  device.file_mode = node.fileMode.value_or(found ? st.st_mode & 07777 : 0666);
  device.uid = node.uid.value_or(found ? st.st_uid : 0);
  device.gid = node.gid.value_or(found ? st.st_gid : 0);
  std::erase_if(spec.devices, [&](const Device& other) { return other.path == device.path; });
  const std::string access = node.permissions.empty() ? "rwm" : node.permissions;
  spec.device_rules.push_back({true, device.type, device.major, device.minor, access});
  spec.devices.push_back(std::move(device));
}

void apply(ContainerSpec& spec, const CdiEdits& edits) {
  const auto each = [](const auto& list, auto action) {
    if (list)
      for (const auto& item : *list) action(item);
  };
  each(edits.env, [&](const std::string& variable) { spec.env.push_back(variable); });
  each(edits.deviceNodes, [&](const CdiNode& node) { add_node(spec, node); });
  each(edits.additionalGids, [&](std::uint32_t gid) {
    if (gid != 0) spec.user.additional_gids.push_back(gid);
  });
  each(edits.mounts, [&](const CdiMount& mount) {
    std::erase_if(spec.mounts, [&](const Mount& other) { return other.destination == mount.containerPath; });
    spec.mounts.push_back({mount.type.empty() ? "bind" : mount.type, mount.hostPath, mount.containerPath,
                           mount.options.value_or(std::vector<std::string>{"bind"})});
  });
  each(edits.hooks, [&](const CdiHook& hook) {
    static const std::set<std::string> known{"prestart",       "createRuntime", "createContainer",
                                             "startContainer", "poststart",     "poststop"};
    if (!known.contains(hook.hookName)) failed(fmt::format("invalid hook name {}", quote(hook.hookName)));
    spec.hooks.push_back({hook.hookName, hook.path, hook.args.value_or(std::vector<std::string>{}),
                          hook.env.value_or(std::vector<std::string>{}), hook.timeout.value_or(0)});
  });
}

}  // namespace

void inject_cdi_devices_blocking(ContainerSpec& spec, const std::vector<std::string>& directories,
                                 const std::vector<std::string>& devices, const HostFacts&) {
  const Registry registry = read_registry(directories);
  std::vector<std::string> missing;
  for (const std::string& name : devices) {
    const auto found = registry.devices.find(name);
    if (found == registry.devices.end() || found->second.ambiguous) missing.push_back(name);
  }
  if (!missing.empty()) failed("unresolvable CDI devices " + join(missing, ", "));
  std::set<std::size_t> begun;
  for (const std::string& name : devices) {
    const Registry::Entry& entry = registry.devices.at(name);
    const CdiFile& file = registry.files[entry.file];
    if (begun.insert(entry.file).second) apply(spec, file.containerEdits);
    apply(spec, (*file.devices)[entry.device].containerEdits);
  }
}

CdiInventory list_cdi_devices_blocking(const std::vector<std::string>& directories) {
  const Registry registry = read_registry(directories);
  CdiInventory inventory;
  for (const auto& [name, entry] : registry.devices)
    if (!entry.ambiguous) inventory.devices.push_back(name);
  for (const std::string& problem : registry.problems)
    inventory.warnings.push_back("CDI: Error associated with spec file " + problem);
  return inventory;
}

}  // namespace gantry::runtime
