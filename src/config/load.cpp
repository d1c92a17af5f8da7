#include "config/load.hpp"

#include <algorithm>
#include <cstdlib>
#include <tuple>

#include <fmt/format.h>
#include <unistd.h>
#include <boost/json.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "config/checks.hpp"
#include "config/json_lines.hpp"
#include "config/value.hpp"
#include "sys/file.hpp"

namespace gantry::config {
namespace {

namespace json = boost::json;

constexpr std::size_t kMaxFileSize = 1 << 20;
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

/// One load, step by step. Every step adds to `result_` and none stops the next.
class Loader {
 public:
  Loader(const ParsedCommandLine& command_line, const HostFacts& host) : command_line_(command_line), host_(host) {}

  LoadResult run() {
    read_file();
    read_flags();
    merge();
    check_values();
    check_clashes();
    settle_listeners();
    check_host();
    collect_notes();
    // In the order of the file; what has no place in it comes first.
    std::ranges::sort(result_.problems, {}, [](const Problem& p) { return std::tie(p.line, p.key, p.message); });
    return std::move(result_);
  }

 private:
  void add(Problem problem) { result_.problems.push_back(std::move(problem)); }

  void file_problem(std::string message, int line = 0) {
    Problem problem;
    problem.file = command_line_.config_file;
    problem.line = line;
    problem.message = std::move(message);
    problem.fatal = true;
    add(std::move(problem));
  }

  std::optional<std::string> file_text() {
    try {
      auto text = sys::find_file(command_line_.config_file, kMaxFileSize);
      if (!text && command_line_.config_file_given) file_problem("no such file");
      return text;
    } catch (const Error& e) {
      file_problem(e.message());
      return std::nullopt;
    }
  }

  void read_file() {
    auto text = file_text();
    if (!text) return;
    if (text->starts_with(kByteOrderMark)) text->erase(0, kByteOrderMark.size());
    if (trim(*text).empty()) return;
    if (!is_valid_utf8(*text)) return file_problem("the file is not UTF-8 text");

    json::parser parser;
    boost::system::error_code ec;
    std::size_t read = parser.write_some(*text, ec);
    if (!ec && !trim(std::string_view(*text).substr(read)).empty()) ec = json::error::extra_data;
    if (ec) {
      JsonFault fault = explain_json_fault(*text, read);
      return file_problem(std::move(fault.message), fault.line);
    }
    json::value document = parser.release();
    if (!document.is_object()) return file_problem("invalid JSON: the file must hold one object", 1);

    lines_ = scan_json_lines(*text);
    for (const auto& twice : lines_.duplicates) {
      add(at_file(twice.path,
                  {"given twice, first in line " + std::to_string(twice.first_line) + "; the last one counts", "", ""},
                  false));
    }
    read_members(document.get_object());
  }

  void read_members(const json::object& document) {
    for (const auto& member : document) {
      if (member.key() == "proxies") read_proxies(member.value());
      else read_member(member.key(), member.value());
    }
  }

  void read_proxies(const json::value& value) {
    if (!value.is_object())
      return add(at_file("proxies", {"must be an object, not " + kind_name(value), "an object of strings", ""}, false));
    for (const auto& member : value.get_object()) read_member("proxies." + std::string(member.key()), member.value());
  }

  void read_member(std::string key, const json::value& value) {
    const Option* option = find_option(key);
    if (option == nullptr) {
      Finding unknown{"the following directives don't match any configuration option: " + key, "", suggest_key(key)};
      return add(at_file(key, std::move(unknown), false));
    }
    // Go leaves a field alone when its value is null.
    if (value.is_null()) return;
    auto mistakes = read_json(*option, value, from_file_);
    for (Mistake& mistake : mistakes) add(at_file(key + mistake.path, std::move(mistake.finding), option->essential));
    if (!mistakes.empty()) return;
    result_.origins[std::string(option->key)] = Origin::file;
    as_written_[std::string(option->key)] = render_as_go(value);
    spelled_[std::string(option->key)] = key;
  }

  static std::string suggest_key(const std::string& key) {
    // A flag's name is the commonest wrong key: "host" for "hosts".
    for (const Option& option : options()) {
      if (!option.flag.empty() && option.flag == key) return std::string(option.key);
    }
    return closest_word(key, option_keys()).value_or("");
  }

