#include "engine/log_stream.hpp"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <boost/asio/experimental/awaitable_operators.hpp>

#include "async/readable.hpp"
#include "async/signal.hpp"
#include "base/error.hpp"
#include "base/text.hpp"
#include "engine/log_config.hpp"

namespace gantry::engine {
namespace {

constexpr std::size_t kBatch = 256 << 10;

struct Batch {
  std::string bytes;
  logs::LogReader::Status status = logs::LogReader::Status::end;
};

void require_readable_driver(const sys::Paths& paths, const Container& container) {
  if (log_file(paths, container).empty())
    throw Error(Errc::not_implemented, "configured logging driver does not support reading");
}

bool writes_now(const LogSession& session) {
  return session.container->shim && session.container->starts == session.starts;
}

/// Our own descriptor of what the reader watches: the reader may be at work in a lane.
sys::Fd watch_fd(int fd) {
  sys::Fd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy) throw Error::from_errno(errno, "watch the log");
  return copy;
}

Task<void> wait_until_stopped(LogSession session) {
  while (writes_now(session)) co_await session.container->changed.wait();
}

/// Resumes when the reader may have news, the container stopped, or `until` has passed.
Task<void> wait_for_news(LogSession session, std::shared_ptr<async::Readable> news) {
  using namespace boost::asio::experimental::awaitable_operators;
  if (!session.read.until) {
    co_await (news->wait() || wait_until_stopped(session));
    co_return;
  }
  const auto left = std::max<std::chrono::nanoseconds>(*session.read.until - now(), std::chrono::milliseconds(1));
  co_await (news->wait() || wait_until_stopped(session) || async::sleep_for(left));
}

}  // namespace

std::optional<Timestamp> parse_log_time(const std::string& name, const std::string& text) {
  if (text.empty() || text == "0") return std::nullopt;
  const auto time = parse_unix_seconds(text);
  if (!time)
    throw Error(Errc::invalid_argument, "invalid value for \"" + name + "\": invalid timestamp " + quote(text));
  return time;
}

std::optional<std::uint64_t> parse_log_tail(const std::string& text) {
  const auto lines = parse_int(text);
  if (!lines || *lines < 0) return std::nullopt;
  return static_cast<std::uint64_t>(*lines);
}

LogSession LogStreams::open(const std::string& reference, const LogQuery& query) const {
  if (!query.want_stdout && !query.want_stderr)
    throw Error(Errc::invalid_argument, "must specify at least one of 'stdout' or 'stderr'");
  LogSession session;
  session.container = store_.get(reference);
  const Container& container = *session.container;
  if (container.removing || container.removed || container.state.dead)
    throw Error(Errc::conflict, "can not get logs from container which is dead or marked for removal");
  require_readable_driver(services_.paths, container);
  session.read.want_stdout = query.want_stdout;
  session.read.want_stderr = query.want_stderr;
  session.read.since = parse_log_time("since", query.since);
  session.read.until = parse_log_time("until", query.until);
  session.read.tail = parse_log_tail(query.tail);
  session.follow = query.follow && container.shim;
  session.read.follow = session.follow;
  session.starts = container.starts;
  session.render.framed = !container.tty();
  session.render.timestamps = query.timestamps;
  session.render.details = query.details;
  session.render.json = query.json;
  return session;
}

Task<void> LogStreams::run(LogSession session, std::shared_ptr<ByteWriter> writer) {
  using Status = logs::LogReader::Status;
  const auto reader = co_await lane_.run([path = log_file(services_.paths, *session.container), options = session.read] {
    return std::make_shared<logs::LogReader>(path, options);
  });
  std::shared_ptr<async::Readable> news;
  if (session.follow) news = std::make_shared<async::Readable>(services_.loop, watch_fd(reader->wait_fd()));
  for (;;) {
    // Asked before reading: what was written before the end is in the file by then.
    const bool ended = session.follow && !writes_now(session);
    const bool expired = session.follow && session.read.until && *session.read.until <= now();
    if (ended || expired) reader->finish();
    Batch batch = co_await lane_.run([reader, render = session.render] {
      Batch read;
      read.status = reader->next_frames(read.bytes, render, kBatch);
      return read;
    });
    if (!batch.bytes.empty()) co_await writer->write(std::move(batch.bytes));
    if (batch.status == Status::end) co_return;
    if (batch.status == Status::wait) co_await wait_for_news(session, news);
  }
}

Task<void> LogStreams::replay(ContainerPtr container, bool want_stdout, bool want_stderr, bool framed,
                              std::shared_ptr<ByteWriter> writer) {
  require_readable_driver(services_.paths, *container);
  LogSession session;
  session.container = std::move(container);
  session.read.want_stdout = want_stdout;
  session.read.want_stderr = want_stderr;
  session.render.framed = framed;
  co_await run(std::move(session), std::move(writer));
}

}  // namespace gantry::engine
