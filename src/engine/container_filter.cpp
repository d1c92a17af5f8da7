#include "engine/container_filter.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "base/text.hpp"
#include "image/prune_filter.hpp"

namespace gantry::engine {
namespace {

const std::set<std::string> kKnown = {"ancestor", "before",  "exited",    "expose", "health",
                                      "id",       "is-task", "isolation", "label",  "name",
                                      "network",  "publish", "since",     "status", "volume"};

[[noreturn]] void refuse(const std::string& key, const std::string& value, const std::string& why = {}) {
  throw Error(Errc::invalid_argument, "invalid filter '" + key + "=" + value + "'" + (why.empty() ? "" : ": " + why));
}

bool older(const Container& a, const Container& b) {
  return a.created != b.created ? a.created < b.created : a.id > b.id;
}

/// The values of all filters in a form that is quick to compare with.
class Selection {
 public:
  Selection(const ListQuery& query, const ContainerStore& store, const image::Images& images, NetworkView& networks);

  bool passes(const Container& container);
  bool wants_all() const noexcept { return all_; }

 private:
  void read_states(const Filters& filters);
  void read_ancestors(const Filters& filters, const image::Images& images);
  bool passes_identity(const Container& container) const;
  bool passes_state(const Container& container) const;
  bool passes_ancestor(const Container& container);
  bool passes_network(const Container& container);
  bool passes_volume(const Container& container) const;
  bool passes_ports(const Container& container) const;

