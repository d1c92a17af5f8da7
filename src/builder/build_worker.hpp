#pragma once

#include <atomic>
#include <chrono>
#include <list>
#include <memory>
#include <mutex>
#include <thread>

#include "buildlink/engine.hpp"
#include "buildlink/link.hpp"
#include "sys/fd.hpp"

namespace gantry::builder {

/// gantry-build between its start and its end: takes what the daemon hands over and serves it, until there has been
/// nothing to do for a while, the daemon is gone, or it is told to end.
class BuildWorker {
 public:
  /// Opens the build cache, and puts right what a killed worker left. Throws unavailable if another process has it.
  /// In a mount namespace of its own (see worker_process.hpp).
  BuildWorker(sys::Fd connections, sys::Fd requests);
  /// Ends what is still running.
  ~BuildWorker();
  BuildWorker(const BuildWorker&) = delete;
  BuildWorker& operator=(const BuildWorker&) = delete;

  /// Serves. Returns when it has nothing to do any more, or soon after `ending` became true.
  void run(const std::atomic<bool>& ending);

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace gantry::builder
