#include "session/session.hpp"

#include <algorithm>
#include <atomic>
#include <utility>

#include <sys/socket.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "proto/filesync.grpc.pb.h"
#include "proto/secrets.grpc.pb.h"
#include "proto/sshforward.grpc.pb.h"
#include "proto/upload.grpc.pb.h"
#include "session/agent_socket.hpp"
#include "session/rpc.hpp"
#include "session/session_link.hpp"
#include "session/tree_receiver.hpp"
#include "session/tree_sender.hpp"

namespace gantry::session {

namespace {

using fsutil::types::Packet;
namespace filesync = moby::filesync::v1;

constexpr std::size_t kMaxSecret = 500 << 10;
constexpr std::size_t kPiece = 1 << 20;  // of a stream; a client takes messages below 4 MiB

/// Packets on any method: the generated stub of FileSend has another message.
class CallPackets final : public PacketStream {
 public:
  CallPackets(const std::shared_ptr<grpc::Channel>& channel, std::string_view method, grpc::ClientContext& context)
      : context_(context),
        stream_(grpc::internal::ClientReaderWriterFactory<Packet, Packet>::Create(
            channel.get(), grpc::internal::RpcMethod(method.data(), grpc::internal::RpcMethod::BIDI_STREAMING, channel),
            &context)) {}

  bool read(Packet& packet) override {
    const bool more = stream_->Read(&packet);
    if (!more) ended_ = true;
    return more;
  }
  bool write(const Packet& packet) override { return stream_->Write(packet); }
  void cancel() override { context_.TryCancel(); }

  /// Ends our side, drops what still comes, and tells how the call ended.
  grpc::Status finish() {
    stream_->WritesDone();
    Packet rest;
    for (int i = 0; i < 1024 && stream_->Read(&rest); ++i) continue;
    return stream_->Finish();
  }
  /// Gives the call up. Its status tells why it broke, if it did before: a cancelled call has no other.
  grpc::Status give_up() {
    if (!ended_) context_.TryCancel();
    return stream_->Finish();
  }

