#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

/// DNS messages (RFC 1035, EDNS: RFC 6891), as far as a stub server needs them. Pure functions over bytes that anybody
/// may have made: nothing here trusts a length, follows a compression pointer or throws.
namespace gantry::shim::dns {

inline constexpr std::uint16_t kTypeA = 1, kTypePtr = 12, kTypeAaaa = 28;
inline constexpr std::uint16_t kClassIn = 1;
inline constexpr std::size_t kHeaderSize = 12;
inline constexpr std::size_t kMaxMessage = 65535;
inline constexpr std::size_t kMinUdpSize = 512;
/// Docker's, and short-lived enough for containers.
inline constexpr std::uint32_t kTtl = 600;

enum class Rcode : std::uint8_t {
  no_error = 0,
  format_error = 1,
  server_failure = 2,
  not_implemented = 4,
  refused = 5,
};

struct Query {
  std::uint16_t id = 0;
  bool recursion_desired = false;
  std::string question;  // name, type and class, byte for byte: an answer repeats the client's spelling
  std::string name;      // lower case, labels joined by dots; empty for the root and for labels that are no plain text
  std::uint16_t type = 0;
  std::uint16_t question_class = 0;
  std::optional<std::uint16_t> udp_size;  // the client speaks EDNS and takes datagrams of this size

  /// The largest answer that this client takes.
  std::size_t limit(bool tcp) const;
};

enum class Verdict : std::uint8_t { good, bad, ignore };
struct ParsedQuery {
  Verdict verdict = Verdict::ignore;    // ignore: not even an error is sent (too short, or an answer)
  Rcode failure = Rcode::format_error;  // of a bad one
  Query query;
};
ParsedQuery parse_query(std::string_view message);

/// An error for a message that may be malformed beyond its header.
std::string render_failure(std::string_view message, Rcode code);

/// Builds the answer to one query. What does not fit is left out and the TC bit set.
class Answer {
 public:
  Answer(const Query& query, std::size_t limit);
  /// Four or sixteen bytes. False: it did not fit.
  bool add_address(std::string_view bytes);
  /// A PTR record. False: it did not fit, or is no name.
  bool add_name(std::string_view name);
  std::string finish();

 private:
  bool add(std::uint16_t type, std::string_view data);
  std::string bytes_;
  std::size_t limit_;
  std::uint16_t answers_ = 0;
  bool edns_;
};

/// True if `response` is an upstream's answer to `query` (the same id and question).
bool is_answer_to(std::string_view response, std::string_view query);
/// Of a message with a whole header.
std::uint8_t rcode_of(std::string_view message);
void set_id(std::string& message, std::uint16_t id);
/// Header and question of a response, with the TC bit: what a client gets that cannot take it all.
std::string truncated(std::string_view response);

/// "4.3.2.1.in-addr.arpa" to "1.2.3.4", and the same for ip6.arpa, in inet_ntop(3)'s form.
std::optional<std::string> reverse_address(std::string_view name);
/// Labels with their lengths and the final zero; nullopt if it is not a name that DNS can carry.
std::optional<std::string> encode_name(std::string_view name);

}  // namespace gantry::shim::dns
