#include "engine/attach.hpp"

#include <fmt/format.h>
#include <boost/asio/experimental/awaitable_operators.hpp>

#include "base/error.hpp"
#include "base/log.hpp"
#include "engine/detach_keys.hpp"

namespace gantry::engine {
namespace {

/// Tells a start that somebody wants to see its first byte, for as long as this lives.
class WaitingMark {
 public:
  explicit WaitingMark(ContainerPtr container) : container_(std::move(container)) { ++container_->waiting_attachments; }
  WaitingMark(const WaitingMark&) = delete;
  WaitingMark& operator=(const WaitingMark&) = delete;
  ~WaitingMark() {
    --container_->waiting_attachments;
    container_->changed.notify();
  }

 private:
  ContainerPtr container_;
};

/// Resumes when a start other than number `ending` can be attached to, or the container is gone.
Task<void> wait_for_start(ContainerPtr container, std::optional<std::uint64_t> ending) {
  while (!container->removed && (!container->shim || container->starts == ending)) co_await container->changed.wait();
}

}  // namespace

AttachSession Attach::begin(const std::string& reference, AttachOptions options) const {
  AttachSession session;
  session.keys = parse_detach_keys(options.detach_keys);
  session.container = store_.get(reference);
  const Container& container = *session.container;
  if (container.state.running && container.state.paused)
    throw Error(Errc::conflict, fmt::format("container {} is paused, unpause the container before attach", reference));
  if (container.state.running && container.state.restarting)
    throw Error(Errc::conflict,
                fmt::format("container {} is restarting, wait until the container is running", reference));
  if (!container.config.OpenStdin) options.use_stdin = false;
  if (options.stream) session.waiting = std::make_shared<WaitingMark>(session.container);
  session.options = std::move(options);
  return session;
}

Task<void> Attach::run(AttachSession session, std::shared_ptr<StreamClient> client) {
  const ContainerPtr held = session.container;
  const Container& container = *held;
  const AttachOptions options = session.options;
  const std::string keys = session.keys;
  if (options.logs) co_await replay_logs(session, client);
  lifecycle_.publish(container, "attach");
  if (!options.stream || !(options.use_stdin || options.use_stdout || options.use_stderr)) co_return;

  std::shared_ptr<runtime::AttachStream> stream = co_await find_stream(std::move(session), client);
  if (!stream) co_return;
  SpliceOptions how;
  how.use_stdin = options.use_stdin;
  how.close_stdin = container.config.StdinOnce && !container.tty();
  how.strip_frames = !options.multiplexed && !container.tty();
  if (container.tty()) how.detach_keys = keys;
  const SpliceEnd end = co_await splice(stream, client, how);
  stream->close();
  if (end == SpliceEnd::detached) lifecycle_.publish(container, "detach");
}

Task<void> Attach::replay_logs(AttachSession session, std::shared_ptr<StreamClient> client) {
  std::string complaint;
  try {
    co_await logs_.replay(session.container, session.options.use_stdout, session.options.use_stderr, session.framed(),
                          client);
  } catch (const Error& e) {
    if (e.code() == Errc::cancelled) throw;
    complaint = "Error attaching: " + e.message() + "\n";
  }
  if (!complaint.empty()) co_await client->write(frame_text(complaint, session.framed()));
}

/// The container's streams: now if it runs, else those of its next start. Null if the client leaves or the container
/// is removed before that.
Task<std::shared_ptr<runtime::AttachStream>> Attach::find_stream(AttachSession session,
                                                                 std::shared_ptr<StreamClient> client) {
  using namespace boost::asio::experimental::awaitable_operators;
  ContainerPtr container = session.container;
  std::shared_ptr<const void> waiting = std::move(session.waiting);
  std::optional<std::uint64_t> ending;  // a start that could not be attached to any more
  for (;;) {
    const auto first = co_await (wait_for_start(container, ending) || client->wait_hangup());
    if (first.index() == 1 || container->removed) co_return nullptr;
    ending = container->starts;
    if (auto stream = co_await open_stream(session)) co_return stream;
    waiting = std::make_shared<WaitingMark>(container);
  }
}

Task<std::shared_ptr<runtime::AttachStream>> Attach::open_stream(AttachSession session) {
  runtime::AttachRequest request;
  request.use_stdin = session.options.use_stdin;
  request.use_stdout = session.options.use_stdout;
  request.use_stderr = session.options.use_stderr;
  runtime::ShimClient shim = session.container->live_shim();
  try {
    co_return std::make_shared<runtime::AttachStream>(co_await shim.attach(std::move(request)));
  } catch (const Error& e) {
    log::debug("attach to {}: {}", session.container->id.short_form(), e.message());
    co_return nullptr;
  }
}

}  // namespace gantry::engine
