#include "builder/status_messages.hpp"

#include <algorithm>

#include "base/text.hpp"

namespace gantry::builder {

namespace {

namespace control = moby::buildkit::v1;

constexpr std::size_t kMaxLogs = 1 << 20;  // bytes of output in a message
constexpr int kMaxItems = 2'000;           // vertices and statuses in a message

control::Vertex to_message(const solver::VertexUpdate& update) {
  control::Vertex out;
  out.set_digest(update.digest);
  for (const auto& input : update.inputs) out.add_inputs(input);
  out.set_name(replace_invalid_utf8(update.name));
  out.set_cached(update.cached);
  if (update.started) *out.mutable_started() = builder::to_message(*update.started);
  if (update.completed) *out.mutable_completed() = builder::to_message(*update.completed);
  out.set_error(replace_invalid_utf8(update.error));
  if (update.group) *out.mutable_progress_group() = *update.group;
  return out;
}

control::VertexStatus to_message(const solver::StatusUpdate& update) {
  control::VertexStatus out;
  out.set_id(replace_invalid_utf8(update.id));
  out.set_vertex(update.vertex);
  out.set_name(replace_invalid_utf8(update.name));
  out.set_current(update.current);
  out.set_total(update.total);
  *out.mutable_timestamp() = builder::to_message(update.timestamp);
  *out.mutable_started() = builder::to_message(update.started);
  if (update.completed) *out.mutable_completed() = builder::to_message(*update.completed);
  return out;
}

control::VertexWarning to_message(const solver::WarningUpdate& update) {
  control::VertexWarning out;
  out.set_vertex(update.vertex);
  out.set_level(update.warning.level);
  out.set_short_text(update.warning.short_text);
  for (const auto& line : update.warning.detail) out.add_detail(line);
  out.set_url(update.warning.url);
  if (update.warning.info) {
    *out.mutable_info() = *update.warning.info;
    out.mutable_info()->clear_definition();
  }
  for (const auto& range : update.warning.ranges) *out.add_ranges() = range;
  return out;
}

/// Fills messages one after the other.
class Messages {
 public:
  control::StatusResponse& next(std::size_t bytes) {
    if (out_.empty() || items_ == kMaxItems || (bytes_ != 0 && bytes_ + bytes > kMaxLogs)) {
      out_.emplace_back();
      items_ = 0;
      bytes_ = 0;
    }
    ++items_;
    bytes_ += bytes;
    return out_.back();
  }
  std::vector<control::StatusResponse> take() { return std::move(out_); }

 private:
  std::vector<control::StatusResponse> out_;
  int items_ = 0;
  std::size_t bytes_ = 0;
};

}  // namespace

pb::Timestamp to_message(Timestamp time) {
  const std::int64_t ns = time.time_since_epoch().count();
  pb::Timestamp out;
  out.set_seconds(ns / 1'000'000'000);
  out.set_nanos(static_cast<std::int32_t>(ns % 1'000'000'000));
  return out;
}

std::vector<control::StatusResponse> to_messages(const solver::StatusBatch& batch) {
  Messages messages;
  for (const auto& vertex : batch.vertices) *messages.next(vertex.error.size()).add_vertexes() = to_message(vertex);
  for (const auto& status : batch.statuses) *messages.next(0).add_statuses() = to_message(status);
  for (const auto& log : batch.logs) {
    std::string_view rest = log.bytes;
    do {
      const std::string_view piece = rest.substr(0, kMaxLogs);
      auto* out = messages.next(piece.size()).add_logs();
      out->set_vertex(log.vertex);
      *out->mutable_timestamp() = to_message(log.timestamp);
      out->set_stream(log.stream);
      out->set_msg(std::string(piece));
      rest.remove_prefix(piece.size());
    } while (!rest.empty());
  }
  for (const auto& warning : batch.warnings) {
    const std::size_t size = warning.warning.info ? warning.warning.info->data().size() : 0;
    *messages.next(size).add_warnings() = to_message(warning);
  }
  return messages.take();
}

control::UsageRecord to_message(const buildcache::UsageRecord& record) {
  control::UsageRecord out;
  out.set_id(record.id);
  out.set_is_mutable(record.is_mutable);
  out.set_in_use(record.in_use);
  out.set_size(record.size);
  *out.mutable_created_at() = to_message(record.created);
  if (record.last_used != Timestamp{}) *out.mutable_last_used_at() = to_message(record.last_used);
  out.set_usage_count(record.uses);
  out.set_description(replace_invalid_utf8(record.description));
  out.set_record_type(std::string(buildcache::record_type_name(record.type)));
  out.set_shared(record.shared);
  for (const auto& parent : record.parents) out.add_parents(parent);
  return out;
}

buildcache::PruneOptions to_options(const control::PruneRequest& request) {
  buildcache::PruneOptions out;
  out.filters.assign(request.filter().begin(), request.filter().end());
  out.all = request.all();
  out.keep_duration = std::chrono::nanoseconds(request.keep_duration());
  out.reserved_space = request.reserved_space();
  out.max_used_space = request.max_used_space();
  out.min_free_space = request.min_free_space();
  return out;
}

}  // namespace gantry::builder
