#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace gantry::api {

/// Which stream the bytes of a multiplexed frame belong to. `system` carries an error text: clients print it and stop.
enum class MuxStream : std::uint8_t { in = 0, out = 1, err = 2, system = 3 };

inline constexpr std::size_t kMuxHeaderSize = 8;
/// Larger payloads become several frames.
inline constexpr std::size_t kMuxMaxPayload = 32768;

/// `payload` as stdcopy frames: [stream, 0, 0, 0, size as big-endian 32 bits] and the bytes. Empty for an empty
/// payload. Source: engine-api.md §3.1.
std::string mux_frames(MuxStream stream, std::string_view payload);

}  // namespace gantry::api
