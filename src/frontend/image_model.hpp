#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/object.hpp>

#include "base/time.hpp"
#include "dockerfile/instruction.hpp"
#include "image/platform.hpp"

namespace gantry::frontend {

/// One line of an image's history.
struct HistoryItem {
  std::string created_by;
  bool empty_layer = false;
};

/// The config of an image while a build changes it: what the base said, with this build's instructions applied.
/// Members that no instruction knows are kept as the base has them.
class ImageModel {
 public:
  /// FROM scratch: no layers, the default PATH, "/" as the working directory.
  static ImageModel scratch(const image::Platform& platform);
  /// A base image's config blob, to build upon: its time of creation does not count any more. Throws
  /// invalid_argument for what is no image config.
  static ImageModel from_config(std::string_view bytes);

  /// The config blob's text: members at the top sorted, those of `config` in Docker's order, nothing empty.
  std::string render() const;
  /// `config` alone, for stages' facts in checks.
  const image::Platform& platform() const noexcept { return platform_; }
  void set_platform(const image::Platform& platform) { platform_ = platform; }

  std::vector<std::string> env;
  std::string user;
  std::string working_directory;
  std::optional<std::vector<std::string>> entrypoint;
  std::optional<std::vector<std::string>> cmd;
  bool args_escaped = false;
  std::vector<std::string> shell;  // empty: the default one
  std::map<std::string, std::string> labels;
  std::set<std::string> exposed_ports;
  std::set<std::string> volumes;
  std::vector<std::string> on_build;
  std::string stop_signal;
  std::string author;
  std::optional<dockerfile::HealthcheckInstruction> health_check;

  /// Appends PATH if the base has none.
  void ensure_path();
  /// Replaces in place, or appends.
  void set_env(const std::string& name, const std::string& value);
  /// `created`: for SOURCE_DATE_EPOCH; else the exporter fills it in.
  void add_history(std::string created_by, std::string comment, bool empty_layer,
                   std::optional<Timestamp> created = {});
  std::size_t history_size() const noexcept { return history_.size(); }
  void set_created(Timestamp created) { created_ = created; }

 private:
  boost::json::object render_config() const;

  boost::json::object top_;     // members that are not modelled
  boost::json::object config_;  // the same of `config`
  boost::json::array diff_ids_;
  boost::json::array history_;
  image::Platform platform_;
  std::vector<std::string> os_features_;
  std::optional<Timestamp> created_;
};

/// Fields of a base image's config that a build looks at without building upon it.
std::vector<std::string> on_build_triggers(std::string_view config);

}  // namespace gantry::frontend
