#include "image/http_client.hpp"

#include <algorithm>
#include <cstring>
#include <deque>
#include <mutex>
#include <set>
#include <thread>

#include <arpa/inet.h>
#include <curl/curl.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>
#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/error.hpp"
#include "base/text.hpp"

namespace asio = boost::asio;

namespace gantry::image {
namespace {

constexpr std::size_t kMaxHeaderBytes = 64 << 10;

const std::string& system_ca_bundle() {
  static const std::string bundle = [] {
    for (const char* path :
         {"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"})
      if (auto text = sys::Fd(::open(path, O_RDONLY | O_CLOEXEC))) {
        std::string out;
        char buffer[65536];
        for (ssize_t got; (got = ::read(text.get(), buffer, sizeof buffer)) > 0;) out.append(buffer, std::size_t(got));
        return out;
      }
    return std::string();
  }();
  return bundle;
}

/// No registry lives there, but cloud metadata services do: a redirect must not lead us to them.
bool is_forbidden_address(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    const std::uint32_t ip = ntohl(reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr);
    return ip == 0 || (ip >> 16) == 0xa9fe || (ip >> 28) == 0xe;
  }
  if (address.sa_family == AF_INET6) {
    const in6_addr& ip = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(&ip)) {
      std::uint32_t v4;
      std::memcpy(&v4, ip.s6_addr + 12, 4);
      v4 = ntohl(v4);
      return v4 == 0 || (v4 >> 16) == 0xa9fe || (v4 >> 28) == 0xe;
    }
    return IN6_IS_ADDR_UNSPECIFIED(&ip) || IN6_IS_ADDR_LINKLOCAL(&ip) || IN6_IS_ADDR_MULTICAST(&ip);
  }
  return false;
}

std::string render_address(const sockaddr& address) {
  char text[INET6_ADDRSTRLEN] = "?";
  if (address.sa_family == AF_INET) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(address);
    ::inet_ntop(AF_INET, &in.sin_addr, text, sizeof text);
    return fmt::format("{}:{}", text, ntohs(in.sin_port));
  }
  const auto& in6 = reinterpret_cast<const sockaddr_in6&>(address);
  ::inet_ntop(AF_INET6, &in6.sin6_addr, text, sizeof text);
  return fmt::format("[{}]:{}", text, ntohs(in6.sin6_port));
}

struct Transfer {
  HttpRequest request;
  HttpResponse response;
  CURL* easy = nullptr;
  curl_slist* headers = nullptr;
  std::string ca_pem;
  char error_text[CURL_ERROR_SIZE] = {};
  std::string address;  // the last one that was tried
  bool forbidden = false;
  std::size_t header_bytes = 0;
  std::int64_t upload_offset = 0;
  std::function<void()> done;  // called once, on the client's thread

  ~Transfer() {
    if (easy != nullptr) curl_easy_cleanup(easy);
    curl_slist_free_all(headers);
  }
};
using TransferPtr = std::shared_ptr<Transfer>;

int current_status(Transfer& t) {
  long status = 0;
  curl_easy_getinfo(t.easy, CURLINFO_RESPONSE_CODE, &status);
  return static_cast<int>(status);
}

std::size_t on_header(char* data, std::size_t, std::size_t size, void* user) {
  Transfer& t = *static_cast<Transfer*>(user);
  t.header_bytes += size;
  if (t.header_bytes > kMaxHeaderBytes) {
    t.response.failure = Failure::too_large;
    return 0;
  }
  const std::string_view line(data, size);
  if (line.starts_with("HTTP/")) {  // a new answer: after "100 Continue", or a proxy's
    t.response.headers.clear();
    return size;
  }
  const auto colon = line.find(':');
  if (colon == std::string_view::npos) return size;
  std::string& value = t.response.headers[to_lower(trim(line.substr(0, colon)))];
  if (!value.empty()) value += ", ";
  value += trim(line.substr(colon + 1));
  return size;
}

