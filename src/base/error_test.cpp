#include "base/error.hpp"

#include <cerrno>

#include <gtest/gtest.h>

#include "base/failpoint.hpp"
#include "base/ids.hpp"

namespace gantry {
namespace {

TEST(Error, TextForTheUserIsFinalAndTheRestGrows) {
  Error user(Errc::not_found, "No such container: web");
  user.add_context("creating container");
  EXPECT_STREQ(user.what(), "No such container: web");
  Error ours = Error::from_errno(ENOSPC, "mount overlay");
  ours.add_context("preparing root filesystem");
  EXPECT_STREQ(ours.what(), "preparing root filesystem: mount overlay: No space left on device");
  EXPECT_EQ(ours.sys_errno(), ENOSPC);
}

TEST(Failpoint, ActsOnlyWhenArmedAndAtTheGivenPass) {
  arm_failpoints("a@2=error; b=error");
  FAILPOINT("c");
  FAILPOINT("a");
  EXPECT_THROW(FAILPOINT("a"), Error);
  FAILPOINT("a");
  EXPECT_THROW(FAILPOINT("b"), Error);
  arm_failpoints("");
  FAILPOINT("b");
  EXPECT_THROW(arm_failpoints("x=explode"), Error);
}

TEST(Failpoint, KillEndsTheProcessAtOnce) {
  EXPECT_EXIT(
      {
        arm_failpoints("here=kill");
        FAILPOINT("here");
      },
      testing::KilledBySignal(SIGKILL), "");
}

TEST(Ids, AreSixtyFourDigitsAndNeverLookLikeANumber) {
  for (int i = 0; i < 1000; ++i) {
    const std::string id = random_id();
    ASSERT_EQ(id.size(), 64u);
    ASSERT_NE(id.substr(0, 12).find_first_of("abcdef"), std::string::npos);
  }
}

}  // namespace
}  // namespace gantry
