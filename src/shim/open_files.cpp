#include "shim/open_files.hpp"

namespace gantry::shim {
namespace {

rlimit g_open_files{};
bool g_open_files_raised = false;

}  // namespace

rlimit original_open_files() {
  if (!g_open_files_raised) (void)::getrlimit(RLIMIT_NOFILE, &g_open_files);
  return g_open_files;
}

void raise_open_files() {
  rlimit limit = original_open_files();
  g_open_files_raised = true;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

OriginalOpenFiles::OriginalOpenFiles() {
  if (g_open_files_raised) (void)::setrlimit(RLIMIT_NOFILE, &g_open_files);
}

OriginalOpenFiles::~OriginalOpenFiles() {
  if (!g_open_files_raised) return;
  const rlimit limit{g_open_files.rlim_max, g_open_files.rlim_max};
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace gantry::shim
