#include "buildops/http_fetch.hpp"

#include <cstring>
#include <exception>
#include <memory>
#include <mutex>

#include <curl/curl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::buildops {
namespace {

constexpr std::size_t kMostHeaderBytes = 64 << 10;
constexpr long kMostRedirects = 10;
constexpr long kConnectSeconds = 30;
constexpr long kStallSeconds = 60;  // without a byte
constexpr const char* kUserAgent = "buildkit/v0.13.0";

struct Transfer {
  const HttpSink& sink;
  const std::stop_token stop;
  CURL* easy = nullptr;
  HttpReply reply;
  std::size_t header_bytes = 0;
  std::exception_ptr failure;
};

std::size_t on_header(char* data, std::size_t, std::size_t size, void* user) {
  Transfer& t = *static_cast<Transfer*>(user);
  t.header_bytes += size;
  if (t.header_bytes > kMostHeaderBytes) return 0;
  const std::string_view line(data, size);
  if (line.starts_with("HTTP/")) {  // of a redirect's target, or after "100 Continue"
    t.reply.headers.clear();
    return size;
  }
  if (const auto colon = line.find(':'); colon != std::string_view::npos)
    t.reply.headers[to_lower(trim(line.substr(0, colon)))] = trim(line.substr(colon + 1));
  return size;
}

std::size_t on_body(char* data, std::size_t, std::size_t size, void* user) {
  Transfer& t = *static_cast<Transfer*>(user);
  long status = 0;
  curl_easy_getinfo(t.easy, CURLINFO_RESPONSE_CODE, &status);
  if (status < 200 || status > 299 || !t.sink.write) return size;
  try {
    t.sink.write({data, size});
  } catch (const Error&) {
    t.failure = std::current_exception();
    return 0;
  }
  return size;
}

int on_progress(void* user, curl_off_t total, curl_off_t now, curl_off_t, curl_off_t) {
  const Transfer& t = *static_cast<Transfer*>(user);
  if (t.sink.progress) t.sink.progress(now, total);
  return t.stop.stop_requested() ? 1 : 0;
}

/// Cloud metadata services live there; a redirect must not lead us to them.
bool is_forbidden(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    const std::uint32_t ip = ntohl(reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr);
    return ip == 0 || (ip >> 16) == 0xa9fe || (ip >> 28) == 0xe;
  }
  if (address.sa_family != AF_INET6) return true;
  const in6_addr& ip = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
  if (!IN6_IS_ADDR_V4MAPPED(&ip))
    return IN6_IS_ADDR_UNSPECIFIED(&ip) || IN6_IS_ADDR_LINKLOCAL(&ip) || IN6_IS_ADDR_MULTICAST(&ip);
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  std::memcpy(&v4.sin_addr, ip.s6_addr + 12, 4);
  return is_forbidden(reinterpret_cast<const sockaddr&>(v4));
}

curl_socket_t open_socket(void*, curlsocktype, curl_sockaddr* address) {
  if (is_forbidden(address->addr)) return CURL_SOCKET_BAD;
  return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

void set_up(CURL* easy, const HttpRequest& request, Transfer& transfer, char* error_text) {
  curl_easy_setopt(easy, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L);
  curl_easy_setopt(easy, CURLOPT_MAXREDIRS, kMostRedirects);
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  curl_easy_setopt(easy, CURLOPT_USERAGENT, kUserAgent);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
  curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, kStallSeconds);
  curl_easy_setopt(easy, CURLOPT_NOBODY, request.head_only ? 1L : 0L);
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, error_text);
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
  curl_easy_setopt(easy, CURLOPT_XFERINFODATA, &transfer);
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
  const std::string& proxy = request.url.starts_with("https:") ? request.https_proxy : request.http_proxy;
  // An empty one keeps curl from looking into the environment.
  curl_easy_setopt(easy, CURLOPT_PROXY, proxy.c_str());
  if (!request.no_proxy.empty()) curl_easy_setopt(easy, CURLOPT_NOPROXY, request.no_proxy.c_str());
}

}  // namespace

HttpReply fetch_http(const HttpRequest& request, const HttpSink& sink, std::stop_token stop) {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
  const std::unique_ptr<CURL, void (*)(CURL*)> easy(curl_easy_init(), curl_easy_cleanup);
  if (!easy) throw Error(Errc::internal, "libcurl: out of memory");
  Transfer transfer{.sink = sink, .stop = stop, .easy = easy.get(), .reply = {}, .failure = {}};
  char error_text[CURL_ERROR_SIZE] = {};
  set_up(easy.get(), request, transfer, error_text);
  curl_slist* list = nullptr;
  for (const std::string& header : request.headers) list = curl_slist_append(list, header.c_str());
  const std::unique_ptr<curl_slist, void (*)(curl_slist*)> headers(list, curl_slist_free_all);
  if (list != nullptr) curl_easy_setopt(easy.get(), CURLOPT_HTTPHEADER, list);
  const CURLcode result = curl_easy_perform(easy.get());
  if (transfer.failure) std::rethrow_exception(transfer.failure);
  if (stop.stop_requested()) throw Error(Errc::cancelled, "context canceled");
  if (result != CURLE_OK)
    throw Error(Errc::unavailable,
                fmt::format("{}: {}", request.url, error_text[0] != '\0' ? error_text : curl_easy_strerror(result)));
  long status = 0;
  curl_easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &status);
  transfer.reply.status = static_cast<int>(status);
  return std::move(transfer.reply);
}

}  // namespace gantry::buildops
