#include "runtime/security_opts.hpp"

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::runtime {
namespace {

[[noreturn]] void reject(int place, const std::string& opt) {
  throw Error(Errc::invalid_argument, fmt::format("invalid --security-opt {}: {}", place, quote(opt)));
}

/// Go's strconv.ParseBool.
std::optional<bool> parse_bool(std::string_view text) {
  for (const char* yes : {"1", "t", "T", "TRUE", "true", "True"})
    if (text == yes) return true;
  for (const char* no : {"0", "f", "F", "FALSE", "false", "False"})
    if (text == no) return false;
  return std::nullopt;
}

void set_seccomp(SecurityOptions& out, std::string_view value) {
  using Kind = SecurityOptions::Seccomp;
  out.seccomp = value == "unconfined" ? Kind::unconfined : value == "builtin" ? Kind::builtin : Kind::custom;
  out.seccomp_profile = out.seccomp == Kind::custom ? std::string(value) : std::string();
}

void set_apparmor(SecurityOptions& out, std::string_view value, const HostFacts& facts) {
  // dockerd accepts any name where there is no AppArmor, and the user believes to be confined.
  if (!facts.apparmor && value != "unconfined" && !value.empty())
    throw Error(Errc::invalid_argument,
                fmt::format("invalid --security-opt: AppArmor is not available on this host, so profile {} cannot be "
                            "applied",
                            quote(value)));
  out.apparmor = value;
}

}  // namespace

SecurityOptions parse_security_opts(const std::vector<std::string>& opts, const HostFacts& facts) {
  SecurityOptions out;
  for (const std::string& opt : opts) {
    if (opt == "no-new-privileges") {
      out.no_new_privileges = true;
      continue;
    }
    if (opt == "disable") {
      out.label_disabled = true;
      continue;
    }
    const char separator = opt.find('=') != std::string::npos ? '=' : ':';
    if (opt.find(separator) == std::string::npos) reject(1, opt);
    const auto [key, value] = split_once(opt, separator);
    if (key == "label") {
      if (value == "disable") out.label_disabled = true;
      else out.labels.emplace_back(value);
    } else if (key == "apparmor") {
      set_apparmor(out, value, facts);
    } else if (key == "seccomp") {
      if (value.empty()) reject(2, opt);
      set_seccomp(out, value);
    } else if (key == "no-new-privileges" || key == "writable-cgroups") {
      const auto flag = parse_bool(value);
      if (!flag) reject(2, opt);
      if (key == "writable-cgroups") out.writable_cgroups = *flag;
      else out.no_new_privileges = *flag;
    } else {
      reject(2, opt);
    }
  }
  return out;
}

}  // namespace gantry::runtime
