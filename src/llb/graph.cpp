#include "llb/graph.hpp"

#include <array>
#include <set>
#include <utility>

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <openssl/sha.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::llb {

std::string op_digest(std::string_view bytes) {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> sum{};
  ::SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), sum.data());
  return "sha256:" + render_hex({reinterpret_cast<const char*>(sum.data()), sum.size()});
}

std::string render_op(const pb::Op& op) {
  std::string out;
  {
    google::protobuf::io::StringOutputStream stream(&out);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    op.SerializeToCodedStream(&coded);
  }
  return out;
}

Output Graph::add(const pb::Op& op, pb::OpMetadata metadata, SourceLines lines) {
  std::string bytes = render_op(op);
  std::string digest = op_digest(bytes);
  Node& node = nodes_[digest];
  if (node.bytes.empty()) {
    node.bytes = std::move(bytes);
    for (const auto& input : op.inputs()) node.inputs.push_back(input.digest());
  }
  metadata.set_ignore_cache(metadata.ignore_cache() || node.metadata.ignore_cache());
  node.metadata = std::move(metadata);
  if (lines.first != 0) node.lines.push_back(lines);
  return {digest, 0};
}

Output Graph::add_definition(const pb::Definition& definition) {
  if (definition.def_size() == 0) return {};
  std::set<std::string> known;
  Output head;
  for (int i = 0; i < definition.def_size(); ++i) {
    pb::Op op;
    const std::string& bytes = definition.def(i);
    if (!op.ParseFromString(bytes)) throw Error(Errc::invalid_argument, "malformed op in the definition of an input");
    for (const auto& input : op.inputs())
      if (known.count(input.digest()) == 0)
        throw Error(Errc::invalid_argument, "an op of an input's definition needs one that does not come before it");
    if (i + 1 == definition.def_size()) {
      if (op.inputs_size() != 1 || op.op_case() != pb::Op::OP_NOT_SET)
        throw Error(Errc::invalid_argument, "the definition of an input does not end with its result");
      head = {op.inputs(0).digest(), op.inputs(0).index()};
      break;
    }
    const std::string digest = op_digest(bytes);
    known.insert(digest);
    Node& node = nodes_[digest];
    if (!node.bytes.empty()) continue;
    node.bytes = bytes;
    for (const auto& input : op.inputs()) node.inputs.push_back(input.digest());
    if (auto it = definition.metadata().find(digest); it != definition.metadata().end()) node.metadata = it->second;
  }
  return head;
}

std::size_t Graph::add_source(const std::string& filename, const std::string& data, const std::string& language,
                              const pb::Definition& definition) {
  pb::SourceInfo info;
  info.set_filename(filename);
  info.set_data(data);
  info.set_language(language);
  if (definition.def_size() != 0) *info.mutable_definition() = definition;
  sources_.push_back(std::move(info));
  return sources_.size() - 1;
}

// Inputs first, by a stack of our own: a chain is as long as a Dockerfile.
std::vector<std::string> Graph::order_of(const std::string& head) const {
  enum class Seen { entered, placed };
  std::map<std::string, Seen> seen;
  std::vector<std::string> order;
  std::vector<std::string> stack = {head};
  while (!stack.empty()) {
    const std::string one = stack.back();
    if (auto [it, fresh] = seen.emplace(one, Seen::entered); !fresh) {
      stack.pop_back();
      if (it->second == Seen::entered) order.push_back(one);
      it->second = Seen::placed;
      continue;
    }
    const auto& inputs = nodes_.at(one).inputs;
    for (auto it = inputs.rbegin(); it != inputs.rend(); ++it)
      if (seen.count(*it) == 0) stack.push_back(*it);
  }
  return order;
}

pb::Definition Graph::definition(const Output& head) const {
  pb::Definition out;
  if (head.empty()) return out;
  for (const auto& digest : order_of(head.digest)) {
    const Node& node = nodes_.at(digest);
    out.add_def(node.bytes);
    (*out.mutable_metadata())[digest] = node.metadata;
    if (node.lines.empty()) continue;
    auto& locations = (*out.mutable_source()->mutable_locations())[digest];
    for (const auto& lines : node.lines) {
      auto* location = locations.add_locations();
      location->set_source_index(static_cast<std::int32_t>(lines.file));
      auto* range = location->add_ranges();
      range->mutable_start()->set_line(lines.first);
      range->mutable_end()->set_line(lines.last);
    }
  }
  for (const auto& info : sources_) *out.mutable_source()->add_infos() = info;
  pb::Op end;
  end.add_inputs()->set_digest(head.digest);
  end.mutable_inputs(0)->set_index(head.index);
  const std::string bytes = render_op(end);
  out.add_def(bytes);
  (*out.mutable_metadata())[op_digest(bytes)] = pb::OpMetadata();
  return out;
}

}  // namespace gantry::llb
