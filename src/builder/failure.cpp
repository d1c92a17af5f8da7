#include "builder/failure.hpp"

#include <string_view>
#include <utility>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include "base/text.hpp"
#include "frontend/frontend.hpp"
#include "json/json.hpp"
#include "proto/ops.pb.h"
#include "solver/solver.hpp"

namespace gantry::builder {

namespace {

// Numbers of gRPC's codes.
constexpr int kCancelled = 1;
constexpr int kUnknown = 2;
constexpr int kDeadlineExceeded = 4;
constexpr int kUnimplemented = 12;
constexpr int kUnavailable = 14;

/// The details are JSON in an Any, of types whose names have no host: clients ignore every other form.
void add_detail(google::rpc::Status& out, std::string_view type, json::Object value) {
  auto* detail = out.add_details();
  detail->set_type_url("github.com/moby/buildkit/" + std::string(type) + "+json");
  detail->set_value(json::render(value));
}

json::Object position(int line) { return {{"line", line}}; }

json::Object source_info(const pb::SourceInfo& info) {
  return {{"filename", info.filename()}, {"data", base64_encode(info.data())}, {"language", info.language()}};
}

void add_source(google::rpc::Status& out, const pb::SourceInfo& info, json::Array ranges) {
  add_detail(out, "errdefs.Source", {{"info", source_info(info)}, {"ranges", std::move(ranges)}});
}

void describe_step(google::rpc::Status& out, const solver::SolveError& error) {
  for (std::size_t i = 0; i < error.places().size() && i < error.files().size(); ++i) {
    json::Array ranges;
    for (const auto& range : error.places()[i].ranges())
      ranges.push_back(json::Object{{"start", position(range.start().line())}, {"end", position(range.end().line())}});
    add_source(out, error.files()[i], std::move(ranges));
  }
  if (error.exit_code()) add_detail(out, "gatewayapi.ExitMessage", {{"Code", *error.exit_code()}});
  if (!error.vertex().empty()) add_detail(out, "errdefs.Vertex", {{"digest", error.vertex()}});
}

void describe_file(google::rpc::Status& out, const frontend::FrontendError& error) {
  if (error.lines().first == 0) return;
  json::Array ranges;
  ranges.push_back(json::Object{{"start", position(error.lines().first)}, {"end", position(error.lines().last)}});
  add_source(out, error.source(), std::move(ranges));
}

int code_of(const Error& error) {
  switch (error.code()) {
    case Errc::cancelled: return kCancelled;
    case Errc::timed_out: return kDeadlineExceeded;
    case Errc::not_implemented: return kUnimplemented;
    case Errc::unavailable: return kUnavailable;
    default: return kUnknown;
  }
}

Errc told_code(int code) {
  if (code == kCancelled) return Errc::cancelled;
  return code == kUnimplemented ? Errc::not_implemented : Errc::internal;
}

}  // namespace

ToldFailure::ToldFailure(google::rpc::Status status)
    : Error(told_code(status.code()), status.message()), status_(std::move(status)) {}

google::rpc::Status describe_failure(const Error& error) {
  if (const auto* told = dynamic_cast<const ToldFailure*>(&error)) return told->status();
  google::rpc::Status out;
  out.set_code(code_of(error));
  out.set_message(error.code() == Errc::cancelled ? "context canceled" : replace_invalid_utf8(error.message()));
  constexpr std::string_view unsupported = "unsupported request ";
  if (error.code() == Errc::not_implemented && error.message().starts_with(unsupported))
    add_detail(out, "errdefs.Subrequest", {{"name", error.message().substr(unsupported.size())}});
  if (const auto* step = dynamic_cast<const solver::SolveError*>(&error)) {
    // A step's own kind of failure is none of the call's: only a stop is.
    if (error.code() != Errc::cancelled) out.set_code(kUnknown);
    describe_step(out, *step);
  }
  if (const auto* file = dynamic_cast<const frontend::FrontendError*>(&error)) {
    if (error.code() == Errc::invalid_argument) out.set_code(kUnknown);
    describe_file(out, *file);
  }
  return out;
}

}  // namespace gantry::builder
