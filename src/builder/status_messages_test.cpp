#include "builder/status_messages.hpp"

#include <gtest/gtest.h>

namespace gantry::builder {
namespace {

TEST(StatusMessages, CarryWhatHappened) {
  const Timestamp time{std::chrono::nanoseconds(1'500'000'000)};
  solver::StatusBatch batch;
  batch.vertices.push_back({.digest = "sha256:a",
                            .inputs = {"sha256:b"},
                            .name = "[1/2] FROM x",
                            .cached = true,
                            .started = time,
                            .completed = time,
                            .error = "",
                            .group = {}});
  batch.statuses.push_back({.id = "sending",
                            .vertex = "sha256:a",
                            .name = "",
                            .current = 1,
                            .total = 2,
                            .timestamp = time,
                            .started = time,
                            .completed = {}});
  batch.logs.push_back({.vertex = "sha256:a", .timestamp = time, .stream = 2, .bytes = "out\xff"});
  batch.warnings.push_back({.vertex = "sha256:a", .warning = {}});
  batch.warnings.back().warning.short_text = "careful";

  const auto messages = to_messages(batch);

  ASSERT_EQ(messages.size(), 1U);
  EXPECT_EQ(messages[0].vertexes(0).inputs(0), "sha256:b");
  EXPECT_EQ(messages[0].vertexes(0).started().nanos(), 500'000'000);
  EXPECT_TRUE(messages[0].vertexes(0).cached());
  EXPECT_FALSE(messages[0].statuses(0).has_completed());
  EXPECT_EQ(messages[0].statuses(0).total(), 2);
  EXPECT_EQ(messages[0].logs(0).msg(), "out\xff");
  EXPECT_EQ(messages[0].logs(0).stream(), 2);
  EXPECT_EQ(messages[0].warnings(0).short_text(), "careful");
}

TEST(StatusMessages, AreSmallHoweverMuchHappened) {
  solver::StatusBatch batch;
  for (int i = 0; i < 5'000; ++i)
    batch.vertices.push_back({.digest = std::to_string(i),
                              .inputs = {},
                              .name = "n",
                              .cached = false,
                              .started = {},
                              .completed = {},
                              .error = "",
                              .group = {}});
  for (int i = 0; i < 3; ++i)
    batch.logs.push_back({.vertex = "v", .timestamp = {}, .stream = 1, .bytes = std::string(1'500'000, 'x')});

  const auto messages = to_messages(batch);

  std::size_t logs = 0;
  int vertices = 0;
  for (const auto& message : messages) {
    EXPECT_LT(message.ByteSizeLong(), 3U << 20);
    for (const auto& log : message.logs()) logs += log.msg().size();
    vertices += message.vertexes_size();
  }
  EXPECT_EQ(logs, 4'500'000U);
  EXPECT_EQ(vertices, 5'000);
  EXPECT_TRUE(to_messages({}).empty());
}

}  // namespace
}  // namespace gantry::builder