  const Filters& filters_;
  const image::Images& images_;
  NetworkView& networks_;
  bool all_ = false;
  ContainerPtr before_;
  ContainerPtr since_;
  std::set<std::int64_t> exit_codes_;
  std::set<std::string> expose_;
  std::set<std::string> publish_;
  std::vector<Regex> names_;
  std::vector<image::ImagePtr> ancestors_;
  std::map<std::string, bool> by_image_;  // image id: it descends from an ancestor
};

Selection::Selection(const ListQuery& query, const ContainerStore& store, const image::Images& images,
                     NetworkView& networks)
    : filters_(query.filters), images_(images), networks_(networks), all_(query.all || query.limit > 0) {
  filters_.require_known(kKnown);
  read_states(filters_);
  for (const std::string& reference : filters_.values("before")) before_ = store.get(reference);
  for (const std::string& reference : filters_.values("since")) since_ = store.get(reference);
  for (const std::string& value : filters_.values("expose")) expose_.merge(parse_port_filter("expose", value));
  for (const std::string& value : filters_.values("publish")) publish_.merge(parse_port_filter("publish", value));
  for (const std::string& value : filters_.values("name"))
    if (auto regex = Regex::compile(value)) names_.push_back(std::move(*regex));
  read_ancestors(filters_, images);
}

void Selection::read_states(const Filters& filters) {
  static const std::set<std::string> kStates = {"created", "restarting", "running", "removing",
                                                "paused",  "exited",     "dead"};
  static const std::set<std::string> kHealth = {"none", "starting", "healthy", "unhealthy"};
  for (const std::string& value : filters.values("status")) {
    if (!kStates.contains(value)) refuse("status", value);
    all_ = true;
  }
  for (const std::string& value : filters.values("health"))
    if (!kHealth.contains(value)) refuse("health", value);
  for (const std::string& value : filters.values("exited")) {
    const auto code = parse_int(value);
    if (!code) refuse("exited", value, "it is not a number");
    exit_codes_.insert(*code);
  }
  (void)filters.flag("is-task");
}

void Selection::read_ancestors(const Filters& filters, const image::Images& images) {
  for (const std::string& value : filters.values("ancestor")) {
    try {
      if (image::ImagePtr image = images.find(value)) ancestors_.push_back(std::move(image));
    } catch (const Error&) {
      // Not a reference, or ambiguous: an ancestor that nothing descends from.
    }
  }
}

bool Selection::passes(const Container& container) {
  if (!all_ && !container.state.running) return false;
  return passes_identity(container) && passes_state(container) && passes_ports(container) && passes_volume(container) &&
         passes_ancestor(container) && passes_network(container);
}

bool Selection::passes_identity(const Container& container) const {
  if (before_ && !older(container, *before_)) return false;
  if (since_ && !older(*since_, container)) return false;
  if (!filters_.prefix_match("id", container.id.str())) return false;
  if (!filters_.labels_match("label", container.labels())) return false;
  if (filters_.flag("is-task").value_or(false)) return false;
  if (!filters_.has("name")) return true;
  const std::string slashed = "/" + container.name;
  const auto& wanted = filters_.values("name");
  if (wanted.contains(container.name) || wanted.contains(slashed)) return true;
  return std::any_of(names_.begin(), names_.end(),
                     [&](const Regex& regex) { return regex.found_in(slashed) || regex.found_in(container.name); });
}

bool Selection::passes_state(const Container& container) const {
  if (!filters_.exact_match("status", status_name(container.status()))) return false;
  if (!filters_.exact_match("health", container.health_text())) return false;
  if (exit_codes_.empty()) return true;
  return !container.state.running && container.state.started != Timestamp{} &&
         exit_codes_.contains(container.state.exit_code);
}

bool Selection::passes_ancestor(const Container& container) {
  if (!filters_.has("ancestor")) return true;
  const auto [place, added] = by_image_.try_emplace(container.image_id, false);
  if (!added) return place->second;
  const image::ImagePtr image = ancestors_.empty() ? nullptr : images_.find(container.image_id);
  for (const image::ImagePtr& ancestor : ancestors_) {
    const bool same = ancestor->id == container.image_id;
    const bool below =
        image && image->chain_ids.size() > ancestor->chain_ids.size() &&
        std::find(image->chain_ids.begin(), image->chain_ids.end(), ancestor->top_chain()) != image->chain_ids.end();
    if (same || below) place->second = true;
  }
  return place->second;
}

bool Selection::passes_network(const Container& container) {
  const auto& wanted = filters_.values("network");
  if (wanted.empty()) return true;
  for (const auto& [name, endpoint] : networks_.endpoints(container)) {
    if (wanted.contains(name)) return true;
    if (!endpoint.NetworkID.empty() && filters_.prefix_match("network", endpoint.NetworkID)) return true;
  }
  return false;
}

bool Selection::passes_volume(const Container& container) const {
  const auto& wanted = filters_.values("volume");
  if (wanted.empty()) return true;
  return std::any_of(container.mounts.begin(), container.mounts.end(), [&](const volume::MountPoint& mount) {
    return wanted.contains(mount.name.empty() ? mount.source : mount.name) || wanted.contains(mount.destination);
  });
}

bool Selection::passes_ports(const Container& container) const {
  if (!expose_.empty()) {
    const auto& exposed = container.config.ExposedPorts;
    if (!exposed ||
        std::none_of(exposed->begin(), exposed->end(), [&](const auto& port) { return expose_.contains(port.first); }))
      return false;
  }
  if (publish_.empty()) return true;
  const auto& published = container.host.PortBindings;
  return published && std::any_of(published->begin(), published->end(),
                                  [&](const auto& port) { return publish_.contains(port.first); });
}

}  // namespace

std::vector<ContainerPtr> select_containers(const ListQuery& query, const ContainerStore& store,
                                            const image::Images& images, NetworkView& networks) {
  Selection selection(query, store, images, networks);
  std::vector<ContainerPtr> selected;
  for (ContainerPtr& container : store.list()) {
    if (query.limit > 0 && selected.size() >= static_cast<std::size_t>(query.limit)) break;
    if (selection.passes(*container)) selected.push_back(std::move(container));
  }
  return selected;
}

std::function<bool(const Container&)> prune_filter(const Filters& filters) {
  filters.require_known({"label", "label!", "until"});
  const std::optional<Timestamp> until = image::read_until(filters);
  return [filters, until](const Container& container) {
    if (until && container.created > *until) return false;
    if (!filters.labels_match("label", container.labels())) return false;
    return !filters.has("label!") || !filters.labels_match("label!", container.labels());
  };
}

std::set<std::string> parse_port_filter(const std::string& key, const std::string& value) {
  const auto [range, given_proto] = split_once(value, '/');
  const std::string proto = given_proto.empty() ? "tcp" : to_lower(given_proto);
  const auto [first_text, last_text] = split_once(range, '-');
  const auto first = parse_int(first_text);
  const auto last = last_text.empty() ? first : parse_int(last_text);
  const bool known_proto = proto == "tcp" || proto == "udp" || proto == "sctp";
  if (!first || !last || *first < 0 || *last < *first || *last > 65535 || !known_proto) refuse(key, value);
  std::set<std::string> ports;
  for (std::int64_t port = *first; port <= *last; ++port) ports.insert(std::to_string(port) + "/" + proto);
  return ports;
}

}  // namespace gantry::engine
