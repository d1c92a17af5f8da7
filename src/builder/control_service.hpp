#pragma once

#include "builder/builds.hpp"
#include "builder/call_watch.hpp"
#include "builder/services.hpp"
#include "proto/control.grpc.pb.h"

namespace gantry::builder {

/// moby.buildkit.v1.Control: builds, their progress, the cache, sessions in tunnels.
class ControlService final : public moby::buildkit::v1::Control::Service {
 public:
  ControlService(const Services& services, Builds& builds, CallWatch& calls)
      : services_(services), builds_(builds), calls_(calls) {}

  grpc::Status DiskUsage(grpc::ServerContext* context, const moby::buildkit::v1::DiskUsageRequest* request,
                         moby::buildkit::v1::DiskUsageResponse* response) override;
  grpc::Status Prune(grpc::ServerContext* context, const moby::buildkit::v1::PruneRequest* request,
                     grpc::ServerWriter<moby::buildkit::v1::UsageRecord>* writer) override;
  grpc::Status Solve(grpc::ServerContext* context, const moby::buildkit::v1::SolveRequest* request,
                     moby::buildkit::v1::SolveResponse* response) override;
  grpc::Status Status(grpc::ServerContext* context, const moby::buildkit::v1::StatusRequest* request,
                      grpc::ServerWriter<moby::buildkit::v1::StatusResponse>* writer) override;
  grpc::Status Session(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<moby::buildkit::v1::BytesMessage, moby::buildkit::v1::BytesMessage>* stream) override;
  grpc::Status ListWorkers(grpc::ServerContext* context, const moby::buildkit::v1::ListWorkersRequest* request,
                           moby::buildkit::v1::ListWorkersResponse* response) override;
  grpc::Status Info(grpc::ServerContext* context, const moby::buildkit::v1::InfoRequest* request,
                    moby::buildkit::v1::InfoResponse* response) override;

 private:
  const Services services_;
  Builds& builds_;
  CallWatch& calls_;
};

}  // namespace gantry::builder
