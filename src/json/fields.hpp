#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include <boost/describe/class.hpp>

/// Field types of wire structs, for what plain C++ types do not say. See json/codec.hpp.
namespace gantry::json {

/// A field that is left out when it has no value. A std::optional without a value is written as null instead.
template <class T>
struct Omit : std::optional<T> {
  using std::optional<T>::optional;
  using std::optional<T>::operator=;
};

/// A list of words that clients may also send as one string (Cmd, Entrypoint, Shell).
struct StringList : std::optional<std::vector<std::string>> {
  using std::optional<std::vector<std::string>>::optional;
  using std::optional<std::vector<std::string>>::operator=;
};

/// `{}`: the value of Docker's sets, which are maps.
struct Empty {
  bool operator==(const Empty&) const = default;
};
BOOST_DESCRIBE_STRUCT(Empty, (), ())

using StringMap = std::map<std::string, std::string>;
using StringSet = std::map<std::string, Empty>;

}  // namespace gantry::json
