#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "buildcache/test_support.hpp"
#include "llb/graph.hpp"
#include "solver/solver.hpp"

/// For the tests of this module: steps that do what a test says.
namespace gantry::solver::test {

using buildcache::SnapshotPtr;
using buildcache::test::error_of;
using Results = std::vector<SnapshotPtr>;

/// What the steps of one name do.
struct Behaviour {
  std::function<CacheMap(OpContext&)> map;
  std::function<Results(OpContext&, const Results&)> execute;
  bool is_work = true;
};

class FakeOperation final : public Operation {
 public:
  FakeOperation(Behaviour behaviour, std::atomic<int>& runs) : behaviour_(std::move(behaviour)), runs_(runs) {}
  CacheMap cache_map(OpContext& context) override { return behaviour_.map(context); }
  Results execute(OpContext& context, const Results& inputs) override {
    ++runs_;
    return behaviour_.execute(context, inputs);
  }
  bool is_work() const override { return behaviour_.is_work; }

 private:
  const Behaviour behaviour_;
  std::atomic<int>& runs_;
};

/// A count that threads wait for.
class Gate {
 public:
  void pass() {
    const std::lock_guard lock(mutex_);
    ++count_;
    changed_.notify_all();
  }
  /// False if that takes half a minute, or is stopped.
  bool wait(int count, std::stop_token stop = {}) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, stop, std::chrono::seconds(30), [&] { return count_ >= count; });
  }
  int count() {
    const std::lock_guard lock(mutex_);
    return count_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable_any changed_;
  int count_ = 0;
};

class SolverTest : public buildcache::test::CacheTest {
 protected:
  SolverTest() { start({}); }
  ~SolverTest() override { solver_.reset(); }

  void start(SolverOptions options) {
    solver_.reset();
    solver_.emplace(*cache_, [this](const llb::Vertex& vertex) { return make_operation(vertex); }, std::move(options));
  }

  /// A graph's step of this name on these inputs, and what it does. Steps of the same name are the same.
  llb::Output step(const std::string& name, const std::vector<llb::Output>& inputs, Behaviour behaviour,
                   bool ignore_cache = false) {
    behaviours_[name] = std::move(behaviour);
    pb::Op op;
    op.mutable_exec()->mutable_meta()->add_args(name);
    int number = 0;
    for (const llb::Output& input : inputs) {
      auto* mount = op.mutable_exec()->add_mounts();
      mount->set_dest(number == 0 ? "/" : "/" + std::to_string(number));
      mount->set_input(number++);
      mount->set_output(number == 1 ? 0 : -1);
      auto* in = op.add_inputs();
      in->set_digest(input.digest);
      in->set_index(input.index);
    }
    if (inputs.empty()) op.mutable_source()->set_identifier("fake://" + name);
    pb::OpMetadata metadata;
    metadata.set_ignore_cache(ignore_cache);
    (*metadata.mutable_description())["llb.customname"] = name;
    return graph_.add(op, metadata, {graph_.add_source("Dockerfile", "FROM x\nRUN y\n", "Dockerfile"), 2, 2});
  }

  /// Adds a file to the first input's tree.
  Behaviour writes(const std::string& file, const std::string& text, std::string key = {}) {
    if (key.empty()) key = "write " + file + " " + text;
    return {[key](OpContext&) { return CacheMap{key, {}, false}; },
            [this, file, text](OpContext&, const Results& inputs) {
              return Results{make(inputs.empty() ? nullptr : inputs[0], file, text)};
            }};
  }
  /// As COPY --from: the second input's `path` becomes a file of the first's tree.
  Behaviour copies(const std::string& path) {
    return {[path](OpContext&) { return CacheMap{"copy " + path, {{}, {true, {Selector{.path = path}}}}, false}; },
            [this, path](OpContext&, const Results& inputs) {
              return Results{make(inputs[0], "copied", read(inputs[1], path))};
            }};
  }
  /// A directory of the client with this file: nobody knows its content before it is there.
  Behaviour client(const std::string& file, const std::string& text, mode_t mode = 0644) {
    return {[](OpContext&) { return CacheMap{"", {}, true}; },
            [this, file, text, mode](OpContext&, const Results&) {
              auto local = cache_->mutables().acquire({.key = "local",
                                                       .type = buildcache::RecordType::source_local,
                                                       .sharing = buildcache::Sharing::private_copy},
                                                      {});
              sys::remove_tree(local->path() / file);
              write(local->path() / file, text, mode);
              local->mark_changed();
              return Results{local->freeze()};
            },
            false};
  }

  llb::Definition definition(const llb::Output& head) { return llb::Definition::parse(graph_.definition(head)); }
  JobPtr job(JobOptions options = {}) {
    return solver_->create_job("job" + std::to_string(++jobs_), std::move(options));
  }
  SnapshotPtr solve(const llb::Output& head) {
    last_ = job();
    return solver_->solve(last_, definition(head));
  }
  int runs(const std::string& name) { return runs_[name]; }

  /// What the job told, up to now.
  StatusBatch told(const JobPtr& of) {
    of->finish();
    const auto reader = of->read(std::chrono::milliseconds(0));
    StatusBatch all;
    while (auto batch = reader->next({})) {
      std::move(batch->vertices.begin(), batch->vertices.end(), std::back_inserter(all.vertices));
      std::move(batch->logs.begin(), batch->logs.end(), std::back_inserter(all.logs));
      std::move(batch->statuses.begin(), batch->statuses.end(), std::back_inserter(all.statuses));
      std::move(batch->warnings.begin(), batch->warnings.end(), std::back_inserter(all.warnings));
    }
    return all;
  }
  /// The last state of each vertex by name.
  static std::map<std::string, VertexUpdate> by_name(const StatusBatch& batch) {
    std::map<std::string, VertexUpdate> out;
    for (const VertexUpdate& vertex : batch.vertices) out[vertex.name] = vertex;
    return out;
  }
  static std::string log_text(const StatusBatch& batch) {
    std::string out;
    for (const LogUpdate& log : batch.logs) out += log.bytes;
    return out;
  }

  std::unique_ptr<Operation> make_operation(const llb::Vertex& vertex) {
    const std::lock_guard lock(mutex_);
    const auto it = behaviours_.find(vertex.name());
    if (it == behaviours_.end()) throw Error(Errc::invalid_argument, "unknown step " + vertex.name());
    return std::make_unique<FakeOperation>(it->second, runs_[vertex.name()]);
  }

  std::mutex mutex_;
  std::map<std::string, Behaviour> behaviours_;
  std::map<std::string, std::atomic<int>> runs_;
  llb::Graph graph_;
  int jobs_ = 0;
  JobPtr last_;
  std::optional<Solver> solver_;
};

}  // namespace gantry::solver::test
