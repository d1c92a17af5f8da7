#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "proto/ops.pb.h"

namespace gantry::llb {

class Vertex;
using VertexPtr = std::shared_ptr<const Vertex>;

/// One output of a vertex. Without a vertex: the empty tree (scratch).
struct VertexOutput {
  VertexPtr vertex;
  std::int64_t index = 0;
};

/// One op of a build graph, with the ops that it needs. Immutable.
class Vertex {
 public:
  /// "sha256:…" of bytes(): the vertex' name in progress and in metadata. Not a cache key.
  const std::string& digest() const noexcept { return digest_; }
  /// As it came, with the fields that we do not know.
  const std::string& bytes() const noexcept { return bytes_; }
  const pb::Op& op() const noexcept { return op_; }
  const std::vector<VertexOutput>& inputs() const noexcept { return inputs_; }
  /// How many results it has: at least 1.
  std::int64_t outputs() const noexcept { return outputs_; }
  const pb::OpMetadata& metadata() const noexcept { return metadata_; }
  const std::map<std::string, std::string>& description() const noexcept { return description_; }
  bool ignore_cache() const noexcept { return metadata_.ignore_cache(); }
  /// What people see: the name that the frontend gave ("llb.customname"), else what the op does.
  const std::string& name() const noexcept { return name_; }

 private:
  friend class DefinitionReader;
  std::string digest_;
  std::string bytes_;
  pb::Op op_;
  std::vector<VertexOutput> inputs_;
  std::int64_t outputs_ = 1;
  pb::OpMetadata metadata_;
  std::map<std::string, std::string> description_;
  std::string name_;
};

/// A build graph that somebody sent, checked: every input is there and comes before its user, every index of an input,
/// an output, a mount or a file action is in range. Cheap to copy.
class Definition {
 public:
  /// The empty tree.
  Definition();
  /// Reads a graph. One without ops is the empty tree. Throws invalid_argument for what is malformed or larger than
  /// 20,000 ops, 64 MiB or 4,000 steps in a row.
  static Definition parse(const pb::Definition& message);

  /// The result. Without a vertex: the empty tree.
  const VertexOutput& head() const noexcept;
  /// What the result needs, inputs before users.
  const std::vector<VertexPtr>& vertices() const noexcept;
  /// Exactly what was parsed.
  const pb::Definition& message() const noexcept;
  /// Where a vertex comes from in the files of message().source().infos(); nullptr if nobody said.
  const pb::Locations* locations(const std::string& digest) const noexcept;

 private:
  struct Data;
  explicit Definition(std::shared_ptr<const Data> data) : data_(std::move(data)) {}
  std::shared_ptr<const Data> data_;
};

}  // namespace gantry::llb
