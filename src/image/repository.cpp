#include <algorithm>

#include <fmt/format.h>
#include <boost/json.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "image/digest.hpp"
#include "image/registry_client.hpp"
#include "image/registry_wire.hpp"

namespace gantry::image {
namespace {

std::string manifest_accept() {
  return fmt::format("Accept: {}, {}, {}, {}, */*", kDockerManifest, kDockerManifestList, kOciManifest, kOciIndex);
}

}  // namespace

Repository::Repository(Registry& registry, Reference name, RegistryAuth auth, std::string actions,
                       std::vector<Endpoint> endpoints)
    : registry_(registry),
      name_(std::move(name)),
      auth_(std::move(auth)),
      actions_(std::move(actions)),
      endpoints_(std::move(endpoints)) {}

std::string Repository::scope() const { return fmt::format("repository:{}:{}", name_.path, actions_); }

/// Finds the first endpoint that answers at all, and learns how it wants to be asked.
Task<void> Repository::settle() {
  while (!settled_) {
    const std::size_t tried = current_;
    const Endpoint here = endpoint();
    HttpRequest ping;
    ping.url = here.base + "/v2/";
    HttpResponse response = co_await registry_.send(here, ping);
    if (settled_ || current_ != tried) continue;  // another request of ours was first
    if (response.failure != Failure::none) {
      if (!may_try_elsewhere(response.failure) || current_ + 1 >= endpoints_.size()) throw_transport(ping, response);
      ++current_;
      continue;
    }
    if (response.status == 401) challenges_ = parse_challenges(response.header("www-authenticate"));
    settled_ = true;
  }
}

/// Turns to the next endpoint, unless another request of ours has done so already. False if there is none.
bool Repository::leave_endpoint(std::size_t tried) {
  if (current_ != tried) return true;
  if (tried + 1 >= endpoints_.size()) return false;
  ++current_;
  settled_ = false;
  challenges_.clear();
  return true;
}

Task<HttpResponse> Repository::request_at(Endpoint here, HttpRequest request, std::string url,
                                          std::string extra_scope) {
  std::vector<std::string> scopes{scope()};
  if (!extra_scope.empty()) scopes.push_back(std::move(extra_scope));
  request.url = std::move(url);
  // Credentials belong to the registry that they were given for, not to a mirror of it.
  const RegistryAuth auth = here.mirror ? RegistryAuth{} : auth_;
  for (bool fresh = false;; fresh = true) {
    HttpRequest attempt = request;
    const std::string header = co_await registry_.authorize(here, challenges_, auth, scopes, fresh);
    if (!header.empty()) attempt.headers.push_back(header);
    HttpResponse response = co_await registry_.send(here, std::move(attempt));
    if (response.failure != Failure::none || response.status != 401 || fresh) co_return response;
    const auto challenges = parse_challenges(response.header("www-authenticate"));
    if (challenges.empty() || (header.empty() && auth.empty() && challenges.front().scheme == "basic"))
      co_return response;
    challenges_ = challenges;
  }
}

Task<HttpResponse> Repository::request(HttpRequest request, std::string path, std::string extra_scope) {
  co_await settle();
  const Endpoint here = endpoint();
  const std::string url = fmt::format("{}/v2/{}/{}", here.base, name_.path, path);
  try {
    HttpResponse response = co_await request_at(here, std::move(request), url, std::move(extra_scope));
    if (response.failure == Failure::sink) std::rethrow_exception(response.sink_error);
    co_return response;
  } catch (const Error& e) {
    // The token server already refuses: to a client that pulls this is the same as the registry refusing.
    if (e.code() != Errc::forbidden || actions_ != "pull") throw;
    throw Error(Errc::not_found,
                fmt::format("pull access denied for {}, repository does not exist or may require 'docker login': {}",
                            name_.familiar_name(), e.message()));
  }
}

void Repository::refuse_pull(const HttpResponse& response, const std::string& reference) const {
  const RemoteError remote = read_remote_error(response);
  const std::string name = name_.familiar_name();
  const std::string full = reference.find(':') != std::string::npos ? name_.with_digest(reference).familiar()
                                                                    : name_.with_tag(reference).familiar();
  const auto challenges = parse_challenges(response.header("www-authenticate"));
  const bool insufficient = std::any_of(challenges.begin(), challenges.end(), [](const Challenge& c) {
    const auto it = c.params.find("error");
    return it != c.params.end() && it->second == "insufficient_scope";
  });
  if (response.status == 403 || remote.code == "DENIED" || (response.status == 401 && insufficient)) {
    const std::string why =
        remote.code == "DENIED" ? remote.text : "denied: requested access to the resource is denied";
    throw Error(Errc::not_found,
                fmt::format("pull access denied for {}, repository does not exist or may require 'docker login': {}",
                            name, why));
  }
  if (response.status == 401)
    throw Error(Errc::unauthorized,
                remote.text.starts_with("unauthorized") ? remote.text : fmt::format("unauthorized: {}", remote.text));
  if (response.status == 404 && remote.code == "NAME_UNKNOWN")
    throw Error(Errc::not_found, fmt::format("repository {} not found: {}", name, remote.text));
  if (response.status == 404)
    throw Error(Errc::not_found, fmt::format("manifest for {} not found: {}", full,
                                             remote.code.empty() ? "manifest unknown" : remote.text));
  if (response.status == 429 && !remote.text.starts_with("toomanyrequests"))
    throw Error(Errc::internal, fmt::format("toomanyrequests: {}", remote.text));
  throw Error(Errc::internal, remote.text);
}

Task<RemoteManifest> Repository::resolve(std::string reference) {
  const bool by_digest = reference.find(':') != std::string::npos;
  for (;;) {
    co_await settle();
    const std::size_t tried = current_;
    HttpRequest head;
    head.method = by_digest ? "GET" : "HEAD";
    head.headers = {manifest_accept()};
    head.max_body = kMaxManifestBytes;
    HttpResponse response = co_await request(head, "manifests/" + reference);
    const std::string digest = response.header("docker-content-digest");
    // HEAD carries no reason for a refusal, and old registries have no HEAD: ask again with GET.
    if (!by_digest && response.failure == Failure::none && (response.status != 200 || !is_valid_digest(digest))) {
      head.method = "GET";
      response = co_await request(head, "manifests/" + reference);
    }
    if (response.failure != Failure::none || response.status != 200) {
      if (response.failure != Failure::none || endpoint().mirror)
        if (leave_endpoint(tried)) continue;
      if (response.failure != Failure::none) {
        head.url = fmt::format("{}/v2/{}/manifests/{}", endpoint().base, name_.path, reference);
        throw_transport(head, response);
      }
      refuse_pull(response, reference);
    }
    RemoteManifest out;
    out.descriptor.media_type =
        std::string(trim(response.header("content-type").substr(0, response.header("content-type").find(';'))));
    if (head.method == "HEAD") {
      out.descriptor.digest = digest;
      out.descriptor.size = parse_int(response.header("content-length")).value_or(0);
      co_return out;
    }
    out.descriptor.digest = digest_of(response.body);
    out.descriptor.size = std::int64_t(response.body.size());
    if (by_digest && out.descriptor.digest != reference)
      throw Error(Errc::corrupted, fmt::format("manifest verification failed for digest {}", reference));
    out.bytes = std::move(response.body);
    co_return out;
  }
}

Task<RemoteManifest> Repository::get_manifest(std::string digest) {
  RemoteManifest out = co_await resolve(std::move(digest));
  co_return out;
}

Task<BlobAttempt> Repository::fetch_blob(std::string digest, std::int64_t offset,
                                         std::function<void(int, std::string_view)> sink) {
  HttpRequest get;
  get.headers = {"Accept: application/octet-stream, */*"};
  if (offset > 0) get.headers.push_back(fmt::format("Range: bytes={}-", offset));
  get.sink = std::move(sink);
  get.max_body = 64 << 10;
  BlobAttempt out;
  co_await settle();
  const std::size_t tried = current_;
  HttpResponse response = co_await request(get, "blobs/" + digest);
  if (response.failure == Failure::none && response.status >= 200 && response.status < 300) {
    const std::string encoding = to_lower(response.header("content-encoding"));
    if (!encoding.empty() && encoding != "identity")
      throw Error(Errc::internal, fmt::format("the registry sent blob {} with Content-Encoding {}", digest, encoding));
    out.complete = true;
    co_return out;
  }
  if (endpoints_.at(tried).mirror) out.retry = leave_endpoint(tried);
  try {
    if (response.failure != Failure::none) {
      get.url = fmt::format("{}/v2/{}/blobs/{}", endpoint().base, name_.path, digest);
      throw_transport(get, response);
    }
    const int s = response.status;
    out.retry = out.retry || s == 408 || s == 416 || s >= 500;
    if (s == 401 || s == 403) refuse_pull(response, digest);
    const RemoteError remote = read_remote_error(response);
    if (s == 404) throw Error(Errc::not_found, fmt::format("blob {} not found: {}", digest, remote.text));
    throw Error(Errc::internal, s == 429 && !remote.text.starts_with("toomanyrequests")
                                    ? "toomanyrequests: " + remote.text
                                    : remote.text);
  } catch (const Error&) {
    out.error = std::current_exception();
  }
  if (response.failure != Failure::none) out.retry = true;
  co_return out;
}

Task<std::string> Repository::get_blob(Descriptor descriptor, std::size_t limit) {
  if (descriptor.size > std::int64_t(limit))
    throw Error(Errc::invalid_argument, fmt::format("blob {} is larger than {} bytes", descriptor.digest, limit));
  auto bytes = std::make_shared<std::string>();
  for (int attempt = 1;; ++attempt) {
    bytes->clear();
    auto sink = [bytes, limit](int, std::string_view piece) {
      if (bytes->size() + piece.size() > limit) throw Error(Errc::corrupted, "blob is larger than announced");
      bytes->append(piece);
    };
    BlobAttempt result = co_await fetch_blob(descriptor.digest, 0, sink);
    if (result.complete) break;
    if (!result.retry || attempt >= 3) std::rethrow_exception(result.error);
  }
  if (std::int64_t(bytes->size()) != descriptor.size || digest_of(*bytes) != descriptor.digest)
    throw Error(Errc::corrupted, fmt::format("image config verification failed for digest {}", descriptor.digest));
  co_return std::move(*bytes);
}

Task<std::vector<std::string>> Repository::list_tags() {
  std::vector<std::string> tags;
  std::string path = "tags/list";
  for (int page = 0; page < 1000 && !path.empty(); ++page) {
    HttpRequest get;
    HttpResponse response = co_await request(get, path);
    if (response.failure != Failure::none) {
      get.url = fmt::format("{}/v2/{}/{}", endpoint().base, name_.path, path);
      throw_transport(get, response);
    }
    if (response.status != 200) refuse_pull(response, "latest");
    const json::Object object = parse_object(response.body, "tag list");
    if (const json::Value* list = object.if_contains("tags"); list != nullptr && list->is_array())
      for (const json::Value& tag : list->get_array())
        if (tag.is_string() && is_valid_tag(std::string_view(tag.get_string()))) tags.emplace_back(tag.get_string());
    path = next_page(response.header("link"));
  }
  co_return tags;
}

void Repository::refuse_push(const HttpResponse& response) const {
  const RemoteError remote = read_remote_error(response);
  if (response.status == 401 && remote.code != "DENIED")
    throw Error(Errc::unauthorized,
                remote.text.starts_with("unauthorized") ? remote.text : "unauthorized: " + remote.text);
  if (response.status == 403 || remote.code == "DENIED")
    throw Error(Errc::forbidden,
                remote.code == "DENIED" ? remote.text : "denied: requested access to the resource is denied");
  throw Error(Errc::internal, remote.text);
}

namespace {

void require_transport(const Endpoint& endpoint, HttpRequest request, const HttpResponse& response,
                       const std::string& path) {
  if (response.failure == Failure::none) return;
  request.url = endpoint.base + path;
  throw_transport(request, response);
}

/// Location may be absolute or relative to the endpoint.
std::string absolute_location(const Endpoint& endpoint, const std::string& location) {
  if (parse_url(location)) return location;
  if (!location.starts_with('/')) throw Error(Errc::internal, "the registry sent no usable upload location");
  return endpoint.base + location;
}

}  // namespace

Task<bool> Repository::has_blob(std::string digest) {
  HttpRequest head;
  head.method = "HEAD";
  HttpResponse response = co_await request(head, "blobs/" + digest);
  require_transport(endpoint(), head, response, fmt::format("/v2/{}/blobs/{}", name_.path, digest));
  if (response.status == 200) co_return true;
  if (response.status == 401 || response.status == 403) refuse_push(response);
  co_return false;
}

Task<bool> Repository::has_manifest(std::string digest) {
  HttpRequest head;
  head.method = "HEAD";
  head.headers = {manifest_accept()};
  HttpResponse response = co_await request(head, "manifests/" + digest);
  co_return response.failure == Failure::none&& response.status == 200;
}

Task<bool> Repository::mount_blob(std::string digest, std::string from_path) {
  HttpRequest post;
  post.method = "POST";
  const std::string path =
      fmt::format("blobs/uploads/?mount={}&from={}", percent_encode(digest), percent_encode(from_path));
  HttpResponse response = co_await request(post, path, fmt::format("repository:{}:pull", from_path));
  if (response.failure != Failure::none) co_return false;
  if (response.status == 201) co_return true;
  if (response.status != 202 || response.header("location").empty()) co_return false;
  // It opened an upload instead; we begin our own later.
  HttpRequest cancel;
  cancel.method = "DELETE";
  (void)co_await request_at(endpoint(), cancel, absolute_location(endpoint(), response.header("location")), {});
  co_return false;
}

Task<void> Repository::upload_blob(std::string digest, std::shared_ptr<Upload> upload) {
  HttpRequest post;
  post.method = "POST";
  HttpResponse response = co_await request(post, "blobs/uploads/");
  require_transport(endpoint(), post, response, fmt::format("/v2/{}/blobs/uploads/", name_.path));
  if (response.status != 202) refuse_push(response);
  const Endpoint here = endpoint();
  std::string location = absolute_location(here, response.header("location"));
  location += (location.find('?') == std::string::npos ? "?digest=" : "&digest=") + percent_encode(digest);
  HttpRequest put;
  put.method = "PUT";
  put.upload = std::move(upload);
  put.headers = {"Content-Type: application/octet-stream"};
  // Our credentials stay with the registry, wherever the upload goes.
  const auto target = parse_url(location);
  const auto own = parse_url(here.base);
  if (target && own && target->authority == own->authority) {
    response = co_await request_at(here, put, location, {});
  } else {
    Endpoint other = here;
    other.tls = {};
    other.tls.verify = here.tls.verify;
    put.url = location;
    response = co_await registry_.send(other, put);
  }
  put.url = location;
  if (response.failure != Failure::none) throw_transport(put, response);
  if (response.status != 201 && response.status != 204) refuse_push(response);
}

Task<void> Repository::put_manifest(std::string reference, std::string media_type, std::string bytes) {
  HttpRequest put;
  put.method = "PUT";
  put.headers = {"Content-Type: " + media_type};
  put.body = std::move(bytes);
  HttpResponse response = co_await request(put, "manifests/" + reference);
  require_transport(endpoint(), put, response, fmt::format("/v2/{}/manifests/{}", name_.path, reference));
  if (response.status < 200 || response.status >= 300) refuse_push(response);
}

}  // namespace gantry::image
