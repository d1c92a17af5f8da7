#include "base/error.hpp"
#include "base/text.hpp"
#include "dockerfile/values.hpp"
#include "frontend/contexts.hpp"
#include "frontend/ops.hpp"

namespace gantry::frontend {
namespace {

bool is_scp_address(const std::string& text) {
  // user@host:path, where the path does not begin with a port.
  const std::size_t at = text.find('@');
  const std::size_t colon = text.find(':');
  return at != std::string::npos && at > 0 && colon != std::string::npos && at < colon && text.find('/') > at &&
         text.find("://") == std::string::npos && text.find_first_of(" \t\n") == std::string::npos;
}

/// The fragment `#ref:directory`.
void read_fragment(GitSource& out, std::string_view fragment) {
  const auto [ref, directory] = split_once(fragment, ':');
  out.ref = std::string(ref);
  out.directory = std::string(directory);
}

/// `?ref=…&subdir=…`, the newer spelling of the same.
void read_query(GitSource& out, std::string_view query) {
  for (const auto& field : split(query, '&')) {
    const auto [key, value] = split_once(field, '=');
    const std::string text(value);
    if (key.empty()) continue;
    if (key == "ref" || key == "branch" || key == "tag") {
      if (!out.ref.empty())
        throw Error(Errc::invalid_argument, "ref conflicts in git address: " + out.ref + " and " + text);
      out.ref = key == "branch" ? "refs/heads/" + text : key == "tag" ? "refs/tags/" + text : text;
    } else if (key == "subdir") {
      out.directory = text;
    } else if (key == "checksum" || key == "commit") {
      out.checksum = text;
    } else if (key == "keep-git-dir") {
      out.keep_git_directory = text.empty() || dockerfile::parse_bool(text).value_or(false);
    } else if (key == "submodules") {
      out.submodules = text.empty() || dockerfile::parse_bool(text).value_or(true);
    } else if (key != "fetch-by-commit") {
      throw Error(Errc::invalid_argument, "unexpected query " + quote(std::string(key)) + " in git address");
    }
  }
}

}  // namespace

bool is_http_source(const std::string& text) { return text.starts_with("http://") || text.starts_with("https://"); }

std::optional<GitSource> parse_git_source(const std::string& text) {
  GitSource out;
  const auto [before, fragment] = split_once(text, '#');
  const auto [address, query] = split_once(before, '?');
  out.remote = std::string(address);
  const bool http = is_http_source(out.remote);
  const bool named_git = out.remote.starts_with("git://") || out.remote.starts_with("ssh://");
  const bool github = out.remote.starts_with("github.com/");
  if (!(http && out.remote.ends_with(".git")) && !named_git && !(github && !fragment.empty()) &&
      !(github && out.remote.ends_with(".git")) && !(github && query.empty()) && !is_scp_address(out.remote))
    return std::nullopt;
  if (github) out.remote = "https://" + out.remote;
  read_fragment(out, fragment);
  if (!query.empty()) read_query(out, query);
  return out;
}

// The identifier has no scheme of its own but "git"; how the repository is reached is told by `git.fullurl`.
llb::Output add_git_op(llb::Graph& graph, const GitSource& source, bool keep_git_directory, const std::string& checksum,
                       const std::string& step, bool ignore_cache) {
  std::string address = source.remote;
  if (const std::size_t scheme = address.find("://"); scheme != std::string::npos) address = address.substr(scheme + 3);
  if (const std::size_t user = address.find('@'); user != std::string::npos && user < address.find('/'))
    address = address.substr(user + 1);
  std::string identifier = "git://" + address;
  if (!source.ref.empty() || !source.directory.empty()) identifier += "#" + source.ref;
  if (!source.directory.empty()) identifier += ":" + source.directory;
  Attributes attributes = {{"git.fullurl", source.remote},
                           {"git.authtokensecret", "GIT_AUTH_TOKEN"},
                           {"git.authheadersecret", "GIT_AUTH_HEADER"}};
  if (keep_git_directory) attributes.emplace_back("git.keepgitdir", "true");
  const std::string& wanted = checksum.empty() ? source.checksum : checksum;
  if (!wanted.empty()) attributes.emplace_back("git.checksum", wanted);
  if (source.submodules && !*source.submodules) attributes.emplace_back("git.skipsubmodules", "true");
  return add_source_op(graph, identifier, attributes, std::nullopt, {.name = step, .ignore_cache = ignore_cache});
}

}  // namespace gantry::frontend
