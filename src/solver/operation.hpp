#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "buildcache/snapshots.hpp"
#include "llb/definition.hpp"
#include "solver/progress.hpp"

namespace gantry::solver {

/// The client sessions that a step may ask for files, secrets and credentials: those of every build that waits for it.
/// Grows and shrinks while the step runs. Copies are the same group. Thread-safe.
class SessionGroup {
 public:
  SessionGroup() : state_(std::make_shared<State>()) {}
  explicit SessionGroup(std::vector<std::string> ids) : SessionGroup() { state_->ids = std::move(ids); }
  /// Those that joined first come first. May be empty.
  std::vector<std::string> ids() const {
    const std::lock_guard lock(state_->mutex);
    return state_->ids;
  }
  void add(const std::string& id);
  /// Takes one mention of the id away.
  void remove(const std::string& id);

 private:
  struct State {
    mutable std::mutex mutex;
    std::vector<std::string> ids;
  };
  std::shared_ptr<State> state_;
};

/// What a build allows its steps: "network.host", "security.insecure".
using Entitlements = std::set<std::string>;

struct OpContext {
  Progress& progress;
  /// Asked to stop: nobody waits for this step any more. End within a second by throwing Error(cancelled).
  std::stop_token stop;
  SessionGroup sessions;
  Entitlements entitlements;
};

/// A part of an input's tree.
struct Selector {
  std::string path{};     // in the tree; "" or "/" is all of it
  bool wildcard = false;  // the path is a pattern of Go's filepath.Match
  /// A symbolic link at the end of the path stands for what it leads to. (Others always do.)
  bool follow_links = true;
  /// Of a directory only what is in it: its own mode and owner do not count.
  bool contents_only = false;
  std::vector<std::string> include{}, exclude{};  // patterns of .dockerignore, relative to the selected
};

/// What of an input makes a result another one.
struct CacheDep {
  /// Only the content of the selected parts, not how it came about.
  bool by_content = false;
  std::vector<Selector> selectors;  // none: the whole tree
};

struct CacheMap {
  /// Everything of the operation itself that makes its result another one, in any bytes: they are hashed with the
  /// inputs. Empty: nobody can tell (a directory of the client), so users of the result go by its content.
  std::string key;
  /// One for each input of the vertex, in order; missing ones are the default.
  std::vector<CacheDep> deps;
  /// The results are not kept for later builds.
  bool never_cached = false;
};

/// What a vertex does. One object per vertex and build; used by one thread at a time, and alive while it executes even
/// if its own build has gone. Both verbs block and throw Error.
class Operation {
 public:
  virtual ~Operation() = default;
  /// Called once (again if it was cancelled). Sources resolve here: an image's digest, a commit, an ETag.
  virtual CacheMap cache_map(OpContext& context) = 0;
  /// The results, one for each output of the vertex; nullptr is scratch. `inputs` are as the vertex' inputs.
  virtual std::vector<buildcache::SnapshotPtr> execute(OpContext& context,
                                                       const std::vector<buildcache::SnapshotPtr>& inputs) = 0;
  /// Whether an execution counts towards the limit of parallel steps. Not for what waits for the network or the client.
  virtual bool is_work() const { return true; }
};

/// Makes the operation of a vertex; throws for one that nobody can execute. Provided by buildops.
using OperationFactory = std::function<std::unique_ptr<Operation>(const llb::Vertex&)>;

}  // namespace gantry::solver
