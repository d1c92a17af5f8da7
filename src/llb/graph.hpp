#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "proto/ops.pb.h"

namespace gantry::llb {

/// One output of an op in a Graph. The default is the empty tree (scratch), which no op makes.
struct Output {
  std::string digest;
  std::int64_t index = 0;

  bool empty() const noexcept { return digest.empty(); }
  bool operator==(const Output&) const = default;
};

/// Where an op comes from, for excerpts below errors: lines counted from 1 in one of the graph's source files.
struct SourceLines {
  std::size_t file = 0;
  int first = 0;  // 0: nowhere
  int last = 0;
};

/// Builds a definition op by op, inputs before users. The same calls give the same bytes; equal ops are one.
class Graph {
 public:
  /// Adds an op whose inputs are set. An op that is there already keeps its place; of its metadata the new one counts,
  /// but that an ignored cache stays ignored.
  Output add(const pb::Op& op, pb::OpMetadata metadata, SourceLines lines = {});
  /// Takes over what another definition holds, as it is, and gives its result. Throws invalid_argument if it is not
  /// well formed.
  Output add_definition(const pb::Definition& definition);
  /// The file's number for SourceLines.
  std::size_t add_source(const std::string& filename, const std::string& data, const std::string& language,
                         const pb::Definition& definition = {});

  /// What `head` needs, and nothing else. For the empty tree: a definition without ops.
  pb::Definition definition(const Output& head) const;

 private:
  struct Node {
    std::string bytes;
    std::vector<std::string> inputs;
    pb::OpMetadata metadata;
    std::vector<SourceLines> lines;
  };
  std::vector<std::string> order_of(const std::string& head) const;

  std::map<std::string, Node> nodes_;  // by digest
  std::vector<pb::SourceInfo> sources_;
};

/// "sha256:…" of an op's bytes.
std::string op_digest(std::string_view bytes);

/// The one serialization: fields in order, maps sorted.
std::string render_op(const pb::Op& op);

}  // namespace gantry::llb
