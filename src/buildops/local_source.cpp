#include <utility>

#include <fcntl.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "buildcache/mutables.hpp"
#include "buildops/source_op.hpp"
#include "session/sessions.hpp"
#include "sys/file.hpp"

namespace gantry::buildops {
namespace {

class LocalSource final : public solver::Operation {
 public:
  LocalSource(const Services& services, const llb::Vertex& vertex) : services_(services) {
    const pb::SourceOp& source = vertex.op().source();
    options_.name = parse_source_name(source.identifier()).rest;
    options_.include = source_list(source, "local.includepattern");
    options_.exclude = source_list(source, "local.excludepatterns");
    options_.follow = source_list(source, "local.followpaths");
    options_.always_fetch = source_attribute(source, "local.differ") == "none";
    session_ = source_attribute(source, "local.session");
    hint_ = source_attribute(source, "local.sharedkeyhint");
    if (hint_.empty()) hint_ = options_.name;
  }
  bool is_work() const override { return false; }

  solver::CacheMap cache_map(solver::OpContext&) override { return {}; }

  std::vector<buildcache::SnapshotPtr> execute(solver::OpContext& context,
                                               const std::vector<buildcache::SnapshotPtr>&) override {
    const std::shared_ptr<session::Session> session = find_session(context);
    buildcache::MutableRequest request;
    request.key = fmt::format("local:{}:{}:{}", options_.name, hint_, session->shared_key());
    request.type = buildcache::RecordType::source_local;
    request.description = "local source for " + options_.name;
    request.sharing = buildcache::Sharing::private_copy;
    const auto copy = services_.mutables.acquire(std::move(request), context.stop);
    receive(context, *session, *copy);
    return {copy->freeze()};
  }

 private:
  std::shared_ptr<session::Session> find_session(const solver::OpContext& context) const {
    const std::vector<std::string> ids = context.sessions.ids();
    if (!session_.empty()) {
      // The one that the definition names; another build that shares this step may have gone with it.
      try {
        return services_.sessions.wait(session_, session::Sessions::kWait, context.stop);
      } catch (const Error& e) {
        if (e.code() != Errc::not_found || ids.empty() || (ids.size() == 1 && ids[0] == session_)) throw;
      }
    }
    const auto found = services_.sessions.find(ids, session::kFileSync, context.stop);
    if (found.empty()) throw Error(Errc::unavailable, "no active sessions");
    return found.front();
  }

  void receive(solver::OpContext& context, session::Session& session, buildcache::Mutable& copy) const {
    const sys::Fd root = sys::open_file(copy.path(), O_RDONLY | O_DIRECTORY);
    const auto line = context.progress.status(fmt::format("transferring {}:", options_.name));
    bool marked = false;
    const auto changed = [&](const std::string&) {
      if (!std::exchange(marked, true)) copy.mark_changed();
    };
    const auto report =
        session.receive(options_, root.get(), changed, [&](std::int64_t bytes) { line->update(bytes); }, context.stop);
    line->update(report.bytes);
    line->complete();
  }

  const Services& services_;
  session::ReceiveOptions options_;
  std::string session_;
  std::string hint_;
};

}  // namespace

std::unique_ptr<solver::Operation> make_local_source(const Services& services, const llb::Vertex& vertex) {
  return std::make_unique<LocalSource>(services, vertex);
}

}  // namespace gantry::buildops
