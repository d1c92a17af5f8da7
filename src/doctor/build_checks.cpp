#include "doctor/build_checks.hpp"

#include <fcntl.h>
#include <sys/file.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "db/build_rows.hpp"
#include "db/layer_rows.hpp"
#include "protocol/build_link.hpp"
#include "sys/file.hpp"

namespace gantry::doctor {
namespace {

using Level = Finding::Level;
constexpr const char* kSubject = "build cache";

/// The builder holds this lock for as long as it runs.
bool is_builder_running(const sys::Paths& paths) {
  const sys::Fd lock(::open((paths.builder() / "lock").c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  return lock && ::flock(lock.get(), LOCK_SH | LOCK_NB) != 0;
}

}  // namespace

void check_builds(db::Db& db, const sys::Paths& paths, std::vector<Finding>& out) {
  std::set<std::string> layers;
  for (const db::LayerRow& row : db::list_layers(db)) layers.insert(row.chain_id);
  const auto kept = db::list_build_layers(db);
  std::size_t lost = 0;
  for (const db::BuildLayerRow& row : kept) lost += layers.contains(row.chain_id) ? 0 : 1;
  out.push_back({Level::ok, kSubject,
                 fmt::format("keeps {} layers; a builder is {}", kept.size(),
                             is_builder_running(paths) ? "running" : "not running"),
                 ""});
  if (lost > 0)
    out.push_back({Level::note, kSubject, fmt::format("{} layers that it keeps are not stored", lost),
                   "forgotten when gantryd starts"});
}

std::set<std::string> without_running_builds(const sys::Paths& paths, std::set<std::string> names) {
  if (is_builder_running(paths))
    std::erase_if(names, [](const std::string& name) { return name.starts_with(protocol::kSandboxPrefix); });
  return names;
}

}  // namespace gantry::doctor
