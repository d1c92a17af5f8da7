#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "storage/byte_source.hpp"
#include "storage/decompress.hpp"
#include "storage/tar_writer.hpp"
#include "storage/unpack.hpp"
#include "sys/file.hpp"

/// For the tests of this module only.
namespace gantry::storage::test {

/// A directory that goes with everything in it, mounts too.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const sys::Path& path() const { return path_; }
  sys::Path operator/(const std::string& name) const { return path_ / name; }
  sys::Fd open() const;

 private:
  sys::Path path_;
};

/// Writes tars, wrong ones too.
class TarBuilder {
 public:
  TarBuilder() : writer_(sink_) {}
  TarBuilder& directory(const std::string& name, mode_t mode = 0755);
  TarBuilder& file(const std::string& name, std::string_view content = "", mode_t mode = 0644);
  TarBuilder& symlink(const std::string& name, const std::string& target);
  TarBuilder& hardlink(const std::string& name, const std::string& target);
  TarBuilder& device(const std::string& name, unsigned major, unsigned minor);
  TarBuilder& entry(const TarEntry& entry, std::string_view content = "");
  /// PAX records ("uid=4294967296"), in front of the next entry.
  TarBuilder& pax(const std::vector<std::string>& records);
  TarBuilder& raw(std::string_view bytes);
  std::string finish();

 private:
  std::string bytes_;
  ByteSink sink_ = [this](std::string_view bytes) { bytes_ += bytes; };
  TarWriter writer_;
};

std::string compress(Compression kind, const std::string& bytes);
UnpackResult unpack_bytes(const TemporaryDirectory& root, std::string tar, UnpackMode mode,
                          const UnpackBudget& budget = {});
std::string pack_directory(const sys::Path& path, const struct PackOptions& options);
/// What `find` would print: path below `root` → "type mode uid gid size-or-target", for comparing trees.
std::map<std::string, std::string> describe_tree(const sys::Path& root);
/// The message of the Error that `body` throws; fails the test if there is none.
std::string error_of(const std::function<void()>& body);

}  // namespace gantry::storage::test
