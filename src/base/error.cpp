#include "base/error.hpp"

#include <cerrno>
#include <cstring>

#include <fmt/format.h>

namespace gantry {
namespace {

Errc kind_of(int err) {
  switch (err) {
    case ENOENT: return Errc::not_found;
    case EEXIST: return Errc::conflict;
    case EPERM:
    case EACCES: return Errc::forbidden;
    case ETIMEDOUT: return Errc::timed_out;
    default: return Errc::internal;
  }
}

bool grows(Errc code) {
  return code == Errc::internal || code == Errc::unavailable || code == Errc::corrupted || code == Errc::timed_out;
}

}  // namespace

std::string_view errc_name(Errc code) noexcept {
  switch (code) {
    case Errc::invalid_argument: return "invalid_argument";
    case Errc::not_found: return "not_found";
    case Errc::conflict: return "conflict";
    case Errc::not_modified: return "not_modified";
    case Errc::unauthorized: return "unauthorized";
    case Errc::forbidden: return "forbidden";
    case Errc::unavailable: return "unavailable";
    case Errc::not_implemented: return "not_implemented";
    case Errc::cancelled: return "cancelled";
    case Errc::timed_out: return "timed_out";
    case Errc::corrupted: return "corrupted";
    case Errc::internal: return "internal";
  }
  return "?";
}

Error::Error(Errc code, std::string message, std::source_location where)
    : code_(code), message_(std::move(message)), where_(where) {}

Error Error::from_errno(int err, std::string_view what, std::source_location where) {
  Error e(kind_of(err), fmt::format("{}: {}", what, std::strerror(err)), where);
  e.errno_ = err;
  return e;
}

void Error::add_context(std::string_view context) {
  if (grows(code_)) prefix(context);
}

void Error::prefix(std::string_view context) { message_.insert(0, std::string(context) + ": "); }

std::string Error::log_detail() const {
  return fmt::format("{} [{}, {}:{}]", message_, errc_name(code_), where_.file_name(), where_.line());
}

}  // namespace gantry
