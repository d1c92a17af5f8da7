#include "engine/exec_spec.hpp"

#include "base/text.hpp"
#include "engine/spec_builder.hpp"
#include "json/codec.hpp"
#include "runtime/native_process.hpp"
#include "runtime/spec.hpp"
#include "runtime/users.hpp"

namespace gantry::engine {
namespace {

struct StoredExec {
  std::vector<std::string> command;
  std::string user;
  bool privileged = false;
  bool tty = false;
  bool use_stdin = false;
  bool use_stdout = false;
  bool use_stderr = false;
  std::string detach_keys;
  std::string keys;  // base64
  std::uint16_t rows = 0;
  std::uint16_t columns = 0;
  std::string process_json;
};
BOOST_DESCRIBE_STRUCT(StoredExec, (),
                      (command, user, privileged, tty, use_stdin, use_stdout, use_stderr, detach_keys, keys, rows,
                       columns, process_json))

}  // namespace

namespace {

/// The home of the first user with that id, as runc looks it up: by the number, not by the name that was asked for.
std::string home_of(const ExecInputs& in, const std::string& user, const runtime::ResolvedUser& resolved) {
  const std::string number = std::to_string(resolved.user.uid);
  if (user.empty() || split_once(user, ':').first == number) return resolved.home;
  return runtime::resolve_user_blocking(in.rootfs.string(), number, {}).home;
}

}  // namespace

BuiltProcess build_process_blocking(const ExecInputs& in, const runtime::HostFacts& facts) {
  const ExecOptions& wanted = in.options;
  model::HostConfig host = in.host;
  host.Privileged = host.Privileged || wanted.privileged;
  ProcessPolicy policy = process_policy(host, in.default_ulimits, in.daemon_no_new_privileges, facts);
  runtime::ProcessSpec process;
  process.args = wanted.command;
  const auto own = in.config.Env.value_or(std::vector<std::string>{});
  process.env = runtime::merge_env(runtime::render_env(in.hostname, wanted.tty, in.link_env, own), wanted.env);
  process.cwd = !wanted.working_dir.empty() ? wanted.working_dir : in.config.WorkingDir;
  if (process.cwd.empty()) process.cwd = "/";
  const std::string& user = wanted.user.empty() ? in.config.User : wanted.user;
  const auto groups = in.host.GroupAdd.value_or(std::vector<std::string>{});
  const runtime::ResolvedUser resolved = runtime::resolve_user_blocking(in.rootfs.string(), user, groups);
  process.user = resolved.user;
  process.terminal = wanted.tty;
  process.capabilities = std::move(policy.capabilities);
  process.no_new_privileges = policy.no_new_privileges;
  process.oom_score_adj = policy.oom_score_adj;
  process.ulimits = std::move(policy.ulimits);
  BuiltProcess built;
  built.process_json = runtime::render_oci_process(process);
  if (auto native = runtime::make_native_process(process, home_of(in, user, resolved))) {
    runtime::set_cgroups(*native, facts.cgroup, in.cgroup);
    built.native = std::make_unique<protocol::NativeProcess>(std::move(*native));
  }
  return built;
}

std::string encode_exec(const Exec& exec) {
  const ExecOptions& o = exec.options;
  StoredExec stored{o.command,    o.user,         o.privileged,
                    o.tty,        o.use_stdin,    o.use_stdout,
                    o.use_stderr, o.detach_keys,  base64_encode(exec.keys),
                    o.size.rows,  o.size.columns, exec.process_json};
  return json::encode_text(stored);
}

void decode_exec(const std::string& text, Exec& into) {
  auto stored = json::decode_text<StoredExec>(text);
  if (stored.command.empty() || stored.process_json.empty())
    throw Error(Errc::invalid_argument, "an exec without a command");
  ExecOptions& o = into.options;
  o.command = std::move(stored.command);
  o.user = std::move(stored.user);
  o.privileged = stored.privileged;
  o.tty = stored.tty;
  o.use_stdin = stored.use_stdin;
  o.use_stdout = stored.use_stdout;
  o.use_stderr = stored.use_stderr;
  o.detach_keys = std::move(stored.detach_keys);
  o.size = {stored.rows, stored.columns};
  into.keys = base64_decode(stored.keys).value_or("");
  into.process_json = std::move(stored.process_json);
}

}  // namespace gantry::engine