std::size_t on_body(char* data, std::size_t, std::size_t size, void* user) {
  Transfer& t = *static_cast<Transfer*>(user);
  const int status = current_status(t);
  if (t.request.sink && status >= 200 && status < 300) {
    try {
      t.request.sink(status, {data, size});
    } catch (const Error&) {
      t.response.failure = Failure::sink;
      t.response.sink_error = std::current_exception();
      return 0;
    } catch (const std::exception&) {
      t.response.failure = Failure::sink;
      t.response.sink_error = std::current_exception();
      return 0;
    }
    return size;
  }
  if (std::int64_t(t.response.body.size() + size) > t.request.max_body) {
    // Of an error page the beginning is enough; of a document it is not.
    if (status >= 400) return size;
    t.response.failure = Failure::too_large;
    return 0;
  }
  t.response.body.append(data, size);
  return size;
}

std::size_t on_upload(char* to, std::size_t, std::size_t size, void* user) {
  Transfer& t = *static_cast<Transfer*>(user);
  const ssize_t got = ::pread(t.request.upload->fd.get(), to, size, t.upload_offset);
  if (got < 0) return CURL_READFUNC_ABORT;
  t.upload_offset += got;
  if (t.request.upload->sent) t.request.upload->sent(t.upload_offset);
  return static_cast<std::size_t>(got);
}

int on_seek(void* user, curl_off_t offset, int origin) {
  if (origin != SEEK_SET) return CURL_SEEKFUNC_CANTSEEK;
  static_cast<Transfer*>(user)->upload_offset = offset;
  return CURL_SEEKFUNC_OK;
}

