#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "buildcache/mutables.hpp"
#include "buildcache/snapshots.hpp"
#include "buildops/exec_directory.hpp"
#include "buildops/mount_stubs.hpp"
#include "buildops/operations.hpp"
#include "proto/ops.pb.h"
#include "runtime/spec.hpp"
#include "session/session.hpp"
#include "sys/fd.hpp"

namespace gantry::buildops {

/// What a process step sees: its root and everything mounted into it, made ready for the runtime.
class ExecMounts {
 public:
  /// Prepares the mounts of `op`. Asks the sessions for secrets and agents; waits for locked cache directories.
  /// Throws not_found `secret x: not found`, `no SSH key "x" forwarded from the client`, cancelled.
  ExecMounts(const Services& services, solver::OpContext& context, const pb::ExecOp& op,
             const std::vector<buildcache::SnapshotPtr>& inputs, ExecDirectory& directory);
  ~ExecMounts();
  ExecMounts(const ExecMounts&) = delete;
  ExecMounts& operator=(const ExecMounts&) = delete;

  const sys::Path& root() const noexcept { return root_path_; }
  int root_fd() const noexcept { return root_.get(); }
  bool root_is_read_only() const noexcept { return root_is_read_only_; }
  const std::vector<runtime::Mount>& mounts() const noexcept { return mounts_; }
  const std::vector<MountStubs::Target>& targets() const noexcept { return targets_; }
  /// Where the first agent's socket is seen; empty without one.
  const std::string& agent_socket() const noexcept { return agent_socket_; }

  /// The results, by output, once nothing runs any more.
  std::vector<buildcache::SnapshotPtr> commit(std::size_t outputs);

 private:
  void add_root(const pb::Mount& mount);
  void add_bind(const pb::Mount& mount);
  void acquire_caches();
  void add_cache(const pb::Mount& mount);
  void add_tmpfs(const pb::Mount& mount);
  void add_secret(const pb::Mount& mount);
  void add_agent(const pb::Mount& mount);
  void bind(const sys::Path& tree, const pb::Mount& mount, bool may_change);
  void add(runtime::Mount mount, bool directory);
  buildcache::SnapshotPtr input(const pb::Mount& mount) const;
  sys::Path work_on(const pb::Mount& mount);
  std::string command() const;

  const Services& services_;
  solver::OpContext& context_;
  const pb::ExecOp& op_;
  const std::vector<buildcache::SnapshotPtr>& inputs_;
  ExecDirectory& directory_;
  std::vector<std::unique_ptr<buildcache::View>> views_;
  using CacheKey = std::pair<std::string, std::string>;  // its id, and that of the tree that it starts with
  CacheKey cache_key(const pb::Mount& mount) const;
  std::map<CacheKey, std::unique_ptr<buildcache::Mutable>> caches_;
  std::vector<std::unique_ptr<session::AgentSocket>> agents_;
  struct Work {
    std::unique_ptr<buildcache::Workspace> workspace;
    std::int64_t output = -1;
  };
  std::vector<Work> works_;
  sys::Path root_path_;
  sys::Fd root_;
  bool root_is_read_only_ = false;
  std::vector<runtime::Mount> mounts_;
  std::vector<MountStubs::Target> targets_;
  std::string agent_socket_;
};

}  // namespace gantry::buildops
