#include "api/build_routes.hpp"

#include <cerrno>

#include <sys/socket.h>

#include <boost/json.hpp>

#include "api/build_relay.hpp"
#include "async/readable.hpp"
#include "async/timeout.hpp"
#include "base/error.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "json/codec.hpp"

namespace gantry::api {
namespace {

/// buildx opens a connection and closes it at once, only to see whether this engine builds. So long one that says
/// nothing is kept without a builder.
constexpr std::chrono::milliseconds kSilence{60'000};

bool is_for_the_builder(std::string_view header) {
  for (const char* name : {"X-Registry-Config", "Content-Type", "User-Agent"})
    if (equals_ignoring_case(header, name)) return true;
  return to_lower(header).starts_with("x-docker-expose-session-");
}

protocol::Handover describe(const Request& request, std::string kind) {
  protocol::Handover out;
  out.Kind = std::move(kind);
  out.ApiVersion = render_api_version(request.version());
  out.Query = request.raw_query();
  for (const auto& [name, value] : request.headers())
    if (is_for_the_builder(name)) out.Headers.push_back({name, value});
  return out;
}

std::pair<sys::Fd, sys::Fd> make_pair() {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) throw Error::from_errno(errno, "socketpair");
  return {sys::Fd(fds[0]), sys::Fd(fds[1])};
}

/// Has the client said something, and not only gone?
bool has_bytes(int socket) {
  char byte = 0;
  return ::recv(socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

}  // namespace

void BuildRoutes::add_to(Router& router) {
  static const Route<BuildRoutes> kRoutes[] = {
      {Method::post, "/build", &BuildRoutes::build},
      {Method::post, "/build/prune", &BuildRoutes::prune, {.min_api = {1, 31}}},
      {Method::post, "/build/cancel", &BuildRoutes::cancel},
      {Method::post, "/grpc", &BuildRoutes::grpc},
      {Method::post, "/session", &BuildRoutes::session},
  };
  router.add(*this, kRoutes);
}

Task<void> BuildRoutes::stop() {
  tasks_.cancel();
  co_await tasks_.join();
}

Task<Response> BuildRoutes::build(Request request) {
  builds_.require_installed();
  auto [ours, theirs] = make_pair();
  co_await builds_.hand_over(describe(request, "build"), std::move(theirs));
  co_return co_await relay_exchange(request, std::move(ours), RelayEnd::error_line);
}

Task<Response> BuildRoutes::prune(Request request) {
  if (!builds_.has_cache()) co_return Response::json(200, R"({"CachesDeleted":null,"SpaceReclaimed":0})");
  auto [ours, theirs] = make_pair();
  co_await builds_.hand_over(describe(request, "prune"), std::move(theirs));
  co_return co_await relay_exchange(request, std::move(ours), RelayEnd::cut_off);
}

Task<Response> BuildRoutes::cancel(Request request) {
  if (request.query().get("id").empty()) throw Error(Errc::invalid_argument, "build ID not provided");
  if (!builds_.is_running()) co_return Response::empty(200);
  auto [ours, theirs] = make_pair();
  co_await builds_.hand_over(describe(request, "cancel"), std::move(theirs));
  co_return co_await relay_exchange(request, std::move(ours), RelayEnd::cut_off);
}

Task<Response> BuildRoutes::grpc(Request request) { co_return co_await upgrade(request, "grpc"); }

Task<Response> BuildRoutes::session(Request request) {
  if (request.header("X-Docker-Expose-Session-Uuid").value_or("").empty())
    throw Error(Errc::invalid_argument, "no session uuid in request");
  co_return co_await upgrade(request, "session");
}

Task<Response> BuildRoutes::upgrade(Request request, std::string kind) {
  const std::string proto = request.header("Upgrade").value_or("");
  if (proto.empty()) throw Error(Errc::invalid_argument, "no upgrade proto in request");
  if (!equals_ignoring_case(trim(proto), "h2c"))
    throw Error(Errc::invalid_argument, "protocol " + proto + " not supported");
  builds_.require_installed();
  protocol::Handover handover = describe(request, kind);
  HijackedStream stream =
      co_await request.hijack_raw("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
  if (stream.can_detach()) {
    DetachedSocket socket = co_await stream.detach();
    if (socket.buffered.empty()) {
      // The client of /grpc speaks first, the one of /session is spoken to.
      if (kind == "grpc") tasks_.spawn("a client of the builder", wait_and_hand_over(handover, std::move(socket.fd)));
      else co_await builds_.hand_over(std::move(handover), std::move(socket.fd));
      co_return Response::sent();
    }
    auto [ours, theirs] = make_pair();
    co_await builds_.hand_over(std::move(handover), std::move(theirs));
    tasks_.spawn("a client of the builder",
                 relay_sockets(std::move(socket.fd), std::move(socket.buffered), std::move(ours)));
    co_return Response::sent();
  }
  std::string first;
  if (kind == "grpc") {
    first = co_await stream.read();
    if (first.empty()) co_return Response::sent();
  }
  auto [ours, theirs] = make_pair();
  co_await builds_.hand_over(std::move(handover), std::move(theirs));
  co_await relay_stream(std::move(stream), std::move(first), std::move(ours));
  co_return Response::sent();
}

Task<void> BuildRoutes::wait_and_hand_over(protocol::Handover handover, sys::Fd fd) {
  try {
    async::Readable readable(loop_, fd.duplicate());
    co_await async::with_timeout(readable.wait(), kSilence, "the client of /grpc");
    if (has_bytes(fd.get())) co_await builds_.hand_over(std::move(handover), std::move(fd));
  } catch (const Error& e) {
    log::info("a connection to /grpc: {}", e.message());
  }
}

Task<DiskUsageKind> BuildRoutes::disk_usage(ApiVersion version) {
  DiskUsageKind out;
  for (const protocol::UsageEntry& record : builds_.usage().Records) {
    json::Object item = json::encode(record).as_object();
    if (record.LastUsedAt.empty()) item["LastUsedAt"] = nullptr;
    if (record.Parents.empty()) item.erase("Parents");
    if (version < ApiVersion{1, 42}) item["Parent"] = record.Parents.empty() ? "" : record.Parents.front();
    ++out.total_count;
    out.active_count += record.InUse ? 1 : 0;
    if (!record.Shared) out.total_size += record.Size;
    if (!record.Shared && !record.InUse) out.reclaimable += record.Size;
    out.items.push_back(std::move(item));
  }
  co_return out;
}

}  // namespace gantry::api
