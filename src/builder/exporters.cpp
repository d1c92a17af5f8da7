#include "builder/exporters.hpp"

#include <utility>

#include <fcntl.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "buildcache/cache.hpp"
#include "builder/image_export.hpp"
#include "frontend/image_model.hpp"
#include "image/platform.hpp"
#include "llb/graph.hpp"
#include "session/sessions.hpp"
#include "solver/solver.hpp"
#include "storage/pack.hpp"
#include "sys/file.hpp"

namespace gantry::builder {

namespace {

using Response = std::map<std::string, std::string>;

std::string attribute(const ExporterRequest& request, const std::string& name) {
  const auto it = request.attributes.find(name);
  return it == request.attributes.end() ? "" : it->second;
}

bool is_image(const ExporterRequest& request) {
  return request.type == "moby" || request.type == "image" || request.type == "docker";
}

std::vector<std::string> image_names(const ExporterRequest& request) {
  std::vector<std::string> names;
  for (const auto& part : split(attribute(request, "name"), ','))
    if (const auto name = trim(part); !name.empty()) names.emplace_back(name);
  return names;
}

/// A stream that tells how much went through it.
class CountedStatus {
 public:
  CountedStatus(solver::Progress& progress, const std::string& id) : status_(progress.status(id)) {
    status_->update(0);
  }
  void set(std::int64_t bytes) { status_->update(bytes); }
  void add(std::size_t bytes) { status_->update(total_ += static_cast<std::int64_t>(bytes)); }
  void complete() { status_->complete(); }

 private:
  std::shared_ptr<solver::Progress::Status> status_;
  std::int64_t total_ = 0;
};

class Export {
 public:
  Export(const Services& services, solver::Job& job, std::string session, int index, const ExporterRequest& request,
         const BuildResult& result, std::stop_token stop)
      : services_(services),
        job_(job),
        session_(std::move(session)),
        index_(index),
        request_(request),
        result_(result),
        stop_(std::move(stop)) {}

  Response run() {
    if (is_image(request_)) return as_vertex("exporting to image", [&](auto& progress) { return to_image(progress); });
    if (request_.type == "local")
      return as_vertex("exporting to client directory", [&](auto& progress) { return to_directory(progress); });
    return as_vertex("exporting to client tarball", [&](auto& progress) { return to_tarball(progress); });
  }

 private:
  template <class Work>
  Response as_vertex(const std::string& name, Work&& work) {
    const std::string digest = llb::op_digest("exporter:" + session_ + std::to_string(index_));
    return solver::Solver::run_vertex(job_, name, digest, std::forward<Work>(work));
  }

  Response to_image(solver::Progress& progress) {
    ExportRequest wanted;
    wanted.tree = result_.tree;
    wanted.config = result_.config;
    if (wanted.config.empty()) wanted.config = frontend::ImageModel::scratch(image::host_platform()).render();
    wanted.names = image_names(request_);
    wanted.epoch = result_.epoch;
    const ExportedImage exported = export_image(services_.cache, services_.engine, wanted, progress, stop_);
    // An engine's image has one name for itself: clients of both keys look it up by either.
    Response out = {{"containerimage.digest", exported.image.id}, {"containerimage.config.digest", exported.image.id}};
    if (!exported.image.names.empty()) out["image.name"] = join(exported.image.names, ",");
    return out;
  }

  Response to_directory(solver::Progress& progress) {
    const auto view = services_.cache.snapshots().view(result_.tree);
    const sys::Fd root = sys::open_file(view->path(), O_RDONLY | O_DIRECTORY);
    CountedStatus status(progress, "copying files");
    client()->send_tree(index_, root.get(), [&](std::int64_t bytes) { status.set(bytes); }, stop_);
    status.complete();
    return {};
  }

  Response to_tarball(solver::Progress& progress) {
    const auto view = services_.cache.snapshots().view(result_.tree);
    const sys::Fd root = sys::open_file(view->path(), O_RDONLY | O_DIRECTORY);
    CountedStatus status(progress, "sending tarball");
    client()->send_stream(
        index_,
        [&](const auto& send) {
          storage::pack(root.get(), {}, [&](std::string_view bytes) {
            send(bytes);
            status.add(bytes.size());
          });
        },
        stop_);
    status.complete();
    return {};
  }

  std::shared_ptr<session::Session> client() {
    auto out = services_.sessions.wait(session_, session::Sessions::kWait, stop_);
    if (!out->supports(session::kFileSend)) throw Error(Errc::invalid_argument, "the client takes no results");
    return out;
  }

  const Services& services_;
  solver::Job& job_;
  const std::string session_;
  const int index_;
  const ExporterRequest& request_;
  const BuildResult& result_;
  const std::stop_token stop_;
};

}  // namespace

void check_exporter(const ExporterRequest& request) {
  if (!is_image(request) && request.type != "local" && request.type != "tar")
    throw Error(Errc::invalid_argument, "exporter " + quote(request.type) + " could not be found");
  if (request.type == "docker" && !attribute(request, "dest").empty())
    throw Error(Errc::invalid_argument, "exporter \"docker\" with a destination is not supported: save the image");
}

std::map<std::string, std::string> run_exporter(const Services& services, solver::Job& job, const std::string& session,
                                                int index, const ExporterRequest& request, const BuildResult& result,
                                                std::stop_token stop) {
  return Export(services, job, session, index, request, result, std::move(stop)).run();
}

}  // namespace gantry::builder
