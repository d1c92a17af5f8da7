#pragma once

#include <string>
#include <string_view>

#include <boost/json/value.hpp>

namespace gantry::json {

using Value = boost::json::value;
using Object = boost::json::object;
using Array = boost::json::array;

/// One JSON document. Throws invalid_argument: "invalid JSON: …", also for nesting deeper than 64, and "unexpected
/// content after JSON".
Value parse(std::string_view text);
/// Compact text without the trailing newline that HTTP bodies carry. Characters are not HTML-escaped.
std::string render(const Value& value);

/// The member whose name matches, an exact match before one that ignores case, as Go decodes. nullptr if none.
const Value* find(const Object& object, std::string_view name);

}  // namespace gantry::json
