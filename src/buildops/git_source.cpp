#include <algorithm>
#include <optional>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "base/text.hpp"
#include "buildcache/mutables.hpp"
#include "buildcache/snapshots.hpp"
#include "buildops/copy.hpp"
#include "buildops/exec_directory.hpp"
#include "buildops/git_command.hpp"
#include "buildops/source_op.hpp"
#include "session/sessions.hpp"
#include "storage/tree.hpp"
#include "sys/xattr.hpp"

namespace gantry::buildops {
namespace {

constexpr std::size_t kShaLength = 40;
constexpr std::size_t kSha256Length = 64;

bool is_commit(const std::string& ref) {
  return (ref.size() == kShaLength || ref.size() == kSha256Length) && is_lower_hex(ref);
}

/// "git@host:path", or a URL whose scheme git itself speaks.
void validate_remote(const std::string& remote) {
  const std::size_t scheme = remote.find("://");
  bool known = false;
  if (scheme != std::string::npos) {
    for (const std::string_view name : {"http", "https", "git", "ssh", "git+ssh"})
      known = known || remote.substr(0, scheme) == name;
  } else {
    const std::size_t colon = remote.find(':');
    known = colon != std::string::npos && colon > 0 && remote.find("::") == std::string::npos;
  }
  if (!known || remote.starts_with('-') || remote.find_first_of("\n\r") != std::string::npos ||
      remote.find('\0') != std::string::npos)
    throw Error(Errc::invalid_argument, fmt::format("invalid git URL {}", quote(remote)));
}

void validate_ref(const std::string& ref) {
  if (ref.starts_with('-') || ref.find_first_of("\n\r :~^*?[\\") != std::string::npos ||
      ref.find("..") != std::string::npos || ref.find('\0') != std::string::npos)
    throw Error(Errc::invalid_argument, fmt::format("invalid git ref {}", quote(ref)));
}

std::string host_of(const std::string& remote) {
  const std::size_t scheme = remote.find("://");
  std::string rest = scheme == std::string::npos ? remote : remote.substr(scheme + 3);
  rest.erase(std::min(rest.find_first_of(scheme == std::string::npos ? ":/" : "/"), rest.size()));
  const std::size_t user = rest.rfind('@');
  return user == std::string::npos ? rest : rest.substr(user + 1);
}

/// Without what is nobody's business: passwords in URLs.
std::string shown_remote(const std::string& remote) {
  const std::size_t scheme = remote.find("://");
  const std::size_t user = remote.find('@');
  if (scheme == std::string::npos || user == std::string::npos || user > remote.find('/', scheme + 3)) return remote;
  return remote.substr(0, scheme + 3) + "xxxxx" + remote.substr(user);
}

/// Removes every ".git" below: what submodules leave, whose targets are gone.
void remove_git_entries(int directory, int depth) {
  if (depth > storage::kDeepestWalk) throw Error(Errc::invalid_argument, "repository is nested too deeply");
  for (const std::string& name : storage::list_names(directory)) {
    const auto st = storage::find_stat(directory, name.c_str());
    if (!st) continue;
    if (name == ".git") sys::remove_tree(sys::entry_path(directory, name));
    else if (S_ISDIR(st->st_mode))
      remove_git_entries(storage::open_subdirectory(directory, name.c_str()).get(), depth + 1);
  }
}

class GitSource final : public solver::Operation {
 public:
  GitSource(const Services& services, const llb::Vertex& vertex) : services_(services) {
    const pb::SourceOp& source = vertex.op().source();
    const std::string rest = parse_source_name(source.identifier()).rest;
    const std::size_t hash = rest.find('#');
    remote_ = source_attribute(source, "git.fullurl");
    if (remote_.empty()) remote_ = "git://" + rest.substr(0, hash);
    if (hash != std::string::npos) {
      const auto [ref, directory] = split_once(std::string_view(rest).substr(hash + 1), ':');
      ref_ = ref;
      directory_ = storage::clamp_relative(directory);
    }
    validate_remote(remote_);
    validate_ref(ref_);
    keep_git_ = source_attribute(source, "git.keepgitdir") == "true";
    submodules_ = source_attribute(source, "git.skipsubmodules") != "true";
    checksum_ = source_attribute(source, "git.checksum");
    token_secret_ = source_attribute(source, "git.authtokensecret");
    header_secret_ = source_attribute(source, "git.authheadersecret");
    known_hosts_ = source_attribute(source, "git.knownsshhosts");
    agent_ = source_attribute(source, "git.mountsshsock");
  }
  bool is_work() const override { return false; }

  solver::CacheMap cache_map(solver::OpContext& context) override {
    if (is_commit(ref_)) commit_ = ref_;
    else if (commit_.empty()) resolve(context);
    if (!checksum_.empty() && !commit_.starts_with(checksum_))
      throw Error(Errc::invalid_argument, fmt::format("expected checksum to match {}, got {}", checksum_, commit_));
    solver::CacheMap map;
    map.key = fmt::format("git.v1\n{}\n{}\n{}\n{}", commit_, directory_, submodules_, keep_git_ ? remote_ : "");
    return map;
  }

