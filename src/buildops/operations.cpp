#include "buildops/operations.hpp"

#include <memory>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "buildlink/engine.hpp"
#include "buildops/container_process.hpp"
#include "buildops/exec_op.hpp"
#include "buildops/file_op.hpp"
#include "buildops/merge_op.hpp"
#include "buildops/source_op.hpp"
#include "runtime/host_facts.hpp"
#include "sys/mount.hpp"

namespace gantry::buildops {
namespace {

std::unique_ptr<solver::Operation> make_source(const Services& services, const llb::Vertex& vertex) {
  const std::string& identifier = vertex.op().source().identifier();
  const std::string scheme = parse_source_name(identifier).scheme;
  if (scheme == "docker-image") return make_image_source(services, vertex);
  if (scheme == "local") return make_local_source(services, vertex);
  if (scheme == "http" || scheme == "https") return make_http_source(services, vertex);
  if (scheme == "git") return make_git_source(services, vertex);
  throw Error(Errc::not_implemented, fmt::format("failed to get source {}: unsupported scheme", quote(identifier)));
}

}  // namespace

solver::OperationFactory make_operation_factory(Services& services) {
  const auto shared = std::make_shared<ExecShared>(services.facts);
  return [&services, shared](const llb::Vertex& vertex) -> std::unique_ptr<solver::Operation> {
    switch (vertex.op().op_case()) {
      case pb::Op::kSource: return make_source(services, vertex);
      case pb::Op::kExec: return make_exec_operation(services, *shared, vertex);
      case pb::Op::kFile: return make_file_operation(services, vertex);
      case pb::Op::kMerge: return make_merge_operation(services, vertex);
      case pb::Op::kDiff: return make_diff_operation(services, vertex);
      default: throw Error(Errc::not_implemented, "could not resolve the operation of a vertex");
    }
  };
}

void recover_run_directory(const Services& services) {
  sys::unmount_all(services.run_directory);
  const sys::Path runtime = services.run_directory / "runtime";
  const buildlink::Settings settings = services.engine.settings();
  if (std::filesystem::exists(runtime))
    for (const std::string& id : sys::list_directory(runtime)) {
      ContainerRun run;
      run.id = id;
      run.runtime = settings.RuntimePath.empty() ? "runc" : settings.RuntimePath;
      run.runtime_args = settings.RuntimeArgs;
      run.state_directory = runtime;
      run.cgroup = fmt::format("{}/{}", settings.CgroupParent, id);
      remove_container(run, services.facts.cgroup);
    }
  for (const char* name : {"exec", "runtime"}) sys::remove_tree(services.run_directory / name);
  sys::make_directories(services.run_directory / "exec", 0700);
  sys::make_directories(runtime, 0700);
}

}  // namespace gantry::buildops
