#include "solver/solver.hpp"

#include <future>
#include <thread>

#include "solver/test_support.hpp"

namespace gantry::solver {
namespace {

const auto* const kPrivate = testing::AddGlobalTestEnvironment(new buildcache::test::PrivateMounts);

using llb::Output;
using test::Behaviour;
using test::Gate;
using test::Results;

class SolverTest : public test::SolverTest {};

TEST_F(SolverTest, MakesWhatTheResultNeedsAndOnlyOnce) {
  const Output base = step("base", {}, writes("base", "1"));
  const Output one = step("one", {base}, writes("one", "2"));
  const Output two = step("two", {base}, writes("two", "3"));
  step("unused", {base}, writes("unused", "4"));
  const Output head = step("head", {one, two}, copies("two"));
  const auto result = solve(head);
  EXPECT_EQ(read(result, "base"), "1");
  EXPECT_EQ(read(result, "one"), "2");
  EXPECT_EQ(read(result, "copied"), "3");
  for (const char* name : {"base", "one", "two", "head"}) EXPECT_EQ(runs(name), 1) << name;
  EXPECT_EQ(runs("unused"), 0);
  EXPECT_EQ(solver_->solve(last_, definition(head)), result) << "in the same job it is there";
  EXPECT_EQ(solver_->solve(last_, llb::Definition()), nullptr) << "scratch";
}

TEST_F(SolverTest, TheCacheHasItTheNextTimeAndForTheNextWorker) {
  const Output base = step("base", {}, writes("base", "1"));
  const Output head = step("head", {step("middle", {base}, writes("middle", "2"))}, writes("head", "3"));
  const std::string id = solve(head)->id();
  last_.reset();
  EXPECT_EQ(solve(head)->id(), id);
  for (const char* name : {"base", "middle", "head"}) EXPECT_EQ(runs(name), 1) << name;
  const auto vertices = by_name(told(last_));
  for (const char* name : {"middle", "head"}) {
    EXPECT_TRUE(vertices.at(name).cached) << name;
    EXPECT_TRUE(vertices.at(name).started && vertices.at(name).completed) << name;
  }
  last_.reset();
  solver_.reset();
  reopen();
  start({});
  EXPECT_EQ(solve(head)->id(), id);
  EXPECT_EQ(runs("head"), 1);
}

TEST_F(SolverTest, AChangedStepIsMadeWithAllThatStandOnIt) {
  const Output base = step("base", {}, writes("base", "1"));
  solve(step("head", {step("middle", {base}, writes("middle", "2"))}, writes("head", "3")));
  solve(step("head", {step("middle2", {base}, writes("middle", "changed"))}, writes("head", "3")));
  EXPECT_EQ(runs("base"), 1);
  EXPECT_EQ(runs("middle2"), 1);
  EXPECT_EQ(runs("head"), 2);
}

TEST_F(SolverTest, IndependentStepsRunAtTheSameTime) {
  Gate gate;
  const auto meets = [&](const std::string& name) {
    Behaviour behaviour = writes(name, name);
    behaviour.execute = [&, made = behaviour.execute](OpContext& context, const Results& inputs) {
      gate.pass();
      EXPECT_TRUE(gate.wait(3, context.stop));
      return made(context, inputs);
    };
    return behaviour;
  };
  const Output a = step("a", {}, meets("a"));
  const Output b = step("b", {step("b0", {}, writes("x", "x"))}, meets("b"));
  const Output c = step("c", {}, meets("c"));
  solve(step("head", {step("ab", {a, b}, copies("b")), c}, copies("c")));
  EXPECT_EQ(gate.count(), 3);
}

TEST_F(SolverTest, WorkIsBoundedWaitingIsNot) {
  start({.parallelism = 2});
  std::atomic<int> now{0}, most{0};
  Gate waiting;
  std::vector<Output> all;
  for (int i = 0; i < 6; ++i) {
    Behaviour work = writes("f" + std::to_string(i), "x");
    work.execute = [&, made = work.execute](OpContext& context, const Results& inputs) {
      const int running = ++now;
      for (int seen = most; seen < running && !most.compare_exchange_weak(seen, running);) {
      }
      EXPECT_TRUE(waiting.wait(4, context.stop)) << "the sources must not wait for the work";
      auto result = made(context, inputs);
      --now;
      return result;
    };
    all.push_back(step("work" + std::to_string(i), {}, work));
  }
  for (int i = 0; i < 4; ++i) {
    Behaviour source = writes("s" + std::to_string(i), "x");
    source.is_work = false;
    source.execute = [&, made = source.execute](OpContext& context, const Results& inputs) {
      waiting.pass();
      EXPECT_TRUE(waiting.wait(4, context.stop));
      return made(context, inputs);
    };
    all.push_back(step("source" + std::to_string(i), {}, source));
  }
  Behaviour joins = writes("head", "x");
  solve(step("head", all, joins));
  EXPECT_LE(most, 2);
}

TEST_F(SolverTest, ACopyGoesByContent) {
  const auto build = [&](const std::string& how, const std::string& text) {
    const Output made = step("make " + how, {step("base", {}, writes("b", "b"))}, writes("out", text, how));
    return solve(
        step("after", {step("copy", {step("to", {}, writes("to", "to")), made}, copies("out"))}, writes("last", "x")));
  };
  const std::string id = build("one way", "same")->id();
  EXPECT_EQ(build("another way", "same")->id(), id);
  EXPECT_EQ(runs("make another way"), 1) << "nobody knew what it makes";
  EXPECT_EQ(runs("copy"), 1);
  EXPECT_EQ(runs("after"), 1);
  EXPECT_EQ(build("another way", "same")->id(), id);
  EXPECT_EQ(runs("make another way"), 1);
  EXPECT_NE(build("third way", "other")->id(), id);
  EXPECT_EQ(runs("copy"), 2);
  EXPECT_EQ(runs("after"), 2);
}

TEST_F(SolverTest, AClientsDirectoryGoesByContent) {
  const auto build = [&](const std::string& text, mode_t mode = 0644) {
    const Output to = step("to", {}, writes("to", "to"));
    const std::string id =
        solve(step("run", {step("copy", {to, step("client " + text, {}, client("f", text, mode))}, copies("f"))},
                   writes("ran", "x")))
            ->id();
    last_.reset();
    return id;
  };
  const std::string id = build("one");
  EXPECT_EQ(build("one"), id);
  EXPECT_EQ(runs("client one"), 2) << "it is asked every time";
  EXPECT_EQ(runs("copy"), 1);
  EXPECT_NE(build("one", 0755), id);
  EXPECT_NE(build("two"), id);
  EXPECT_EQ(runs("run"), 3);
  EXPECT_EQ(build("one"), id);
}

TEST_F(SolverTest, ALinkSparesTheInputsThatArePruned) {
  const Output made = step("make", {}, writes("out", "x"));
  const Output copy = step("copy", {step("to", {}, writes("to", "to")), made}, copies("out"));
  solve(copy);
  last_.reset();
  cache_->prune({.filters = {"description==\"made out\""}}, [](const auto&) {}, {});
  solve(step("next", {copy}, writes("next", "x")));
  EXPECT_EQ(runs("make"), 1);
  EXPECT_EQ(runs("copy"), 1);
  EXPECT_EQ(runs("next"), 1);
}

TEST_F(SolverTest, AnIgnoredCacheIsNotLookedUpButStored) {
  const auto build = [&](bool ignore) {
    Behaviour random = writes("out", "", "random");
    random.execute = [this](OpContext&, const Results& inputs) {
      return Results{make(inputs[0], "out", std::to_string(runs("random")))};
    };
    graph_ = {};
    const Output again = step("base", {}, writes("b", "b"));
    const Output made = step("random", {again}, random, ignore);
    const Output on_it = step("on it", {made}, writes("y", "y"));
    const Output same = step("same", {again}, writes("s", "s"), ignore);
    const Output copy = step("copy", {step("to", {}, writes("to", "to")), on_it}, copies("out"));
    return read(solve(step("head", {copy, same}, copies("s"))), "copied");
  };
  build(false);
  EXPECT_EQ(runs("random"), 1);
  build(true);
  EXPECT_EQ(runs("base"), 1);
  EXPECT_EQ(runs("random"), 2);
  EXPECT_EQ(runs("on it"), 2) << "what stands on it is made anew";
  EXPECT_EQ(runs("copy"), 2) << "the content is another";
  EXPECT_EQ(runs("same"), 2);
  build(false);
  for (const char* name : {"random", "on it", "copy", "same"}) EXPECT_EQ(runs(name), 2) << name;
}

TEST_F(SolverTest, AFailureNamesTheStepAndItsPlaceAndStopsTheOthers) {
  Gate begun, stopped;
  Behaviour endless = writes("never", "x");
  endless.execute = [&](OpContext& context, const Results&) -> Results {
    Gate never;
    begun.pass();
    never.wait(1, context.stop);
    if (context.stop.stop_requested()) stopped.pass();
    throw Error(Errc::cancelled, "context canceled");
  };
  Behaviour fails = writes("f", "x");
  fails.execute = [&](OpContext& context, const Results&) -> Results {
    EXPECT_TRUE(begun.wait(1));
    context.progress.log(2, "oh no\n");
    throw ExitError(5, "process \"/bin/sh -c exit 5\" did not complete successfully: exit code: 5");
  };
  const Output bad = step("bad", {}, fails);
  const Output head = step("head", {step("endless", {}, endless), bad}, copies("x"));
  try {
    solve(head);
    FAIL();
  } catch (const SolveError& e) {
    EXPECT_EQ(e.message(), "process \"/bin/sh -c exit 5\" did not complete successfully: exit code: 5");
    EXPECT_EQ(e.vertex(), bad.digest);
    EXPECT_EQ(e.exit_code(), 5);
    ASSERT_EQ(e.places().size(), 1U);
    EXPECT_EQ(e.places()[0].ranges(0).start().line(), 2);
    EXPECT_EQ(e.files()[0].filename(), "Dockerfile");
  }
  EXPECT_EQ(stopped.count(), 1);
  const auto batch = told(last_);
  EXPECT_EQ(by_name(batch).at("bad").error,
            "process \"/bin/sh -c exit 5\" did not complete successfully: exit code: 5");
  EXPECT_EQ(by_name(batch).at("endless").error, "context canceled");
  EXPECT_EQ(log_text(batch), "oh no\n");
  EXPECT_FALSE(by_name(batch).at("head").started);
  last_.reset();
  EXPECT_TRUE(cache_->usage().empty()) << "half-made results are dropped";
}

TEST_F(SolverTest, AMissingFileIsToldAsDockerDoes) {
  const Output from = step("from", {}, writes("f", "x"));
  const std::string text = test::error_of([&] { solve(step("copy", {from, from}, copies("/nope"))); });
  EXPECT_TRUE(text.starts_with("failed to compute cache key: failed to calculate checksum of ref moby::")) << text;
  EXPECT_TRUE(text.ends_with(": \"/nope\": not found")) << text;
  EXPECT_TRUE(by_name(told(last_)).at("copy").error.starts_with("failed to calculate checksum of ref moby::"));
}

TEST_F(SolverTest, AStopEndsEverythingAndDropsWhatWasBegun) {
  Gate started;
  Behaviour endless = writes("never", "x");
  endless.execute = [&](OpContext& context, const Results&) -> Results {
    auto workspace = cache_->snapshots().create(nullptr, buildcache::RecordType::regular, "half");
    write(workspace->mount() / "f", "x");
    started.pass();
    Gate never;
    never.wait(1, context.stop);
    throw Error(Errc::internal, "signal: killed");
  };
  const Output head = step("endless", {}, endless);
  const JobPtr job = this->job();
  auto result = std::async(std::launch::async, [&] {
    try {
      solver_->solve(job, definition(head));
    } catch (const Error& e) {
      return e.code();
    }
    return Errc::internal;
  });
  ASSERT_TRUE(started.wait(1));
  job->stop().request_stop();
  EXPECT_EQ(result.get(), Errc::cancelled);
  EXPECT_EQ(mounts(), 0U);
  EXPECT_TRUE(cache_->usage().empty());
  EXPECT_EQ(by_name(told(job)).at("endless").error, "context canceled");
  EXPECT_EQ(test::error_of([&] { solver_->solve(job, definition(head)); }), "context canceled");
}

TEST_F(SolverTest, OneStopOfTwoSolvesOfAJobLeavesTheOther) {
  Gate started, go;
  Behaviour slow = writes("f", "x");
  slow.execute = [&, made = slow.execute](OpContext& context, const Results& inputs) {
    started.pass();
    if (!go.wait(1, context.stop)) throw Error(Errc::cancelled, "context canceled");
    return made(context, inputs);
  };
  const Output head = step("slow", {}, slow);
  const JobPtr job = this->job();
  std::stop_source stop;
  auto first = std::async(std::launch::async, [&] {
    return test::error_of([&] { solver_->solve(job, definition(head), stop.get_token()); });
  });
  ASSERT_TRUE(started.wait(1));
  auto second = std::async(std::launch::async, [&] { return solver_->solve(job, definition(head)); });
  stop.request_stop();
  EXPECT_EQ(first.get(), "context canceled");
  go.pass();
  EXPECT_EQ(read(second.get(), "f"), "x");
}

TEST_F(SolverTest, DeepGraphsNeedNoDeepStack) {
  Output head = step("0", {}, writes("f", "x"));
  for (int i = 1; i < 3000; ++i) {
    const std::string name = std::to_string(i);
    const bool by_content = i % 2 == 0;
    head = step(name, {head},
                {[name, by_content](OpContext&) { return CacheMap{name, {{by_content, {}}}, false}; },
                 [](OpContext&, const Results& inputs) { return Results{inputs[0]}; }});
  }
  EXPECT_EQ(read(solve(head), "f"), "x");
  EXPECT_EQ(read(solve(head), "f"), "x");
  EXPECT_EQ(runs("2999"), 1);
}

TEST_F(SolverTest, SeveralOutputsAreKeptEach) {
  const Output base = step("base", {}, writes("b", "b"));
  pb::Op op;
  op.mutable_exec()->mutable_meta()->add_args("two");
  for (int i = 0; i < 2; ++i) {
    auto* mount = op.mutable_exec()->add_mounts();
    mount->set_dest(i == 0 ? "/" : "/" + std::to_string(i));
    mount->set_input(0);
    mount->set_output(i);
  }
  op.add_inputs()->set_digest(base.digest);
  pb::OpMetadata metadata;
  (*metadata.mutable_description())["llb.customname"] = "two";
  behaviours_["two"] = {
      [](OpContext&) { return CacheMap{"two", {}, false}; },
      [this](OpContext&, const Results& inputs) { return Results{make(inputs[0], "x", "0"), nullptr}; }};
  Output two = graph_.add(op, metadata);
  EXPECT_EQ(read(solve(two), "x"), "0");
  two.index = 1;
  EXPECT_EQ(solve(two), nullptr);
  EXPECT_EQ(runs("two"), 1);
}

TEST_F(SolverTest, AJobHasItsNameForItself) {
  const JobPtr job = solver_->create_job("r", {});
  EXPECT_EQ(test::error_of([&] { solver_->create_job("r", {}); }), "job r exists");
  EXPECT_EQ(solver_->wait_job("r", std::chrono::milliseconds(0)), job);
  EXPECT_EQ(test::error_of([&] { solver_->wait_job("s", std::chrono::milliseconds(1)); }), "no such job s");
  auto late = std::async(std::launch::async, [&] { return solver_->wait_job("t", std::chrono::seconds(30)); });
  const JobPtr other = solver_->create_job("t", {});
  EXPECT_EQ(late.get(), other);
  solver_->discard_job("r");
  EXPECT_TRUE(job->stop().stop_requested());
  EXPECT_EQ(solver_->job_count(), 1U);
}

}  // namespace
}  // namespace gantry::solver
