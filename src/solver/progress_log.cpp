#include "solver/progress_log.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace gantry::solver {
namespace {

/// What is kept of all output for readers that come late or read slowly.
constexpr std::int64_t kRetainedLogs = 16 << 20;
constexpr std::size_t kMostVertexEvents = 200'000;
constexpr std::size_t kMostStatuses = 10'000;
constexpr std::size_t kMostWarnings = 1'000;
constexpr std::size_t kLongestLog = 512 << 10;
constexpr const char* kCancelled = "context canceled";

}  // namespace

class VertexStatus final : public Progress::Status {
 public:
  VertexStatus(std::shared_ptr<ProgressLog> log, ProgressLog::StatusSlot* slot) : log_(std::move(log)), slot_(slot) {}
  ~VertexStatus() override { complete(); }
  void update(std::int64_t current, std::int64_t total) override { set(current, total, false); }
  void complete() override { set(-1, -1, true); }

 private:
  void set(std::int64_t current, std::int64_t total, bool complete) {
    if (slot_ == nullptr) return;
    const std::lock_guard lock(log_->mutex_);
    StatusUpdate& update = slot_->update;
    if (update.completed) return;
    if (current >= 0) update.current = current;
    if (total >= 0) update.total = total;
    update.timestamp = now();
    if (complete) update.completed = update.timestamp;
    slot_->number = ++log_->last_;
    log_->changed_.notify_all();
  }
  const std::shared_ptr<ProgressLog> log_;
  ProgressLog::StatusSlot* const slot_;  // nullptr: one too many
};

class VertexProgress final : public Progress {
 public:
  VertexProgress(std::shared_ptr<ProgressLog> log, std::string digest)
      : log_(std::move(log)), digest_(std::move(digest)) {}
  void log(int stream, std::string_view bytes) override { log_->log(digest_, stream, bytes); }
  std::shared_ptr<Status> status(std::string id, std::string name) override {
    return log_->add_status(digest_, std::move(id), std::move(name));
  }
  void warn(Warning warning) override { log_->warn(digest_, std::move(warning)); }

 private:
  const std::shared_ptr<ProgressLog> log_;
  const std::string digest_;
};

ProgressLog::Vertex& ProgressLog::vertex(const std::string& digest, const std::string& name) {
  const auto [it, fresh] = vertices_.try_emplace(digest);
  if (fresh) {
    it->second.state.digest = digest;
    it->second.state.name = name;
  }
  return it->second;
}

void ProgressLog::note(Vertex& vertex) {
  const VertexUpdate& s = vertex.state;
  vertex_events_.push_back({++last_, &vertex, s.cached, s.started, s.completed, s.error});
  if (vertex_events_.size() > kMostVertexEvents) vertex_events_.pop_front();
  changed_.notify_all();
}

void ProgressLog::announce(const llb::Definition& definition) {
  const std::lock_guard lock(mutex_);
  for (const llb::VertexPtr& v : definition.vertices()) {
    const auto [it, fresh] = vertices_.try_emplace(v->digest());
    if (!fresh) continue;
    VertexUpdate& state = it->second.state;
    state.digest = v->digest();
    state.name = v->name();
    for (const llb::VertexOutput& input : v->inputs())
      if (input.vertex) state.inputs.push_back(input.vertex->digest());
    if (v->metadata().has_progress_group()) state.group = v->metadata().progress_group();
    note(it->second);
  }
}

void ProgressLog::mark_inputs_cached(const Vertex& vertex, Timestamp when) {
  std::vector<const Vertex*> next{&vertex};
  while (!next.empty()) {
    const Vertex* user = next.back();
    next.pop_back();
    for (const std::string& digest : user->state.inputs) {
      const auto it = vertices_.find(digest);
      if (it == vertices_.end() || it->second.state.started) continue;
      VertexUpdate& input = it->second.state;
      input.cached = true;
      input.started = input.completed = when;
      note(it->second);
      next.push_back(&it->second);
    }
  }
}

