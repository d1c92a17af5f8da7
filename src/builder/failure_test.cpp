#include "builder/failure.hpp"

#include <gtest/gtest.h>

#include "frontend/frontend.hpp"
#include "llb/graph.hpp"
#include "solver/solver.hpp"

namespace gantry::builder {
namespace {

const google::rpc::AnyValue* detail(const google::rpc::Status& status, const std::string& type) {
  for (const auto& one : status.details())
    if (one.type_url() == "github.com/moby/buildkit/" + type + "+json") return &one;
  return nullptr;
}

pb::SourceInfo dockerfile() {
  pb::SourceInfo out;
  out.set_filename("Dockerfile");
  out.set_data("FROM x\nRUN y\n");
  out.set_language("Dockerfile");
  return out;
}

TEST(Failure, OfAStepHasItsPlaceItsVertexAndItsExitStatus) {
  llb::Graph graph;
  pb::Op op;
  op.mutable_source()->set_identifier("local://context");
  const auto lines = llb::SourceLines{graph.add_source("Dockerfile", "FROM x\nRUN y\n", "Dockerfile"), 2, 3};
  const llb::Output step = graph.add(op, {}, lines);
  const auto definition = llb::Definition::parse(graph.definition(step));
  const auto status =
      describe_failure(solver::SolveError(solver::ExitError(5, "exit code: 5"), step.digest, definition));

  EXPECT_EQ(status.code(), 2);
  EXPECT_EQ(status.message(), "exit code: 5");
  ASSERT_NE(detail(status, "errdefs.Source"), nullptr);
  EXPECT_EQ(detail(status, "errdefs.Source")->value(),
            R"({"info":{"filename":"Dockerfile","data":"RlJPTSB4ClJVTiB5Cg==","language":"Dockerfile"},)"
            R"("ranges":[{"start":{"line":2},"end":{"line":3}}]})");
  ASSERT_NE(detail(status, "errdefs.Vertex"), nullptr);
  EXPECT_EQ(detail(status, "errdefs.Vertex")->value(), R"({"digest":")" + step.digest + R"("})");
  ASSERT_NE(detail(status, "gatewayapi.ExitMessage"), nullptr);
  EXPECT_EQ(detail(status, "gatewayapi.ExitMessage")->value(), R"({"Code":5})");
}

TEST(Failure, OfADockerfileHasItsLines) {
  const Error cause(Errc::invalid_argument, "dockerfile parse error on line 2: unknown instruction: BAD");
  const auto status = describe_failure(frontend::FrontendError(cause, dockerfile(), {2, 2}));
  EXPECT_EQ(status.code(), 2);
  EXPECT_NE(detail(status, "errdefs.Source"), nullptr);
  EXPECT_EQ(describe_failure(frontend::FrontendError(cause, dockerfile(), {0, 0})).details_size(), 0);
}

TEST(Failure, ThatAClientToldIsToldBackAsItWas) {
  google::rpc::Status told;
  told.set_code(9);
  told.set_message("theirs");
  told.add_details()->set_type_url("anything");
  EXPECT_EQ(describe_failure(ToldFailure(told)).SerializeAsString(), told.SerializeAsString());
}

TEST(Failure, OfAKindThatClientsActUponHasItsCode) {
  EXPECT_EQ(describe_failure(Error(Errc::cancelled, "stopped")).code(), 1);
  EXPECT_EQ(describe_failure(Error(Errc::cancelled, "stopped")).message(), "context canceled");
  EXPECT_EQ(describe_failure(Error(Errc::conflict, "x")).code(), 2);
  const auto request = describe_failure(Error(Errc::not_implemented, "unsupported request frontend.x"));
  EXPECT_EQ(request.code(), 12);
  ASSERT_NE(detail(request, "errdefs.Subrequest"), nullptr);
  EXPECT_EQ(detail(request, "errdefs.Subrequest")->value(), R"({"name":"frontend.x"})");
}

TEST(Failure, IsAlwaysText) { EXPECT_EQ(describe_failure(Error(Errc::internal, "a\xff")).message(), "a\xef\xbf\xbd"); }

}  // namespace
}  // namespace gantry::builder
