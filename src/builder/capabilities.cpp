#include "builder/capabilities.hpp"

#include <sys/statvfs.h>

#include "base/text.hpp"
#include "buildcache/cache.hpp"
#include "buildlink/engine.hpp"
#include "image/platform.hpp"

namespace gantry::builder {

namespace {

constexpr const char* kFrontendCapabilities[] = {
    "solve.base",
    "resolveimage",
    "resolveimage.resolvemode",
    "readfile",
    "return",
    "returnmap",
    "readdir",
    "statfile",
    "importcaches",
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "frontend.caps",
    "gateway.solve.metadata",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
};

constexpr const char* kOpCapabilities[] = {
    "source.image",
    "source.image.resolvemode",
    "source.local",
    "source.local.unique",
    "source.local.sessionid",
    "source.local.includepatterns",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "source.local.sharedkeyhint",
    "source.local.differ",
    "source.git",
    "source.git.keepgitdir",
    "source.git.fullurl",
    "source.git.httpauth",
    "source.git.subdir",
    "source.git.checksum",
    "source.http",
    "source.http.checksum",
    "source.http.perm",
    "soruce.http.uidgid",  // sic
    "exec.meta.base",
    "exec.meta.cgroup.parent",
    "exec.meta.network",
    "exec.meta.proxyenv",
    "exec.meta.security",
    "exec.meta.setsdefaultpath",
    "exec.meta.ulimit",
    "exec.meta.removemountstubs.recursive",
    "exec.mount.bind",
    "exec.mount.bind.readwrite-nooutput",
    "exec.mount.cache",
    "exec.mount.cache.sharing",
    "exec.mount.selector",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "exec.mount.secret",
    "exec.mount.ssh",
    "exec.secretenv",
    "exec.validexitcode",
    "file.base",
    "file.rm.wildcard",
    "file.rm.nofollowsymlink",
    "file.copy.includeexcludepatterns",
    "file.copy.alwaysreplaceexistingdestpaths",
    "file.copy.requiredpaths",
    "file.copy.modestring",
    "file.symlink.create",
    "constraints",
    "platform",
    "meta.ignorecache",
    "meta.description",
    "meta.exportcache",
    "exporter.multiple",
    "gc.freespacefilter",
};

void add(google::protobuf::RepeatedPtrField<moby::buildkit::v1::apicaps::APICap>& out, const char* id, bool enabled) {
  auto* capability = out.Add();
  capability->set_id(id);
  capability->set_enabled(enabled);
  if (!enabled) capability->set_disabled_reason_msg("the engine keeps images' layers as they are");
}

void add_platforms(moby::buildkit::v1::types::WorkerRecord& out) {
  const image::Platform host = image::host_platform();
  const auto one = [&out](const std::string& architecture, const std::string& variant) {
    auto* platform = out.add_platforms();
    platform->set_os("linux");
    platform->set_architecture(architecture);
    platform->set_variant(variant);
  };
  const image::Platform normal = image::normalize(host);
  one(normal.architecture, normal.variant == "v1" ? "" : normal.variant);
  if (normal.architecture == "amd64" && !normal.variant.empty()) one("amd64", "");
  if (normal.architecture == "amd64") one("386", "");
}

}  // namespace

void add_capabilities(moby::buildkit::v1::frontend::PongResponse& out) {
  for (const char* id : kFrontendCapabilities) add(*out.mutable_frontend_api_caps(), id, true);
  for (const char* id : kOpCapabilities) add(*out.mutable_llb_caps(), id, true);
  // The frontend copies instead, as in dockerd with graph drivers.
  for (const char* id : {"mergeop", "diffop"}) add(*out.mutable_llb_caps(), id, false);
}

moby::buildkit::v1::types::BuildkitVersion describe_version() {
  moby::buildkit::v1::types::BuildkitVersion out;
  // Clients read from the number what they may ask for: this is the release whose protocol we speak.
  out.set_package("github.com/moby/buildkit");
  out.set_version("v0.17.3-moby");
  out.set_revision("gantry-" GANTRY_VERSION);
  return out;
}

moby::buildkit::v1::types::WorkerRecord describe_worker(const Services& services) {
  const buildlink::Settings settings = services.engine.settings();
  moby::buildkit::v1::types::WorkerRecord out;
  out.set_id(settings.EngineId);
  if (!settings.HostGatewayIps.empty())
    (*out.mutable_labels())["org.mobyproject.buildkit.worker.moby.host-gateway-ip"] =
        join(settings.HostGatewayIps, ",");
  add_platforms(out);
  buildcache::GcSettings gc;
  gc.enabled = settings.GcEnabled;
  gc.reserved_space = settings.GcReservedSpace;
  gc.max_used_space = settings.GcMaxUsedSpace;
  gc.min_free_space = settings.GcMinFreeSpace;
  for (const auto& rule : settings.GcRules)
    gc.policies.push_back({rule.Filters, rule.All, std::chrono::nanoseconds(rule.KeepDuration), rule.ReservedSpace,
                           rule.MaxUsedSpace, rule.MinFreeSpace});
  struct statvfs disk{};
  const bool known = ::statvfs(services.cache.root().c_str(), &disk) == 0;
  const auto size = known ? static_cast<std::int64_t>(disk.f_blocks) * static_cast<std::int64_t>(disk.f_frsize) : 0;
  for (const auto& policy : buildcache::gc_policies(gc, size)) {
    auto* rule = out.add_gc_policy();
    rule->set_all(policy.all);
    rule->set_keep_duration(policy.keep_duration.count());
    for (const auto& filter : policy.filters) rule->add_filters(filter);
    rule->set_reserved_space(policy.reserved_space);
    rule->set_max_used_space(policy.max_used_space);
    rule->set_min_free_space(policy.min_free_space);
  }
  *out.mutable_buildkit_version() = describe_version();
  return out;
}

}  // namespace gantry::builder
