#include "api/server.hpp"

#include <atomic>

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "api/test_server.hpp"
#include "async/signal.hpp"
#include "sys/listen.hpp"

namespace gantry::api {
namespace {

using namespace std::chrono_literals;

/// Handlers that do what the tests need. Their state belongs to the loop.
struct Handlers {
  async::Signal go;
  int waiting = 0;
  int cancelled = 0;
  int ended = 0;

  Task<Response> echo(Request req) {
    co_return Response::text(200,
                             std::string(method_name(req.method())) + " " + req.path() + " " + req.query().get("x"));
  }
  Task<Response> count_body(Request req) {
    std::size_t total = 0;
    for (;;) {
      const std::string piece = co_await req.read_body_some();
      if (piece.empty()) break;
      total += piece.size();
    }
    co_return Response::text(200, std::to_string(total));
  }
  Task<Response> json(Request req) { co_return Response::text(200, "<" + co_await req.read_json_text(1000) + ">"); }
  Task<Response> ignore(Request) { co_return Response::text(200, "ignored"); }
  Task<Response> nothing(Request) { co_return Response::empty(204); }
  Task<Response> fail(Request) { throw Error(Errc::conflict, "it \"is\" taken"); }
  Task<Response> break_down(Request) { throw std::logic_error("bug"); }
  Task<Response> stream(Request req) {
    Streamer out = co_await req.start_stream(200, "application/json");
    co_await out.write("one\n");
    co_await out.write("");
    co_await out.write("two\n");
    co_return Response::sent();
  }
  Task<Response> stream_and_fail(Request req) {
    Streamer out = co_await req.start_stream(200, "text/plain");
    co_await out.write("half");
    throw Error(Errc::internal, "broke");
  }
  Task<Response> endless(Request req) {
    Streamer out = co_await req.start_stream(200, "text/plain");
    const std::string block(65536, 'x');
    ++waiting;
    try {
      for (;;) co_await out.write(block);
    } catch (const std::exception&) {
      ++cancelled;
      throw;
    }
  }
  Task<Response> wait(Request req) {
    ++waiting;
    try {
      co_await go.wait();
    } catch (const std::exception&) {
      ++cancelled;
      throw;
    }
    ++ended;
    co_return Response::text(200, req.query().get("x"));
  }
  /// Writes while it reads.
  Task<Response> upper(Request req) {
    Streamer out = co_await req.start_stream(200, "text/plain");
    for (;;) {
      std::string piece = co_await req.read_body_some();
      if (piece.empty()) break;
      for (char& c : piece) c = static_cast<char>(std::toupper(c));
      co_await out.write(std::move(piece));
    }
    co_return Response::sent();
  }

