#include <gtest/gtest.h>

#include <mutex>
#include <thread>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "buildops/source_op.hpp"
#include "buildops/world_for_test.hpp"
#include "storage/hash.hpp"
#include "sys/process.hpp"

namespace gantry::buildops {
namespace {

using buildcache::SnapshotPtr;
using test::error_of;
using test::Tree;
using test::World;

int listen_somewhere(int socket) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(::bind(socket, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(::listen(socket, 16), 0);
  EXPECT_EQ(::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size), 0);
  return ntohs(address.sin_port);
}

/// Answers every request from a table, one after the other.
class WebServer {
 public:
  WebServer() : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    port_ = listen_somewhere(listener_.get());
    thread_ = std::jthread([this](const std::stop_token& stop) { serve(stop); });
  }
  ~WebServer() {
    thread_.request_stop();
    ::shutdown(listener_.get(), SHUT_RDWR);
  }
  std::string url(const std::string& path) const { return "http://127.0.0.1:" + std::to_string(port_) + path; }
  void answer(const std::string& path, const std::string& head, const std::string& body) {
    const std::lock_guard lock(mutex_);
    answers_[path] = {head, body};
  }
  std::vector<std::string> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  void serve(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      const sys::Fd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!client) return;
      std::string request;
      char buffer[4096];
      while (request.find("\r\n\r\n") == std::string::npos) {
        const ssize_t got = ::read(client.get(), buffer, sizeof buffer);
        if (got <= 0) break;
        request.append(buffer, static_cast<std::size_t>(got));
      }
      reply(client.get(), request);
    }
  }
  void reply(int client, const std::string& request) {
    const std::lock_guard lock(mutex_);
    requests_.push_back(request);
    const auto words = split(request.substr(0, request.find('\r')), ' ');
    if (words.size() < 2) return;
    const auto found = answers_.find(words[1]);
    std::string head = "HTTP/1.1 404 Not Found\r\n";
    std::string body;
    if (found != answers_.end()) std::tie(head, body) = found->second;
    if (head.find("ETag: \"v1\"") != std::string::npos && request.find("If-None-Match: \"v1\"") != std::string::npos) {
      head = "HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n";
      body.clear();
    }
    std::string out = head + "Connection: close\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n";
    if (words[0] != "HEAD") out += body;
    (void)!::write(client, out.data(), out.size());
  }

  sys::Fd listener_;
  int port_ = 0;
  mutable std::mutex mutex_;
  std::map<std::string, std::pair<std::string, std::string>> answers_;
  std::vector<std::string> requests_;
  std::jthread thread_;
};

class Source : public ::testing::Test {
 protected:
  llb::VertexPtr source(const std::string& identifier, std::map<std::string, std::string> attributes = {}) {
    pb::Op op;
    op.mutable_source()->set_identifier(identifier);
    for (const auto& [name, value] : attributes) (*op.mutable_source()->mutable_attrs())[name] = value;
    return world.vertex(op, 0);
  }
  /// As the solver does: the key, then the result, of one operation.
  std::pair<std::string, SnapshotPtr> get(const llb::VertexPtr& vertex) {
    solver::OpContext context{world.progress, world.stop.get_token(), {}, {}};
    const auto operation = world.factory(*vertex);
    std::string key = operation->cache_map(context).key;
    return {std::move(key), operation->execute(context, {}).at(0)};
  }
  std::string key(const llb::VertexPtr& vertex) { return world.cache_map(vertex).key; }

  World world;
};

TEST_F(Source, AFileOfTheWebIsAskedForAgainOnlyWhenItChanged) {
  WebServer server;
  server.answer("/dir/file.bin", "HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
                "content");
  const auto vertex = source(server.url("/dir/file.bin"));
  const auto [first, snapshot] = get(vertex);
  EXPECT_EQ(world.look(snapshot, "file.bin"), "f 0600 0:0 content");
  struct stat st{};
  {
    const auto view = world.cache->snapshots().view(snapshot);
    ASSERT_EQ(::lstat((view->path() / "file.bin").c_str(), &st), 0);
  }
  EXPECT_EQ(st.st_mtim.tv_sec, 784111777);
  EXPECT_EQ(server.requests().size(), 1U);
  EXPECT_NE(server.requests()[0].find("User-Agent: buildkit/v"), std::string::npos);
  EXPECT_EQ(key(vertex), first);
  ASSERT_EQ(server.requests().size(), 2U);
  EXPECT_TRUE(server.requests()[1].starts_with("HEAD ")) << server.requests()[1];
  server.answer("/dir/file.bin", "HTTP/1.1 200 OK\r\nETag: \"v2\"\r\n", "other");
  EXPECT_NE(key(vertex), first);
}

