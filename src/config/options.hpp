#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "config/config.hpp"

namespace gantry::config {

/// A key that is read for its type only: nothing in the daemon could use the value.
enum class Unused { boolean, integer, text, list, object };

using TextMap = std::map<std::string, std::string>;
using Member = std::variant<Unused, bool Config::*, std::optional<bool> Config::*, std::int64_t Config::*,
                            std::string Config::*, std::vector<std::string> Config::*, TextMap Config::*,
                            std::map<std::string, bool> Config::*, std::map<std::string, TextMap> Config::*,
                            std::vector<AddressPool> Config::*, std::map<std::string, Ulimit> Config::*,
                            std::map<std::string, Runtime> Config::*, BuilderConfig Config::*>;

/// What a check has against a value.
struct Finding {
  std::string message;
  std::string allowed;
  std::string suggestion;
};
/// Looks at one member of a Config whose other members may still be wrong.
using Check = std::optional<Finding> (*)(const Config&);

enum class Reload { no, live };
enum class Unit { plain, bytes };

/// A setting: one row of the table.
struct Option {
  std::string_view key;   // in daemon.json; "proxies.x" is x inside the object "proxies"
  std::string_view flag;  // without dashes; "" if the file alone has it
  char letter = 0;        // the one-letter flag
  Member member;
  std::string_view help;
  Reload reload = Reload::no;
  /// Why setting it changes nothing; empty if it does.
  std::string_view no_effect = {};
  Check check = nullptr;
  /// A wrong value keeps the daemon from starting, because no default could stand in for what was meant.
  bool essential = false;
  Unit unit = Unit::plain;
  std::string_view old_key = {};  // an earlier name that the file may still use
};

/// THE table: every setting there is. Flags, daemon.json keys, --help, docs/options.md and messages come from it.
std::span<const Option> options();
/// By daemon.json key, old ones too. nullptr if there is none.
const Option* find_option(std::string_view key);
/// Every key that may be written in daemon.json, for suggestions.
std::vector<std::string> option_keys();

/// The value of a row as compact JSON, as daemon.json would have it; "null" for Unused.
std::string render_value(const Config& config, const Option& option);
/// Copies one row's value.
void copy_value(const Config& from, Config& to, const Option& option);
bool same_value(const Config& a, const Config& b, const Option& option);

/// docs/options.md, generated from the table.
std::string render_options_page();

}  // namespace gantry::config
