#include "buildops/tree_path.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "buildops/mode_change.hpp"
#include "buildops/owner.hpp"
#include "buildops/test_support.hpp"

#include <sys/stat.h>

namespace gantry::buildops {
namespace {

using test::error_of;
using test::TemporaryDirectory;
using test::Tree;

TEST(TreePath, GlobsMatchAsInGo) {
  EXPECT_TRUE(match_glob("a*c", "abc"));
  EXPECT_TRUE(match_glob("a*c*e", "abcde"));
  EXPECT_TRUE(match_glob("*", "abc"));
  EXPECT_FALSE(match_glob("*", "a/b"));
  EXPECT_TRUE(match_glob("*/b", "a/b"));
  EXPECT_FALSE(match_glob("*/b", "a/x/b"));
  EXPECT_TRUE(match_glob("a*/b", "abc/b"));
  EXPECT_FALSE(match_glob("a*/b", "a/c/b"));
  EXPECT_TRUE(match_glob("a*b*c*d*e*/f", "axbxcxdxe/f"));
  EXPECT_FALSE(match_glob("a*b*c*d*e*/f", "axbxcxdxe/xxx/f"));
  EXPECT_TRUE(match_glob("a*b?c*x", "abxbbxdbxebxczzx"));
  EXPECT_FALSE(match_glob("a*b?c*x", "abxbbxdbxebxczzy"));
  EXPECT_TRUE(match_glob("ab[c]", "abc"));
  EXPECT_TRUE(match_glob("ab[b-d]", "abc"));
  EXPECT_FALSE(match_glob("ab[^b-d]", "abc"));
  EXPECT_TRUE(match_glob("a\\*b", "a*b"));
  EXPECT_FALSE(match_glob("a\\*b", "ab"));
  EXPECT_TRUE(match_glob("a?b", "a☺b"));
  EXPECT_TRUE(match_glob("a[^a]b", "a☺b"));
  EXPECT_FALSE(match_glob("a???b", "a☺b"));
  EXPECT_TRUE(match_glob("[a-ζ]*", "α"));
  EXPECT_FALSE(match_glob("*[a-ζ]", "A"));
  EXPECT_FALSE(match_glob("[]a]", "]"));
  EXPECT_FALSE(match_glob("[-x]", "x"));
  EXPECT_TRUE(match_glob("[\\-x]", "-"));
  EXPECT_FALSE(match_glob("a[", "a"));
  EXPECT_FALSE(match_glob("a[", "ab"));
  EXPECT_TRUE(match_glob("*x", "xxx"));
  EXPECT_FALSE(match_glob("", "x"));
  EXPECT_TRUE(match_glob("", ""));
}

TEST(TreePath, ResolvingStaysInsideAndFollowsWhatExists) {
  TemporaryDirectory scratch;
  Tree tree(scratch / "t");
  tree.directory("real/deep").symlink("out", "/../../../etc").symlink("up", "../../..").symlink("abs", "/real");
  tree.symlink("loop", "loop2").symlink("loop2", "loop").symlink("new", "real/not/there").symlink("real/last", "deep");
  EXPECT_EQ(resolve_path(tree.fd(), "/out/passwd"), "etc/passwd");
  EXPECT_EQ(resolve_path(tree.fd(), "up/real"), "real");
  EXPECT_EQ(resolve_path(tree.fd(), "abs/last"), "real/deep");
  EXPECT_EQ(resolve_path(tree.fd(), "abs/last", false), "real/last");
  EXPECT_EQ(resolve_path(tree.fd(), "abs/last/", false), "real/last");
  EXPECT_EQ(resolve_path(tree.fd(), "new/x"), "real/not/there/x");
  EXPECT_EQ(resolve_path(tree.fd(), "abs/../x"), "x");
  EXPECT_EQ(resolve_path(tree.fd(), "/"), "");
  EXPECT_EQ(error_of([&] { resolve_path(tree.fd(), "loop/x"); }), "too many links: /loop/x");
}

TEST(TreePath, WildcardsAreExpandedInTheOrderOfAWalk) {
  TemporaryDirectory scratch;
  Tree tree(scratch / "t");
  tree.file("b1").file("a1").file("d/x1").file("d/x2").file("d/sub/x3").symlink("s", "/d").directory("x9/inner");
  using Names = std::vector<std::string>;
  EXPECT_EQ(expand_wildcards(tree.fd(), "/*1", true), (Names{"a1", "b1"}));
  EXPECT_EQ(expand_wildcards(tree.fd(), "/*", true), (Names{"a1", "b1", "d", "s", "x9"}));
  EXPECT_EQ(expand_wildcards(tree.fd(), "*/x?", true), (Names{"d/x1", "d/x2"}));
  EXPECT_EQ(expand_wildcards(tree.fd(), "s/x*", true), (Names{"d/x1", "d/x2"}));
  EXPECT_EQ(expand_wildcards(tree.fd(), "s/x*", false), Names{});
  EXPECT_EQ(expand_wildcards(tree.fd(), "none/x*", true), Names{});
  EXPECT_EQ(expand_wildcards(tree.fd(), "plain", true), Names{"plain"});
}

TEST(ModeChange, SymbolicModesActAsChmodDoes) {
  const mode_t file = S_IFREG;
  const mode_t directory = S_IFDIR;
  const auto apply = [](const char* text, mode_t mode) { return ModeChange::parse(text).apply(mode); };
  EXPECT_EQ(apply("0644", file | 0777), 0644U);
  EXPECT_EQ(apply("7777", file), 07777U);
  EXPECT_EQ(apply("0", file | 0777), 0U);
  EXPECT_EQ(apply("u=rwX,go=rX", file | 0600), 0644U);
  EXPECT_EQ(apply("u=rwX,go=rX", file | 0700), 0755U);
  EXPECT_EQ(apply("u=rwX,go=rX", directory | 0700), 0755U);
  EXPECT_EQ(apply("a+X", file | 0644), 0644U);
  EXPECT_EQ(apply("a+X", directory | 0644), 0755U);
  EXPECT_EQ(apply("go-w", file | 0777), 0755U);
  EXPECT_EQ(apply("u+s,g+s,+t", file | 0755), 07755U);
  EXPECT_EQ(apply("g=u", file | 0640), 0660U);
  EXPECT_EQ(apply("+x-w", file | 0644), 0555U);
  EXPECT_EQ(apply("a=rx", directory | 02700), 02555U);
  for (const char* wrong : {"64a", "10000", "", "u", "u=q", "u+rg", "rw", "u*r", "u=rw,", "0o644", "-1", "888"})
    EXPECT_EQ(error_of([&] { ModeChange::parse(wrong); }), "invalid chmod parameter: '" + std::string(wrong) +
                                                               "'. it should be octal string and between 0 and 07777");
}

TEST(Owner, NamesAreLookedUpInTheTree) {
  TemporaryDirectory scratch;
  Tree tree(scratch / "t");
  tree.file("etc/passwd", "root:x:0:0::/:\nweb:x:33:34::/:\n").file("etc/group", "staff:x:50:web\n");
  const auto both = resolve_owner(tree.fd(), {"web", {}}, {"staff", {}});
  EXPECT_EQ(both->uid, 33U);
  EXPECT_EQ(both->gid, 50U);
  EXPECT_EQ(resolve_owner(tree.fd(), {"web", {}}, {})->gid, 34U);
  EXPECT_EQ(resolve_owner(tree.fd(), {{}, 7}, {})->gid, 7U);
  EXPECT_EQ(resolve_owner(tree.fd(), {{}, 7}, {{}, 8})->gid, 8U);
  EXPECT_EQ(resolve_owner(tree.fd(), {"nobody-here", {}}, {})->uid, 0U);
  EXPECT_EQ(resolve_owner(-1, {"web", {}}, {})->uid, 0U);
  EXPECT_FALSE(resolve_owner(tree.fd(), {}, {}));
}

}  // namespace
}  // namespace gantry::buildops
