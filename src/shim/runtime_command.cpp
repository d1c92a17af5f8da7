#include "shim/runtime_command.hpp"

#include <cerrno>
#include <csignal>
#include <cstdlib>

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.hpp"
#include "shim/failure.hpp"
#include "shim/open_files.hpp"

extern char** environ;

namespace gantry::shim {
namespace {

constexpr std::size_t kMaxOutput = 256 << 10;

sys::Fd anonymous_file() {
  sys::Fd fd(::memfd_create("gantry-shim", MFD_CLOEXEC));
  if (!fd) throw Error::from_errno(errno, "memfd_create");
  return fd;
}

std::string read_from_start(int fd) {
  std::string text(kMaxOutput, '\0');
  const ssize_t got = ::pread(fd, text.data(), text.size(), 0);
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  return text;
}

std::vector<std::string> full_command(const protocol::ShimConfig& config, const sys::Path& log,
                                      const std::vector<std::string>& args) {
  std::vector<std::string> argv{config.runtime_path};
  if (!config.runtime_root.empty()) argv.insert(argv.end(), {"--root", config.runtime_root});
  argv.insert(argv.end(), {"--log", log.string(), "--log-format", "json"});
  argv.insert(argv.end(), config.runtime_args.begin(), config.runtime_args.end());
  argv.insert(argv.end(), args.begin(), args.end());
  return argv;
}

}  // namespace

std::string absolute_path(const std::string& name) { return (std::filesystem::current_path() / name).string(); }

sys::Fd text_file(std::string_view text) {
  sys::Fd fd = anonymous_file();
  sys::write_all(fd.get(), text);
  if (::lseek(fd.get(), 0, SEEK_SET) != 0) throw Error::from_errno(errno, "lseek");
  return fd;
}

RuntimeCommand::RuntimeCommand(Loop& loop, Reaper& reaper, const protocol::ShimConfig& config, Options options,
                               Done done)
    : reaper_(reaper), hold_(reaper), done_(std::move(done)) {
  static unsigned sequence = 0;
  log_path_ = absolute_path("runtime-" + std::to_string(++sequence) + ".log");
  sys::SpawnOptions spawn;
  spawn.argv = full_command(config, log_path_, options.args);
  for (char** entry = environ; *entry != nullptr; ++entry) spawn.env.emplace_back(*entry);
  spawn.stdin_fd = options.stdin_fd;
  spawn.stdout_fd = options.stdout_fd;
  spawn.stderr_fd = options.stderr_fd;
  if (options.stderr_fd < 0) {
    printed_ = anonymous_file();
    spawn.stderr_fd = printed_.get();
  }
  {
    const OriginalOpenFiles limit;  // the container's processes inherit it
    child_ = sys::spawn(spawn);
  }
  reaper_.expect(child_.pid, [this](int status, std::int64_t) { ended(status); });
  timeout_ = loop.after(std::chrono::milliseconds(config.runtime_timeout_ms), [this] { abort(true); });
}

RuntimeCommand::~RuntimeCommand() {
  if (child_.pid > 0) reaper_.forget(child_.pid);
}

void RuntimeCommand::abort(bool because_of_time) {
  timed_out_ = because_of_time;
  // Its own session, so its own group: helpers that it has started go with it.
  if (child_.pid > 0) (void)::kill(-child_.pid, SIGKILL);
}

void RuntimeCommand::ended(int status) {
  child_.pid = -1;
  timeout_.reset();
  CommandResult result;
  result.ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  result.timed_out = timed_out_;
  if (!result.ok) {
    const std::string log = sys::try_read_small(log_path_).value_or(std::string());
    result.failure = failure_text(log, printed_ ? read_from_start(printed_.get()) : std::string());
    if (timed_out_) result.failure = "the runtime did not end in time and was killed";
    else if (result.failure.empty() && WIFSIGNALED(status))
      result.failure = "the runtime was killed by signal " + std::to_string(WTERMSIG(status));
    else if (result.failure.empty())
      result.failure = "the runtime failed with status " + std::to_string(WEXITSTATUS(status));
  }
  ::unlink(log_path_.c_str());
  const Done done = std::move(done_);
  done(std::move(result));
}

}  // namespace gantry::shim
