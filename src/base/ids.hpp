#pragma once

#include <compare>
#include <functional>
#include <string>
#include <string_view>

namespace gantry {

/// An identifier of one kind of object: 64 lower-case hexadecimal digits. Kinds do not mix.
template <class Tag>
class Id {
 public:
  Id() = default;
  explicit Id(std::string text) : text_(std::move(text)) {}
  const std::string& str() const noexcept { return text_; }
  /// The first twelve digits, as Docker prints them.
  std::string short_form() const { return text_.substr(0, 12); }
  bool empty() const noexcept { return text_.empty(); }
  auto operator<=>(const Id&) const = default;

 private:
  std::string text_;
};

using ContainerId = Id<struct ContainerTag>;
using NetworkId = Id<struct NetworkTag>;
using EndpointId = Id<struct EndpointTag>;
using ExecId = Id<struct ExecTag>;

/// 32 random bytes as 64 hexadecimal digits. The first twelve are never all decimal digits: they become a host name,
/// which some programs would read as a number.
std::string random_id();

}  // namespace gantry

template <class Tag>
struct std::hash<gantry::Id<Tag>> {
  std::size_t operator()(const gantry::Id<Tag>& id) const noexcept { return std::hash<std::string>{}(id.str()); }
};