  Problem at_file(const std::string& path, Finding finding, bool fatal) {
    Problem problem;
    problem.file = command_line_.config_file;
    problem.key = path;
    problem.line = line_of(path);
    problem.message = std::move(finding.message);
    problem.allowed = std::move(finding.allowed);
    problem.suggestion = std::move(finding.suggestion);
    problem.fatal = fatal;
    return problem;
  }

  /// The line of the path, or of the nearest thing around it.
  int line_of(std::string path) const {
    while (true) {
      if (auto at = lines_.line_of.find(path); at != lines_.line_of.end()) return at->second;
      auto cut = path.find_last_of(".[");
      if (cut == std::string::npos) return 0;
      path.resize(cut);
    }
  }

  void read_flags() {
    for (const auto& [key, values] : command_line_.flags) {
      const Option* option = find_option(key);
      if (option == nullptr) continue;
      auto mistakes = read_flag(*option, values, from_flags_);
      for (Mistake& mistake : mistakes) add(at_flag(*option, std::move(mistake.finding)));
      if (mistakes.empty()) flag_values_[key] = values;
    }
  }

  static Problem at_flag(const Option& option, Finding finding) {
    Problem problem;
    problem.key = "--" + std::string(option.flag);
    problem.message = std::move(finding.message);
    problem.allowed = std::move(finding.allowed);
    problem.suggestion = std::move(finding.suggestion);
    problem.fatal = true;
    return problem;
  }

  /// The same key in both places is an error as in dockerd, but only if the two disagree.
  void merge() {
    result_.config = from_file_;
    std::vector<std::string> conflicts;
    int line = 0;
    for (const auto& [key, values] : flag_values_) {
      const Option& option = *find_option(key);
      bool in_file = result_.origins.contains(key);
      if (in_file && key == "runtimes") {
        for (const auto& [name, runtime] : from_flags_.runtimes) result_.config.runtimes[name] = runtime;
        continue;
      }
      if (in_file && !same_value(from_file_, from_flags_, option)) {
        std::string flag_text = is_single(option) ? values.back() : "[" + join(values, " ") + "]";
        conflicts.push_back(fmt::format("{}: (from flag: {}, from file: {})", key, flag_text, as_written_[key]));
        if (line == 0) line = line_of(spelled_[key]);
      }
      copy_value(from_flags_, result_.config, option);
      result_.origins[key] = Origin::flag;
    }
    if (conflicts.empty()) return;
    file_problem(
        "the following directives are specified both as a flag and in the configuration file: " + join(conflicts, ", "),
        line);
  }

  static bool is_single(const Option& option) {
    return std::holds_alternative<bool Config::*>(option.member) ||
           std::holds_alternative<std::optional<bool> Config::*>(option.member) ||
           std::holds_alternative<std::int64_t Config::*>(option.member) ||
           std::holds_alternative<std::string Config::*>(option.member);
  }

  void check_values() {
    const Config standard;
    for (const Option& option : options()) {
      auto origin = result_.origins.find(std::string(option.key));
      if (option.check == nullptr || origin == result_.origins.end()) continue;
      auto finding = option.check(result_.config);
      if (!finding) continue;
      report(option, origin->second, std::move(*finding));
      copy_value(standard, result_.config, option);
      result_.origins.erase(origin);
    }
  }

  void report(const Option& option, Origin origin, Finding finding) {
    if (origin == Origin::flag) add(at_flag(option, std::move(finding)));
    else add(at_file(spelled_[std::string(option.key)], std::move(finding), option.essential));
  }

  void check_clashes() {
    const Config standard;
    for (auto& clash : check::clashes(result_.config)) {
      const Option& option = *find_option(clash.key);
      auto origin = result_.origins.find(clash.key);
      report(option, origin == result_.origins.end() ? Origin::file : origin->second, {clash.message, "", ""});
      copy_value(standard, result_.config, option);
      result_.origins.erase(clash.key);
    }
  }

  void settle_listeners() {
    Config& config = result_.config;
    bool tls = tls_enabled(config);
    if (config.hosts.empty()) config.hosts.emplace_back(tls ? "tcp://localhost:2376" : std::string(kDefaultHost));
    std::vector<std::string> hosts;
    for (const std::string& host : config.hosts) {
      try {
        std::string full = normalise_host(host, tls);
        if (std::ranges::find(hosts, full) == hosts.end()) hosts.push_back(std::move(full));
      } catch (const Error& e) {
        auto origin = result_.origins.find("hosts");
        report(*find_option("hosts"), origin == result_.origins.end() ? Origin::file : origin->second,
               {e.message(), "unix:///path, tcp://host:port or fd://", ""});
      }
    }
    config.hosts = std::move(hosts);
    if (tls) settle_tls();
  }