TEST_F(Source, ChecksumsNamesAndModesOfWebFilesAreObeyed) {
  WebServer server;
  server.answer("/f", "HTTP/1.1 200 OK\r\n", "content");
  const std::string right = storage::sha256_digest("content");
  const auto [k, snapshot] =
      get(source(server.url("/f"),
                 {{"http.checksum", right}, {"http.filename", "name"}, {"http.perm", "755"}, {"http.uid", "5"}}));
  EXPECT_EQ(world.look(snapshot, "name"), "f 0755 5:0 content");
  const std::string wrong = storage::sha256_digest("else");
  EXPECT_EQ(error_of([&] { get(source(server.url("/f"), {{"http.checksum", wrong}})); }),
            "digest mismatch " + right + ": " + wrong);
  EXPECT_EQ(error_of([&] { key(source(server.url("/f"), {{"http.checksum", "md5:00"}})); }),
            "unsupported digest algorithm");
  EXPECT_EQ(error_of([&] { key(source(server.url("/f"), {{"http.checksum", "sha256"}})); }),
            "invalid checksum digest format");
  EXPECT_EQ(error_of([&] { key(source(server.url("/none"))); }), "invalid response status 404");
  server.answer("/redirect", "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n", "");
  EXPECT_NE(error_of([&] { key(source(server.url("/redirect"))); }), "");
  EXPECT_NE(error_of([&] { get(source("http://169.254.169.254/latest")); }), "");
  EXPECT_EQ(world.look(get(source(server.url("/f"), {{"http.filename", "../../x"}})).second, "x"),
            "f 0600 0:0 content");
}

TEST_F(Source, AnImageIsTakenAsItIsHereUnlessItIsToBePulled) {
  buildlink::Image image;
  image.id = "sha256:id";
  image.digest = "sha256:digest";
  const sys::Path layer = world.scratch / "layer";
  Tree(layer).file("from-image", "x");
  buildlink::ImageLayer only;
  only.chain_id = "sha256:" + std::string(64, 'a');
  only.diff_id = "sha256:" + std::string(64, 'b');
  only.directory = layer;
  image.layers.push_back(only);
  world.engine.images = {{"docker.io/library/i:latest", image}, {"sha256:id", image}};
  const auto vertex = source("docker-image://docker.io/library/i:latest");
  const auto [first, snapshot] = get(vertex);
  EXPECT_EQ(world.look(snapshot, "from-image"), "f 0644 0:0 x");
  EXPECT_EQ(world.engine.asked.at(0).mode, buildlink::ResolveMode::local);
  EXPECT_FALSE(world.engine.asked.at(0).layers);
  EXPECT_EQ(world.engine.asked.at(1).reference, "sha256:id") << "the layers are those of what the key names";
  world.engine.images["docker.io/library/i:latest"].digest = "sha256:moved";
  EXPECT_NE(key(vertex), first);
  world.engine.asked.clear();
  key(source("docker-image://docker.io/library/i:latest", {{"image.resolvemode", "pull"}}));
  EXPECT_EQ(world.engine.asked.at(0).mode, buildlink::ResolveMode::pull);
  EXPECT_EQ(error_of([&] { key(source("docker-image://docker.io/library/none:latest")); }),
            "no such image: docker.io/library/none:latest");
}

TEST_F(Source, UnknownAndMalformedSourcesAreRefused) {
  EXPECT_EQ(error_of([&] { key(source("ftp://x/y")); }), "failed to get source \"ftp://x/y\": unsupported scheme");
  EXPECT_EQ(error_of([&] { key(source("nothing")); }), "failed to parse source \"nothing\": no scheme");
  EXPECT_EQ(error_of([&] { key(source("git://x/y", {{"git.fullurl", "ext::sh -c id"}})); }),
            "invalid git URL \"ext::sh -c id\"");
  EXPECT_EQ(error_of([&] { key(source("git://x/y", {{"git.fullurl", "file:///etc"}})); }),
            "invalid git URL \"file:///etc\"");
  EXPECT_EQ(error_of([&] { key(source("git://x/y#--upload-pack=id")); }), "invalid git ref \"--upload-pack=id\"");
  EXPECT_EQ(error_of([&] { key(source("local://x", {{"local.followpaths", "{}"}})); }),
            "local.followpaths: not a list");
}

