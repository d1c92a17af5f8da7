#include "shim/dns_wire.hpp"

#include <random>

#include <gtest/gtest.h>

namespace gantry::shim::dns {
namespace {

std::string query_for(const std::string& name, std::uint16_t type, std::uint16_t udp_size = 0) {
  std::string out("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00", 12);
  if (udp_size != 0) out[11] = 1;
  out += encode_name(name).value();
  out += std::string{static_cast<char>(type >> 8), static_cast<char>(type), 0, 1};
  if (udp_size != 0)
    out += std::string{0, 0, 41, static_cast<char>(udp_size >> 8), static_cast<char>(udp_size), 0, 0, 0, 0, 0, 0};
  return out;
}

TEST(DnsWire, ReadsAQuestionInLowerCaseAndKeepsItsSpelling) {
  const ParsedQuery parsed = parse_query(query_for("WeB.Net", kTypeAaaa, 1232));
  ASSERT_EQ(parsed.verdict, Verdict::good);
  EXPECT_EQ(parsed.query.name, "web.net");
  EXPECT_NE(parsed.query.question.find("WeB"), std::string::npos);
  EXPECT_EQ(parsed.query.type, kTypeAaaa);
  EXPECT_EQ(parsed.query.id, 0x1234);
  EXPECT_TRUE(parsed.query.recursion_desired);
  EXPECT_EQ(parsed.query.limit(false), 1232u);
  EXPECT_EQ(parsed.query.limit(true), kMaxMessage);
  EXPECT_EQ(parse_query(query_for("web", kTypeA, 100)).query.limit(false), 512u);
}

TEST(DnsWire, IgnoresAnswersAndRefusesWhatIsNoQuestion) {
  std::string message = query_for("web", kTypeA);
  message[2] = '\x81';
  EXPECT_EQ(parse_query(message).verdict, Verdict::ignore);
  EXPECT_EQ(parse_query(message.substr(0, 11)).verdict, Verdict::ignore);
  message = query_for("web", kTypeA);
  message[2] = '\x28';
  EXPECT_EQ(parse_query(message).failure, Rcode::not_implemented);
  message = query_for("web", kTypeA);
  message[5] = 2;
  EXPECT_EQ(parse_query(message).verdict, Verdict::bad);
  EXPECT_EQ(rcode_of(render_failure(message, Rcode::format_error)), 1);
  message = query_for("web", kTypeA);
  message[12] = '\xc0';  // a compression pointer
  EXPECT_EQ(parse_query(message).verdict, Verdict::bad);
  message = query_for("web", kTypeA);
  message[14] = '\0';  // a byte that no name of ours has
  EXPECT_EQ(parse_query(message).verdict, Verdict::good);
  EXPECT_EQ(parse_query(message).query.name, "");
}

TEST(DnsWire, NamesHaveTheirLimits) {
  EXPECT_TRUE(encode_name(std::string(63, 'a')));
  EXPECT_FALSE(encode_name(std::string(64, 'a')));
  EXPECT_FALSE(encode_name("a..b"));
  EXPECT_FALSE(encode_name(".a"));
  std::string longest;
  for (int i = 0; i < 127; ++i) longest += "a.";
  EXPECT_TRUE(encode_name(longest.substr(0, 253)));
  EXPECT_FALSE(encode_name(longest + "bc"));
}

TEST(DnsWire, AnswersThatDoNotFitAreCutAndSaySo) {
  const Query query = parse_query(query_for("web", kTypeA)).query;
  Answer answer(query, 512);
  int fitted = 0;
  while (fitted < 100 && answer.add_address(std::string("\x0a\0\0\1", 4))) ++fitted;
  const std::string bytes = answer.finish();
  EXPECT_LE(bytes.size(), 512u);
  EXPECT_EQ(fitted, (512 - 12 - 9) / 16);
  EXPECT_EQ(bytes[2] & 2, 2);
  EXPECT_EQ(bytes[7], fitted);
}

TEST(DnsWire, AnEdnsClientGetsAnEdnsAnswer) {
  const Query query = parse_query(query_for("web", kTypeA, 4096)).query;
  const std::string bytes = Answer(query, 4096).finish();
  EXPECT_EQ(bytes[11], 1);
  EXPECT_EQ(bytes.size(), 12u + 9 + 11);
  EXPECT_EQ(Answer(parse_query(query_for("web", kTypeA)).query, 512).finish()[11], 0);
}

TEST(DnsWire, OnlyTheAnswerToTheQuestionIsTaken) {
  const std::string query = query_for("web.example", kTypeA);
  std::string response = query;
  response[2] = '\x81';
  EXPECT_TRUE(is_answer_to(response, query));
  response[13] = 'W';  // servers may change the case
  EXPECT_TRUE(is_answer_to(response, query));
  std::string other = response;
  other[0] = 0;
  EXPECT_FALSE(is_answer_to(other, query));
  other = response;
  other[13] = 'x';
  EXPECT_FALSE(is_answer_to(other, query));
  other = response;
  other[response.size() - 3] = 28;
  EXPECT_FALSE(is_answer_to(other, query));
  EXPECT_FALSE(is_answer_to(query, query));
  EXPECT_FALSE(is_answer_to("", query));
}

TEST(DnsWire, ReadsReverseNames) {
  EXPECT_EQ(reverse_address("4.3.2.1.in-addr.arpa"), "1.2.3.4");
  EXPECT_EQ(reverse_address("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa"), "fd00::1");
  for (const char* bad : {"3.2.1.in-addr.arpa", "x.3.2.1.in-addr.arpa", "in-addr.arpa", "1.ip6.arpa", "web", ""})
    EXPECT_FALSE(reverse_address(bad)) << bad;
}

TEST(DnsWire, GarbageIsRefusedWithoutHarm) {
  std::mt19937 random(7);
  const std::string good = query_for("a.name.of.some.length", kTypeA, 1232);
  for (int i = 0; i < 200'000; ++i) {
    std::string message = good;
    for (unsigned changes = random() % 6; changes > 0; --changes)
      message[random() % message.size()] = static_cast<char>(random());
    message.resize(random() % (message.size() + 1));
    if (i % 4 == 0) message.append(random() % 64, static_cast<char>(random()));
    const ParsedQuery parsed = parse_query(message);
    EXPECT_LE(parsed.query.name.size(), 255u);
    if (message.size() >= kHeaderSize) {
      EXPECT_GE(render_failure(message, Rcode::refused).size(), kHeaderSize);
      EXPECT_GE(truncated(message).size(), kHeaderSize);
    }
    is_answer_to(message, good);
    is_answer_to(good, message);
    if (!parsed.query.name.empty()) (void)reverse_address(parsed.query.name);
  }
}

}  // namespace
}  // namespace gantry::shim::dns
