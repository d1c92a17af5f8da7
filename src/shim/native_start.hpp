#pragma once

#include <string>

#include "shim/native_child.hpp"
#include "shim/native_report.hpp"

namespace gantry::shim {

/// The second process of a native exec, from its birth in the container's pid namespace to its program.
class NativeStart {
 public:
  NativeStart(const NativeJob& job, NativeReporter report) : job_(job), process_(*job.process), report_(report) {}

  /// Goes to the working directory, if that can be done already. Called in the first process, with its privileges.
  void try_directory();
  [[noreturn]] void run();

 private:
  void become_session();
  void load_filter();
  void give_up_capabilities();
  void require_directory();
  std::string find_program();
  std::string find_in_path(const std::string& name);
  [[noreturn]] void not_executable(const std::string& path, int number);
  [[noreturn]] void execute(const std::string& path);

  const NativeJob& job_;
  const protocol::NativeProcess& process_;
  NativeReporter report_;
  int directory_error_ = 0;
};

}  // namespace gantry::shim
