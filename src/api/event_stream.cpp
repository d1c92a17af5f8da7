#include "api/event_stream.hpp"

#include <boost/json.hpp>

#include "base/text.hpp"
#include "json/json.hpp"

namespace gantry::api {
namespace {

constexpr ApiVersion kNoLegacyFields{1, 52};
constexpr ApiVersion kImageCreateEvents{1, 46};

std::string attribute(const events::Event& event, const std::string& name) {
  const auto it = event.attributes.find(name);
  return it == event.attributes.end() ? std::string() : it->second;
}

/// `event=health_status` also means "health_status: healthy".
bool action_matches(const events::Event& event, const Filters& filters) {
  for (const char* family : {"health_status", "exec_create", "exec_start"})
    if (filters.values("event").contains(family)) return filters.prefix_match("event", event.action);
  return filters.exact_match("event", event.action);
}

/// "container=web" looks at the actor's ID and name, whatever the type of the event is.
bool actor_matches(const std::string& key, const events::Event& event, const Filters& filters) {
  return filters.prefix_match(key, event.actor_id) || filters.prefix_match(key, attribute(event, "name"));
}

/// "localhost:5000/a:tag" without the tag and without what everybody leaves out.
std::string strip_tag(const std::string& image) {
  std::string out = image.substr(0, image.find('@'));
  const std::size_t colon = out.rfind(':');
  if (colon != std::string::npos && out.find('/', colon) == std::string::npos) out.resize(colon);
  for (const char* implied : {"docker.io/library/", "docker.io/"})
    if (out.starts_with(implied)) return out.substr(std::string_view(implied).size());
  return out;
}

bool image_matches(const events::Event& event, const Filters& filters) {
  const std::string name = attribute(event, event.type == "image" ? "name" : "image");
  return filters.exact_match("image", event.actor_id) || filters.exact_match("image", name) ||
         filters.exact_match("image", strip_tag(event.actor_id)) || filters.exact_match("image", strip_tag(name));
}

}  // namespace

bool event_matches(const events::Event& event, const Filters& filters) {
  if (!action_matches(event, filters) || !filters.exact_match("type", event.type) ||
      !filters.exact_match("scope", event.scope) || !image_matches(event, filters) ||
      !filters.labels_match("label", event.attributes))
    return false;
  for (const char* key : {"daemon", "container", "plugin", "volume", "network", "node", "service", "secret", "config"})
    if (!actor_matches(key, event, filters)) return false;
  return true;
}

bool event_is_visible(const events::Event& event, ApiVersion version) {
  return version >= kImageCreateEvents || event.type != "image" || event.action != "create";
}

std::string render_event(const events::Event& event, ApiVersion version) {
  json::Object out;
  if (version < kNoLegacyFields && (event.type == "container" || event.type == "image")) {
    out["status"] = event.action;
    out["id"] = event.actor_id;
    if (event.type == "container") out["from"] = attribute(event, "image");
  }
  out["Type"] = event.type;
  out["Action"] = event.action;
  json::Object attributes;
  for (const auto& [name, value] : event.attributes) attributes[name] = value;
  json::Object actor;
  actor["ID"] = event.actor_id;
  actor["Attributes"] = std::move(attributes);
  out["Actor"] = std::move(actor);
  out["scope"] = event.scope;
  const std::int64_t nanoseconds = event.time.time_since_epoch().count();
  out["time"] = nanoseconds / 1'000'000'000;
  out["timeNano"] = nanoseconds;
  return json::render(out);
}

EventFraming choose_event_framing(const std::string& accept, ApiVersion version) {
  if (version < kNoLegacyFields) return {"application/json", ""};
  // Only these, and only in exactly these words; anything else gets the first.
  for (const std::string& word : split(accept, ',')) {
    const std::string_view type = trim(word);
    if (type == "application/json-seq") return {"application/json-seq", "\x1e"};
    if (type == "application/x-ndjson") return {"application/x-ndjson", ""};
    if (type == "application/jsonl") break;
  }
  return {"application/jsonl", ""};
}

}  // namespace gantry::api
