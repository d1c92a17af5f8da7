#pragma once

namespace gantry {

/// Reports a broken promise of our own code on standard error and aborts. Containers outlive the daemon, so a restart
/// is cheap; going on with broken state is not.
[[noreturn]] void expectation_failed(const char* kind, const char* condition, const char* file, int line) noexcept;

}  // namespace gantry

/// A caller's duty. Never for what the kernel, the disk, the network or a client may do.
#define EXPECTS(cond) ((cond) ? void(0) : ::gantry::expectation_failed("EXPECTS", #cond, __FILE__, __LINE__))
/// This function's own promise.
#define ENSURES(cond) ((cond) ? void(0) : ::gantry::expectation_failed("ENSURES", #cond, __FILE__, __LINE__))
