#include "llb/definition.hpp"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/error.hpp"
#include "llb/graph.hpp"

namespace gantry::llb {

namespace {

constexpr int kMaxOps = 20'000;
constexpr std::size_t kMaxBytes = std::size_t{64} << 20;
constexpr int kMaxDepth = 4'000;
constexpr int kMaxPerOp = 10'000;  // inputs, mounts or actions of one op

[[noreturn]] void refuse(const std::string& digest, const std::string& why) {
  throw Error(Errc::invalid_argument, "invalid build definition: op " + digest + ": " + why);
}

void check_index(const std::string& digest, std::int64_t index, std::int64_t low, std::int64_t end, const char* what) {
  if (index < low || index >= end) refuse(digest, std::string(what) + " " + std::to_string(index) + " is out of range");
}

std::int64_t check_exec(const std::string& digest, const pb::Op& op) {
  const pb::ExecOp& exec = op.exec();
  if (exec.meta().args().empty()) refuse(digest, "no arguments to execute");
  if (exec.mounts_size() == 0) refuse(digest, "no mounts");
  if (exec.mounts_size() > kMaxPerOp) refuse(digest, "too many mounts");
  std::int64_t outputs = 0;
  bool root = false;
  for (const auto& mount : exec.mounts()) {
    check_index(digest, mount.input(), -1, op.inputs_size(), "a mount's input");
    check_index(digest, mount.output(), -2, exec.mounts_size(), "a mount's output");
    outputs = std::max(outputs, mount.output() + 1);
    root = root || mount.dest() == "/";
  }
  if (!root) refuse(digest, "no mount for the root");
  return outputs;
}

std::int64_t check_file(const std::string& digest, const pb::Op& op) {
  const pb::FileOp& file = op.file();
  if (file.actions_size() == 0) refuse(digest, "no file actions");
  if (file.actions_size() > kMaxPerOp) refuse(digest, "too many file actions");
  std::int64_t outputs = 0;
  for (int i = 0; i < file.actions_size(); ++i) {
    const pb::FileAction& action = file.actions(i);
    const std::int64_t known = op.inputs_size() + i;
    if (action.action_case() == pb::FileAction::ACTION_NOT_SET) refuse(digest, "an unknown file action");
    check_index(digest, action.input(), -1, known, "a file action's input");
    check_index(digest, action.secondary_input(), -1, known, "a file action's second input");
    check_index(digest, action.output(), -1, file.actions_size(), "a file action's output");
    outputs = std::max(outputs, action.output() + 1);
  }
  return outputs;
}

/// Checks what the op says of itself; gives the number of its outputs.
std::int64_t check_op(const std::string& digest, const pb::Op& op) {
  switch (op.op_case()) {
    case pb::Op::kExec: return check_exec(digest, op);
    case pb::Op::kFile: return check_file(digest, op);
    case pb::Op::kSource:
      if (op.source().identifier().empty()) refuse(digest, "a source without identifier");
      return 1;
    case pb::Op::kMerge:
      for (const auto& input : op.merge().inputs()) check_index(digest, input.input(), -1, op.inputs_size(), "input");
      return 1;
    case pb::Op::kDiff:
      check_index(digest, op.diff().lower().input(), -1, op.inputs_size(), "the lower input");
      check_index(digest, op.diff().upper().input(), -1, op.inputs_size(), "the upper input");
      return 1;
    case pb::Op::kBuild:
    case pb::Op::OP_NOT_SET: break;
  }
  refuse(digest, "its kind is not supported");
}

std::string file_action_name(const pb::FileAction& action) {
  switch (action.action_case()) {
    case pb::FileAction::kCopy: return "copy " + action.copy().src() + " " + action.copy().dest();
    case pb::FileAction::kMkfile: return "mkfile " + action.mkfile().path();
    case pb::FileAction::kMkdir: return "mkdir " + action.mkdir().path();
    case pb::FileAction::kRm: return "rm " + action.rm().path();
    case pb::FileAction::kSymlink: return "symlink " + action.symlink().oldpath() + " " + action.symlink().newpath();
    case pb::FileAction::ACTION_NOT_SET: break;
  }
  return "";
}

std::string default_name(const pb::Op& op) {
  std::string name;
  const auto add = [&name](const std::string& part, const char* separator) {
    if (!name.empty()) name += separator;
    name += part;
  };
  switch (op.op_case()) {
    case pb::Op::kSource: return op.source().identifier();
    case pb::Op::kExec:
      for (const auto& arg : op.exec().meta().args()) add(arg, " ");
      return name;
    case pb::Op::kFile:
      for (const auto& action : op.file().actions()) add(file_action_name(action), ", ");
      return name;
    case pb::Op::kMerge: return "merge";
    case pb::Op::kDiff: return "diff";
    case pb::Op::kBuild:
    case pb::Op::OP_NOT_SET: break;
  }
  return "unknown";
}

}  // namespace

struct Definition::Data {
  pb::Definition message;
  VertexOutput head;
  std::vector<VertexPtr> vertices;
};

/// Reads the ops of one definition in their order.
class DefinitionReader {
 public:
  explicit DefinitionReader(const pb::Definition& message) : message_(message) {}

