#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "session/packet_stream.hpp"
#include "session/session.hpp"

namespace gantry::session {

/// The receiving side of a DiffCopy (buildkit.md, appendix B): brings `root` in line with what the other side lists and
/// sends, as Session::receive() says. Never follows a symbolic link. Throws what the sender reports, and
/// invalid_argument for a sender that breaks the rules.
///
/// One thread does everything as packets come; at most 64 files are under way, so that a sender always reads on.
ReceiveReport receive_tree(PacketStream& stream, int root, bool always_fetch,
                           const std::function<void(const std::string&)>& changed,
                           const std::function<void(std::int64_t)>& progress);

}  // namespace gantry::session
