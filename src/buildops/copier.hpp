#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "buildops/attributes.hpp"
#include "dockerfile/ignore.hpp"
#include "dockerfile/path_pattern.hpp"

namespace gantry::buildops {

/// Which paths below a copied directory are taken, told from their names relative to it.
class PathFilter {
 public:
  /// Empty lists take everything. Throws invalid_argument for a malformed pattern.
  PathFilter(const std::vector<std::string>& include, const std::vector<std::string>& exclude);

  struct Verdict {
    dockerfile::IgnoreMatcher::Verdict include;
    dockerfile::IgnoreMatcher::Verdict exclude;
  };
  /// `parent` is the verdict of the directory that holds `path`, the default at the top.
  Verdict judge(const std::string& path, Verdict parent) const;
  bool takes(Verdict verdict) const;
  /// Can something below this directory be taken?
  bool may_take_below(const std::string& directory, Verdict verdict) const;
  bool filters_in() const noexcept { return filters_in_; }

 private:
  dockerfile::IgnoreMatcher include_;
  dockerfile::IgnoreMatcher exclude_;
  std::vector<std::string> literal_beginnings_;  // of the include patterns
  bool filters_in_ = false;
};

struct CopierOptions {
  Looks looks;
  bool always_replace = false;
  std::function<void()> check;  // called for every entry, and within large files; throws to end it all
};

/// Copies one file or directory tree into another tree, merging directories. See copy.hpp for what it keeps; hard links
/// among the files that one object copies are kept as such.
class Copier {
 public:
  Copier(int source_root, int destination_root, const PathFilter& filter, const CopierOptions& options);

  /// From the source tree's `source` to exactly `destination`; both clean and without links on the way, the
  /// destination's directory exists. A directory that exists keeps its own attributes; those below get their source's.
  void copy(const std::string& source, const std::string& destination);

 private:
  struct Directory;
  void copy_entry(Directory& parent, const std::string& name, const std::string& target_name, bool top);
  void copy_directory(Directory& parent, const std::string& name, const struct stat& st, const std::string& target_name,
                      bool top, PathFilter::Verdict verdict, bool taken);
  void copy_other(Directory& parent, const std::string& name, const struct stat& st, const std::string& target_name);
  bool link_to_earlier(int target, const std::string& name, const std::string& path, const struct stat& st);
  void copy_file(int source, const std::string& name, int target, const std::string& target_name,
                 const std::string& path);
  void clear(int directory, const std::string& name, const std::string& path, bool for_directory);
  int require_target(Directory& directory);
  void finish(Directory& directory);

  const int source_root_;
  const int destination_root_;
  const PathFilter& filter_;
  const CopierOptions& options_;
  std::map<std::pair<dev_t, ino_t>, std::string> first_names_;  // files with several links: where they were copied to
};

}  // namespace gantry::buildops
