#include <cstdint>
#include <string>

#include "base/fuzz.hpp"
#include "shim/dns_wire.hpp"

using gantry::fuzz::require;
namespace dns = gantry::shim::dns;

namespace {

void answer(const dns::Query& query, bool tcp) {
  const std::size_t limit = query.limit(tcp);
  dns::Answer answer(query, limit);
  for (int n = 0; n < 40; ++n) {
    answer.add_address(std::string(n % 2 == 0 ? 4 : 16, static_cast<char>(n)));
    answer.add_name(query.name);
  }
  const std::string reply = answer.finish();
  require(reply.size() <= limit, "an answer fits");
  require(reply.size() >= dns::kHeaderSize && dns::rcode_of(reply) == 0, "an answer has a header");
  require(dns::parse_query(reply).verdict == dns::Verdict::ignore, "an answer is no question");
  require(dns::truncated(reply).size() <= reply.size(), "what is cut is not longer");
}

}  // namespace

// What a container sends to its name server, and what an upstream server answers.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string message(reinterpret_cast<const char*>(data), size);
  const dns::ParsedQuery parsed = dns::parse_query(message);
  if (parsed.verdict == dns::Verdict::bad)
    require(dns::render_failure(message, parsed.failure).size() >= dns::kHeaderSize, "a failure has a header");
  if (parsed.verdict == dns::Verdict::good) {
    answer(parsed.query, false);
    answer(parsed.query, true);
    std::string reply = message;
    reply[2] = static_cast<char>(reply[2] | 0x80);
    dns::set_id(reply, 7);
    require(!dns::is_answer_to(reply, message) || parsed.query.id == 7, "an answer to another question is none");
    (void)dns::reverse_address(parsed.query.name);
  }
  (void)dns::is_answer_to(message, message);
  if (size >= dns::kHeaderSize) (void)dns::truncated(message);
  if (const auto name = dns::encode_name(message)) require(name->size() <= 255, "a name is no longer than DNS allows");
  if (const auto address = dns::reverse_address(message)) require(!address->empty(), "an address is no empty text");
  return 0;
}