  void settle_tls() {
    Config& config = result_.config;
    const char* given = std::getenv("DOCKER_CERT_PATH");
    const char* home = std::getenv("HOME");
    std::string directory = given != nullptr ? given : std::string(home != nullptr ? home : "/root") + "/.docker";
    if (config.tlscert.empty()) config.tlscert = directory + "/cert.pem";
    if (config.tlskey.empty()) config.tlskey = directory + "/key.pem";
    if (config.tlscacert.empty() && config.tlsverify.value_or(false)) config.tlscacert = directory + "/ca.pem";
    demand_file("tlscert", config.tlscert);
    demand_file("tlskey", config.tlskey);
    if (config.tlsverify.value_or(false)) demand_file("tlscacert", config.tlscacert);
  }

  void demand_file(const std::string& key, const std::string& path) {
    if (::access(path.c_str(), R_OK) == 0) return;
    Error reason = Error::from_errno(errno, path);
    auto origin = result_.origins.find(key);
    report(*find_option(key), origin == result_.origins.end() ? Origin::file : origin->second,
           {"cannot read the TLS file: " + reason.message(), "the path of a PEM file", ""});
  }

  void check_host() {
    result_.config.systemd_cgroups_by_default = host_.systemd_running && host_.cgroup_v2_only;
    const Config& config = result_.config;
    const bool systemd_cgroups = config.systemd_cgroups();
    if (systemd_cgroups && !host_.systemd_running)
      refuse("exec-opts", "native.cgroupdriver=systemd: systemd is not the init system of this host",
             "native.cgroupdriver=cgroupfs");
    if (systemd_cgroups && !config.cgroup_parent.empty() && !config.cgroup_parent.ends_with(".slice"))
      refuse("cgroup-parent", "cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\"",
             "xxx.slice");
    if (!host_.overlayfs) refuse("storage-driver", "driver not supported: this kernel has no overlay file system", "");
  }

  void refuse(const std::string& key, std::string message, std::string allowed) {
    auto origin = result_.origins.find(key);
    report(*find_option(key), origin == result_.origins.end() ? Origin::file : origin->second,
           {std::move(message), std::move(allowed), ""});
    result_.problems.back().fatal = true;
  }

  void collect_notes() {
    const Config standard;
    for (const auto& [key, origin] : result_.origins) {
      const Option& option = *find_option(key);
      bool unused = std::holds_alternative<Unused>(option.member);
      if (option.no_effect.empty() || (!unused && same_value(standard, result_.config, option))) continue;
      result_.notes.push_back(key + " is accepted and has no effect: " + std::string(option.no_effect));
    }
    if (result_.config.firewall_backend == "iptables")
      result_.notes.emplace_back("firewall-backend is accepted and has no effect: rules are always made with nftables");
    if (host_.systemd_running && !result_.config.systemd_cgroups())
      result_.notes.emplace_back("systemd manages the cgroups of this host; containers are put beside its own");
  }

  const ParsedCommandLine& command_line_;
  const HostFacts& host_;
  LoadResult result_;
  JsonLines lines_;
  Config from_file_;
  Config from_flags_;
  std::map<std::string, std::vector<std::string>> flag_values_;
  std::map<std::string, std::string> as_written_;  // option key -> the file's value as dockerd would print it
  std::map<std::string, std::string> spelled_;     // option key -> the key in the file, which may be an old name
};

}  // namespace

LoadResult load(const ParsedCommandLine& command_line, const HostFacts& host) {
  return Loader(command_line, host).run();
}

bool LoadResult::usable() const {
  return std::ranges::none_of(problems, [](const Problem& problem) { return problem.fatal; });
}

std::string LoadResult::fatal_text() const {
  std::vector<std::string> lines;
  for (const Problem& problem : problems) {
    if (!problem.fatal) continue;
    std::string prefix;
    if (!problem.file.empty()) prefix = "unable to configure the Docker daemon with file " + problem.file + ": ";
    lines.push_back(prefix + render_problem(problem));
  }
  return join(lines, "\n");
}

}  // namespace gantry::config
