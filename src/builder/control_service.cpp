#include "builder/control_service.hpp"

#include <string>
#include <utility>

#include "buildcache/cache.hpp"
#include "builder/capabilities.hpp"
#include "builder/grpc_status.hpp"
#include "builder/session_tunnel.hpp"
#include "builder/status_messages.hpp"

namespace gantry::builder {

namespace {

namespace control = moby::buildkit::v1;

BuildRequest to_request(const control::SolveRequest& request) {
  BuildRequest out;
  out.ref = request.ref();
  out.session = request.session();
  out.frontend = request.frontend();
  out.options.insert(request.frontend_attrs().begin(), request.frontend_attrs().end());
  out.definition = request.definition();
  out.inputs.insert(request.frontend_inputs().begin(), request.frontend_inputs().end());
  for (const auto& exporter : request.exporters())
    out.exporters.push_back({exporter.type(), {exporter.attrs().begin(), exporter.attrs().end()}});
  // Older clients say it like this, newer ones in both ways.
  if (out.exporters.empty() && !request.exporter_deprecated().empty())
    out.exporters.push_back({request.exporter_deprecated(),
                             {request.exporter_attrs_deprecated().begin(), request.exporter_attrs_deprecated().end()}});
  out.entitlements.assign(request.entitlements().begin(), request.entitlements().end());
  out.internal = request.internal();
  return out;
}

}  // namespace

grpc::Status ControlService::DiskUsage(grpc::ServerContext*, const control::DiskUsageRequest* request,
                                       control::DiskUsageResponse* response) {
  return answer([&] {
    const std::vector<std::string> filters(request->filter().begin(), request->filter().end());
    for (const auto& record : services_.cache.usage(filters)) *response->add_record() = to_message(record);
  });
}

grpc::Status ControlService::Prune(grpc::ServerContext* context, const control::PruneRequest* request,
                                   grpc::ServerWriter<control::UsageRecord>* writer) {
  const CallWatch::Call call(calls_, *context);
  return answer([&] {
    services_.cache.prune(
        to_options(*request), [&](const buildcache::UsageRecord& record) { writer->Write(to_message(record)); },
        call.stop());
  });
}

grpc::Status ControlService::Solve(grpc::ServerContext* context, const control::SolveRequest* request,
                                   control::SolveResponse* response) {
  const CallWatch::Call call(calls_, *context);
  return answer([&] {
    for (auto& [key, value] : builds_.run(to_request(*request), call.stop()))
      (*response->mutable_exporter_response())[key] = value;
  });
}

grpc::Status ControlService::Status(grpc::ServerContext* context, const control::StatusRequest* request,
                                    grpc::ServerWriter<control::StatusResponse>* writer) {
  const CallWatch::Call call(calls_, *context);
  return answer([&] {
    const auto reader = builds_.read_progress(request->ref(), call.stop());
    while (const auto batch = reader->next(call.stop()))
      for (const auto& message : to_messages(*batch))
        if (!writer->Write(message)) return;
  });
}

grpc::Status ControlService::Session(grpc::ServerContext* context,
                                     grpc::ServerReaderWriter<control::BytesMessage, control::BytesMessage>* stream) {
  return answer([&] { serve_session_tunnel(services_.sessions, *context, *stream); });
}

grpc::Status ControlService::ListWorkers(grpc::ServerContext*, const control::ListWorkersRequest*,
                                         control::ListWorkersResponse* response) {
  return answer([&] { *response->add_record() = describe_worker(services_); });
}

grpc::Status ControlService::Info(grpc::ServerContext*, const control::InfoRequest*, control::InfoResponse* response) {
  *response->mutable_buildkit_version() = describe_version();
  return grpc::Status::OK;
}

}  // namespace gantry::builder
