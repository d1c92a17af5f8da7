#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/stat.h>

#include "sys/fd.hpp"

namespace gantry::session {

/// A directory that a listing is in.
struct OpenDirectory {
  std::string path;                   // relative to the root; "" is the root
  sys::Fd fd;                         // empty: the root's own descriptor
  std::vector<std::string> existing;  // what is there, sorted
  std::size_t next = 0;               // the first of `existing` that the listing has not passed
  std::string last;                   // the name that was listed last
};

/// Walks an existing tree beside a listing that comes entry by entry, sorted by name in each directory, parents before
/// children. What the listing has passed and not named is handed to `remove`.
class TreeListing {
 public:
  /// `root` stays open as long as this. `remove(directory fd, name, path)`.
  TreeListing(int root, std::function<void(int, const std::string&, const std::string&)> remove);

  struct Place {
    int directory = -1;  // open until the next call
    std::string name;
    bool exists = false;
    struct stat st{};  // if it exists; not followed
  };
  /// Goes to the next entry. Throws invalid_argument for a path that is not clean and relative, is out of order, too
  /// long, too deep, or not below a directory that was entered.
  Place place(const std::string& path);
  /// The entry just placed is a directory now: its entries follow.
  void enter(const Place& place, const std::string& path);
  /// The listing has ended.
  void finish();

 private:
  void leave();
  int fd_of(const OpenDirectory& directory) const { return directory.fd ? directory.fd.get() : root_; }
  void drop_next(OpenDirectory& directory);

  int root_;
  std::function<void(int, const std::string&, const std::string&)> remove_;
  std::vector<OpenDirectory> stack_;
};

/// The names in a directory, sorted by their bytes.
std::vector<std::string> sorted_names(int directory);

}  // namespace gantry::session
