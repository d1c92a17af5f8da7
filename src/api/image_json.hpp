#pragma once

#include <optional>
#include <string>
#include <vector>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include "api/versions.hpp"
#include "image/images.hpp"

/// Images as clients see them, shaped for the version of the API that they speak (engine-api.md §1.6, §5.5, §5.6).
namespace gantry::api {

boost::json::object render_image_summary(const image::ImageSummary& summary, ApiVersion version);
/// `manifests`: nullopt unless asked for.
boost::json::object render_image(const image::Image& image,
                                 const std::optional<std::vector<image::ManifestSummary>>& manifests,
                                 ApiVersion version);
boost::json::object descriptor_json(const image::Descriptor& descriptor);
boost::json::object platform_json(const image::Platform& platform);
boost::json::array render_history(const std::vector<image::HistoryItem>& history);
boost::json::array render_removed(const std::vector<image::Removed>& removed);
boost::json::array render_statements(const std::vector<image::Statement>& statements);

/// The `platform` parameter as a JSON object. Throws invalid_argument.
image::Platform parse_platform_parameter(const std::string& text);
image::Platform parse_platform_parameter(const boost::json::value& value);
/// A value of `platforms`: such an object, or an array of them.
std::vector<image::Platform> parse_platforms_parameter(const std::string& text);

}  // namespace gantry::api
