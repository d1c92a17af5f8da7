#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "logs/format.hpp"

namespace gantry::logdriver {

/// One line, or a piece of one that is longer than logs::kMaxLine. The views live until the next call of the splitter.
struct LogMessage {
  std::string_view text;  // without the newline
  logs::Stream stream = logs::Stream::out;
  Timestamp time{};
  // Of a piece.
  bool partial = false;
  std::string_view partial_id;
  unsigned ordinal = 0;  // from 1 on
  bool last = false;
};

/// Cuts output into messages, as Docker does it: a line that is too long comes in pieces that share an id.
class Splitter {
 public:
  /// Takes from `bytes` what the next message needs. false if it took all and no message is complete.
  bool next(logs::Stream stream, std::string_view& bytes, Timestamp time, LogMessage& out);
  /// The rest of an unfinished line, at the end of the output or where something is missing. false if there is none.
  bool flush(logs::Stream stream, Timestamp time, LogMessage& out);

 private:
  struct Carry {
    std::string held;
    std::string emitted;  // what `out.text` of the last message points into
    std::string partial_id;
    unsigned ordinal = 0;
  };
  Carry& carry(logs::Stream stream) { return carry_[stream == logs::Stream::err ? 1 : 0]; }
  static void emit_piece(Carry& carry, std::size_t size, LogMessage& out);

  Carry carry_[2];
};

}  // namespace gantry::logdriver
