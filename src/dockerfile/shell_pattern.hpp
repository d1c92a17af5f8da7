#pragma once

#include <string>
#include <string_view>

/// The patterns of `${x#p}`, `${x%p}` and `${x/p/r}`: `*` any run, `?` any character (neither a newline), `\*`, `\?`
/// and
/// `\\` themselves, `\}` and `\/` without the backslash; everything else literal. Works on UTF-8 characters.
/// All throw Error(invalid_argument): `invalid pattern (p) in substitution: …`, also when value and pattern together
/// would take too long (a bounded number of steps).
namespace gantry::dockerfile {

/// `value` without the shortest (longest if `greedy`) beginning that matches.
std::string trim_matching_prefix(std::string_view value, std::string_view pattern, bool greedy);
std::string trim_matching_suffix(std::string_view value, std::string_view pattern, bool greedy);
/// The first (all, from left to right) longest matches replaced.
std::string replace_matching(std::string_view value, std::string_view pattern, std::string_view replacement, bool all);

}  // namespace gantry::dockerfile
