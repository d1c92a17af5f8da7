#include <cstdint>
#include <string>

#include "base/fuzz.hpp"
#include "protocol/message.hpp"
#include "protocol/native_process.hpp"
#include "protocol/types.hpp"

using gantry::fuzz::accepts;
using gantry::fuzz::require;
namespace protocol = gantry::protocol;

namespace {

void read_all_kinds(const protocol::Message& message) {
  accepts([&] { (void)protocol::read_failure(message); });
  accepts([&] { (void)protocol::read_exit(message); });
  accepts([&] { (void)protocol::read_state(message); });
  accepts([&] { (void)protocol::read_exec_state(message); });
  accepts([&] { (void)protocol::read_attach(message); });
  accepts([&] { (void)protocol::read_exec(message); });
  accepts([&] { (void)protocol::read_log_options(message); });
  accepts([&] { (void)protocol::decode_native(message.text(protocol::Tag::native)); });
}

}  // namespace

// What daemon and shim read from each other: frames in pieces, and the files beside the socket.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  protocol::Decoder decoder;
  accepts([&] {
    const std::size_t piece = size > 0 ? 1 + data[0] : 1;
    for (std::size_t at = 0; at < size; at += piece) {
      decoder.feed(text.substr(at, piece));
      while (const auto message = decoder.next()) {
        read_all_kinds(*message);
        protocol::Decoder again;
        again.feed(message->encode());
        const auto copy = again.next();
        require(copy && copy->encode() == message->encode(), "a message survives encoding");
      }
    }
  });
  accepts([&] { read_all_kinds(protocol::Message::decode_fields(protocol::Type::ok, 1, text)); });
  accepts([&] {
    const protocol::ShimConfig config = protocol::parse_config(text);
    require(protocol::parse_config(protocol::render_config(config)) == config, "a config survives rendering");
  });
  if (const auto exit = protocol::parse_exit(text))
    require(protocol::parse_exit(protocol::render_exit(*exit)) == *exit, "an exit survives rendering");
  return 0;
}
