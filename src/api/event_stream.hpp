#pragma once

#include <string>

#include "api/versions.hpp"
#include "base/filters.hpp"
#include "events/event.hpp"

/// Events as GET /events sends them. Source: engine-api.md §3.7.
namespace gantry::api {

/// Does the event pass a client's filters? An unknown key matches everything.
bool event_matches(const events::Event& event, const Filters& filters);

/// One JSON object, without a line end. Clients older than API 1.52 also get `status`, `id` and `from`.
std::string render_event(const events::Event& event, ApiVersion version);

/// Is this kind of event known to clients of that version?
bool event_is_visible(const events::Event& event, ApiVersion version);

/// How the objects of a stream are set apart, as the client's Accept header asks.
struct EventFraming {
  std::string content_type;
  std::string prefix;  // of each object; it ends in a newline in any case
};
EventFraming choose_event_framing(const std::string& accept, ApiVersion version);

}  // namespace gantry::api
