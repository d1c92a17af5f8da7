#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/request.hpp"
#include "api/response.hpp"
#include "api/versions.hpp"
#include "async/task.hpp"

namespace gantry::api {

/// What becomes of a handler whose client goes away before the reply.
enum class Cancel {
  with_client,  // it is cancelled: its next co_await throws
  never,        // it runs to its end: verbs that change state (create, start, stop, rm …)
};

struct RouteOptions {
  Cancel cancel = Cancel::with_client;
  ApiVersion min_api = {};  // older requests get 400 "… requires minimum API version …"
};

using Handler = std::function<Task<Response>(Request)>;

/// One row of a resource's table of routes:
///
///     Task<Response> VolumeRoutes::remove(Request req) {
///       co_await volumes_.remove(req.param("name"), req.query().flag("force"));
///       co_return Response::empty(204);
///     }
///     const Route<VolumeRoutes> kRoutes[] = {
///         {Method::get, "/volumes", &VolumeRoutes::list},
///         {Method::delete_, "/volumes/{name:.*}", &VolumeRoutes::remove, {.cancel = Cancel::never}},
///         {Method::post, "/volumes/prune", &VolumeRoutes::prune, {.cancel = Cancel::never, .min_api = {1, 25}}},
///     };
///     void VolumeRoutes::add_to(Router& router) { router.add(*this, kRoutes); }
///
/// Patterns: `{name}` is one path segment, `{name:.*}` any number of them (a name with slashes; may be empty). Every
/// route is served with and without "/v1.NN" in front. The first route that matches wins, so
/// "/containers/{name:.*}/checkpoints/{checkpoint}" comes before "/containers/{name:.*}".
/// A handler throws Error; api/http_error.hpp turns that into the reply.
template <class T>
struct Route {
  Method method;
  std::string_view pattern;
  Task<Response> (T::*handler)(Request);
  RouteOptions options = {};
};

/// A route that fits, and what its `{…}` stand for.
struct RouteMatch {
  const Handler* handler = nullptr;
  RouteOptions options;
  std::string_view pattern;
  ApiVersion version = kMaxApiVersion;
  std::string path;  // decoded, without the version
  std::vector<std::pair<std::string, std::string>> params;
};

class Router {
 public:
  Router();
  ~Router();
  Router(const Router&) = delete;
  Router& operator=(const Router&) = delete;

  void add(Method method, std::string_view pattern, Handler handler, RouteOptions options = {});

  template <class T, std::size_t N>
  void add(T& owner, const Route<T> (&table)[N]) {
    for (const Route<T>& row : table)
      add(
          row.method, row.pattern,
          [&owner, f = row.handler](Request request) { return (owner.*f)(std::move(request)); }, row.options);
  }

  /// The oldest version that is served; kMinApiVersion unless the operator wants it newer.
  void set_min_version(ApiVersion version) { min_version_ = version; }
  ApiVersion min_version() const noexcept { return min_version_; }

  using Match = RouteMatch;
  /// What to do with a request: run `match`, or send `reply`.
  struct Decision {
    std::optional<Match> match;
    Response reply;
    bool daemon_headers = true;  // Api-Version and so on go with `reply`; not with "page not found"
    bool experimental_header = true;
  };
  /// `target` is the raw request target, query included. Never throws: whatever the client sent has an answer.
  Decision decide(Method method, std::string_view target) const;

 private:
  struct Entry;
  std::vector<Entry> entries_;
  ApiVersion min_version_ = kMinApiVersion;
};

}  // namespace gantry::api
