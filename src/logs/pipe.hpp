#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "logs/format.hpp"

/// How the shim hands output to gantry-log, over a stream socket: frames of a header and so many bytes. In the other
/// direction come lines of text:
///   ok                  once: the driver is ready, or will be in its own time
///   error <text>        once, and the end: the driver cannot work; the text is Docker's
///   dropped <bytes>     how much output was dropped so far
///   log <text>          for the shim's log
namespace gantry::logs {

struct PipeHeader {
  std::uint32_t size = 0;
  Stream stream = Stream::out;
  bool gap = false;  // something of this stream was dropped before this
  Timestamp time{};
};

inline constexpr std::size_t kPipeHeaderSize = 16;
inline constexpr std::size_t kMaxPipeFrame = 1 << 20;

/// Numbers are little-endian.
inline std::array<char, kPipeHeaderSize> encode_pipe_header(const PipeHeader& header) {
  std::array<char, kPipeHeaderSize> out{};
  for (std::size_t i = 0; i < 4; ++i) out[i] = static_cast<char>(header.size >> (8 * i));
  out[4] = static_cast<char>(header.stream);
  out[5] = header.gap ? 1 : 0;
  const auto ns = static_cast<std::uint64_t>(header.time.time_since_epoch().count());
  for (std::size_t i = 0; i < 8; ++i) out[8 + i] = static_cast<char>(ns >> (8 * i));
  return out;
}

inline PipeHeader decode_pipe_header(std::string_view bytes) {
  const auto byte = [bytes](std::size_t i) { return std::uint64_t{static_cast<unsigned char>(bytes[i])}; };
  PipeHeader header;
  std::uint64_t ns = 0;
  for (std::size_t i = 0; i < 4; ++i) header.size |= static_cast<std::uint32_t>(byte(i) << (8 * i));
  for (std::size_t i = 0; i < 8; ++i) ns |= byte(8 + i) << (8 * i);
  header.stream = byte(4) == 2 ? Stream::err : Stream::out;
  header.gap = byte(5) != 0;
  header.time = Timestamp(std::chrono::nanoseconds(static_cast<std::int64_t>(ns)));
  return header;
}

}  // namespace gantry::logs