 private:
  grpc::ClientContext& context_;
  std::unique_ptr<grpc::ClientReaderWriter<Packet, Packet>> stream_;
  std::atomic<bool> ended_ = false;
};

/// Patterns as metadata: percent-encoded if one of them is not plain, since metadata is ASCII.
void add_patterns(grpc::ClientContext& context, const std::string& key, const std::vector<std::string>& values) {
  const auto plain = [](unsigned char c) { return c >= 0x20 && c < 0x7f; };
  const bool encode = std::any_of(values.begin(), values.end(), [&](const std::string& value) {
    return !std::all_of(value.begin(), value.end(), plain);
  });
  for (const auto& value : values) {
    std::string text;
    for (const unsigned char c : value) {
      const bool safe = std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.' || c == '~';
      if (!encode || safe) text += static_cast<char>(c);
      else text += "%" + to_upper(render_hex(std::string_view(reinterpret_cast<const char*>(&c), 1)));
    }
    context.AddMetadata(key, text);
  }
  if (encode) context.AddMetadata(key + "-encoded", "1");
}

/// Runs an exchange of packets to its end. The call's own error says more than that the stream broke.
template <class Exchange>
void run_exchange(Call& call, CallPackets& packets, Exchange&& exchange) {
  try {
    exchange();
  } catch (const Error& e) {
    const grpc::Status status = packets.give_up();
    call.check(grpc::Status::OK);
    if (e.code() == Errc::unavailable && !status.ok() && status.error_code() != grpc::StatusCode::CANCELLED)
      throw to_error(status);
    throw;
  }
  call.check(packets.finish());
}

}  // namespace

Session::Session(SessionHeaders headers, std::unique_ptr<Link> link)
    : headers_(std::move(headers)), link_(std::move(link)) {}

Session::~Session() { close(); }

bool Session::supports(std::string_view method) const {
  return std::any_of(headers_.methods.begin(), headers_.methods.end(),
                     [&](const std::string& known) { return equals_ignoring_case(known, method); });
}

bool Session::alive() const noexcept { return !link_->gone; }

void Session::close() noexcept {
  link_->gone = true;
  ::shutdown(link_->connection.get(), SHUT_RDWR);
}

ReceiveReport Session::receive(const ReceiveOptions& options, int root,
                               const std::function<void(const std::string&)>& changed,
                               const std::function<void(std::int64_t)>& progress, std::stop_token stop) {
  Call call(std::move(stop));
  add_patterns(call.context(), "dir-name", {options.name});
  add_patterns(call.context(), "include-patterns", options.include);
  add_patterns(call.context(), "exclude-patterns", options.exclude);
  add_patterns(call.context(), "followpaths", options.follow);
  CallPackets packets(link_->channel, kFileSync, call.context());
  ReceiveReport report;
  run_exchange(call, packets, [&] { report = receive_tree(packets, root, options.always_fetch, changed, progress); });
  return report;
}

void Session::send_tree(int index, int root, const std::function<void(std::int64_t)>& progress, std::stop_token stop) {
  Call call(std::move(stop));
  call.context().AddMetadata("buildkit-attachable-exporter-id", std::to_string(index));
  CallPackets packets(link_->channel, kFileSend, call.context());
  run_exchange(call, packets, [&] { send_tree_packets(packets, root, progress); });
}

void Session::send_stream(int index, const std::function<void(const std::function<void(std::string_view)>&)>& produce,
                          std::stop_token stop) {
  Call call(std::move(stop));
  call.context().AddMetadata("buildkit-attachable-exporter-id", std::to_string(index));
  const auto stub = filesync::FileSend::NewStub(link_->channel);
  const auto stream = stub->DiffCopy(&call.context());
  bool ended = false;
  const auto send = [&](std::string_view bytes) {
    for (; !bytes.empty(); bytes.remove_prefix(std::min(kPiece, bytes.size()))) {
      filesync::BytesMessage message;
      message.set_data(bytes.data(), std::min(kPiece, bytes.size()));
      ended = !stream->Write(message);
      if (ended) throw Error(Errc::unavailable, "the client no longer takes the result");
    }
  };
  try {
    produce(send);
  } catch (const Error& e) {
    // A stream that the client ended has a status of its own.
    if (!ended) call.context().TryCancel();
    const grpc::Status status = stream->Finish();
    call.check(grpc::Status::OK);
    if (e.code() == Errc::unavailable && !status.ok() && status.error_code() != grpc::StatusCode::CANCELLED)
      throw to_error(status);
    throw;
  }
  stream->WritesDone();
  filesync::BytesMessage rest;
  for (int i = 0; i < 1024 && stream->Read(&rest); ++i) continue;
  call.check(stream->Finish());
}

std::optional<Credentials> Session::credentials(const std::string& host, std::stop_token stop) {
  if (!supports(kCredentials)) return std::nullopt;
  Call call(std::move(stop));
  filesync::CredentialsRequest request;
  request.set_host(host);
  filesync::CredentialsResponse response;
  const auto status = filesync::Auth::NewStub(link_->channel)->Credentials(&call.context(), request, &response);
  if (status.error_code() == grpc::StatusCode::NOT_FOUND) return std::nullopt;
  call.check(status);
  if (response.username().empty() && response.secret().empty()) return std::nullopt;
  return Credentials{response.username(), response.secret()};
}

std::optional<Token> Session::fetch_token(const TokenRequest& request, std::stop_token stop) {
  if (!supports(kFetchToken)) return std::nullopt;
  Call call(std::move(stop));
  filesync::FetchTokenRequest message;
  message.set_client_id(request.client_id);
  message.set_host(request.host);
  message.set_realm(request.realm);
  message.set_service(request.service);
  for (const auto& scope : request.scopes) message.add_scopes(scope);
  filesync::FetchTokenResponse response;
  const auto status = filesync::Auth::NewStub(link_->channel)->FetchToken(&call.context(), message, &response);
  const auto code = status.error_code();
  if (alive() && (code == grpc::StatusCode::NOT_FOUND || code == grpc::StatusCode::UNIMPLEMENTED ||
                  code == grpc::StatusCode::UNAVAILABLE))
    return std::nullopt;
  call.check(status);
  return Token{response.token(), response.expires_in(), response.issued_at()};
}

std::optional<std::string> Session::secret(const std::string& id, std::stop_token stop) {
  if (!supports(kGetSecret)) return std::nullopt;
  Call call(std::move(stop));
  moby::buildkit::secrets::v1::GetSecretRequest request;
  request.set_id(id);
  moby::buildkit::secrets::v1::GetSecretResponse response;
  const auto status =
      moby::buildkit::secrets::v1::Secrets::NewStub(link_->channel)->GetSecret(&call.context(), request, &response);
  if (status.error_code() == grpc::StatusCode::NOT_FOUND || status.error_code() == grpc::StatusCode::UNIMPLEMENTED)
    return std::nullopt;
  call.check(status);
  if (response.data().size() > kMaxSecret)
    throw Error(Errc::invalid_argument, "secret " + id + " is larger than 500 KiB");
  return std::move(*response.mutable_data());
}

bool Session::check_agent(const std::string& id, std::stop_token stop) {
  if (!supports(kCheckAgent)) return false;
  Call call(std::move(stop));
  moby::sshforward::v1::CheckAgentRequest request;
  request.set_id(id);
  moby::sshforward::v1::CheckAgentResponse response;
  const auto status =
      moby::sshforward::v1::SSH::NewStub(link_->channel)->CheckAgent(&call.context(), request, &response);
  // A client says "unset ssh forward key" with a code of its own choice.
  if (alive() && !status.ok() && status.error_code() != grpc::StatusCode::CANCELLED) return false;
  call.check(status);
  return true;
}

std::unique_ptr<AgentSocket> Session::forward_agent(const std::string& id, const sys::Path& path, uid_t uid, gid_t gid,
                                                    mode_t mode) {
  return listen_for_agent(link_->channel, id, path, uid, gid, mode);
}

void Session::pull_upload(const std::string& url, const std::function<void(std::string_view)>& sink,
                          std::stop_token stop) {
  const std::string_view text = url;
  const auto scheme = text.find("://");
  const std::string_view rest = scheme == std::string_view::npos ? text : text.substr(scheme + 3);
  const auto slash = rest.find('/');
  Call call(std::move(stop));
  call.context().AddMetadata("urlhost", std::string(rest.substr(0, slash)));
  call.context().AddMetadata("urlpath", slash == std::string_view::npos ? "" : std::string(rest.substr(slash)));
  const auto stream = moby::upload::v1::Upload::NewStub(link_->channel)->Pull(&call.context());
  moby::upload::v1::BytesMessage message;
  try {
    while (stream->Read(&message)) sink(message.data());
  } catch (const Error&) {
    call.context().TryCancel();
    (void)stream->Finish();
    call.check(grpc::Status::OK);
    throw;
  }
  stream->WritesDone();
  call.check(stream->Finish());
}

}  // namespace gantry::session
