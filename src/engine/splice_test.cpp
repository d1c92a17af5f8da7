#include "engine/splice.hpp"

#include <optional>

#include <gtest/gtest.h>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/connect_pair.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include "async/queue.hpp"
#include "base/error.hpp"

namespace asio = boost::asio;

namespace gantry::engine {
namespace {

using Socket = asio::local::stream_protocol::socket;

std::string frame(char stream, const std::string& text) {
  return std::string{stream, 0, 0, 0, 0, 0, 0, static_cast<char>(text.size())} + text;
}

/// A client that types what the test puts into a queue.
class FakeClient final : public StreamClient {
 public:
  Task<void> write(std::string bytes) override {
    if (gone) throw Error(Errc::cancelled, "gone");
    received += bytes;
    changed.notify();
    co_return;
  }
  Task<std::string> read() override { co_return (co_await typed.pop()).value_or(""); }
  Task<void> close_write() override {
    ended = true;
    co_return;
  }
  Task<void> wait_hangup() override {
    while (!gone) co_await changed.wait();
  }
  void close() override { closed = true; }

  async::Queue<std::string> typed{16};
  async::Signal changed;
  std::string received;
  bool gone = false;
  bool ended = false;
  bool closed = false;
};

class SpliceTest : public testing::Test {
 protected:
  SpliceTest() : process_(loop_) {
    Socket ours(loop_);
    asio::local::connect_pair(ours, process_);
    stream_ = std::make_shared<runtime::AttachStream>(std::move(ours), false);
  }
  void start(SpliceOptions options) {
    asio::co_spawn(loop_, splice(stream_, client_, std::move(options)),
                   [this](std::exception_ptr error, SpliceEnd end) {
                     ASSERT_FALSE(error);
                     end_ = end;
                   });
    settle();
  }
  void settle() {
    loop_.restart();
    while (loop_.poll_one() > 0) {
    }
  }
  std::string read_process() {
    std::string got(1024, '\0');
    process_.non_blocking(true);
    boost::system::error_code ec;
    got.resize(process_.read_some(asio::buffer(got), ec));
    at_end_ = ec == asio::error::eof;
    return got;
  }

  asio::io_context loop_;
  Socket process_;
  std::shared_ptr<runtime::AttachStream> stream_;
  std::shared_ptr<FakeClient> client_ = std::make_shared<FakeClient>();
  std::optional<SpliceEnd> end_;
  bool at_end_ = false;
};

TEST_F(SpliceTest, CarriesOutputUntilTheProcessEnds) {
  start({});
  asio::write(process_, asio::buffer(frame(1, "hello")));
  settle();
  EXPECT_EQ(client_->received, frame(1, "hello"));
  EXPECT_FALSE(end_);
  process_.close();
  settle();
  EXPECT_EQ(end_, SpliceEnd::output_ended);
}

TEST_F(SpliceTest, PassesInputOnAndClosesItWithTheClients) {
  SpliceOptions options;
  options.use_stdin = true;
  options.close_stdin = true;
  start(options);
  client_->typed.push("typed");
  settle();
  EXPECT_EQ(read_process(), "typed");
  client_->typed.close();
  settle();
  EXPECT_EQ(read_process(), "");
  EXPECT_TRUE(at_end_);
  EXPECT_FALSE(end_);
  asio::write(process_, asio::buffer(std::string("bye")));
  process_.close();
  settle();
  EXPECT_EQ(client_->received, "bye");
  EXPECT_EQ(end_, SpliceEnd::output_ended);
}

TEST_F(SpliceTest, TheClientsEndOfInputEndsASessionThatKeepsTheProcessInputOpen) {
  SpliceOptions options;
  options.use_stdin = true;
  start(options);
  client_->typed.close();
  settle();
  EXPECT_EQ(end_, SpliceEnd::client_left);
}

TEST_F(SpliceTest, DetachesAfterForwardingWhatCameBefore) {
  SpliceOptions options;
  options.use_stdin = true;
  options.detach_keys = "\x10\x11";
  start(options);
  client_->typed.push("ls\x10\x11more");
  settle();
  EXPECT_EQ(end_, SpliceEnd::detached);
  EXPECT_EQ(read_process(), "ls");
}

TEST_F(SpliceTest, EndsWhenAClientWithoutInputHangsUp) {
  start({});
  client_->gone = true;
  client_->changed.notify();
  settle();
  EXPECT_EQ(end_, SpliceEnd::client_left);
}

TEST_F(SpliceTest, AProcessThatClosedItsInputKeepsItsOutput) {
  SpliceOptions options;
  options.use_stdin = true;
  options.close_stdin = true;
  start(options);
  process_.shutdown(Socket::shutdown_receive);
  client_->typed.push("nobody reads this");
  settle();
  EXPECT_FALSE(end_);
  asio::write(process_, asio::buffer(std::string("still here")));
  process_.close();
  settle();
  EXPECT_EQ(client_->received, "still here");
  EXPECT_EQ(end_, SpliceEnd::output_ended);
}

TEST_F(SpliceTest, FinishingSaysTheEndAndCloses) {
  client_->typed.push("unread");
  client_->typed.close();
  asio::co_spawn(loop_, finish_client(client_), [](std::exception_ptr error) { ASSERT_FALSE(error); });
  settle();
  EXPECT_TRUE(client_->ended);
  EXPECT_TRUE(client_->closed);
}

TEST(FrameStripper, TakesHeadersOutOfPiecesOfAnySize) {
  const std::string all = frame(1, "one") + frame(2, "") + frame(2, "three");
  for (std::size_t size = 1; size <= all.size(); ++size) {
    FrameStripper stripper;
    std::string plain;
    for (std::size_t at = 0; at < all.size(); at += size)
      plain += stripper.feed(std::string_view(all).substr(at, size));
    EXPECT_EQ(plain, "onethree") << size;
  }
}

}  // namespace
}  // namespace gantry::engine
