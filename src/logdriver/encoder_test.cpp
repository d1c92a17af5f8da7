#include "logdriver/encoder.hpp"

#include <cstdlib>
#include <ctime>

#include <gtest/gtest.h>
#include <zlib.h>

#include "base/time.hpp"

namespace gantry::logdriver {
namespace {

class Encoders : public testing::Test {
 protected:
  void SetUp() override {
    ::setenv("TZ", "UTC", 1);
    ::tzset();
  }
  LogMessage message(std::string_view text, logs::Stream stream = logs::Stream::out) const {
    LogMessage m;
    m.text = text;
    m.stream = stream;
    m.time = *parse_rfc3339("2026-11-02T13:29:07.4144Z");
    return m;
  }
  static Settings with(std::map<std::string, std::string> values) {
    values.emplace("tag", "tag");
    values.emplace("container_id", std::string(64, 'a'));
    values.emplace("container_name", "/web");
    values.emplace("image_name", "busybox");
    return Settings(std::move(values));
  }
  static std::string one(Encoder& encoder, const LogMessage& m) {
    std::vector<Record> out;
    encoder.encode(m, out);
    EXPECT_EQ(out.size(), 1u);
    return out.empty() ? "" : out[0].bytes;
  }
};

TEST_F(Encoders, SyslogHasFourForms) {
  const auto line = [&](const char* format, logs::Stream stream = logs::Stream::out, const char* address = "") {
    const auto encoder =
        make_syslog_encoder(with({{"syslog-format", format}, {"syslog-address", address}}), "host", 42);
    return one(*encoder, message("hi", stream));
  };
  EXPECT_EQ(line(""), "<30>Nov  2 13:29:07 tag[42]: hi\n");
  EXPECT_EQ(line("", logs::Stream::err), "<27>Nov  2 13:29:07 tag[42]: hi\n");
  EXPECT_EQ(line("rfc3164"), "<30>Nov  2 13:29:07 host tag[42]: hi\n");
  EXPECT_EQ(line("rfc5424"), "<30>1 2026-11-02T13:29:07Z host tag 42 tag - hi\n");
  EXPECT_EQ(line("rfc5424micro"), "<30>1 2026-11-02T13:29:07.4144Z host tag 42 tag - hi\n");
  EXPECT_EQ(line("rfc5424", logs::Stream::out, "tcp+tls://h:1"),
            "48 <30>1 2026-11-02T13:29:07Z host tag 42 tag - hi\n");
  EXPECT_EQ(line("rfc3164", logs::Stream::out, "tcp+tls://h:1"), "<30>Nov  2 13:29:07 host tag[42]: hi\n");
  ::setenv("TZ", "UTC-1", 1);
  ::tzset();
  EXPECT_EQ(line("rfc5424"), "<30>1 2026-11-02T14:29:07+01:00 host tag 42 tag - hi\n");
}

TEST_F(Encoders, FluentdSpeaksTheForwardProtocol) {
  const auto encoder = make_fluentd_encoder(with({{"extra.role", "db"}}));
  const std::string id(64, 'a');
  const std::string expected = std::string(14, '.') + "\x85" +
                               "\xac"
                               "container_id"
                               "\xd9\x40" +
                               id +
                               "\xae"
                               "container_name"
                               "\xa4/web"
                               "\xa4role\xa2"
                               "db"
                               "\xa6source\xa6stdout"
                               "\xa3log\xa2hi"
                               "\x80";
  const std::string got = one(*encoder, message("hi"));
  EXPECT_EQ(got.size(), expected.size());
  EXPECT_EQ(got.substr(0, 6), "\x94\xa3tag\xd3");
  EXPECT_EQ(got.substr(14), expected.substr(14));
  const auto precise = make_fluentd_encoder(with({{"fluentd-sub-second-precision", "true"}}));
  EXPECT_EQ(one(*precise, message("hi")).substr(5, 2), std::string("\xd7\0", 2));
}

TEST_F(Encoders, FluentdMarksPiecesAndAsksForAcknowledgements) {
  const auto encoder = make_fluentd_encoder(with({{"fluentd-request-ack", "true"}}));
  LogMessage piece = message("x");
  piece.partial = true;
  piece.ordinal = 2;
  piece.last = true;
  piece.partial_id = "id";
  std::vector<Record> out;
  encoder->encode(piece, out);
  ASSERT_EQ(out.size(), 1u);
  for (const char* field : {"\xafpartial_message\xa4true", "\xaapartial_id\xa2id",
                            "\xafpartial_ordinal\xa1"
                            "2",
                            "\xacpartial_last\xa4true",
                            "\xa5"
                            "chunk"})
    EXPECT_NE(out[0].bytes.find(field), std::string::npos) << field;
  EXPECT_FALSE(out[0].ack.empty());
  EXPECT_TRUE(out[0].bytes.ends_with(out[0].ack));
}

std::string inflated(const std::string& bytes) {
  z_stream z{};
  EXPECT_EQ(::inflateInit2(&z, MAX_WBITS + 32), Z_OK);
  std::string out(1 << 20, '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  z.avail_in = static_cast<uInt>(bytes.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(::inflate(&z, Z_FINISH), Z_STREAM_END);
  out.resize(z.total_out);
  (void)::inflateEnd(&z);
  return out;
}

TEST_F(Encoders, GelfIsJsonCompressedAndCutIntoChunks) {
  const std::string expected =
      R"({"version":"1.1","host":"host","short_message":"\"hi\"","timestamp":1793626147.414,"level":3,)"
      R"("_command":"","_container_id":")" +
      std::string(64, 'a') +
      R"(","_container_name":"web","_created":"","_image_id":"","_image_name":"busybox","_role":"db","_tag":"tag"})";
  for (const char* type : {"none", "gzip", "zlib"}) {
    const auto encoder = make_gelf_encoder(
        with({{"gelf-address", "udp://h:1"}, {"gelf-compression-type", type}, {"extra.role", "db"}}), "host");
    const std::string bytes = one(*encoder, message("\"hi\"", logs::Stream::err));
    EXPECT_EQ(std::string_view(type) == "none" ? bytes : inflated(bytes), expected) << type;
  }
  const auto tcp = make_gelf_encoder(with({{"gelf-address", "tcp://h:1"}, {"extra.role", "db"}}), "host");
  EXPECT_EQ(one(*tcp, message("\"hi\"", logs::Stream::err)), expected + '\0');

  const auto plain =
      make_gelf_encoder(with({{"gelf-address", "udp://h:1"}, {"gelf-compression-type", "none"}}), "host");
  std::vector<Record> chunks;
  const std::string text(5000, 'x');
  plain->encode(message(text), chunks);
  ASSERT_EQ(chunks.size(), 4u);
  std::string joined;
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    const std::string& bytes = chunks[i].bytes;
    EXPECT_LE(bytes.size(), 1420u);
    EXPECT_EQ(bytes.substr(0, 10), "\x1e\x0f" + chunks[0].bytes.substr(2, 8));
    EXPECT_EQ(bytes[10], static_cast<char>(i));
    EXPECT_EQ(bytes[11], 4);
    joined += bytes.substr(12);
  }
  EXPECT_NE(joined.find(text), std::string::npos);
}

