#include "runtime/block_limits.hpp"

#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"

namespace gantry::runtime {
namespace {

/// The kernel takes one device per write.
void write_line(const sys::Path& file, const std::string& line) {
  const sys::Fd fd = sys::open_file(file, O_WRONLY);
  if (::write(fd.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size()))
    throw Error::from_errno(errno, fmt::format("write {} to {}", line, file.filename().string()));
}

std::string device_of(const BlockDeviceLimit& limit) { return fmt::format("{}:{}", limit.major, limit.minor); }

/// Which of the two schedulers' files is there. Source: block/blk-iocost.c, block/bfq-cgroup.c.
sys::Path either(const sys::Path& first, const sys::Path& second) {
  return ::access(first.c_str(), F_OK) == 0 ? first : second;
}

}  // namespace

void write_block_limits_blocking(const HostFacts& facts, const std::string& group, const Resources& changes) {
  const bool v2 = facts.cgroup.is_v2();
  const auto directory = facts.cgroup.directory(v2 ? "io" : "blkio", group);
  if (!directory) return;
  const sys::Path weights = v2 ? either(*directory / "io.weight", *directory / "io.bfq.weight")
                               : either(*directory / "blkio.weight_device", *directory / "blkio.bfq.weight_device");
  for (const BlockDeviceLimit& limit : changes.blkio_weight_device)
    write_line(weights, fmt::format("{} {}", device_of(limit), limit.value));
  const auto rates = [&](const std::vector<BlockDeviceLimit>& limits, const char* v1_file, const char* v2_key) {
    for (const BlockDeviceLimit& limit : limits) {
      if (!v2) write_line(*directory / v1_file, fmt::format("{} {}", device_of(limit), limit.value));
      else if (limit.value == 0) write_line(*directory / "io.max", fmt::format("{} {}=max", device_of(limit), v2_key));
      else write_line(*directory / "io.max", fmt::format("{} {}={}", device_of(limit), v2_key, limit.value));
    }
  };
  rates(changes.blkio_read_bps, "blkio.throttle.read_bps_device", "rbps");
  rates(changes.blkio_write_bps, "blkio.throttle.write_bps_device", "wbps");
  rates(changes.blkio_read_iops, "blkio.throttle.read_iops_device", "riops");
  rates(changes.blkio_write_iops, "blkio.throttle.write_iops_device", "wiops");
}

}  // namespace gantry::runtime
