#include "llb/definition.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "llb/graph.hpp"

namespace gantry::llb {
namespace {

pb::Op source(const std::string& identifier) {
  pb::Op op;
  op.mutable_source()->set_identifier(identifier);
  return op;
}

pb::Op exec_on(const Output& root, const std::string& command) {
  pb::Op op;
  auto* input = op.add_inputs();
  input->set_digest(root.digest);
  input->set_index(root.index);
  op.mutable_exec()->mutable_meta()->add_args(command);
  op.mutable_exec()->add_mounts()->set_dest("/");
  return op;
}

std::string refusal(const pb::Definition& message) {
  try {
    Definition::parse(message);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Errc::invalid_argument);
    return error.message();
  }
  return "";
}

TEST(Definition, HasInputsBeforeUsersAndTheirNames) {
  Graph graph;
  const Output base = graph.add(source("docker-image://docker.io/library/busybox:latest"), {});
  pb::OpMetadata named;
  (*named.mutable_description())["llb.customname"] = "[2/2] RUN true";
  const Output run =
      graph.add(exec_on(base, "true"), named, {graph.add_source("Dockerfile", "FROM x", "Dockerfile"), 2, 3});
  graph.add(source("local://unused"), {});

  const Definition definition = Definition::parse(graph.definition(run));

  ASSERT_EQ(definition.vertices().size(), 2U);
  EXPECT_EQ(definition.vertices()[0]->name(), "docker-image://docker.io/library/busybox:latest");
  EXPECT_EQ(definition.vertices()[1]->name(), "[2/2] RUN true");
  EXPECT_EQ(definition.head().vertex, definition.vertices()[1]);
  EXPECT_EQ(definition.head().vertex->inputs()[0].vertex, definition.vertices()[0]);
  ASSERT_NE(definition.locations(run.digest), nullptr);
  EXPECT_EQ(definition.locations(run.digest)->locations(0).ranges(0).start().line(), 2);
  EXPECT_EQ(definition.locations(base.digest), nullptr);
}

TEST(Definition, WithoutOpsIsTheEmptyTree) {
  EXPECT_EQ(Definition::parse({}).head().vertex, nullptr);
  EXPECT_TRUE(Definition().vertices().empty());
}

TEST(Definition, KeepsBytesThatItDoesNotKnow) {
  std::string bytes = render_op(source("local://context"));
  bytes += std::string("\xf2\x3f\x01x", 4);  // field 1022, a string
  pb::Definition message;
  message.add_def(bytes);
  pb::Op end;
  end.add_inputs()->set_digest(op_digest(bytes));
  message.add_def(render_op(end));

  const Definition definition = Definition::parse(message);

  EXPECT_EQ(definition.head().vertex->bytes(), bytes);
  EXPECT_EQ(definition.head().vertex->digest(), op_digest(bytes));
}

TEST(Definition, RefusesWhatIsNotWhole) {
  Graph graph;
  const Output base = graph.add(source("local://context"), {});
  const pb::Definition good = graph.definition(graph.add(exec_on(base, "true"), {}));

  pb::Definition message = good;
  message.mutable_def()->SwapElements(0, 1);
  EXPECT_NE(refusal(message).find("does not come before it"), std::string::npos);

  message = good;
  message.mutable_def()->RemoveLast();
  EXPECT_NE(refusal(message).find("the last one is not the result"), std::string::npos);

  message = good;
  message.set_def(0, "\xff\xff\xff");
  EXPECT_NE(refusal(message).find("malformed"), std::string::npos);
}

TEST(Definition, RefusesIndexesThatLeadNowhere) {
  const auto with = [](auto change) {
    Graph graph;
    pb::Op op = exec_on(graph.add(source("local://context"), {}), "true");
    change(op);
    return refusal(graph.definition(graph.add(op, {})));
  };
  EXPECT_NE(with([](pb::Op& op) { op.mutable_inputs(0)->set_index(1); }).find("out of range"), std::string::npos);
  EXPECT_NE(with([](pb::Op& op) { op.mutable_exec()->mutable_mounts(0)->set_input(1); }).find("out of range"),
            std::string::npos);
  EXPECT_NE(with([](pb::Op& op) { op.mutable_exec()->mutable_mounts(0)->set_output(1'000'000); }).find("out of range"),
            std::string::npos);
  EXPECT_NE(with([](pb::Op& op) { op.mutable_exec()->mutable_meta()->clear_args(); }).find("no arguments"),
            std::string::npos);
  EXPECT_NE(with([](pb::Op& op) { op.mutable_file()->add_actions(); }).find("unknown file action"), std::string::npos);
  EXPECT_NE(with([](pb::Op& op) { op.mutable_build(); }).find("not supported"), std::string::npos);
}

TEST(Definition, RefusesAChainThatIsTooLong) {
  Graph graph;
  Output last = graph.add(source("local://context"), {});
  for (int i = 0; i < 4'001; ++i) last = graph.add(exec_on(last, std::to_string(i)), {});
  EXPECT_NE(refusal(graph.definition(last)).find("too many steps in a row"), std::string::npos);
}

}  // namespace
}  // namespace gantry::llb
