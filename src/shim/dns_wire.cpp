#include "shim/dns_wire.hpp"

#include <algorithm>
#include <vector>

#include <arpa/inet.h>

#include "base/text.hpp"

namespace gantry::shim::dns {
namespace {

constexpr std::uint16_t kTypeOpt = 41;
constexpr std::uint16_t kOurUdpSize = 4096;  // loopback has no fragments to fear
constexpr std::size_t kMaxName = 255;
constexpr std::size_t kMaxLabel = 63;
constexpr std::uint8_t kQr = 0x80, kTc = 0x02, kRd = 0x01, kRa = 0x80;

std::uint8_t byte_at(std::string_view m, std::size_t at) { return static_cast<std::uint8_t>(m[at]); }

std::uint16_t u16_at(std::string_view m, std::size_t at) {
  return static_cast<std::uint16_t>(byte_at(m, at) << 8 | byte_at(m, at + 1));
}

void put_u16(std::string& out, std::size_t value) {
  out += static_cast<char>(value >> 8 & 0xff);
  out += static_cast<char>(value & 0xff);
}

void set_u16(std::string& out, std::size_t at, std::size_t value) {
  out[at] = static_cast<char>(value >> 8 & 0xff);
  out[at + 1] = static_cast<char>(value & 0xff);
}

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

/// A name without compression. The offset behind it; 0 if it is malformed. `text` stays empty where a label holds bytes
/// that no name of ours can have.
std::size_t read_name(std::string_view m, std::size_t at, std::string& text) {
  const std::size_t start = at;
  bool plain = true;
  for (;;) {
    if (at >= m.size()) return 0;
    const std::size_t length = byte_at(m, at++);
    if (at - start + length > kMaxName) return 0;
    if (length == 0) break;
    if (length > kMaxLabel || at + length > m.size()) return 0;
    if (!text.empty()) text += '.';
    for (const char c : m.substr(at, length)) {
      plain = plain && static_cast<unsigned char>(c) > ' ' && c != '.' && c != '\x7f';
      text += lower(c);
    }
    at += length;
  }
  if (!plain) text.clear();
  return at;
}

/// The client's EDNS record, if the sections behind the question are what a query has.
std::optional<std::uint16_t> find_udp_size(std::string_view m, std::size_t at) {
  if (u16_at(m, 6) != 0 || u16_at(m, 8) != 0) return std::nullopt;
  for (std::size_t left = u16_at(m, 10); left > 0; --left) {
    std::string unused;
    at = read_name(m, at, unused);
    if (at == 0 || at + 10 > m.size()) return std::nullopt;
    const std::uint16_t type = u16_at(m, at), size = u16_at(m, at + 2), length = u16_at(m, at + 8);
    if (type == kTypeOpt) return size;
    at += 10u + length;
  }
  return std::nullopt;
}

std::string header(std::uint16_t id, bool rd, std::uint8_t opcode_bits, Rcode code, std::uint16_t questions) {
  std::string out;
  put_u16(out, id);
  out += static_cast<char>(kQr | opcode_bits | (rd ? kRd : 0));
  out += static_cast<char>(kRa | static_cast<std::uint8_t>(code));
  put_u16(out, questions);
  out.append(6, '\0');
  return out;
}

}  // namespace

std::size_t Query::limit(bool tcp) const {
  if (tcp) return kMaxMessage;
  return std::max<std::size_t>(kMinUdpSize, udp_size.value_or(0));
}

ParsedQuery parse_query(std::string_view m) {
  ParsedQuery out;
  if (m.size() < kHeaderSize || (byte_at(m, 2) & kQr) != 0) return out;
  out.verdict = Verdict::bad;
  if ((byte_at(m, 2) & 0x78) != 0) {
    out.failure = Rcode::not_implemented;
    return out;
  }
  if (u16_at(m, 4) != 1) return out;
  Query& query = out.query;
  const std::size_t end = read_name(m, kHeaderSize, query.name);
  if (end == 0 || end + 4 > m.size()) return out;
  query.id = u16_at(m, 0);
  query.recursion_desired = (byte_at(m, 2) & kRd) != 0;
  query.type = u16_at(m, end);
  query.question_class = u16_at(m, end + 2);
  query.question = m.substr(kHeaderSize, end + 4 - kHeaderSize);
  query.udp_size = find_udp_size(m, end + 4);
  out.verdict = Verdict::good;
  return out;
}

std::string render_failure(std::string_view m, Rcode code) {
  const ParsedQuery parsed = parse_query(m);
  const bool good = parsed.verdict == Verdict::good;
  const std::uint8_t flags = byte_at(m, 2);
  return header(u16_at(m, 0), (flags & kRd) != 0, flags & 0x78, code, good ? 1 : 0) + parsed.query.question;
}

Answer::Answer(const Query& query, std::size_t limit)
    : bytes_(header(query.id, query.recursion_desired, 0, Rcode::no_error, 1) + query.question),
      limit_(limit),
      edns_(query.udp_size.has_value()) {
  if (edns_) limit_ -= 11;  // room for our own record
}

bool Answer::add(std::uint16_t type, std::string_view data) {
  if (bytes_.size() + 12 + data.size() > limit_) {
    bytes_[2] = static_cast<char>(bytes_[2] | kTc);
    return false;
  }
  put_u16(bytes_, 0xc000 | kHeaderSize);  // the question's name
  put_u16(bytes_, type);
  put_u16(bytes_, kClassIn);
  put_u16(bytes_, kTtl >> 16);
  put_u16(bytes_, kTtl & 0xffff);
  put_u16(bytes_, data.size());
  bytes_ += data;
  ++answers_;
  return true;
}

bool Answer::add_address(std::string_view bytes) { return add(bytes.size() == 4 ? kTypeA : kTypeAaaa, bytes); }

bool Answer::add_name(std::string_view name) {
  const auto encoded = encode_name(name);
  return encoded && add(kTypePtr, *encoded);
}

std::string Answer::finish() {
  set_u16(bytes_, 6, answers_);
  if (edns_) {
    bytes_ += '\0';  // the root
    put_u16(bytes_, kTypeOpt);
    put_u16(bytes_, kOurUdpSize);
    bytes_.append(6, '\0');  // no extended code, version 0, no flags, no data
    set_u16(bytes_, 10, 1);
  }
  return std::move(bytes_);
}

bool is_answer_to(std::string_view response, std::string_view query) {
  if (response.size() < kHeaderSize || query.size() < kHeaderSize) return false;
  if ((byte_at(response, 2) & kQr) == 0 || u16_at(response, 0) != u16_at(query, 0)) return false;
  // A server that could not make sense of the query need not repeat it.
  if (u16_at(response, 4) == 0) return rcode_of(response) != 0;
  std::string asked, answered;
  const std::size_t end = read_name(query, kHeaderSize, asked);
  const std::size_t other_end = read_name(response, kHeaderSize, answered);
  if (u16_at(response, 4) != 1 || end == 0 || end != other_end || end + 4 > query.size() || end + 4 > response.size())
    return false;
  const auto name_of = [end](std::string_view m) { return m.substr(kHeaderSize, end - kHeaderSize); };
  return std::ranges::equal(name_of(query), name_of(response), {}, lower, lower) &&
         query.substr(end, 4) == response.substr(end, 4);
}

std::uint8_t rcode_of(std::string_view message) { return byte_at(message, 3) & 0x0f; }

void set_id(std::string& message, std::uint16_t id) { set_u16(message, 0, id); }

std::string truncated(std::string_view response) {
  std::string unused;
  const std::size_t end = read_name(response, kHeaderSize, unused);
  const bool whole = end != 0 && end + 4 <= response.size() && u16_at(response, 4) == 1;
  std::string out(response.substr(0, whole ? end + 4 : kHeaderSize));
  out[2] = static_cast<char>(out[2] | kTc);
  set_u16(out, 4, whole ? 1 : 0);
  for (const std::size_t count : {6u, 8u, 10u}) set_u16(out, count, 0);
  return out;
}

std::optional<std::string> reverse_address(std::string_view name) {
  constexpr std::string_view kIp4 = ".in-addr.arpa", kIp6 = ".ip6.arpa";
  char text[INET6_ADDRSTRLEN];
  if (name.ends_with(kIp4)) {
    const auto labels = split(name.substr(0, name.size() - kIp4.size()), '.');
    if (labels.size() != 4) return std::nullopt;
    const std::string forward = labels[3] + "." + labels[2] + "." + labels[1] + "." + labels[0];
    in_addr address{};
    if (::inet_pton(AF_INET, forward.c_str(), &address) != 1) return std::nullopt;
    return ::inet_ntop(AF_INET, &address, text, sizeof text);
  }
  if (!name.ends_with(kIp6)) return std::nullopt;
  const std::string_view digits = name.substr(0, name.size() - kIp6.size());
  if (digits.size() != 63) return std::nullopt;
  in6_addr address{};
  for (std::size_t i = 0; i < 32; ++i) {
    const char c = digits[62 - 2 * i];
    if (i != 0 && digits[63 - 2 * i] != '.') return std::nullopt;
    const bool number = c >= '0' && c <= '9';
    if (!number && (c < 'a' || c > 'f')) return std::nullopt;
    const auto value = static_cast<unsigned>(number ? c - '0' : c - 'a' + 10);
    address.s6_addr[i / 2] = static_cast<std::uint8_t>(address.s6_addr[i / 2] << 4 | value);
  }
  return ::inet_ntop(AF_INET6, &address, text, sizeof text);
}

std::optional<std::string> encode_name(std::string_view name) {
  std::string out;
  while (!name.empty()) {
    const auto dot = std::min(name.find('.'), name.size());
    if (dot == 0 || dot > kMaxLabel) return std::nullopt;
    out += static_cast<char>(dot);
    out += name.substr(0, dot);
    name.remove_prefix(std::min(dot + 1, name.size()));
  }
  out += '\0';
  if (out.size() > kMaxName) return std::nullopt;
  return out;
}

}  // namespace gantry::shim::dns