curl_socket_t on_open_socket(void* user, curlsocktype, curl_sockaddr* address) {
  Transfer& t = *static_cast<Transfer*>(user);
  t.address = render_address(address->addr);
  if (is_forbidden_address(address->addr)) {
    t.forbidden = true;
    return CURL_SOCKET_BAD;
  }
  return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

bool is_loopback(const std::string& host) {
  return host == "localhost" || host.starts_with("127.") || host == "::1" || host == "[::1]";
}

/// Sets it in every case: libcurl's own look at the environment passes over HTTP_PROXY.
void set_proxy(Transfer& t) {
  const ProxySettings& p = t.request.proxy;
  const auto url = parse_url(t.request.url);
  if (url && is_loopback(url->host)) {
    curl_easy_setopt(t.easy, CURLOPT_PROXY, "");
    return;
  }
  const bool https = url && url->scheme == "https";
  curl_easy_setopt(t.easy, CURLOPT_PROXY, (https ? p.https_proxy : p.http_proxy).c_str());
  curl_easy_setopt(t.easy, CURLOPT_NOPROXY, p.no_proxy.c_str());
}

void set_tls(Transfer& t) {
  const TlsSettings& tls = t.request.tls;
  curl_easy_setopt(t.easy, CURLOPT_SSLVERSION, long(CURL_SSLVERSION_TLSv1_2));
  if (!tls.verify) {
    curl_easy_setopt(t.easy, CURLOPT_SSL_VERIFYPEER, 0L);
    curl_easy_setopt(t.easy, CURLOPT_SSL_VERIFYHOST, 0L);
  }
  if (!tls.ca_pem.empty()) {
    t.ca_pem = system_ca_bundle() + "\n" + tls.ca_pem;
    curl_blob blob{t.ca_pem.data(), t.ca_pem.size(), CURL_BLOB_NOCOPY};
    curl_easy_setopt(t.easy, CURLOPT_CAINFO_BLOB, &blob);
  }
  if (!tls.client_cert.empty()) {
    curl_easy_setopt(t.easy, CURLOPT_SSLCERT, tls.client_cert.c_str());
    curl_easy_setopt(t.easy, CURLOPT_SSLKEY, tls.client_key.c_str());
  }
}

void set_body(Transfer& t) {
  const HttpRequest& r = t.request;
  if (r.method == "HEAD") curl_easy_setopt(t.easy, CURLOPT_NOBODY, 1L);
  if (r.upload) {
    curl_easy_setopt(t.easy, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(t.easy, CURLOPT_INFILESIZE_LARGE, curl_off_t(r.upload->size));
    curl_easy_setopt(t.easy, CURLOPT_READFUNCTION, &on_upload);
    curl_easy_setopt(t.easy, CURLOPT_READDATA, &t);
    curl_easy_setopt(t.easy, CURLOPT_SEEKFUNCTION, &on_seek);
    curl_easy_setopt(t.easy, CURLOPT_SEEKDATA, &t);
    curl_easy_setopt(t.easy, CURLOPT_UPLOAD_BUFFERSIZE, 512L << 10);
  } else if (r.body || r.method == "POST" || r.method == "PUT" || r.method == "PATCH") {
    static const std::string kNothing;
    const std::string& body = r.body ? *r.body : kNothing;
    curl_easy_setopt(t.easy, CURLOPT_POST, 1L);
    curl_easy_setopt(t.easy, CURLOPT_POSTFIELDSIZE_LARGE, curl_off_t(body.size()));
    curl_easy_setopt(t.easy, CURLOPT_POSTFIELDS, body.c_str());
  }
  if (r.method != "GET" && r.method != "HEAD") curl_easy_setopt(t.easy, CURLOPT_CUSTOMREQUEST, r.method.c_str());
}

void prepare(Transfer& t) {
  const HttpRequest& r = t.request;
  t.easy = curl_easy_init();
  if (t.easy == nullptr) throw Error(Errc::internal, "curl_easy_init failed");
  CURL* e = t.easy;
  curl_easy_setopt(e, CURLOPT_PRIVATE, &t);
  curl_easy_setopt(e, CURLOPT_URL, r.url.c_str());
  curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(e, CURLOPT_ERRORBUFFER, t.error_text);
  curl_easy_setopt(e, CURLOPT_USERAGENT, r.user_agent.c_str());
  curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, long(r.connect_timeout.count()));
  curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, long(r.stall_timeout.count()));
  curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, long(r.total_timeout.count()));
  curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
  curl_easy_setopt(e, CURLOPT_BUFFERSIZE, 512L << 10);
  curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, &on_header);
  curl_easy_setopt(e, CURLOPT_HEADERDATA, &t);
  curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, &on_body);
  curl_easy_setopt(e, CURLOPT_WRITEDATA, &t);
  curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, &on_open_socket);
  curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, &t);
  for (const std::string& header : r.headers) t.headers = curl_slist_append(t.headers, header.c_str());
  t.headers = curl_slist_append(t.headers, "Expect:");  // "100-continue" would cost a round trip per upload
  curl_easy_setopt(e, CURLOPT_HTTPHEADER, t.headers);
  set_proxy(t);
  set_tls(t);
  set_body(t);
}

std::string host_of(const Transfer& t) {
  const auto url = parse_url(t.request.url);
  return url ? url->host : t.request.url;
}

void set_failure(Transfer& t, Failure failure, std::string text) {
  t.response.failure = failure;
  t.response.failure_text = std::move(text);
}

void describe_connect_failure(Transfer& t) {
  if (t.forbidden)
    return set_failure(t, Failure::connect,
                       fmt::format("dial tcp {}: address is not allowed for a registry", t.address));
  long code = 0;
  curl_easy_getinfo(t.easy, CURLINFO_OS_ERRNO, &code);
  std::string reason = code != 0 ? std::string(strerrordesc_np(int(code))) : std::string(t.error_text);
  if (code != 0) reason = to_lower(reason);
  set_failure(t, Failure::connect, fmt::format("dial tcp {}: connect: {}", t.address, reason));
}

void describe_timeout(Transfer& t) {
  curl_off_t connected = 0;
  curl_easy_getinfo(t.easy, CURLINFO_CONNECT_TIME_T, &connected);
  if (connected == 0) return set_failure(t, Failure::timed_out, fmt::format("dial tcp {}: i/o timeout", t.address));
  set_failure(t, Failure::timed_out,
              current_status(t) == 0 ? "net/http: timeout awaiting response headers" : "read: i/o timeout");
}

