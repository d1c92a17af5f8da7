#include <cstdint>
#include <string>

#include "base/fuzz.hpp"
#include "dockerfile/ignore.hpp"
#include "dockerfile/values.hpp"

using gantry::fuzz::accepts;
using gantry::fuzz::require;
namespace dockerfile = gantry::dockerfile;

// The first line is a path, the rest a .dockerignore. Walking down to the path must say what asking for it says.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const std::size_t cut = text.find('\n');
  if (cut == std::string::npos) return 0;
  std::string path = dockerfile::clean_path(text.substr(0, cut));
  if (path.starts_with('/')) path.erase(0, 1);
  accepts([&] {
    const dockerfile::IgnoreMatcher matcher(dockerfile::parse_ignore_file(text.substr(cut + 1)));
    const bool excluded = matcher.excludes(path);
    dockerfile::IgnoreMatcher::Verdict verdict;
    for (std::size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1)) {
      const std::string parent = path.substr(0, slash);
      verdict = matcher.judge(parent, verdict);
      require(!matcher.excluded(verdict) || excluded || matcher.may_include_below(parent, verdict),
              "a walk that skips a directory misses nothing");
    }
    require(matcher.excluded(matcher.judge(path, verdict)) == excluded, "a walk decides the same");
  });
  return 0;
}
