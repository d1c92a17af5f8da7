#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/stat.h>

#include "base/error.hpp"
#include "buildops/world_for_test.hpp"
#include "storage/tar_writer.hpp"

namespace gantry::buildops {
namespace {

using buildcache::SnapshotPtr;
using test::error_of;
using test::Tree;
using test::World;

class FileOp : public ::testing::Test {
 protected:
  static pb::FileAction& action(pb::Op& op, std::int64_t input, std::int64_t secondary, std::int64_t output) {
    pb::FileAction& action = *op.mutable_file()->add_actions();
    action.set_input(input);
    action.set_secondary_input(secondary);
    action.set_output(output);
    return action;
  }
  /// As the frontend asks for COPY or ADD.
  static pb::FileActionCopy& copy(pb::FileAction& action, const std::string& source, const std::string& destination) {
    pb::FileActionCopy& copy = *action.mutable_copy();
    copy.set_src(source);
    copy.set_dest(destination);
    copy.set_mode(-1);
    copy.set_timestamp(-1);
    copy.set_follow_symlink(true);
    copy.set_dir_copy_contents(true);
    copy.set_create_dest_path(true);
    copy.set_allow_wildcard(true);
    copy.set_allow_empty_wildcard(true);
    return copy;
  }
  SnapshotPtr run(const pb::Op& op, const std::vector<SnapshotPtr>& inputs) {
    return world.execute(world.vertex(op, inputs.size()), inputs).at(0);
  }

