#include <cstdlib>

#include <fcntl.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "logs/reader.hpp"
#include "logs/rotated.hpp"
#include "logs/writer.hpp"
#include "sys/process.hpp"

namespace gantry::logs {
namespace {

class LogTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/gantry-logs-XXXXXX";
    dir_ = ::mkdtemp(name);
    path_ = dir_ / "c-json.log";
  }
  void TearDown() override { sys::remove_tree(dir_); }

  static std::vector<std::string> texts(LogReader& reader, LogReader::Status* last = nullptr) {
    std::vector<OwnedEntry> entries;
    LogReader::Status status;
    while ((status = reader.next_batch(entries, 1000)) == LogReader::Status::more) {
    }
    if (last != nullptr) *last = status;
    std::vector<std::string> out;
    for (const OwnedEntry& entry : entries) out.push_back(entry.text);
    return out;
  }
  std::vector<std::string> all(ReadOptions options = {}) {
    LogReader reader(path_, options);
    return texts(reader);
  }
  sys::Path numbered(int index) const { return path_.string() + "." + std::to_string(index); }
  static std::string line(int n) { return "line " + std::to_string(n) + "\n"; }

  sys::Path dir_;
  sys::Path path_;
  const Timestamp t0_ = *parse_rfc3339("2026-11-22T13:29:07.5Z");
};

TEST_F(LogTest, CutsOutputIntoLinesAcrossWrites) {
  Writer writer(path_, {});
  writer.append(Stream::out, "one\ntw", t0_);
  writer.append(Stream::err, "error\n", t0_);
  writer.append(Stream::out, "o\nthree", t0_);
  EXPECT_EQ(all(), (std::vector<std::string>{"one\n", "error\n", "two\n"}));
  writer.finish(t0_);
  EXPECT_EQ(all().back(), "three");
  EXPECT_EQ(writer.dropped_bytes(), 0u);
}

