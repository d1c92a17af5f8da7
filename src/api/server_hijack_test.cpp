#include "api/server.hpp"
#include "api/stream_mux.hpp"
#include "api/test_server.hpp"
#include "api/websocket.hpp"
#include "async/signal.hpp"
#include "sys/file.hpp"
#include "sys/process.hpp"

namespace gantry::api {
namespace {

using namespace std::chrono_literals;

struct Handlers {
  int cancelled = 0;
  int hung_up = 0;
  int started = 0;
  sys::Fd detached;

  /// Says back what it reads until the client half-closes, then "bye".
  Task<Response> echo(Request req) {
    (void)co_await req.read_json_text();
    HijackReply reply;
    if (req.version() >= ApiVersion{1, 42}) reply.upgraded_content_type = "application/vnd.docker.multiplexed-stream";
    reply.with_daemon_headers = req.query().flag("exec");
    HijackedStream stream = co_await req.hijack(reply);
    ++started;
    for (;;) {
      std::string bytes = co_await stream.read();
      if (bytes.empty()) break;
      co_await stream.write(std::move(bytes));
    }
    co_await stream.write("bye");
    co_return Response::sent();
  }
  /// As `docker logs -f` in a quiet container: writes nothing, reads nothing.
  Task<Response> quiet(Request req) {
    HijackedStream stream = co_await req.hijack();
    ++started;
    try {
      co_await async::sleep_for(1h);
    } catch (const std::exception&) {
      ++cancelled;
      throw;
    }
    co_return Response::sent();
  }
  Task<Response> wait_hangup(Request req) {
    HijackedStream stream = co_await req.hijack();
    ++started;
    co_await stream.wait_hangup();
    ++hung_up;
    co_return Response::sent();
  }
  Task<Response> detach(Request req) {
    HijackedStream stream = co_await req.hijack();
    DetachedSocket socket = co_await stream.detach();
    std::string answer = "had:" + socket.buffered;
    if (::send(socket.fd.get(), answer.data(), answer.size(), MSG_NOSIGNAL) < 0) throw Error(Errc::internal, "send");
    detached = std::move(socket.fd);
    co_return Response::sent();
  }
  Task<Response> early_error(Request req) {
    HijackedStream stream =
        co_await req.hijack_raw("HTTP/1.1 404 Not Found\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n");
    co_await stream.write("No such container: nope\r\n");
    co_return Response::sent();
  }
  Task<Response> web_socket(Request req) {
    WebSocket socket = co_await WebSocket::accept(req);
    for (;;) {
      std::string message = co_await socket.read();
      if (message.empty()) break;
      co_await socket.write("<" + message + ">");
    }
    co_await socket.close();
    co_return Response::sent();
  }

