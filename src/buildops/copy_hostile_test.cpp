#include <gtest/gtest.h>

#include <random>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.hpp"
#include "buildops/copy.hpp"
#include "buildops/test_support.hpp"
#include "buildops/tree_actions.hpp"

namespace gantry::buildops {
namespace {

using test::TemporaryDirectory;
using test::Tree;

/// Makes trees full of links that want to lead elsewhere, and requests that use them.
class Mischief {
 public:
  explicit Mischief(unsigned seed) : random_(seed) {}

  void fill(const Tree& tree) {
    for (int i = 0; i < 30; ++i) {
      const sys::Path path = tree.path() / path_of_names();
      switch (below(6)) {
        case 0: (void)::mkdir(path.c_str(), 0755); break;
        case 1: (void)::symlink(target().c_str(), path.c_str()); break;
        case 2: (void)::symlink(target().c_str(), path.c_str()); break;
        case 3: (void)::link((tree.path() / path_of_names()).c_str(), path.c_str()); break;
        case 4: (void)::mkfifo(path.c_str(), 0600); break;
        default: {
          // Not through what was linked before: only the code under test is to meet those.
          const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
          if (fd >= 0) ::close(fd);
        }
      }
    }
  }

  CopyRequest request() {
    CopyRequest r;
    r.source = "/" + messy_path();
    r.destination = "/" + messy_path() + (chance() ? "/" : "");
    r.follow_symlink = chance();
    r.directory_contents = chance();
    r.create_destination = chance();
    r.wildcards = chance();
    r.allow_empty_wildcard = chance();
    r.always_replace = chance();
    if (chance()) r.owner = Owner{below(3), below(3)};
    if (below(4) == 0) r.include = {path_of_names(), "**/" + name()};
    if (below(4) == 0) r.exclude = {name(), "!" + path_of_names()};
    return r;
  }

  std::string messy_path() {
    std::string path;
    for (unsigned i = 0; i <= below(4); ++i) {
      if (!path.empty()) path += '/';
      const unsigned kind = below(8);
      path += kind == 0 ? ".." : kind == 1 ? "*" : kind == 2 ? "." : name();
    }
    return path;
  }
  unsigned below(unsigned limit) { return static_cast<unsigned>(random_() % limit); }
  bool chance() { return below(2) == 0; }

 private:
  std::string name() { return std::string(1, static_cast<char>('a' + below(5))); }
  std::string path_of_names() {
    std::string path = name();
    while (below(3) == 0) path += "/" + name();
    return path;
  }
  std::string target() {
    const char* const kinds[] = {"..", "../..", "../../outside", "/", "/outside", ".", "../../../../../../var/tmp"};
    return below(2) == 0 ? path_of_names() : std::string(kinds[below(7)]) + (chance() ? "/" + name() : "");
  }
  std::mt19937 random_;
};

TEST(CopyHostile, NothingOutsideOfTheTreesIsTouched) {
  for (unsigned seed = 0; seed < 150; ++seed) {
    TemporaryDirectory scratch;
    Tree outside(scratch / "outside");
    for (const char* name : {"a", "b/a", "c/d/e"}) outside.file(name, "secret of the host");
    const auto before = outside.describe();
    Tree from(scratch / "from");
    Tree to(scratch / "to");
    Mischief mischief(seed);
    mischief.fill(from);
    mischief.fill(to);
    // Links that were made through links may lie outside of the two already.
    const auto around = Tree(scratch.path()).describe().size() - from.describe().size() - to.describe().size();
    const auto source = from.describe();
    int done = 0;
    for (int i = 0; i < 20; ++i) {
      try {
        copy(from.fd(), to.fd(), mischief.request(), {});
        ++done;
      } catch (const Error&) {
      }
      try {
        switch (mischief.below(4)) {
          case 0: remove_path(to.fd(), mischief.messy_path(), mischief.chance(), mischief.chance()); break;
          case 1: make_file(to.fd(), mischief.messy_path(), 0644, "written", {}); break;
          case 2: make_directory(to.fd(), mischief.messy_path(), 0755, mischief.chance(), {}); break;
          default: make_symlink(to.fd(), "/outside/a", mischief.messy_path(), {}); break;
        }
      } catch (const Error&) {
      }
    }
    for (const auto& [path, look] : to.describe()) ASSERT_EQ(look.find("secret"), std::string::npos) << path;
    ASSERT_EQ(from.describe(), source) << "seed " << seed << ": the source is only read";
    for (const auto& [path, look] : before) ASSERT_EQ(outside.look(path), look) << "seed " << seed;
    ASSERT_EQ(Tree(scratch.path()).describe().size() - from.describe().size() - to.describe().size(), around)
        << "seed " << seed << ": nothing appears outside, after " << done << " copies";
  }
}

}  // namespace
}  // namespace gantry::buildops
