#include "api/stream_mux.hpp"

#include <algorithm>

namespace gantry::api {

std::string mux_frames(MuxStream stream, std::string_view payload) {
  std::string out;
  out.reserve(payload.size() + kMuxHeaderSize * (payload.size() / kMuxMaxPayload + 1));
  while (!payload.empty()) {
    const std::size_t size = std::min(payload.size(), kMuxMaxPayload);
    const char header[kMuxHeaderSize] = {static_cast<char>(stream),
                                         0,
                                         0,
                                         0,
                                         static_cast<char>(size >> 24),
                                         static_cast<char>(size >> 16 & 0xff),
                                         static_cast<char>(size >> 8 & 0xff),
                                         static_cast<char>(size & 0xff)};
    out.append(header, kMuxHeaderSize);
    out.append(payload.substr(0, size));
    payload.remove_prefix(size);
  }
  return out;
}

}  // namespace gantry::api
