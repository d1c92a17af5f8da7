#include "image/progress.hpp"

#include <algorithm>

#include <boost/json.hpp>

#include "json/json.hpp"

namespace gantry::image {
namespace {

constexpr std::chrono::milliseconds kInterval{100};

std::string render(json::Object object) { return json::render(std::move(object)) + "\r\n"; }

}  // namespace

void Progress::push(Message message) {
  if (closed_) return;
  // What the client has not read yet about this layer's progress is out of date.
  if (!message.id.empty()) {
    const auto stale =
        std::find_if(queue_.begin(), queue_.end(), [&](const Message& m) { return m.is_update && m.id == message.id; });
    if (stale != queue_.end()) queue_.erase(stale);
  }
  queue_.push_back(std::move(message));
  changed_.notify();
}

void Progress::status(std::string text, std::string id) {
  json::Object object{{"status", text}};
  if (!id.empty()) {
    object.emplace("progressDetail", json::Object{});
    object.emplace("id", id);
  }
  last_update_.erase(id);
  push({std::move(id), false, render(std::move(object))});
}

void Progress::headline(std::string text, std::string id) {
  push({"", false, render({{"status", std::move(text)}, {"id", std::move(id)}})});
}

void Progress::update(std::string id, std::string text, std::int64_t current, std::int64_t total) {
  if (quiet_) return;
  const auto now = std::chrono::steady_clock::now();
  auto [last, first] = last_update_.try_emplace(id, now);
  if (!first) {
    if (now - last->second < kInterval && current != total) return;
    last->second = now;
  }
  json::Object detail{{"current", current}};
  if (total > 0) detail.emplace("total", total);
  push({id, true, render({{"status", text}, {"progressDetail", std::move(detail)}, {"id", id}})});
}

void Progress::stream(std::string text) { push({"", false, render({{"stream", std::move(text)}})}); }

void Progress::aux(std::string text) {
  push({"", false, render({{"progressDetail", json::Object{}}, {"aux", json::parse(text)}})});
}

void Progress::error(const std::string& text) {
  push({"", false, render({{"errorDetail", json::Object{{"message", text}}}, {"error", text}})});
}

void Progress::close() {
  closed_ = true;
  changed_.notify();
}

Task<std::optional<std::string>> Progress::next() {
  while (queue_.empty()) {
    if (closed_) co_return std::nullopt;
    co_await changed_.wait();
  }
  std::string text = std::move(queue_.front().text);
  queue_.pop_front();
  co_return std::move(text);
}

}  // namespace gantry::image
