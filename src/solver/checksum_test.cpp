#include "solver/checksum.hpp"

#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "buildcache/test_support.hpp"
#include "solver/file_notes.hpp"

namespace gantry::solver {
namespace {

using buildcache::SnapshotPtr;
using buildcache::test::error_of;

class ChecksumTest : public buildcache::test::CacheTest {
 protected:
  using Fill = std::function<void(const sys::Path& root)>;
  SnapshotPtr tree(const Fill& fill, const SnapshotPtr& parent = nullptr) {
    auto workspace = cache_->snapshots().create(parent, buildcache::RecordType::regular, "tree");
    fill(workspace->mount());
    return workspace->commit();
  }
  std::string sum(const SnapshotPtr& snapshot, const Selector& selector = {}) {
    return checksum(*cache_, snapshot, selector);
  }
  std::string sum_of(const Fill& fill, const Selector& selector = {}) { return sum(tree(fill), selector); }
  static void set_time(const sys::Path& path, long seconds) {
    const timespec times[2] = {{seconds, 0}, {seconds, 0}};
    ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW), 0);
  }
  static Fill one_file(std::string_view text = "text", mode_t mode = 0644) {
    return [text, mode](const sys::Path& root) { write(root / "d/f", text, mode); };
  }
};

TEST_F(ChecksumTest, TellsEverythingButTimesAndOrderOfMaking) {
  const std::string same = sum_of(one_file());
  EXPECT_EQ(sum_of([](const sys::Path& root) {
              write(root / "d/f", "text");
              set_time(root / "d/f", 12345);
              set_time(root / "d", 12345);
            }),
            same);
  EXPECT_NE(sum_of(one_file("texu")), same);
  EXPECT_NE(sum_of(one_file("text", 0755)), same);
  EXPECT_NE(sum_of(one_file("text", 04644)), same);
  const auto differs = [&](const Fill& change) {
    EXPECT_NE(sum_of([&](const sys::Path& root) {
                one_file()(root);
                change(root);
              }),
              same);
  };
  differs([](const sys::Path& root) { ASSERT_EQ(::chown((root / "d/f").c_str(), 1, 0), 0); });
  differs([](const sys::Path& root) { ASSERT_EQ(::chown((root / "d/f").c_str(), 0, 1), 0); });
  differs([](const sys::Path& root) { ASSERT_EQ(::chmod((root / "d").c_str(), 0700), 0); });
  differs([](const sys::Path& root) { ASSERT_EQ(::rename((root / "d/f").c_str(), (root / "d/g").c_str()), 0); });
  differs([](const sys::Path& root) { ASSERT_EQ(::mkdir((root / "d/e").c_str(), 0755), 0); });
  differs([](const sys::Path& root) { ASSERT_EQ(::setxattr((root / "d/f").c_str(), "user.x", "1", 1, 0), 0); });
  differs([](const sys::Path& root) { ASSERT_EQ(::symlink("f", (root / "d/l").c_str()), 0); });
  const auto link = [](const char* target) {
    return [target](const sys::Path& root) { ASSERT_EQ(::symlink(target, (root / "l").c_str()), 0); };
  };
  EXPECT_NE(sum_of(link("a")), sum_of(link("b")));
  const auto device = [](unsigned minor) {
    return [minor](const sys::Path& root) {
      ASSERT_EQ(::mknod((root / "n").c_str(), S_IFCHR | 0600, makedev(1, minor)), 0);
    };
  };
  EXPECT_NE(sum_of(device(3)), sum_of(device(5)));
}

TEST_F(ChecksumTest, LayersDoNotShow) {
  const SnapshotPtr lower = tree([](const sys::Path& root) {
    write(root / "a", "1");
    write(root / "b", "2");
  });
  const SnapshotPtr upper = tree(
      [](const sys::Path& root) {
        write(root / "c", "3");
        ASSERT_EQ(::unlink((root / "b").c_str()), 0);
      },
      lower);
  EXPECT_EQ(sum(upper), sum_of([](const sys::Path& root) {
              write(root / "a", "1");
              write(root / "c", "3");
            }));
}

