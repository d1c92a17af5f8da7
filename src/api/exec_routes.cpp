#include "api/exec_routes.hpp"

#include <algorithm>

#include "api/container_routes.hpp"
#include "api/json_body.hpp"
#include "api/json_writer.hpp"
#include "api/stream_adapters.hpp"
#include "base/text.hpp"
#include "engine/splice.hpp"

namespace gantry::api {
namespace {

constexpr ApiVersion kConsoleSize{1, 42};
constexpr ApiVersion kMultiplexed{1, 42};

struct CreateBody {
  std::string User;
  bool Privileged = false;
  bool Tty = false;
  std::vector<std::int64_t> ConsoleSize;
  bool AttachStdin = false;
  bool AttachStderr = false;
  bool AttachStdout = false;
  std::string DetachKeys;
  std::vector<std::string> Env;
  std::string WorkingDir;
  json::StringList Cmd;
};
BOOST_DESCRIBE_STRUCT(CreateBody, (),
                      (User, Privileged, Tty, ConsoleSize, AttachStdin, AttachStderr, AttachStdout, DetachKeys, Env,
                       WorkingDir, Cmd))

struct StartBody {
  bool Detach = false;
  bool Tty = false;
  std::vector<std::int64_t> ConsoleSize;
};
BOOST_DESCRIBE_STRUCT(StartBody, (), (Detach, Tty, ConsoleSize))

/// `[height, width]`.
engine::ExecTerminalSize read_size(const std::vector<std::int64_t>& size, ApiVersion version) {
  if (version < kConsoleSize || size.size() != 2) return {};
  const auto clamp = [](std::int64_t n) { return static_cast<std::uint16_t>(std::clamp<std::int64_t>(n, 0, 0xffff)); };
  return {clamp(size[0]), clamp(size[1])};
}

std::string render_exec(const engine::Exec& exec) {
  const engine::ExecOptions& options = exec.options;
  std::string text;
  JsonWriter json(text);
  json.begin_object().field("ID", exec.id).field("Running", exec.phase == engine::ExecPhase::running);
  json.key("ExitCode");
  if (exec.exit_code) json.value(*exec.exit_code);
  else json.null();
  json.key("ProcessConfig").begin_object().field("tty", options.tty).field("entrypoint", options.command.front());
  json.key("arguments").begin_array();
  for (std::size_t i = 1; i < options.command.size(); ++i) json.value(options.command[i]);
  json.end_array().field("privileged", options.privileged);
  if (!options.user.empty()) json.field("user", options.user);
  json.end_object();
  json.field("OpenStdin", options.use_stdin).field("OpenStderr", options.use_stderr);
  json.field("OpenStdout", options.use_stdout).field("CanRemove", exec.can_remove);
  json.field("ContainerID", exec.container_id).field("DetachKeys", base64_encode(exec.keys));
  json.field("Pid", exec.pid).end_object();
  return text;
}

}  // namespace

void ExecRoutes::add_to(Router& router) {
  constexpr RouteOptions kVerb{.cancel = Cancel::never, .min_api = {}};
  static const Route<ExecRoutes> kRoutes[] = {
      {Method::post, "/containers/{name:.*}/exec", &ExecRoutes::create, kVerb},
      {Method::post, "/exec/{id:.*}/start", &ExecRoutes::start},
      {Method::post, "/exec/{id:.*}/resize", &ExecRoutes::resize},
      {Method::get, "/exec/{id:.*}/json", &ExecRoutes::inspect},
  };
  router.add(*this, kRoutes);
}

Task<Response> ExecRoutes::create(Request request) {
  CreateBody body = co_await read_json<CreateBody>(request);
  engine::ExecOptions options;
  if (body.Cmd) options.command = std::move(*body.Cmd);
  options.env = std::move(body.Env);
  options.user = std::move(body.User);
  options.working_dir = std::move(body.WorkingDir);
  options.privileged = body.Privileged;
  options.tty = body.Tty;
  options.use_stdin = body.AttachStdin;
  options.use_stdout = body.AttachStdout;
  options.use_stderr = body.AttachStderr;
  options.detach_keys = std::move(body.DetachKeys);
  options.size = read_size(body.ConsoleSize, request.version());
  const engine::ExecPtr exec = co_await execs_.create(request.param("name"), std::move(options));
  std::string text;
  JsonWriter json(text);
  json.begin_object().field("Id", exec->id).end_object();
  co_return Response::json(201, std::move(text));
}

Task<Response> ExecRoutes::start(Request request) {
  const StartBody body = co_await read_json<StartBody>(request);
  engine::ExecPtr exec = execs_.get_startable(request.param("id"));
  engine::ExecTerminalSize size;
  if (body.Tty) size = read_size(body.ConsoleSize, request.version());
  if (body.Detach) {
    co_await execs_.start_detached(exec, size);
    co_return Response::empty(200);
  }
  // From here on errors are text in the stream. What the client expects of it follows from this request, not from how
  // the exec was made.
  const bool framed = !body.Tty;
  HijackReply reply;
  reply.with_daemon_headers = true;
  if (framed && request.version() >= kMultiplexed)
    reply.upgraded_content_type = "application/vnd.docker.multiplexed-stream";
  HijackedStream stream = co_await request.hijack(reply);
  auto client = std::make_shared<HijackedClient>(stream);
  co_await execs_.run_attached(exec, client, framed, size);
  co_await engine::finish_client(client);
  co_return Response::sent();
}

Task<Response> ExecRoutes::resize(Request request) {
  engine::ExecTerminalSize size;
  size.rows = read_dimension(request.query(), "h", "height");
  size.columns = read_dimension(request.query(), "w", "width");
  co_await execs_.resize(request.param("id"), size);
  co_return Response::empty(200);
}

Task<Response> ExecRoutes::inspect(Request request) {
  co_return Response::json(200, render_exec(*execs_.get(request.param("id"))));
}

}  // namespace gantry::api
