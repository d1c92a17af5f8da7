#include "engine/top.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace gantry::engine {
namespace {

TEST(Top, KeepsTheRowsOfTheContainerAndJoinsTheCommand) {
  const ProcessList list = parse_ps(
      "UID        PID  PPID  C CMD\nroot         1     0  0 /sbin/init\nroot        77     1  0 sleep 100 -x\n", {77});
  EXPECT_EQ(list.titles, (std::vector<std::string>{"UID", "PID", "PPID", "C", "CMD"}));
  ASSERT_EQ(list.processes.size(), 1u);
  EXPECT_EQ(list.processes[0], (std::vector<std::string>{"root", "77", "1", "0", "sleep 100 -x"}));
}

TEST(Top, NeedsAPidColumn) {
  try {
    (void)parse_ps("UID CMD\nroot x\n", {1});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.message(), "Couldn't find PID field in ps output");
  }
}

TEST(Top, RefusesAColumnThatPretendsToBeThePid) {
  EXPECT_NO_THROW(validate_ps_args({"-o", "pid=PID,cmd=COMMAND"}));
  EXPECT_THROW(validate_ps_args({"-o", "cmd=PID"}), Error);
  EXPECT_THROW(validate_ps_args({"-ouser,cmd=PID"}), Error);
}

}  // namespace
}  // namespace gantry::engine
