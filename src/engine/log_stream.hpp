#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "async/lanes.hpp"
#include "async/task.hpp"
#include "engine/container.hpp"
#include "engine/container_store.hpp"
#include "engine/services.hpp"
#include "engine/stream_client.hpp"
#include "logs/reader.hpp"

namespace gantry::engine {

/// What a client asks for; times and tail as it wrote them.
struct LogQuery {
  bool want_stdout = false;
  bool want_stderr = false;
  bool follow = false;
  bool timestamps = false;
  bool details = false;
  bool json = false;  // one JSON object per line, in place of frames and time stamps
  std::string since;
  std::string until;
  std::string tail;
};

/// A reading that can begin.
struct LogSession {
  ContainerPtr container;
  logs::ReadOptions read;
  logs::RenderOptions render;
  bool follow = false;       // the container writes now
  std::uint64_t starts = 0;  // … in this start
};

/// Container logs. The files are read in a lane of its own, a quarter of a megabyte at a time and only as fast as the
/// client takes it, so a client that does not read holds no thread and delays nobody.
class LogStreams {
 public:
  LogStreams(Services& services, ContainerStore& store) : services_(services), store_(store) {}

  /// Throws invalid_argument (no stream, times), not_found, conflict (dead or being removed), not_implemented for a
  /// log driver that keeps nothing here.
  LogSession open(const std::string& reference, const LogQuery& query) const;
  /// Writes what was asked for. A follower ends when the container stops, after everything that it wrote.
  Task<void> run(LogSession session, std::shared_ptr<ByteWriter> writer);
  /// Everything so far, for an attach with `logs=1`. Throws as open() does for drivers.
  Task<void> replay(ContainerPtr container, bool want_stdout, bool want_stderr, bool framed,
                    std::shared_ptr<ByteWriter> writer);

 private:
  Services& services_;
  ContainerStore& store_;
  async::Lane lane_{"logs", 4};
};

/// "seconds[.fraction]"; empty and "0" are no limit. Throws invalid_argument, naming the parameter.
std::optional<Timestamp> parse_log_time(const std::string& name, const std::string& text);
/// A number of lines; everything else ("all", "", negative) is no limit.
std::optional<std::uint64_t> parse_log_tail(const std::string& text);

}  // namespace gantry::engine
