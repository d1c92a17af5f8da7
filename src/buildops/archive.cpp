#include "buildops/archive.hpp"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

#include "base/error.hpp"
#include "storage/decompress.hpp"
#include "storage/tar_reader.hpp"
#include "storage/unpack.hpp"

namespace gantry::buildops {
namespace {

std::shared_ptr<storage::ByteSource> open_stream(const sys::Fd& file) {
  if (::lseek(file.get(), 0, SEEK_SET) != 0) throw Error::from_errno(errno, "seek");
  return storage::decompress(storage::make_file_source(file.duplicate()));
}

}  // namespace

bool is_archive(const sys::Fd& file) {
  try {
    const auto stream = open_stream(file);
    storage::TarReader reader(*stream, {});
    return reader.next() != nullptr;
  } catch (const Error& e) {
    if (e.code() == Errc::invalid_argument || e.code() == Errc::corrupted) return false;
    throw;
  }
}

void unpack_archive(const sys::Fd& file, int root, const std::string& directory, const std::optional<Owner>& owner,
                    std::stop_token stop) {
  const auto stream = open_stream(file);
  const std::stop_callback abort(stop, [&] { stream->abort(); });
  storage::UnpackOptions options;
  options.directory = directory;
  options.clamp_names = true;
  if (owner) {
    options.uid = owner->uid;
    options.gid = owner->gid;
  }
  storage::unpack(root, *stream, options);
}

}  // namespace gantry::buildops
