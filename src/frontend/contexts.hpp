#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "frontend/options.hpp"
#include "frontend/resolver.hpp"
#include "llb/graph.hpp"

namespace gantry::frontend {

/// The Dockerfile that a build is made by.
struct DockerfileText {
  std::string filename;
  std::string text;
  pb::Definition definition;  // where it was read from
  pb::SourceInfo source() const;
};

/// A `--build-context` that replaces a stage, an image or the source of a copy.
struct NamedContext {
  enum class Kind { image, tree };
  Kind kind = Kind::tree;
  std::string reference;                     // image
  std::optional<std::string> config;         // tree: of an image that another target made
  std::string local_name;                    // tree: a directory of the client
  std::optional<pb::Definition> definition;  // tree: anything else
};

/// Where the files of a build come from: the client's directories, git, HTTP, and other builds' results.
class Contexts {
 public:
  Contexts(const BuildOptions& options, Resolver& resolver) : options_(options), resolver_(resolver) {}

  /// Fetches the Dockerfile. Throws invalid_argument `failed to read dockerfile: open X: no such file or directory`.
  DockerfileText load_dockerfile();
  /// The patterns of `<Dockerfile>.dockerignore`, else of `.dockerignore`; fetched once.
  const std::vector<std::string>& ignore_patterns();
  bool has_named(const std::string& name) const;
  /// The one for this platform if there is, else the one for all. Throws invalid_argument for a kind that is unknown.
  NamedContext named(const std::string& name, const image::Platform& platform);

  /// The build context, narrowed to what the build uses of it. Empty `paths`: nothing; with "/": everything.
  llb::Output add_build_context(llb::Graph& graph, const std::set<std::string>& paths);
  llb::Output add_named_tree(llb::Graph& graph, const NamedContext& context, const std::set<std::string>& paths);

 private:
  llb::Output add_local(llb::Graph& graph, const std::string& local, const std::string& step,
                        const std::vector<std::string>& excludes, const std::set<std::string>& paths);
  void load_remote();
  std::optional<std::string> read_ignore_of(const std::string& local, const std::string& step);

  const BuildOptions& options_;
  Resolver& resolver_;
  bool remote_loaded_ = false;
  std::optional<pb::Definition> remote_;             // the context's tree, if it is not a directory of the client
  std::optional<DockerfileText> remote_dockerfile_;  // the context is nothing but a Dockerfile
  pb::Definition dockerfile_source_;
  std::optional<std::vector<std::string>> ignore_;
};

/// What an address of `ADD` or a context names.
struct GitSource {
  std::string remote;     // for `git clone`
  std::string ref;        // branch, tag or commit; empty: the default branch
  std::string directory;  // below the repository's root
  std::string checksum;   // from "?checksum=" or "?commit="
  std::optional<bool> keep_git_directory;
  std::optional<bool> submodules;
};
/// nullopt if the text is no git address (`git://…`, `https://….git`, `git@host:path`, `github.com/…`).
std::optional<GitSource> parse_git_source(const std::string& text);
bool is_http_source(const std::string& text);
llb::Output add_git_op(llb::Graph& graph, const GitSource& source, bool keep_git_directory, const std::string& checksum,
                       const std::string& step, bool ignore_cache = false);

}  // namespace gantry::frontend
