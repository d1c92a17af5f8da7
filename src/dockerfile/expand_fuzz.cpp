#include <cstdint>
#include <string>

#include "base/fuzz.hpp"
#include "dockerfile/expand.hpp"
#include "dockerfile/mount.hpp"
#include "dockerfile/shell_pattern.hpp"
#include "dockerfile/values.hpp"

using gantry::fuzz::accepts;
using gantry::fuzz::require;
namespace dockerfile = gantry::dockerfile;

// Words with variables, with every set of options; and the values of flags.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  dockerfile::ExpandOptions options;
  options.raw_quotes = (data[0] & 1) != 0;
  options.raw_escapes = (data[0] & 2) != 0;
  options.ignore_quotes = (data[0] & 4) != 0;
  options.keep_unset = (data[0] & 8) != 0;
  if ((data[0] & 16) != 0) options.escape = '`';
  const auto environment = dockerfile::Environment::from_list({"A=1", "B=a b/c", "C=", "D=*?\\x"});
  accepts([&] {
    const dockerfile::Expansion result = dockerfile::expand(text, environment, options);
    std::size_t words = 0;
    for (const std::string& word : result.words) words += word.size();
    require(words <= result.text.size(), "words are parts of the text");
    require(result.text.size() <= dockerfile::kMaxExpansion, "the text is bounded");
  });
  accepts([&] { (void)dockerfile::parse_mount(text, {}); });
  accepts([&] { (void)dockerfile::parse_exposed_ports(text); });
  accepts([&] { (void)dockerfile::parse_duration(text); });
  accepts([&] { (void)dockerfile::check_chmod(text); });
  const std::string clean = dockerfile::clean_path(text);
  require(dockerfile::clean_path(clean) == clean, "clean is clean");
  const std::size_t cut = text.find('\n');
  if (cut == std::string::npos) return 0;
  accepts([&] {
    const std::string value = text.substr(cut + 1);
    const std::string pattern = text.substr(0, cut);
    const std::string longest = dockerfile::trim_matching_prefix(value, pattern, true);
    const std::string shortest = dockerfile::trim_matching_prefix(value, pattern, false);
    require(value.ends_with(shortest) && shortest.ends_with(longest), "a prefix was trimmed");
    require(value.starts_with(dockerfile::trim_matching_suffix(value, pattern, true)), "a suffix was trimmed");
    require(dockerfile::replace_matching(value, pattern, "", true).size() <= value.size(), "nothing was added");
  });
  return 0;
}
