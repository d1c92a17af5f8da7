#include "base/ids.hpp"

#include <algorithm>
#include <cerrno>

#include <sys/random.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry {

std::string random_id() {
  for (;;) {
    char bytes[32];
    if (::getrandom(bytes, sizeof bytes, 0) != static_cast<ssize_t>(sizeof bytes))
      throw Error::from_errno(errno, "getrandom");
    std::string id = render_hex({bytes, sizeof bytes});
    const bool looks_numeric = std::all_of(id.begin(), id.begin() + 12, [](char c) { return c >= '0' && c <= '9'; });
    if (!looks_numeric) return id;
  }
}

}  // namespace gantry
