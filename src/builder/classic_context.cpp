#include "builder/classic_context.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <utility>

#include "base/error.hpp"
#include "buildcache/cache.hpp"
#include "dockerfile/ignore.hpp"
#include "dockerfile/syntax.hpp"
#include "dockerfile/values.hpp"
#include "storage/byte_source.hpp"
#include "storage/decompress.hpp"
#include "storage/root_access.hpp"
#include "storage/unpack.hpp"
#include "sys/fd.hpp"

namespace gantry::builder {
namespace {

class BodySource : public storage::ByteSource {
 public:
  explicit BodySource(buildlink::Exchange& exchange) : exchange_(exchange) {}
  std::size_t read(char* to, std::size_t size) override { return exchange_.read(to, size); }

 private:
  buildlink::Exchange& exchange_;
};

std::string dockerfile_path(const std::string& asked) {
  const std::string path = dockerfile::clean_path(asked.empty() ? "Dockerfile" : asked);
  if (path == ".." || path.starts_with("../"))
    throw Error(Errc::invalid_argument, "forbidden path outside the build context: " + asked + " (" + path + ")");
  return path.starts_with('/') ? path.substr(1) : path;
}

/// Takes a file out of the context if the context's patterns exclude it. Only a plain name: parents may be links.
void drop_if_excluded(int root, const dockerfile::IgnoreMatcher& ignore, const std::string& path) {
  if (!ignore.excludes(path)) return;
  const std::size_t slash = path.rfind('/');
  const sys::Fd parent = sys::open_in_root(root, slash == std::string::npos ? "." : path.substr(0, slash),
                                           O_PATH | O_DIRECTORY | O_CLOEXEC);
  ::unlinkat(parent.get(), path.c_str() + (slash == std::string::npos ? 0 : slash + 1), 0);
}

}  // namespace

ClassicContext receive_context(const Services& services, ContextTrees& trees, const ClassicOptions& options,
                               buildlink::Exchange& exchange) {
  const auto workspace =
      services.cache.snapshots().create(nullptr, buildcache::RecordType::internal, "classic build context");
  const sys::Path path = workspace->mount();
  ClassicContext out;
  {
    const sys::Fd root(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!root) throw Error::from_errno(errno, "opening the build context");
    const auto tar = storage::decompress(std::make_shared<BodySource>(exchange));
    try {
      // Names that climb out stay inside, as with Docker.
      storage::UnpackOptions unpack;
      unpack.clamp_names = true;
      storage::unpack(root.get(), *tar, unpack);
    } catch (Error& e) {
      e.prefix("Error processing tar file");
      throw;
    }
    out.filename = dockerfile_path(options.dockerfile);
    const std::size_t limit = dockerfile::kMaxDockerfileSize + 1;
    auto text = storage::read_file_in_root(root.get(), out.filename, limit);
    if (!text && out.filename == "Dockerfile") {
      text = storage::read_file_in_root(root.get(), "dockerfile", limit);
      if (text) out.filename = "dockerfile";
    }
    if (!text) throw Error(Errc::invalid_argument, "Cannot locate specified Dockerfile: " + out.filename);
    if (text->empty()) throw Error(Errc::invalid_argument, "the Dockerfile (" + out.filename + ") cannot be empty");
    out.dockerfile = std::move(*text);
    if (const auto patterns = storage::read_file_in_root(root.get(), ".dockerignore", dockerfile::kMaxIgnoreFileSize)) {
      const dockerfile::IgnoreMatcher ignore(dockerfile::parse_ignore_file(*patterns));
      drop_if_excluded(root.get(), ignore, ".dockerignore");
      drop_if_excluded(root.get(), ignore, out.filename);
    }
  }
  out.tree = trees.add(workspace->commit());
  return out;
}

}  // namespace gantry::builder
