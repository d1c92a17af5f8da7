#pragma once

#include <memory>
#include <optional>
#include <string>

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "buildcache/cache.hpp"
#include "sys/file.hpp"
#include "sys/mount.hpp"

/// For tests of this module and of the solver.
namespace gantry::buildcache::test {

/// Mounts of the tests are seen by nobody else, and go with the process. One in each test program.
class PrivateMounts : public testing::Environment {
 public:
  void SetUp() override {
    ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
  }
};

/// A cache in a directory of its own.
class CacheTest : public testing::Test {
 protected:
  CacheTest() {
    std::string name = "/tmp/gantry-cache-test-XXXXXX";
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    root_ = name;
    reopen();
  }
  ~CacheTest() override {
    cache_.reset();
    sys::unmount_all(root_);
    sys::remove_tree(root_);
  }

  /// As another worker would find it.
  void reopen() {
    cache_.reset();
    cache_.emplace(root_ / "cache", hooks_);
  }
  static void write(const sys::Path& path, std::string_view text, mode_t mode = 0644) {
    sys::make_directories(path.parent_path());
    sys::write_atomically(path, text, mode, false);
    ASSERT_EQ(::chmod(path.c_str(), mode), 0);
  }
  /// A tree on `parent` with one more file.
  SnapshotPtr make(const SnapshotPtr& parent, const std::string& file, std::string_view text = "text",
                   RecordType type = RecordType::regular) {
    auto workspace = cache_->snapshots().create(parent, type, "made " + file);
    write(workspace->mount() / file, text);
    return workspace->commit();
  }
  std::string read(const SnapshotPtr& snapshot, const std::string& file) {
    const auto view = cache_->snapshots().view(snapshot);
    return sys::find_file(view->path() / file).value_or("(none)");
  }
  std::size_t trees() const { return sys::list_directory(root_ / "cache/trees").size(); }
  std::size_t mounts() const { return sys::list_mounts(root_).size(); }

  sys::Path root_;
  LayerHooks hooks_;
  std::optional<Cache> cache_;
};

template <class Body>
std::string error_of(Body&& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.message();
  }
  ADD_FAILURE() << "no error";
  return {};
}

}  // namespace gantry::buildcache::test
