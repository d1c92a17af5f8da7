#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "shim/native_exec.hpp"
#include "shim/supervised.hpp"

namespace gantry::shim {

/// Further processes in the container.
class Execs {
 public:
  Execs(Loop& loop, Reaper& reaper, const protocol::ShimConfig& config, ReadBuffer& buffer);

  void create(protocol::ExecRequest request);
  /// `init` is the container's own process, alive.
  void start(const std::string& id, const sys::Child& init, const Reply& reply);
  void remove(const std::string& id);
  /// Throws not_found.
  Supervised& get(const std::string& id);
  void list(const Reply& reply) const;
  /// Kills the ones that run; for when the container is removed.
  void kill_all() noexcept;
  std::uint32_t attached() const noexcept;

 private:
  struct Exec : Supervised {
    std::string id;
    bool tty = false;
    bool removed = false;
    std::uint64_t order = 0;  // of their ends
    std::string process_json;
    std::unique_ptr<protocol::NativeProcess> process;  // null: the runtime makes it
    Stdio::ChildEnds ends;
    std::unique_ptr<ConsoleSocket> console;
    std::unique_ptr<RuntimeCommand> command;
    std::unique_ptr<NativeExec> native;
  };
  Exec& find(const std::string& id);
  void start_native(Exec& exec, const sys::Child& init, const Reply& reply);
  void start_by_runtime(Exec& exec, const Reply& reply);
  void joined(Exec& exec, NativeResult result, const Reply& reply);
  void launched(Exec& exec, CommandResult result, const Reply& reply);
  void take_over(Exec& exec, const Reply& reply);
  void failed(Exec& exec, const protocol::RuntimeFailure& failure, const Reply& reply);
  void ended(Exec& exec, int status, std::int64_t when_ns);
  void forget_old();
  void idle(const std::string& id);

  Loop& loop_;
  Reaper& reaper_;
  const protocol::ShimConfig& config_;
  ReadBuffer& buffer_;
  std::map<std::string, std::unique_ptr<Exec>> execs_;
  std::uint64_t ends_ = 0;
  Timer sweep_;
};

}  // namespace gantry::shim