TEST_F(ChecksumTest, TheNameOfTheSelectedDoesNotCount) {
  const SnapshotPtr snapshot = tree([](const sys::Path& root) {
    write(root / "a/f", "x");
    write(root / "b/f", "x");
    write(root / "a/g", "x");
    ASSERT_EQ(::chmod((root / "b").c_str(), 0700), 0);
  });
  EXPECT_EQ(sum(snapshot, {.path = "a/f"}), sum(snapshot, {.path = "/b/f"}));
  EXPECT_EQ(sum(snapshot, {.path = "a/f"}), sum(snapshot, {.path = "a/g"}));
  EXPECT_EQ(sum(snapshot, {.path = "a/../a/./f"}), sum(snapshot, {.path = "../../a/f"}));
  const Selector whole{.path = "a", .exclude = {"g"}};
  EXPECT_NE(sum(snapshot, whole), sum(snapshot, {.path = "b"}));
  EXPECT_EQ(sum(snapshot, {.path = "a", .contents_only = true, .exclude = {"g"}}),
            sum(snapshot, {.path = "b", .contents_only = true}));
}

TEST_F(ChecksumTest, WildcardsCountNamesOfWhatTheyMatch) {
  const auto with = [&](const std::vector<std::string>& names) {
    return tree([&](const sys::Path& root) {
      for (const std::string& name : names) write(root / name, "x");
    });
  };
  const Selector pattern{.path = "d/*.txt", .wildcard = true};
  const std::string one = sum(with({"d/a.txt", "d/b.bin"}), pattern);
  EXPECT_EQ(sum(with({"d/a.txt", "d/c.bin", "other"}), pattern), one);
  EXPECT_NE(sum(with({"d/b.txt"}), pattern), one);
  EXPECT_NE(sum(with({"d/a.txt", "d/b.txt"}), pattern), one);
  EXPECT_EQ(sum(with({"d/b.bin"}), pattern), sum(with({"x"}), pattern)) << "no match is no error";
  EXPECT_EQ(sum(with({"d/e/a.txt"}), pattern), sum(with({"x"}), pattern)) << "a star stops at a slash";
  const SnapshotPtr deep = with({"d/e/a.txt", "d/f/a.txt"});
  EXPECT_NE(sum(deep, {.path = "d/*/a.txt", .wildcard = true}), sum(deep, {.path = "d/[e]/a.txt", .wildcard = true}));
  EXPECT_EQ(sum(deep, {.path = "**", .wildcard = true}), sum(deep, {.path = "*", .wildcard = true}));
  EXPECT_EQ(error_of([&] { sum(deep, {.path = "d/[", .wildcard = true}); }), "syntax error in pattern");
}

TEST_F(ChecksumTest, LinksAreFollowedInsideOfTheTree) {
  const SnapshotPtr snapshot = tree([](const sys::Path& root) {
    write(root / "real/f", "x");
    ASSERT_EQ(::symlink("/real", (root / "absolute").c_str()), 0);
    ASSERT_EQ(::symlink("../../../real/f", (root / "climbs").c_str()), 0);
    ASSERT_EQ(::symlink("loop", (root / "loop").c_str()), 0);
    ASSERT_EQ(::symlink("/etc/passwd", (root / "out").c_str()), 0);
  });
  EXPECT_EQ(sum(snapshot, {.path = "absolute/f"}), sum(snapshot, {.path = "real/f"}));
  EXPECT_EQ(sum(snapshot, {.path = "climbs"}), sum(snapshot, {.path = "real/f"}));
  EXPECT_NE(sum(snapshot, {.path = "climbs", .follow_links = false}), sum(snapshot, {.path = "real/f"}));
  EXPECT_EQ(error_of([&] { sum(snapshot, {.path = "loop"}); }), "\"/loop\": not found");
  EXPECT_EQ(error_of([&] { sum(snapshot, {.path = "out"}); }), "\"/out\": not found");
  EXPECT_EQ(error_of([&] { sum(snapshot, {.path = "real/f/g"}); }), "\"/real/f/g\": not found");
  EXPECT_EQ(error_of([&] { sum(nullptr, {.path = "x"}); }), "\"/x\": not found");
  EXPECT_EQ(sum(nullptr), sum(nullptr, {.path = "/"}));
}

