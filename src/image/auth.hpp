#pragma once

#include <map>
#include <string>
#include <string_view>

namespace gantry::image {

/// Credentials for one registry, as clients send them. Never stored, never logged.
struct RegistryAuth {
  std::string username;
  std::string password;
  std::string server_address;
  std::string identity_token;  // a refresh token
  std::string registry_token;  // a bearer token, used as it is

  bool empty() const noexcept { return username.empty() && identity_token.empty() && registry_token.empty(); }
};

/// Reads an X-Registry-Auth header: base64 (either alphabet, padding optional) of a JSON object. Whatever cannot be
/// read is anonymous, as in Docker.
RegistryAuth decode_auth_header(std::string_view header);
/// Reads the JSON object of `POST /auth`. Throws invalid_argument.
RegistryAuth parse_auth(std::string_view text);
/// Reads X-Registry-Config: credentials by registry, keys as in auth_key(). Unreadable: none.
std::map<std::string, RegistryAuth> decode_auth_config_header(std::string_view header);

/// The registry host that an address of credentials means: "https://index.docker.io/v1/" is "docker.io",
/// "https://host:5000/v2/" is "host:5000".
std::string auth_host(std::string_view address);

}  // namespace gantry::image