  std::vector<buildcache::SnapshotPtr> execute(solver::OpContext& context,
                                               const std::vector<buildcache::SnapshotPtr>&) override {
    ExecDirectory scratch(services_.run_directory, random_id().substr(0, 25));
    GitCommand git = make_git(context, scratch);
    buildcache::MutableRequest request;
    request.key = "git:" + remote_;
    request.type = buildcache::RecordType::source_git;
    request.description = "shared git repo for " + shown_remote(remote_);
    request.sharing = buildcache::Sharing::locked;
    const auto repository = services_.mutables.acquire(std::move(request), context.stop);
    repository->mark_changed();
    fetch(git, repository->path());
    auto work = services_.snapshots.create(nullptr, buildcache::RecordType::regular,
                                           fmt::format("git snapshot for {}#{}", shown_remote(remote_), ref_));
    if (directory_.empty()) check_out(git, repository->path(), work->mount());
    else check_out_part(git, repository->path(), work->mount(), context.stop);
    return {work->commit()};
  }

 private:
  bool uses_ssh() const {
    return remote_.find("://") == std::string::npos || remote_.starts_with("ssh://") ||
           remote_.starts_with("git+ssh://");
  }

  std::optional<std::string> find_secret(solver::OpContext& context, const std::string& name) const {
    if (name.empty()) return std::nullopt;
    for (const std::string& id : {name + "." + host_of(remote_), name}) {
      try {
        return services_.sessions.secret(context.sessions.ids(), id, context.stop);
      } catch (const Error& e) {
        if (e.code() != Errc::not_found && e.code() != Errc::unavailable) throw;
      }
    }
    return std::nullopt;
  }

  GitCommand make_git(solver::OpContext& context, ExecDirectory& scratch) {
    GitCommand git(scratch.path(), context.progress, context.stop);
    const buildlink::Settings settings = services_.engine.settings();
    for (const auto& [name, value] :
         {std::pair{"http_proxy", settings.HttpProxy}, std::pair{"https_proxy", settings.HttpsProxy},
          std::pair{"no_proxy", settings.NoProxy}})
      if (!value.empty()) git.environment(fmt::format("{}={}", name, value));
    if (uses_ssh()) {
      set_up_ssh(git, context, scratch);
      return git;
    }
    std::optional<std::string> header = find_secret(context, header_secret_);
    if (!header)
      if (const auto token = find_secret(context, token_secret_))
        header = "basic " + base64_encode("x-access-token:" + std::string(trim(*token)));
    if (header) {
      const std::size_t path = remote_.find('/', remote_.find("://") + 3);
      git.set(fmt::format("http.{}.extraheader", remote_.substr(0, path) + "/"),
              fmt::format("Authorization: {}", trim(*header)));
    }
    return git;
  }

  void set_up_ssh(GitCommand& git, solver::OpContext& context, ExecDirectory& scratch) {
    std::string command = "ssh -F /dev/null -o BatchMode=yes";
    if (known_hosts_.empty()) {
      command += " -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null";
    } else {
      const sys::Path file = scratch.write("known_hosts", known_hosts_, 0600);
      command += " -o StrictHostKeyChecking=yes -o UserKnownHostsFile=" + file.string();
    }
    git.environment("GIT_SSH_COMMAND=" + command);
    const std::string id = agent_.empty() ? "default" : agent_;
    for (const auto& session : services_.sessions.find(context.sessions.ids(), session::kCheckAgent, context.stop)) {
      if (!session->check_agent(id, context.stop)) continue;
      const sys::Path socket = scratch.path() / "agent";
      agents_.push_back(session->forward_agent(id, socket, 0, 0, 0600));
      git.environment("SSH_AUTH_SOCK=" + socket.string());
      return;
    }
  }

  /// Which commit the ref means now.
  void resolve(solver::OpContext& context) {
    ExecDirectory scratch(services_.run_directory, random_id().substr(0, 25));
    const GitCommand git = make_git(context, scratch);
    std::vector<std::string> arguments{"ls-remote", "--", remote_};
    if (ref_.empty()) arguments.emplace_back("HEAD");
    else arguments.insert(arguments.end(), {ref_, ref_ + "^{}"});
    const std::string listed = git.run(scratch.path(), arguments);
    agents_.clear();
    // The later one of these that exists is meant; "^{}" is the commit that an annotated tag names.
    const std::vector<std::string> names =
        ref_.empty() ? std::vector<std::string>{"HEAD"}
                     : std::vector<std::string>{"refs/tags/" + ref_, "refs/tags/" + ref_ + "^{}", "refs/heads/" + ref_,
                                                ref_, ref_ + "^{}"};
    std::ptrdiff_t best = -1;
    for (const std::string& line : split(listed, '\n')) {
      const auto [commit, name] = split_once(line, '\t');
      const auto place = std::ranges::find(names, name) - names.begin();
      if (place == std::ssize(names) || place < best || !is_commit(std::string(commit))) continue;
      best = place;
      commit_ = commit;
      full_ref_ = name.ends_with("^{}") ? name.substr(0, name.size() - 3) : name;
    }
    if (commit_.empty())
      throw Error(Errc::not_found, fmt::format("repository does not contain ref {}, output: {}",
                                               ref_.empty() ? "HEAD" : ref_, quote(listed)));
  }

