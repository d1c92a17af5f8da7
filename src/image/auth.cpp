#include "image/auth.hpp"

#include <boost/json.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "json/json.hpp"

namespace gantry::image {
namespace {

constexpr std::size_t kMaxHeader = 256 << 10;

std::string get_string(const json::Object& object, std::string_view key) {
  const json::Value* v = json::find(object, key);
  return v != nullptr && v->is_string() ? std::string(v->get_string()) : std::string();
}

RegistryAuth read_auth(const json::Object& object) {
  RegistryAuth auth;
  auth.username = get_string(object, "username");
  auth.password = get_string(object, "password");
  auth.server_address = get_string(object, "serveraddress");
  auth.identity_token = get_string(object, "identitytoken");
  auth.registry_token = get_string(object, "registrytoken");
  // "auth" is base64 of "user:password", as in the client's config file.
  if (auth.username.empty()) {
    if (const auto pair = base64_decode(get_string(object, "auth")); pair && pair->find(':') != std::string::npos) {
      const auto [user, password] = split_once(*pair, ':');
      auth.username = user;
      auth.password = password;
      while (auth.password.ends_with('\0')) auth.password.pop_back();
    }
  }
  return auth;
}

/// The JSON object in a base64 header, or an empty one.
json::Object decode_header(std::string_view header) {
  header = trim(header);
  if (header.empty() || header.size() > kMaxHeader) return {};
  const auto text = base64_decode(header);
  if (!text) return {};
  try {
    json::Value value = json::parse(*text);
    return value.is_object() ? std::move(value.get_object()) : json::Object{};
  } catch (const Error& e) {
    if (e.code() != Errc::invalid_argument) throw;
    return {};
  }
}

}  // namespace

RegistryAuth decode_auth_header(std::string_view header) { return read_auth(decode_header(header)); }

RegistryAuth parse_auth(std::string_view text) {
  const json::Value value = json::parse(text);
  if (!value.is_object()) throw Error(Errc::invalid_argument, "invalid JSON: expected an object");
  return read_auth(value.get_object());
}

std::map<std::string, RegistryAuth> decode_auth_config_header(std::string_view header) {
  std::map<std::string, RegistryAuth> out;
  for (const auto& member : decode_header(header)) {
    if (!member.value().is_object()) continue;
    RegistryAuth auth = read_auth(member.value().get_object());
    const std::string key(member.key());
    if (auth.server_address.empty()) auth.server_address = key;
    out.emplace(auth_host(key), std::move(auth));
  }
  return out;
}

std::string auth_host(std::string_view address) {
  for (const std::string_view scheme : {"https://", "http://"})
    if (address.starts_with(scheme)) address.remove_prefix(scheme.size());
  const std::string host = to_lower(address.substr(0, address.find('/')));
  if (host.empty() || host == "index.docker.io" || host == "registry-1.docker.io" || host == "registry.docker.io")
    return "docker.io";
  return host;
}

}  // namespace gantry::image
