#include "logdriver/message.hpp"

#include <algorithm>
#include <cstring>

#include "base/ids.hpp"

namespace gantry::logdriver {

using logs::kMaxLine;

bool Splitter::next(logs::Stream stream, std::string_view& bytes, Timestamp time, LogMessage& out) {
  Carry& c = carry(stream);
  out = {};
  out.stream = stream;
  out.time = time;
  while (!bytes.empty()) {
    const std::size_t window = std::min(bytes.size(), kMaxLine - c.held.size());
    const auto* newline = static_cast<const char*>(std::memchr(bytes.data(), '\n', window));
    const std::size_t taken = newline == nullptr ? window : static_cast<std::size_t>(newline - bytes.data());
    const std::string_view piece = bytes.substr(0, taken);
    bytes.remove_prefix(newline == nullptr ? taken : taken + 1);
    if (newline != nullptr) {
      if (c.held.empty()) {
        out.text = piece;
      } else {
        c.emitted = std::move(c.held);
        c.held = std::string();
        out.text = c.emitted.append(piece);
      }
      if (c.ordinal > 0) {
        out.partial = out.last = true;
        out.ordinal = ++c.ordinal;
        out.partial_id = c.partial_id;
        c.ordinal = 0;
      }
      return true;
    }
    c.held.append(piece);
    if (c.held.size() == kMaxLine) {
      emit_piece(c, logs::cut_point(c.held.data()), out);
      return true;
    }
  }
  return false;
}

void Splitter::emit_piece(Carry& c, std::size_t size, LogMessage& out) {
  if (c.ordinal == 0) c.partial_id = random_id();
  c.emitted = c.held.substr(0, size);
  c.held.erase(0, size);
  out.text = c.emitted;
  out.partial = true;
  out.ordinal = ++c.ordinal;
  out.partial_id = c.partial_id;
}

bool Splitter::flush(logs::Stream stream, Timestamp time, LogMessage& out) {
  Carry& c = carry(stream);
  if (c.held.empty()) return false;
  out = {};
  out.stream = stream;
  out.time = time;
  emit_piece(c, c.held.size(), out);
  c.ordinal = 0;
  return true;
}

}  // namespace gantry::logdriver
