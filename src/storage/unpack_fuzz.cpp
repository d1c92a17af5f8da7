#include <cstdint>
#include <string>

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/fuzz.hpp"
#include "storage/pack.hpp"
#include "storage/tar_fuzz.hpp"
#include "storage/unpack.hpp"
#include "sys/file.hpp"

using gantry::fuzz::accepts;
using gantry::fuzz::require;
namespace storage = gantry::storage;
namespace sys = gantry::sys;

namespace {

/// A directory on a memory file system: `root` is unpacked into, `canary` lies beside it.
const sys::Path& place() {
  // Never destroyed: the exit handler needs it.
  static const sys::Path& path = *new sys::Path([] {
    std::string name = "/dev/shm/gantry-fuzz-XXXXXX";
    require(::mkdtemp(name.data()) != nullptr, "a scratch directory");
    ::atexit([] { sys::remove_tree(place()); });
    sys::write_atomically(sys::Path(name) / "canary", "untouched", 0600, false);
    return sys::Path(name);
  }());
  return path;
}

void unpack(const std::string& tar, storage::UnpackMode mode) {
  const sys::Path root = place() / "root";
  sys::make_directories(root);
  const sys::Fd fd = sys::open_file(root, O_RDONLY | O_DIRECTORY);
  storage::UnpackOptions options;
  options.mode = mode;
  options.budget.bytes = 4 << 20;
  options.budget.entries = 2000;
  const auto source = storage::make_string_source(tar);
  const bool whole = accepts([&] {
    const storage::UnpackResult result = storage::unpack(fd.get(), *source, options);
    require(result.entries <= options.budget.entries && result.bytes <= options.budget.bytes, "within the budget");
  });
  if (whole) {
    // What was taken in must be fit to be given out.
    const storage::ByteSink nowhere = [](std::string_view) {};
    accepts([&] { storage::pack(fd.get(), {}, nowhere); });
  }
  struct stat info{};
  require(::lstat((place() / "canary").c_str(), &info) == 0 && info.st_size == 9 && info.st_mode == (S_IFREG | 0600) &&
              info.st_nlink == 1,
          "what lies beside is untouched");
  require(sys::list_directory(place()).size() == 2, "nothing appears beside");
  sys::remove_tree(root);
}

}  // namespace

// A tar of a layer, and one of `docker cp`, into a directory that nothing may leave.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string tar(reinterpret_cast<const char*>(data), size);
  unpack(tar, storage::UnpackMode::layer);
  unpack(tar, storage::UnpackMode::tree);
  return 0;
}
