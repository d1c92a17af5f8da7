#include "database.hpp"

#include <cerrno>
#include <cstdio>

#include <fcntl.h>
#include <sys/file.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "db/restore.hpp"
#include "sys/file.hpp"

namespace gantry {
namespace {

void make_directories(const sys::Paths& paths) {
  sys::make_directories(paths.data_root, 0711);
  sys::make_directories(paths.exec_root, 0711);
  for (const sys::Path& path : {paths.containers(), paths.layers(), paths.volumes(), paths.tmp()})
    sys::make_directories(path, 0711);
  for (const sys::Path& path : {paths.shims(), paths.container_mounts(), paths.netns()})
    sys::make_directories(path, 0711);
  sys::spread_subdirectories(paths.containers());
  sys::spread_subdirectories(paths.layers());
}

/// Throws `e` with its remedy. Called from a handler.
[[noreturn]] void explain_unusable(const sys::Paths& paths, const Error& e) {
  const char* remedy = e.sys_errno() == EROFS    ? "its file system is read-only: mount it writable, or choose another"
                       : e.sys_errno() == ENOSPC ? "its file system is full: make room on it, or choose another"
                       : e.sys_errno() == EACCES ? "run gantryd as root"
                                                 : nullptr;
  if (remedy == nullptr) throw;
  throw Error(Errc::unavailable,
              fmt::format("the data root {} cannot be used ({}): {}", paths.data_root.string(), e.message(), remedy));
}

std::unique_ptr<db::Db> open_sound(const sys::Path& file) {
  auto db = std::make_unique<db::Db>(file);
  const std::string state = db->check();
  if (state != "ok") throw Error(Errc::corrupted, state);
  return db;
}

}  // namespace

sys::Fd try_lock_data_root(const sys::Paths& paths) {
  sys::make_directories(paths.data_root, 0711);
  sys::Fd lock = sys::open_file(paths.data_root / "lock", O_RDWR | O_CREAT, 0600);
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) lock.reset();
  return lock;
}

sys::Fd lock_data_root(const sys::Paths& paths) {
  try {
    sys::Fd lock = try_lock_data_root(paths);
    if (lock) return lock;
  } catch (const Error& e) {
    explain_unusable(paths, e);
  }
  throw Error(Errc::unavailable, fmt::format("another gantryd uses {}: stop it, or give this one its own --data-root "
                                             "and --exec-root",
                                             paths.data_root.string()));
}

std::unique_ptr<db::Db> open_database(const sys::Paths& paths, bool* restored) {
  try {
    make_directories(paths);
  } catch (const Error& e) {
    explain_unusable(paths, e);
  }
  try {
    return open_sound(paths.database());
  } catch (const Error& e) {
    if (e.code() != Errc::corrupted) throw;
    log::error("the state database is damaged: {}", e.message());
  }
  const db::Restored report = db::restore_database(paths.database());
  log::error("the state database was restored with {} rows{}{}; the damaged one is kept as {}", report.rows,
             report.from_copy ? " and its last copy" : "",
             report.incomplete.empty() ? std::string() : fmt::format("; not whole: {}", join(report.incomplete, ", ")),
             report.kept.string());
  *restored = true;
  return open_sound(paths.database());
}

void set_aside_unknown_containers_blocking(const sys::Paths& paths, const std::set<std::string>& known) {
  for (const std::string& id : sys::list_directory(paths.containers())) {
    if (known.contains(id)) continue;
    sys::make_directories(paths.quarantine(), 0700);
    const sys::Path kept = paths.quarantine() / ("container-" + id + "-" + random_id().substr(0, 8));
    if (::rename(paths.container(id).c_str(), kept.c_str()) != 0)
      throw Error::from_errno(errno, "rename " + paths.container(id).string());
    log::error("container {} has lost its row: its files are kept as {}", id, kept.string());
  }
}

}  // namespace gantry
