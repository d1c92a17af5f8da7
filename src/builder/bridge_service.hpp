#pragma once

#include "builder/builds.hpp"
#include "builder/call_watch.hpp"
#include "builder/services.hpp"
#include "proto/gateway.grpc.pb.h"

namespace gantry::builder {

/// moby.buildkit.v1.frontend.LLBBridge: what a frontend, or a client in its place, asks of one build. Which one is said
/// by the metadata "buildkit-controlapi-buildid".
class BridgeService final : public moby::buildkit::v1::frontend::LLBBridge::Service {
 public:
  BridgeService(const Services& services, Builds& builds, CallWatch& calls)
      : services_(services), builds_(builds), calls_(calls) {}

  grpc::Status ResolveImageConfig(grpc::ServerContext* context,
                                  const moby::buildkit::v1::frontend::ResolveImageConfigRequest* request,
                                  moby::buildkit::v1::frontend::ResolveImageConfigResponse* response) override;
  grpc::Status Solve(grpc::ServerContext* context, const moby::buildkit::v1::frontend::SolveRequest* request,
                     moby::buildkit::v1::frontend::SolveResponse* response) override;
  grpc::Status ReadFile(grpc::ServerContext* context, const moby::buildkit::v1::frontend::ReadFileRequest* request,
                        moby::buildkit::v1::frontend::ReadFileResponse* response) override;
  grpc::Status ReadDir(grpc::ServerContext* context, const moby::buildkit::v1::frontend::ReadDirRequest* request,
                       moby::buildkit::v1::frontend::ReadDirResponse* response) override;
  grpc::Status StatFile(grpc::ServerContext* context, const moby::buildkit::v1::frontend::StatFileRequest* request,
                        moby::buildkit::v1::frontend::StatFileResponse* response) override;
  grpc::Status Evaluate(grpc::ServerContext* context, const moby::buildkit::v1::frontend::EvaluateRequest* request,
                        moby::buildkit::v1::frontend::EvaluateResponse* response) override;
  grpc::Status Ping(grpc::ServerContext* context, const moby::buildkit::v1::frontend::PingRequest* request,
                    moby::buildkit::v1::frontend::PongResponse* response) override;
  grpc::Status Return(grpc::ServerContext* context, const moby::buildkit::v1::frontend::ReturnRequest* request,
                      moby::buildkit::v1::frontend::ReturnResponse* response) override;
  grpc::Status Inputs(grpc::ServerContext* context, const moby::buildkit::v1::frontend::InputsRequest* request,
                      moby::buildkit::v1::frontend::InputsResponse* response) override;
  grpc::Status Warn(grpc::ServerContext* context, const moby::buildkit::v1::frontend::WarnRequest* request,
                    moby::buildkit::v1::frontend::WarnResponse* response) override;

 private:
  template <class Work>
  grpc::Status for_build(grpc::ServerContext* context, Work&& work);

  const Services services_;
  Builds& builds_;
  CallWatch& calls_;
};

}  // namespace gantry::builder
