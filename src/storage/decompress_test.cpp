#include "storage/decompress.hpp"

#include <random>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "storage/hash.hpp"
#include "storage/test_support.hpp"

namespace gantry::storage {
namespace {

using test::compress;
using test::error_of;

/// Gives its bytes a few at a time, as a network may.
class Dribble final : public ByteSource {
 public:
  Dribble(std::string bytes, std::size_t piece) : bytes_(std::move(bytes)), piece_(piece) {}
  std::size_t read(char* to, std::size_t size) override {
    const std::size_t count = std::min({size, piece_, bytes_.size() - at_});
    bytes_.copy(to, count, at_);
    at_ += count;
    return count;
  }

 private:
  std::string bytes_;
  std::size_t piece_;
  std::size_t at_ = 0;
};

std::string some_text(std::size_t size) {
  std::mt19937 random(7);
  std::string text;
  while (text.size() < size) text += std::to_string(random() % 100000) + " words and numbers\n";
  text.resize(size);
  return text;
}

std::string expand(const std::string& bytes, std::size_t piece = 1 << 20, const UnpackBudget& budget = {}) {
  return read_everything(*decompress(std::make_shared<Dribble>(bytes, piece), budget), 1 << 30);
}

class EveryCompression : public testing::TestWithParam<Compression> {};

TEST_P(EveryCompression, GivesTheBytesBack) {
  const std::string text = some_text(3'000'000);
  EXPECT_EQ(expand(compress(GetParam(), text)), text);
}

TEST_P(EveryCompression, WorksOneByteAtATime) {
  const std::string text = some_text(20'000);
  EXPECT_EQ(expand(compress(GetParam(), text), 1), text);
}

TEST_P(EveryCompression, ReadsSeveralMembersAsOneStream) {
  const std::string text = some_text(100'000);
  const std::string member = compress(GetParam(), text);
  for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, std::size_t{1000}, std::size_t{1} << 20})
    EXPECT_EQ(expand(member + member + member, piece), text + text + text) << piece;
}

TEST_P(EveryCompression, TellsThatAStreamIsCutShort) {
  if (GetParam() == Compression::none) return;
  std::string bytes = compress(GetParam(), some_text(300'000));
  bytes.resize(bytes.size() - 30);
  const std::string message = error_of([&] { expand(bytes); });
  EXPECT_NE(message.find("unexpected EOF"), std::string::npos) << message;
}

TEST_P(EveryCompression, RefusesDamagedData) {
  // zstd frames carry a checksum only if their maker wanted one; the digest of a layer covers the others.
  if (GetParam() == Compression::none || GetParam() == Compression::zstd) return;
  std::string bytes = compress(GetParam(), some_text(300'000));
  for (std::size_t i = bytes.size() / 2; i < bytes.size() / 2 + 64; ++i) bytes[i] = static_cast<char>(~bytes[i]);
  EXPECT_THROW(expand(bytes), Error);
}

INSTANTIATE_TEST_SUITE_P(All, EveryCompression,
                         testing::Values(Compression::none, Compression::gzip, Compression::zstd, Compression::xz,
                                         Compression::bzip2));

TEST(Decompress, StopsABombBeforeItGoesOff) {
  UnpackBudget budget;
  budget.ratio = 200;
  budget.ratio_free_bytes = 1 << 20;
  const std::string bomb = compress(Compression::gzip, std::string(64 << 20, '\0'));
  EXPECT_NE(error_of([&] { expand(bomb, 4096, budget); }).find("bomb"), std::string::npos);
  budget.ratio = 2000;
  budget.bytes = 10 << 20;
  EXPECT_NE(error_of([&] { expand(bomb, 4096, budget); }).find("limit of 10485760 bytes"), std::string::npos);
}

TEST(Decompress, TakesOffOnlyOneLayerOfCompression) {
  const std::string inner = compress(Compression::gzip, some_text(1000));
  EXPECT_EQ(expand(compress(Compression::gzip, inner)), inner);
}

TEST(Decompress, AnEmptyStreamStaysEmpty) { EXPECT_EQ(expand(""), ""); }

TEST(Decompress, ZerosAfterTheLastGzipMemberArePadding) {
  const std::string text = some_text(1000);
  EXPECT_EQ(expand(compress(Compression::gzip, text) + std::string(512, '\0')), text);
  EXPECT_THROW(expand(compress(Compression::gzip, text) + "rubbish"), Error);
}

TEST(Decompress, ReadAheadPassesOnWhatBreaksTheSource) {
  std::string bytes = compress(Compression::gzip, some_text(300'000));
  bytes.resize(bytes.size() / 2);
  const auto ahead = read_ahead(decompress(make_string_source(bytes)), 4096);
  EXPECT_NE(error_of([&] { read_everything(*ahead, 1 << 30); }).find("unexpected EOF"), std::string::npos);
}

TEST(Decompress, ReadAheadEndsWhileItsSourceWaits) {
  auto channel = std::make_shared<ByteChannel>(16);
  channel->write_blocking("only this");
  {
    const auto ahead = read_ahead(channel, 4096);
  }
  EXPECT_THROW(channel->write_blocking("more"), Error);
}

TEST(Hash, KnowsThePublishedTestVectors) {
  EXPECT_EQ(sha256_digest("abc"), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_digest(""), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(Hash, ChainIdOfTheLowestLayerIsItsDiffId) {
  const std::string a = sha256_digest("a");
  const std::string b = sha256_digest("b");
  EXPECT_EQ(chain_id("", a), a);
  EXPECT_EQ(chain_id(a, b), sha256_digest(a + " " + b));
}

TEST(Hash, RefusesOtherFormsOfDigests) {
  EXPECT_TRUE(is_sha256_digest(sha256_digest("")));
  for (const char* bad : {"", "sha256:", "sha512:00", "sha256:../../etc/passwd",
                          "sha256:BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD"})
    EXPECT_FALSE(is_sha256_digest(bad)) << bad;
}

}  // namespace
}  // namespace gantry::storage
