#include "base/expect.hpp"

#include <cstdio>
#include <cstdlib>

namespace gantry {

void expectation_failed(const char* kind, const char* condition, const char* file, int line) noexcept {
  std::fprintf(stderr, "%s failed: %s at %s:%d\n", kind, condition, file, line);
  std::abort();
}

}  // namespace gantry
