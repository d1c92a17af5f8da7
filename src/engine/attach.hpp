#pragma once

#include <memory>
#include <string>

#include "async/task.hpp"
#include "engine/container.hpp"
#include "engine/container_store.hpp"
#include "engine/lifecycle.hpp"
#include "engine/log_stream.hpp"
#include "engine/splice.hpp"
#include "engine/stream_client.hpp"

namespace gantry::engine {

struct AttachOptions {
  bool stream = false;
  bool use_stdin = false;
  bool use_stdout = false;
  bool use_stderr = false;
  bool logs = false;
  std::string detach_keys;  // as the client wrote them; empty: the default
  bool multiplexed = true;  // false: never frames, whatever the container has (WebSocket)
};

/// An attach that can begin.
struct AttachSession {
  ContainerPtr container;
  AttachOptions options;
  std::string keys;
  /// Tells a start that this session wants to see its first byte; from begin() on, so that it is noticed even by a
  /// start that follows at once.
  std::shared_ptr<const void> waiting;
  bool framed() const { return options.multiplexed && !container->tty(); }
};

/// Connects clients with containers' streams, in whatever state the container is: a session to one that does not run
/// waits for its next start, and then sees it from the first byte.
class Attach {
 public:
  Attach(ContainerStore& store, Lifecycle& lifecycle, LogStreams& logs)
      : store_(store), lifecycle_(lifecycle), logs_(logs) {}

  /// Throws invalid_argument (detach keys), not_found, conflict (paused, restarting).
  AttachSession begin(const std::string& reference, AttachOptions options) const;
  /// Serves the client until it leaves, detaches, or the container has ended and everything is written; then the
  /// client's connection can be closed. Publishes `attach` and `detach`. Throws only when cancelled.
  Task<void> run(AttachSession session, std::shared_ptr<StreamClient> client);

 private:
  Task<void> replay_logs(AttachSession session, std::shared_ptr<StreamClient> client);
  Task<std::shared_ptr<runtime::AttachStream>> find_stream(AttachSession session, std::shared_ptr<StreamClient> client);
  Task<std::shared_ptr<runtime::AttachStream>> open_stream(AttachSession session);

  ContainerStore& store_;
  Lifecycle& lifecycle_;
  LogStreams& logs_;
};

}  // namespace gantry::engine
