#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "buildcache/snapshots.hpp"
#include "llb/definition.hpp"
#include "solver/memo.hpp"
#include "solver/operation.hpp"

namespace gantry::solver {

using Results = std::vector<buildcache::SnapshotPtr>;

/// A vertex in a job, and what is known about it so far.
struct Node {
  Node(llb::VertexPtr of, llb::Definition in) : vertex(std::move(of)), definition(std::move(in)) {}

  struct Input {
    std::shared_ptr<Node> node;  // nullptr: scratch
    std::size_t index = 0;
  };
  const llb::VertexPtr vertex;
  const llb::Definition definition;  // where it was seen first
  std::vector<Input> inputs;
  std::shared_ptr<Operation> operation;
  bool ignore_cache = false;

  Memo<CacheMap> map;

  /// What follows is set by JobGraph::name_all(), when the maps of the vertex and of all below it are known.
  /// The key by how the inputs came about; the content is not looked at. Empty: not yet.
  std::string definition_key;
  bool keyed = false;   // neither it nor what it stands on is a directory of a client, so that key means something
  bool looked = false;  // keyed, and nothing below it ignores the cache: what has that key may be used
  bool fresh = false;   // it must execute: it, or what it builds upon, ignores the cache

  /// The key with the content of the inputs of which only that counts.
  Memo<std::string> content_key;
  Memo<Results> results;

  const CacheDep& dep(std::size_t input) const;
};
using NodePtr = std::shared_ptr<Node>;

/// The vertices of a job, each once, however many graphs it came in.
class JobGraph {
 public:
  /// The node of the definition's result, and in `nodes` those of all its vertices, inputs before users. The
  /// definition has a result.
  NodePtr add(const llb::Definition& definition, const OperationFactory& factory, std::vector<NodePtr>& nodes);
  /// Sets the definition keys. The cache maps of all `nodes` are known.
  void name_all(const std::vector<NodePtr>& nodes);
  /// Forgets all, so that results are no longer held.
  void clear();

 private:
  std::mutex mutex_;
  std::map<std::string, NodePtr> nodes_;  // by digest
};

}  // namespace gantry::solver
