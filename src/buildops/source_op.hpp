#pragma once

#include <memory>
#include <string>

#include "buildlink/engine.hpp"
#include "buildops/operations.hpp"
#include "llb/definition.hpp"

namespace gantry::buildops {

/// What a source op names: "scheme://rest" and its attributes. Throws invalid_argument for anything else.
struct SourceName {
  std::string scheme;
  std::string rest;
};
SourceName parse_source_name(const std::string& identifier);
/// Empty if there is none.
std::string source_attribute(const pb::SourceOp& source, const std::string& name);
/// A JSON array of strings, as patterns are written. Throws invalid_argument naming the attribute.
std::vector<std::string> source_list(const pb::SourceOp& source, const std::string& name);

/// "docker-image://": layers of an image, found or pulled by the daemon. The key is the image's digest.
std::unique_ptr<solver::Operation> make_image_source(const Services& services, const llb::Vertex& vertex);
/// "local://": a directory of a client, kept here between builds so that only what changed is sent. Goes by content.
std::unique_ptr<solver::Operation> make_local_source(const Services& services, const llb::Vertex& vertex);
/// "http://", "https://": one file. The key is its content, which is not fetched again while the server says that it is
/// the same. "http://buildkit-session/<id>" is what the client reads from its standard input.
std::unique_ptr<solver::Operation> make_http_source(const Services& services, const llb::Vertex& vertex);
/// "git://": a checkout. The key is the commit.
std::unique_ptr<solver::Operation> make_git_source(const Services& services, const llb::Vertex& vertex);

/// Finds an image and, with `layers`, its layers, pulling it if the mode says so; accounts come from the sessions.
/// For whoever needs an image's config before there is an operation, too. Blocks.
buildlink::Image resolve_image(const Services& services, buildlink::ImageRequest request,
                               const solver::SessionGroup& sessions, solver::Progress* progress, std::stop_token stop);

}  // namespace gantry::buildops