TEST_F(LogTest, SplitsLongLinesWithoutSplittingCharacters) {
  Writer writer(path_, {});
  std::string text(kMaxLine - 1, 'a');
  text += "\xc3\xbc tail\n";
  writer.append(Stream::out, text, t0_);
  const auto got = all();
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[0], std::string(kMaxLine - 1, 'a'));
  EXPECT_EQ(got[1], "\xc3\xbc tail\n");
  // The same in small pieces.
  for (const char c : text) writer.append(Stream::out, {&c, 1}, t0_);
  const auto again = all();
  ASSERT_EQ(again.size(), 4u);
  EXPECT_EQ(again[2] + again[3], text);
  // And without any newline: bounded pieces, nothing lost.
  writer.append(Stream::err, std::string(100'000, 'z'), t0_);
  writer.finish(t0_);
  std::string joined;
  for (const std::string& piece : all()) {
    EXPECT_LE(piece.size(), kMaxLine);
    if (piece[0] == 'z') joined += piece;
  }
  EXPECT_EQ(joined, std::string(100'000, 'z'));
}

TEST_F(LogTest, RotatesBySizeAndKeepsSoManyFiles) {
  Writer writer(path_, {4096, 3});
  for (int i = 0; i < 500; ++i) writer.append(Stream::out, line(i), t0_);
  for (const sys::Path& file : {path_, numbered(1), numbered(2)}) {
    ASSERT_TRUE(std::filesystem::exists(file));
    EXPECT_LE(std::filesystem::file_size(file), 4096u);
  }
  EXPECT_FALSE(std::filesystem::exists(numbered(3)));
  const auto got = all();
  ASSERT_GT(got.size(), 60u);
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[got.size() - 1 - i], line(499 - static_cast<int>(i)));
}

TEST_F(LogTest, RotatesInsideOneLargeBatch) {
  Writer writer(path_, {8192, 2});
  std::string text;
  for (int i = 0; i < 5000; ++i) text += line(i);
  writer.append(Stream::out, text, t0_);
  EXPECT_LE(std::filesystem::file_size(path_), 8192u);
  EXPECT_LE(std::filesystem::file_size(numbered(1)), 8192u);
  EXPECT_GT(std::filesystem::file_size(numbered(1)), 8000u);
  EXPECT_EQ(all().back(), line(4999));
  EXPECT_EQ(writer.dropped_bytes(), 0u);
}

TEST_F(LogTest, OneFileStartsAnewWhenItIsFull) {
  Writer writer(path_, {2048, 1});
  for (int i = 0; i < 100; ++i) writer.append(Stream::out, line(i), t0_);
  EXPECT_FALSE(std::filesystem::exists(numbered(1)));
  EXPECT_LE(std::filesystem::file_size(path_), 2048u);
  EXPECT_EQ(all().back(), line(99));
}

TEST_F(LogTest, AFullDiskDropsWholeLinesAndHealsByItself) {
  const sys::Path disk = dir_ / "disk";
  sys::make_directories(disk);
  if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=64k") != 0) GTEST_FAIL() << "needs root to mount a tmpfs";
  path_ = disk / "c-json.log";
  {
    Writer writer(path_, {});
    for (int i = 0; i < 5000; ++i) writer.append(Stream::out, line(i), t0_);
    EXPECT_GT(writer.dropped_bytes(), 0u);
    const auto before = all();
    ASSERT_GT(before.size(), 100u);
    EXPECT_EQ(before.back(), line(static_cast<int>(before.size()) - 1));
    ASSERT_EQ(::mount("tmpfs", disk.c_str(), "tmpfs", MS_REMOUNT, "size=1m"), 0);
    writer.append(Stream::out, "healed\n", t0_);
    LogReader reader(path_, {});
    EXPECT_EQ(texts(reader).back(), "healed\n");
    EXPECT_EQ(reader.damaged_lines(), 0u);
  }
  ::umount(disk.c_str());
}

TEST_F(LogTest, AHalfLineFromACrashSpoilsNothing) {
  Writer(path_, {}).append(Stream::out, "good\n", t0_);
  const std::string torn = R"({"log":"half)";
  sys::write_all(sys::open_file(path_, O_WRONLY | O_APPEND).get(), torn);
  EXPECT_EQ(all(), (std::vector<std::string>{"good\n"}));
  Writer(path_, {}).append(Stream::out, "next\n", t0_);
  LogReader reader(path_, {});
  EXPECT_EQ(texts(reader), (std::vector<std::string>{"good\n", "next\n"}));
  EXPECT_EQ(reader.damaged_lines(), 1u);
}

TEST_F(LogTest, SkipsZerosAndGarbageButFindsTheEntryBehindThem) {
  std::string content = encode_line("a\n", Stream::out, t0_) + "not json\n" + std::string(5000, '\0') +
                        encode_line("b\n", Stream::out, t0_) + std::string(3 << 20, 'x') + "\n" +
                        encode_line("c\n", Stream::out, t0_);
  sys::write_atomically(path_, content, 0640, false);
  LogReader reader(path_, {});
  EXPECT_EQ(texts(reader), (std::vector<std::string>{"a\n", "b\n", "c\n"}));
  EXPECT_GE(reader.damaged_lines(), 3u);
}

TEST_F(LogTest, TailCountsBackwardsAcrossFiles) {
  Writer writer(path_, {2000, 5});
  for (int i = 0; i < 100; ++i) writer.append(Stream::out, line(i), t0_);
  for (const std::uint64_t tail : {0u, 1u, 2u, 20u, 21u, 22u, 60u, 80u}) {
    ReadOptions options;
    options.tail = tail;
    const auto got = all(options);
    ASSERT_EQ(got.size(), tail);
    for (std::size_t i = 0; i < tail; ++i) EXPECT_EQ(got[i], line(100 - static_cast<int>(tail) + static_cast<int>(i)));
  }
  ReadOptions options;
  options.tail = 1'000'000;
  EXPECT_EQ(all(options), all());
}

TEST_F(LogTest, FiltersByTimeAndStream) {
  Writer writer(path_, {});
  for (int i = 0; i < 10; ++i)
    writer.append(i % 2 == 0 ? Stream::out : Stream::err, line(i), t0_ + std::chrono::seconds(i));
  ReadOptions options;
  options.since = t0_ + std::chrono::seconds(3);
  options.until = t0_ + std::chrono::seconds(6);
  EXPECT_EQ(all(options), (std::vector<std::string>{line(3), line(4), line(5), line(6)}));
  options.want_stderr = false;
  EXPECT_EQ(all(options), (std::vector<std::string>{line(4), line(6)}));
}

TEST_F(LogTest, RendersFramesTimestampsAndDetails) {
  Writer(path_, {}, R"({"tag":"a b","env":"x\u003dy"})").append(Stream::err, "hi\n", t0_);
  RenderOptions render;
  render.timestamps = render.details = true;
  std::string out;
  LogReader reader(path_, {});
  EXPECT_EQ(reader.next_frames(out, render), LogReader::Status::end);
  const std::string payload = "2026-11-22T13:29:07.500000000Z env=x%3Dy,tag=a+b hi\n";
  std::string expected{2, 0, 0, 0, 0, 0, 0, static_cast<char>(payload.size())};
  EXPECT_EQ(out, expected + payload);
  out.clear();
  LogReader raw(path_, {});
  raw.next_frames(out, {.framed = false});
  EXPECT_EQ(out, "hi\n");
}

TEST_F(LogTest, AMissingLogIsEmptyAndMayAppearLater) {
  EXPECT_TRUE(all().empty());
  ReadOptions options;
  options.follow = true;
  LogReader reader(path_, options);
  LogReader::Status status;
  EXPECT_TRUE(texts(reader, &status).empty());
  EXPECT_EQ(status, LogReader::Status::wait);
  Writer(path_, {}).append(Stream::out, "late\n", t0_);
  pollfd ready{reader.wait_fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&ready, 1, 5000), 1);
  EXPECT_EQ(texts(reader), (std::vector<std::string>{"late\n"}));
}

