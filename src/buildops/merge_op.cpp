#include "buildops/merge_op.hpp"

#include <algorithm>

#include <fcntl.h>

#include "base/error.hpp"
#include "buildcache/snapshots.hpp"
#include "buildops/tree_delta.hpp"
#include "sys/file.hpp"

namespace gantry::buildops {
namespace {

using buildcache::SnapshotPtr;

std::function<void()> stop_check(const std::stop_token& stop) {
  return [stop] {
    if (stop.stop_requested()) throw Error(Errc::cancelled, "context canceled");
  };
}

SnapshotPtr input_at(const std::vector<SnapshotPtr>& inputs, std::int64_t index) {
  return index < 0 ? nullptr : inputs.at(static_cast<std::size_t>(index));
}

/// The layers of a tree, the lowest first.
std::vector<SnapshotPtr> layers_of(SnapshotPtr snapshot) {
  std::vector<SnapshotPtr> layers;
  for (; snapshot; snapshot = snapshot->parent()) layers.push_back(snapshot);
  std::ranges::reverse(layers);
  return layers;
}

class MergeOperation final : public solver::Operation {
 public:
  MergeOperation(const Services& services, const llb::Vertex& vertex) : services_(services), vertex_(vertex) {}

  solver::CacheMap cache_map(solver::OpContext&) override {
    solver::CacheMap map;
    map.key = "merge.v1\n" + vertex_.op().merge().SerializeAsString();
    return map;
  }

  std::vector<SnapshotPtr> execute(solver::OpContext& context, const std::vector<SnapshotPtr>& inputs) override {
    SnapshotPtr result;
    for (const pb::MergeInput& merged : vertex_.op().merge().inputs()) {
      const SnapshotPtr next = input_at(inputs, merged.input());
      if (!result) result = next;
      else if (next) result = put_over(result, next, context.stop);
    }
    return {result};
  }

 private:
  SnapshotPtr put_over(const SnapshotPtr& below, const SnapshotPtr& above, const std::stop_token& stop) const {
    auto work = services_.snapshots.create(below, buildcache::RecordType::regular, vertex_.name());
    {
      const sys::Fd root = sys::open_file(work->mount(), O_RDONLY | O_DIRECTORY);
      const auto view = services_.snapshots.view(above);  // keeps the layers' directories where they are
      for (const SnapshotPtr& layer : layers_of(above))
        apply_layer(sys::open_file(layer->directory(), O_RDONLY | O_DIRECTORY).get(), root.get(), stop_check(stop));
    }
    return work->commit();
  }

  const Services& services_;
  const llb::Vertex vertex_;
};

class DiffOperation final : public solver::Operation {
 public:
  DiffOperation(const Services& services, const llb::Vertex& vertex) : services_(services), vertex_(vertex) {}

  solver::CacheMap cache_map(solver::OpContext&) override {
    solver::CacheMap map;
    map.key = "diff.v1\n" + vertex_.op().diff().SerializeAsString();
    return map;
  }

  std::vector<SnapshotPtr> execute(solver::OpContext& context, const std::vector<SnapshotPtr>& inputs) override {
    const SnapshotPtr lower = input_at(inputs, vertex_.op().diff().lower().input());
    const SnapshotPtr upper = input_at(inputs, vertex_.op().diff().upper().input());
    if (!lower || lower == upper) return {lower ? nullptr : upper};
    const auto lower_view = services_.snapshots.view(lower);
    const auto upper_view = services_.snapshots.view(upper);
    auto work = services_.snapshots.create(nullptr, buildcache::RecordType::regular, vertex_.name());
    // Into the layer itself: a mounted overlay does not take whiteouts.
    write_difference(sys::open_file(lower_view->path(), O_RDONLY | O_DIRECTORY).get(),
                     sys::open_file(upper_view->path(), O_RDONLY | O_DIRECTORY).get(),
                     sys::open_file(work->upper(), O_RDONLY | O_DIRECTORY).get(), stop_check(context.stop));
    return {work->commit()};
  }

 private:
  const Services& services_;
  const llb::Vertex vertex_;
};

}  // namespace

std::unique_ptr<solver::Operation> make_merge_operation(const Services& services, const llb::Vertex& vertex) {
  return std::make_unique<MergeOperation>(services, vertex);
}

std::unique_ptr<solver::Operation> make_diff_operation(const Services& services, const llb::Vertex& vertex) {
  return std::make_unique<DiffOperation>(services, vertex);
}

}  // namespace gantry::buildops
