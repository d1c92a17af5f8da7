#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "shim/dns_sockets.hpp"
#include "shim/loop.hpp"

namespace gantry::shim::dns {

/// Passes queries on to other name servers, one after the other until one answers.
///
/// Every attempt has a socket of its own that is connected to the server: its port is random, as is the query's id, and
/// the kernel drops what comes from elsewhere. A server that did not answer is asked last for a while.
class Forwarder {
 public:
  /// Gets the answer with the client's id, or nothing if no server gave one.
  using Done = std::function<void(std::string_view answer)>;

  static constexpr std::size_t kMaxPending = 1024;
  /// How long a server may take if there is another one to ask, and if there is none.
  static constexpr std::chrono::milliseconds kPatience{2000}, kLastPatience{4000};

  Forwarder(Loop& loop, const ContainerNetwork& network) : loop_(loop), network_(network) {}

  /// False, and `done` is not called: too many queries wait already. By TCP if the client came so.
  bool forward(std::string_view query, bool tcp, const std::vector<Upstream>& servers, Done done);
  std::size_t pending() const noexcept { return pending_.size(); }

 private:
  using Clock = std::chrono::steady_clock;
  struct Pending {
    std::string query;  // with our id; for TCP behind its length
    std::uint16_t client_id = 0;
    bool tcp = false;
    std::vector<Upstream> servers;
    std::size_t next = 0;
    sys::Fd socket;
    Watch watch;
    Clock::time_point deadline;
    std::size_t sent = 0;
    std::string received;
    Done done;
    std::string_view message() const { return std::string_view(query).substr(tcp ? 2 : 0); }
  };

  void ask_next(std::uint64_t id);
  bool ask(std::uint64_t id, Pending& pending, const Upstream& server);
  void on_datagram(std::uint64_t id);
  void on_stream(std::uint64_t id, std::uint32_t events);
  void take(std::uint64_t id, std::string_view answer);
  void finish(std::uint64_t id, std::string_view answer);
  void note_failure(const Upstream& server);
  void tick();

  Loop& loop_;
  const ContainerNetwork& network_;
  std::uint64_t next_id_ = 1;
  std::unordered_map<std::uint64_t, std::unique_ptr<Pending>> pending_;
  std::map<std::string, Clock::time_point> silent_until_;
  Timer timer_;
};

/// From the kernel's generator.
std::uint64_t random_number();

}  // namespace gantry::shim::dns
