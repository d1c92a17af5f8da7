#include "builder/classic_stream.hpp"

#include <utility>

#include "base/text.hpp"
#include "json/json.hpp"

namespace gantry::builder {
namespace {

constexpr std::size_t kKeepAtMost = 1 << 20;

std::string stream_line(std::string_view text) {
  return json::render(json::Object{{"stream", replace_invalid_utf8(text)}});
}

}  // namespace

void ClassicStream::send(std::string line) {
  line += "\r\n";
  const std::lock_guard lock(mutex_);
  exchange_.write(line);
}

void ClassicStream::text(std::string_view text) {
  if (!quiet_) return send(stream_line(text));
  const std::lock_guard lock(mutex_);
  kept_ += stream_line(text) + "\r\n";
  if (kept_.size() > kKeepAtMost) kept_.erase(0, kept_.find('\n', kept_.size() - kKeepAtMost) + 1);
}

void ClassicStream::error_text(std::string_view text) { this->text("\x1b[91m" + std::string(text) + "\x1b[0m"); }

void ClassicStream::aux(const std::string& image_id) {
  if (quiet_) return;
  send(json::render(json::Object{{"aux", json::Object{{"ID", image_id}}}}));
}

void ClassicStream::pull_status(const std::string& id, const std::string& status, std::int64_t current,
                                std::int64_t total) {
  if (quiet_) return;
  json::Object line;
  line["status"] = status;
  if (current > 0 || total > 0) {
    json::Object detail;
    detail["current"] = current;
    if (total > 0) detail["total"] = total;
    line["progressDetail"] = std::move(detail);
  }
  if (!id.empty()) line["id"] = id;
  send(json::render(line));
}

void ClassicStream::result(const std::string& image_id) { send(stream_line(image_id + "\n")); }

void ClassicStream::failure(const std::string& message, int code) {
  {
    const std::lock_guard lock(mutex_);
    if (!kept_.empty()) exchange_.write(std::exchange(kept_, {}));
  }
  const std::string text = replace_invalid_utf8(message);
  json::Object detail;
  if (code != 0) detail["code"] = code;
  detail["message"] = text;
  send(json::render(json::Object{{"errorDetail", std::move(detail)}, {"error", text}}));
}

}  // namespace gantry::builder
