#include "image/registry_wire.hpp"

#include <algorithm>
#include <map>

#include <arpa/inet.h>

#include <fmt/format.h>
#include <boost/json.hpp>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::image {

std::string method_word(const std::string& method) {
  std::string word = to_lower(method);
  if (!word.empty()) word[0] = static_cast<char>(word[0] - 'a' + 'A');
  return word;
}

std::string status_line(int status) {
  static const std::map<int, const char*> kWords = {
      {400, "Bad Request"},         {401, "Unauthorized"},          {403, "Forbidden"},
      {404, "Not Found"},           {405, "Method Not Allowed"},    {408, "Request Timeout"},
      {429, "Too Many Requests"},   {500, "Internal Server Error"}, {502, "Bad Gateway"},
      {503, "Service Unavailable"}, {504, "Gateway Timeout"}};
  const auto it = kWords.find(status);
  return it == kWords.end() ? std::to_string(status) : fmt::format("{} {}", status, it->second);
}

void throw_transport(const HttpRequest& request, const HttpResponse& response) {
  if (response.failure == Failure::sink && response.sink_error) std::rethrow_exception(response.sink_error);
  throw Error(Errc::internal,
              fmt::format("{} {}: {}", method_word(request.method), quote(request.url), response.failure_text));
}

bool may_try_elsewhere(Failure failure) {
  return failure == Failure::lookup || failure == Failure::connect || failure == Failure::tls ||
         failure == Failure::timed_out || failure == Failure::interrupted || failure == Failure::other;
}

std::string basic_header(const RegistryAuth& auth) {
  return "Authorization: Basic " + base64_encode(auth.username + ":" + auth.password);
}

json::Object parse_object(const std::string& text, std::string_view what) {
  json::Value value = with_context(what, [&] { return json::parse(text); });
  if (!value.is_object()) throw Error(Errc::internal, fmt::format("{}: not a JSON object", what));
  return std::move(value.get_object());
}

std::string get_string(const json::Object& object, std::string_view key) {
  const json::Value* v = object.if_contains(key);
  return v != nullptr && v->is_string() ? std::string(v->get_string()) : std::string();
}

std::string host_without_port(std::string_view host) {
  if (host.starts_with('[')) return std::string(host.substr(1, host.find(']') - 1));
  return std::string(host.substr(0, host.find(':')));
}

bool is_literal_address(const std::string& host) {
  unsigned char buffer[16];
  return ::inet_pton(AF_INET, host.c_str(), buffer) == 1 || ::inet_pton(AF_INET6, host.c_str(), buffer) == 1;
}

std::string next_page(std::string_view link) {
  const auto from = link.find("/tags/list?");
  if (from == std::string_view::npos || link.find("rel=\"next\"") == std::string_view::npos) return {};
  const auto to = link.find('>', from);
  if (to == std::string_view::npos) return {};
  const std::string_view page = link.substr(from + 1, to - from - 1);
  const bool odd = std::any_of(page.begin(), page.end(),
                               [](unsigned char c) { return c <= ' ' || c >= 0x7f || c == '"' || c == '<'; });
  return odd ? std::string() : std::string(page);
}

namespace {

bool contains_address(std::string_view cidr, const std::string& address) {
  const auto [network, bits_text] = split_once(cidr, '/');
  const auto bits = parse_int(bits_text);
  unsigned char net[16], ip[16];
  for (const int family : {AF_INET, AF_INET6}) {
    if (::inet_pton(family, std::string(network).c_str(), net) != 1) continue;
    if (::inet_pton(family, address.c_str(), ip) != 1) return false;
    const int width = family == AF_INET ? 32 : 128;
    if (!bits || *bits < 0 || *bits > width) return false;
    for (int i = 0; i < *bits; ++i)
      if (((net[i / 8] ^ ip[i / 8]) >> (7 - i % 8)) & 1) return false;
    return true;
  }
  return false;
}

}  // namespace

std::vector<Challenge> parse_challenges(std::string_view text) {
  std::vector<Challenge> out;
  std::size_t at = 0;
  const auto skip = [&](std::string_view chars) {
    while (at < text.size() && chars.find(text[at]) != std::string_view::npos) ++at;
  };
  const auto token = [&] {
    const std::size_t from = at;
    while (at < text.size() && std::string_view(" \t,=\"").find(text[at]) == std::string_view::npos) ++at;
    return text.substr(from, at - from);
  };
  while (at < text.size() && out.size() < 16) {
    skip(" \t,");
    const std::string_view word = token();
    if (word.empty()) break;
    skip(" \t");
    if (at >= text.size() || text[at] != '=') {  // a scheme
      out.push_back({to_lower(word), {}});
      continue;
    }
    ++at;
    skip(" \t");
    std::string value;
    if (at < text.size() && text[at] == '"') {
      for (++at; at < text.size() && text[at] != '"'; ++at) {
        if (text[at] == '\\' && at + 1 < text.size()) ++at;
        value += text[at];
      }
      ++at;
    } else {
      value = token();
    }
    if (!out.empty()) out.back().params.emplace(to_lower(word), std::move(value));
  }
  return out;
}

RemoteError read_remote_error(const HttpResponse& response) {
  RemoteError out{response.status, "", ""};
  try {
    const json::Object object = parse_object(response.body, "error document");
    const json::Value* errors = object.if_contains("errors");
    if (errors != nullptr && errors->is_array() && !errors->get_array().empty() && errors->get_array()[0].is_object()) {
      const json::Object& first = errors->get_array()[0].get_object();
      out.code = get_string(first, "code");
      std::string code = to_lower(out.code);
      std::replace(code.begin(), code.end(), '_', ' ');
      const std::string message = get_string(first, "message");
      out.text = message.empty() ? code : code.empty() ? message : fmt::format("{}: {}", code, message);
    } else {
      for (const char* key : {"details", "detail", "message", "error_description", "error"})
        if (out.text.empty()) out.text = get_string(object, key);
    }
  } catch (const Error&) {  // not JSON: a proxy's page, or nothing
  }
  if (out.text.size() > 4096) out.text.resize(4096);
  if (out.text.empty()) {
    if (out.status == 401) out.text = "authentication required";
    else out.text = fmt::format("received unexpected HTTP status: {}", status_line(out.status));
  }
  return out;
}

bool is_insecure_host(std::string_view host, const std::vector<std::string>& insecure,
                      const std::vector<std::string>& addresses) {
  const std::string bare = host_without_port(host);
  if (bare == "localhost") return true;
  std::vector<std::string> all = addresses;
  if (is_literal_address(bare)) all.push_back(bare);
  for (const std::string& address : all) {
    if (contains_address("127.0.0.0/8", address) || address == "::1") return true;
    for (const std::string& entry : insecure)
      if (entry.find('/') != std::string::npos && contains_address(entry, address)) return true;
  }
  return std::any_of(insecure.begin(), insecure.end(),
                     [&](const std::string& entry) { return equals_ignoring_case(entry, host); });
}

}  // namespace gantry::image
