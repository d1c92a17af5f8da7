#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/filters.hpp"
#include "base/regex.hpp"
#include "engine/container.hpp"
#include "engine/container_store.hpp"
#include "engine/network_view.hpp"
#include "image/images.hpp"

namespace gantry::engine {

struct ListQuery {
  bool all = false;        // those that do not run too
  std::int64_t limit = 0;  // the newest so many, whatever they do; 0 or less: no limit
  Filters filters;
};

/// The containers that a `docker ps` shows, newest first. Answers from memory.
/// Throws invalid_argument with Docker's texts; not_found for an unknown container in `before` or `since`.
std::vector<ContainerPtr> select_containers(const ListQuery& query, const ContainerStore& store,
                                            const image::Images& images, NetworkView& networks);

/// Which containers a prune may take: `label`, `label!`, `until`. Throws invalid_argument for other keys.
std::function<bool(const Container&)> prune_filter(const Filters& filters);

/// The "80", "80/tcp" or "80-90/udp" of a port filter as "80/tcp" …; proto is tcp unless given.
/// Throws invalid_argument, naming the filter.
std::set<std::string> parse_port_filter(const std::string& key, const std::string& value);

}  // namespace gantry::engine
