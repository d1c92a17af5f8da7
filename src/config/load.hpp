#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "config/config.hpp"

namespace gantry::config {

/// What the command line asks for.
enum class Action {
  run,          // be the daemon
  validate,     // --validate: check the configuration, report, exit
  show_config,  // `gantryd config show`
  doctor,       // `gantryd doctor`
  repair,       // `gantryd repair`
  print,        // --help, --version or a usage error: print `text`, exit with `exit_code`
};

struct ParsedCommandLine {
  Action action = Action::run;
  std::string text;
  int exit_code = 0;
  std::string config_file{kDefaultConfigFile};
  bool config_file_given = false;
  std::vector<std::string> arguments;  // what follows the subcommand
  /// daemon.json key and the values as typed, for every flag that was given.
  std::vector<std::pair<std::string, std::vector<std::string>>> flags;
};

/// Reads flags by the table in `options.cpp`. Never throws: a usage error becomes Action::print with exit code 125.
/// Text of exit code 0 belongs on standard output, any other on standard error.
ParsedCommandLine parse_command_line(int argc, const char* const* argv);

/// One thing that is wrong with the configuration.
struct Problem {
  std::string file;        // empty: a flag or the combination of keys
  int line = 0;            // 1 is the first; 0: not known
  std::string key;         // as in daemon.json, nested with dots; empty: the file as a whole
  std::string message;     // what is wrong
  std::string allowed;     // what would be right; may be empty
  std::string suggestion;  // the key or value that was probably meant; may be empty
  bool fatal = false;      // the daemon must not start with it; any other is skipped in favour of the default
};
/// "/etc/gantry/daemon.json:3: live-restor: unknown key; did you mean \"live-restore\"?"
std::string render_problem(const Problem& problem);

enum class Origin { standard, file, flag };

struct LoadResult {
  Config config;
  std::vector<Problem> problems;
  std::vector<std::string> notes;         // keys that are accepted without an effect, and what is so: for the log
  std::map<std::string, Origin> origins;  // keys that were set by the file or a flag

  bool usable() const;
  /// Every fatal problem in one text, as dockerd prefixes it. Empty if usable().
  std::string fatal_text() const;
};

/// Facts of this machine that decide whether a setting can be honoured.
struct HostFacts {
  bool systemd_running = false;  // systemd is the init system (sd_booted(3))
  bool cgroup_v2_only = false;   // /sys/fs/cgroup is a cgroup2 mount
  bool overlayfs = true;         // the kernel has the overlay file system
  bool selinux = false;
};
/// Blocks  briefly on /proc and /sys.
HostFacts probe_host();

/// Defaults, then the file, then the flags. Reports every problem it finds and goes on; a value that is wrong is left
/// at its default. Never throws: an unreadable file is a fatal problem. A missing default file is none.
/// Blocks  on reading the file, and on the TLS files when `hosts` needs them.
LoadResult load(const ParsedCommandLine& command_line, const HostFacts& host);

/// For `--validate`: the report with every problem, or "configuration OK". Exit code 0 or 1.
struct ValidateReport {
  std::string text;
  int exit_code = 0;
};
ValidateReport validate(const ParsedCommandLine& command_line, const HostFacts& host);

/// Every key with its value as JSON and where it came from, one per line.
std::string render_config(const LoadResult& loaded);

struct ReloadResult {
  Config config;                           // `running` with every live key replaced
  std::vector<std::string> changed;        // live keys whose value is another now
  std::vector<std::string> needs_restart;  // other keys that differ in the file; they keep their running value
};
/// Reads file and flags again, for SIGHUP. All or nothing: throws invalid_argument that lists every problem, and then
/// nothing has changed. `running` is what is in force now.
/// Blocks  on reading the file.
ReloadResult reload(const ParsedCommandLine& command_line, const HostFacts& host, const Config& running);

/// A listener address in its full form: "fd://", "unix:///path", "tcp://host:port" (port 2375, with TLS 2376).
/// Throws invalid_argument with dockerd's text.
std::string normalise_host(std::string_view host, bool tls);
/// Whether any API listener needs TLS files.
bool tls_enabled(const Config& config);

}  // namespace gantry::config
