#include "logdriver/sender.hpp"

#include <array>
#include <cstring>
#include <thread>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "logdriver/compress.hpp"
#include "logs/inflate.hpp"
#include "logs/rotated.hpp"
#include "sys/file.hpp"

namespace gantry::logdriver {
namespace {

using namespace std::chrono_literals;

/// A TCP listener on the loopback.
struct Listener {
  sys::Fd socket;
  int port = 0;
  explicit Listener(int at = 0) : socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const int on = 1;
    (void)::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(at));
    EXPECT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0) << std::strerror(errno);
    EXPECT_EQ(::listen(socket.get(), 8), 0);
    socklen_t size = sizeof address;
    ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port = ntohs(address.sin_port);
  }
  sys::Fd accept() const {
    pollfd entry{socket.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&entry, 1, 20'000), 1);
    return sys::Fd(::accept4(socket.get(), nullptr, nullptr, SOCK_CLOEXEC));
  }
};

std::string read_until(int fd, std::string_view wanted) {
  std::string out;
  char buffer[65536];
  while (out.find(wanted) == std::string::npos) {
    pollfd entry{fd, POLLIN, 0};
    if (::poll(&entry, 1, 20'000) != 1) break;
    const ssize_t got = ::read(fd, buffer, sizeof buffer);
    if (got <= 0) break;
    out.append(buffer, static_cast<std::size_t>(got));
  }
  return out;
}

/// A Sender in a thread, and the shim's end of its pipe.
class Running {
 public:
  explicit Running(std::map<std::string, std::string> settings) {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    shim = sys::Fd(ends[0]);
    settings.emplace("tag", "t");
    thread_ = std::jthread([this, settings = std::move(settings), end = sys::Fd(ends[1])] {
      Sender sender{Settings(settings), end.get()};
      result = sender.run();
    });
  }
  ~Running() { ::shutdown(shim.get(), SHUT_RDWR); }
  void send(std::string_view bytes, bool gap = false) const {
    logs::PipeHeader header;
    header.size = static_cast<std::uint32_t>(bytes.size());
    header.gap = gap;
    const auto head = logs::encode_pipe_header(header);
    sys::write_all(shim.get(), {head.data(), head.size()});
    sys::write_all(shim.get(), bytes);
  }
  void finish() {
    ::shutdown(shim.get(), SHUT_WR);
    thread_.join();
  }
  sys::Fd shim;
  bool result = false;

 private:
  std::jthread thread_;
};

std::map<std::string, std::string> syslog_to(int port) {
  return {{"driver", "syslog"}, {"syslog-address", "tcp://127.0.0.1:" + std::to_string(port)}};
}

/// As fluentd answers a record that asks for it.
void acknowledge(int client, const std::string& record) {
  const std::string id = record.substr(record.rfind("chunk") + 6);
  const std::string head =
      "\x81\xa3"
      "ack";
  sys::write_all(client, head + static_cast<char>(0xa0 | id.size()) + id);
}

TEST(LogSender, DeliversAndEndsWhenAllIsSent) {
  const Listener server;
  Running running(syslog_to(server.port));
  const sys::Fd client = server.accept();
  EXPECT_EQ(read_until(running.shim.get(), "\n"), "ok\n");
  running.send("one\ntwo\nhalf");
  EXPECT_NE(read_until(client.get(), "two\n").find("]: one\n"), std::string::npos);
  running.finish();
  EXPECT_TRUE(running.result);
  EXPECT_NE(read_until(client.get(), "half\n").find("]: half\n"), std::string::npos);
}

TEST(LogSender, AServerThatIsAwayRefusesTheStartOnlyWhereTheContainerWaits) {
  int port = 0;
  {
    const Listener closed;
    port = closed.port;
  }
  Running refused(syslog_to(port));
  EXPECT_EQ(read_until(refused.shim.get(), "\n"),
            "error dial tcp 127.0.0.1:" + std::to_string(port) + ": connect: connection refused\n");
  refused.finish();
  EXPECT_FALSE(refused.result);

  auto settings = syslog_to(port);
  settings["drop"] = "1";
  settings["buffer"] = "1000000";
  Running patient(settings);
  EXPECT_TRUE(read_until(patient.shim.get(), "\n").starts_with("ok\n"));  // complaints may follow
  patient.send("early\n");
  const Listener back(port);  // it comes back, and gets what was said before
  const sys::Fd client = back.accept();
  EXPECT_NE(read_until(client.get(), "early\n").find("]: early\n"), std::string::npos);
  patient.finish();
}

TEST(LogSender, ReconnectsAndGoesOn) {
  const Listener server;
  Running running(syslog_to(server.port));
  sys::Fd client = server.accept();
  running.send("first\n");
  read_until(client.get(), "first\n");
  client.reset();
  const sys::Fd again = server.accept();
  running.send("second\n");
  EXPECT_NE(read_until(again.get(), "second\n").find("]: second\n"), std::string::npos);
  running.finish();
}

TEST(LogSender, WhatWaitedForRoomFollowsAsSoonAsThereIsSome) {
  const Listener server;
  Running running(syslog_to(server.port));
  const sys::Fd client = server.accept();
  std::string lines;
  for (int i = 0; i < 30'000; ++i) lines += "x\n";
  lines += "last\n";
  const std::jthread sender([&] {
    for (int i = 0; i < 10; ++i) running.send(lines);  // each more records than there is room for
    running.finish();
  });
  EXPECT_NE(read_until(client.get(), "never").rfind("]: last\n"), std::string::npos);  // to the end
}

TEST(LogSender, WhereOutputMayBeDroppedAServerThatDoesNotReadHoldsNobodyUp) {
  const Listener server;
  auto settings = syslog_to(server.port);
  settings["drop"] = "1";
  settings["buffer"] = "100000";
  Running running(settings);
  const sys::Fd client = server.accept();
  const std::string block(std::string(99, 'x') + "\n");
  std::string chunk;
  for (int i = 0; i < 1000; ++i) chunk += block;
  const auto started = std::chrono::steady_clock::now();
  for (int i = 0; i < 200; ++i) running.send(chunk);  // 20 MB
  EXPECT_LT(std::chrono::steady_clock::now() - started, 60s);
  EXPECT_NE(read_until(running.shim.get(), "dropped").find("dropped"), std::string::npos);
}

TEST(LogSender, FluentdWaitsForAcknowledgements) {
  const Listener server;
  Running running({{"driver", "fluentd"},
                   {"fluentd-address", "127.0.0.1:" + std::to_string(server.port)},
                   {"fluentd-request-ack", "true"}});
  const sys::Fd client = server.accept();
  running.send("one\ntwo\n");
  const std::string first = read_until(client.get(), "chunk");
  EXPECT_NE(first.find("\xa3one"), std::string::npos);
  EXPECT_EQ(first.find("\xa3two"), std::string::npos);
  acknowledge(client.get(), first);
  const std::string second = read_until(client.get(), "chunk");
  EXPECT_NE(second.find("\xa3two"), std::string::npos);
  acknowledge(client.get(), second);
  running.finish();
  EXPECT_TRUE(running.result);
}

TEST(LogSender, FluentdSendsAgainWhatIsNotAcknowledgedInTime) {
  const Listener server;
  Running running({{"driver", "fluentd"},
                   {"fluentd-address", "127.0.0.1:" + std::to_string(server.port)},
                   {"fluentd-request-ack", "true"},
                   {"fluentd-read-timeout", "2s"},
                   {"fluentd-retry-wait", "10ms"}});
  const sys::Fd silent = server.accept();
  running.send("one\n");
  EXPECT_NE(read_until(silent.get(), "chunk").find("\xa3one"), std::string::npos);
  const sys::Fd again = server.accept();
  const std::string record = read_until(again.get(), "chunk");
  EXPECT_NE(record.find("\xa3one"), std::string::npos);
  acknowledge(again.get(), record);
  running.finish();
  EXPECT_TRUE(running.result);
}

TEST(LogSender, FluentdGivesAConnectionUpThatTakesNothing) {
  const Listener server;
  Running running({{"driver", "fluentd"},
                   {"fluentd-address", "127.0.0.1:" + std::to_string(server.port)},
                   {"fluentd-write-timeout", "200ms"},
                   {"fluentd-retry-wait", "10ms"},
                   {"drop", "1"},
                   {"buffer", "1000000"}});
  const sys::Fd silent = server.accept();
  // More than the kernel keeps for a reader that does not come.
  for (int i = 0; i < 200; ++i) running.send(std::string(200'000, 'x') + "\n");
  const sys::Fd again = server.accept();
  const std::jthread reader([&again] { (void)read_until(again.get(), "nothing of the kind"); });
  running.finish();
}

TEST(LogSender, AGapEndsTheLineBeforeIt) {
  const Listener server;
  Running running(syslog_to(server.port));
  const sys::Fd client = server.accept();
  running.send("begin");
  running.send("other\n", true);
  const std::string got = read_until(client.get(), "other\n");
  EXPECT_NE(got.find("]: begin\n"), std::string::npos);
  EXPECT_NE(got.find("]: other\n"), std::string::npos);
  running.finish();
}

TEST(LogSender, RetriesAsEachDriversOptionsSay) {
  const RetryPolicy fluentd =
      retry_policy(Settings({{"driver", "fluentd"}, {"fluentd-retry-wait", "2s"}, {"fluentd-max-retries", "7"}}));
  EXPECT_EQ(fluentd.first_wait, 2000);
  EXPECT_EQ(fluentd.patient_attempts, 7);
  const RetryPolicy gelf = retry_policy(Settings({{"driver", "gelf"}}));
  EXPECT_EQ(gelf.patient_attempts, 3);
  EXPECT_EQ(gelf.patient_ms, 3000);
  EXPECT_EQ(retry_policy(Settings({{"driver", "syslog"}})).patient_attempts, 0);
}

TEST(LogCompress, KeepsContentTimeAndOrigin) {
  char name[] = "/tmp/gantry-compress-XXXXXX";
  const sys::Fd from(::mkstemp(name));
  const sys::Path packed = std::string(name) + ".gz";
  std::string text;
  for (int i = 0; i < 20'000; ++i) text += "a line of a log, number " + std::to_string(i) + "\n";
  sys::write_all(from.get(), text);
  ::lseek(from.get(), 0, SEEK_SET);
  struct stat before{};
  ::fstat(from.get(), &before);
  {
    const sys::Fd to = sys::open_file(packed, O_RDWR | O_CREAT | O_TRUNC, 0600);
    compress_file(from.get(), to.get());
    struct stat after{};
    ::fstat(to.get(), &after);
    EXPECT_EQ(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
    EXPECT_LT(after.st_size, before.st_size / 4);
    EXPECT_EQ(logs::read_origin(to.get()), logs::identity_of(before));
    logs::GzipReader reader(to.get());
    std::string back;
    while (reader.read(back, 10'000)) {
    }
    EXPECT_EQ(back, text);
  }
  ::unlink(name);
  ::unlink(packed.c_str());
}

}  // namespace
}  // namespace gantry::logdriver
