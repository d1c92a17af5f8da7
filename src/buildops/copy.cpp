#include "buildops/copy.hpp"

#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "buildops/archive.hpp"
#include "buildops/copier.hpp"
#include "buildops/tree_path.hpp"
#include "storage/tree.hpp"
#include "sys/file.hpp"

namespace gantry::buildops {
namespace {

std::optional<struct stat> find_resolved(int root, const std::string& path) {
  if (path.empty()) return storage::get_stat(root);
  const auto [directory, base] = split_last(path);
  try {
    return storage::find_stat(open_directory(root, directory).get(), base.c_str());
  } catch (const Error& e) {
    if (e.sys_errno() == ENOENT || e.sys_errno() == ENOTDIR) return std::nullopt;
    throw;
  }
}

class CopyJob {
 public:
  CopyJob(int source_root, int destination_root, const CopyRequest& request, std::stop_token stop)
      : source_root_(source_root),
        destination_root_(destination_root),
        request_(request),
        stop_(std::move(stop)),
        filter_(request.include, request.exclude) {
    options_.looks = {request.owner, request.mode, request.timestamp};
    options_.always_replace = request.always_replace;
    options_.check = [this] {
      if (stop_.stop_requested()) throw Error(Errc::cancelled, "context canceled");
    };
  }

  void run() {
    if (!request_.create_destination) require_destination();
    std::vector<std::string> sources{storage::clamp_relative(request_.source)};
    if (request_.wildcards) {
      sources = expand_wildcards(source_root_, request_.source, request_.follow_symlink);
      if (sources.empty()) {
        if (request_.allow_empty_wildcard) return;
        throw Error(Errc::not_found, fmt::format("{} not found", absolute_path(request_.source)));
      }
    }
    for (const std::string& source : sources) {
      options_.check();
      if (request_.unpack && unpack_source(source)) continue;
      copy_source(source);
    }
  }

 private:
  void require_destination() const {
    const auto [parent, base] = split_last(resolve_path(destination_root_, request_.destination));
    if (!find_resolved(destination_root_, parent))
      throw Error(Errc::not_found, fmt::format("failed to stat {}: no such file or directory", request_.destination));
  }

  bool unpack_source(const std::string& source) const {
    const std::string path = resolve_path(source_root_, source);
    const auto st = find_resolved(source_root_, path);
    if (!st || !S_ISREG(st->st_mode)) return false;
    const sys::Fd file = sys::open_beneath(source_root_, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    if (!is_archive(file)) return false;
    const std::string target = resolve_path(destination_root_, request_.destination);
    make_directories(destination_root_, target, options_.looks);
    unpack_archive(file, destination_root_, target, request_.owner, stop_);
    return true;
  }

  void copy_source(const std::string& source) const {
    require_paths(source);
    const std::string path = resolve_path(source_root_, source, request_.follow_symlink);
    const auto st = find_resolved(source_root_, path);
    if (!st) throw Error(Errc::not_found, fmt::format("\"/{}\": not found", source));
    make_directories(destination_root_, resolve_path(destination_root_, directory_of_destination()), options_.looks);
    const std::string target = choose_target(source, S_ISDIR(st->st_mode));
    Copier(source_root_, destination_root_, filter_, options_).copy(path, target);
  }

  void require_paths(const std::string& source) const {
    for (const std::string& required : request_.required) {
      const std::string path = join_path(source, required);
      bool found = false;
      for (const std::string& match : expand_wildcards(source_root_, path, true))
        found = found || find_resolved(source_root_, resolve_path(source_root_, match));
      if (!found) throw Error(Errc::not_found, fmt::format("\"{}\": not found", absolute_path(path)));
    }
  }

  /// What must exist before anything is copied: the destination if it is written as a directory, else what holds it.
  std::string directory_of_destination() const {
    const std::string& path = request_.destination;
    const std::size_t slash = path.rfind('/');
    const std::string last = slash == std::string::npos ? path : path.substr(slash + 1);
    if (last.empty() || last == ".") return path;
    return slash == std::string::npos ? std::string() : path.substr(0, slash + 1);
  }

  /// Where the source itself goes; the directory that holds it exists then.
  std::string choose_target(const std::string& source, bool is_directory) const {
    std::string target = resolve_path(destination_root_, request_.destination);
    const auto there = find_resolved(destination_root_, target);
    const bool merges = is_directory && request_.directory_contents;
    const bool goes_inside = is_directory ? !request_.directory_contents && there : there && S_ISDIR(there->st_mode);
    if (goes_inside) target = join_path(target, split_last(source).second);
    make_directories(destination_root_, merges && !there ? target : split_last(target).first, options_.looks);
    return target;
  }

  const int source_root_;
  const int destination_root_;
  const CopyRequest& request_;
  const std::stop_token stop_;
  const PathFilter filter_;
  CopierOptions options_;
};

}  // namespace

void copy(int source_root, int destination_root, const CopyRequest& request, std::stop_token stop) {
  CopyJob(source_root, destination_root, request, std::move(stop)).run();
}

}  // namespace gantry::buildops
