#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "async/task.hpp"
#include "image/auth.hpp"
#include "image/context.hpp"

namespace gantry::image {

struct RepairRequest {
  bool contents = false;  // compare the contents of layers' files, too: unpacks every blob a second time
  std::map<std::string, RegistryAuth> credentials;  // by auth_host(), for what is fetched again
};

/// Something that was found wrong, and what became of it.
struct Damage {
  std::string subject;  // "blob sha256:…", "layer sha256:…", "image sha256:…"
  std::string text;
  std::string outcome;
  bool repaired = false;
};
using DamageSink = std::function<void(const Damage&)>;

struct RepairReport {
  std::int64_t blobs = 0;
  std::int64_t blob_bytes = 0;
  std::int64_t layers = 0;
  std::int64_t repaired = 0;
  std::int64_t unrepaired = 0;
};

/// Lines for people.
std::string render_damage(const Damage& damage);
std::string render_report(const RepairReport& report);

/// Verifies every blob by its digest, every layer against what was unpacked, and every image's parts. A damaged blob is
/// put into quarantine and fetched again from a registry that is known to have it; a damaged layer is unpacked again
/// from its blob, unless a mounted root file system stands on it. Tells `sink` of each as it goes; publishes `repair`.
Task<RepairReport> repair(Context& context, RepairRequest request, DamageSink sink);

/// Fetches a blob from the repositories that are known to have it. The name of the one that had it; empty if none has.
/// What is stored already is left alone.
Task<std::string> refetch_blob(Context& context, std::vector<std::string> repositories, Descriptor blob,
                               std::map<std::string, RegistryAuth> credentials = {});

}  // namespace gantry::image
