#include "repair_command.hpp"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>

#include <curl/curl.h>

#include <fmt/format.h>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/json.hpp>

#include "async/lanes.hpp"
#include "base/error.hpp"
#include "base/text.hpp"
#include "database.hpp"
#include "events/bus.hpp"
#include "image/content_store.hpp"
#include "image/images.hpp"
#include "image/repair.hpp"
#include "image/transfers.hpp"
#include "json/json.hpp"
#include "storage/layer_store.hpp"
#include "sys/file.hpp"

namespace gantry {
namespace {

void print(const std::string& line) {
  std::fputs(line.c_str(), stdout);
  std::fflush(stdout);
}

/// What `docker login` has left in the caller's config file, as the header X-Registry-Config; empty if there is
/// nothing.
std::string read_credentials() {
  const char* directory = std::getenv("DOCKER_CONFIG");
  const char* home = std::getenv("HOME");
  if (directory == nullptr && home == nullptr) return {};
  const sys::Path file =
      directory != nullptr ? sys::Path(directory) / "config.json" : sys::Path(home) / ".docker/config.json";
  constexpr std::size_t kMaxFile = 1 << 20;
  try {
    const json::Value value = json::parse(sys::read_file(file, kMaxFile));
    const json::Value* auths = value.is_object() ? value.get_object().if_contains("auths") : nullptr;
    return auths != nullptr && auths->is_object() ? base64_encode(json::render(*auths)) : std::string();
  } catch (const Error& e) {
    if (e.sys_errno() != ENOENT) print(fmt::format("{} is not used: {}\n", file.string(), e.message()));
    return {};
  }
}

/// The store of a data root that no daemon uses.
class Store {
 public:
  Store(const config::Config& config, const sys::Paths& paths)
      : database_(open_database(paths, &restored_)),
        layers_(loop_.get_executor(), lanes_, *database_, paths),
        content_(lanes_, *database_, paths),
        images_(lanes_, *database_, layers_, content_, bus_),
        transfers_(loop_.get_executor(), lanes_, images_, bus_, paths, config) {}

  int repair(bool contents) {
    image::RepairReport report;
    std::exception_ptr failure;
    boost::asio::co_spawn(loop_, run(contents, &report), [this, failed = &failure](std::exception_ptr error) {
      *failed = error;
      loop_.stop();
    });
    loop_.run();
    if (failure) std::rethrow_exception(failure);
    print(image::render_report(report));
    return report.unrepaired == 0 ? 0 : 1;
  }

 private:
  Task<void> run(bool contents, image::RepairReport* report) {
    for (const storage::Problem& p : co_await layers_.recover()) print(render(p));
    for (const storage::Problem& p : co_await content_.recover()) print(render(p));
    for (const storage::Problem& p : co_await images_.recover()) print(render(p));
    image::RepairRequest request;
    request.contents = contents;
    request.credentials = image::decode_auth_config_header(read_credentials());
    *report = co_await transfers_.repair(request, [](const image::Damage& d) { print(image::render_damage(d)); });
    co_await layers_.stop();
  }
  static std::string render(const storage::Problem& p) {
    return fmt::format("found at start: {}: {}; {}\n", p.subject, p.text, p.repair);
  }

  bool restored_ = false;
  boost::asio::io_context loop_;
  std::unique_ptr<db::Db> database_;
  async::Lanes lanes_;
  events::Bus bus_;
  storage::LayerStore layers_;
  image::ContentStore content_;
  image::Images images_;
  image::Transfers transfers_;
};

/// The messages of the daemon's reply, as they come.
struct Reply {
  std::string rest;
  bool failed = false;

  void take(std::string_view bytes) {
    rest += bytes;
    for (std::size_t end; (end = rest.find('\n')) != std::string::npos; rest.erase(0, end + 1))
      show(rest.substr(0, end));
  }
  void show(const std::string& line) {
    if (trim(line).empty()) return;
    const json::Value value = json::parse(line);
    if (!value.is_object()) return;
    const json::Object& object = value.get_object();
    const auto text = [&](const char* key) {
      const json::Value* v = object.if_contains(key);
      return v != nullptr && v->is_string() ? std::string(v->get_string()) : std::string();
    };
    print(text("stream"));
    const std::string error = text("error") + text("message");
    if (!error.empty()) print("repair failed: " + error + "\n");
    const json::Value* aux = object.if_contains("aux");
    const json::Value* left =
        aux != nullptr && aux->is_object() ? aux->get_object().if_contains("Unrepaired") : nullptr;
    failed = failed || !error.empty() || (left != nullptr && left->is_int64() && left->get_int64() > 0);
  }
};

std::size_t on_body(char* data, std::size_t size, std::size_t count, void* reply) {
  try {
    static_cast<Reply*>(reply)->take({data, size * count});
  } catch (const Error& e) {
    std::fprintf(stderr, "gantryd: %s\n", e.what());
    return 0;
  }
  return size * count;
}

int ask_daemon(const config::Config& config, bool contents) {
  std::string socket;
  for (const std::string& host : config.hosts)
    if (socket.empty() && host.starts_with("unix://")) socket = host.substr(7);
  if (socket.empty())
    throw Error(Errc::unavailable, "a gantryd runs, but listens on no unix socket: stop it to repair its store");
  Reply reply;
  const std::string credentials = "X-Registry-Config: " + read_credentials();
  curl_slist* headers = ::curl_slist_append(nullptr, credentials.c_str());
  CURL* easy = ::curl_easy_init();
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, socket.c_str());
  curl_easy_setopt(easy, CURLOPT_URL,
                   contents ? "http://gantry/gantry/repair?contents=1" : "http://gantry/gantry/repair");
  curl_easy_setopt(easy, CURLOPT_POST, 1L);
  curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, 0L);
  curl_easy_setopt(easy, CURLOPT_POSTFIELDS, "");
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &on_body);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, &reply);
  const CURLcode code = ::curl_easy_perform(easy);
  ::curl_easy_cleanup(easy);
  ::curl_slist_free_all(headers);
  if (code != CURLE_OK)
    throw Error(Errc::unavailable,
                fmt::format("the gantryd at {} does not answer: {}", socket, ::curl_easy_strerror(code)));
  return reply.failed ? 1 : 0;
}

}  // namespace

int run_repair(const config::Config& config, bool contents) {
  sys::Paths paths;
  paths.data_root = config.data_root;
  paths.exec_root = config.exec_root;
  const sys::Fd lock = try_lock_data_root(paths);
  if (!lock) return ask_daemon(config, contents);
  return Store(config, paths).repair(contents);
}

}  // namespace gantry
