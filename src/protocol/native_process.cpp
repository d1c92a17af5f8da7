#include "protocol/native_process.hpp"

#include <limits>

#include "base/error.hpp"
#include "protocol/message.hpp"

namespace gantry::protocol {
namespace {

constexpr std::size_t kMaxIds = 65536;          // NGROUPS_MAX
constexpr std::size_t kMaxInstructions = 4096;  // BPF_MAXINSNS
constexpr std::size_t kInstructionSize = 8;
constexpr std::size_t kLimitSize = 20;

[[noreturn]] void bad(const char* what) {
  throw Error(Errc::invalid_argument, std::string("malformed process: ") + what);
}

std::string join_texts(const std::vector<std::string>& texts) {
  std::string out;
  for (const std::string& text : texts) {
    if (text.find('\0') != std::string::npos) bad("a text has a NUL in it");
    out += text;
    out += '\0';
  }
  return out;
}

std::vector<std::string> split_texts(std::string_view bytes) {
  std::vector<std::string> texts;
  while (!bytes.empty()) {
    const std::size_t end = bytes.find('\0');
    if (end == std::string_view::npos) bad("a text does not end");
    texts.emplace_back(bytes.substr(0, end));
    bytes.remove_prefix(end + 1);
  }
  return texts;
}

void append_be(std::string& out, std::uint64_t value, int bytes) {
  for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift & 0xff));
}

std::uint64_t read_be(std::string_view bytes) {
  std::uint64_t value = 0;
  for (const char c : bytes) value = value << 8 | static_cast<unsigned char>(c);
  return value;
}

std::string single_text(const Message& message, Tag tag) {
  std::string text = message.text(tag);
  if (text.find('\0') != std::string::npos) bad("a text has a NUL in it");
  return text;
}

std::uint32_t small_number(const Message& message, Tag tag, std::uint64_t fallback = 0) {
  const std::uint64_t value = message.number(tag, fallback);
  if (value > std::numeric_limits<std::uint32_t>::max()) bad("a number is out of range");
  return static_cast<std::uint32_t>(value);
}

struct CapabilitySet {
  Tag tag;
  std::uint64_t Capabilities::* member;
};
constexpr CapabilitySet kCapabilitySets[] = {{Tag::bounding, &Capabilities::bounding},
                                             {Tag::permitted, &Capabilities::permitted},
                                             {Tag::effective, &Capabilities::effective},
                                             {Tag::inheritable, &Capabilities::inheritable},
                                             {Tag::ambient, &Capabilities::ambient}};

void read_lists(const Message& message, NativeProcess& process) {
  const std::string groups = message.text(Tag::groups);
  if (groups.size() % 4 != 0 || groups.size() / 4 > kMaxIds) bad("groups");
  for (std::size_t at = 0; at < groups.size(); at += 4)
    process.groups.push_back(static_cast<std::uint32_t>(read_be(std::string_view(groups).substr(at, 4))));
  const std::string limits = message.text(Tag::limits);
  if (limits.size() % kLimitSize != 0 || limits.size() / kLimitSize > 64) bad("limits");
  for (std::size_t at = 0; at < limits.size(); at += kLimitSize) {
    const std::string_view one = std::string_view(limits).substr(at, kLimitSize);
    process.limits.push_back(
        {static_cast<std::uint32_t>(read_be(one.substr(0, 4))), read_be(one.substr(4, 8)), read_be(one.substr(12, 8))});
  }
}

}  // namespace

std::string encode_native(const NativeProcess& process) {
  Message message;
  message.put(Tag::args, join_texts(process.args)).put(Tag::env, join_texts(process.env));
  message.put(Tag::directory, process.directory);
  message.put_number(Tag::uid, process.uid).put_number(Tag::gid, process.gid);
  std::string groups;
  for (const std::uint32_t group : process.groups) append_be(groups, group, 4);
  message.put(Tag::groups, groups).put_number(Tag::umask, process.umask);
  for (const CapabilitySet& set : kCapabilitySets) message.put_number(set.tag, process.capabilities.*set.member);
  message.put_flag(Tag::no_new_privileges, process.no_new_privileges);
  std::string limits;
  for (const ResourceLimit& limit : process.limits) {
    append_be(limits, limit.resource, 4);
    append_be(limits, limit.soft, 8);
    append_be(limits, limit.hard, 8);
  }
  message.put(Tag::limits, limits);
  if (process.oom_score_adj)
    message.put_number(Tag::oom_score_adj, static_cast<std::uint64_t>(std::int64_t{*process.oom_score_adj}));
  if (!process.filter.empty())
    message.put(Tag::filter, process.filter).put_number(Tag::filter_flags, process.filter_flags);
  message.put(Tag::apparmor, process.apparmor_profile).put(Tag::selinux, process.selinux_label);
  message.put(Tag::cgroups_v1, join_texts(process.cgroups_v1));
  message.put(Tag::cgroup_v2, process.cgroup_v2).put(Tag::cgroup_v2_mount, process.cgroup_v2_mount);
  return message.encode_fields();
}

NativeProcess decode_native(std::string_view bytes) {
  const Message message = Message::decode_fields(Type::exec_create, 0, bytes);
  NativeProcess process;
  process.args = split_texts(message.find(Tag::args).value_or(std::string_view()));
  if (process.args.empty()) bad("no arguments");
  process.env = split_texts(message.find(Tag::env).value_or(std::string_view()));
  process.directory = single_text(message, Tag::directory);
  if (!process.directory.starts_with('/')) bad("the working directory is not absolute");
  process.uid = small_number(message, Tag::uid);
  process.gid = small_number(message, Tag::gid);
  process.umask = small_number(message, Tag::umask, 022) & 0777;
  read_lists(message, process);
  for (const CapabilitySet& set : kCapabilitySets) process.capabilities.*set.member = message.number(set.tag);
  process.no_new_privileges = message.flag(Tag::no_new_privileges);
  if (message.find(Tag::oom_score_adj)) {
    const auto value = static_cast<std::int64_t>(message.number(Tag::oom_score_adj));
    if (value < -1000 || value > 1000) bad("oom_score_adj");
    process.oom_score_adj = static_cast<int>(value);
  }
  process.filter = message.text(Tag::filter);
  if (process.filter.size() % kInstructionSize != 0 || process.filter.size() / kInstructionSize > kMaxInstructions)
    bad("seccomp filter");
  process.filter_flags = small_number(message, Tag::filter_flags);
  process.apparmor_profile = single_text(message, Tag::apparmor);
  process.selinux_label = single_text(message, Tag::selinux);
  process.cgroups_v1 = split_texts(message.find(Tag::cgroups_v1).value_or(std::string_view()));
  process.cgroup_v2 = single_text(message, Tag::cgroup_v2);
  process.cgroup_v2_mount = single_text(message, Tag::cgroup_v2_mount);
  return process;
}

}  // namespace gantry::protocol
