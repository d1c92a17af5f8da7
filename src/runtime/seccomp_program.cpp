#include "runtime/seccomp_program.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <optional>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>
#include <boost/json.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "json/json.hpp"
#include "sys/fd.hpp"
#include "sys/file.hpp"

namespace gantry::runtime {
namespace {

constexpr std::uint32_t kX32Bit = 0x40000000;
constexpr std::size_t kMaxConfig = 16 << 20;

using Filter = std::unique_ptr<void, decltype(&seccomp_release)>;

[[noreturn]] void broken(const char* what) {
  throw Error(Errc::corrupted, std::string("seccomp object of a container: ") + what);
}

const json::Value* member(const json::Object& object, std::string_view name) {
  const json::Value* value = json::find(object, name);
  return value == nullptr || value->is_null() ? nullptr : value;
}

std::string text_of(const json::Object& object, std::string_view name) {
  const json::Value* value = member(object, name);
  if (value == nullptr) return {};
  if (!value->is_string()) broken("a member is not a text");
  return std::string(value->get_string());
}

std::vector<std::string> texts_of(const json::Object& object, std::string_view name) {
  std::vector<std::string> out;
  const json::Value* value = member(object, name);
  if (value == nullptr) return out;
  if (!value->is_array()) broken("a member is not a list");
  for (const json::Value& item : value->get_array()) {
    if (!item.is_string()) broken("an item is not a text");
    out.emplace_back(item.get_string());
  }
  return out;
}

std::uint64_t number_of(const json::Object& object, std::string_view name, std::uint64_t fallback) {
  const json::Value* value = member(object, name);
  if (value == nullptr) return fallback;
  if (value->is_uint64()) return value->get_uint64();
  if (value->is_int64() && value->get_int64() >= 0) return static_cast<std::uint64_t>(value->get_int64());
  broken("a member is not a number");
}

/// nullopt: not for us.
std::optional<std::uint32_t> action_of(const std::string& name, std::uint64_t errno_value) {
  const auto value = static_cast<std::uint32_t>(errno_value & 0xffff);
  if (name == "SCMP_ACT_ALLOW") return SCMP_ACT_ALLOW;
  if (name == "SCMP_ACT_ERRNO") return SCMP_ACT_ERRNO(value);
  if (name == "SCMP_ACT_KILL" || name == "SCMP_ACT_KILL_THREAD") return SCMP_ACT_KILL_THREAD;
  if (name == "SCMP_ACT_KILL_PROCESS") return SCMP_ACT_KILL_PROCESS;
  if (name == "SCMP_ACT_LOG") return SCMP_ACT_LOG;
  if (name == "SCMP_ACT_TRAP") return SCMP_ACT_TRAP;
  if (name == "SCMP_ACT_TRACE") return SCMP_ACT_TRACE(value);
  return std::nullopt;
}

std::optional<scmp_compare> operator_of(const std::string& name) {
  static const std::map<std::string_view, scmp_compare> kOperators{{"SCMP_CMP_NE", SCMP_CMP_NE},
                                                                   {"SCMP_CMP_LT", SCMP_CMP_LT},
                                                                   {"SCMP_CMP_LE", SCMP_CMP_LE},
                                                                   {"SCMP_CMP_EQ", SCMP_CMP_EQ},
                                                                   {"SCMP_CMP_GE", SCMP_CMP_GE},
                                                                   {"SCMP_CMP_GT", SCMP_CMP_GT},
                                                                   {"SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ}};
  const auto found = kOperators.find(name);
  return found == kOperators.end() ? std::nullopt : std::optional(found->second);
}

std::optional<std::uint32_t> flags_of(const json::Object& profile) {
  std::uint32_t flags = 0;
  for (const std::string& name : texts_of(profile, "flags")) {
    if (name == "SECCOMP_FILTER_FLAG_LOG") flags |= SECCOMP_FILTER_FLAG_LOG;
    else if (name == "SECCOMP_FILTER_FLAG_SPEC_ALLOW") flags |= SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    else if (name != "SECCOMP_FILTER_FLAG_TSYNC") return std::nullopt;  // a single thread loads it
  }
  return flags;
}

/// One profile on its way through libseccomp.
class Compiler {
 public:
  explicit Compiler(const json::Object& profile) : profile_(profile) {}

  /// False: not for us.
  bool run() {
    default_name_ = text_of(profile_, "defaultAction");
    default_errno_ = number_of(profile_, "defaultErrnoRet", EPERM);
    const auto action = action_of(default_name_, default_errno_);
    if (!action || member(profile_, "listenerPath") != nullptr) return false;
    default_action_ = *action;
    filter_.reset(seccomp_init(default_action_));
    if (!filter_ || !add_architectures()) return false;
    // Who loads it decides on no_new_privs. A tree of comparisons instead of a list: a third of the time to load it.
    (void)seccomp_attr_set(filter_.get(), SCMP_FLTATR_CTL_NNP, 0);
    (void)seccomp_attr_set(filter_.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2);
    const json::Value* groups = member(profile_, "syscalls");
    if (groups == nullptr) return true;
    if (!groups->is_array()) broken("syscalls is not a list");
    return std::ranges::all_of(groups->get_array(), [this](const json::Value& group) {
      if (!group.is_object()) broken("a group is not an object");
      return add_group(group.get_object());
    });
  }

  std::vector<sock_filter> code() const {
    const sys::Fd file(::memfd_create("gantry-seccomp", MFD_CLOEXEC));
    if (!file) throw Error::from_errno(errno, "memfd_create");
    if (const int error = seccomp_export_bpf(filter_.get(), file.get()); error != 0)
      throw Error::from_errno(-error, "seccomp_export_bpf");
    if (::lseek(file.get(), 0, SEEK_SET) != 0) throw Error::from_errno(errno, "lseek");
    const std::string bytes = sys::read_all(file.get(), 1 << 20);
    std::vector<sock_filter> code = unknown_calls();
    const std::size_t stub = code.size();
    code.resize(stub + bytes.size() / sizeof(sock_filter));
    std::memcpy(code.data() + stub, bytes.data(), (code.size() - stub) * sizeof(sock_filter));
    return code;
  }

 private:
  bool add_architectures() {
    architectures_ = {seccomp_arch_native()};
    for (const std::string& name : texts_of(profile_, "architectures")) {
      constexpr std::string_view kPrefix = "SCMP_ARCH_";
      if (!name.starts_with(kPrefix)) broken("an architecture");
      const std::uint32_t token =
          seccomp_arch_resolve_name(to_lower(std::string_view(name).substr(kPrefix.size())).c_str());
      if (token == 0) return false;
      const int error = seccomp_arch_add(filter_.get(), token);
      if (error != 0 && error != -EEXIST) return false;
      if (std::ranges::find(architectures_, token) == architectures_.end()) architectures_.push_back(token);
    }
    return true;
  }

  bool add_group(const json::Object& group) {
    const auto action = action_of(text_of(group, "action"), number_of(group, "errnoRet", EPERM));
    if (!action) return false;
    const auto arguments = arguments_of(group);
    if (!arguments) return false;
    for (const std::string& name : texts_of(group, "names")) {
      names_.push_back(name);
      const int number = seccomp_syscall_resolve_name(name.c_str());
      if (number == __NR_SCMP_ERROR || *action == default_action_) continue;
      if (!add_rule(*action, number, *arguments)) return false;
    }
    return true;
  }

  /// nullopt: not for us.
  std::optional<std::vector<scmp_arg_cmp>> arguments_of(const json::Object& group) {
    std::vector<scmp_arg_cmp> out;
    const json::Value* list = member(group, "args");
    if (list == nullptr) return out;
    if (!list->is_array()) broken("args is not a list");
    for (const json::Value& item : list->get_array()) {
      if (!item.is_object()) broken("an argument is not an object");
      const json::Object& object = item.get_object();
      const auto op = operator_of(text_of(object, "op"));
      const std::uint64_t index = number_of(object, "index", 0);
      if (!op || index > 5) return std::nullopt;
      out.push_back(
          {static_cast<unsigned>(index), *op, number_of(object, "value", 0), number_of(object, "valueTwo", 0)});
    }
    return out;
  }

  /// Conditions are all to be met, but two on the same argument are alternatives: that is how runc reads profiles.
  bool add_rule(std::uint32_t action, int number, const std::vector<scmp_arg_cmp>& arguments) {
    unsigned seen = 0;
    bool alternatives = false;
    for (const scmp_arg_cmp& argument : arguments) {
      alternatives = alternatives || (seen >> argument.arg & 1) != 0;
      seen |= 1u << argument.arg;
    }
    if (!alternatives)
      return seccomp_rule_add_array(filter_.get(), action, number, static_cast<unsigned>(arguments.size()),
                                    arguments.data()) == 0;
    return std::ranges::all_of(arguments, [&](const scmp_arg_cmp& argument) {
      return seccomp_rule_add_array(filter_.get(), action, number, 1, &argument) == 0;
    });
  }

  /// The highest number that the profile names on an architecture; nullopt: none.
  std::optional<std::uint32_t> last_call(std::uint32_t architecture) const {
    std::optional<std::uint32_t> last;
    for (const std::string& name : names_) {
      const int number = seccomp_syscall_resolve_name_arch(architecture, name.c_str());
      if (number >= 0) last = std::max(last.value_or(0), static_cast<std::uint32_t>(number));
    }
    return last;
  }

  /// What goes before libseccomp's code: a libc that tries a new call falls back on ENOSYS, but gives up on EPERM.
  std::vector<sock_filter> unknown_calls() const {
    const bool permissive =
        default_name_ == "SCMP_ACT_ALLOW" || default_name_ == "SCMP_ACT_LOG" || default_name_ == "SCMP_ACT_TRACE";
    if (permissive || (default_name_ == "SCMP_ACT_ERRNO" && default_errno_ == ENOSYS)) return {};
    std::vector<sock_filter> code;
    const bool has_x32 = std::ranges::find(architectures_, SCMP_ARCH_X32) != architectures_.end();
    for (const std::uint32_t architecture : architectures_) {
      if (architecture == SCMP_ARCH_X32) continue;  // the kernel calls it x86_64
      const auto last = last_call(architecture);
      if (!last) continue;
      std::vector<sock_filter> part{BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
      const auto last_x32 =
          architecture == SCMP_ARCH_X86_64 && has_x32 ? last_call(SCMP_ARCH_X32) : std::optional<std::uint32_t>();
      if (last_x32) {
        part.push_back(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, kX32Bit, 1, 0));
        part.push_back(BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, *last, 1, 2));
        part.push_back(BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, *last_x32, 0, 1));
      } else {
        part.push_back(BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, *last, 0, 1));
      }
      part.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS));
      code.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)));
      code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, architecture, 0, static_cast<std::uint8_t>(part.size())));
      code.insert(code.end(), part.begin(), part.end());
    }
    return code;
  }

  const json::Object& profile_;
  Filter filter_{nullptr, &seccomp_release};
  std::string default_name_;
  std::uint64_t default_errno_ = EPERM;
  std::uint32_t default_action_ = 0;
  std::vector<std::uint32_t> architectures_;
  std::vector<std::string> names_;
};

}  // namespace

