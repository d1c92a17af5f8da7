#include "shim/dns_server.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include <arpa/inet.h>
#include <fmt/format.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "sys/namespace.hpp"
#include "sys/netlink.hpp"

namespace gantry::shim::dns {
namespace {

void loopback_up() {
  sys::NetlinkSocket socket(NETLINK_ROUTE);
  sys::NetlinkBatch batch;
  sys::add_link_change(batch, {.name = "lo", .up = true});
  socket.transact(std::move(batch));
}

/// The process's own "host", before any thread exists.
const bool isolated = [] {
  if (::unshare(CLONE_NEWNET | CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    std::abort();
  loopback_up();
  return true;
}();

sockaddr_in address_of(const char* ip, std::uint16_t port) {
  sockaddr_in out{};
  out.sin_family = AF_INET;
  out.sin_port = htons(port);
  ::inet_pton(AF_INET, ip, &out.sin_addr);
  return out;
}

sys::Fd bound(const char* ip, std::uint16_t port, int type) {
  sys::Fd fd(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
  const sockaddr_in address = address_of(ip, port);
  const int one = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return {};
  if (type == SOCK_STREAM && ::listen(fd.get(), 8) != 0) return {};
  return fd;
}

std::string question(const std::string& name, std::uint16_t type, std::uint16_t id = 0x4242) {
  std::string out{static_cast<char>(id >> 8), static_cast<char>(id), 1, 0, 0, 1, 0, 0, 0, 0, 0, 0};
  out += encode_name(name).value();
  out += std::string{static_cast<char>(type >> 8), static_cast<char>(type), 0, 1};
  return out;
}

/// What came back, taken apart as far as the tests ask.
struct Reply {
  bool arrived = false;
  int id = 0, code = -1;
  bool truncated = false;
  std::vector<std::string> answers;
};

Reply read_reply(const std::string& bytes, const std::string& asked) {
  Reply out;
  if (bytes.size() < kHeaderSize) return out;
  const auto u8 = [&](std::size_t at) { return static_cast<unsigned char>(bytes[at]); };
  out.arrived = true;
  out.id = u8(0) << 8 | u8(1);
  out.code = u8(3) & 15;
  out.truncated = (u8(2) & 2) != 0;
  std::size_t at = asked.size();
  for (int left = u8(6) << 8 | u8(7); left > 0 && at + 12 <= bytes.size(); --left) {
    const std::size_t length = static_cast<std::size_t>(u8(at + 10)) << 8 | u8(at + 11);
    const std::string data = bytes.substr(at + 12, length);
    char text[INET6_ADDRSTRLEN];
    if (length == 4 || length == 16)
      out.answers.emplace_back(::inet_ntop(length == 4 ? AF_INET : AF_INET6, data.data(), text, sizeof text));
    else out.answers.push_back(data);
    at += 12 + length;
  }
  return out;
}

/// A name server on the host that answers every A question with `ip`, or fails in a way of its own.
class Upstreams {
 public:
  enum class Way { answer, fail, silent, large };
  Upstreams(const char* ip, Way way, const char* answer = "192.0.2.1")
      : way_(way), answer_(answer), udp_(bound(ip, 53, SOCK_DGRAM)), tcp_(bound(ip, 53, SOCK_STREAM)), thread_([this] {
          serve();
        }) {}
  ~Upstreams() {
    stop_ = true;
    thread_.join();
  }
  int asked() const { return asked_; }

 private:
  std::string respond(const std::string& query) {
    ++asked_;
    if (way_ == Way::fail) return render_failure(query, Rcode::server_failure);
    in_addr bytes{};
    ::inet_pton(AF_INET, answer_.c_str(), &bytes);
    Answer answer(parse_query(query).query, kMaxMessage);
    for (int i = 0; i < (way_ == Way::large ? 100 : 1); ++i)
      answer.add_address({reinterpret_cast<const char*>(&bytes), 4});
    return answer.finish();
  }
  void serve() {
    while (!stop_) {
      pollfd wait[2] = {{udp_.get(), POLLIN, 0}, {tcp_.get(), POLLIN, 0}};
      if (::poll(wait, 2, 10) <= 0) continue;
      char buffer[4096];
      if (wait[0].revents != 0) {
        sockaddr_in peer{};
        socklen_t length = sizeof peer;
        const ssize_t n = ::recvfrom(udp_.get(), buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&peer), &length);
        if (n < 0) continue;
        ports_.insert(peer.sin_port);
        const std::string answer = respond({buffer, static_cast<std::size_t>(n)});
        if (way_ != Way::silent)
          ::sendto(udp_.get(), answer.data(), answer.size(), 0, reinterpret_cast<sockaddr*>(&peer), length);
      }
      if (wait[1].revents != 0) {
        sys::Fd peer(::accept4(tcp_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        const ssize_t n = ::recv(peer.get(), buffer, sizeof buffer, 0);
        if (n < 2) continue;
        std::string answer = respond({buffer + 2, static_cast<std::size_t>(n) - 2});
        answer.insert(0, {static_cast<char>(answer.size() >> 8), static_cast<char>(answer.size())});
        // In two pieces: streams have no borders.
        ::send(peer.get(), answer.data(), 7, MSG_NOSIGNAL);
        ::send(peer.get(), answer.data() + 7, answer.size() - 7, MSG_NOSIGNAL);
      }
    }
  }
  Way way_;
  std::string answer_;
  sys::Fd udp_, tcp_;
  std::set<int> ports_;
  std::atomic<int> asked_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

class DnsServer : public ::testing::Test {
 protected:
  DnsServer() {
    char name[] = "/tmp/gantry-dns-XXXXXX";
    directory_ = ::mkdtemp(name);
    netns_ = directory_ / "netns";
    std::filesystem::create_directories(directory_ / "networks");
    std::filesystem::create_directories(directory_ / "containers");
    sys::create_netns(netns_, loopback_up);
    write("networks/n1",
          "gantry-names 1 Blue\n"
          "a db 10.0.0.3\na db 10.0.0.4\na db 10.0.0.5\na web 10.0.0.2\na web fd00::2\n"
          "p 10.0.0.2 web\np fd00::2 web\n");
    write("networks/n2", "gantry-names 1 red\na only.here 10.1.0.9\na web 10.1.0.2\np 10.1.0.2 web\n");
    configure("host-servers " + (directory_ / "resolv.conf").string() + "\nexternal 1\n");
    write("resolv.conf", "nameserver 127.0.0.1\n");
  }
  ~DnsServer() override {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
    sys::remove_netns(netns_);
    std::filesystem::remove_all(directory_);
  }

  void write(const std::string& path, const std::string& text) {
    sys::write_atomically(directory_ / path, text, 0644, false);
  }
  void configure(const std::string& more) {
    write("containers/c", "gantry-names 1\nnetwork n1\nlink store db\nnetwork n2\n" + more);
  }
  /// The shim's loop, on a thread that stands for its process.
  void start() {
    std::atomic<bool> ready{false};
    thread_ = std::thread([this, &ready] {
      Loop loop;
      NameServer server(loop);
      server.serve(netns_, directory_ / "containers/c");
      ready = true;
      std::function<void()> check;
      Timer timer;
      check = [&] {
        if (stop_) return loop.stop();
        timer = loop.after(std::chrono::milliseconds(5), check);
      };
      check();
      loop.run();
    });
    while (!ready) std::this_thread::yield();
  }
  std::string exchange(const std::string& bytes, bool tcp) {
    std::string out;
    sys::enter_netns(netns_, [&] {
      const sys::Fd fd(::socket(AF_INET, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0));
      const sockaddr_in to = address_of(kServerAddress, kServerPort);
      const timeval limit{12, 0};
      ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
      // Connected: the kernel takes answers from port 53 only.
      ASSERT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
      std::string sent = bytes;
      if (tcp) sent.insert(0, {static_cast<char>(bytes.size() >> 8), static_cast<char>(bytes.size())});
      ASSERT_EQ(::send(fd.get(), sent.data(), sent.size(), 0), static_cast<ssize_t>(sent.size()));
      std::vector<char> buffer(70000);
      std::size_t expected = 0;
      do {
        const ssize_t n = ::recv(fd.get(), buffer.data(), buffer.size(), 0);
        if (n <= 0) return;
        out.append(buffer.data(), static_cast<std::size_t>(n));
        if (tcp && out.size() >= 2)
          expected = 2 + (static_cast<std::size_t>(static_cast<unsigned char>(out[0])) << 8 |
                          static_cast<unsigned char>(out[1]));
      } while (tcp && (out.size() < 2 || out.size() < expected));
      if (tcp) out.erase(0, 2);
    });
    return out;
  }
  Reply ask(const std::string& name, std::uint16_t type = kTypeA, bool tcp = false) {
    const std::string query = question(name, type);
    return read_reply(exchange(query, tcp), query);
  }
  using Texts = std::vector<std::string>;

  sys::Path directory_, netns_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

TEST_F(DnsServer, AnswersNamesOfItsNetworksInTheirOrder) {
  start();
  EXPECT_EQ(ask("web").answers, Texts{"10.0.0.2"});
  EXPECT_EQ(ask("WEB").answers, Texts{"10.0.0.2"});
  EXPECT_EQ(ask("web", kTypeAaaa).answers, Texts{"fd00::2"});
  EXPECT_EQ(ask("web.red").answers, Texts{"10.1.0.2"});
  EXPECT_EQ(ask("web.blue").answers, Texts{"10.0.0.2"});
  EXPECT_EQ(ask("only.here").answers, Texts{"10.1.0.9"});
  EXPECT_EQ(ask("only.here.red").answers, Texts{"10.1.0.9"});
  EXPECT_EQ(ask("store").answers.size(), 3u);
  EXPECT_EQ(ask("web", kTypeA, true).answers, Texts{"10.0.0.2"});
  EXPECT_EQ(ask("web").id, 0x4242);
}

TEST_F(DnsServer, AddressesTakeTurns) {
  start();
  std::set<std::string> first;
  for (int i = 0; i < 100; ++i) {
    const Reply reply = ask("db");
    ASSERT_EQ(reply.answers.size(), 3u);
    first.insert(reply.answers[0]);
  }
  EXPECT_EQ(first.size(), 3u);
}

TEST_F(DnsServer, NamesAnAddress) {
  start();
  EXPECT_EQ(ask("2.0.0.10.in-addr.arpa", kTypePtr).answers, Texts{encode_name("web.Blue").value()});
}

TEST_F(DnsServer, NothingAboutAKnownNameIsPassedOn) {
  Upstreams upstream("127.0.0.1", Upstreams::Way::answer);
  start();
  for (const std::uint16_t type : {15, 16, 33, 65, 255}) {
    const Reply reply = ask("web", type);
    EXPECT_EQ(reply.code, 0) << type;
    EXPECT_TRUE(reply.answers.empty()) << type;
  }
  const Reply other_family = ask("db", kTypeAaaa);
  EXPECT_EQ(other_family.code, 0);
  EXPECT_TRUE(other_family.answers.empty());
  EXPECT_EQ(upstream.asked(), 0);
  EXPECT_EQ(ask("example.org").answers, Texts{"192.0.2.1"});
  EXPECT_EQ(upstream.asked(), 1);
}

TEST_F(DnsServer, PassesOnByTheClientsTransport) {
  Upstreams upstream("127.0.0.1", Upstreams::Way::large);
  start();
  const Reply by_udp = ask("example.org");
  EXPECT_TRUE(by_udp.truncated);
  EXPECT_TRUE(by_udp.answers.empty());
  EXPECT_EQ(by_udp.id, 0x4242);
  EXPECT_EQ(ask("example.org", kTypeA, true).answers.size(), 100u);
}

TEST_F(DnsServer, AFailingOrMissingServerIsFollowedByTheNext) {
  Upstreams failing("127.0.0.2", Upstreams::Way::fail), good("127.0.0.3", Upstreams::Way::answer, "192.0.2.3");
  write("resolv.conf", "# none at .1\nnameserver 127.0.0.1\nnameserver 127.0.0.2\nnameserver 127.0.0.3\n");
  start();
  EXPECT_EQ(ask("example.org").answers, Texts{"192.0.2.3"});
  EXPECT_EQ(ask("example.org", kTypeA, true).answers, Texts{"192.0.2.3"});
  EXPECT_GE(failing.asked(), 2);
}

TEST_F(DnsServer, ASilentServerCostsTimeOnceAndThenComesLast) {
  Upstreams silent("127.0.0.2", Upstreams::Way::silent), good("127.0.0.3", Upstreams::Way::answer, "192.0.2.3");
  write("resolv.conf", "nameserver 127.0.0.2\nnameserver 127.0.0.3\n");
  start();
  EXPECT_EQ(ask("example.org").answers, Texts{"192.0.2.3"});
  EXPECT_EQ(ask("example.com").answers, Texts{"192.0.2.3"});
  EXPECT_EQ(silent.asked(), 1);
}

TEST_F(DnsServer, SaysSoWhenNobodyAnswers) {
  write("resolv.conf", "nameserver 127.0.0.1\n");
  start();
  EXPECT_EQ(ask("example.org").code, 2);
  EXPECT_EQ(ask("example.org", kTypeA, true).code, 2);
}

TEST_F(DnsServer, WithoutAWayOutTheHostsServersAreNotAskedAndTheContainersOwnAre) {
  Upstreams host("127.0.0.1", Upstreams::Way::answer);
  configure("host-servers " + (directory_ / "resolv.conf").string() + "\n");
  start();
  EXPECT_EQ(ask("example.org").code, 2);
  EXPECT_EQ(host.asked(), 0);
  std::unique_ptr<Upstreams> inside;
  sys::enter_netns(netns_,
                   [&] { inside = std::make_unique<Upstreams>("127.0.0.9", Upstreams::Way::answer, "192.0.2.9"); });
  configure("server 127.0.0.11\nserver 127.0.0.9\n");
  EXPECT_EQ(ask("example.org").answers, Texts{"192.0.2.9"});
  EXPECT_EQ(host.asked(), 0);
}

TEST_F(DnsServer, SeesANewTableAndTheHostsNewServersAtOnce) {
  Upstreams second("127.0.0.3", Upstreams::Way::answer, "192.0.2.3");
  start();
  write("networks/n1", "gantry-names 1 blue\na web 10.0.0.77\n");
  EXPECT_EQ(ask("web").answers, Texts{"10.0.0.77"});
  write("resolv.conf", "nameserver\t127.0.0.3  \n");
  EXPECT_EQ(ask("example.org").answers, Texts{"192.0.2.3"});
  std::filesystem::remove(directory_ / "networks/n1");
  EXPECT_EQ(ask("web").answers, Texts{"10.1.0.2"});
}

TEST_F(DnsServer, SingleLabelsStayWhenSomebodyChoseNdots) {
  Upstreams upstream("127.0.0.1", Upstreams::Way::answer);
  configure("host-servers " + (directory_ / "resolv.conf").string() + "\nexternal 1\nndots 1\n");
  start();
  EXPECT_EQ(ask("nosuch").code, 0);
  EXPECT_EQ(upstream.asked(), 0);
  EXPECT_EQ(ask("no.such").answers, Texts{"192.0.2.1"});
}

TEST_F(DnsServer, TheContainerCanListenAtPort53Itself) {
  start();
  sys::enter_netns(netns_, [] {
    EXPECT_TRUE(bound("0.0.0.0", 53, SOCK_DGRAM));
    EXPECT_TRUE(bound("0.0.0.0", 53, SOCK_STREAM));
    const sys::Fd udp = bound("0.0.0.0", 53, SOCK_DGRAM), tcp = bound("0.0.0.0", 53, SOCK_STREAM);
  });
  EXPECT_EQ(ask("web").answers, Texts{"10.0.0.2"});
}

TEST_F(DnsServer, FindsNamesInALargeTable) {
  std::vector<std::string> lines;
  for (int i = 0; i < 5000; ++i) lines.push_back(fmt::format("a name{} 10.{}.{}.1", i, i / 256, i % 256));
  std::ranges::sort(lines);
  write("networks/n1", "gantry-names 1 blue\n" + join(lines, "\n") + "\n");
  start();
  for (const int i : {0, 1, 9, 10, 77, 999, 1000, 4095, 4999})
    EXPECT_EQ(ask(fmt::format("name{}", i)).answers, Texts{fmt::format("10.{}.{}.1", i / 256, i % 256)});
  EXPECT_EQ(ask("web").answers, Texts{"10.1.0.2"});
}

TEST_F(DnsServer, SlowServersDoNotDelayKnownNamesAndTheirQuestionsAreBounded) {
  Upstreams silent("127.0.0.1", Upstreams::Way::silent);
  start();
  sys::enter_netns(netns_, [&] {
    const sys::Fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const sockaddr_in to = address_of(kServerAddress, kServerPort);
    ASSERT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
    for (int i = 0; i < 1500; ++i) {
      const std::string query = question(fmt::format("x{}.example", i), kTypeA, static_cast<std::uint16_t>(i));
      ::send(fd.get(), query.data(), query.size(), 0);
    }
    // One that the kernel dropped is asked again, as clients do.
    const std::string query = question("web", kTypeA, 60000);
    const timeval limit{0, 100'000};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    char buffer[4096];
    bool answered = false;
    const auto begin = std::chrono::steady_clock::now();
    while (!answered && std::chrono::steady_clock::now() < begin + Forwarder::kLastPatience) {
      ::send(fd.get(), query.data(), query.size(), 0);
      for (ssize_t n; !answered && (n = ::recv(fd.get(), buffer, sizeof buffer, 0)) > 0;)
        answered = read_reply({buffer, static_cast<std::size_t>(n)}, query).id == 60000;
    }
    EXPECT_TRUE(answered);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, Forwarder::kLastPatience);
  });
}

TEST_F(DnsServer, GarbageDoesNoHarm) {
  start();
  std::srand(5);
  for (const bool tcp : {false, true}) {
    sys::enter_netns(netns_, [&] {
      for (int i = 0; i < 300; ++i) {
        const sys::Fd fd(::socket(AF_INET, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0));
        const sockaddr_in to = address_of(kServerAddress, kServerPort);
        ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to);
        std::string bytes(static_cast<std::size_t>(std::rand() % 60), '\0');
        for (char& c : bytes) c = static_cast<char>(std::rand());
        (void)!::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      }
    });
    EXPECT_EQ(ask("web", kTypeA, tcp).answers, Texts{"10.0.0.2"});
  }
}

}  // namespace
}  // namespace gantry::shim::dns
