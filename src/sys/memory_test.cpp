#include "sys/memory.hpp"

#include <cstdio>
#include <string>

#include <gtest/gtest.h>

#include "sys/file.hpp"

namespace gantry::sys {
namespace {

/// KiB of file pages that are resident in this process.
long resident_file_pages() {
  const std::string status = read_file("/proc/self/status", 1 << 16);
  const std::size_t at = status.find("RssFile:");
  return at == std::string::npos ? -1 : std::stol(status.substr(at + 8));
}

TEST(Memory, TrimmingLetsCodeGoAndTheProgramRunsOn) {
  const long before = resident_file_pages();
  ASSERT_GT(before, 0);
  EXPECT_GT(trim_resident_memory(), 100u << 10);
  EXPECT_LT(resident_file_pages(), before);
  // Code, constants and relocated data are all as they were.
  char text[32];
  std::snprintf(text, sizeof text, "%d %s", 42, "after");
  EXPECT_EQ(std::string(text), "42 after");
  EXPECT_THROW(read_file("/nosuch", 1), std::exception);
}

}  // namespace
}  // namespace gantry::sys