  void add_to(Router& router) {
    static const Route<Handlers> kRoutes[] = {
        {Method::get, "/echo", &Handlers::echo},
        {Method::head, "/echo", &Handlers::echo},
        {Method::post, "/count", &Handlers::count_body},
        {Method::post, "/json", &Handlers::json},
        {Method::post, "/ignore", &Handlers::ignore},
        {Method::get, "/nothing", &Handlers::nothing},
        {Method::get, "/fail", &Handlers::fail},
        {Method::get, "/break", &Handlers::break_down},
        {Method::get, "/stream", &Handlers::stream},
        {Method::head, "/stream", &Handlers::stream},
        {Method::get, "/stream-and-fail", &Handlers::stream_and_fail},
        {Method::get, "/endless", &Handlers::endless},
        {Method::get, "/wait", &Handlers::wait},
        {Method::post, "/wait", &Handlers::wait},
        {Method::post, "/must-end", &Handlers::wait, {.cancel = Cancel::never}},
        {Method::post, "/upper", &Handlers::upper},
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

std::string body_of(const std::string& reply) {
  const std::size_t at = reply.find("\r\n\r\n");
  return at == std::string::npos ? "" : reply.substr(at + 4);
}

std::string without_date(std::string reply) {
  const std::size_t at = reply.find("Date: ");
  if (at != std::string::npos) reply.erase(at, reply.find("\r\n", at) + 2 - at);
  return reply;
}

TEST(Server, SendsDockersHeaders) {
  Fixture s;
  TestClient client(s.server);
  client.send(get_request("/v1.41/echo?x=a%20b+c"));
  EXPECT_EQ(without_date(client.receive_reply()),
            "HTTP/1.1 200 OK\r\nApi-Version: 1.56\r\nDocker-Experimental: false\r\nOstype: linux\r\n"
            "Server: Docker/28.0.0 (linux)\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 15\r\n\r\n"
            "GET /echo a b c");
}

TEST(Server, KeepsTheConnectionAfterRepliesWithoutABody) {
  Fixture s;
  TestClient client(s.server);
  client.send("HEAD /echo HTTP/1.1\r\nHost: d\r\n\r\n");
  EXPECT_NE(client.receive_until("\r\n\r\n").find("Content-Length: 11\r\n"), std::string::npos);
  client.send(get_request("/nothing"));
  const std::string nothing = client.receive_until("\r\n\r\n");
  EXPECT_EQ(nothing.find("HTTP/1.1 204 No Content\r\n"), 0U);
  EXPECT_EQ(nothing.find("Content-"), std::string::npos);
  client.send("HEAD /stream HTTP/1.1\r\nHost: d\r\n\r\n");
  (void)client.receive_until("\r\n\r\n");
  client.send(get_request("/echo?x=still"));
  EXPECT_EQ(body_of(client.receive_reply()), "GET /echo still");
}

TEST(Server, AnswersPipelinedRequestsInOrder) {
  Fixture s;
  TestClient client(s.server);
  std::string all;
  for (int i = 0; i < 200; ++i) all += get_request("/echo?x=" + std::to_string(i));
  client.send(all);
  for (int i = 0; i < 200; ++i) EXPECT_EQ(body_of(client.receive_reply()), "GET /echo " + std::to_string(i));
}

TEST(Server, AnswersARequestThatComesByteByByte) {
  Fixture s;
  TestClient client(s.server);
  for (const char c : post_request("/count", "hello")) client.send(std::string(1, c));
  EXPECT_EQ(body_of(client.receive_reply()), "5");
}

TEST(Server, ReadsChunkedBodiesOfAnySize) {
  Fixture s;
  TestClient client(s.server);
  client.send("POST /count HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n");
  const std::string block(100'000, 'x');
  for (int i = 0; i < 300; ++i) client.send("186a0;ext=1\r\n" + block + "\r\n");
  client.send("0\r\nTrailer: ignored\r\n\r\n" + get_request("/echo?x=next"));
  EXPECT_EQ(body_of(client.receive_reply()), "30000000");
  EXPECT_EQ(body_of(client.receive_reply()), "GET /echo next");
}

TEST(Server, SendsContinueWhenTheBodyIsWanted) {
  Fixture s;
  TestClient client(s.server);
  client.send("POST /count HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.receive_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("abc");
  EXPECT_EQ(body_of(client.receive_reply()), "3");
  // Not wanted: the reply comes at once, and the connection ends because nobody knows whether the body will.
  client.send("POST /ignore HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(body_of(client.receive_reply()), "ignored");
  EXPECT_EQ(client.receive_all(), "");
}

TEST(Server, StreamsInChunksAndGoesOn) {
  Fixture s;
  TestClient client(s.server);
  client.send(get_request("/stream"));
  EXPECT_NE(client.receive_until("\r\n\r\n").find("Transfer-Encoding: chunked\r\n"), std::string::npos);
  EXPECT_EQ(client.receive_until("0\r\n\r\n"), "4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n");
  client.send("GET /stream HTTP/1.0\r\n\r\n");
  const std::string old = client.receive_all();
  EXPECT_EQ(old.find("chunked"), std::string::npos);
  EXPECT_EQ(body_of(old), "one\ntwo\n");
}

TEST(Server, CutsOffAStreamThatFails) {
  Fixture s;
  TestClient client(s.server);
  client.send(get_request("/stream-and-fail"));
  EXPECT_EQ(body_of(client.receive_all()), "4\r\nhalf\r\n");
}

TEST(Server, WritesWhileTheRequestIsStillBeingSent) {
  Fixture s;
  TestClient client(s.server);
  client.send("POST /upper HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
  (void)client.receive_until("\r\n\r\n");
  EXPECT_EQ(client.receive_until("ABC\r\n"), "3\r\nABC\r\n");
  client.send("3\r\ndef\r\n0\r\n\r\n");
  EXPECT_EQ(client.receive_until("0\r\n\r\n"), "3\r\nDEF\r\n0\r\n\r\n");
}

TEST(Server, RendersErrorsAsDockerDoes) {
  Fixture s;
  TestClient client(s.server);
  client.send(get_request("/v1.41/fail"));
  const std::string conflict = client.receive_reply();
  EXPECT_EQ(conflict.find("HTTP/1.1 409 Conflict\r\nApi-Version: 1.56\r\n"), 0U);
  EXPECT_EQ(body_of(conflict), "{\"message\":\"it \\\"is\\\" taken\"}\n");
  client.send(get_request("/break"));
  EXPECT_EQ(body_of(client.receive_reply()), "{\"message\":\"bug\"}\n");
  client.send(get_request("/nope"));
  EXPECT_EQ(without_date(client.receive_reply()),
            "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 29\r\n\r\n"
            "{\"message\":\"page not found\"}\n");
  client.send("DELETE /echo HTTP/1.1\r\nHost: d\r\n\r\n");
  EXPECT_EQ(client.receive_reply().find("HTTP/1.1 404 Not Found\r\nContent-Type"), 0U);
  client.send(get_request("/v1.41//echo?x=1"));
  EXPECT_EQ(without_date(client.receive_reply()),
            "HTTP/1.1 301 Moved Permanently\r\nLocation: /v1.41/echo?x=1\r\nContent-Length: 0\r\n\r\n");
  client.send(get_request("/v1.23/echo"));
  EXPECT_EQ(without_date(client.receive_reply()),
            "HTTP/1.1 400 Bad Request\r\nApi-Version: 1.56\r\nOstype: linux\r\nServer: Docker/28.0.0 (linux)\r\n"
            "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nContent-Length: 117\r\n\r\n"
            "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a "
            "newer version\n");
  client.send("OPTIONS /anything HTTP/1.1\r\nHost: d\r\n\r\n");
  EXPECT_EQ(client.receive_reply().find("HTTP/1.1 200 OK\r\n"), 0U);
  client.send(get_request("/echo?a=1;b=2"));
  EXPECT_EQ(body_of(client.receive_reply()), "{\"message\":\"invalid semicolon separator in query\"}\n");
}

TEST(Server, ChecksJsonBodies) {
  Fixture s;
  TestClient client(s.server);
  const std::string type = "Content-Type: application/json; charset=utf-8\r\n";
  client.send(post_request("/json", "{}", type));
  EXPECT_EQ(body_of(client.receive_reply()), "<{}>");
  client.send(post_request("/json", ""));
  EXPECT_EQ(body_of(client.receive_reply()), "<>");
  client.send(post_request("/json", "{}", "Content-Type: text/plain\r\n"));
  EXPECT_EQ(body_of(client.receive_reply()),
            "{\"message\":\"unsupported Content-Type header (text/plain): must be 'application/json'\"}\n");
  client.send(post_request("/json", "{}"));
  EXPECT_EQ(body_of(client.receive_reply()),
            "{\"message\":\"malformed Content-Type header (): mime: no media type\"}\n");
  client.send(post_request("/json", std::string(2000, ' '), type));
  EXPECT_EQ(body_of(client.receive_reply()), "{\"message\":\"request body too large: the limit is 1000 bytes\"}\n");
  client.send(get_request("/echo?x=1"));
  EXPECT_EQ(body_of(client.receive_reply()), "GET /echo 1");
}

TEST(Server, RefusesMalformedRequests) {
  Fixture s;
  const std::string cases[] = {
      "GARBAGE\r\n\r\n",
      "GET / HTTP/1.1\r\nHost : d\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
      "POST /count HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      "POST /count HTTP/1.1\r\nHost: d\r\nContent-Length: -3\r\n\r\n",
      "GET /echo HTTP/1.1\r\n\r\n",
      "POST /count HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
      "GET /\x01 HTTP/1.1\r\nHost: d\r\n\r\n",
  };
  for (const std::string& request : cases) {
    TestClient client(s.server);
    client.send(request);
    EXPECT_EQ(client.receive_all().find("HTTP/1.1 400 Bad Request\r\n"), 0U) << request;
  }
  TestClient client(s.server);
  client.send(get_request("/echo", "Sec-Fetch-Site: cross-site\r\n"));
  EXPECT_EQ(client.receive_all().find("HTTP/1.1 403 Forbidden\r\n"), 0U);
}

TEST(Server, RefusesAHeaderThatIsTooLarge) {
  Fixture s;
  TestClient client(s.server);
  client.send(get_request("/echo", "X: " + std::string(60'000, 'x') + "\r\n"));
  EXPECT_EQ(client.receive_reply().find("HTTP/1.1 200"), 0U);
  client.send(get_request("/echo", "X: " + std::string(70'000, 'x') + "\r\n"));
  EXPECT_EQ(client.receive_all().find("HTTP/1.1 431 "), 0U);
}

TEST(Server, DropsABodyThatNobodyWantedAndGoesOn) {
  Fixture s;
  TestClient client(s.server);
  client.send(post_request("/ignore", std::string(200'000, 'x')) + get_request("/echo?x=1"));
  EXPECT_EQ(body_of(client.receive_reply()), "ignored");
  EXPECT_EQ(body_of(client.receive_reply()), "GET /echo 1");
  // A larger one ends the connection, after the reply.
  client.send(post_request("/ignore", std::string(400'000, 'x')) + get_request("/echo?x=1"));
  EXPECT_EQ(body_of(client.receive_all()), "ignored");
}

TEST(Server, ClosesSlowAndIdleConnections) {
  Fixture s([](ServerOptions& options) {
    options.header_timeout = 200ms;
    options.idle_timeout = 2s;
  });
  const auto start = std::chrono::steady_clock::now();
  TestClient slow(s.server);
  slow.send("GET / HT");
  TestClient idle(s.server);
  EXPECT_EQ(slow.receive_all(), "");
  EXPECT_LT(std::chrono::steady_clock::now() - start, 1990ms);
  EXPECT_EQ(idle.receive_all(), "");
  EXPECT_GE(std::chrono::steady_clock::now() - start, 1990ms);
  EXPECT_LT(std::chrono::steady_clock::now() - start, 60s);
}

TEST(Server, CancelsTheHandlerOfAClientThatGoesAway) {
  Fixture s;
  TestClient client(s.server);
  client.send(get_request("/wait"));
  ASSERT_TRUE(s.server.eventually([&] { return s.handlers.waiting == 1; }));
  client.close();
  EXPECT_TRUE(s.server.eventually([&] { return s.handlers.cancelled == 1 && s.server.server().connections() == 0; }));
}

TEST(Server, NoticesThatAClientGoesAwayBehindPipelinedRequestsAndBodies) {
  Fixture s;
  TestClient client(s.server);
  client.send(post_request("/wait", "") + get_request("/echo"));
  ASSERT_TRUE(s.server.eventually([&] { return s.handlers.waiting == 1; }));
  client.close();
  EXPECT_TRUE(s.server.eventually([&] { return s.handlers.cancelled == 1; }));
}

TEST(Server, CancelsAStreamThatNobodyReads) {
  Fixture s;
  TestClient client(s.server);
  client.send(get_request("/endless"));
  (void)client.receive_some();
  ASSERT_TRUE(s.server.eventually([&] { return s.handlers.waiting == 1; }));
  client.close();
  EXPECT_TRUE(s.server.eventually([&] { return s.handlers.cancelled == 1; }));
}

TEST(Server, LetsAVerbEndThatMustEnd) {
  Fixture s;
  TestClient client(s.server);
  client.send(post_request("/must-end", ""));
  ASSERT_TRUE(s.server.eventually([&] { return s.handlers.waiting == 1; }));
  client.close();
  TestClient other(s.server);
  other.send(get_request("/echo"));
  (void)other.receive_reply();
  s.server.on_loop([&] { s.handlers.go.notify(); });
  EXPECT_TRUE(s.server.eventually([&] { return s.handlers.ended == 1; }));
  EXPECT_EQ(s.server.on_loop([&] { return s.handlers.cancelled; }), 0);
}

TEST(Server, AnswersAUnixClientThatOnlyClosedItsOwnDirection) {
  Fixture s;
  TestClient client(s.server);
  client.send(get_request("/wait?x=late"));
  client.half_close();
  ASSERT_TRUE(s.server.eventually([&] { return s.handlers.waiting == 1; }));
  s.server.on_loop([&] { s.handlers.go.notify(); });
  EXPECT_EQ(body_of(client.receive_all()), "late");
  // And one that then goes away altogether is noticed.
  TestClient leaver(s.server);
  leaver.send(get_request("/wait"));
  leaver.half_close();
  ASSERT_TRUE(s.server.eventually([&] { return s.handlers.waiting == 2; }));
  leaver.close();
  EXPECT_TRUE(s.server.eventually([&] { return s.handlers.cancelled == 1; }));
}

TEST(Server, KeepsPipelinedRequestsWhileAHandlerWaits) {
  Fixture s;
  TestClient client(s.server);
  client.send(get_request("/wait?x=first") + get_request("/echo?x=second"));
  ASSERT_TRUE(s.server.eventually([&] { return s.handlers.waiting == 1; }));
  client.send(get_request("/echo?x=third"));
  s.server.on_loop([&] { s.handlers.go.notify(); });
  EXPECT_EQ(body_of(client.receive_reply()), "first");
  EXPECT_EQ(body_of(client.receive_reply()), "GET /echo second");
  EXPECT_EQ(body_of(client.receive_reply()), "GET /echo third");
}

TEST(Server, CancellationEndsWithItsRequest) {
  // A handler that broke must not leave the connection without cancellation for the next one.
  Fixture s;
  TestClient client(s.server);
  client.send(get_request("/fail") + post_request("/must-end", ""));
  (void)client.receive_reply();
  ASSERT_TRUE(s.server.eventually([&] { return s.handlers.waiting == 1; }));
  s.server.on_loop([&] { s.handlers.go.notify(); });
  (void)client.receive_reply();
  client.send(get_request("/wait"));
  ASSERT_TRUE(s.server.eventually([&] { return s.handlers.waiting == 2; }));
  client.close();
  EXPECT_TRUE(s.server.eventually([&] { return s.handlers.cancelled == 1; }));
}

TEST(Server, HoldsAThousandIdleConnectionsAndLimitsThem) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 8192);
  ::setrlimit(RLIMIT_NOFILE, &limit);
  Fixture s([](ServerOptions& options) { options.max_connections = 1001; });
  std::vector<std::unique_ptr<TestClient>> idle;
  for (int i = 0; i < 1000; ++i) idle.push_back(std::make_unique<TestClient>(s.server));
  TestClient active(s.server);
  active.send(get_request("/echo?x=1"));
  EXPECT_EQ(body_of(active.receive_reply()), "GET /echo 1");
  TestClient refused(s.server);
  EXPECT_EQ(refused.receive_all().find("HTTP/1.1 503 "), 0U);
  for (auto& client : idle) client->send(get_request("/echo?x=2"));
  for (auto& client : idle) EXPECT_EQ(body_of(client->receive_reply()), "GET /echo 2");
}

TEST(Server, SurvivesRunningOutOfDescriptors) {
  Fixture s;
  TestClient before(s.server);
  before.send(get_request("/echo?x=1"));
  (void)before.receive_reply();
  std::vector<sys::Fd> hoard;
  sys::Fd client_socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  for (;;) {
    sys::Fd fd(::dup(2));
    if (!fd) break;
    hoard.push_back(std::move(fd));
  }
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  s.server.socket_path().copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::connect(client_socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  char byte = 0;
  EXPECT_LE(::recv(client_socket.get(), &byte, 1, 0), 0);  // taken and closed
  before.send(get_request("/echo?x=2"));
  EXPECT_EQ(body_of(before.receive_reply()), "GET /echo 2");
  hoard.clear();
  TestClient after(s.server);
  after.send(get_request("/echo?x=3"));
  EXPECT_EQ(body_of(after.receive_reply()), "GET /echo 3");
}

TEST(Server, StopLetsRequestsEndAndRemovesItsSocket) {
  Fixture s;
  TestClient idle(s.server);
  TestClient busy(s.server);
  busy.send(get_request("/wait?x=done"));
  ASSERT_TRUE(s.server.eventually([&] { return s.handlers.waiting == 1; }));
  std::thread stopper([&] { s.server.stop(10s); });
  EXPECT_EQ(idle.receive_all(), "");
  s.server.on_loop([&] { s.handlers.go.notify(); });
  EXPECT_EQ(body_of(busy.receive_all()), "done");
  stopper.join();
  EXPECT_FALSE(std::filesystem::exists(s.server.socket_path()));
}

TEST(Server, StopCancelsWhatDoesNotEnd) {
  Fixture s;
  TestClient busy(s.server);
  busy.send(get_request("/wait?x=done"));
  ASSERT_TRUE(s.server.eventually([&] { return s.handlers.waiting == 1; }));
  s.server.stop(50ms);
  EXPECT_NE(busy.receive_all().find("the daemon is shutting down"), std::string::npos);
  EXPECT_EQ(s.server.on_loop([&] { return s.handlers.cancelled; }), 1);
}

TEST(Server, ServesTcp) {
  Fixture s([](ServerOptions& options) { options.hosts.push_back("tcp://127.0.0.1:0"); });
  TestClient client(s.server.server().port(1));
  client.send(get_request("/echo?x=tcp"));
  EXPECT_EQ(body_of(client.receive_reply()), "GET /echo tcp");
  client.send(get_request("/wait"));
  ASSERT_TRUE(s.server.eventually([&] { return s.handlers.waiting == 1; }));
  client.close();
  EXPECT_TRUE(s.server.eventually([&] { return s.handlers.cancelled == 1; }));
}

TEST(Server, ServesSocketsOfTheServiceManager) {
  // A process of its own, because the descriptors must be 3 and so on; its parent is the client.
  TestDirectory directory;
  const std::string path = directory.file("activated.sock");
  sys::UnixListener listener = sys::listen_unix(path, {});
  const pid_t child = ::fork();
  if (child == 0) {
    if (::dup2(listener.fd.get(), 3) != 3) ::_exit(1);
    ::closefrom(4);
    ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
    ::setenv("LISTEN_FDS", "1", 1);
    boost::asio::io_context loop{1};
    Handlers handlers;
    Router router;
    handlers.add_to(router);
    ServerOptions options;
    options.hosts = {"fd://"};
    Server server(loop.get_executor(), router, options);
    server.start();
    loop.run();
    ::_exit(2);
  }
  listener.fd.reset();
  TestClient client(path);
  client.send(get_request("/echo?x=activated"));
  EXPECT_EQ(body_of(client.receive_reply()), "GET /echo activated");
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(std::filesystem::exists(path));
}

TEST(Server, RefusesASocketPathInUse) {
  Fixture s;
  EXPECT_THROW(Fixture([&](ServerOptions& options) { options.hosts = {"unix://" + s.server.socket_path()}; }), Error);
  TestClient client(s.server);
  client.send(get_request("/echo?x=1"));
  EXPECT_EQ(body_of(client.receive_reply()), "GET /echo 1");
}

}  // namespace
}  // namespace gantry::api
