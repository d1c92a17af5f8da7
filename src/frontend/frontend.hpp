#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "dockerfile/location.hpp"
#include "frontend/options.hpp"
#include "frontend/resolver.hpp"

namespace gantry::frontend {

/// One platform of a result.
struct PlatformResult {
  std::string id;  // "linux/amd64"
  image::Platform platform;
  pb::Definition definition;  // without ops: the empty tree
  std::string config;
  std::string base_config;
};

/// What a build's frontend answers (buildkit.md §2.6).
struct FrontendResult {
  std::vector<PlatformResult> platforms;        // none for requests of another kind
  bool multi_platform = false;                  // the result is an index even if it has one platform
  std::map<std::string, std::string> metadata;  // with containerimage.config and refs.platforms, as clients get them
};

/// A failure with the place in the Dockerfile that it is about.
class FrontendError : public Error {
 public:
  FrontendError(const Error& cause, pb::SourceInfo source, dockerfile::LineRange lines)
      : Error(cause), source_(std::move(source)), lines_(lines) {}
  const pb::SourceInfo& source() const noexcept { return source_; }
  const dockerfile::LineRange& lines() const noexcept { return lines_; }

 private:
  pb::SourceInfo source_;
  dockerfile::LineRange lines_;
};

/// The frontend "dockerfile.v0": fetches the Dockerfile, converts it for each platform, or answers the request
/// (`frontend.lint`, `frontend.outline`, `frontend.targets`, `frontend.subrequests.describe`, `frontend.convertllb`).
/// Nothing but what the Dockerfile's text and metadata need is fetched or run. Warnings go to the resolver.
/// Blocks. Throws FrontendError; Error for options and what the resolver throws; not_implemented for an unknown request
/// and for a frontend that the file's `# syntax=` asks for and that is not built in.
FrontendResult build_dockerfile(const OptionMap& options, Resolver& resolver);

/// True for docker/dockerfile and docker/dockerfile-upstream in any version: this frontend.
bool is_own_syntax(const std::string& reference);

}  // namespace gantry::frontend
