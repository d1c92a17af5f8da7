#include "solver/job.hpp"

#include <future>

#include "solver/test_support.hpp"

namespace gantry::solver {
namespace {

using llb::Output;
using test::Results;

class JobTest : public test::SolverTest {};

TEST_F(JobTest, AnnouncesAllStepsBeforeOneStarts) {
  const Output base = step("base", {}, writes("b", "b"));
  const Output head = step("head", {base}, writes("h", "h"));
  solve(head);
  const StatusBatch all = told(last_);
  ASSERT_GE(all.vertices.size(), 2U);
  EXPECT_EQ(all.vertices[0].name, "base");
  EXPECT_FALSE(all.vertices[0].started);
  EXPECT_EQ(all.vertices[1].name, "head");
  EXPECT_EQ(all.vertices[1].inputs, std::vector<std::string>{base.digest});
  EXPECT_FALSE(all.vertices[1].started);
  for (std::size_t i = 2; i < all.vertices.size(); ++i) EXPECT_TRUE(all.vertices[i].started) << "whole each time";
}

TEST_F(JobTest, InputsThatDidNotRunWereCached) {
  const Output base = step("base", {}, writes("b", "b"));
  const Output middle = step("middle", {step("lower", {base}, writes("l", "l"))}, writes("m", "m"));
  solve(middle);
  solve(step("head", {middle}, writes("h", "h")));
  const auto vertices = by_name(told(last_));
  EXPECT_TRUE(vertices.at("middle").cached);
  EXPECT_TRUE(vertices.at("lower").cached);
  EXPECT_TRUE(vertices.at("lower").completed);
  EXPECT_FALSE(vertices.at("head").cached);
  EXPECT_FALSE(vertices.at("base").cached) << "a source was resolved";
}

TEST_F(JobTest, WhatIsStillRunningAtTheEndWasCancelled) {
  const JobPtr job = this->job();
  job->start_vertex("sha256:a", "exporting to image");
  const auto status = job->progress_of("sha256:a")->status("exporting layers");
  const StatusBatch all = told(job);
  EXPECT_EQ(all.vertices.back().error, "context canceled");
  EXPECT_TRUE(all.vertices.back().completed);
  EXPECT_TRUE(all.statuses.back().completed);
  job->start_vertex("sha256:b", "too late");
  EXPECT_EQ(told(job).vertices.size(), all.vertices.size());
}

TEST_F(JobTest, ShowsWorkThatIsNoStep) {
  const JobPtr job = this->job();
  const int answer = Solver::run_vertex(*job, "exporting to image", "sha256:a", [](Progress& progress) {
    progress.log(1, "hello");
    progress.status("naming")->update(3, 4);
    progress.warn({.short_text = "careful"});
    return 42;
  });
  EXPECT_EQ(answer, 42);
  EXPECT_EQ(test::error_of([&] {
              Solver::run_vertex(*job, "failing", "sha256:b",
                                 [](Progress&) { throw Error(Errc::not_found, "no such thing"); });
            }),
            "no such thing");
  const StatusBatch all = told(job);
  EXPECT_EQ(by_name(all).at("exporting to image").error, "");
  EXPECT_EQ(by_name(all).at("failing").error, "no such thing");
  ASSERT_EQ(all.statuses.size(), 1U) << "only the last state of each";
  EXPECT_EQ(all.statuses[0].current, 3);
  EXPECT_EQ(all.statuses[0].total, 4);
  EXPECT_TRUE(all.statuses[0].completed);
  ASSERT_EQ(all.warnings.size(), 1U);
  EXPECT_EQ(all.warnings[0].warning.short_text, "careful");
}

TEST_F(JobTest, OutputBeyondTheLimitsIsClipped) {
  const JobPtr job = this->job({.log_speed = 0});
  const auto progress = job->start_vertex("sha256:a", "loud");
  const std::string megabyte(1 << 20, 'x');
  for (int i = 0; i < 5; ++i) progress->log(1, megabyte);
  const std::string text = log_text(told(job));
  EXPECT_EQ(text.size(), (2U << 20) + std::string("\n[output clipped, log limit 2MiB reached]\n").size());
  EXPECT_TRUE(text.ends_with("\n[output clipped, log limit 2MiB reached]\n"));

  const JobPtr fast = this->job();
  fast->start_vertex("sha256:a", "fast")->log(1, megabyte);
  EXPECT_TRUE(log_text(told(fast)).ends_with("\n[output clipped, log limit 200KiB/s reached]\n"));
}

TEST_F(JobTest, OutputThatIsNotClippedWaitsForItsReader) {
  const JobPtr job = this->job({.log_size = 0, .log_speed = 0});
  const auto reader = job->read(std::chrono::milliseconds(0));
  const auto progress = job->start_vertex("sha256:a", "loud");
  constexpr std::size_t kBytes = 64 << 20;
  auto writer = std::async(std::launch::async, [&] {
    const std::string piece(1 << 20, 'x');
    for (std::size_t sent = 0; sent < kBytes; sent += piece.size()) progress->log(1, piece);
    job->finish();
  });
  std::size_t got = 0;
  while (auto batch = reader->next({})) got += log_text(*batch).size();
  EXPECT_EQ(got, kBytes);
  writer.get();
}

TEST_F(JobTest, ARunawayWriterIsReleasedByTheStopOfItsJob) {
  const JobPtr job = this->job({.log_size = 0, .log_speed = 0});
  const auto reader = job->read();
  const auto progress = job->start_vertex("sha256:a", "loud");
  auto writer = std::async(std::launch::async, [&] {
    for (int i = 0; i < 64; ++i) progress->log(1, std::string(1 << 20, 'x'));
  });
  job->stop().request_stop();
  writer.get();
}

TEST_F(JobTest, ReadersComeLateAndLeaveEarlyAndAreWaitedFor) {
  const JobPtr job = this->job();
  auto early = job->read(std::chrono::milliseconds(0));
  job->start_vertex("sha256:a", "a")->log(1, "text");
  EXPECT_FALSE(job->wait_drained(std::chrono::milliseconds(1)));
  EXPECT_EQ(log_text(*early->next({})), "text");
  job->finish();
  EXPECT_FALSE(job->wait_drained(std::chrono::milliseconds(1)));
  const auto late = job->read();
  std::string seen;
  while (auto batch = late->next({})) seen += log_text(*batch);
  EXPECT_EQ(seen, "text");
  early.reset();
  EXPECT_TRUE(job->wait_drained(std::chrono::seconds(30)));

  std::stop_source stop;
  stop.request_stop();
  EXPECT_FALSE(this->job()->read()->next(stop.get_token()));
}

}  // namespace
}  // namespace gantry::solver
