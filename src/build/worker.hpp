#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>

#include "async/lanes.hpp"
#include "async/mutex.hpp"
#include "async/signal.hpp"
#include "async/task.hpp"
#include "async/task_group.hpp"
#include "build/link.hpp"
#include "protocol/build_link.hpp"
#include "sys/cgroup.hpp"
#include "sys/process.hpp"

namespace gantry::build {

struct WorkerOptions {
  sys::Path program;               // gantry-build
  std::vector<std::string> flags;  // of its log
  std::string cgroup;              // "/docker/buildkit-…": the worker is below it, and so is what it runs
  std::int64_t memory = 0;         // bytes for the worker itself; 0: no bound
};

/// gantry-build, which is started when there is something for it to do and ends itself when there is not. Loop thread.
///
/// Whatever happens to the process, nothing of it stays: its mounts are in a namespace of its own, its processes in its
/// control group, and `ended` takes back what it had asked for.
class Worker {
 public:
  using Options = std::function<WorkerOptions()>;

  Worker(boost::asio::any_io_executor loop, async::Lanes& lanes, const sys::CgroupLayout& cgroups, Options options,
         LinkHandler handler, std::function<Task<void>()> ended);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  /// Ends and removes what a former daemon's worker left. Before the first hand_over().
  Task<void> recover();
  /// Gives the worker a connection, starting it if it does not run. Throws unavailable if it cannot be started.
  Task<void> hand_over(protocol::Handover request, sys::Fd fd);
  bool is_running() const noexcept { return static_cast<bool>(process_); }
  pid_t pid() const noexcept { return process_ ? process_->child.pid : -1; }
  /// Tells it to end, which cancels what it builds, and waits; kills it after `patience`. Nothing can be handed over
  /// any more.
  Task<void> stop(std::chrono::milliseconds patience);

 private:
  struct Process {
    sys::Child child;
    sys::Fd connections;
    std::string cgroup;
    std::uint64_t handed_over = 0;
    bool leaving = false;  // it has nothing to do and is about to end
    bool over = false;
    async::Signal ended;
  };
  using ProcessPtr = std::shared_ptr<Process>;

  Task<ProcessPtr> get_process();
  Task<ProcessPtr> start();
  Task<LinkReply> answer(ProcessPtr process, std::string method, std::string params, LinkCallPtr call);
  Task<void> look_after(ProcessPtr process, sys::Fd requests);
  Task<void> wait_end(ProcessPtr process, std::chrono::milliseconds patience);
  static void send_signal(const Process& process, int signal);
  Task<void> clear_cgroup(std::string group);

  boost::asio::any_io_executor loop_;
  async::Lanes& lanes_;
  const sys::CgroupLayout& cgroups_;
  Options options_;
  LinkHandler handler_;
  std::function<Task<void>()> ended_;
  ProcessPtr process_;
  async::Mutex starting_;
  bool stopping_ = false;
  async::TaskGroup tasks_;
};

}  // namespace gantry::build
