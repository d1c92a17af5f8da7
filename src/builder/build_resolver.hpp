#pragma once

#include <map>
#include <optional>
#include <stop_token>
#include <string>

#include "builder/services.hpp"
#include "frontend/resolver.hpp"
#include "solver/job.hpp"

namespace gantry::builder {

/// A frontend's sight of one build: images of the engine, files that the build's graph makes, what its client sent.
class BuildResolver final : public frontend::Resolver {
 public:
  BuildResolver(const Services& services, solver::JobPtr job, std::string session,
                std::map<std::string, pb::Definition> inputs, std::stop_token stop)
      : services_(services),
        job_(std::move(job)),
        session_(std::move(session)),
        inputs_(std::move(inputs)),
        stop_(std::move(stop)) {}

  ImageAnswer resolve_image(const std::string& reference, const image::Platform& platform, frontend::ResolveMode mode,
                            const std::string& log_name) override;
  std::optional<std::string> read_file(const pb::Definition& definition, const std::string& path,
                                       std::size_t limit) override;
  std::optional<pb::Definition> find_input(const std::string& key) override;
  std::string session_id() const override { return session_; }
  void warn(const dockerfile::Warning& warning, const pb::SourceInfo& source) override;

 private:
  const Services& services_;
  const solver::JobPtr job_;
  const std::string session_;
  const std::map<std::string, pb::Definition> inputs_;
  const std::stop_token stop_;
};

}  // namespace gantry::builder
