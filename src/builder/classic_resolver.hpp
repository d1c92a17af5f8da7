#pragma once

#include <stop_token>
#include <string>

#include "builder/classic_options.hpp"
#include "builder/classic_stream.hpp"
#include "builder/services.hpp"
#include "frontend/resolver.hpp"
#include "solver/job.hpp"

namespace gantry::builder {

/// A classic build's sight of the world: images by name or ID, pulls shown as `docker pull` shows them.
class ClassicResolver : public frontend::Resolver {
 public:
  ClassicResolver(const Services& services, solver::JobPtr job, const ClassicOptions& options, ClassicStream& stream,
                  std::stop_token stop)
      : services_(services), job_(std::move(job)), options_(options), stream_(stream), stop_(std::move(stop)) {}

  ImageAnswer resolve_image(const std::string& reference, const image::Platform& platform, frontend::ResolveMode mode,
                            const std::string& log_name) override;
  std::optional<std::string> read_file(const pb::Definition& definition, const std::string& path,
                                       std::size_t limit) override;
  std::optional<pb::Definition> find_input(const std::string& key) override;
  std::string session_id() const override { return {}; }
  void warn(const dockerfile::Warning& warning, const pb::SourceInfo& source) override;

  /// The image ID that a FROM of this reference stands for; empty if none was asked for.
  std::string image_id(const std::string& reference) const;

 private:
  const Services services_;
  solver::JobPtr job_;
  const ClassicOptions& options_;
  ClassicStream& stream_;
  std::stop_token stop_;
  std::map<std::string, std::string> ids_;
};

}  // namespace gantry::builder
