#include "session/agent_socket.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <list>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.hpp"
#include "proto/sshforward.grpc.pb.h"
#include "sys/unix_socket.hpp"

namespace gantry::session {

namespace {

namespace ssh = moby::sshforward::v1;

constexpr std::size_t kMaxConnections = 64;

/// One connection of the container to the agent.
class AgentConnection {
 public:
  AgentConnection(const std::shared_ptr<grpc::Channel>& channel, const std::string& id, sys::Fd socket)
      : socket_(std::move(socket)), stub_(ssh::SSH::NewStub(channel)) {
    ::fcntl(socket_.get(), F_SETFL, ::fcntl(socket_.get(), F_GETFL) & ~O_NONBLOCK);
    context_.AddMetadata("buildkit.ssh.id", id);
    stream_ = stub_->ForwardAgent(&context_);
    to_agent_ = std::thread([this] { pump_to_agent(); });
    from_agent_ = std::thread([this] { pump_from_agent(); });
  }
  ~AgentConnection() {
    context_.TryCancel();
    ::shutdown(socket_.get(), SHUT_RDWR);
    to_agent_.join();
    from_agent_.join();
    (void)stream_->Finish();
  }
  AgentConnection(const AgentConnection&) = delete;
  AgentConnection& operator=(const AgentConnection&) = delete;

  bool ended() const noexcept { return ended_; }

 private:
  void pump_to_agent() {
    std::string buffer(32 << 10, '\0');
    for (;;) {
      const ssize_t count = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) break;
      ssh::BytesMessage message;
      message.set_data(buffer.data(), static_cast<std::size_t>(count));
      if (!stream_->Write(message)) break;
    }
    stream_->WritesDone();
  }

  void pump_from_agent() {
    ssh::BytesMessage message;
    while (stream_->Read(&message)) {
      std::string_view rest = message.data();
      while (!rest.empty()) {
        const ssize_t count = ::send(socket_.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) break;
        rest.remove_prefix(static_cast<std::size_t>(count));
      }
      if (!rest.empty()) break;
    }
    ::shutdown(socket_.get(), SHUT_RDWR);
    ended_ = true;
  }

  sys::Fd socket_;
  grpc::ClientContext context_;
  std::unique_ptr<ssh::SSH::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<ssh::BytesMessage, ssh::BytesMessage>> stream_;
  std::atomic<bool> ended_ = false;
  std::thread to_agent_;
  std::thread from_agent_;
};

class ListeningAgentSocket final : public AgentSocket {
 public:
  ListeningAgentSocket(std::shared_ptr<grpc::Channel> channel, std::string id, sys::Path path, sys::Fd listener)
      : channel_(std::move(channel)),
        id_(std::move(id)),
        path_(std::move(path)),
        listener_(std::move(listener)),
        wake_(::eventfd(0, EFD_CLOEXEC)) {
    if (!wake_) throw Error::from_errno(errno, "eventfd");
    thread_ = std::thread([this] { accept_connections(); });
  }
  ~ListeningAgentSocket() override {
    ::eventfd_write(wake_.get(), 1);
    thread_.join();
    ::unlink(path_.c_str());
  }

 private:
  void accept_connections() {
    std::list<AgentConnection> connections;
    for (;;) {
      pollfd fds[2] = {{wake_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
      if (::poll(fds, 2, -1) < 0 && errno != EINTR) return;
      if (fds[0].revents != 0) return;
      connections.remove_if([](const AgentConnection& connection) { return connection.ended(); });
      auto socket = sys::accept_unix(listener_.get());
      // Beyond the limit a connection is closed at once.
      if (socket && connections.size() < kMaxConnections) connections.emplace_back(channel_, id_, std::move(*socket));
    }
  }

  std::shared_ptr<grpc::Channel> channel_;
  std::string id_;
  sys::Path path_;
  sys::Fd listener_;
  sys::Fd wake_;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<AgentSocket> listen_for_agent(std::shared_ptr<grpc::Channel> channel, const std::string& id,
                                              const sys::Path& path, uid_t uid, gid_t gid, mode_t mode) {
  sys::Fd listener = sys::listen_unix(path);
  if (::chmod(path.c_str(), mode) != 0 || ::lchown(path.c_str(), uid, gid) != 0) {
    const Error failure = Error::from_errno(errno, "set the owner of " + path.string());
    ::unlink(path.c_str());
    throw failure;
  }
  return std::make_unique<ListeningAgentSocket>(std::move(channel), id, path, std::move(listener));
}

}  // namespace gantry::session