TEST_F(Encoders, JournaldFieldsAreSaneAndMayHoldNewlines) {
  const auto encoder = make_journald_encoder(with({{"extra.com.example-x", "a\nb"}, {"extra._y", "1"}}));
  const std::string bytes = one(*encoder, message("hi"));
  for (const char* line : {"PRIORITY=6\n", "MESSAGE=hi\n", "CONTAINER_ID=aaaaaaaaaaaa\n", "CONTAINER_NAME=web\n",
                           "Y=1\n", "CONTAINER_TAG=tag\n", "IMAGE_NAME=busybox\n", "CONTAINER_LOG_ORDINAL=1\n",
                           "SYSLOG_TIMESTAMP=2026-11-02T13:29:07.4144Z\n"})
    EXPECT_NE(bytes.find(line), std::string::npos) << line;
  EXPECT_NE(bytes.find(std::string("COM_EXAMPLE_X\n\3\0\0\0\0\0\0\0a\nb\n", 26)), std::string::npos);
  EXPECT_EQ(journal_field("__a.b"), "A_B");
}

TEST_F(Encoders, LongLinesComeInPiecesWithOneId) {
  Splitter splitter;
  const std::string line = std::string(logs::kMaxLine, 'a') + "tail\nnext\nrest";
  std::string_view bytes = line;
  LogMessage m;
  ASSERT_TRUE(splitter.next(logs::Stream::out, bytes, {}, m));
  EXPECT_TRUE(m.partial && !m.last && m.ordinal == 1 && m.text.size() == logs::kMaxLine);
  const std::string id(m.partial_id);
  ASSERT_TRUE(splitter.next(logs::Stream::out, bytes, {}, m));
  EXPECT_TRUE(m.partial && m.last && m.ordinal == 2);
  EXPECT_EQ(m.text, "tail");
  EXPECT_EQ(m.partial_id, id);
  ASSERT_TRUE(splitter.next(logs::Stream::out, bytes, {}, m));
  EXPECT_FALSE(m.partial);
  EXPECT_EQ(m.text, "next");
  EXPECT_FALSE(splitter.next(logs::Stream::out, bytes, {}, m));
  EXPECT_FALSE(splitter.flush(logs::Stream::err, {}, m));
  ASSERT_TRUE(splitter.flush(logs::Stream::out, {}, m));
  EXPECT_EQ(m.text, "rest");
}

}  // namespace
}  // namespace gantry::logdriver