/// A repository that is served at git://127.0.0.1.
class Git : public Source {
 protected:
  void SetUp() override {
    const sys::Path work = world.scratch / "work-tree";
    sys::make_directories(work);
    git(work, {"init", "-q", "-b", "main"});
    commit(work, "one", "1");
    git(work, {"tag", "-a", "v1", "-m", "first"});
    sys::make_directories(work / "sub/deep");
    commit(work, "sub/deep/two", "2");
    git(world.scratch.path(), {"clone", "-q", "--bare", work.string(), "served.git"});
    listener_ = sys::Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    port_ = listen_somewhere(listener_.get());
    server_ = std::jthread([this] { serve(); });
  }
  void TearDown() override { ::shutdown(listener_.get(), SHUT_RDWR); }
  /// One `git daemon` for each connection, as inetd does.
  void serve() const {
    for (;;) {
      const sys::Fd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!client) return;
      sys::SpawnOptions options;
      options.argv = {"git", "daemon", "--inetd", "--export-all", "--base-path=" + world.scratch.path().string()};
      options.env = environment();
      options.stdin_fd = options.stdout_fd = client.get();
      const sys::Child child = sys::spawn(options);
      while (::waitpid(child.pid, nullptr, 0) < 0 && errno == EINTR) {
      }
    }
  }
  std::vector<std::string> environment() const {
    return {"PATH=/usr/bin:/bin",     "HOME=" + world.scratch.path().string(),
            "GIT_CONFIG_NOSYSTEM=1",  "GIT_AUTHOR_NAME=a",
            "GIT_AUTHOR_EMAIL=a@b",   "GIT_COMMITTER_NAME=a",
            "GIT_COMMITTER_EMAIL=a@b"};
  }
  std::string git(const sys::Path& directory, std::vector<std::string> arguments) const {
    sys::SpawnOptions options;
    options.argv = {"git"};
    options.argv.insert(options.argv.end(), arguments.begin(), arguments.end());
    options.directory = directory;
    options.env = environment();
    const sys::Output output = sys::run(options, 60);
    EXPECT_EQ(output.exit_code, 0) << output.stderr_text;
    return std::string(trim(output.stdout_text));
  }
  void commit(const sys::Path& work, const std::string& name, const std::string& content) const {
    Tree(work).file(name, content);
    git(work, {"add", "."});
    git(work, {"commit", "-q", "-m", name});
  }
  llb::VertexPtr repository(const std::string& fragment, std::map<std::string, std::string> attributes = {}) {
    const std::string address = "127.0.0.1:" + std::to_string(port_) + "/served.git";
    attributes["git.fullurl"] = "git://" + address;
    return source("git://" + address + fragment, std::move(attributes));
  }
  std::map<std::string, std::string> files(const SnapshotPtr& snapshot) {
    auto all = world.look(snapshot);
    std::erase_if(all,
                  [](const auto& item) { return item.second.starts_with("d ") || item.first.starts_with(".git/"); });
    return all;
  }

  sys::Fd listener_;
  int port_ = 0;
  std::jthread server_;
};

TEST_F(Git, BranchesTagsCommitsAndDirectoriesAreCheckedOut) {
  using Files = std::map<std::string, std::string>;
  const Files first{{"one", "f 0644 0:0 1"}};
  const Files both{{"one", "f 0644 0:0 1"}, {"sub/deep/two", "f 0644 0:0 2"}};
  const std::string head = git(world.scratch / "served.git", {"rev-parse", "HEAD"});
  const auto [latest, tree] = get(repository(""));
  EXPECT_EQ(files(tree), both);
  EXPECT_EQ(world.look(tree, ".git"), "");
  EXPECT_EQ(key(repository("#main")), latest) << "the commit counts, not how it was found";
  EXPECT_EQ(key(repository("#" + head)), latest);
  EXPECT_EQ(files(get(repository("#v1")).second), first);
  EXPECT_EQ(files(get(repository("#" + head)).second), both);
  EXPECT_EQ(files(get(repository("#main:sub")).second), (Files{{"deep/two", "f 0644 0:0 2"}}));
  EXPECT_EQ(error_of([&] { get(repository("#main:nothing")); }), "nothing: not found in the repository");
  EXPECT_NE(error_of([&] { key(repository("#none")); }).find("repository does not contain ref none"),
            std::string::npos);
  const SnapshotPtr kept = get(repository("#main", {{"git.keepgitdir", "true"}})).second;
  EXPECT_EQ(world.look(kept, ".git"), "d 0755 0:0");
  EXPECT_NE(get(repository("#main", {{"git.checksum", head.substr(0, 12)}})).second, nullptr);
  EXPECT_EQ(error_of([&] { key(repository("#main", {{"git.checksum", "0000"}})); }),
            "expected checksum to match 0000, got " + head);
}

}  // namespace
}  // namespace gantry::buildops
