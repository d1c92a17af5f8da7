#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace gantry::logdriver {

/// What gantry-log is told: the driver's options under their own names, and what the daemon found out for it:
///   driver, tag, container_id, container_name (with Docker's slash), image_id, image_name, command, created
///   drop     1: output is dropped rather than the container stopped
///   restarted  1: the container runs already, so a server that is away is waited for
///   buffer   bytes that wait for a slow server
///   extra.X  a label or variable that was asked for
class Settings {
 public:
  Settings() = default;
  explicit Settings(std::map<std::string, std::string> values) : values_(std::move(values)) {}
  /// "key=value" for each.
  static Settings parse(const std::vector<std::string>& pairs);

  bool has(const std::string& key) const { return values_.contains(key); }
  /// Empty if it is not there.
  std::string get(const std::string& key) const;
  std::string get(const std::string& key, std::string_view fallback) const;
  /// 0 or false if it is not there; the daemon has checked what the user wrote.
  long long number(const std::string& key, long long fallback = 0) const;
  bool flag(const std::string& key) const;
  /// The labels and variables, without the prefix.
  std::map<std::string, std::string> extras() const;

 private:
  std::map<std::string, std::string> values_;
};

}  // namespace gantry::logdriver
