#include <boost/beast/http/status.hpp>

#include "api/container_routes.hpp"
#include "api/http_error.hpp"
#include "api/stats_json.hpp"
#include "api/stream_adapters.hpp"
#include "async/signal.hpp"
#include "base/text.hpp"
#include "engine/container_files.hpp"
#include "engine/stats.hpp"

namespace gantry::api {
namespace {

constexpr std::string_view kRawStream = "application/vnd.docker.raw-stream";
constexpr std::chrono::seconds kStatsInterval{1};
constexpr std::string_view kMultiplexed = "application/vnd.docker.multiplexed-stream";

engine::WaitCondition read_condition(const std::string& text) {
  if (text.empty() || text == "not-running") return engine::WaitCondition::not_running;
  if (text == "next-exit") return engine::WaitCondition::next_exit;
  if (text == "removed") return engine::WaitCondition::removed;
  throw Error(Errc::invalid_argument, "invalid condition: " + quote(text));
}

std::string render_wait(const engine::WaitResult& result) {
  std::string text;
  JsonWriter json(text);
  json.begin_object().field("StatusCode", result.exit_code);
  if (!result.error.empty()) json.key("Error").begin_object().field("Message", result.error).end_object();
  json.end_object();
  return text;
}

std::string stream_type(bool framed, ApiVersion version) {
  return std::string(framed && version >= ApiVersion{1, 42} ? kMultiplexed : kRawStream);
}

/// The content type of a log in JSON, if the request asks for one: by `format=json`, or by a type that it accepts.
std::string json_log_type(const Request& request) {
  if (request.version() < ApiVersion{1, 54}) return "";
  for (const std::string& word : split(request.header("Accept").value_or(""), ',')) {
    const std::string_view type = trim(word);
    if (type == "application/jsonl" || type == "application/x-ndjson" || type == "application/json-seq")
      return std::string(type);
  }
  return request.query().get("format") == "json" ? "application/jsonl" : "";
}

engine::AttachOptions read_attach_options(const Query& query) {
  engine::AttachOptions options;
  options.stream = query.flag("stream");
  options.use_stdin = query.flag("stdin");
  options.use_stdout = query.flag("stdout");
  options.use_stderr = query.flag("stderr");
  options.logs = query.flag("logs");
  options.detach_keys = query.get("detachKeys");
  return options;
}

/// Attach reports its errors on the taken-over connection: a status line, then the text.
Task<Response> refuse_attach(Request request, Error error) {
  const int status = http_status(error.code());
  const std::string_view reason = boost::beast::http::obsolete_reason(static_cast<boost::beast::http::status>(status));
  std::string header = "HTTP/1.1 " + std::to_string(status) + " " + std::string(reason) +
                       "\r\nContent-Type: " + std::string(kRawStream) + "\r\n\r\n";
  HijackedStream stream = co_await request.hijack_raw(std::move(header));
  co_await stream.write(error.message() + "\r\n");
  co_await engine::finish_client(std::make_shared<HijackedClient>(stream));
  co_return Response::sent();
}

}  // namespace

Task<Response> ContainerRoutes::wait(Request request) {
  const bool early = request.version() >= ApiVersion{1, 30};
  const auto condition = read_condition(early ? request.query().get("condition") : std::string());
  const engine::WaitTicket ticket = lifecycle_.begin_wait(request.param("name"), condition);
  if (!early) {
    const engine::WaitResult result = co_await lifecycle_.finish_wait(ticket);
    co_return Response::json(200, render_wait(result));
  }
  // `docker run` starts the container when it sees the header: from here on no exit can be missed.
  Streamer out = co_await request.start_stream(200, "application/json");
  const engine::WaitResult result = co_await lifecycle_.finish_wait(ticket);
  const bool failed_removal = condition == engine::WaitCondition::removed && !ticket.container->removed;
  if (!failed_removal || request.version() >= ApiVersion{1, 34}) co_await out.write(render_wait(result) + "\n");
  co_return Response::sent();
}

Task<Response> ContainerRoutes::logs(Request request) {
  const Query& query = request.query();
  engine::LogQuery wanted;
  wanted.want_stdout = query.flag("stdout");
  wanted.want_stderr = query.flag("stderr");
  wanted.follow = query.flag("follow");
  wanted.timestamps = query.flag("timestamps");
  wanted.details = query.flag("details");
  wanted.since = query.get("since");
  wanted.until = query.get("until");
  wanted.tail = query.get("tail");
  const std::string json_type = json_log_type(request);
  wanted.json = !json_type.empty();
  engine::LogSession session = logs_.open(request.param("name"), wanted);
  Streamer out = co_await request.start_stream(
      200, wanted.json ? json_type : stream_type(session.render.framed, request.version()));
  auto writer = std::make_shared<StreamerWriter>(out);
  co_await logs_.run(std::move(session), std::move(writer));
  co_return Response::sent();
}

Task<Response> ContainerRoutes::attach(Request request) {
  std::optional<engine::AttachSession> session;
  std::optional<Error> refused;
  try {
    session = attach_.begin(request.param("name"), read_attach_options(request.query()));
  } catch (const Error& e) {
    refused = e;
  }
  if (refused) co_return co_await refuse_attach(request, *refused);
  HijackReply reply;
  reply.upgraded_content_type = stream_type(session->framed(), request.version());
  HijackedStream stream = co_await request.hijack(reply);
  auto client = std::make_shared<HijackedClient>(stream);
  co_await attach_.run(std::move(*session), client);
  co_await engine::finish_client(client);
  co_return Response::sent();
}

Task<Response> ContainerRoutes::attach_websocket(Request request) {
  engine::AttachOptions options = read_attach_options(request.query());
  options.multiplexed = false;
  if (request.version() < ApiVersion{1, 42}) options.use_stdin = options.use_stdout = options.use_stderr = true;
  engine::AttachSession session = attach_.begin(request.param("name"), std::move(options));
  WebSocket socket = co_await WebSocket::accept(request);
  auto client = std::make_shared<WebSocketClient>(socket);
  co_await attach_.run(std::move(session), client);
  co_await engine::finish_client(client);
  co_return Response::sent();
}

Task<Response> ContainerRoutes::stats(Request request) {
  const engine::ContainerPtr container = store_.get(request.param("name"));
  const bool stream = request.query().flag("stream", true);
  const bool one_shot = request.version() >= ApiVersion{1, 41} && request.query().flag("one-shot");
  if (stream && one_shot) throw Error(Errc::invalid_argument, "cannot have stream=true and one-shot=true");
  const StatsSubject subject{container->id.str(), container->name, services_.host.cgroup.is_v2(),
                             static_cast<std::uint64_t>(services_.host.memory_bytes)};
  engine::StatsSample previous;
  engine::StatsSample sample = co_await stats_.read(container);
  if (!stream) {
    if (!one_shot && sample.running) {
      previous = sample;
      co_await async::sleep_for(kStatsInterval);
      sample = co_await stats_.read(container, previous.read);
    }
    co_return Response::json(200, render_stats(subject, sample, previous));
  }
  Streamer out = co_await request.start_stream(200, "application/json");
  while (!container->removed) {
    co_await out.write(render_stats(subject, sample, previous) + "\n");
    co_await async::sleep_for(kStatsInterval);
    previous = sample;
    sample = co_await stats_.read(container, previous.read);
  }
  co_return Response::sent();
}

Task<Response> ContainerRoutes::export_files(Request request) {
  const engine::ContainerPtr container = engine::begin_export(store_, request.param("name"));
  Streamer out = co_await request.start_stream(200, "application/octet-stream");
  auto writer = std::make_shared<StreamerWriter>(out);
  co_await engine::run_export(services_, lifecycle_, container, std::move(writer));
  co_return Response::sent();
}

}  // namespace gantry::api
