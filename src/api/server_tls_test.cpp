#include <openssl/err.h>
#include <openssl/ssl.h>

#include "api/server.hpp"
#include "api/test_server.hpp"
#include "async/signal.hpp"
#include "sys/process.hpp"

namespace gantry::api {
namespace {

/// A certificate authority, a server certificate for "localhost" and a client certificate, made by openssl(1).
class Certificates {
 public:
  Certificates() {
    openssl({"req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
             "-subj", "/CN=test authority", "-keyout", file("ca.key"), "-out", file("ca.pem")});
    issue("server", "/CN=localhost", "serverAuth", "ca");
    issue("client", "/CN=alice", "clientAuth", "ca");
    openssl({"req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
             "-subj", "/CN=somebody else", "-keyout", file("other.key"), "-out", file("other.pem")});
    issue("stranger", "/CN=mallory", "clientAuth", "other");
  }
  std::string file(const std::string& name) const { return directory_.file(name); }

 private:
  void issue(const std::string& name, const std::string& subject, const std::string& usage, const std::string& ca) {
    openssl({"req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", subject, "-keyout",
             file(name + ".key"), "-out", file(name + ".csr")});
    sys::write_atomically(file("ext"), "extendedKeyUsage=" + usage + "\nsubjectAltName=DNS:localhost\n", 0644, false);
    openssl({"x509", "-req", "-in", file(name + ".csr"), "-CA", file(ca + ".pem"), "-CAkey", file(ca + ".key"),
             "-CAcreateserial", "-days", "2", "-extfile", file("ext"), "-out", file(name + ".pem")});
  }
  static void openssl(std::vector<std::string> arguments) {
    sys::SpawnOptions options;
    options.argv = {"openssl"};
    options.argv.insert(options.argv.end(), arguments.begin(), arguments.end());
    options.env = {"PATH=/usr/bin:/bin", "HOME=/tmp"};
    const sys::Output output = sys::run(options, 20);
    if (output.exit_code != 0) throw Error(Errc::internal, "openssl: " + output.stderr_text);
  }
  TestDirectory directory_;
};

class TlsClient {
 public:
  TlsClient(std::uint16_t port, const Certificates& files, const std::string& name, int max_version = TLS1_3_VERSION)
      : socket_(port), ctx_(::SSL_CTX_new(::TLS_client_method())) {
    ::SSL_CTX_set_max_proto_version(ctx_, max_version);
    ::SSL_CTX_load_verify_file(ctx_, files.file("ca.pem").c_str());
    ::SSL_CTX_set_verify(ctx_, SSL_VERIFY_PEER, nullptr);
    if (!name.empty()) {
      ::SSL_CTX_use_certificate_file(ctx_, files.file(name + ".pem").c_str(), SSL_FILETYPE_PEM);
      ::SSL_CTX_use_PrivateKey_file(ctx_, files.file(name + ".key").c_str(), SSL_FILETYPE_PEM);
    }
    ssl_ = ::SSL_new(ctx_);
    ::SSL_set_fd(ssl_, socket_.fd());
    connected_ = ::SSL_connect(ssl_) == 1;
  }
  ~TlsClient() {
    ::SSL_free(ssl_);
    ::SSL_CTX_free(ctx_);
    ::ERR_clear_error();
  }
  bool connected() const { return connected_; }
  void send(const std::string& bytes) { ::SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size())); }
  std::string receive_all() {
    std::string out;
    char buffer[65536];
    for (int n; (n = ::SSL_read(ssl_, buffer, sizeof buffer)) > 0;) out.append(buffer, static_cast<std::size_t>(n));
    return out;
  }
  std::string receive_exactly(std::size_t size) {
    std::string out(size, 0);
    std::size_t at = 0;
    while (at < size) {
      const int n = ::SSL_read(ssl_, out.data() + at, static_cast<int>(size - at));
      if (n <= 0) break;
      at += static_cast<std::size_t>(n);
    }
    return out.substr(0, at);
  }
  void half_close() { ::SSL_shutdown(ssl_); }
  void close() { socket_.close(); }

 private:
  TestClient socket_;
  SSL_CTX* ctx_;
  SSL* ssl_ = nullptr;
  bool connected_ = false;
};

