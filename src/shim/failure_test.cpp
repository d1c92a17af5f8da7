#include "shim/failure.hpp"

#include <gtest/gtest.h>

namespace gantry::shim {
namespace {

using protocol::FailureKind;
using protocol::Stage;

TEST(Failure, ReadsTheLastErrorOfTheRuntimesLog) {
  const std::string log =
      "{\"level\":\"warning\",\"msg\":\"ignored\",\"time\":\"t\"}\n"
      "{\"level\":\"error\",\"msg\":\"first\",\"time\":\"t\"}\n"
      "{\"level\":\"error\",\"msg\":\"exec: \\\"nosuch\\\": executable file not found in $PATH\",\"time\":\"t\"}\n";
  EXPECT_EQ(failure_text(log, "printed"), "exec: \"nosuch\": executable file not found in $PATH");
  EXPECT_EQ(failure_text("", "  printed\n"), "printed");
  EXPECT_EQ(failure_text("no json\n{\"level\":\"error\",\"msg\":7}\n", "printed"), "printed");
  EXPECT_EQ(failure_text("", std::string(100'000, 'x')).size(), 8u << 10);
}

TEST(Failure, TellsTheKindsApart) {
  const auto kind = [](const char* text) { return classify_failure(Stage::create, text).kind; };
  EXPECT_EQ(kind("exec: \"nosuch\": executable file not found in $PATH"), FailureKind::executable_not_found);
  EXPECT_EQ(kind("executable file `nosuch` not found in $PATH: No such file or directory"),
            FailureKind::executable_not_found);
  EXPECT_EQ(kind("exec: \"/etc/passwd\": permission denied"), FailureKind::permission_denied);
  EXPECT_EQ(kind("exec: \"/tmp\": is a directory"), FailureKind::is_directory);
  EXPECT_EQ(kind("error mounting \"/a\" to rootfs at \"/b\": not a directory"), FailureKind::not_directory);
  EXPECT_EQ(kind("exec: \"/x\": stat /x: no such file or directory"), FailureKind::no_such_file);
  EXPECT_EQ(kind("unable to apply cgroup configuration"), FailureKind::other);
}

TEST(Failure, FindsThePath) {
  EXPECT_EQ(classify_failure(Stage::exec, "error: exec: \"a b\": permission denied").path, "a b");
  EXPECT_EQ(classify_failure(Stage::exec, "executable file `c` not found in $PATH").path, "c");
  EXPECT_EQ(classify_failure(Stage::exec, "something else").path, "");
}

}  // namespace
}  // namespace gantry::shim