TEST_F(LogTest, FollowSeesEveryLineOnceAcrossRotations) {
  for (const std::uint32_t files : {1u, 2u, 4u}) {
    Writer writer(path_, {3000, files});
    ReadOptions options;
    options.follow = true;
    options.tail = 0;
    LogReader reader(path_, options);
    int expected = 0;
    for (int i = 0; i < 2000; ++i) {
      writer.append(Stream::out, line(i), t0_);
      if (i % 30 != 29) continue;  // falls behind by at most one rotation
      for (const std::string& text : texts(reader)) EXPECT_EQ(text, line(expected++));
    }
    for (const std::string& text : texts(reader)) EXPECT_EQ(text, line(expected++));
    EXPECT_EQ(expected, 2000) << files;
    reader.finish();
    LogReader::Status status;
    EXPECT_TRUE(texts(reader, &status).empty());
    EXPECT_EQ(status, LogReader::Status::end);
    writer.clear();
  }
}

TEST_F(LogTest, FollowerWakesUpAndWaitsForTheWholeLine) {
  Writer writer(path_, {});
  writer.append(Stream::out, "first\n", t0_);
  ReadOptions options;
  options.follow = true;
  LogReader reader(path_, options);
  EXPECT_EQ(texts(reader).size(), 1u);
  pollfd ready{reader.wait_fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&ready, 1, 0), 0);
  const std::string entry = encode_line("second\n", Stream::out, t0_);
  const sys::Fd file = sys::open_file(path_, O_WRONLY | O_APPEND);
  sys::write_all(file.get(), entry.substr(0, 20));
  ASSERT_EQ(::poll(&ready, 1, 5000), 1);
  EXPECT_TRUE(texts(reader).empty());
  sys::write_all(file.get(), entry.substr(20));
  ASSERT_EQ(::poll(&ready, 1, 5000), 1);
  EXPECT_EQ(texts(reader), (std::vector<std::string>{"second\n"}));
}

TEST_F(LogTest, SurvivesTruncationInPlaceAndClear) {
  Writer writer(path_, {2000, 3});
  for (int i = 0; i < 100; ++i) writer.append(Stream::out, line(i), t0_);
  ReadOptions options;
  options.follow = true;
  LogReader reader(path_, options);
  texts(reader);
  ASSERT_EQ(::truncate(path_.c_str(), 0), 0);
  writer.append(Stream::out, "a\n", t0_);
  EXPECT_EQ(texts(reader), (std::vector<std::string>{"a\n"}));
  writer.clear();
  EXPECT_FALSE(std::filesystem::exists(numbered(1)));
  writer.append(Stream::out, "b\n", t0_);
  EXPECT_EQ(texts(reader), (std::vector<std::string>{"b\n"}));
}

TEST_F(LogTest, FewerFilesTakeEffectAtOnce) {
  Writer writer(path_, {1000, 5});
  for (int i = 0; i < 200; ++i) writer.append(Stream::out, line(i), t0_);
  EXPECT_TRUE(std::filesystem::exists(numbered(4)));
  writer.set_options({1000, 2});
  EXPECT_FALSE(std::filesystem::exists(numbered(2)));
  EXPECT_TRUE(std::filesystem::exists(numbered(1)));
}

