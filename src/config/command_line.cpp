#include <CLI/CLI.hpp>

#include "config/load.hpp"
#include "config/options.hpp"

namespace gantry::config {
namespace {

// Source: docker's own programs end with 125 when they cannot understand their flags.
constexpr int kUsageError = 125;

bool is_switch(const Option& option) {
  return std::holds_alternative<bool Config::*>(option.member) ||
         std::holds_alternative<std::optional<bool> Config::*>(option.member) ||
         (std::holds_alternative<Unused>(option.member) && std::get<Unused>(option.member) == Unused::boolean);
}

/// One CLI flag per row of the table; values stay text, so that the file's checks serve flags too.
CLI::Option* add_row(CLI::App& app, const Option& option) {
  std::string names = "--" + std::string(option.flag);
  if (option.letter != 0) names = std::string("-") + option.letter + "," + names;
  std::string help(option.help);
  if (!option.no_effect.empty()) help += " [no effect]";
  if (is_switch(option)) {
    // "--icc", "--icc=true" and "--icc=false": a value needs its "=", as with dockerd.
    return app.add_flag(names)->description(help)->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  }
  // Taken one per flag: "-H a -H b" is two hosts, and "-H a b" is a stray word.
  return app.add_option(names)->description(help)->type_size(1)->expected(1)->multi_option_policy(
      CLI::MultiOptionPolicy::TakeAll);
}

ParsedCommandLine printed(std::string text, int exit_code) {
  ParsedCommandLine parsed;
  parsed.action = Action::print;
  parsed.text = std::move(text);
  parsed.exit_code = exit_code;
  return parsed;
}

std::string version_text() { return "gantryd version " GANTRY_VERSION ", a Docker Engine\n"; }

}  // namespace

ParsedCommandLine parse_command_line(int argc, const char* const* argv) {
  CLI::App app{"Gantry: a Docker Engine", "gantryd"};
  app.set_help_flag("-h,--help", "Print this and exit");
  ParsedCommandLine parsed;
  bool version = false;
  bool validate = false;
  bool restart = false;
  app.add_flag("-v,--version", version, "Print the version and exit");
  app.add_flag("--validate", validate, "Check the configuration, list every problem and exit");
  app.add_flag("-r,--restart", restart, "Accepted for old scripts; it does nothing")->group("");
  CLI::Option* file = app.add_option("--config-file", parsed.config_file, "Configuration file")->capture_default_str();

  std::vector<std::pair<const Option*, CLI::Option*>> rows;
  for (const Option& option : options())
    if (!option.flag.empty()) rows.emplace_back(&option, add_row(app, option));

  app.require_subcommand(0, 1);
  // What follows "doctor" is its own; the daemon's flags come before it.
  CLI::App* doctor = app.add_subcommand("doctor", "Examine this host and the daemon's state")->prefix_command();
  CLI::App* repair = app.add_subcommand("repair", "Verify the image store and repair what is damaged");
  bool contents = false;
  repair->add_flag("--contents", contents, "Compare the contents of unpacked files, too");
  CLI::App* config = app.add_subcommand("config", "Configuration");
  CLI::App* show = config->add_subcommand("show", "Print every setting, its value and where it came from");
  config->require_subcommand(1);
  config->fallthrough();
  show->fallthrough();

  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return printed(app.help(), 0);
  } catch (const CLI::ParseError& e) {
    return printed(std::string("gantryd: ") + e.what() + "\nSee 'gantryd --help'.\n", kUsageError);
  }
  if (version) return printed(version_text(), 0);

  parsed.config_file_given = file->count() > 0;
  if (validate) parsed.action = Action::validate;
  if (show->parsed()) parsed.action = Action::show_config;
  if (doctor->parsed()) {
    parsed.action = Action::doctor;
    parsed.arguments = doctor->remaining();
  }
  if (repair->parsed()) {
    parsed.action = Action::repair;
    if (contents) parsed.arguments.emplace_back("--contents");
  }
  for (const auto& [option, flag] : rows)
    if (flag->count() > 0) parsed.flags.emplace_back(option->key, flag->results());
  return parsed;
}

}  // namespace gantry::config
