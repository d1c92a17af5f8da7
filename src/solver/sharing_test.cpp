#include <future>

#include "solver/test_support.hpp"

namespace gantry::solver {
namespace {

using llb::Output;
using test::Behaviour;
using test::Gate;
using test::Results;

class SharingTest : public test::SolverTest {
 protected:
  /// Ends when the gate opens, and tells that it began and that it was stopped.
  Behaviour slow() {
    Behaviour behaviour = writes("f", "x");
    behaviour.execute = [&, made = behaviour.execute](OpContext& context, const Results& inputs) {
      context.progress.log(1, "begin\n");
      auto status = context.progress.status("transferring");
      status->update(1, 2);
      started_.pass();
      if (!go_.wait(1, context.stop)) {
        stopped_.pass();
        throw Error(Errc::cancelled, "context canceled");
      }
      sessions_ = context.sessions.ids();
      context.progress.log(2, "end\n");
      return made(context, inputs);
    };
    return behaviour;
  }
  std::future<std::string> build(const JobPtr& job, const Output& head) {
    return std::async(std::launch::async, [this, job, definition = definition(head)] {
      try {
        return read(solver_->solve(job, definition), "f");
      } catch (const Error& e) {
        return e.message();
      }
    });
  }
  Gate started_, go_, stopped_;
  std::vector<std::string> sessions_;
};

TEST_F(SharingTest, EqualStepsOfTwoJobsAreOneExecution) {
  const JobPtr one = job({.sessions = {"s1"}});
  const JobPtr two = job({.sessions = {"s2"}});
  auto first = build(one, step("slow", {}, slow()));
  ASSERT_TRUE(started_.wait(1));
  // The same step under another name, as other comments in a Dockerfile make it.
  auto second = build(two, step("slow too", {}, slow()));
  // Both vertices are sources, which are shown when they are resolved, so wait for the log.
  const auto reader = two->read(std::chrono::milliseconds(0));
  std::string seen;
  while (seen.empty()) seen = log_text(*reader->next({}));
  EXPECT_EQ(seen, "begin\n") << "who joins late sees what was before";
  go_.pass();
  EXPECT_EQ(first.get(), "x");
  EXPECT_EQ(second.get(), "x");
  EXPECT_EQ(runs("slow") + runs("slow too"), 1);
  EXPECT_EQ(sessions_, (std::vector<std::string>{"s1", "s2"}));
  for (const JobPtr& job : {one, two}) {
    const StatusBatch all = told(job);
    EXPECT_EQ(log_text(all), "begin\nend\n");
    EXPECT_EQ(all.statuses.back().id, "transferring");
    EXPECT_EQ(all.statuses.back().current, 1);
    EXPECT_TRUE(all.statuses.back().completed);
    for (const auto& [name, vertex] : by_name(all)) {
      EXPECT_TRUE(vertex.completed) << name;
      EXPECT_EQ(vertex.error, "") << name;
    }
  }
}

TEST_F(SharingTest, ItGoesOnWhileAnyJobWantsIt) {
  const JobPtr one = job(), two = job();
  const Output head = step("slow", {}, slow());
  auto first = build(one, head);
  ASSERT_TRUE(started_.wait(1));
  auto second = build(two, head);
  const auto reader = two->read(std::chrono::milliseconds(0));
  while (log_text(*reader->next({})).empty()) {
  }
  one->stop().request_stop();
  EXPECT_EQ(first.get(), "context canceled");
  EXPECT_EQ(stopped_.count(), 0);
  go_.pass();
  EXPECT_EQ(second.get(), "x");
  EXPECT_EQ(runs("slow"), 1);
}

TEST_F(SharingTest, ItEndsWhenNobodyWantsItAndTheNextBeginsAnew) {
  const JobPtr one = job(), two = job();
  const Output head = step("slow", {}, slow());
  auto first = build(one, head);
  ASSERT_TRUE(started_.wait(1));
  auto second = build(two, head);
  const auto reader = two->read(std::chrono::milliseconds(0));
  while (log_text(*reader->next({})).empty()) {
  }
  one->stop().request_stop();
  two->stop().request_stop();
  EXPECT_EQ(first.get(), "context canceled");
  EXPECT_EQ(second.get(), "context canceled");
  EXPECT_EQ(stopped_.count(), 1);
  go_.pass();
  EXPECT_EQ(build(job(), head).get(), "x");
  EXPECT_EQ(runs("slow"), 2);
}

TEST_F(SharingTest, WhoIgnoresTheCacheOrMayLessRunsItsOwn) {
  const JobPtr one = job(), two = job(), three = job({.entitlements = {"network.host"}});
  auto first = build(one, step("slow", {}, slow()));
  ASSERT_TRUE(started_.wait(1));
  auto second = build(two, step("slow too", {}, slow(), true));
  auto third = build(three, step("slow three", {}, slow()));
  EXPECT_TRUE(started_.wait(3));
  go_.pass();
  for (auto* result : {&first, &second, &third}) EXPECT_EQ(result->get(), "x");
}

TEST_F(SharingTest, ManyJobsAtOnceMakeEachStepOnce) {
  const Output base = step("base", {}, writes("b", "b"));
  std::vector<Output> branches;
  for (int i = 0; i < 4; ++i)
    branches.push_back(step("branch" + std::to_string(i), {base}, writes("f" + std::to_string(i), "x")));
  Output head = branches[0];
  for (int i = 1; i < 4; ++i)
    head = step("join" + std::to_string(i), {head, branches[i]}, copies("f" + std::to_string(i)));
  head = step("head", {head}, writes("f", "x"));
  std::vector<std::future<std::string>> all;
  for (int i = 0; i < 12; ++i) all.push_back(build(job(), head));
  for (auto& one : all) EXPECT_EQ(one.get(), "x");
  for (int i = 0; i < 4; ++i) EXPECT_EQ(runs("branch" + std::to_string(i)), 1);
  EXPECT_EQ(runs("head"), 1);
}

TEST_F(SharingTest, StopsAtAnyMomentLeaveNothing) {
  for (int round = 0; round < 30; ++round) {
    const std::string mark = std::to_string(round);
    const Output base = step("base" + mark, {}, writes("b", mark));
    const Output one = step("one" + mark, {base}, writes("f", mark));
    const Output head = step("two" + mark, {base, one}, copies("f"));
    const JobPtr job = this->job();
    const auto reader = job->read(std::chrono::milliseconds(0));
    auto result = std::async(std::launch::async, [&] {
      build(job, head).get();
      job->finish();
    });
    for (int i = 0; i < round / 3; ++i) reader->next({});
    solver_->discard_job(job->ref());
    result.get();
  }
  EXPECT_EQ(mounts(), 0U);
  EXPECT_TRUE(cache_->check(false).empty());
  for (const auto& record : cache_->usage()) EXPECT_FALSE(record.description.empty());
}

}  // namespace
}  // namespace gantry::solver
