#include "sys/memory.hpp"

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>

#include <malloc.h>
#include <sys/mman.h>

namespace gantry::sys {
namespace {

struct CloseFile {
  void operator()(std::FILE* file) const noexcept { (void)std::fclose(file); }
};

/// A line of /proc/self/maps: "start-end perms offset device inode   path" (proc_pid_maps(5)).
struct Mapping {
  std::uintptr_t start = 0;
  std::uintptr_t end = 0;
  char permissions[5] = {};
  unsigned long inode = 0;
};

bool parse(const char* line, Mapping& into) {
  return std::sscanf(line, "%lx-%lx %4s %*s %*s %lu", &into.start, &into.end, into.permissions, &into.inode) == 4;
}

}  // namespace

std::size_t trim_resident_memory() noexcept {
  (void)::malloc_trim(0);
  std::size_t released = 0;
  const std::unique_ptr<std::FILE, CloseFile> maps(std::fopen("/proc/self/maps", "re"));
  if (!maps) return 0;
  char line[4096 + 128];
  while (std::fgets(line, sizeof line, maps.get()) != nullptr) {
    Mapping mapping;
    // Code only: it has no relocations, so no page of it differs from the file. The constants beside it may have some.
    if (!parse(line, mapping) || mapping.inode == 0 || std::strcmp(mapping.permissions, "r-xp") != 0) continue;
    const std::size_t size = mapping.end - mapping.start;
    if (::madvise(reinterpret_cast<void*>(mapping.start), size, MADV_DONTNEED) == 0) released += size;
  }
  return released;
}

}  // namespace gantry::sys
