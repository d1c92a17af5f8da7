#include "engine/health.hpp"

#include <gtest/gtest.h>

namespace gantry::engine {
namespace {

using namespace std::chrono_literals;

const Timestamp kStart{1'000'000s};

HealthResult result_at(std::chrono::seconds after, int exit_code) {
  return {kStart + after, kStart + after + 1s, exit_code, std::to_string(after.count())};
}

model::ContainerConfig config_with(std::vector<std::string> test) {
  model::ContainerConfig config;
  config.Healthcheck.emplace();
  config.Healthcheck->Test.emplace(std::move(test));
  return config;
}

TEST(HealthCheck, FillsInDockersDefaults) {
  const auto check = read_health_check(config_with({"CMD-SHELL", "curl -f x || exit 1"}));
  ASSERT_TRUE(check);
  EXPECT_EQ(check->command, (std::vector<std::string>{"/bin/sh", "-c", "curl -f x || exit 1"}));
  EXPECT_EQ(check->interval, 30s);
  EXPECT_EQ(check->timeout, 30s);
  EXPECT_EQ(check->start_period, 0s);
  EXPECT_EQ(check->start_interval, 5s);
  EXPECT_EQ(check->retries, 3);
}

TEST(HealthCheck, IsNotCheckedLessOftenWhileItComesUp) {
  auto config = config_with({"CMD", "x"});
  config.Healthcheck->Interval.emplace(1'000'000'000);
  EXPECT_EQ(read_health_check(config)->start_interval, 1s);
  config.Healthcheck->StartInterval.emplace(7'000'000'000);
  EXPECT_EQ(read_health_check(config)->start_interval, 7s);
}

TEST(HealthCheck, UsesTheShellOfTheImage) {
  auto config = config_with({"CMD-SHELL", "x"});
  config.Shell.emplace(std::vector<std::string>{"/bin/bash", "-ec"});
  EXPECT_EQ(read_health_check(config)->command, (std::vector<std::string>{"/bin/bash", "-ec", "x"}));
}

TEST(HealthCheck, IsAbsentWithNoneAndWithoutACommand) {
  EXPECT_FALSE(read_health_check({}));
  EXPECT_FALSE(read_health_check(config_with({})));
  EXPECT_FALSE(read_health_check(config_with({"NONE"})));
  EXPECT_FALSE(read_health_check(config_with({"CMD"})));
}

HealthCheck three_tries() {
  HealthCheck check;
  check.interval = 30s;
  check.start_interval = 5s;
  check.retries = 3;
  return check;
}

TEST(HealthCheck, ThreeFailuresInARowMakeUnhealthy) {
  const HealthCheck check = three_tries();
  HealthState health{kStart, HealthStatus::healthy, 0, {}};
  check.apply(health, result_at(10s, 1));
  check.apply(health, result_at(20s, -1));
  EXPECT_EQ(health.status, HealthStatus::healthy);
  EXPECT_EQ(health.failing_streak, 2);
  check.apply(health, result_at(30s, 1));
  EXPECT_EQ(health.status, HealthStatus::unhealthy);
  check.apply(health, result_at(40s, 0));
  EXPECT_EQ(health.status, HealthStatus::healthy);
  EXPECT_EQ(health.failing_streak, 0);
}

TEST(HealthCheck, FailuresInTheStartPeriodDoNotCountUntilItWasHealthy) {
  HealthCheck check = three_tries();
  check.start_period = 60s;
  HealthState health{kStart, HealthStatus::starting, 0, {}};
  check.apply(health, result_at(10s, 1));
  EXPECT_EQ(health.failing_streak, 0);
  EXPECT_EQ(health.status, HealthStatus::starting);
  check.apply(health, result_at(20s, 0));
  check.apply(health, result_at(30s, 1));
  EXPECT_EQ(health.failing_streak, 1);
}

TEST(HealthCheck, ChecksOftenOnlyWhileItComesUp) {
  HealthCheck check = three_tries();
  check.start_period = 60s;
  HealthState health{kStart, HealthStatus::starting, 0, {}};
  EXPECT_EQ(check.delay(health, kStart + 59s), 5s);
  EXPECT_EQ(check.delay(health, kStart + 60s), 30s);
  health.status = HealthStatus::healthy;
  EXPECT_EQ(check.delay(health, kStart + 1s), 30s);
}

TEST(HealthCheck, KeepsTheLastFiveResults) {
  const HealthCheck check = three_tries();
  HealthState health{kStart, HealthStatus::starting, 0, {}};
  for (int i = 1; i <= 8; ++i) check.apply(health, result_at(std::chrono::seconds(i), 0));
  ASSERT_EQ(health.log.size(), 5U);
  EXPECT_EQ(health.log.front().output, "4");
  EXPECT_EQ(health.log.back().output, "8");
}

TEST(HealthOutput, IsCutAt4096BytesAndIsUtf8) {
  HealthOutput output;
  output.add(std::string(4095, 'x') + "\xc3\xbc");
  output.add("more");
  EXPECT_EQ(output.text(), std::string(4095, 'x') + "\xef\xbf\xbd...");
}

}  // namespace
}  // namespace gantry::engine
