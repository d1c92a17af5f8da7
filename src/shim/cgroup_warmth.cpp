#include "shim/cgroup_warmth.hpp"

#include <fcntl.h>
#include <unistd.h>

namespace gantry::shim {
namespace {

constexpr std::chrono::milliseconds kEvery{4};  // well below a grace period
constexpr int kTimes = 250;                     // a second: by then a runtime on a busy machine has its cgroups, too

}  // namespace

CgroupWarmth::CgroupWarmth(Loop& loop, const sys::Path& own)
    : loop_(loop), procs_(::open((own / "cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC)), left_(kTimes) {
  // Not at once: the runtime is to be on its way when this thread waits.
  if (procs_) again_ = loop_.after(std::chrono::milliseconds(0), [this] { touch(); });
}

void CgroupWarmth::touch() {
  if (left_-- == 0 || ::pwrite(procs_.get(), "0", 1, 0) != 1) return;
  again_ = loop_.after(kEvery, [this] { touch(); });
}

}  // namespace gantry::shim
