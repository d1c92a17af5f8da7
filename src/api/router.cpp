#include "api/router.hpp"

#include "api/http_error.hpp"
#include "base/expect.hpp"
#include "base/text.hpp"

namespace gantry::api {
namespace {

struct PatternPart {
  enum class Kind { literal, one, rest } kind;
  std::string text;  // the literal, or the parameter's name
};

std::vector<PatternPart> parse_pattern(std::string_view pattern) {
  EXPECTS(pattern.starts_with('/'));
  std::vector<PatternPart> out;
  for (const std::string& part : split(pattern.substr(1), '/')) {
    if (!part.starts_with('{')) {
      out.push_back({PatternPart::Kind::literal, part});
      continue;
    }
    EXPECTS(part.ends_with('}'));
    const std::string inner = part.substr(1, part.size() - 2);
    if (inner.ends_with(":.*")) out.push_back({PatternPart::Kind::rest, inner.substr(0, inner.size() - 3)});
    else out.push_back({PatternPart::Kind::one, inner});
  }
  return out;
}

using Segments = std::vector<std::string>;
using Params = std::vector<std::pair<std::string, std::string>>;

std::string join_range(const Segments& segments, std::size_t from, std::size_t to) {
  std::string out = segments[from];
  for (std::size_t i = from + 1; i < to; ++i) out += "/" + segments[i];
  return out;
}

/// Matches parts[p...] against segments[s...]. A `{name:.*}` takes as many segments as it can, at least one.
bool match_from(const std::vector<PatternPart>& parts, std::size_t p, const Segments& segments, std::size_t s,
                Params& params) {
  if (p == parts.size()) return s == segments.size();
  if (s >= segments.size()) return false;
  const PatternPart& part = parts[p];
  switch (part.kind) {
    case PatternPart::Kind::literal:
      return segments[s] == part.text && match_from(parts, p + 1, segments, s + 1, params);
    case PatternPart::Kind::one:
      if (segments[s].empty()) return false;
      params.emplace_back(part.text, segments[s]);
      if (match_from(parts, p + 1, segments, s + 1, params)) return true;
      params.pop_back();
      return false;
    case PatternPart::Kind::rest:
      for (std::size_t end = segments.size(); end > s; --end) {
        params.emplace_back(part.text, join_range(segments, s, end));
        if (match_from(parts, p + 1, segments, end, params)) return true;
        params.pop_back();
      }
      return false;
  }
  return false;
}

/// "/v1.41/x" has the segments "v1.41" and "x". A version's name has digits and dots only.
bool is_version_segment(std::string_view segment) {
  return segment.size() > 1 && segment.front() == 'v' &&
         segment.find_first_not_of("0123456789.", 1) == std::string_view::npos;
}

/// Drops the scheme and the authority of an absolute-form target.
std::string_view path_and_query(std::string_view target) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!target.starts_with(scheme)) continue;
    const std::size_t slash = target.find_first_of("/?", scheme.size());
    return slash == std::string_view::npos ? std::string_view("/") : target.substr(slash);
  }
  return target;
}

struct SplitPath {
  Segments raw;
  Segments decoded;
  bool bad_escape = false;
  bool needs_cleaning = false;
};

SplitPath split_path(std::string_view path) {
  SplitPath out;
  out.raw = split(path.substr(1), '/');
  for (std::size_t i = 0; i < out.raw.size(); ++i) {
    auto decoded = percent_decode(out.raw[i], false);
    if (!decoded || decoded->find('\0') != std::string::npos) {
      out.bad_escape = true;
      return out;
    }
    const bool last = i + 1 == out.raw.size();
    if (*decoded == "." || *decoded == ".." || (decoded->empty() && !last)) out.needs_cleaning = true;
    out.decoded.push_back(std::move(*decoded));
  }
  return out;
}

/// What "/a//./b/../c/" means: "/a/c/".
std::string clean_path(const SplitPath& path) {
  Segments kept;
  for (std::size_t i = 0; i < path.raw.size(); ++i) {
    if (path.decoded[i] == "..") {
      if (!kept.empty()) kept.pop_back();
    } else if (path.decoded[i] != "." && !path.decoded[i].empty()) {
      kept.push_back(path.raw[i]);
    }
  }
  std::string out = "/" + join(kept, "/");
  if (path.decoded.back().empty() && out.size() > 1) out += '/';
  return out;
}

Router::Decision page_not_found() {
  Router::Decision out;
  out.reply = error_response(404, "page not found");
  out.daemon_headers = false;
  return out;
}

/// The reply to a version that we do not serve.
std::optional<Response> check_version(std::string_view text, std::optional<ApiVersion> version, ApiVersion oldest) {
  if (version && *version > kMaxApiVersion)
    return error_response(400, "client version " + std::string(text) +
                                   " is too new. Maximum supported API version is " +
                                   render_api_version(kMaxApiVersion));
  if (!version || *version < oldest)
    return error_response(400,
                          "client version " + std::string(text) + " is too old. Minimum supported API version is " +
                              render_api_version(oldest) + ", please upgrade your client to a newer version",
                          version.value_or(ApiVersion{}));
  return std::nullopt;
}

}  // namespace

struct Router::Entry {
  Method method;
  std::string pattern;
  std::vector<PatternPart> parts;
  Handler handler;
  RouteOptions options;
};

Router::Router() = default;
Router::~Router() = default;

void Router::add(Method method, std::string_view pattern, Handler handler, RouteOptions options) {
  entries_.push_back({method, std::string(pattern), parse_pattern(pattern), std::move(handler), options});
}

Router::Decision Router::decide(Method method, std::string_view target) const {
  Decision out;
  if (method == Method::options) {
    out.reply = Response::empty(200);
    return out;
  }
  target = path_and_query(target);
  const std::size_t question = target.find('?');
  const std::string_view raw_path = target.substr(0, question);
  if (!raw_path.starts_with('/')) return page_not_found();

  SplitPath path = split_path(raw_path);
  if (path.bad_escape) {
    out.reply = error_response(400, "invalid URL escape in the path");
    out.daemon_headers = false;
    return out;
  }
  if (path.needs_cleaning) {
    std::string location = clean_path(path);
    if (question != std::string_view::npos) location += target.substr(question);
    out.reply = Response::empty(301);
    out.reply.header("Location", std::move(location));
    out.daemon_headers = false;
    return out;
  }

  Segments& segments = path.decoded;
  std::string version_text;
  if (segments.size() > 1 && is_version_segment(segments.front())) {
    version_text = segments.front().substr(1);
    segments.erase(segments.begin());
  }
  for (const Entry& entry : entries_) {
    Params params;
    if (entry.method != method || !match_from(entry.parts, 0, segments, 0, params)) continue;
    ApiVersion version = kMaxApiVersion;
    if (!version_text.empty()) {
      const auto asked = parse_api_version(version_text);
      if (auto refusal = check_version(version_text, asked, min_version_)) {
        out.reply = std::move(*refusal);
        out.experimental_header = false;
        return out;
      }
      version = *asked;
    }
    if (version < entry.options.min_api) {
      out.reply = error_response(400, std::string(method_name(method)) + " " + entry.pattern +
                                          " requires minimum API version " + render_api_version(entry.options.min_api));
      return out;
    }
    out.match.emplace();
    out.match->handler = &entry.handler;
    out.match->options = entry.options;
    out.match->pattern = entry.pattern;
    out.match->version = version;
    out.match->path = "/" + join(segments, "/");
    out.match->params = std::move(params);
    return out;
  }
  return page_not_found();
}

}  // namespace gantry::api
