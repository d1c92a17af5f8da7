#include "solver/evaluation.hpp"

#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "solver/checksum.hpp"
#include "solver/keys.hpp"
#include "solver/threads.hpp"

namespace gantry::solver {
namespace {

std::string result_key(const std::string& key, std::size_t output) { return fmt::format("{}#{}", key, output); }

}  // namespace

void store_results(buildcache::CacheIndex& index, const std::string& key, const Results& results) {
  for (std::size_t i = 0; i < results.size(); ++i) index.store(result_key(key, i), results[i]);
}

std::optional<Results> find_results(buildcache::CacheIndex& index, const std::string& key, std::int64_t outputs) {
  Results out;
  for (std::int64_t i = 0; i < outputs; ++i) {
    auto found = index.find(result_key(key, static_cast<std::size_t>(i)));
    if (!found) return std::nullopt;
    out.push_back(std::move(*found));
  }
  return out;
}

/// Errors of the body become the step's.
template <class Body>
auto Evaluation::in_step(const NodePtr& node, const std::stop_token& stop, Body&& body) {
  try {
    return body();
  } catch (const SolveError&) {
    throw;
  } catch (const Error& e) {
    if (stop.stop_requested()) throw Error(Errc::cancelled, "context canceled");
    throw SolveError(e, node->vertex->digest(), node->definition);
  }
}

CacheMap Evaluation::ask_map(const NodePtr& node, const std::stop_token& stop) {
  const std::string& digest = node->vertex->digest();
  const auto progress = job_.progress_of(digest);
  OpContext context{*progress, stop, job_.sessions(), job_.options().entitlements};
  // Of a source this is half of the work: it is resolved.
  const bool is_shown = node->inputs.empty();
  if (is_shown) job_.log().start(digest);
  try {
    CacheMap map = node->operation->cache_map(context);
    if (is_shown) job_.log().complete(digest);
    return map;
  } catch (const Error& e) {
    if (!is_shown) job_.log().start(digest);
    job_.log().complete(digest, stop.stop_requested() ? "context canceled" : e.message());
    throw;
  }
}

void Evaluation::map_all(const std::vector<NodePtr>& nodes, const std::stop_token& stop) {
  std::vector<Task> sources;
  const auto ask = [this](const NodePtr& node, const std::stop_token& token) {
    node->map.get(token, [&] { return in_step(node, token, [&] { return ask_map(node, token); }); });
  };
  for (const NodePtr& node : nodes) {
    if (node->map.known()) continue;
    if (node->inputs.empty()) sources.push_back([&ask, node](const std::stop_token& token) { ask(node, token); });
    else ask(node, stop);
  }
  run_all(std::move(sources), stop);
}

bool Evaluation::goes_by_content(const NodePtr& node, std::size_t input) const {
  const NodePtr& from = node->inputs[input].node;
  return from && (node->dep(input).by_content || from->map.value().key.empty());
}

std::string Evaluation::input_part(const NodePtr& node, std::size_t input, const std::stop_token& stop) {
  const Node::Input& from = node->inputs[input];
  if (!from.node) return "scratch";
  if (!goes_by_content(node, input)) return fmt::format("is {}#{}", content_key(from.node, stop), from.index);
  const buildcache::SnapshotPtr snapshot = evaluate(from.node, stop).at(from.index);
  std::vector<Selector> selectors = node->dep(input).by_content ? node->dep(input).selectors : std::vector<Selector>{};
  if (selectors.empty()) selectors.emplace_back();
  std::string part = "has";
  for (const Selector& selector : selectors) {
    try {
      part += ' ' + checksum(cache_, snapshot, selector, stop);
    } catch (Error& e) {
      if (stop.stop_requested()) throw;
      e.prefix(fmt::format("failed to calculate checksum of ref {}::{}", options_.worker_id,
                           snapshot ? snapshot->id() : "scratch"));
      job_.log().start(node->vertex->digest());
      job_.log().complete(node->vertex->digest(), e.message());
      e.prefix("failed to compute cache key");
      throw;
    }
  }
  return part;
}

std::string Evaluation::make_content_key(const NodePtr& node, const std::stop_token& stop) {
  if (node->looked) {
    // Known from an earlier build, and what it made is still there: the inputs need not be.
    const auto known = cache_.index().find_link(node->definition_key);
    if (known && find(node, *known)) return *known;
  }
  std::vector<std::string> parts(node->inputs.size());
  std::vector<Task> tasks;
  for (std::size_t i = 0; i < parts.size(); ++i)
    tasks.push_back([&, i](const std::stop_token& token) { parts[i] = input_part(node, i, token); });
  run_all(std::move(tasks), stop);
  return KeyHash().add("content").add(node->map.value().key).add(parts).key();
}

const std::string& Evaluation::content_key(const NodePtr& node, const std::stop_token& stop) {
  return node->content_key.get(stop, [&] { return in_step(node, stop, [&] { return make_content_key(node, stop); }); });
}

std::optional<Results> Evaluation::find(const NodePtr& node, const std::string& key) {
  return find_results(cache_.index(), key, node->vertex->outputs());
}

void Evaluation::remember(const NodePtr& node, const std::string& key, const Results& results) {
  if (!node->keyed) return;
  store_results(cache_.index(), node->definition_key, results);
  cache_.index().link(node->definition_key, key);
}

void Evaluation::show_cached(const NodePtr& node) {
  job_.log().start(node->vertex->digest(), true);
  job_.log().complete(node->vertex->digest());
}

/// Makes the content key, for which inputs of which only the content counts are made, and looks. At the same time it
/// makes the inputs that the step builds upon, unless the cache has them: if it has not, then not the step either.
std::optional<Results> Evaluation::find_with_content(const NodePtr& node, const std::stop_token& stop) {
  std::optional<Results> found;
  LinkedStop ahead(stop);
  std::vector<Task> tasks;
  tasks.push_back([&](const std::stop_token& token) {
    const std::string& key = content_key(node, token);
    if (!node->fresh) found = find(node, key);
    if (found) ahead.request_stop();
  });
  bool waits_for_content = false;
  for (std::size_t i = 0; i < node->inputs.size(); ++i)
    waits_for_content |= goes_by_content(node, i) && !node->inputs[i].node->results.known();
  for (std::size_t i = 0; waits_for_content && i < node->inputs.size(); ++i) {
    const NodePtr& from = node->inputs[i].node;
    if (!from || goes_by_content(node, i) || from->map.value().never_cached) continue;
    // A source may be large, and is not needed if the content is known: then the definition should be new.
    if (from->inputs.empty() && !node->looked && !node->fresh) continue;
    tasks.push_back([&, from](const std::stop_token& token) {
      const LinkedStop both(token, ahead.token());
      try {
        evaluate(from, both.token());
      } catch (const Error&) {
        if (!ahead.token().stop_requested()) throw;  // else it is not needed after all
      }
    });
  }
  run_all(std::move(tasks), stop);
  return found;
}

Results Evaluation::make(const NodePtr& node, const std::stop_token& stop) {
  Results inputs(node->inputs.size());
  std::vector<Task> tasks;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!node->inputs[i].node) continue;
    tasks.push_back([&, i](const std::stop_token& token) {
      inputs[i] = evaluate(node->inputs[i].node, token).at(node->inputs[i].index);
    });
  }
  run_all(std::move(tasks), stop);
  const CacheMap& map = node->map.value();
  const bool is_kept = !map.never_cached && !map.key.empty();
  const std::string key = is_kept ? content_key(node, stop) : std::string();
  Results results = executions_.run(job_, node, key, !node->fresh, std::move(inputs), stop);
  if (is_kept) remember(node, key, results);
  return results;
}

Results Evaluation::find_or_make(const NodePtr& node, const std::stop_token& stop) {
  const CacheMap& map = node->map.value();
  if (!map.never_cached && !map.key.empty()) {
    std::optional<Results> found;
    if (node->looked) found = find(node, node->definition_key);
    if (!found) {
      found = find_with_content(node, stop);
      if (found) remember(node, content_key(node, stop), *found);
    }
    if (found) {
      show_cached(node);
      return std::move(*found);
    }
  }
  return make(node, stop);
}

const Results& Evaluation::evaluate(const NodePtr& node, const std::stop_token& stop) {
  return node->results.get(stop, [&] { return in_step(node, stop, [&] { return find_or_make(node, stop); }); });
}

}  // namespace gantry::solver