  std::string kept_ref() const { return "refs/gantry/" + commit_; }

  static bool has_commit(const GitCommand& git, const sys::Path& repository, const std::string& commit) {
    return !git.run(repository, {"for-each-ref", "--format=%(objectname)", "refs/gantry/" + commit}).empty();
  }

  /// Brings the commit into our copy of the repository; only it if the server can do that, else everything.
  void fetch(GitCommand& git, const sys::Path& repository) const {
    if (!std::filesystem::exists(repository / "HEAD")) git.run(repository, {"init", "--quiet", "--bare"});
    if (has_commit(git, repository, commit_)) return;
    const auto shallow = [&](const std::string& from) {
      git.run(repository, {"fetch", "--quiet", "--depth=1", "--no-tags", "--force", "--no-recurse-submodules", "--",
                           remote_, fmt::format("{}:{}", from, kept_ref())});
    };
    try {
      shallow(commit_);
      return;
    } catch (const Error& e) {
      if (e.code() != Errc::unavailable) throw;
    }
    // Servers may refuse commits that no ref names, and the simplest ones know nothing of depth.
    git.run(repository, {"fetch", "--quiet", "--tags", "--force", "--no-recurse-submodules", "--", remote_,
                         "+refs/heads/*:refs/remotes/origin/*"});
    git.run(repository, {"update-ref", kept_ref(), commit_ + "^{commit}"});
  }

  void check_out(GitCommand& git, const sys::Path& repository, const sys::Path& target) const {
    git.run(target, {"init", "--quiet"});
    const std::string allowed = "http:https:git:ssh";
    git.protocols("file");
    git.run(target, {"fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--",
                     "file://" + repository.string(), fmt::format("{}:{}", kept_ref(), kept_ref())});
    git.protocols(allowed);
    git.run(target, {"checkout", "--quiet", "--force", commit_});
    git.run(target, {"remote", "add", "origin", remote_});
    if (submodules_ && std::filesystem::exists(target / ".gitmodules"))
      git.run(target, {"submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"});
    if (keep_git_) {
      if (full_ref_.starts_with("refs/heads/") || full_ref_.starts_with("refs/tags/"))
        git.run(target, {"update-ref", full_ref_, commit_});
      git.run(target, {"update-ref", "-d", kept_ref()});
      (void)::unlink((target / ".git/FETCH_HEAD").c_str());
    } else {
      remove_git_entries(sys::open_file(target, O_RDONLY | O_DIRECTORY).get(), 0);
    }
  }

  /// A directory of the repository: checked out beside, then taken over.
  void check_out_part(GitCommand& git, const sys::Path& repository, const sys::Path& target,
                      std::stop_token stop) const {
    auto whole = services_.snapshots.create(nullptr, buildcache::RecordType::internal, "git checkout");
    check_out(git, repository, whole->mount());
    const sys::Fd from = sys::open_file(whole->mount(), O_RDONLY | O_DIRECTORY);
    const sys::Fd to = sys::open_file(target, O_RDONLY | O_DIRECTORY);
    CopyRequest request;
    request.source = "/" + directory_;
    request.destination = "/";
    request.directory_contents = true;
    request.follow_symlink = true;
    request.create_destination = true;
    try {
      copy(from.get(), to.get(), request, stop);
    } catch (const Error& e) {
      if (e.code() != Errc::not_found) throw;
      throw Error(Errc::not_found, fmt::format("{}: not found in the repository", directory_));
    }
    if (keep_git_) {
      request.source = "/.git";
      request.destination = "/.git";
      copy(from.get(), to.get(), request, stop);
    }
  }

  const Services& services_;
  std::string remote_;
  std::string ref_;
  std::string directory_;
  bool keep_git_ = false;
  bool submodules_ = true;
  std::string checksum_;
  std::string token_secret_;
  std::string header_secret_;
  std::string known_hosts_;
  std::string agent_;
  std::string commit_;
  std::string full_ref_;
  std::vector<std::unique_ptr<session::AgentSocket>> agents_;
};

}  // namespace

std::unique_ptr<solver::Operation> make_git_source(const Services& services, const llb::Vertex& vertex) {
  return std::make_unique<GitSource>(services, vertex);
}

}  // namespace gantry::buildops
