#include "doctor/checks.hpp"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "db/container_rows.hpp"
#include "db/image_rows.hpp"
#include "db/layer_rows.hpp"
#include "db/sqlite.hpp"
#include "doctor/build_checks.hpp"
#include "image/content_store.hpp"
#include "runtime/shim_client.hpp"
#include "storage/layer_store.hpp"
#include "sys/mount.hpp"

namespace gantry::doctor {
namespace {

using Level = Finding::Level;

std::set<std::string> names_in(const sys::Path& directory) {
  try {
    const auto names = sys::list_directory(directory);
    return {names.begin(), names.end()};
  } catch (const Error&) {
    return {};
  }
}

/// Container ids, from the file name of whatever a module keeps per container.
void check_leaks(const std::string& what, const std::set<std::string>& found, const std::set<std::string>& known,
                 std::vector<Finding>& out) {
  std::size_t leaked = 0;
  for (const std::string& name : found) {
    const bool owned =
        std::any_of(known.begin(), known.end(), [&](const std::string& id) { return id.starts_with(name); });
    if (owned || name.starts_with(".")) continue;
    ++leaked;
    out.push_back(
        {Level::problem, what, fmt::format("{} belongs to no container", name), "a restart of gantryd sweeps it"});
  }
  if (leaked == 0) out.push_back({Level::ok, what, fmt::format("{}, all of known containers", found.size()), ""});
}

void check_mounts(const sys::Paths& paths, const std::set<std::string>& known, std::vector<Finding>& out) {
  std::size_t count = 0;
  for (const sys::MountInfo& mount : sys::list_mounts(paths.container_mounts())) {
    const std::string relative = mount.mount_point.lexically_relative(paths.container_mounts()).string();
    const std::string id(split_once(relative, '/').first);
    ++count;
    if (id != "." && !known.contains(id))
      out.push_back({Level::problem, "mounts",
                     fmt::format("{} is mounted for no container", mount.mount_point.string()),
                     "a restart of gantryd unmounts it"});
  }
  out.push_back({Level::ok, "mounts", fmt::format("{} below {}", count, paths.container_mounts().string()), ""});
}

void check_layers(db::Db& db, const sys::Paths& paths, std::vector<Finding>& out) {
  std::set<std::string> on_disk = names_in(paths.layers());
  const std::vector<db::LayerRow> rows = db::list_layers(db);
  for (const db::LayerRow& row : rows) {
    const std::string hex(split_once(row.chain_id, ':').second);
    if (on_disk.erase(hex) == 0)
      out.push_back({Level::problem, "layers", fmt::format("{} has no directory", row.chain_id),
                     "it is rebuilt from its blob when it is needed"});
  }
  for (const std::string& name : on_disk)
    if (is_lower_hex(name) && name.size() == 64)
      out.push_back({Level::problem, "layers", fmt::format("directory {} has no row", name), "a restart sweeps it"});
  out.push_back({Level::ok, "layers", fmt::format("{} rows", rows.size()), ""});
}

/// Every blob by its digest, every layer by its fingerprint.
void check_store(db::Db& db, const sys::Paths& paths, std::vector<Finding>& out) {
  constexpr const char* kRepair = "gantryd repair";
  std::int64_t bytes = 0;
  const std::vector<db::BlobRow> blobs = db::list_blobs(db);
  for (const db::BlobRow& row : blobs) {
    const sys::Path file = paths.blobs() / std::string(split_once(row.digest, ':').second);
    const std::string wrong = image::examine_blob_blocking(file, row.digest, row.size);
    bytes += row.size;
    if (!wrong.empty()) out.push_back({Level::problem, "blobs", fmt::format("{}: {}", row.digest, wrong), kRepair});
  }
  out.push_back({Level::ok, "blobs", fmt::format("{} read, {}", blobs.size(), render_human_size(bytes)), ""});
  for (const db::LayerRow& row : db::list_layers(db)) {
    if (row.state != db::LayerState::ready) continue;
    for (const std::string& wrong : storage::examine_layer_blocking(paths, row))
      out.push_back({Level::problem, "layers", fmt::format("{}: {}", row.chain_id, wrong), kRepair});
  }
  const std::set<std::string> kept = names_in(paths.quarantine());
  if (!kept.empty())
    out.push_back({Level::note, "quarantine",
                   fmt::format("{} damaged things are kept in {}", kept.size(), paths.quarantine().string()),
                   "remove them when they are of no use"});
}

}  // namespace

std::vector<Finding> check_host(const runtime::HostFacts& facts) {
  std::vector<Finding> out;
  const auto need = [&](bool there, std::string subject, std::string text, std::string remedy) {
    out.push_back(
        {there ? Level::ok : Level::problem, std::move(subject), std::move(text), there ? "" : std::move(remedy)});
  };
  out.push_back({Level::ok, "kernel", fmt::format("{} on {}", facts.kernel_version, facts.architecture), ""});
  need(facts.cgroup.mode != sys::CgroupMode::none, "control groups",
       facts.cgroup.mode == sys::CgroupMode::v2       ? "version 2"
       : facts.cgroup.mode == sys::CgroupMode::v1     ? "version 1"
       : facts.cgroup.mode == sys::CgroupMode::hybrid ? "version 1 with a version 2 mount"
                                                      : "not mounted",
       "mount cgroup2 at /sys/fs/cgroup");
  need(facts.overlay, "overlay", facts.overlay ? "known to the kernel" : "not known to the kernel", "modprobe overlay");
  need(facts.nftables, "nftables", facts.nftables ? "usable" : "not usable",
       "modprobe nf_tables, or set iptables to false");
  need(!facts.runc.version.empty(), "runc", facts.runc.version.empty() ? "not found" : facts.runc.version,
       "apt-get install runc");
  out.push_back({facts.init.path.empty() ? Level::note : Level::ok, "init for --init",
                 facts.init.path.empty() ? "not found" : facts.init.path,
                 facts.init.path.empty() ? "apt-get install tini" : ""});
  out.push_back(
      {facts.seccomp ? Level::ok : Level::note, "seccomp", facts.seccomp ? "usable" : "not in this kernel", ""});
  for (const std::string& warning : runtime::host_warnings(facts)) out.push_back({Level::note, "host", warning, ""});
  return out;
}

std::vector<Finding> check_state_blocking(const sys::Paths& paths) {
  std::vector<Finding> out;
  if (!std::filesystem::exists(paths.database())) {
    out.push_back({Level::note, "state",
                   fmt::format("{} does not exist: no gantryd has run here", paths.database().string()), ""});
    return out;
  }
  try {
    db::Db db(paths.database());
    const std::string state = db.check();
    out.push_back(
        {state == "ok" ? Level::ok : Level::problem, "state database", state,
         state == "ok" ? "" : "stop gantryd and restore a copy; at the next start a damaged file is set aside"});
    std::set<std::string> known;
    for (const db::ContainerRow& row : db::load_containers(db)) known.insert(row.id);
    out.push_back({Level::ok, "containers", fmt::format("{} rows", known.size()), ""});
    check_leaks("container directories", names_in(paths.containers()), known, out);
    check_leaks("shims", names_in(paths.shims()), known, out);
    check_leaks("network namespaces", without_running_builds(paths, names_in(paths.netns())), known, out);
    check_leaks("user namespaces", names_in(paths.userns()), known, out);
    check_mounts(paths, known, out);
    check_layers(db, paths, out);
    check_store(db, paths, out);
    check_builds(db, paths, out);
  } catch (const Error& e) {
    out.push_back({Level::problem, "state", e.message(), "see docs/state-on-disk.md"});
  }
  return out;
}

std::string render_report(const std::vector<Finding>& findings) {
  std::string text;
  std::size_t problems = 0;
  for (const Level level : {Level::ok, Level::note, Level::problem})
    for (const Finding& finding : findings) {
      if (finding.level != level) continue;
      problems += level == Level::problem ? 1 : 0;
      text += fmt::format("{:<8} {}: {}{}\n",
                          level == Level::ok     ? "ok"
                          : level == Level::note ? "note"
                                                 : "PROBLEM",
                          finding.subject, finding.text, finding.remedy.empty() ? "" : " -> " + finding.remedy);
    }
  return text + fmt::format("{} problem{}\n", problems, problems == 1 ? "" : "s");
}

int exit_code(const std::vector<Finding>& findings) {
  return std::any_of(findings.begin(), findings.end(), [](const Finding& f) { return f.level == Level::problem; }) ? 1
                                                                                                                   : 0;
}

}  // namespace gantry::doctor