struct Handlers {
  int waiting = 0;
  int cancelled = 0;
  Task<Response> who(Request req) {
    Response out = Response::text(200, req.peer().tls_subject);
    co_return out;
  }
  Task<Response> echo(Request req) {
    HijackedStream stream = co_await req.hijack();
    EXPECT_FALSE(stream.can_detach());
    for (;;) {
      std::string bytes = co_await stream.read();
      if (bytes.empty()) break;
      co_await stream.write(std::move(bytes));
    }
    co_await stream.write("bye");
    co_return Response::sent();
  }
  Task<Response> wait(Request) {
    ++waiting;
    try {
      co_await async::sleep_for(std::chrono::hours(1));
    } catch (const std::exception&) {
      ++cancelled;
      throw;
    }
    co_return Response::empty();
  }
  Task<Response> large(Request) { co_return Response::text(200, std::string(3'000'000, 'x')); }
  void add_to(Router& router) {
    static const Route<Handlers> kRoutes[] = {
        {Method::get, "/who", &Handlers::who},
        {Method::post, "/echo", &Handlers::echo},
        {Method::get, "/wait", &Handlers::wait},
        {Method::get, "/large", &Handlers::large},
    };
    router.add(*this, kRoutes);
  }
};

struct TlsServer : ::testing::Test {
  static void SetUpTestSuite() { files = new Certificates; }
  static void TearDownTestSuite() {
    delete files;
    files = nullptr;
  }
  void serve(bool verify) {
    server = std::make_unique<TestServer>([this](Router& router) { handlers.add_to(router); },
                                          [verify](ServerOptions& options) {
                                            options.hosts.push_back("tcp://127.0.0.1:0");
                                            options.tls = true;
                                            options.tls_files = {.certificate = files->file("server.pem"),
                                                                 .key = files->file("server.key"),
                                                                 .ca = verify ? files->file("ca.pem") : "",
                                                                 .verify_client = verify};
                                          });
    port = server->server().port(1);
  }
  inline static Certificates* files = nullptr;
  Handlers handlers;
  std::unique_ptr<TestServer> server;
  std::uint16_t port = 0;
};

const std::string kClose = "Connection: close\r\n";

TEST_F(TlsServer, ServesAndKnowsTheClient) {
  serve(true);
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsClient client(port, *files, "client", version);
    ASSERT_TRUE(client.connected());
    client.send(get_request("/who", kClose));
    EXPECT_TRUE(client.receive_all().ends_with("\r\n\r\n/CN=alice"));
  }
  TlsClient large(port, *files, "client");
  large.send(get_request("/large", kClose));
  EXPECT_GT(large.receive_all().size(), 3'000'000U);
}

TEST_F(TlsServer, RefusesClientsWithoutTheRightCertificate) {
  serve(true);
  for (const char* name : {"", "stranger", "server"}) {
    TlsClient client(port, *files, name);
    client.send(get_request("/who", kClose));
    EXPECT_EQ(client.receive_all(), "") << name;
  }
  TlsClient old(port, *files, "client", TLS1_1_VERSION);
  EXPECT_FALSE(old.connected());
  TestClient plain(port);
  plain.send(get_request("/who"));
  EXPECT_EQ(plain.receive_all().find("HTTP/1.1 200"), std::string::npos);
  TlsClient good(port, *files, "client");
  good.send(get_request("/who", kClose));
  EXPECT_TRUE(good.receive_all().ends_with("/CN=alice"));
}

TEST_F(TlsServer, ServesAnybodyWithoutVerification) {
  serve(false);
  TlsClient client(port, *files, "");
  ASSERT_TRUE(client.connected());
  client.send(get_request("/who", kClose));
  EXPECT_EQ(client.receive_all().find("HTTP/1.1 200 OK"), 0U);
}

TEST_F(TlsServer, KnowsTheEndOfStandardInputFromTheEndOfTheConnection) {
  serve(true);
  TlsClient client(port, *files, "client");
  client.send("POST /echo HTTP/1.1\r\nHost: d\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\nearly");
  const std::string head =
      "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\n"
      "Upgrade: tcp\r\n\r\n";
  EXPECT_EQ(client.receive_exactly(head.size() + 5), head + "early");
  client.half_close();
  EXPECT_EQ(client.receive_all(), "bye");
}

TEST_F(TlsServer, CancelsTheHandlerOfAClientThatGoesAway) {
  serve(true);
  TlsClient client(port, *files, "client");
  client.send(get_request("/wait"));
  ASSERT_TRUE(server->eventually([&] { return handlers.waiting == 1; }));
  client.close();
  EXPECT_TRUE(server->eventually([&] { return handlers.cancelled == 1; }));
}

TEST_F(TlsServer, NamesTheFileThatCannotBeLoaded) {
  try {
    serve(true);
    TestServer broken([](Router&) {},
                      [](ServerOptions& options) {
                        options.tls = true;
                        options.tls_files = {
                            .certificate = "/nonexistent.pem", .key = "/k", .ca = "", .verify_client = false};
                      });
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(e.message().find("/nonexistent.pem"), std::string::npos);
  }
}

}  // namespace
}  // namespace gantry::api
