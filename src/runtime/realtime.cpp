#include "runtime/realtime.hpp"

#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::runtime {
namespace {

void write_number(const sys::Path& file, std::int64_t value) {
  const sys::Fd fd = sys::open_file(file, O_WRONLY);
  const std::string text = std::to_string(value);
  if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    throw Error::from_errno(errno, fmt::format("write {} to {}", text, file.string()));
}

}  // namespace

void set_realtime_share_blocking(const HostFacts& facts, const std::string& parent, std::int64_t period,
                                 std::int64_t runtime) {
  if (period == 0 && runtime == 0) return;
  if (facts.cgroup.is_v2())
    throw Error(Errc::unavailable, "daemon-scoped cpu-rt-period and cpu-rt-runtime are not implemented for cgroup v2");
  const auto top = facts.cgroup.directory("cpu", "/");
  if (!facts.cpu_realtime || !top)
    throw Error(Errc::unavailable, "daemon-scoped cpu-rt-period and cpu-rt-runtime are not supported by the kernel");
  sys::Path group = *top;
  for (const std::string& part : split(parent, '/')) {
    if (part.empty() || part == ".") continue;
    group /= part;
    sys::make_directories(group, 0755);
    if (period != 0) write_number(group / "cpu.rt_period_us", period);
    if (runtime != 0) write_number(group / "cpu.rt_runtime_us", runtime);
  }
}

}  // namespace gantry::runtime
