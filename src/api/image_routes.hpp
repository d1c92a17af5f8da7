#pragma once

#include <functional>
#include <memory>

#include "api/router.hpp"
#include "api/system_routes.hpp"
#include "image/images.hpp"
#include "image/transfers.hpp"

namespace gantry::api {

/// /images, /auth and /distribution.
class ImageRoutes {
 public:
  ImageRoutes(image::Images& images, image::Transfers& transfers) : images_(images), transfers_(transfers) {}

  void add_to(Router& router);
  /// What GET /system/df says of images: for SystemRoutes::provide_disk_usage("image", …).
  Task<DiskUsageKind> disk_usage(ApiVersion version);

 private:
  using Verb = std::function<Task<void>(image::ProgressPtr)>;

  Task<Response> list(Request request);
  Task<Response> create(Request request);
  Task<Response> inspect(Request request);
  Task<Response> history(Request request);
  Task<Response> tag(Request request);
  Task<Response> remove(Request request);
  Task<Response> prune(Request request);
  Task<Response> push(Request request);
  Task<Response> load(Request request);
  Task<Response> save_one(Request request);
  Task<Response> save_many(Request request);
  Task<Response> search(Request request);
  Task<Response> attestations(Request request);
  Task<Response> log_in(Request request);
  Task<Response> distribution(Request request);
  Task<Response> repair(Request request);

  Task<Response> pull(Request request);
  Task<Response> import(Request request);
  Task<Response> save(Request request, image::SaveRequest wanted);

  image::Images& images_;
  image::Transfers& transfers_;
};

}  // namespace gantry::api
