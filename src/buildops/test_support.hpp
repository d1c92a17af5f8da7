#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include <sys/types.h>

#include "sys/fd.hpp"
#include "sys/file.hpp"

/// For the tests of this module only.
namespace gantry::buildops::test {

/// A directory that goes with everything in it.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const sys::Path& path() const { return path_; }
  sys::Path operator/(const std::string& name) const { return path_ / name; }

 private:
  sys::Path path_;
};

/// A tree to copy from or into.
class Tree {
 public:
  explicit Tree(sys::Path path);
  const sys::Path& path() const { return path_; }
  int fd() const { return root_.get(); }
  Tree& directory(const std::string& name, mode_t mode = 0755, uid_t owner = 0);
  Tree& file(const std::string& name, std::string_view content = "", mode_t mode = 0644, uid_t owner = 0);
  Tree& symlink(const std::string& name, const std::string& target);
  Tree& hardlink(const std::string& name, const std::string& earlier);
  std::string read(const std::string& name) const;
  /// "d 0755 0:0", "f 0644 0:0 <content>", "l -> target", "c 0600 0:0 1:3"; empty if there is nothing.
  std::string look(const std::string& name) const;
  /// All of it: path → look.
  std::map<std::string, std::string> describe() const;

 private:
  sys::Path path_;
  sys::Fd root_;
};

/// The message of the Error that `body` throws; fails the test if there is none.
std::string error_of(const std::function<void()>& body);

}  // namespace gantry::buildops::test