void ProgressLog::start(const std::string& digest, bool cached, const std::string& name) {
  const std::lock_guard lock(mutex_);
  if (finished_) return;
  Vertex& v = vertex(digest, name);
  if (v.running++ > 0) return;
  v.state.started = now();
  v.state.completed.reset();
  v.state.error.clear();
  v.state.cached = cached;
  mark_inputs_cached(v, *v.state.started);
  note(v);
}

void ProgressLog::complete(const std::string& digest, const std::string& error) {
  const std::lock_guard lock(mutex_);
  const auto it = vertices_.find(digest);
  if (it == vertices_.end() || it->second.running == 0) return;
  Vertex& v = it->second;
  if (--v.running > 0) return;
  const Timestamp end = now();
  for (StatusSlot& slot : statuses_) {
    if (slot.update.vertex != digest || slot.update.completed) continue;
    slot.update.timestamp = end;
    slot.update.completed = end;
    slot.number = ++last_;
  }
  v.state.completed = end;
  v.state.error = error;
  note(v);
}

std::shared_ptr<Progress> ProgressLog::progress(const std::string& digest) {
  return std::make_shared<VertexProgress>(shared_from_this(), digest);
}

void ProgressLog::finish() {
  const std::lock_guard lock(mutex_);
  if (finished_) return;
  const Timestamp end = now();
  for (StatusSlot& slot : statuses_) {
    if (slot.update.completed) continue;
    slot.update.timestamp = end;
    slot.update.completed = end;
    slot.number = ++last_;
  }
  for (auto& [digest, v] : vertices_) {
    if (!v.state.started || v.state.completed) continue;
    v.state.completed = end;
    v.state.error = kCancelled;
    v.running = 0;
    note(v);
  }
  finished_ = true;
  changed_.notify_all();
  read_.notify_all();
}

bool ProgressLog::finished() const {
  const std::lock_guard lock(mutex_);
  return finished_;
}

/// What of `bytes` is within the limits, and in place of the first that is not, a line that says so.
std::string ProgressLog::clip(Vertex& v, std::string_view bytes) const {
  if (log_size_ == 0) return std::string(bytes);
  const auto at = std::chrono::steady_clock::now();
  if (v.log_bytes == 0) v.log_began = at;
  const auto seconds = std::chrono::ceil<std::chrono::seconds>(at - v.log_began).count();
  std::int64_t most = log_size_;
  bool by_speed = false;
  if (log_speed_ != 0 && std::max<std::int64_t>(seconds, 1) * log_speed_ < most) {
    most = std::max<std::int64_t>(seconds, 1) * log_speed_;
    by_speed = true;
  }
  const std::int64_t room = std::max<std::int64_t>(0, most - v.log_bytes);
  std::string out(bytes.substr(0, static_cast<std::size_t>(std::min<std::int64_t>(room, std::ssize(bytes)))));
  v.log_bytes += std::ssize(out);
  if (out.size() == bytes.size()) {
    v.clipping = false;
  } else if (!std::exchange(v.clipping, true)) {
    const std::string limit =
        by_speed ? fmt::format("{}KiB/s", log_speed_ >> 10) : fmt::format("{}MiB", log_size_ >> 20);
    out += fmt::format("\n[output clipped, log limit {} reached]\n", limit);
  }
  return out;
}

bool ProgressLog::somebody_lags() const {
  return std::any_of(readers_.begin(), readers_.end(),
                     [&](const std::uint64_t* position) { return *position < logs_.front().number; });
}

/// Keeps the output within bounds: what nobody waits for goes first. Where output is not clipped (classic builds, which
/// write it straight to the client), a slow reader slows the step.
void ProgressLog::make_room(std::unique_lock<std::mutex>& lock) {
  while (retained_ > kRetainedLogs && !logs_.empty()) {
    if (log_size_ == 0)
      read_.wait(lock, stop_, [&] { return finished_ || retained_ <= kRetainedLogs || !somebody_lags(); });
    if (logs_.empty()) return;
    retained_ -= std::ssize(logs_.front().update.bytes);
    logs_.pop_front();
  }
}

