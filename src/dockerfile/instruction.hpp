#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "dockerfile/location.hpp"
#include "dockerfile/syntax.hpp"

/// The typed model of a Dockerfile's instructions: what each says, before variables are expanded.
namespace gantry::dockerfile {

struct EnvInstruction {
  std::vector<KeyValue> variables;
};

struct LabelInstruction {
  std::vector<KeyValue> labels;
};

struct ArgDefinition {
  std::string name;
  std::optional<std::string> value;  // the default as written; nullopt: none
  std::string description;           // of a comment `# NAME description` right above
};

struct ArgInstruction {
  std::vector<ArgDefinition> args;
};

/// The command of RUN, CMD and ENTRYPOINT.
struct CommandLine {
  std::vector<std::string> words;  // shell form: at most one, the whole text
  bool shell = true;               // false: written as a JSON array
};

/// One `--mount` of RUN. Its options may hold variables, so they are read by parse_mount when the step is reached; only
/// `from` is known before.
struct MountFlag {
  std::string text;
  std::string from;    // a stage, image or named context; "" : none
  std::string target;  // as written, for messages
};

/// One `--device` of RUN.
struct DeviceFlag {
  std::string name;
  bool required = false;
};

enum class RunNetwork { standard, none, host };
enum class RunSecurity { sandbox, insecure };

struct RunInstruction {
  CommandLine command;
  std::vector<Heredoc> heredocs;
  std::vector<MountFlag> mounts;
  std::vector<DeviceFlag> devices;
  RunNetwork network = RunNetwork::standard;
  RunSecurity security = RunSecurity::sandbox;
  std::vector<std::string> flags_used;  // names in the order of first use: the classic builder knows none of them
};

struct CmdInstruction {
  CommandLine command;
};

struct EntrypointInstruction {
  CommandLine command;
};

/// `<<NAME` as a source of COPY or ADD: a file of mode 0644 of root.
struct InlineFile {
  std::string name;
  std::string content;
  bool expand = true;
};

/// COPY and ADD.
struct CopyInstruction {
  bool add = false;
  std::vector<std::string> sources;
  std::vector<InlineFile> inline_files;
  std::string destination;
  std::string from;  // COPY only
  std::string chown;
  std::string chmod;
  bool link = false;
  bool parents = false;  // COPY only
  std::vector<std::string> excludes;
  std::string checksum;              // ADD only
  std::optional<bool> keep_git_dir;  // ADD only
  std::optional<bool> unpack;        // ADD only
};

struct WorkdirInstruction {
  std::string path;
};

struct UserInstruction {
  std::string user;
};

struct ExposeInstruction {
  std::vector<std::string> ports;  // sorted as strings
};

struct VolumeInstruction {
  std::vector<std::string> paths;
};

struct StopSignalInstruction {
  std::string signal;
};

struct ShellInstruction {
  std::vector<std::string> shell;
};

struct MaintainerInstruction {
  std::string name;
};

/// Durations of 0 mean "as inherited".
struct HealthcheckInstruction {
  std::vector<std::string> test;  // {"NONE"}, {"CMD", …} or {"CMD-SHELL", text}
  std::chrono::nanoseconds interval{0};
  std::chrono::nanoseconds timeout{0};
  std::chrono::nanoseconds start_period{0};
  std::chrono::nanoseconds start_interval{0};
  int retries = 0;
};

struct OnbuildInstruction {
  std::string expression;  // the trigger with its heredocs, as stored in the image's config
};

using InstructionBody = std::variant<EnvInstruction, LabelInstruction, ArgInstruction, RunInstruction, CmdInstruction,
                                     EntrypointInstruction, CopyInstruction, WorkdirInstruction, UserInstruction,
                                     ExposeInstruction, VolumeInstruction, StopSignalInstruction, ShellInstruction,
                                     MaintainerInstruction, HealthcheckInstruction, OnbuildInstruction>;

struct Instruction {
  InstructionBody body;
  std::string keyword;  // as written
  std::string source;   // the whole instruction on one line, trimmed: what progress shows
  LineRange lines;
  std::vector<std::string> comments;
};

/// A FROM and what follows it.
struct Stage {
  std::string name;          // lower case; "" if it has none
  std::string base_name;     // as written, with variables
  std::string platform;      // as written, with variables; "" if there is none
  std::string keyword;       // as written
  std::string as_keyword;    // as written; "" without a name
  std::string written_name;  // as written
  std::string source;
  std::string description;  // of a comment `# NAME description` right above
  LineRange lines;
  std::vector<std::string> comments;
  std::vector<Instruction> instructions;
};

/// What an ONBUILD trigger of a base image says. Throws SourceError; `onbuild trigger should be a single expression`.
/// `lines` are those of the FROM that inherits it, for messages. Triggers always use `\` as escape character.
Instruction parse_trigger(std::string_view expression, LineRange lines);

}  // namespace gantry::dockerfile
