#pragma once

#include <memory>
#include <optional>
#include <string>

#include "async/task.hpp"
#include "engine/stream_client.hpp"
#include "runtime/shim_client.hpp"

namespace gantry::engine {

struct SpliceOptions {
  bool use_stdin = false;
  /// The client's end of input closes the process's input and the session goes on; otherwise it ends the session.
  bool close_stdin = false;
  /// Takes the frame headers out of the output: for WebSockets.
  bool strip_frames = false;
  /// Puts frame headers before the output of a terminal, for a client that expects them.
  bool add_frames = false;
  /// The bytes that detach; empty: none. Only for terminals.
  std::string detach_keys;
};

enum class SpliceEnd { output_ended, detached, client_left };

/// Carries bytes between a process's streams and a client until one of them ends. Holds at most 64 KiB per direction;
/// a side that does not read makes the other wait. Throws only when cancelled. What remains to be done with the client
/// is finish_client().
Task<SpliceEnd> splice(std::shared_ptr<runtime::AttachStream> stream, std::shared_ptr<StreamClient> client,
                       SpliceOptions options);

/// Says goodbye so that the client reads everything up to the end: closes our direction, then swallows what the client
/// still sends for a short while. Without this a client that was sending would see a reset instead of the end.
Task<void> finish_client(std::shared_ptr<StreamClient> client);

/// `text` as the daemon itself says it in a stream: on stdout, in a frame if the client expects frames.
std::string frame_text(std::string_view text, bool framed);

/// Takes stdcopy frame headers out of a stream that arrives in arbitrary pieces.
class FrameStripper {
 public:
  std::string feed(std::string_view bytes);

 private:
  std::string header_;       // an incomplete one
  std::size_t payload_ = 0;  // bytes of the current frame still to come
};

}  // namespace gantry::engine
