#pragma once

#include <optional>

#include "base/filters.hpp"
#include "base/time.hpp"
#include "image/images.hpp"

namespace gantry::image {

/// The filters `label` and `label!`.
bool matches_label_filters(const Filters& filters, const Image& image);

/// The filter `until`: a duration before now ("24h", "1h30m"), seconds since 1970, or RFC 3339 (also without a zone or
/// a time). nullopt if absent. Throws invalid_argument if it is none of them, or given more than once.
std::optional<Timestamp> read_until(const Filters& filters);

}  // namespace gantry::image
