#include "builder/session_tunnel.hpp"

#include <cerrno>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <sys/socket.h>

#include "base/error.hpp"
#include "proto/control.grpc.pb.h"
#include "session/sessions.hpp"
#include "sys/fd.hpp"

namespace gantry::builder {

namespace {

using moby::buildkit::v1::BytesMessage;
constexpr std::size_t kPiece = 32 << 10;

std::pair<sys::Fd, sys::Fd> make_socket_pair() {
  int ends[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) throw Error::from_errno(errno, "socketpair");
  return {sys::Fd(ends[0]), sys::Fd(ends[1])};
}

bool send_all(int socket, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
  return true;
}

void pump_to_client(int socket, grpc::ServerReaderWriter<BytesMessage, BytesMessage>& stream) {
  std::string buffer(kPiece, '\0');
  for (;;) {
    const ssize_t count = ::recv(socket, buffer.data(), buffer.size(), 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;
    BytesMessage message;
    message.set_data(buffer.data(), static_cast<std::size_t>(count));
    if (!stream.Write(message)) return;
  }
}

}  // namespace

void serve_session_tunnel(session::Sessions& sessions, grpc::ServerContext& context,
                          grpc::ServerReaderWriter<BytesMessage, BytesMessage>& stream) {
  std::vector<std::pair<std::string, std::string>> fields;
  for (const auto& [name, value] : context.client_metadata())
    fields.emplace_back(std::string(name.data(), name.size()), std::string(value.data(), value.size()));
  auto [ours, theirs] = make_socket_pair();
  const auto session = sessions.serve(std::move(theirs), session::read_session_headers(fields));
  std::thread to_client([&, socket = ours.get()] {
    pump_to_client(socket, stream);
    // The session is over on our side: the client's next message, or its leaving, ends the reading below.
    context.TryCancel();
  });
  BytesMessage message;
  while (stream.Read(&message) && send_all(ours.get(), message.data())) continue;
  ::shutdown(ours.get(), SHUT_RDWR);
  to_client.join();
}

}  // namespace gantry::builder
