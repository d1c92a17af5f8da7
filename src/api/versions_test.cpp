#include "api/versions.hpp"

#include <gtest/gtest.h>

namespace gantry::api {
namespace {

TEST(Versions, AreComparedNumberByNumber) {
  EXPECT_LT(*parse_api_version("1.9"), *parse_api_version("1.24"));
  EXPECT_EQ(render_api_version(*parse_api_version("1.41")), "1.41");
  EXPECT_FALSE(parse_api_version("one"));
}

TEST(Versions, ComposeInPythonIsSentWhatItUnderstands) {
  const ApiVersion newest{1, 56}, old{1, 35};
  EXPECT_EQ(understood_version(newest, "docker-compose/1.29.2 Linux/6.1"), (ApiVersion{1, 44}));
  EXPECT_EQ(understood_version(old, "docker-compose/1.29.2 Linux/6.1"), old);
  EXPECT_EQ(understood_version(newest, "docker-compose/2.26.1"), newest);
  EXPECT_EQ(understood_version(newest, "docker-sdk-python/5.0.3"), newest);
  EXPECT_EQ(understood_version(newest, ""), newest);
}

}  // namespace
}  // namespace gantry::api
