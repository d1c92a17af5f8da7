#include "json/json.hpp"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::json {

Value parse(std::string_view text) {
  boost::json::parse_options options;
  options.max_depth = 64;
  boost::system::error_code ec;
  Value value = boost::json::parse(text, ec, {}, options);
  if (ec == boost::json::error::extra_data) throw Error(Errc::invalid_argument, "unexpected content after JSON");
  if (ec) throw Error(Errc::invalid_argument, "invalid JSON: " + ec.message());
  return value;
}

std::string render(const Value& value) { return boost::json::serialize(value); }

const Value* find(const Object& object, std::string_view name) {
  const Value* loose = nullptr;
  for (const auto& member : object) {
    if (member.key() == name) return &member.value();
    if (equals_ignoring_case(member.key(), name)) loose = &member.value();
  }
  return loose;
}

}  // namespace gantry::json
