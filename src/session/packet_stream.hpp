#pragma once

#include <functional>

#include "proto/fsutil.pb.h"

namespace gantry::session {

/// One exchange of packets with a client. One thread may read while another writes.
class PacketStream {
 public:
  virtual ~PacketStream() = default;
  /// Blocks; false when the client has ended its side or the connection broke.
  virtual bool read(fsutil::types::Packet& packet) = 0;
  /// Blocks while the client does not read; false when the stream is broken.
  virtual bool write(const fsutil::types::Packet& packet) = 0;
  /// Breaks the stream: a read or write that waits, in any thread, returns false.
  virtual void cancel() = 0;
};

}  // namespace gantry::session