  VertexOutput read() {
    check_size();
    for (int i = 0; i + 1 < message_.def_size(); ++i) add(message_.def(i));
    return read_end();
  }

  /// What `head` needs, in the order of the definition.
  std::vector<VertexPtr> needed(const VertexOutput& head) const {
    std::unordered_set<const Vertex*> seen;
    std::vector<const Vertex*> stack;
    if (head.vertex) stack.push_back(head.vertex.get());
    while (!stack.empty()) {
      const Vertex* vertex = stack.back();
      stack.pop_back();
      if (!seen.insert(vertex).second) continue;
      for (const auto& input : vertex->inputs()) stack.push_back(input.vertex.get());
    }
    std::vector<VertexPtr> out;
    for (const auto& vertex : order_)
      if (seen.contains(vertex.get())) out.push_back(vertex);
    return out;
  }

 private:
  void check_size() const {
    std::size_t bytes = 0;
    for (const auto& def : message_.def()) bytes += def.size();
    if (message_.def_size() > kMaxOps || bytes > kMaxBytes)
      throw Error(Errc::invalid_argument, "invalid build definition: it is too large");
  }

  void add(const std::string& bytes) {
    auto vertex = std::make_shared<Vertex>();
    vertex->digest_ = op_digest(bytes);
    if (known_.contains(vertex->digest_)) return;
    if (!vertex->op_.ParseFromString(bytes)) refuse(vertex->digest_, "malformed");
    vertex->bytes_ = bytes;
    int depth = 1;
    vertex->inputs_ = read_inputs(vertex->digest_, vertex->op_, depth);
    if (depth > kMaxDepth) throw Error(Errc::invalid_argument, "invalid build definition: too many steps in a row");
    vertex->outputs_ = std::max<std::int64_t>(1, check_op(vertex->digest_, vertex->op_));
    if (auto it = message_.metadata().find(vertex->digest_); it != message_.metadata().end())
      vertex->metadata_ = it->second;
    vertex->description_ = {vertex->metadata_.description().begin(), vertex->metadata_.description().end()};
    const auto name = vertex->description_.find("llb.customname");
    vertex->name_ = name != vertex->description_.end() ? name->second : default_name(vertex->op_);
    depths_[vertex.get()] = depth;
    known_.emplace(vertex->digest_, vertex);
    order_.push_back(std::move(vertex));
  }

  std::vector<VertexOutput> read_inputs(const std::string& digest, const pb::Op& op, int& depth) const {
    if (op.inputs_size() > kMaxPerOp) refuse(digest, "too many inputs");
    std::vector<VertexOutput> out;
    for (const auto& input : op.inputs()) {
      const auto it = known_.find(input.digest());
      if (it == known_.end()) refuse(digest, "its input " + input.digest() + " does not come before it");
      check_index(digest, input.index(), 0, it->second->outputs(), "an input's output");
      depth = std::max(depth, depths_.at(it->second.get()) + 1);
      out.push_back({it->second, input.index()});
    }
    return out;
  }

  VertexOutput read_end() const {
    const std::string& bytes = message_.def(message_.def_size() - 1);
    const std::string digest = op_digest(bytes);
    pb::Op op;
    if (!op.ParseFromString(bytes)) refuse(digest, "malformed");
    if (op.inputs_size() != 1 || op.op_case() != pb::Op::OP_NOT_SET) refuse(digest, "the last one is not the result");
    int depth = 0;
    return read_inputs(digest, op, depth).front();
  }

  const pb::Definition& message_;
  std::unordered_map<std::string, VertexPtr> known_;
  std::unordered_map<const Vertex*, int> depths_;
  std::vector<VertexPtr> order_;
};

Definition::Definition() : data_(std::make_shared<Data>()) {}

Definition Definition::parse(const pb::Definition& message) {
  if (message.def_size() == 0) return {};
  auto data = std::make_shared<Data>();
  data->message = message;
  DefinitionReader reader(data->message);
  data->head = reader.read();
  data->vertices = reader.needed(data->head);
  return Definition(std::move(data));
}

const VertexOutput& Definition::head() const noexcept { return data_->head; }
const std::vector<VertexPtr>& Definition::vertices() const noexcept { return data_->vertices; }
const pb::Definition& Definition::message() const noexcept { return data_->message; }

const pb::Locations* Definition::locations(const std::string& digest) const noexcept {
  const auto& all = data_->message.source().locations();
  const auto it = all.find(digest);
  return it == all.end() ? nullptr : &it->second;
}

}  // namespace gantry::llb