  void add_to(Router& router) {
    static const Route<Handlers> kRoutes[] = {
        {Method::post, "/echo", &Handlers::echo},
        {Method::post, "/echo-never", &Handlers::echo, {.cancel = Cancel::never}},
        {Method::post, "/quiet", &Handlers::quiet},
        {Method::post, "/wait-hangup", &Handlers::wait_hangup, {.cancel = Cancel::never}},
        {Method::post, "/detach", &Handlers::detach},
        {Method::post, "/early-error", &Handlers::early_error},
        {Method::get, "/ws", &Handlers::web_socket},
    };
    router.add(*this, kRoutes);
  }
};

struct Fixture {
  explicit Fixture(std::function<void(ServerOptions&)> tune = {})
      : server([this](Router& router) { handlers.add_to(router); }, std::move(tune)) {}
  Handlers handlers;
  TestServer server;
};

const std::string kUpgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n";

TEST(Hijack, SendsExactlyDockersHeaderInASegmentOfItsOwn) {
  Fixture f;
  TestClient client(f.server);
  client.send(post_request("/v1.41/echo", "", kUpgrade) + "early");
  EXPECT_EQ(client.receive_until("\r\n\r\n"),
            "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\n"
            "Upgrade: tcp\r\n\r\n");
  EXPECT_EQ(client.receive_exactly(5), "early");
  client.send("later");
  EXPECT_EQ(client.receive_exactly(5), "later");
  client.half_close();
  EXPECT_EQ(client.receive_all(), "bye");
}

TEST(Hijack, TellsNewClientsThatTheStreamIsMultiplexed) {
  Fixture f;
  TestClient client(f.server);
  client.send(post_request("/v1.42/echo?exec=1", "", kUpgrade));
  EXPECT_EQ(client.receive_until("\r\n\r\n"),
            "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n"
            "Connection: Upgrade\r\nUpgrade: tcp\r\nApi-Version: 1.56\r\nDocker-Experimental: false\r\n"
            "Ostype: linux\r\nServer: Docker/28.0.0 (linux)\r\n\r\n");
}

TEST(Hijack, AnswersWithoutUpgradeAsARawStream) {
  Fixture f;
  TestClient client(f.server);
  client.send(post_request("/v1.42/echo", R"({"Tty":false})", "Content-Type: application/json\r\n") + "stdin");
  EXPECT_EQ(client.receive_until("\r\n\r\n"),
            "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n");
  client.half_close();
  EXPECT_EQ(client.receive_all(), "stdinbye");
}

TEST(Hijack, CarriesErrorsAsPlainText) {
  Fixture f;
  TestClient client(f.server);
  client.send(post_request("/early-error", "", kUpgrade));
  EXPECT_EQ(client.receive_all(),
            "HTTP/1.1 404 Not Found\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
            "No such container: nope\r\n");
}

TEST(Hijack, LosesNothingWhenTheClientStillSends) {
  Fixture f;
  TestClient client(f.server);
  client.send(post_request("/early-error", "", kUpgrade) + std::string(100'000, 'x'));
  EXPECT_NE(client.receive_all().find("No such container: nope\r\n"), std::string::npos);
}

TEST(Hijack, CancelsAHandlerWhoseClientHangsUp) {
  Fixture f;
  TestClient client(f.server);
  client.send(post_request("/quiet", "", kUpgrade));
  ASSERT_TRUE(f.server.eventually([&] { return f.handlers.started == 1; }));
  client.half_close();  // only standard input has ended
  TestClient other(f.server);
  other.send(post_request("/early-error", ""));
  (void)other.receive_all();
  EXPECT_EQ(f.server.on_loop([&] { return f.handlers.cancelled; }), 0);
  client.close();
  EXPECT_TRUE(f.server.eventually([&] { return f.handlers.cancelled == 1; }));
}

TEST(Hijack, ReportsAHangupToAHandlerThatIsNotCancelled) {
  Fixture f;
  TestClient client(f.server);
  client.send(post_request("/wait-hangup", "", kUpgrade));
  ASSERT_TRUE(f.server.eventually([&] { return f.handlers.started == 1; }));
  client.close();
  EXPECT_TRUE(f.server.eventually([&] { return f.handlers.hung_up == 1; }));
}

TEST(Hijack, GivesItsSocketAwayWithWhatWasBuffered) {
  Fixture f;
  TestClient client(f.server);
  client.send(post_request("/detach", "", kUpgrade) + "early");
  (void)client.receive_until("\r\n\r\n");
  EXPECT_EQ(client.receive_exactly(9), "had:early");
  ASSERT_TRUE(f.server.eventually([&] { return f.server.server().connections() == 0; }));
  client.send("x");
  char byte = 0;
  ASSERT_TRUE(f.server.on_loop([&] { return ::recv(f.handlers.detached.get(), &byte, 1, 0) == 1; }));
  EXPECT_EQ(byte, 'x');
}

TEST(Hijack, CarriesMuchBothWaysAtOnce) {
  Fixture f;
  TestClient client(f.server);
  client.send(post_request("/echo-never", "", kUpgrade));
  (void)client.receive_until("\r\n\r\n");
  constexpr std::size_t kTotal = 20 << 20;
  std::thread writer([&] {
    const std::string block(1 << 20, 'x');
    for (std::size_t sent = 0; sent < kTotal; sent += block.size()) client.send(block);
    client.half_close();
  });
  std::size_t got = 0;
  std::string tail;
  for (std::string more; !(more = client.receive_some()).empty();) {
    got += more.size();
    tail = more;
  }
  writer.join();
  EXPECT_EQ(got, kTotal + 3);
  EXPECT_TRUE(tail.ends_with("bye"));
}

std::string masked_frame(unsigned char first, const std::string& payload) {
  std::string out(1, static_cast<char>(first));
  if (payload.size() < 126) {
    out += static_cast<char>(0x80 | payload.size());
  } else {
    out += static_cast<char>(0x80 | 126);
    out += static_cast<char>(payload.size() >> 8);
    out += static_cast<char>(payload.size() & 0xff);
  }
  const char mask[4] = {1, 2, 3, 4};
  out.append(mask, 4);
  for (std::size_t i = 0; i < payload.size(); ++i) out += static_cast<char>(payload[i] ^ mask[i % 4]);
  return out;
}

const std::string kWebSocket =
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

TEST(WebSocket, SpeaksRfc6455) {
  Fixture f;
  TestClient client(f.server);
  client.send(get_request("/ws", kWebSocket) + masked_frame(0x82, "hi"));
  EXPECT_NE(client.receive_until("\r\n\r\n").find("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
            std::string::npos);
  EXPECT_EQ(client.receive_exactly(6), "\x82\x04<hi>");
  // A message in fragments with a ping between them.
  client.send(masked_frame(0x02, "a") + masked_frame(0x89, "p") + masked_frame(0x80, "b"));
  EXPECT_EQ(client.receive_exactly(3), "\x8a\x01p");
  EXPECT_EQ(client.receive_exactly(6), "\x82\x04<ab>");
  client.send(masked_frame(0x82, std::string(1000, 'x')));
  EXPECT_EQ(client.receive_exactly(4 + 1002).substr(0, 5), std::string("\x82\x7e\x03\xea<", 5));
  client.send(masked_frame(0x88, std::string("\x03\xe8", 2)));
  EXPECT_EQ(client.receive_all(), std::string("\x88\x02\x03\xe8", 4));
}

TEST(WebSocket, SendsTextToOldClientsAndRefusesWhatIsNone) {
  Fixture f;
  TestClient client(f.server);
  client.send(get_request("/v1.27/ws", kWebSocket) + masked_frame(0x82, "hi"));
  (void)client.receive_until("\r\n\r\n");
  EXPECT_EQ(client.receive_exactly(6), "\x81\x04<hi>");
  TestClient plain(f.server);
  plain.send(get_request("/ws"));
  EXPECT_EQ(plain.receive_reply().find("HTTP/1.1 400 "), 0U);
  TestClient unmasked(f.server);
  unmasked.send(get_request("/ws", kWebSocket) + std::string("\x82\x02hi", 4));
  (void)unmasked.receive_until("\r\n\r\n");
  EXPECT_EQ(unmasked.receive_all(), "");
}

TEST(StreamMux, FramesAsStdcopy) {
  EXPECT_EQ(mux_frames(MuxStream::out, "hello"), std::string("\x01\0\0\0\0\0\0\x05hello", 13));
  EXPECT_EQ(mux_frames(MuxStream::err, ""), "");
  const std::string large = mux_frames(MuxStream::err, std::string(40'000, 'x'));
  EXPECT_EQ(large.size(), 40'000 + 16U);
  EXPECT_EQ(large.substr(0, 8), std::string("\x02\0\0\0\0\0\x80\0", 8));
}

}  // namespace
}  // namespace gantry::api
