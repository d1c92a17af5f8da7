#include <charconv>
#include <functional>
#include <limits>

#include "base/error.hpp"
#include "base/text.hpp"
#include "protocol/types.hpp"

namespace gantry::protocol {
namespace {

void put_line(std::string& out, std::string_view key, std::string_view value) {
  constexpr char kDigits[] = "0123456789abcdef";
  out += key;
  out += ' ';
  for (const char c : value) {
    if (c != '%' && c != '\n' && c != '\0') {
      out += c;
      continue;
    }
    out += '%';
    out += kDigits[static_cast<unsigned char>(c) >> 4];
    out += kDigits[static_cast<unsigned char>(c) & 15];
  }
  out += '\n';
}

void put_line(std::string& out, std::string_view key, std::int64_t value) {
  put_line(out, key, std::string_view(std::to_string(value)));
}

[[noreturn]] void bad_value(std::string_view key) {
  throw Error(Errc::invalid_argument, "shim file: bad value of " + std::string(key));
}

std::string unescape(std::string_view key, std::string_view value) {
  std::string out;
  for (std::size_t i = 0; i < value.size(); ++i) {
    if (value[i] != '%') {
      out += value[i];
      continue;
    }
    unsigned byte = 0;
    const char* digits = value.data() + i + 1;
    if (i + 2 >= value.size() || std::from_chars(digits, digits + 2, byte, 16).ptr != digits + 2) bad_value(key);
    out += static_cast<char>(byte);
    i += 2;
  }
  return out;
}

std::int64_t number_of(std::string_view key, const std::string& value, std::int64_t low, std::int64_t high) {
  const auto number = parse_int(value);
  if (!number || *number < low || *number > high) bad_value(key);
  return *number;
}

/// Calls `handle` with each line's key and decoded value.
void each_line(std::string_view text, const std::function<void(std::string_view, std::string)>& handle) {
  while (!text.empty()) {
    const auto [line, rest] = split_once(text, '\n');
    text = rest;
    if (line.empty()) continue;
    const auto [key, value] = split_once(line, ' ');
    handle(key, unescape(key, value));
  }
}

constexpr std::int64_t kBig = std::int64_t{1} << 62;

struct TextKey {
  std::string_view name;
  std::string ShimConfig::* member;
};
constexpr TextKey kTextKeys[] = {
    {"container_id", &ShimConfig::container_id},
    {"bundle", &ShimConfig::bundle},
    {"runtime_path", &ShimConfig::runtime_path},
    {"runtime_root", &ShimConfig::runtime_root},
    {"log_path", &ShimConfig::log_path},
    {"log_attrs", &ShimConfig::log_attrs},
    {"log_program", &ShimConfig::log_program},
    {"cgroup_memory", &ShimConfig::cgroup_memory},
    {"cgroup_freezer", &ShimConfig::cgroup_freezer},
    {"cgroup_procs", &ShimConfig::cgroup_procs},
    {"cgroup_shim", &ShimConfig::cgroup_shim},
    {"names", &ShimConfig::names},
    {"netns", &ShimConfig::netns},
};
struct FlagKey {
  std::string_view name;
  bool ShimConfig::* member;
};
constexpr FlagKey kFlagKeys[] = {
    {"direct", &ShimConfig::direct},
    {"tty", &ShimConfig::tty},
    {"open_stdin", &ShimConfig::open_stdin},
    {"stdin_once", &ShimConfig::stdin_once},
    {"log_compress", &ShimConfig::log_compress},
    {"log_drops", &ShimConfig::log_drops},
};

void set_number(ShimConfig& config, std::string_view key, const std::string& value) {
  if (key == "rows") config.rows = static_cast<std::uint16_t>(number_of(key, value, 0, 0xffff));
  else if (key == "columns") config.columns = static_cast<std::uint16_t>(number_of(key, value, 0, 0xffff));
  else if (key == "log_max_size") config.log.max_size = static_cast<std::uint64_t>(number_of(key, value, 0, kBig));
  else if (key == "log_buffer") config.log_buffer = static_cast<std::uint64_t>(number_of(key, value, 0, kBig));
  else if (key == "log_max_file") config.log.max_file = static_cast<std::uint32_t>(number_of(key, value, 1, 1000));
  else if (key == "runtime_timeout_ms")
    config.runtime_timeout_ms = static_cast<std::uint32_t>(number_of(key, value, 1, 86'400'000));
  else if (key == "oom_score_adj") config.oom_score_adj = static_cast<int>(number_of(key, value, -1000, 1000));
}

/// "tcp 172.17.0.2 80 1"
PublishedPort parse_port(std::string_view key, const std::string& value) {
  const std::vector<std::string> words = split(value, ' ');
  if (words.size() != 4 || (words[0] != "tcp" && words[0] != "udp")) bad_value(key);
  PublishedPort port;
  port.proto = words[0];
  port.target_ip = words[1];
  port.target_port = static_cast<std::uint16_t>(number_of(key, words[2], 1, 65535));
  port.serve = number_of(key, words[3], 0, 1) == 1;
  return port;
}

}  // namespace

std::string render_config(const ShimConfig& config) {
  std::string out;
  for (const TextKey& key : kTextKeys) put_line(out, key.name, std::string_view(config.*key.member));
  for (const std::string& arg : config.runtime_args) put_line(out, "runtime_arg", std::string_view(arg));
  for (const std::string& setting : config.log_settings) put_line(out, "log_setting", std::string_view(setting));
  for (const FlagKey& key : kFlagKeys) put_line(out, key.name, config.*key.member ? 1 : 0);
  put_line(out, "rows", config.rows);
  put_line(out, "columns", config.columns);
  put_line(out, "log_max_size", static_cast<std::int64_t>(config.log.max_size));
  put_line(out, "log_max_file", config.log.max_file);
  put_line(out, "log_buffer", static_cast<std::int64_t>(config.log_buffer));
  put_line(out, "runtime_timeout_ms", config.runtime_timeout_ms);
  if (config.oom_score_adj) put_line(out, "oom_score_adj", *config.oom_score_adj);
  for (const PublishedPort& port : config.ports)
    put_line(out, "port",
             port.proto + ' ' + port.target_ip + ' ' + std::to_string(port.target_port) + (port.serve ? " 1" : " 0"));
  return out;
}

ShimConfig parse_config(std::string_view text) {
  ShimConfig config;
  each_line(text, [&config](std::string_view name, std::string value) {
    for (const TextKey& key : kTextKeys)
      if (key.name == name) return void(config.*key.member = std::move(value));
    for (const FlagKey& key : kFlagKeys)
      if (key.name == name) return void(config.*key.member = number_of(name, value, 0, 1) == 1);
    if (name == "runtime_arg") return config.runtime_args.push_back(std::move(value));
    if (name == "log_setting") return config.log_settings.push_back(std::move(value));
    if (name == "port") return config.ports.push_back(parse_port(name, value));
    set_number(config, name, value);
  });
  if (config.container_id.empty()) bad_value("container_id");
  if (config.bundle.empty()) bad_value("bundle");
  if (config.runtime_path.empty()) bad_value("runtime_path");
  return config;
}

std::string render_exit(const ExitRecord& exit) {
  std::string out;
  put_line(out, "exit_code", exit.exit_code);
  put_line(out, "signal", exit.signal);
  put_line(out, "oom_kills", static_cast<std::int64_t>(exit.oom_kills));
  put_line(out, "oom_killed", exit.oom_killed ? 1 : 0);
  put_line(out, "finished_ns", exit.finished_ns);
  return out;
}

std::optional<ExitRecord> parse_exit(std::string_view text) {
  ExitRecord exit;
  bool have_code = false;
  try {
    each_line(text, [&](std::string_view key, const std::string& value) {
      if (key == "exit_code") {
        exit.exit_code = static_cast<int>(number_of(key, value, 0, 255));
        have_code = true;
      } else if (key == "signal") {
        exit.signal = static_cast<int>(number_of(key, value, 0, 127));
      } else if (key == "oom_kills") {
        exit.oom_kills = static_cast<std::uint64_t>(number_of(key, value, 0, kBig));
      } else if (key == "oom_killed") {
        exit.oom_killed = number_of(key, value, 0, 1) == 1;
      } else if (key == "finished_ns") {
        exit.finished_ns = number_of(key, value, 0, std::numeric_limits<std::int64_t>::max());
      }
    });
  } catch (const Error& e) {
    if (e.code() != Errc::invalid_argument) throw;
    return std::nullopt;
  }
  if (!have_code) return std::nullopt;
  return exit;
}

}  // namespace gantry::protocol
