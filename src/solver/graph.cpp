#include "solver/graph.hpp"

#include <utility>

#include "solver/keys.hpp"

namespace gantry::solver {
namespace {

/// Part of every key: another meaning of keys needs another number.
constexpr std::string_view kKeyVersion = "gantry-1";

}  // namespace

KeyHash& KeyHash::add(std::string_view part) {
  hash_.update(std::to_string(part.size()));
  hash_.update(":");
  hash_.update(part);
  return *this;
}

KeyHash& KeyHash::add(const std::vector<std::string>& parts) {
  add(parts.size());
  for (const std::string& part : parts) add(part);
  return *this;
}

std::string selector_key(const Selector& selector) {
  KeyHash hash;
  hash.add(selector.path).add(selector.wildcard).add(selector.follow_links).add(selector.contents_only);
  return hash.add(selector.include).add(selector.exclude).key();
}

const CacheDep& Node::dep(std::size_t input) const {
  static const CacheDep kDefault;
  const CacheMap& known = map.value();
  return input < known.deps.size() ? known.deps[input] : kDefault;
}

NodePtr JobGraph::add(const llb::Definition& definition, const OperationFactory& factory, std::vector<NodePtr>& nodes) {
  const std::lock_guard lock(mutex_);
  for (const llb::VertexPtr& vertex : definition.vertices()) {
    NodePtr& node = nodes_[vertex->digest()];
    if (!node) {
      auto made = std::make_shared<Node>(vertex, definition);
      for (const llb::VertexOutput& input : vertex->inputs()) {
        const NodePtr from = input.vertex ? nodes_.at(input.vertex->digest()) : nullptr;
        made->inputs.push_back({from, static_cast<std::size_t>(input.index)});
      }
      try {
        made->operation = factory(*vertex);
      } catch (const Error& e) {
        nodes_.erase(vertex->digest());
        throw SolveError(e, vertex->digest(), definition);
      }
      node = std::move(made);
    }
    // Another graph of the job may want it anew; once it is known that comes too late.
    if (vertex->ignore_cache() && node->definition_key.empty()) node->ignore_cache = true;
    nodes.push_back(node);
  }
  return nodes_.at(definition.head().vertex->digest());
}

void JobGraph::clear() {
  std::map<std::string, NodePtr> gone;  // ends without the mutex
  const std::lock_guard lock(mutex_);
  gone.swap(nodes_);
}

void JobGraph::name_all(const std::vector<NodePtr>& nodes) {
  const std::lock_guard lock(mutex_);
  for (const NodePtr& node : nodes) {
    if (!node->definition_key.empty()) continue;
    const CacheMap& map = node->map.value();
    KeyHash hash;
    hash.add(kKeyVersion).add(map.key).add(node->inputs.size());
    node->keyed = !map.key.empty();
    node->fresh = node->ignore_cache;
    node->looked = node->keyed && !node->ignore_cache;
    for (std::size_t i = 0; i < node->inputs.size(); ++i) {
      const Node::Input& input = node->inputs[i];
      const CacheDep& dep = node->dep(i);
      if (!input.node) {
        hash.add("scratch");
        continue;
      }
      node->keyed = node->keyed && input.node->keyed;
      node->looked = node->looked && input.node->looked;
      if (!dep.by_content && input.node->fresh) node->fresh = true;
      hash.add(dep.by_content ? "made" : "is").add(input.node->definition_key).add(input.index);
      if (!dep.by_content) continue;
      for (const Selector& selector : dep.selectors) hash.add(selector_key(selector));
    }
    node->definition_key = hash.key();
  }
}

}  // namespace gantry::solver
