#include "engine/stats.hpp"

#include <gtest/gtest.h>

namespace gantry::engine {
namespace {

TEST(Stats, ReadsInterfaceCountersWithoutLoopback) {
  const auto interfaces = parse_net_dev(
      "Inter-|   Receive                                                |  Transmit\n"
      " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls\n"
      "    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0  0 0\n"
      "  eth0:    1296      16    1    2    0     0          0         0      648       8    3    4    0     0  0 0\n");
  ASSERT_EQ(interfaces.size(), 1u);
  const InterfaceCounters& eth0 = interfaces.at("eth0");
  EXPECT_EQ(eth0.rx_bytes, 1296u);
  EXPECT_EQ(eth0.rx_dropped, 2u);
  EXPECT_EQ(eth0.tx_bytes, 648u);
  EXPECT_EQ(eth0.tx_errors, 3u);
  EXPECT_EQ(eth0.tx_dropped, 4u);
}

TEST(Stats, SumsTheProcessorTimeOfTheMachine) {
  EXPECT_EQ(parse_system_cpu("cpu  1 2 3 4 5 6 7 100 100 100\ncpu0 9\n"), 28u * 10'000'000u);
  EXPECT_EQ(parse_system_cpu(""), 0u);
}

}  // namespace
}  // namespace gantry::engine
