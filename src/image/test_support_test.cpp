#include "image/test_support.hpp"

#include <cstring>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "base/text.hpp"
#include "image/digest.hpp"
#include "image/gzip.hpp"
#include "storage/tar_writer.hpp"
#include "sys/file.hpp"

namespace gantry::image::test {
namespace {

int spawn(const std::vector<std::string>& argv, int output) {
  std::vector<char*> args;
  for (const std::string& arg : argv) args.push_back(const_cast<char*>(arg.c_str()));
  args.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, output, 1);
  ::posix_spawn_file_actions_adddup2(&actions, output, 2);
  pid_t pid = -1;
  const int code = ::posix_spawnp(&pid, args[0], &actions, nullptr, args.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (code != 0) throw Error::from_errno(code, argv[0]);
  return pid;
}

/// A socket that listens on a free loopback port.
int listen_somewhere(int& port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (::bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(fd, 64) != 0 ||
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0)
    throw Error::from_errno(errno, "listen");
  port = ntohs(address.sin_port);
  return fd;
}

bool can_connect(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool ok = ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  ::close(fd);
  return ok;
}

}  // namespace

TemporaryDirectory::TemporaryDirectory() : path_("/var/tmp/gantry-image-" + random_id().substr(0, 12)) {
  sys::make_directories(path_, 0700);
}
TemporaryDirectory::~TemporaryDirectory() { sys::remove_tree(path_); }

std::string run_program(const std::vector<std::string>& argv) {
  int pipe_fds[2];
  if (::pipe2(pipe_fds, O_CLOEXEC) != 0) throw Error::from_errno(errno, "pipe");
  const sys::Fd out(pipe_fds[0]);
  sys::Fd in(pipe_fds[1]);
  const int pid = spawn(argv, in.get());
  in.reset();
  const std::string text = sys::read_all(out.get());
  int status = 0;
  ::waitpid(pid, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) throw Error(Errc::internal, join(argv, " ") + ": " + text);
  return text;
}

std::string make_tar(const std::vector<TarFile>& files) {
  std::string out;
  const storage::ByteSink sink = [&](std::string_view bytes) { out += bytes; };
  storage::TarWriter tar(sink);
  for (const TarFile& file : files) {
    storage::TarEntry entry;
    entry.name = file.name;
    entry.link = file.link;
    entry.mode = file.type == '5' ? 0755 : 0644;
    entry.type = file.type == '5'   ? storage::TarType::directory
                 : file.type == '2' ? storage::TarType::symlink
                 : file.type == '1' ? storage::TarType::hardlink
                                    : storage::TarType::file;
    entry.size = entry.type == storage::TarType::file ? file.content.size() : 0;
    tar.write_header(entry);
    if (entry.type != storage::TarType::file) continue;
    tar.write_data(file.content);
    tar.end_data();
  }
  tar.finish();
  return out;
}

std::string gzip(const std::string& bytes) {
  std::string out;
  GzipWriter writer([&](std::string_view piece) { out += piece; });
  writer.write(bytes);
  writer.finish();
  return out;
}

namespace {

Descriptor add_blob(ImageBytes& image, std::string_view type, std::string bytes) {
  Descriptor d;
  d.media_type = type;
  d.digest = digest_of(bytes);
  d.size = std::int64_t(bytes.size());
  image.blobs[d.digest] = std::move(bytes);
  return d;
}

}  // namespace

ImageBytes make_image(const std::vector<std::string>& tars, const std::string& architecture, bool compressed) {
  ImageBytes out;
  ImageConfig config;
  config.created = *parse_rfc3339("2026-01-01T00:00:00Z");
  config.platform = {"linux", architecture, "", ""};
  config.config.Cmd = std::vector<std::string>{"/bin/sh"};
  config.config.Env = std::vector<std::string>{"PATH=/bin"};
  config.config.Labels = json::StringMap{{"made-by", "test"}};
  Manifest manifest;
  manifest.media_type = kOciManifest;
  for (const std::string& tar : tars) {
    config.diff_ids.push_back(digest_of(tar));
    HistoryEntry entry;
    entry.created = config.created;
    entry.created_by = "layer";
    config.history.push_back(entry);
    manifest.layers.push_back(add_blob(out, compressed ? kOciLayerGzip : kOciLayer, compressed ? gzip(tar) : tar));
  }
  manifest.config = add_blob(out, kOciConfig, render_image_config(config));
  out.config_digest = manifest.config.digest;
  out.manifest = add_blob(out, kOciManifest, render_manifest(manifest));
  return out;
}

ImageBytes make_index(const std::vector<ImageBytes>& images, const std::vector<Platform>& platforms) {
  ImageBytes out;
  Index index;
  index.media_type = kOciIndex;
  for (std::size_t i = 0; i < images.size(); ++i) {
    out.blobs.insert(images[i].blobs.begin(), images[i].blobs.end());
    Descriptor d = images[i].manifest;
    d.platform = platforms[i];
    index.manifests.push_back(std::move(d));
  }
  out.manifest = add_blob(out, kOciIndex, render_index(index));
  return out;
}

void write_layout(const sys::Path& directory, const ImageBytes& image, const std::string& name) {
  sys::make_directories(directory / "blobs/sha256");
  for (const auto& [digest, bytes] : image.blobs)
    sys::write_atomically(directory / "blobs/sha256" / digest_hex(digest), bytes, 0644, false);
  Index index;
  index.media_type = kOciIndex;
  Descriptor d = image.manifest;
  if (!name.empty()) d.annotations["org.opencontainers.image.ref.name"] = name;
  index.manifests.push_back(std::move(d));
  sys::write_atomically(directory / "index.json", render_index(index), 0644, false);
  sys::write_atomically(directory / "oci-layout", R"({"imageLayoutVersion":"1.0.0"})", 0644, false);
}

// ---- Machine

Machine::Machine(const sys::Path& root) {
  paths.data_root = root;
  paths.exec_root = root / "run";
  sys::make_directories(root);
  db = std::make_unique<db::Db>(paths.database());
  layers = std::make_unique<storage::LayerStore>(loop.get_executor(), lanes, *db, paths);
  content = std::make_unique<ContentStore>(lanes, *db, paths);
  images = std::make_unique<Images>(lanes, *db, *layers, *content, bus);
  images->set_users([this] { return users; });
  transfers = std::make_unique<Transfers>(loop.get_executor(), lanes, *images, bus, paths, config::Config{});
  DownloadSettings quick;
  quick.retry_delay = std::chrono::milliseconds(10);
  transfers->context_for_test().downloads.configure(quick);
  run(layers->recover());
  run(content->recover());
  problems = run(images->recover());
}

Machine::~Machine() {
  transfers.reset();
  run(layers->stop());
  loop.stop();
}

void Machine::turn_until(const bool& done) {
  loop.restart();
  while (!done) loop.run_one();
}

void Machine::run(Task<void> task) {
  std::exception_ptr failure;
  bool done = false;
  boost::asio::co_spawn(loop, std::move(task), [&](std::exception_ptr error) {
    failure = error;
    done = true;
  });
  turn_until(done);
  if (failure) std::rethrow_exception(failure);
}

namespace {

Task<void> collect(std::function<Task<void>(ProgressPtr)> verb, std::vector<std::string>* out) {
  auto progress = std::make_shared<Progress>();
  std::exception_ptr failure;
  try {
    co_await verb(progress);
  } catch (const Error&) {
    failure = std::current_exception();
  }
  progress->close();
  while (auto line = co_await progress->next()) out->push_back(*line);
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

std::vector<std::string> Machine::lines(std::function<Task<void>(ProgressPtr)> verb, std::string* error) {
  std::vector<std::string> out;
  try {
    run(collect(std::move(verb), &out));
  } catch (const Error& e) {
    if (error == nullptr) throw;
    *error = e.message();
  }
  return out;
}

std::vector<std::string> Machine::pull(const std::string& image, const std::string& tag, RegistryAuth auth,
                                       std::optional<Platform> platform) {
  PullRequest request;
  request.image = image;
  request.tag = tag;
  request.auth = std::move(auth);
  request.platform = std::move(platform);
  return lines([this, request](ProgressPtr progress) { return transfers->pull(request, progress); });
}

std::string Machine::read_rootfs(const Image& image, const std::string& file) {
  for (auto chain = image.chain_ids.rbegin(); chain != image.chain_ids.rend(); ++chain)
    if (const auto text = sys::find_file(layers->directory(*chain) / file)) return *text;
  return "";
}

std::size_t Machine::files_in(const sys::Path& directory) const { return sys::list_directory(directory).size(); }

// ---- DebianRegistry

DebianRegistry::DebianRegistry(const std::string& htpasswd) {
  const int probe = listen_somewhere(port_);
  ::close(probe);
  std::string config = fmt::format(
      "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    "
      "rootdirectory: {}\n"
      "  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{}\n",
      (directory_.path() / "data").string(), port_);
  if (!htpasswd.empty()) {
    sys::write_atomically(directory_.path() / "htpasswd", htpasswd);
    config +=
        fmt::format("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", (directory_.path() / "htpasswd").string());
  }
  sys::write_atomically(directory_.path() / "config.yml", config);
  const sys::Fd log = sys::open_file(directory_.path() / "log", O_WRONLY | O_CREAT);
  pid_ = spawn({"docker-registry", "serve", (directory_.path() / "config.yml").string()}, log.get());
  for (int i = 0; i < 1000 && !can_connect(port_); ++i) ::usleep(10'000);
  if (!can_connect(port_))
    throw Error(Errc::internal, "docker-registry does not start: " + sys::read_file(directory_.path() / "log"));
}

DebianRegistry::~DebianRegistry() {
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

// ---- FakeRegistry

FakeRegistry::FakeRegistry() {
  listener_ = listen_somewhere(port_);
  thread_ = std::thread([this] { accept_all(); });
}

FakeRegistry::~FakeRegistry() {
  stop_ = true;
  ::shutdown(listener_, SHUT_RDWR);
  thread_.join();
  ::close(listener_);
  {
    std::lock_guard lock(mutex_);
    for (const int fd : open_) ::shutdown(fd, SHUT_RDWR);
  }
  for (std::thread& connection : connections_) connection.join();
}

void FakeRegistry::serve(const ImageBytes& image) {
  std::lock_guard lock(mutex_);
  image_ = image;
}

void FakeRegistry::intercept(Handler handler) {
  std::lock_guard lock(mutex_);
  handler_ = std::move(handler);
}

std::vector<FakeRegistry::Request> FakeRegistry::requests() const {
  std::lock_guard lock(mutex_);
  return requests_;
}

void FakeRegistry::accept_all() {
  while (!stop_) {
    const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) continue;
    std::lock_guard lock(mutex_);
    open_.push_back(fd);
    connections_.emplace_back([this, fd] {
      answer(fd);
      std::lock_guard guard(mutex_);
      std::erase(open_, fd);
      ::close(fd);
    });
  }
}

void FakeRegistry::answer(int fd) {
  std::string input;
  for (;;) {
    while (input.find("\r\n\r\n") == std::string::npos) {
      char buffer[4096];
      const ssize_t got = ::read(fd, buffer, sizeof buffer);
      if (got <= 0) return;
      input.append(buffer, std::size_t(got));
      if (input[0] == 0x16) return;  // a TLS greeting
    }
    const auto end = input.find("\r\n\r\n");
    const auto head = split(input.substr(0, end), '\n');
    input.erase(0, end + 4);
    Request request;
    const auto words = split(std::string(trim(head[0])), ' ');
    if (words.size() < 2) return;
    request.method = words[0];
    request.path = words[1];
    for (std::size_t i = 1; i < head.size(); ++i) {
      const auto [name, value] = split_once(head[i], ':');
      request.headers[to_lower(trim(name))] = trim(value);
    }
    Reply reply = reply_to(request);
    std::string text = fmt::format("HTTP/1.1 {} X\r\n", reply.status);
    for (const std::string& header : reply.headers) text += header + "\r\n";
    text += fmt::format("Content-Length: {}\r\n\r\n", reply.body.size());
    if (request.method != "HEAD") text += reply.body.substr(0, reply.cut_after);
    for (std::string_view rest = text; !rest.empty();) {
      const ssize_t put = ::send(fd, rest.data(), rest.size(), MSG_NOSIGNAL);
      if (put <= 0) return;
      rest.remove_prefix(std::size_t(put));
    }
    if (reply.cut_after != std::string::npos) return;
  }
}

FakeRegistry::Reply FakeRegistry::reply_to(const Request& request) {
  Handler handler;
  ImageBytes image;
  {
    std::lock_guard lock(mutex_);
    requests_.push_back(request);
    handler = handler_;
    image = image_;
  }
  if (handler)
    if (auto reply = handler(request)) return std::move(*reply);
  Reply reply;
  if (request.path == "/v2/") return reply;
  const std::string last = request.path.substr(request.path.rfind('/') + 1);
  const bool manifest = request.path.find("/manifests/") != std::string::npos;
  auto blob = image.blobs.find(last);
  if (manifest && blob == image.blobs.end()) blob = image.blobs.find(image.manifest.digest);
  if (blob == image.blobs.end()) {
    reply.status = 404;
    reply.body = R"({"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]})";
    return reply;
  }
  reply.body = blob->second;
  if (manifest) {
    reply.headers.push_back("Content-Type: " + std::string(blob->second.find("\"manifests\"") != std::string::npos
                                                               ? kOciIndex
                                                               : kOciManifest));
    reply.headers.push_back("Docker-Content-Digest: " + blob->first);
  }
  if (const auto range = request.headers.find("range"); range != request.headers.end()) {
    const auto offset = parse_int(std::string_view(range->second).substr(6, range->second.size() - 7)).value_or(0);
    reply.status = 206;
    reply.headers.push_back(
        fmt::format("Content-Range: bytes {}-{}/{}", offset, reply.body.size() - 1, reply.body.size()));
    reply.body.erase(0, std::size_t(offset));
  }
  return reply;
}

}  // namespace gantry::image::test
