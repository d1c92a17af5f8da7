#include "api/archive_routes.hpp"

#include <sys/stat.h>

#include "api/json_writer.hpp"
#include "base/text.hpp"

namespace gantry::api {
namespace {

constexpr std::string_view kStatHeader = "X-Docker-Container-Path-Stat";

std::string stat_header(const storage::PathStat& stat) { return base64_encode(render_path_stat(stat)); }

class Download final : public engine::ArchiveReader {
 public:
  explicit Download(Request request) : request_(std::move(request)) {}
  Task<void> begin(storage::PathStat stat) override {
    Headers headers;
    headers.emplace_back(kStatHeader, stat_header(stat));
    out_ = co_await request_.start_stream(200, "application/x-tar", std::move(headers));
  }
  Task<void> write(std::string bytes) override { return out_->write(std::move(bytes)); }

 private:
  Request request_;
  std::optional<Streamer> out_;
};

class Upload final : public engine::ArchiveWriter {
 public:
  explicit Upload(Request request) : request_(std::move(request)) {}
  Task<std::string> read() override { return request_.read_body_some(256 << 10); }

 private:
  Request request_;
};

}  // namespace

void ArchiveRoutes::add_to(Router& router) {
  static const Route<ArchiveRoutes> kRoutes[] = {
      {Method::head, "/containers/{name:.*}/archive", &ArchiveRoutes::stat},
      {Method::get, "/containers/{name:.*}/archive", &ArchiveRoutes::read},
      {Method::put, "/containers/{name:.*}/archive", &ArchiveRoutes::write},
  };
  router.add(*this, kRoutes);
}

Task<Response> ArchiveRoutes::stat(Request request) {
  const storage::PathStat found = co_await archive_.stat(request.param("name"), request.query().get("path"));
  Response response = Response::empty(200);
  response.header(std::string(kStatHeader), stat_header(found));
  co_return response;
}

Task<Response> ArchiveRoutes::read(Request request) {
  auto reader = std::make_shared<Download>(request);
  co_await archive_.read(request.param("name"), request.query().get("path"), std::move(reader));
  co_return Response::sent();
}

Task<Response> ArchiveRoutes::write(Request request) {
  engine::ExtractOptions options;
  options.no_overwrite_dir_non_dir = request.query().flag("noOverwriteDirNonDir");
  options.copy_uid_gid = request.query().flag("copyUIDGID");
  auto writer = std::make_shared<Upload>(request);
  co_await archive_.write(request.param("name"), request.query().get("path"), options, std::move(writer));
  co_return Response::empty(200);
}

std::string render_path_stat(const storage::PathStat& stat) {
  std::string text;
  JsonWriter json(text);
  json.begin_object().field("name", stat.name).field("size", stat.size).field("mode", to_go_mode(stat.mode));
  json.field("mtime", render_rfc3339_nano(stat.mtime)).field("linkTarget", stat.link_target).end_object();
  return text;
}

std::uint32_t to_go_mode(mode_t mode) noexcept {
  std::uint32_t out = mode & 0777u;
  switch (mode & S_IFMT) {
    case S_IFDIR: out |= 1u << 31; break;
    case S_IFLNK: out |= 1u << 27; break;
    case S_IFBLK: out |= 1u << 26; break;
    case S_IFCHR: out |= 1u << 26 | 1u << 21; break;
    case S_IFIFO: out |= 1u << 25; break;
    case S_IFSOCK: out |= 1u << 24; break;
    default: break;
  }
  if ((mode & S_ISUID) != 0) out |= 1u << 23;
  if ((mode & S_ISGID) != 0) out |= 1u << 22;
  if ((mode & S_ISVTX) != 0) out |= 1u << 20;
  return out;
}

}  // namespace gantry::api
