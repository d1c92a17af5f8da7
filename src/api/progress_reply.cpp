#include "api/progress_reply.hpp"

#include <optional>

#include <boost/asio/experimental/awaitable_operators.hpp>

#include "async/signal.hpp"
#include "base/error.hpp"

namespace gantry::api {
namespace {

using namespace boost::asio::experimental::awaitable_operators;

struct State {
  image::ProgressPtr progress = std::make_shared<image::Progress>();
  std::optional<Streamer> reply;
  std::exception_ptr failure;
  std::string failure_text;
};

Task<void> run(std::shared_ptr<State> state, std::function<Task<void>(image::ProgressPtr)> verb) {
  try {
    co_await verb(state->progress);
  } catch (const Error& e) {
    state->failure = std::current_exception();
    state->failure_text = e.message();
  }
  state->progress->close();
}

Task<void> pump(std::shared_ptr<State> state, Request request) {
  while (auto message = co_await state->progress->next()) {
    if (!state->reply) state->reply = co_await request.start_stream(200, "application/json");
    co_await state->reply->write(std::move(*message));
  }
}

/// Feeds the body and then waits to be cancelled: the verb's end is the end, however much of the body is left.
Task<void> feed(Request request, std::shared_ptr<storage::ByteChannel> body) {
  try {
    for (;;) {
      std::string piece = co_await request.read_body_some();
      if (piece.empty()) break;
      co_await body->write(std::move(piece));
    }
    body->close();
  } catch (const Error&) {
    body->fail(std::current_exception());
  }
  async::Signal never;
  for (;;) co_await never.wait();
}

Task<void> run_and_pump(std::shared_ptr<State> state, Request request,
                        std::function<Task<void>(image::ProgressPtr)> verb) {
  co_await (run(state, std::move(verb)) && pump(state, request));
}

}  // namespace

Task<Response> reply_with_progress(Request request, std::function<Task<void>(image::ProgressPtr)> verb,
                                   ReplyStart start, std::shared_ptr<storage::ByteChannel> body) {
  auto state = std::make_shared<State>();
  if (start == ReplyStart::at_once) state->reply = co_await request.start_stream(200, "application/json");
  if (body) {
    // Whatever ends this, nobody reads or writes the channel afterwards.
    struct Abort {
      std::shared_ptr<storage::ByteChannel> channel;
      ~Abort() { channel->abort(); }
    } abort{body};
    co_await (run_and_pump(state, request, std::move(verb)) || feed(request, body));
  } else {
    co_await run_and_pump(state, request, std::move(verb));
  }
  if (!state->reply && state->failure) std::rethrow_exception(state->failure);
  if (!state->reply) state->reply = co_await request.start_stream(200, "application/json");
  if (state->failure) {
    image::Progress last;
    last.error(state->failure_text);
    auto text = co_await last.next();
    co_await state->reply->write(std::move(*text));
  }
  co_return Response::sent();
}

Task<Response> reply_with_stream(Request request, std::string content_type,
                                 std::shared_ptr<storage::ByteChannel> stream) {
  struct Abort {
    std::shared_ptr<storage::ByteChannel> channel;
    ~Abort() { channel->abort(); }
  } abort{stream};
  std::string piece = co_await stream->next();
  Streamer reply = co_await request.start_stream(200, std::move(content_type));
  while (!piece.empty()) {
    co_await reply.write(std::move(piece));
    piece = co_await stream->next();
  }
  co_return Response::sent();
}

}  // namespace gantry::api