void ProgressLog::log(const std::string& digest, int stream, std::string_view bytes) {
  std::unique_lock lock(mutex_);
  while (!bytes.empty() && !finished_) {
    const std::string_view piece = bytes.substr(0, kLongestLog);
    bytes.remove_prefix(piece.size());
    std::string text = clip(vertex(digest, {}), piece);
    if (text.empty()) return;
    retained_ += std::ssize(text);
    logs_.push_back({++last_, {digest, now(), stream, std::move(text)}});
    changed_.notify_all();
    make_room(lock);
  }
}

void ProgressLog::warn(const std::string& digest, Warning warning) {
  const std::lock_guard lock(mutex_);
  if (finished_ || warnings_.size() >= kMostWarnings) return;
  warnings_.emplace_back(++last_, WarningUpdate{digest, std::move(warning)});
  changed_.notify_all();
}

std::shared_ptr<Progress::Status> ProgressLog::add_status(const std::string& digest, std::string id, std::string name) {
  StatusSlot* slot = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (!finished_ && statuses_.size() < kMostStatuses) {
      slot = &statuses_.emplace_back();
      slot->number = ++last_;
      slot->update.id = std::move(id);
      slot->update.vertex = digest;
      slot->update.name = std::move(name);
      slot->update.started = slot->update.timestamp = now();
      changed_.notify_all();
    }
  }
  return std::make_shared<VertexStatus>(shared_from_this(), slot);
}

StatusBatch ProgressLog::collect(std::uint64_t after) const {
  StatusBatch batch;
  const auto later = [](std::uint64_t number, const auto& event) { return number < event.number; };
  for (auto it = std::upper_bound(vertex_events_.begin(), vertex_events_.end(), after, later);
       it != vertex_events_.end(); ++it) {
    VertexUpdate update = it->vertex->state;
    update.cached = it->cached;
    update.started = it->started;
    update.completed = it->completed;
    update.error = it->error;
    batch.vertices.push_back(std::move(update));
  }
  for (auto it = std::upper_bound(logs_.begin(), logs_.end(), after, later); it != logs_.end(); ++it)
    batch.logs.push_back(it->update);
  for (const StatusSlot& slot : statuses_)
    if (slot.number > after) batch.statuses.push_back(slot.update);
  for (const auto& [number, warning] : warnings_)
    if (number > after) batch.warnings.push_back(warning);
  return batch;
}

std::optional<StatusBatch> ProgressLog::read(std::uint64_t& position, std::chrono::steady_clock::time_point not_before,
                                             const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, stop, [&] { return finished_ || last_ > position; });
  if (!finished_ && !stop.stop_requested()) changed_.wait_until(lock, stop, not_before, [&] { return finished_; });
  if (stop.stop_requested()) return std::nullopt;
  StatusBatch batch = collect(position);
  const bool at_end = finished_ && batch.empty();
  position = last_;
  read_.notify_all();
  if (at_end) return std::nullopt;
  return batch;
}

void ProgressLog::add_reader(const std::uint64_t* position) {
  const std::lock_guard lock(mutex_);
  readers_.insert(position);
}

void ProgressLog::remove_reader(const std::uint64_t* position) {
  const std::lock_guard lock(mutex_);
  readers_.erase(position);
  read_.notify_all();
}

bool ProgressLog::wait_drained(std::chrono::milliseconds timeout) const {
  std::unique_lock lock(mutex_);
  return read_.wait_for(lock, timeout, [&] {
    return std::all_of(readers_.begin(), readers_.end(),
                       [&](const std::uint64_t* position) { return finished_ && *position >= last_; });
  });
}

}  // namespace gantry::solver