/// What gantry-log does with a rotated file, by the system's gzip.
void compress(const sys::Path& path, int index) {
  const sys::Path from = Writer::rotated_path(path, static_cast<std::uint32_t>(index));
  const sys::Path to = Writer::compressed_path(path, static_cast<std::uint32_t>(index));
  struct stat info{};
  ASSERT_EQ(::stat(from.c_str(), &info), 0);
  sys::SpawnOptions gzip;
  gzip.argv = {"gzip", "-c", from.string()};
  gzip.env = {"PATH=/usr/bin:/bin"};
  std::string packed = sys::run(gzip, 10, 8 << 20).stdout_text;
  // Put the extra field in behind the fixed header, and the file's name out.
  const std::size_t name_end = packed.find('\0', 10);
  const std::string extra = encode_extra(identity_of(info));
  packed[3] = 4;
  packed =
      packed.substr(0, 10) + std::string({static_cast<char>(extra.size()), '\0'}) + extra + packed.substr(name_end + 1);
  sys::write_atomically(to, packed, 0640, false);
  ::unlink(from.c_str());
}

TEST_F(LogTest, CompressedFilesAreReadAndRotate) {
  Writer writer(path_, {2000, 4});
  std::vector<std::string> expected;
  for (int n = 0; n < 60; ++n) writer.append(Stream::out, line(n), t0_);
  expected = all();
  ASSERT_GT(expected.size(), 50u);
  compress(path_, 1);
  compress(path_, 2);
  EXPECT_EQ(all(), expected);
  for (const std::uint64_t tail : {0u, 1u, 20u, 35u, 45u, 1000u}) {
    ReadOptions options;
    options.tail = tail;
    const auto count = static_cast<std::ptrdiff_t>(std::min<std::size_t>(tail, expected.size()));
    EXPECT_EQ(all(options), std::vector<std::string>(expected.end() - count, expected.end())) << tail;
  }
  int rotations = 0;
  writer.on_rotation([&rotations] { ++rotations; });
  for (int n = 60; n < 90; ++n) writer.append(Stream::out, line(n), t0_);
  EXPECT_GE(rotations, 1);
  EXPECT_TRUE(std::filesystem::exists(Writer::compressed_path(path_, 3)));
  EXPECT_EQ(all().back(), line(89));
  writer.clear();
  EXPECT_FALSE(std::filesystem::exists(Writer::compressed_path(path_, 3)));
}

TEST_F(LogTest, AFollowerSeesEachLineOnceAcrossACompressingRotation) {
  Writer writer(path_, {1000, 6});
  ReadOptions options;
  options.follow = true;
  std::vector<std::string> written;
  const auto write = [&](int count) {
    for (int i = 0; i < count; ++i) {
      written.push_back(line(static_cast<int>(written.size())));
      writer.append(Stream::out, written.back(), t0_);
    }
  };
  write(5);
  LogReader reader(path_, options);
  std::vector<std::string> got = texts(reader);
  EXPECT_EQ(got, written);
  write(40);  // two rotations while the follower looks away, and all of it compressed
  compress(path_, 1);
  compress(path_, 2);
  for (const std::string& text : texts(reader)) got.push_back(text);
  EXPECT_EQ(got, written);
  write(25);
  compress(path_, 1);
  write(3);
  for (const std::string& text : texts(reader)) got.push_back(text);
  EXPECT_EQ(got, written);
  reader.finish();
  LogReader::Status status;
  EXPECT_TRUE(texts(reader, &status).empty());
  EXPECT_EQ(status, LogReader::Status::end);
}

TEST_F(LogTest, ADamagedCompressedFileCostsOnlyItself) {
  Writer writer(path_, {1000, 4});
  for (int n = 0; n < 45; ++n) writer.append(Stream::out, line(n), t0_);
  compress(path_, 2);
  sys::write_atomically(Writer::compressed_path(path_, 2), "\x1f\x8bnonsense", 0640, false);
  const auto rest = all();
  EXPECT_EQ(rest.back(), line(44));
  EXPECT_GT(rest.size(), 5u);
}

TEST_F(LogTest, JsonLinesForTheApi) {
  Writer writer(path_, {}, R"({"a":"b"})");
  writer.append(Stream::err, "say \"hi\" <\xff>\n", t0_);
  RenderOptions render;
  render.json = true;
  for (const bool details : {false, true}) {
    render.details = details;
    LogReader reader(path_, {});
    std::string out;
    reader.next_frames(out, render);
    EXPECT_EQ(out, std::string(R"({"Line":"say \"hi\" \u003c�\u003e\n","Source":"stderr",)") +
                       R"("Timestamp":"2026-11-22T13:29:07.5Z")" +
                       (details ? R"(,"Attrs":[{"Key":"a","Value":"b"}])" : "") + "}\n");
  }
}

}  // namespace
}  // namespace gantry::logs
