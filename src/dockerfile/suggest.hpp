#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace gantry::dockerfile {

/// What was probably meant: the first option at the smallest edit distance below 3; "" if there is none, or if the
/// value is one of the options. Without regard to case the answer follows the value's case.
std::string closest_option(std::string_view value, const std::vector<std::string>& options, bool case_sensitive);
/// ` (did you mean X?)`, or "".
std::string did_you_mean(std::string_view value, const std::vector<std::string>& options, bool case_sensitive);

}  // namespace gantry::dockerfile