void describe(Transfer& t, CURLcode code) {
  t.response.status = current_status(t);
  char* redirect = nullptr;
  curl_easy_getinfo(t.easy, CURLINFO_REDIRECT_URL, &redirect);
  if (redirect != nullptr) t.response.redirect = redirect;
  if (code == CURLE_OK) return;
  if (t.response.failure == Failure::sink) return;
  if (t.response.failure == Failure::too_large) return set_failure(t, Failure::too_large, "the answer is too large");
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
      return set_failure(t, Failure::lookup, fmt::format("dial tcp: lookup {}: no such host", host_of(t)));
    case CURLE_COULDNT_RESOLVE_PROXY:
      return set_failure(t, Failure::lookup, "proxyconnect tcp: dial tcp: no such host");
    case CURLE_COULDNT_CONNECT: return describe_connect_failure(t);
    case CURLE_OPERATION_TIMEDOUT: return describe_timeout(t);
    case CURLE_PEER_FAILED_VERIFICATION:
      return set_failure(t, Failure::tls, fmt::format("tls: failed to verify certificate: x509: {}", t.error_text));
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
      // OpenSSL's word for an answer in plain text; the text is the one that people look up.
      if (std::string_view(t.error_text).find("wrong version number") != std::string_view::npos)
        return set_failure(t, Failure::tls, "http: server gave HTTP response to HTTPS client");
      return set_failure(t, Failure::tls, fmt::format("tls: {}", t.error_text));
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
      return set_failure(t, Failure::interrupted, code == CURLE_GOT_NOTHING ? "EOF" : "unexpected EOF");
    default: {
      const char* text = t.error_text[0] != 0 ? t.error_text : curl_easy_strerror(code);
      return set_failure(t, Failure::other, text);
    }
  }
}

}  // namespace

std::string HttpResponse::header(const std::string& name) const {
  const auto it = headers.find(name);
  return it == headers.end() ? std::string() : it->second;
}

struct HttpClient::State {
  CURLM* multi = nullptr;
  std::mutex mutex;
  std::deque<TransferPtr> added;      // guarded
  std::deque<TransferPtr> cancelled;  // guarded
  bool quit = false;                  // guarded
  std::set<TransferPtr> running;      // client's thread only
  std::thread thread;

  void run();
  bool take_commands();
  void start(const TransferPtr& t);
  void finish(TransferPtr t);
  void reap();
};

void HttpClient::State::start(const TransferPtr& t) {
  try {
    prepare(*t);
  } catch (const Error& e) {
    set_failure(*t, Failure::other, e.message());
    return finish(t);
  }
  running.insert(t);
  if (const CURLMcode code = curl_multi_add_handle(multi, t->easy); code != CURLM_OK) {
    set_failure(*t, Failure::other, curl_multi_strerror(code));
    finish(t);
  }
}

void HttpClient::State::finish(TransferPtr t) {
  if (t->easy != nullptr) curl_multi_remove_handle(multi, t->easy);
  running.erase(t);
  if (auto done = std::exchange(t->done, {})) done();
}

bool HttpClient::State::take_commands() {
  std::deque<TransferPtr> add, cancel;
  {
    std::lock_guard lock(mutex);
    if (quit) return false;
    add.swap(added);
    cancel.swap(cancelled);
  }
  for (const TransferPtr& t : add) start(t);
  for (const TransferPtr& t : cancel) {
    if (!running.contains(t)) continue;
    set_failure(*t, Failure::interrupted, "cancelled");
    finish(t);
  }
  return true;
}

void HttpClient::State::reap() {
  int left = 0;
  while (CURLMsg* message = curl_multi_info_read(multi, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    Transfer* raw = nullptr;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &raw);
    const CURLcode code = message->data.result;
    const auto it = std::find_if(running.begin(), running.end(), [&](const TransferPtr& t) { return t.get() == raw; });
    if (it == running.end()) continue;
    TransferPtr t = *it;
    describe(*t, code);
    finish(std::move(t));
  }
}