std::shared_ptr<const SeccompProgram> compile_seccomp(std::string_view profile) {
  const json::Value document = json::parse(profile);
  if (!document.is_object()) broken("it is no object");
  const auto flags = flags_of(document.get_object());
  Compiler compiler(document.get_object());
  if (!flags || !compiler.run()) return nullptr;
  const std::vector<sock_filter> code = compiler.code();
  if (code.size() > BPF_MAXINSNS) return nullptr;
  auto program = std::make_shared<SeccompProgram>();
  program->code.assign(reinterpret_cast<const char*>(code.data()), code.size() * sizeof(sock_filter));
  program->flags = *flags;
  return program;
}

std::shared_ptr<const SeccompProgram> ConfinementReader::compiled(std::string text) {
  const std::lock_guard lock(mutex_);  // also while compiling: many execs at once want the same one
  const auto found = std::ranges::find(entries_, text, &Entry::text);
  if (found != entries_.end()) {
    std::rotate(entries_.begin(), found, found + 1);
    return entries_.front().program;
  }
  auto program = compile_seccomp(text);
  entries_.insert(entries_.begin(), Entry{std::move(text), program});
  if (entries_.size() > kLimit) entries_.pop_back();
  return program;
}

std::shared_ptr<const Confinement> ConfinementReader::read_blocking(const std::string& config_json_path) {
  const auto text = sys::find_file(config_json_path, kMaxConfig);
  if (!text) return nullptr;
  const json::Value document = json::parse(*text);
  if (!document.is_object()) broken("config.json is no object");
  auto out = std::make_shared<Confinement>();
  if (const json::Value* process = member(document.get_object(), "process");
      process != nullptr && process->is_object()) {
    out->apparmor_profile = text_of(process->get_object(), "apparmorProfile");
    out->selinux_label = text_of(process->get_object(), "selinuxLabel");
  }
  const json::Value* linux = member(document.get_object(), "linux");
  if (linux == nullptr || !linux->is_object()) broken("config.json has no linux");
  if (const json::Value* seccomp = member(linux->get_object(), "seccomp")) {
    out->filter = compiled(json::render(*seccomp));
    if (!out->filter) return nullptr;
  }
  return out;
}

}  // namespace gantry::runtime
