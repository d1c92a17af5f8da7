#include "build/link.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gtest/gtest.h>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

#include "async/signal.hpp"
#include "base/error.hpp"
#include "json/codec.hpp"
#include "protocol/build_link.hpp"
#include "sys/file.hpp"

namespace gantry::build {
namespace {

using protocol::LinkFrame;

/// The daemon's end serves on a loop that turns while the test waits for an answer.
class Link : public testing::Test {
 protected:
  Link() {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    worker_ = sys::Fd(fds[0]);
    boost::asio::co_spawn(loop_,
                          serve_link(loop_.get_executor(), sys::Fd(fds[1]),
                                     [this](std::string method, std::string params, LinkCallPtr call) {
                                       return answer(std::move(method), std::move(params), std::move(call));
                                     }),
                          [this](std::exception_ptr) { served_ = true; });
  }
  ~Link() override {
    worker_.reset();
    loop_.restart();
    loop_.run();
    EXPECT_TRUE(served_);
  }

  Task<LinkReply> answer(std::string method, std::string params, LinkCallPtr call) {
    LinkReply reply;
    if (method == "wait") {
      async::Signal never;
      given_up_ = call->given_up();
      for (;;) co_await never.wait();
    }
    if (method == "fail") throw Error(Errc::conflict, "it is in use");
    if (method == "figures") call->progress("1");
    if (method == "descriptor") {
      int fds[2];
      if (::pipe2(fds, O_CLOEXEC) != 0) throw Error::from_errno(errno, "pipe");
      reply.fd = sys::Fd(fds[0]);
      sys::write_all(sys::Fd(fds[1]).get(), "through");
    }
    reply.json = "\"" + params + "\"";
    co_return reply;
  }

  void send(const LinkFrame& frame) { send_text(json::render(json::encode(frame))); }
  void send_text(const std::string& text) {
    const std::uint32_t size = htonl(static_cast<std::uint32_t>(text.size()));
    sys::write_all(worker_.get(), {reinterpret_cast<const char*>(&size), sizeof size});
    sys::write_all(worker_.get(), text);
  }
  void ask(std::uint64_t id, const std::string& method, const std::string& params = "p") {
    LinkFrame frame;
    frame.Id = id;
    frame.Method = method;
    frame.Params = params;
    send(frame);
  }

  /// The next frame, for which the loop turns; `fd_` is what came with it.
  LinkFrame next() {
    std::string bytes;
    while (bytes.size() < 4 || bytes.size() < 4 + size_of(bytes)) {
      char piece[1];
      iovec data{piece, sizeof piece};
      alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
      msghdr message{};
      message.msg_iov = &data;
      message.msg_iovlen = 1;
      message.msg_control = control;
      message.msg_controllen = sizeof control;
      const ssize_t got = ::recvmsg(worker_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
      if (got < 0) {
        loop_.restart();
        loop_.run_one_for(std::chrono::seconds(10));
        continue;
      }
      if (got == 0) throw Error(Errc::unavailable, "closed");
      if (const cmsghdr* header = CMSG_FIRSTHDR(&message)) {
        int raw = -1;
        std::memcpy(&raw, CMSG_DATA(header), sizeof raw);
        fd_ = sys::Fd(raw);
      }
      bytes += piece[0];
    }
    return json::decode<LinkFrame>(json::parse(bytes.substr(4)));
  }
  static std::size_t size_of(const std::string& bytes) {
    std::uint32_t size = 0;
    std::memcpy(&size, bytes.data(), sizeof size);
    return ntohl(size);
  }

  boost::asio::io_context loop_{1};
  sys::Fd worker_;
  sys::Fd fd_;
  bool served_ = false;
  std::shared_ptr<const std::atomic<bool>> given_up_;
};

TEST_F(Link, AnswersAndFailsByNumber) {
  ask(7, "echo", "hello");
  const LinkFrame reply = next();
  EXPECT_EQ(reply.Id, 7U);
  EXPECT_TRUE(reply.Done);
  EXPECT_EQ(reply.Result, "\"hello\"");
  ask(8, "fail");
  const LinkFrame failure = next();
  EXPECT_EQ(failure.Id, 8U);
  EXPECT_EQ(failure.Error, "it is in use");
  EXPECT_EQ(static_cast<Errc>(failure.Code), Errc::conflict);
}

TEST_F(Link, AnswersOneWhileAnotherWaitsAndCancelsThat) {
  ask(1, "wait");
  ask(2, "echo");
  EXPECT_EQ(next().Id, 2U);
  LinkFrame cancel;
  cancel.Id = 1;
  cancel.Cancel = true;
  send(cancel);
  const LinkFrame reply = next();
  EXPECT_EQ(reply.Id, 1U);
  EXPECT_EQ(static_cast<Errc>(reply.Code), Errc::cancelled);
  EXPECT_TRUE(*given_up_);
}

TEST_F(Link, SendsFiguresBeforeTheAnswer) {
  ask(1, "figures");
  const LinkFrame figure = next();
  EXPECT_FALSE(figure.Done);
  EXPECT_EQ(figure.Progress, "1");
  EXPECT_TRUE(next().Done);
}

TEST_F(Link, PassesADescriptorWithItsFrame) {
  ask(1, "descriptor");
  ask(2, "echo");
  EXPECT_TRUE(next().HasFd);
  EXPECT_EQ(sys::read_all(fd_.get()), "through");
  EXPECT_FALSE(next().HasFd);
}

TEST_F(Link, AnswersNoticesWithNothing) {
  ask(0, "echo");
  ask(0, "fail");
  ask(3, "echo");
  EXPECT_EQ(next().Id, 3U);
}

TEST_F(Link, EndsAtWhatIsNoRequest) {
  ask(1, "wait");
  send_text("[]");
  while (!served_) {
    loop_.restart();
    loop_.run_one_for(std::chrono::seconds(10));
  }
  EXPECT_TRUE(*given_up_);
}

TEST_F(Link, RefusesANumberThatIsInUse) {
  ask(1, "wait");
  ask(1, "echo");
  while (!served_) {
    loop_.restart();
    loop_.run_one_for(std::chrono::seconds(10));
  }
}

TEST(Handover, ComesWithItsDescriptorUntilTheOtherEndIsClosed) {
  int fds[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
  const sys::Fd ours(fds[0]);
  sys::Fd theirs(fds[1]);
  EXPECT_TRUE(send_handover(ours.get(), "message", ours.get()));
  theirs.reset();
  EXPECT_FALSE(send_handover(ours.get(), "message", ours.get()));
}

}  // namespace
}  // namespace gantry::build
