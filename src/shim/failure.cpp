#include "shim/failure.hpp"

#include "base/text.hpp"
#include "logs/format.hpp"

namespace gantry::shim {
namespace {

using protocol::FailureKind;

constexpr std::size_t kMaxText = 8 << 10;

/// The value of a string member of a one-line JSON object that holds no nested objects.
std::string json_member(std::string_view line, std::string_view name) {
  const std::string key = "\"" + std::string(name) + "\":";
  const std::size_t at = line.find(key);
  if (at == std::string_view::npos) return {};
  std::size_t open = at + key.size();
  while (open < line.size() && line[open] == ' ') ++open;
  if (open >= line.size() || line[open] != '"') return {};
  return logs::unescape_json(line.substr(open + 1)).value_or(std::string());
}

struct Words {
  std::string_view text;  // lower case
  FailureKind kind;
};

/// In the order in which they decide: "stat /x: no such file" may also mention $PATH.
constexpr Words kWords[] = {
    {"executable file not found", FailureKind::executable_not_found},
    {"not found in $path", FailureKind::executable_not_found},
    {"permission denied", FailureKind::permission_denied},
    {"is a directory", FailureKind::is_directory},
    {"not a directory", FailureKind::not_directory},
    {"no such file or directory", FailureKind::no_such_file},
};

/// The first quoted word after "exec: " (runc) or "executable file " (crun).
std::string quoted_path(std::string_view message) {
  for (const std::string_view lead : {"exec: \"", "executable file `", "open executable `", "exec `"}) {
    const std::size_t at = message.find(lead);
    if (at == std::string_view::npos) continue;
    const std::size_t start = at + lead.size();
    const std::size_t end = message.find_first_of("\"`'", start);
    if (end != std::string_view::npos) return std::string(message.substr(start, end - start));
  }
  return {};
}

}  // namespace

std::string failure_text(std::string_view json_log, std::string_view printed) {
  std::string text;
  while (!json_log.empty()) {
    const auto [line, rest] = split_once(json_log, '\n');
    json_log = rest;
    const std::string level = json_member(line, "level");
    if (level == "error" || level == "fatal" || level == "panic") text = json_member(line, "msg");
  }
  if (text.empty()) text = std::string(trim(printed));
  // Which of its verbs brought it down is ours to say.
  for (const std::string_view verb : {"runc run failed: ", "runc create failed: "})
    if (text.starts_with(verb)) text.erase(0, verb.size());
  if (text.size() > kMaxText) text.resize(kMaxText);
  return text;
}

protocol::RuntimeFailure classify_failure(protocol::Stage stage, std::string message) {
  protocol::RuntimeFailure failure;
  failure.stage = stage;
  failure.path = quoted_path(message);
  const std::string lower = to_lower(message);
  for (const Words& words : kWords) {
    if (lower.find(words.text) == std::string::npos) continue;
    failure.kind = words.kind;
    break;
  }
  failure.message = std::move(message);
  return failure;
}

}  // namespace gantry::shim
