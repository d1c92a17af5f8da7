#include "buildops/source_op.hpp"

#include <fmt/format.h>
#include <boost/json.hpp>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::buildops {
namespace {

constexpr std::size_t kLongestList = 1 << 20;

}  // namespace

SourceName parse_source_name(const std::string& identifier) {
  const std::size_t colon = identifier.find("://");
  if (colon == std::string::npos || colon == 0)
    throw Error(Errc::invalid_argument, fmt::format("failed to parse source {}: no scheme", quote(identifier)));
  return {identifier.substr(0, colon), identifier.substr(colon + 3)};
}

std::string source_attribute(const pb::SourceOp& source, const std::string& name) {
  const auto it = source.attrs().find(name);
  return it == source.attrs().end() ? std::string() : it->second;
}

std::vector<std::string> source_list(const pb::SourceOp& source, const std::string& name) {
  const std::string text = source_attribute(source, name);
  if (text.empty()) return {};
  std::vector<std::string> out;
  boost::system::error_code failed;
  const boost::json::value value = text.size() > kLongestList ? boost::json::value() : boost::json::parse(text, failed);
  if (failed || !value.is_array()) throw Error(Errc::invalid_argument, fmt::format("{}: not a list", name));
  for (const boost::json::value& item : value.get_array()) {
    if (!item.is_string()) throw Error(Errc::invalid_argument, fmt::format("{}: not a list of strings", name));
    out.emplace_back(item.get_string());
  }
  return out;
}

}  // namespace gantry::buildops
