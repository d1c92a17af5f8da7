#include "builder/classic_watch.hpp"

#include "base/error.hpp"
#include "base/ids.hpp"

namespace gantry::builder {

std::string make_container_name() { return random_id().substr(0, 12); }

ClassicWatch::ClassicWatch(solver::Job& job, ClassicStream& stream)
    : job_(job), stream_(stream), thread_([this](std::stop_token stop) { run(stop); }) {}

ClassicWatch::~ClassicWatch() = default;

void ClassicWatch::begin(const std::string& vertex, bool announce) {
  const std::lock_guard lock(mutex_);
  vertex_ = vertex;
  announce_ = announce;
  step_ = {};
}

ClassicWatch::Step ClassicWatch::end() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return ended_ || seen_[vertex_].completed; });
  step_.cached = seen_[vertex_].cached;
  return step_;
}

// The client's going away ends the build by other means; here it only ends the writing.
void ClassicWatch::run(std::stop_token stop) {
  const auto reader = job_.read(std::chrono::milliseconds(20));
  try {
    while (const auto batch = reader->next(stop)) show(*batch);
  } catch (const Error&) {
  }
  const std::lock_guard lock(mutex_);
  ended_ = true;
  changed_.notify_all();
}

void ClassicWatch::show(const solver::StatusBatch& batch) {
  std::string started;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& vertex : batch.vertices)
      if (vertex.digest == vertex_ && vertex.started && !vertex.cached && announce_ && step_.container.empty())
        started = step_.container = make_container_name();
  }
  if (!started.empty()) stream_.text(" ---> Running in " + started + "\n");
  for (const auto& log : batch.logs) {
    if (log.stream == 2) stream_.error_text(log.bytes);
    else stream_.text(log.bytes);
  }
  const std::lock_guard lock(mutex_);
  for (const auto& vertex : batch.vertices) {
    if (!vertex.completed) continue;
    seen_[vertex.digest] = {true, vertex.cached};
    changed_.notify_all();
  }
}

}  // namespace gantry::builder
