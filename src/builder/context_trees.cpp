#include "builder/context_trees.hpp"

#include <memory>
#include <utility>

#include "base/error.hpp"

namespace gantry::builder {
namespace {

constexpr std::string_view kScheme = "gantry-context://";

/// Its users go by the content of what they take.
class ContextSource : public solver::Operation {
 public:
  explicit ContextSource(buildcache::SnapshotPtr tree) : tree_(std::move(tree)) {}
  solver::CacheMap cache_map(solver::OpContext&) override { return {.key = {}, .deps = {}, .never_cached = true}; }
  std::vector<buildcache::SnapshotPtr> execute(solver::OpContext&,
                                               const std::vector<buildcache::SnapshotPtr>&) override {
    return {tree_};
  }
  bool is_work() const override { return false; }

 private:
  buildcache::SnapshotPtr tree_;
};

}  // namespace

std::string ContextTrees::Entry::identifier() const { return std::string(kScheme) + id_; }

std::unique_ptr<ContextTrees::Entry> ContextTrees::add(buildcache::SnapshotPtr tree) {
  const std::lock_guard lock(mutex_);
  const std::string id = std::to_string(++last_);
  trees_.emplace(id, std::move(tree));
  return std::make_unique<Entry>(*this, id);
}

buildcache::SnapshotPtr ContextTrees::get(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  const auto it = trees_.find(id);
  if (it == trees_.end()) throw Error(Errc::not_found, "no such build context: " + id);
  return it->second;
}

void ContextTrees::remove(const std::string& id) {
  buildcache::SnapshotPtr gone;
  const std::lock_guard lock(mutex_);
  const auto it = trees_.find(id);
  if (it == trees_.end()) return;
  gone = std::move(it->second);
  trees_.erase(it);
}

solver::OperationFactory with_context_trees(solver::OperationFactory inner, ContextTrees& trees) {
  return [inner = std::move(inner), &trees](const llb::Vertex& vertex) -> std::unique_ptr<solver::Operation> {
    const std::string& identifier = vertex.op().source().identifier();
    if (!vertex.op().has_source() || !identifier.starts_with(kScheme)) return inner(vertex);
    return std::make_unique<ContextSource>(trees.get(identifier.substr(kScheme.size())));
  };
}

}  // namespace gantry::builder
