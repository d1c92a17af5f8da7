#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "dockerfile/checks.hpp"
#include "frontend/options.hpp"
#include "proto/ops.pb.h"

namespace gantry::frontend {

/// A frontend's sight of the world: who runs builds implements it. Every call may block and throws Error; a failed
/// step's text is the one that users see.
class Resolver {
 public:
  virtual ~Resolver() = default;

  struct ImageAnswer {
    std::string digest;       // of what the reference names now
    std::string config;       // the config blob for the platform
    std::string reference{};  // what the op is to name; empty: the reference with the digest
  };
  /// Shown as a step of its own, `log_name`.
  virtual ImageAnswer resolve_image(const std::string& reference, const image::Platform& platform, ResolveMode mode,
                                    const std::string& log_name) = 0;

  /// Runs the definition and reads a file of its result, up to `limit` bytes from its start. nullopt: no such file.
  virtual std::optional<std::string> read_file(const pb::Definition& definition, const std::string& path,
                                               std::size_t limit) = 0;

  /// What the client sent along under this key (`context:x=input:KEY`). nullopt: nothing.
  virtual std::optional<pb::Definition> find_input(const std::string& key) = 0;

  /// The client that has the context.
  virtual std::string session_id() const = 0;

  virtual void warn(const dockerfile::Warning& warning, const pb::SourceInfo& source) = 0;
};

}  // namespace gantry::frontend
