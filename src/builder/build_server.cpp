#include "builder/build_server.hpp"

#include <cerrno>
#include <chrono>
#include <utility>

#include <fcntl.h>

#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_posix.h>

#include "base/error.hpp"
#include "builder/bridge_service.hpp"
#include "builder/call_watch.hpp"
#include "builder/control_service.hpp"
#include "session/connection_watch.hpp"

namespace gantry::builder {

namespace {

constexpr int kMaxMessage = 16 << 20;
constexpr int kMaxThreads = 512;  // a call that blocks has one
constexpr int kMinPingInterval = 10'000;
constexpr std::chrono::milliseconds kGrace{200};

std::unique_ptr<grpc::Server> start_server(ControlService& control, BridgeService& bridge) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  builder.RegisterService(&control);
  builder.RegisterService(&bridge);
  builder.SetMaxReceiveMessageSize(kMaxMessage);
  builder.SetMaxSendMessageSize(kMaxMessage);
  grpc::ResourceQuota quota("builds");
  quota.SetMaxThreads(kMaxThreads);
  builder.SetResourceQuota(quota);
  // Go's clients ping to keep the connection alive; gRPC would take that for an attack.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kMinPingInterval);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  auto server = builder.BuildAndStart();
  if (!server) throw Error(Errc::internal, "the gRPC server does not start");
  return server;
}

}  // namespace

struct BuildServer::Parts {
  explicit Parts(const Services& s)
      : services(s),
        builds(s),
        control(s, builds, calls),
        bridge(s, builds, calls),
        server(start_server(control, bridge)) {}

  const Services services;
  CallWatch calls;
  Builds builds;
  ControlService control;
  BridgeService bridge;
  session::ConnectionWatch connections;
  std::unique_ptr<grpc::Server> server;
};

BuildServer::BuildServer(const Services& services) : parts_(std::make_unique<Parts>(services)) {}

BuildServer::~BuildServer() { stop(); }

void BuildServer::serve(sys::Fd connection) {
  const int flags = ::fcntl(connection.get(), F_GETFL);
  if (flags < 0 || ::fcntl(connection.get(), F_SETFL, flags | O_NONBLOCK) != 0)
    throw Error::from_errno(errno, "a client's connection");
  parts_->connections.add(connection, [] {});
  grpc::AddInsecureChannelFromFd(parts_->server.get(), connection.release());
}

void BuildServer::serve_session(sys::Fd connection, session::SessionHeaders headers) {
  parts_->services.sessions.serve(std::move(connection), std::move(headers));
}

Builds& BuildServer::builds() noexcept { return parts_->builds; }

std::size_t BuildServer::busy() const {
  return parts_->connections.count() + parts_->services.sessions.count() + parts_->builds.count();
}

void BuildServer::stop() {
  // Calls that are still running are cancelled, and what they wait for sees that.
  parts_->server->Shutdown(std::chrono::system_clock::now() + kGrace);
  parts_->server->Wait();
}

}  // namespace gantry::builder
