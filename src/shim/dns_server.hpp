#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "shim/dns_forwarder.hpp"
#include "shim/dns_names.hpp"
#include "shim/dns_sockets.hpp"
#include "shim/dns_wire.hpp"
#include "shim/loop.hpp"

namespace gantry::shim::dns {

/// The name server at 127.0.0.11 inside the container (network.md §5). Answers for the containers of its networks from
/// the tables that gantryd writes and passes other questions on; works without gantryd.
///
/// Whatever the question about a known name, it is answered here: a name server elsewhere cannot know of it, and its
/// "there is no such name" would be believed. Clients, connections and forwarded questions are bounded.
class NameServer {
 public:
  explicit NameServer(Loop& loop) : loop_(loop) {}
  NameServer(const NameServer&) = delete;
  NameServer& operator=(const NameServer&) = delete;

  /// Listens in the network namespace `netns`, for the container that `names` describes. Once it serves it goes on as
  /// it is, whatever else is asked. Throws if the kernel refuses.
  void serve(const sys::Path& netns, const sys::Path& names);
  bool serving() const noexcept { return listeners_.has_value(); }

 private:
  static constexpr std::size_t kMaxClients = 64;
  static constexpr std::chrono::seconds kIdle{10};

  using Send = std::function<void(std::string_view answer)>;
  struct Client {
    sys::Fd fd;
    Watch watch;
    Timer idle;
    std::string input;
    std::string output;
    bool busy = false;  // a question of its is being answered
  };

  void on_datagrams();
  void accept_clients();
  void on_client(std::uint64_t id, std::uint32_t events);
  void read_client(std::uint64_t id);
  void next_question(std::uint64_t id);
  void send_to_client(std::uint64_t id, std::string_view answer);
  void flush_client(std::uint64_t id);
  void close_client(std::uint64_t id);
  void answer(std::string_view message, bool tcp, Send send);
  std::optional<std::string> answer_here(const Query& query, std::size_t limit);
  std::string render_addresses(const Query& query, std::size_t limit, std::vector<std::string_view> addresses);
  void pass_on(std::string_view message, const Query& query, bool tcp, Send send);

  Loop& loop_;
  std::optional<ContainerNetwork> network_;
  std::optional<Names> names_;
  std::optional<Forwarder> forwarder_;
  std::optional<Listeners> listeners_;
  Watch udp_watch_;
  Watch tcp_watch_;
  std::uint64_t next_client_ = 1;
  std::unordered_map<std::uint64_t, std::unique_ptr<Client>> clients_;
};

}  // namespace gantry::shim::dns
