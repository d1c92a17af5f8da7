#include "dockerfile/suggest.hpp"

#include <algorithm>
#include <cstddef>

#include "base/text.hpp"

namespace gantry::dockerfile {
namespace {

constexpr std::size_t kTooFar = 3;
constexpr std::size_t kLongestWord = 256;

std::size_t distance(std::string_view a, std::string_view b) {
  const std::size_t longer = std::max(a.size(), b.size());
  if (longer > kLongestWord || longer - std::min(a.size(), b.size()) >= kTooFar) return kTooFar;
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({substitute, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string closest_option(std::string_view value, const std::vector<std::string>& options, bool case_sensitive) {
  const std::string wanted = case_sensitive ? std::string(value) : to_lower(value);
  std::string best;
  std::size_t best_distance = kTooFar;
  for (const std::string& option : options) {
    const std::string candidate = case_sensitive ? option : to_lower(option);
    if (candidate == wanted) return "";  // not a slip of the keyboard
    const std::size_t far = distance(wanted, candidate);
    if (far >= best_distance) continue;
    best_distance = far;
    best = candidate;
  }
  if (!case_sensitive && value == to_upper(value)) return to_upper(best);
  return best;
}

std::string did_you_mean(std::string_view value, const std::vector<std::string>& options, bool case_sensitive) {
  const std::string option = closest_option(value, options, case_sensitive);
  return option.empty() ? "" : " (did you mean " + option + "?)";
}

}  // namespace gantry::dockerfile
