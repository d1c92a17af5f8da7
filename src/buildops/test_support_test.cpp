#include "buildops/test_support.hpp"

#include <gtest/gtest.h>

#include <cstdlib>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "storage/tree.hpp"

namespace gantry::buildops::test {
namespace {

void describe_below(const Tree& tree, int directory, const std::string& prefix,
                    std::map<std::string, std::string>& into) {
  for (const std::string& name : storage::list_names(directory)) {
    into[prefix + name] = tree.look(prefix + name);
    const auto st = storage::find_stat(directory, name.c_str());
    if (S_ISDIR(st->st_mode))
      describe_below(tree, storage::open_subdirectory(directory, name.c_str()).get(), prefix + name + "/", into);
  }
}

}  // namespace

TemporaryDirectory::TemporaryDirectory() {
  std::string pattern = "/var/tmp/gantry-buildops-XXXXXX";
  if (::mkdtemp(pattern.data()) == nullptr) throw Error::from_errno(errno, "mkdtemp");
  path_ = pattern;
}

TemporaryDirectory::~TemporaryDirectory() { sys::remove_tree(path_); }

Tree::Tree(sys::Path path) : path_(std::move(path)) {
  sys::make_directories(path_);
  root_ = sys::open_file(path_, O_RDONLY | O_DIRECTORY);
}

Tree& Tree::directory(const std::string& name, mode_t mode, uid_t owner) {
  sys::make_directories(path_ / name);
  EXPECT_EQ(::chown((path_ / name).c_str(), owner, owner), 0);
  EXPECT_EQ(::chmod((path_ / name).c_str(), mode), 0);
  return *this;
}

Tree& Tree::file(const std::string& name, std::string_view content, mode_t mode, uid_t owner) {
  sys::make_directories((path_ / name).parent_path());
  const sys::Fd file = sys::open_file(path_ / name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  sys::write_all(file.get(), content);
  EXPECT_EQ(::fchown(file.get(), owner, owner), 0);
  EXPECT_EQ(::fchmod(file.get(), mode), 0);
  return *this;
}

Tree& Tree::symlink(const std::string& name, const std::string& target) {
  sys::make_directories((path_ / name).parent_path());
  EXPECT_EQ(::symlink(target.c_str(), (path_ / name).c_str()), 0);
  return *this;
}

Tree& Tree::hardlink(const std::string& name, const std::string& earlier) {
  EXPECT_EQ(::link((path_ / earlier).c_str(), (path_ / name).c_str()), 0);
  return *this;
}

std::string Tree::read(const std::string& name) const { return sys::read_file(path_ / name); }

std::string Tree::look(const std::string& name) const {
  struct stat st{};
  const sys::Path path = path_ / name;
  if (::lstat(path.c_str(), &st) != 0) return {};
  const std::string common = fmt::format("{:04o} {}:{}", st.st_mode & 07777, st.st_uid, st.st_gid);
  switch (st.st_mode & S_IFMT) {
    case S_IFDIR: return "d " + common;
    case S_IFLNK: return "l -> " + storage::read_link(AT_FDCWD, path.c_str());
    case S_IFREG: return fmt::format("f {} {}", common, st.st_size < 4096 ? sys::read_file(path) : "…");
    case S_IFIFO: return "p " + common;
    case S_IFSOCK: return "s " + common;
    default: return fmt::format("c {} {}:{}", common, major(st.st_rdev), minor(st.st_rdev));
  }
}

std::map<std::string, std::string> Tree::describe() const {
  std::map<std::string, std::string> out;
  describe_below(*this, root_.get(), "", out);
  return out;
}

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.message();
  }
  ADD_FAILURE() << "no error";
  return {};
}

}  // namespace gantry::buildops::test
