#include "session/sessions.hpp"

#include <filesystem>
#include <fstream>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_posix.h>
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "proto/filesync.grpc.pb.h"
#include "proto/secrets.grpc.pb.h"
#include "proto/sshforward.grpc.pb.h"
#include "proto/upload.grpc.pb.h"
#include "session/tree_sender.hpp"
#include "sys/file.hpp"
#include "sys/unix_socket.hpp"

namespace gantry::session {
namespace {

namespace fs = std::filesystem;
namespace filesync = moby::filesync::v1;
using fsutil::types::Packet;

/// A client, as buildx is one: it serves on its end of the connection.
class Client {
 public:
  explicit Client(Sessions& sessions, fs::path context) : files_(std::move(context)) {
    int ends[2] = {-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
    end_ = ends[0];
    grpc::ServerBuilder builder;
    builder.RegisterService(&files_);
    builder.RegisterService(&results_);
    builder.RegisterService(&auth_);
    builder.RegisterService(&secrets_);
    builder.RegisterService(&agent_);
    builder.RegisterService(&upload_);
    server_ = builder.BuildAndStart();
    grpc::AddInsecureChannelFromFd(server_.get(), ends[0]);
    SessionHeaders headers{.id = id, .name = "", .shared_key = "key", .methods = {}};
    for (const auto method :
         {kFileSync, kFileSend, kCredentials, kFetchToken, kGetSecret, kCheckAgent, kForwardAgent, kUpload})
      headers.methods.emplace_back(method);
    session = sessions.serve(sys::Fd(ends[1]), headers);
  }
  ~Client() { hang_up(); }
  void hang_up() {
    ::shutdown(end_, SHUT_RDWR);
    server_->Shutdown(std::chrono::system_clock::now());
  }

  const std::string id = random_id().substr(0, 25);
  std::shared_ptr<Session> session;

  std::string received() const { return results_.received; }

 private:
  class Files final : public filesync::FileSync::Service {
   public:
    explicit Files(fs::path context) : context_(std::move(context)) {}
    grpc::Status DiffCopy(grpc::ServerContext* context, grpc::ServerReaderWriter<Packet, Packet>* stream) override {
      const auto name = context->client_metadata().find("dir-name");
      if (name == context->client_metadata().end() || name->second != "context")
        return {grpc::StatusCode::NOT_FOUND,
                "no access allowed to dir \"" + std::string(name->second.data(), name->second.size()) + "\""};
      if (context->client_metadata().count("exclude-patterns-encoded") != 0)
        return {grpc::StatusCode::UNKNOWN,
                std::string(context->client_metadata().find("exclude-patterns")->second.data())};
      struct Adapter final : PacketStream {
        explicit Adapter(grpc::ServerContext* c, grpc::ServerReaderWriter<Packet, Packet>* s) : context(c), stream(s) {}
        bool read(Packet& packet) override { return stream->Read(&packet); }
        bool write(const Packet& packet) override { return stream->Write(packet); }
        void cancel() override { context->TryCancel(); }
        grpc::ServerContext* context;
        grpc::ServerReaderWriter<Packet, Packet>* stream;
      } adapter(context, stream);
      const sys::Fd root = sys::open_file(context_, O_RDONLY | O_DIRECTORY);
      try {
        send_tree_packets(adapter, root.get(), [](std::int64_t) {});
      } catch (const Error& e) {
        return {grpc::StatusCode::UNKNOWN, e.message()};
      }
      return grpc::Status::OK;
    }

   private:
    fs::path context_;
  };
  class Results final : public filesync::FileSend::Service {
   public:
    grpc::Status DiffCopy(grpc::ServerContext* context,
                          grpc::ServerReaderWriter<filesync::BytesMessage, filesync::BytesMessage>* stream) override {
      const auto index = context->client_metadata().find("buildkit-attachable-exporter-id");
      if (index == context->client_metadata().end() || index->second != "0")
        return {grpc::StatusCode::NOT_FOUND, "no such exporter"};
      filesync::BytesMessage message;
      while (stream->Read(&message)) received += message.data();
      return grpc::Status::OK;
    }
    std::string received;
  };
  class Auth final : public filesync::Auth::Service {
    grpc::Status Credentials(grpc::ServerContext*, const filesync::CredentialsRequest* request,
                             filesync::CredentialsResponse* response) override {
      if (request->host() != "registry-1.docker.io") return grpc::Status::OK;
      response->set_username("ann");
      response->set_secret("pass");
      return grpc::Status::OK;
    }
    grpc::Status FetchToken(grpc::ServerContext*, const filesync::FetchTokenRequest* request,
                            filesync::FetchTokenResponse* response) override {
      if (request->host() != "r") return {grpc::StatusCode::UNAVAILABLE, "no"};
      response->set_token(request->scopes(0));
      response->set_expires_in(60);
      return grpc::Status::OK;
    }
  };
  class Secrets final : public moby::buildkit::secrets::v1::Secrets::Service {
    grpc::Status GetSecret(grpc::ServerContext*, const moby::buildkit::secrets::v1::GetSecretRequest* request,
                           moby::buildkit::secrets::v1::GetSecretResponse* response) override {
      if (request->id() == "big") {
        response->set_data(std::string(600'000, 's'));
        return grpc::Status::OK;
      }
      if (request->id() != "known") return {grpc::StatusCode::NOT_FOUND, "secret not found"};
      response->set_data("hush");
      return grpc::Status::OK;
    }
  };
  class Agent final : public moby::sshforward::v1::SSH::Service {
    using Bytes = moby::sshforward::v1::BytesMessage;
    grpc::Status CheckAgent(grpc::ServerContext*, const moby::sshforward::v1::CheckAgentRequest* request,
                            moby::sshforward::v1::CheckAgentResponse*) override {
      if (request->id() != "default") return {grpc::StatusCode::UNKNOWN, "unset ssh forward key"};
      return grpc::Status::OK;
    }
    grpc::Status ForwardAgent(grpc::ServerContext*, grpc::ServerReaderWriter<Bytes, Bytes>* stream) override {
      Bytes message;
      while (stream->Read(&message)) {
        message.set_data("<" + message.data() + ">");
        stream->Write(message);
      }
      return grpc::Status::OK;
    }
  };
  class Upload final : public moby::upload::v1::Upload::Service {
    using Bytes = moby::upload::v1::BytesMessage;
    grpc::Status Pull(grpc::ServerContext* context, grpc::ServerReaderWriter<Bytes, Bytes>* stream) override {
      const auto path = context->client_metadata().find("urlpath");
      Bytes message;
      message.set_data(std::string(path->second.data(), path->second.size()));
      stream->Write(message);
      message.set_data(std::string(100'000, 'u'));
      stream->Write(message);
      return grpc::Status::OK;
    }
  };

  Files files_;
  Results results_;
  Auth auth_;
  Secrets secrets_;
  Agent agent_;
  Upload upload_;
  std::unique_ptr<grpc::Server> server_;
  int end_ = -1;
};

class SessionsTest : public testing::Test {
 protected:
  SessionsTest() {
    fs::create_directories(top_ / "context/d");
    fs::create_directories(top_ / "copy");
    std::ofstream(top_ / "context/d/file") << std::string(200'000, 'f');
  }
  ~SessionsTest() override { sys::remove_tree(top_); }

  template <class Body>
  static Errc code_of(Body&& body) {
    try {
      body();
    } catch (const Error& e) {
      return e.code();
    }
    return Errc::internal;
  }

  ReceiveReport receive(Session& session, const ReceiveOptions& options, std::stop_token stop = {}) const {
    const sys::Fd root = sys::open_file(top_ / "copy", O_RDONLY | O_DIRECTORY);
    return session.receive(options, root.get(), [](const std::string&) {}, [](std::int64_t) {}, std::move(stop));
  }

  const fs::path top_ = fs::temp_directory_path() / ("gantry-sessions-" + random_id().substr(0, 12));
  Sessions sessions_;
};

TEST_F(SessionsTest, BringDirectories) {
  Client client(sessions_, top_ / "context");
  EXPECT_EQ(receive(*client.session, {.name = "context", .include = {}, .exclude = {}, .follow = {}}).entries, 2);
  EXPECT_EQ(sys::read_file(top_ / "copy/d/file").size(), 200'000U);
  EXPECT_EQ(code_of([&] { receive(*client.session, {.name = "nothing", .include = {}, .exclude = {}, .follow = {}}); }),
            Errc::not_found);
}

TEST_F(SessionsTest, EncodePatternsThatAreNotPlain) {
  Client client(sessions_, top_ / "context");
  try {
    receive(*client.session, {.name = "context", .include = {}, .exclude = {"\xc3\xa4/*"}, .follow = {}});
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_TRUE(e.message().starts_with("%C3%A4%2F%2A")) << e.message();
  }
}

TEST_F(SessionsTest, TakeResults) {
  Client client(sessions_, top_ / "context");
  client.session->send_stream(0, [](const auto& send) { send(std::string(5 << 20, 'r')); }, {});
  EXPECT_EQ(client.received().size(), std::size_t{5} << 20);
  EXPECT_EQ(code_of([&] { client.session->send_stream(1, [](const auto& send) { send("x"); }, {}); }), Errc::not_found);
}

TEST_F(SessionsTest, AnswerForAccountsAndSecrets) {
  Client client(sessions_, top_ / "context");
  const std::vector<std::string> ids = {client.id};
  const auto account = sessions_.credentials(ids, "registry-1.docker.io", {});
  ASSERT_TRUE(account);
  EXPECT_EQ(account->username, "ann");
  EXPECT_FALSE(sessions_.credentials(ids, "elsewhere", {}));
  TokenRequest request{.client_id = "c", .host = "r", .realm = "", .service = "", .scopes = {"pull"}};
  EXPECT_EQ(sessions_.fetch_token(ids, request, {})->token, "pull");
  request.host = "other";
  EXPECT_FALSE(sessions_.fetch_token(ids, request, {}));
  EXPECT_EQ(sessions_.secret(ids, "known", {}), "hush");
  EXPECT_EQ(code_of([&] { sessions_.secret(ids, "unknown", {}); }), Errc::not_found);
  EXPECT_EQ(code_of([&] { sessions_.secret(ids, "big", {}); }), Errc::invalid_argument);
}

TEST_F(SessionsTest, ForwardAnAgent) {
  Client client(sessions_, top_ / "context");
  EXPECT_TRUE(client.session->check_agent("default", {}));
  EXPECT_FALSE(client.session->check_agent("other", {}));
  const auto socket = client.session->forward_agent("default", top_ / "agent", 1, 2, 0600);
  const sys::Fd connection = sys::connect_unix(top_ / "agent");
  ::fcntl(connection.get(), F_SETFL, 0);
  sys::write_all(connection.get(), "key?");
  char answer[16] = {};
  ASSERT_EQ(::recv(connection.get(), answer, 6, MSG_WAITALL), 6);
  EXPECT_STREQ(answer, "<key?>");
}

TEST_F(SessionsTest, PullWhatTheClientReads) {
  Client client(sessions_, top_ / "context");
  std::string got;
  client.session->pull_upload("http://buildkit-session/abc", [&](std::string_view bytes) { got += bytes; }, {});
  EXPECT_EQ(got.size(), 100'004U);
  EXPECT_TRUE(got.starts_with("/abc"));
}

TEST_F(SessionsTest, AreGoneWhenTheClientIs) {
  auto client = std::make_unique<Client>(sessions_, top_ / "context");
  const auto session = client->session;
  EXPECT_EQ(sessions_.wait("name:" + client->id, std::chrono::seconds(0), {}), session);
  client->hang_up();
  for (int i = 0; i < 1000 && sessions_.count() != 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(sessions_.count(), 0U);
  EXPECT_FALSE(session->alive());
  EXPECT_EQ(code_of([&] { receive(*session, {.name = "context", .include = {}, .exclude = {}, .follow = {}}); }),
            Errc::unavailable);
  try {
    sessions_.wait("gone", std::chrono::milliseconds(1), {});
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.message(), "no active session for gone: context deadline exceeded");
  }
}

TEST_F(SessionsTest, AreWaitedForAndOnlyOnceThere) {
  std::jthread late([&] {
    Client client(sessions_, top_ / "context");
    EXPECT_EQ(code_of([&] {
                int ends[2] = {-1, -1};
                ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
                const sys::Fd other(ends[0]);
                sessions_.serve(sys::Fd(ends[1]), {.id = client.id, .name = "", .shared_key = "", .methods = {}});
              }),
              Errc::conflict);
  });
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(code_of([&] { sessions_.wait("never", std::chrono::hours(1), stop.get_token()); }), Errc::cancelled);
}

TEST_F(SessionsTest, StopWhenTold) {
  Client client(sessions_, top_ / "context");
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(code_of([&] {
              receive(*client.session, {.name = "context", .include = {}, .exclude = {}, .follow = {}},
                      stop.get_token());
            }),
            Errc::cancelled);
}

TEST(SessionHeaders, AreReadInAnyCase) {
  const auto headers = read_session_headers({{"X-Docker-Expose-Session-Uuid", "abc"},
                                             {"x-docker-expose-session-sharedkey", "ctx:1"},
                                             {"X-Docker-Expose-Session-Grpc-Method", "/a.B/C"},
                                             {"X-Docker-Expose-Session-Grpc-Method", "/a.B/D"},
                                             {"Host", "x"}});
  EXPECT_EQ(headers.id, "abc");
  EXPECT_EQ(headers.shared_key, "ctx:1");
  EXPECT_EQ(headers.methods, (std::vector<std::string>{"/a.B/C", "/a.B/D"}));
}

}  // namespace
}  // namespace gantry::session