TEST_F(ChecksumTest, PatternsLeaveOutAndTakeIn) {
  const auto with = [&](const std::vector<std::string>& names) {
    return tree([&](const sys::Path& root) {
      for (const std::string& name : names) write(root / name, "x");
    });
  };
  const Selector exclude{.exclude = {"*.png", "logs", "!logs/keep"}};
  EXPECT_EQ(sum(with({"a", "b.png", "logs/x"}), exclude), sum(with({"a"}), exclude));
  EXPECT_NE(sum(with({"a", "logs/keep"}), exclude), sum(with({"a"}), exclude));
  const Selector include{.include = {"src/**/*.c"}};
  EXPECT_EQ(sum(with({"src/a/b.c", "src/a/b.h", "other/x"}), include), sum(with({"src/a/b.c"}), include));
  EXPECT_NE(sum(with({"src/a/b.c"}), include), sum(with({"src/b.c"}), include));
}

class ContextTest : public ChecksumTest {
 protected:
  /// As a build brings its context.
  SnapshotPtr context(const Fill& change) {
    auto local = cache_->mutables().acquire(
        {.key = "local", .type = buildcache::RecordType::source_local, .sharing = buildcache::Sharing::private_copy},
        {});
    if (change) {
      change(local->path());
      local->mark_changed();
    }
    return local->freeze();
  }
};

TEST_F(ContextTest, AChangedContextIsReadAnewWhereItChanged) {
  const auto fill = [](const sys::Path& root) {
    for (int i = 0; i < 50; ++i) write(root / ("f" + std::to_string(i)), "text");
  };
  const std::string first = sum(context(fill));
  EXPECT_EQ(sum(context(nullptr)), first);
  EXPECT_EQ(sum(context([](const sys::Path& root) { set_time(root / "f7", 1); })), first);
  const std::string second = sum(context([](const sys::Path& root) { write(root / "f7", "texu"); }));
  EXPECT_NE(second, first);
  EXPECT_EQ(sum(context([](const sys::Path& root) { write(root / "f7", "text"); })), first);
  // The same as a tree that was never a context.
  EXPECT_EQ(sum_of([&](const sys::Path& root) {
              fill(root);
              write(root / "f7", "texu");
            }),
            second);
}

TEST_F(ContextTest, NotesAreNotTrustedBeyondWhatTheySay) {
  const SnapshotPtr snapshot = context([](const sys::Path& root) { write(root / "f", "text"); });
  sum(snapshot);
  const sys::Path file = cache_->index().notes_file(snapshot);
  struct stat st{};
  ASSERT_EQ(::stat((snapshot->directory() / "f").c_str(), &st), 0);
  EXPECT_NE(FileNotes(file).find(st), nullptr);
  st.st_ctim.tv_nsec ^= 1;
  EXPECT_EQ(FileNotes(file).find(st), nullptr);
  st.st_ctim.tv_nsec ^= 1;
  sys::write_atomically(file, "gantry notes 1\n\nshort", 0600, false);
  EXPECT_EQ(FileNotes(file).find(st), nullptr);
  sys::write_atomically(file, std::string(16 + 64, 'x'), 0600, false);
  EXPECT_EQ(FileNotes(file).find(st), nullptr);
  EXPECT_EQ(FileNotes(sys::Path()).find(st), nullptr);
}

TEST_F(ContextTest, NotesForgetWhatIsGone) {
  SnapshotPtr snapshot = context([](const sys::Path& root) {
    for (int i = 0; i < 100; ++i) write(root / std::to_string(i), "text");
  });
  sum(snapshot);
  const sys::Path file = cache_->index().notes_file(snapshot);
  const auto size = std::filesystem::file_size(file);
  EXPECT_EQ(size, 16U + 100 * 64U);
  snapshot.reset();
  sum(context([](const sys::Path& root) {
    for (int i = 1; i < 100; ++i) sys::remove_tree(root / std::to_string(i));
    write(root / "new", "text");
  }));
  EXPECT_EQ(std::filesystem::file_size(file), 16U + 2 * 64U);
}

}  // namespace
}  // namespace gantry::solver
