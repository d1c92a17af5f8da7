#include "builder/bridge_service.hpp"

#include <string>
#include <utility>

#include "base/error.hpp"
#include "base/text.hpp"
#include "buildcache/cache.hpp"
#include "builder/capabilities.hpp"
#include "builder/grpc_status.hpp"
#include "builder/tree_reader.hpp"

namespace gantry::builder {

namespace {

namespace gateway = moby::buildkit::v1::frontend;

constexpr std::size_t kMaxRead = 15 << 20;  // what still fits in a message

std::string build_id(const grpc::ServerContext& context) {
  const auto& metadata = context.client_metadata();
  const auto it = metadata.find("buildkit-controlapi-buildid");
  if (it == metadata.end()) throw Error(Errc::invalid_argument, "no buildid found in context");
  return {it->second.data(), it->second.size()};
}

}  // namespace

/// `work(build, stop)` with the build that the call is for.
template <class Work>
grpc::Status BridgeService::for_build(grpc::ServerContext* context, Work&& work) {
  const CallWatch::Call call(calls_, *context);
  return answer([&] {
    const auto build = builds_.wait(build_id(*context), call.stop());
    work(*build, call.stop());
  });
}

grpc::Status BridgeService::ResolveImageConfig(grpc::ServerContext* context,
                                               const gateway::ResolveImageConfigRequest* request,
                                               gateway::ResolveImageConfigResponse* response) {
  return for_build(context,
                   [&](Build& build, const std::stop_token& stop) { *response = build.resolve_image(*request, stop); });
}

grpc::Status BridgeService::Solve(grpc::ServerContext* context, const gateway::SolveRequest* request,
                                  gateway::SolveResponse* response) {
  return for_build(context, [&](Build& build, const std::stop_token& stop) {
    *response->mutable_result() = build.solve(*request, stop);
  });
}

grpc::Status BridgeService::ReadFile(grpc::ServerContext* context, const gateway::ReadFileRequest* request,
                                     gateway::ReadFileResponse* response) {
  return for_build(context, [&](Build& build, const std::stop_token& stop) {
    const auto view = services_.cache.snapshots().view(build.evaluate(request->ref(), stop));
    auto data =
        read_tree_file(*view, request->file_path(), request->range().offset(), request->range().length(), kMaxRead);
    if (!data) throw Error(Errc::not_found, "open " + request->file_path() + ": no such file or directory");
    response->set_data(std::move(*data));
  });
}

grpc::Status BridgeService::ReadDir(grpc::ServerContext* context, const gateway::ReadDirRequest* request,
                                    gateway::ReadDirResponse* response) {
  return for_build(context, [&](Build& build, const std::stop_token& stop) {
    const auto view = services_.cache.snapshots().view(build.evaluate(request->ref(), stop));
    for (auto& entry : list_tree_directory(*view, request->dir_path(), request->include_pattern()))
      *response->add_entries() = std::move(entry);
  });
}

grpc::Status BridgeService::StatFile(grpc::ServerContext* context, const gateway::StatFileRequest* request,
                                     gateway::StatFileResponse* response) {
  return for_build(context, [&](Build& build, const std::stop_token& stop) {
    const auto view = services_.cache.snapshots().view(build.evaluate(request->ref(), stop));
    *response->mutable_stat() = stat_tree_file(*view, request->path());
  });
}

grpc::Status BridgeService::Evaluate(grpc::ServerContext* context, const gateway::EvaluateRequest* request,
                                     gateway::EvaluateResponse*) {
  return for_build(context, [&](Build& build, const std::stop_token& stop) { build.evaluate(request->ref(), stop); });
}

grpc::Status BridgeService::Ping(grpc::ServerContext* context, const gateway::PingRequest*,
                                 gateway::PongResponse* response) {
  return for_build(context, [&](Build&, const std::stop_token&) {
    add_capabilities(*response);
    *response->add_workers() = describe_worker(services_);
  });
}

grpc::Status BridgeService::Return(grpc::ServerContext* context, const gateway::ReturnRequest* request,
                                   gateway::ReturnResponse*) {
  return for_build(context, [&](Build& build, const std::stop_token&) { build.return_result(*request); });
}

grpc::Status BridgeService::Inputs(grpc::ServerContext* context, const gateway::InputsRequest*,
                                   gateway::InputsResponse* response) {
  return for_build(context, [&](Build& build, const std::stop_token&) {
    for (const auto& [key, definition] : build.inputs()) (*response->mutable_definitions())[key] = definition;
  });
}

grpc::Status BridgeService::Warn(grpc::ServerContext* context, const gateway::WarnRequest* request,
                                 gateway::WarnResponse*) {
  return for_build(context, [&](Build& build, const std::stop_token&) { build.warn(*request); });
}

}  // namespace gantry::builder
