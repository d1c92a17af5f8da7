#include <cstdint>
#include <string>

#include <sys/mman.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/fuzz.hpp"
#include "config/load.hpp"
#include "sys/fd.hpp"
#include "sys/file.hpp"

namespace config = gantry::config;

// daemon.json: every text is either taken or answered with problems that can be shown.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const gantry::sys::Fd file(::memfd_create("daemon.json", MFD_CLOEXEC));
  gantry::sys::write_all(file.get(), {reinterpret_cast<const char*>(data), size});
  config::ParsedCommandLine command_line;
  command_line.config_file = fmt::format("/proc/self/fd/{}", file.get());
  command_line.config_file_given = true;
  const config::LoadResult loaded = config::load(command_line, {});
  for (const config::Problem& problem : loaded.problems)
    gantry::fuzz::require(!config::render_problem(problem).empty(), "a problem has words");
  gantry::fuzz::require(loaded.usable() == loaded.fatal_text().empty(), "unusable is explained");
  (void)config::render_config(loaded);
  return 0;
}
