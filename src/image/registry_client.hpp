#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "async/lanes.hpp"
#include "async/task.hpp"
#include "image/auth.hpp"
#include "image/http_client.hpp"
#include "image/manifest.hpp"
#include "image/reference.hpp"

namespace gantry::image {

struct RegistrySettings {
  std::vector<std::string> mirrors;   // base URLs, for docker.io only
  std::vector<std::string> insecure;  // host[:port] or CIDR; loopback is always included
  ProxySettings proxy;
  std::vector<std::string> certificate_dirs = {"/etc/gantry/certs.d", "/etc/docker/certs.d"};
  std::string user_agent;
  std::chrono::milliseconds connect_timeout = std::chrono::seconds(20);
  std::chrono::seconds stall_timeout = std::chrono::seconds(30);
};

/// One `WWW-Authenticate` challenge.
struct Challenge {
  std::string scheme;                         // lower case
  std::map<std::string, std::string> params;  // lower-case names
};
/// Reads the header, which may hold several challenges (RFC 9110 §11.6.1). What cannot be read is left out.
std::vector<Challenge> parse_challenges(std::string_view header);

/// One way to reach a registry.
struct Endpoint {
  std::string base;  // "https://registry-1.docker.io"
  std::string auth_host;
  bool mirror = false;
  bool insecure = false;
  TlsSettings tls;
};

/// What a registry said when it refused, from its JSON error document.
struct RemoteError {
  int status = 0;
  std::string code;  // "MANIFEST_UNKNOWN"; empty: no readable document
  std::string text;  // "manifest unknown: manifest unknown"
};
RemoteError read_remote_error(const HttpResponse& response);

/// Whether `host` (host[:port]) is covered by the insecure list, or is loopback. `addresses`: what it resolves to.
bool is_insecure_host(std::string_view host, const std::vector<std::string>& insecure,
                      const std::vector<std::string>& addresses);

struct RemoteManifest {
  Descriptor descriptor;
  std::string bytes;
};

/// What became of one attempt to fetch a blob.
struct BlobAttempt {
  bool complete = false;
  bool retry = false;  // it may work later
  std::exception_ptr error;
};

class Registry;

/// Talks to one repository with one client's credentials. Tries the mirrors, then the registry itself, and stays with
/// the one that answered. All of it throws Error with Docker's texts, and stops when cancelled.
class Repository {
 public:
  Repository(Registry& registry, Reference name, RegistryAuth auth, std::string actions,
             std::vector<Endpoint> endpoints);

  const Reference& name() const noexcept { return name_; }

  /// What a tag or digest stands for now. `bytes` is filled if the answer brought them.
  Task<RemoteManifest> resolve(std::string reference);
  /// The document with this digest, verified against it.
  Task<RemoteManifest> get_manifest(std::string digest);
  /// Whole small blobs, verified: configs.
  Task<std::string> get_blob(Descriptor descriptor, std::size_t limit);
  /// Bytes from `offset` on go to `sink(status, bytes)`, on the HTTP thread: status 206 continues at the offset, 200
  /// starts anew.
  Task<BlobAttempt> fetch_blob(std::string digest, std::int64_t offset,
                               std::function<void(int, std::string_view)> sink);
  Task<std::vector<std::string>> list_tags();

  Task<bool> has_blob(std::string digest);
  Task<bool> has_manifest(std::string digest);
  /// Asks the registry to take the blob over from another repository of it.
  Task<bool> mount_blob(std::string digest, std::string from_path);
  Task<void> upload_blob(std::string digest, std::shared_ptr<Upload> upload);
  Task<void> put_manifest(std::string reference, std::string media_type, std::string bytes);

 private:
  Task<HttpResponse> request(HttpRequest request, std::string path, std::string extra_scope = {});
  Task<HttpResponse> request_at(Endpoint endpoint, HttpRequest request, std::string url, std::string extra_scope);
  Task<void> settle();
  bool leave_endpoint(std::size_t tried);
  [[noreturn]] void refuse_pull(const HttpResponse& response, const std::string& reference) const;
  [[noreturn]] void refuse_push(const HttpResponse& response) const;
  Endpoint& endpoint() { return endpoints_.at(current_); }
  std::string scope() const;

  Registry& registry_;
  const Reference name_;
  const RegistryAuth auth_;
  const std::string actions_;
  std::vector<Endpoint> endpoints_;
  std::size_t current_ = 0;
  bool settled_ = false;
  std::vector<Challenge> challenges_;
};
using RepositoryPtr = std::shared_ptr<Repository>;

/// Knows how to reach registries: addresses, certificates, tokens. Loop thread.
class Registry {
 public:
  Registry(async::Lanes& lanes, RegistrySettings settings);

  void configure(RegistrySettings settings) { settings_ = std::move(settings); }
  const RegistrySettings& settings() const noexcept { return settings_; }

  /// `actions`: "pull" or "pull,push". No traffic yet, apart from name resolution when CIDRs are configured.
  Task<RepositoryPtr> open(Reference name, RegistryAuth auth, std::string actions);
  /// Returns the refresh token that the registry issued, or nothing. Throws unauthorized.
  Task<std::string> log_in(RegistryAuth auth);
  /// One plain GET, for search and imports. No credentials unless Basic ones are given. With a `sink` the body of a
  /// 2xx answer goes there, on the HTTP thread.
  Task<HttpResponse> get(std::string url, RegistryAuth auth, std::function<void(int, std::string_view)> sink = nullptr);

 private:
  friend class Repository;
  struct Token {
    std::string value;
    std::chrono::steady_clock::time_point expires;
  };
  Task<std::vector<Endpoint>> endpoints_for(std::string host, bool with_mirrors);
  Task<TlsSettings> load_tls(std::string host);
  Task<HttpResponse> send(Endpoint endpoint, HttpRequest request);
  /// The Authorization header for the challenges; empty: none can be given.
  Task<std::string> authorize(Endpoint endpoint, std::vector<Challenge> challenges, RegistryAuth auth,
                              std::vector<std::string> scopes, bool fresh);
  Task<std::string> fetch_token(Endpoint endpoint, Challenge challenge, RegistryAuth auth,
                                std::vector<std::string> scopes, bool offline, std::string* refresh_token,
                                std::chrono::seconds* lifetime);

  async::Lanes& lanes_;
  RegistrySettings settings_;
  HttpClient http_;
  std::map<std::string, Token> tokens_;
};

}  // namespace gantry::image