void HttpClient::State::run() {
  while (take_commands()) {
    int active = 0;
    curl_multi_perform(multi, &active);
    reap();
    curl_multi_poll(multi, nullptr, 0, 1000, nullptr);
  }
  for (const TransferPtr& t : running) curl_multi_remove_handle(multi, t->easy);
}

HttpClient::HttpClient() : state_(std::make_unique<State>()) {
  static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
  state_->multi = ready == CURLE_OK ? curl_multi_init() : nullptr;
  if (state_->multi == nullptr) throw Error(Errc::internal, "cannot start libcurl");
  State* state = state_.get();
  state_->thread = std::thread([state] {
    pthread_setname_np(pthread_self(), "registry");
    state->run();
  });
}

HttpClient::~HttpClient() {
  {
    std::lock_guard lock(state_->mutex);
    state_->quit = true;
  }
  curl_multi_wakeup(state_->multi);
  state_->thread.join();
  state_->running.clear();
  state_->added.clear();
  curl_multi_cleanup(state_->multi);
}

Task<HttpResponse> HttpClient::send(HttpRequest request) {
  auto transfer = std::make_shared<Transfer>();
  transfer->request = std::move(request);
  asio::any_io_executor loop = co_await asio::this_coro::executor;
  State* state = state_.get();
  auto initiate = [&](auto handler) {
    auto slot = asio::get_associated_cancellation_slot(handler);
    auto cancelled = std::make_shared<bool>(false);
    if (slot.is_connected()) {
      std::weak_ptr<Transfer> weak = transfer;
      slot.assign([state, weak, cancelled](asio::cancellation_type) {
        *cancelled = true;
        std::lock_guard lock(state->mutex);
        if (auto t = weak.lock()) state->cancelled.push_back(std::move(t));
        curl_multi_wakeup(state->multi);
      });
    }
    auto shared = std::make_shared<decltype(handler)>(std::move(handler));
    transfer->done = [shared, loop, cancelled] {
      asio::post(loop, [shared, cancelled] {
        boost::system::error_code ec;
        if (*cancelled) ec = asio::error::operation_aborted;
        std::move (*shared)(ec);
      });
    };
    {
      std::lock_guard lock(state->mutex);
      state->added.push_back(transfer);
    }
    curl_multi_wakeup(state->multi);
  };
  co_await asio::async_initiate<const asio::use_awaitable_t<>&, void(boost::system::error_code)>(initiate,
                                                                                                 asio::use_awaitable);
  co_return std::move(transfer->response);
}

std::optional<Url> parse_url(std::string_view text) {
  Url url;
  const auto colon = text.find("://");
  if (colon == std::string_view::npos) return std::nullopt;
  url.scheme = to_lower(text.substr(0, colon));
  if (url.scheme != "http" && url.scheme != "https") return std::nullopt;
  std::string_view rest = text.substr(colon + 3);
  const auto end = rest.find_first_of("/?#");
  std::string_view authority = rest.substr(0, end);
  if (const auto at = authority.rfind('@'); at != std::string_view::npos) authority.remove_prefix(at + 1);
  // What curl might cut into host and port in another way than we do is not an address.
  const auto is_plain = [](char c) {
    return std::string_view("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]%").find(c) !=
           std::string_view::npos;
  };
  if (authority.empty() || !std::all_of(authority.begin(), authority.end(), is_plain)) return std::nullopt;
  url.authority = to_lower(authority);
  url.rest = end == std::string_view::npos ? "/" : std::string(rest.substr(end));
  if (!url.rest.starts_with('/')) url.rest.insert(0, 1, '/');
  const auto port = url.authority.rfind(':');
  if (port != std::string::npos && url.authority.find(']', port) == std::string::npos) {
    url.host = url.authority.substr(0, port);
    url.port = url.authority.substr(port + 1);
  } else {
    url.host = url.authority;
  }
  if (url.host.empty() || url.port.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
  return url;
}

std::string percent_encode(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("-_.~").find(c) != std::string_view::npos;
    if (plain) out += c;
    else out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

}  // namespace gantry::image