  World world;
};

TEST_F(FileOp, ActionsThatFollowEachOtherMakeOneLayer) {
  const SnapshotPtr base = world.tree([](Tree& tree) { tree.file("old", "old").directory("etc"); });
  const SnapshotPtr context = world.tree([](Tree& tree) { tree.file("a", "A").file("b", "B"); });
  pb::Op op;
  copy(action(op, 0, 1, -1), "/a", "/dir/");
  copy(action(op, 2, 1, -1), "/b", "/dir/");
  pb::FileActionMkFile& file = *action(op, 3, -1, -1).mutable_mkfile();
  file.set_path("/dir/c");
  file.set_mode(0600);
  file.set_data("C");
  file.set_timestamp(-1);
  action(op, 4, -1, 0).mutable_rm()->set_path("/old");
  const SnapshotPtr made = run(op, {base, context});
  EXPECT_EQ(made->parent(), base);
  EXPECT_EQ(world.look(made), (std::map<std::string, std::string>{{"etc", "d 0755 0:0"},
                                                                  {"dir", "d 0755 0:0"},
                                                                  {"dir/a", "f 0644 0:0 A"},
                                                                  {"dir/b", "f 0644 0:0 B"},
                                                                  {"dir/c", "f 0600 0:0 C"}}));
  EXPECT_EQ(world.look(base, "old"), "f 0644 0:0 old");
}

TEST_F(FileOp, AStepMayStartFromNothingAndUseItsOwnResults) {
  pb::Op op;
  pb::FileActionMkDir& directory = *action(op, -1, -1, 0).mutable_mkdir();
  directory.set_path("/cache/deep");
  directory.set_mode(0700);
  directory.set_make_parents(true);
  directory.mutable_owner()->mutable_user()->set_by_id(5);
  directory.set_timestamp(1'000'000'000);
  copy(action(op, -1, 0, 1), "/cache", "/copied");
  const auto made = world.execute(world.vertex(op, 0), {});
  ASSERT_EQ(made.size(), 2U);
  EXPECT_EQ(world.look(made[0], "cache/deep"), "d 0700 5:5");
  EXPECT_EQ(world.look(made[1], "copied/deep"), "d 0700 5:5");
}

TEST_F(FileOp, OwnersAreLookedUpInTheTreeThatIsWrittenTo) {
  const SnapshotPtr base =
      world.tree([](Tree& tree) { tree.file("etc/passwd", "web:x:33:34::/:\n").file("etc/group", "staff:x:50:\n"); });
  const SnapshotPtr context =
      world.tree([](Tree& tree) { tree.file("f", "x", 0640, 9).file("etc/passwd", "web:x:99:99::/:\n"); });
  pb::Op op;
  pb::FileActionCopy& c = copy(action(op, 0, 1, 0), "/f", "/new/f");
  c.mutable_owner()->mutable_user()->mutable_by_name()->set_name("web");
  c.mutable_owner()->mutable_group()->mutable_by_name()->set_name("staff");
  c.set_mode_str("u+x");
  const SnapshotPtr made = run(op, {base, context});
  EXPECT_EQ(world.look(made, "new/f"), "f 0740 33:50 x");
  EXPECT_EQ(world.look(made, "new"), "d 0755 33:50");
}

TEST_F(FileOp, ArchivesAreUnpackedByContentAndStayInside) {
  const auto archive = [](const std::function<void(storage::TarWriter&)>& fill) {
    std::string bytes;
    const storage::ByteSink sink = [&](std::string_view piece) { bytes += piece; };
    storage::TarWriter writer(sink);
    fill(writer);
    writer.finish();
    return bytes;
  };
  const std::string good = archive([](storage::TarWriter& writer) {
    storage::TarEntry entry;
    entry.type = storage::TarType::symlink;
    entry.name = "link";
    entry.link = "/../../tmp";
    writer.write_header(entry);
    entry = {};
    entry.name = "link/inside";
    entry.mode = 0600;
    entry.uid = 7;
    writer.write_header(entry);
  });
  const SnapshotPtr context = world.tree([&](Tree& tree) {
    tree.file("no-suffix", good).file("text.tar", "this is no archive at all").file("empty.tar.gz", "");
  });
  pb::Op op;
  copy(action(op, -1, 0, 0), "/*", "/d/").set_attempt_unpack(true);
  const SnapshotPtr made = run(op, {context});
  EXPECT_EQ(world.look(made),
            (std::map<std::string, std::string>{{"d", "d 0755 0:0"},
                                                {"d/link", "l -> /../../tmp"},
                                                {"d/text.tar", "f 0644 0:0 this is no archive at all"},
                                                {"d/empty.tar.gz", "f 0644 0:0 "},
                                                {"tmp", "d 0755 0:0"},
                                                {"tmp/inside", "f 0600 7:0 "}}));
  pb::Op owned;
  pb::FileActionCopy& c = copy(action(owned, -1, 0, 0), "/no-suffix", "/d/");
  c.set_attempt_unpack(true);
  c.mutable_owner()->mutable_user()->set_by_id(100);
  EXPECT_EQ(world.look(run(owned, {context}), "tmp/inside"), "f 0600 100:100 ");
}

TEST_F(FileOp, OnlyTheContentOfWhatIsCopiedMakesTheKey) {
  pb::Op op;
  pb::FileActionCopy& c = copy(action(op, 0, 1, 0), "/some/where/a*", "/dest");
  c.add_exclude_patterns("*.o");
  const solver::CacheMap map = world.cache_map(world.vertex(op, 2));
  ASSERT_EQ(map.deps.size(), 2U);
  EXPECT_FALSE(map.deps[0].by_content);
  ASSERT_TRUE(map.deps[1].by_content);
  const solver::Selector& selector = map.deps[1].selectors.at(0);
  EXPECT_EQ(selector.path, "/some/where/a*");
  EXPECT_TRUE(selector.wildcard);
  EXPECT_TRUE(selector.follow_links);
  EXPECT_EQ(selector.exclude, std::vector<std::string>{"*.o"});
  c.set_src("/else/where/a*");
  EXPECT_EQ(world.cache_map(world.vertex(op, 2)).key, map.key) << "where it was is of no interest";
  c.set_dest("/other");
  EXPECT_NE(world.cache_map(world.vertex(op, 2)).key, map.key);
  pb::Op self;
  copy(action(self, 0, 0, 0), "/a", "/b");
  EXPECT_FALSE(world.cache_map(world.vertex(self, 1)).deps.at(0).by_content);
}

TEST_F(FileOp, MergedTreesKeepWhatTheyDelete) {
  const SnapshotPtr base =
      world.tree([](Tree& tree) { tree.file("a", "1").file("d/x", "x").file("d/y", "y").file("f"); });
  const SnapshotPtr changed = world.tree(
      [](Tree& tree) {
        tree.file("a", "2").file("new/n", "n", 0600, 3).hardlink("new/m", "new/n");
        sys::remove_tree(tree.path() / "d/x");
        sys::remove_tree(tree.path() / "f");
        tree.directory("f/now");
      },
      base);
  pb::Op diff;
  diff.mutable_diff()->mutable_lower()->set_input(0);
  diff.mutable_diff()->mutable_upper()->set_input(1);
  const SnapshotPtr delta = run(diff, {base, changed});
  const SnapshotPtr other = world.tree([](Tree& tree) { tree.file("d/x", "gone").file("d/z", "kept").file("a", "0"); });
  pb::Op merge;
  merge.mutable_merge()->add_inputs()->set_input(0);
  merge.mutable_merge()->add_inputs()->set_input(1);
  const SnapshotPtr merged = run(merge, {other, delta});
  EXPECT_EQ(world.look(merged), (std::map<std::string, std::string>{{"a", "f 0644 0:0 2"},
                                                                    {"d", "d 0755 0:0"},
                                                                    {"d/z", "f 0644 0:0 kept"},
                                                                    {"f", "d 0755 0:0"},
                                                                    {"f/now", "d 0755 0:0"},
                                                                    {"new", "d 0755 0:0"},
                                                                    {"new/m", "f 0600 3:3 n"},
                                                                    {"new/n", "f 0600 3:3 n"}}));
  EXPECT_EQ(run(diff, {base, base}), nullptr);
}

}  // namespace
}  // namespace gantry::buildops
