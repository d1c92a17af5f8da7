#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "frontend/frontend.hpp"

namespace gantry::frontend {

/// A client with files, and a registry with images, in memory. For tests.
class FakeResolver : public Resolver {
 public:
  std::map<std::string, std::string> files;   // "/Dockerfile" …, whatever source they are asked of
  std::map<std::string, std::string> images;  // canonical reference to config
  std::map<std::string, pb::Definition> inputs;
  std::vector<std::string> resolved;  // log names
  std::vector<std::string> warnings;

  ImageAnswer resolve_image(const std::string& reference, const image::Platform&, ResolveMode,
                            const std::string& log_name) override {
    resolved.push_back(log_name);
    const auto it = images.find(reference);
    if (it == images.end()) throw Error(Errc::not_found, "not found");
    return {"sha256:" + std::string(64, 'a'), it->second};
  }
  std::optional<std::string> read_file(const pb::Definition&, const std::string& path, std::size_t limit) override {
    const auto it = files.find(path);
    if (it == files.end()) return std::nullopt;
    return it->second.substr(0, limit);
  }
  std::optional<pb::Definition> find_input(const std::string& key) override {
    const auto it = inputs.find(key);
    if (it == inputs.end()) return std::nullopt;
    return it->second;
  }
  std::string session_id() const override { return "session"; }
  void warn(const dockerfile::Warning& warning, const pb::SourceInfo&) override { warnings.push_back(warning.text()); }
};

inline constexpr const char* kBusyboxConfig =
    R"({"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":["sh"]},)"
    R"("rootfs":{"type":"layers","diff_ids":["sha256:1111111111111111111111111111111111111111111111111111111111111111"]},)"
    R"("history":[{"created":"2026-01-01T00:00:00Z","created_by":"base"}]})";

}  // namespace gantry::frontend
