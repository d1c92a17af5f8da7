#pragma once

#include <cstdint>
#include <functional>

#include "session/packet_stream.hpp"

namespace gantry::session {

/// The sending side of a DiffCopy: lists the tree below `root` and sends what the other side asks for. `progress` gets
/// the bytes sent so far. Throws what the receiver reports.
void send_tree_packets(PacketStream& stream, int root, const std::function<void(std::int64_t)>& progress);

}  // namespace gantry::session
