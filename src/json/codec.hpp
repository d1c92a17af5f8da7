#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include <boost/describe.hpp>
#include <boost/json.hpp>
#include <boost/mp11.hpp>

#include "base/error.hpp"
#include "json/fields.hpp"
#include "json/json.hpp"

/// Plain structs to and from JSON.
///
/// A struct described with BOOST_DESCRIBE_STRUCT is an object whose members carry the wire names. Decoding follows
/// Go's rules, because every client was written against them: unknown members are ignored, names match in any case,
/// null leaves the default. Types are strict; enumerations are their numbers (for rows, never for the wire). An error
/// names the member: `invalid JSON: HostConfig.Memory: …`.
namespace gantry::json {

template <class T>
T decode(const Value& value, const std::string& where = "");
template <class T>
Value encode(const T& value);

namespace detail {

template <class T>
struct is_vector : std::false_type {};
template <class T>
struct is_vector<std::vector<T>> : std::true_type {};
template <class T>
struct is_map : std::false_type {};
template <class T>
struct is_map<std::map<std::string, T>> : std::true_type {};
template <class T>
struct is_optional : std::false_type {};
template <class T>
struct is_optional<std::optional<T>> : std::true_type {};
template <class T>
struct is_omit : std::false_type {};
template <class T>
struct is_omit<Omit<T>> : std::true_type {};

inline const char* kind_name(const Value& v) {
  switch (v.kind()) {
    case boost::json::kind::null: return "null";
    case boost::json::kind::bool_: return "a boolean";
    case boost::json::kind::int64:
    case boost::json::kind::uint64:
    case boost::json::kind::double_: return "a number";
    case boost::json::kind::string: return "a string";
    case boost::json::kind::array: return "an array";
    case boost::json::kind::object: return "an object";
  }
  return "?";
}

[[noreturn]] inline void mismatch(const std::string& where, const char* wanted, const Value& got) {
  throw Error(Errc::invalid_argument, "invalid JSON: " + (where.empty() ? std::string("document") : where) +
                                          ": expected " + wanted + ", got " + kind_name(got));
}

template <class T>
void decode_into(T& out, const Value& v, const std::string& where);

template <class T>
void decode_integer(T& out, const Value& v, const std::string& where) {
  boost::system::error_code ec;
  const T number = v.is_number() && !v.is_double() ? v.to_number<T>(ec) : T{};
  if (!v.is_number() || v.is_double()) mismatch(where, "an integer", v);
  if (ec) throw Error(Errc::invalid_argument, "invalid JSON: " + where + ": number is out of range");
  out = number;
}

template <class T>
void decode_struct(T& out, const Value& v, const std::string& where) {
  const Object* object = v.if_object();
  if (object == nullptr) mismatch(where, "an object", v);
  boost::mp11::mp_for_each<boost::describe::describe_bases<T, boost::describe::mod_any_access>>(
      [&](auto base) { decode_struct(static_cast<typename decltype(base)::type&>(out), v, where); });
  boost::mp11::mp_for_each<boost::describe::describe_members<T, boost::describe::mod_public>>([&](auto member) {
    if (const Value* field = find(*object, member.name))
      decode_into(out.*member.pointer, *field, where.empty() ? member.name : where + "." + member.name);
  });
}

template <class T>
void decode_into(T& out, const Value& v, const std::string& where) {
  if constexpr (std::is_same_v<T, Value>) {
    out = v;
  } else if (v.is_null()) {
    return;
  } else if constexpr (std::is_same_v<T, bool>) {
    if (!v.is_bool()) mismatch(where, "a boolean", v);
    out = v.get_bool();
  } else if constexpr (std::is_integral_v<T>) {
    decode_integer(out, v, where);
  } else if constexpr (std::is_enum_v<T>) {
    std::int64_t number = 0;
    decode_integer(number, v, where);
    out = static_cast<T>(number);
  } else if constexpr (std::is_floating_point_v<T>) {
    if (!v.is_number()) mismatch(where, "a number", v);
    out = v.to_number<T>();
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (!v.is_string()) mismatch(where, "a string", v);
    out.assign(v.get_string().begin(), v.get_string().end());
  } else if constexpr (std::is_same_v<T, StringList>) {
    out.emplace();
    if (v.is_string()) out->emplace_back(v.get_string());
    else decode_into(*out, v, where);
  } else if constexpr (is_optional<T>::value || is_omit<T>::value) {
    out.emplace();
    decode_into(*out, v, where);
  } else if constexpr (is_vector<T>::value) {
    const Array* array = v.if_array();
    if (array == nullptr) mismatch(where, "an array", v);
    out.clear();
    for (std::size_t i = 0; i < array->size(); ++i)
      decode_into(out.emplace_back(), (*array)[i], where + "[" + std::to_string(i) + "]");
  } else if constexpr (is_map<T>::value) {
    const Object* object = v.if_object();
    if (object == nullptr) mismatch(where, "an object", v);
    out.clear();
    for (const auto& member : *object)
      decode_into(out[std::string(member.key())], member.value(), where + "[" + std::string(member.key()) + "]");
  } else {
    decode_struct(out, v, where);
  }
}

template <class T>
void encode_struct(Object& out, const T& value) {
  boost::mp11::mp_for_each<boost::describe::describe_bases<T, boost::describe::mod_any_access>>(
      [&](auto base) { encode_struct(out, static_cast<const typename decltype(base)::type&>(value)); });
  boost::mp11::mp_for_each<boost::describe::describe_members<T, boost::describe::mod_public>>([&](auto member) {
    const auto& field = value.*member.pointer;
    using Field = std::remove_cvref_t<decltype(field)>;
    if constexpr (is_omit<Field>::value) {
      if (field) out.emplace(member.name, encode(*field));
    } else {
      out.emplace(member.name, encode(field));
    }
  });
}

}  // namespace detail

/// Throws invalid_argument.
template <class T>
T decode(const Value& value, const std::string& where) {
  T out{};
  detail::decode_into(out, value, where);
  return out;
}

/// Decodes a whole text. Throws invalid_argument.
template <class T>
T decode_text(std::string_view text) {
  return decode<T>(parse(text));
}

template <class T>
Value encode(const T& value) {
  if constexpr (std::is_same_v<T, Value> || std::is_arithmetic_v<T>) {
    return Value(value);
  } else if constexpr (std::is_enum_v<T>) {
    return Value(static_cast<std::int64_t>(value));
  } else if constexpr (std::is_same_v<T, std::string>) {
    return Value(boost::json::string(value));
  } else if constexpr (detail::is_optional<T>::value || detail::is_omit<T>::value || std::is_same_v<T, StringList>) {
    return value ? encode(*value) : Value(nullptr);
  } else if constexpr (detail::is_vector<T>::value) {
    Array array;
    array.reserve(value.size());
    for (const auto& item : value) array.push_back(encode(static_cast<const typename T::value_type&>(item)));
    return array;
  } else if constexpr (detail::is_map<T>::value) {
    Object object;
    for (const auto& [key, item] : value) object.emplace(key, encode(item));
    return object;
  } else {
    Object object;
    detail::encode_struct(object, value);
    return object;
  }
}

template <class T>
std::string encode_text(const T& value) {
  return render(encode(value));
}

}  // namespace gantry::json
