#include "runtime/shim_client.hpp"

#include <csignal>
#include <cstdlib>

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_future.hpp>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "sys/process.hpp"

namespace gantry::runtime {
namespace {

using namespace std::chrono_literals;

sys::Path shim_program() {
  if (const char* path = std::getenv("GANTRY_SHIM")) return path;
  return std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path() / "shim" / "gantry-shim";
}

std::string quoted_list(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) {
    if (!out.empty()) out += ',';
    out += '"' + word + '"';
  }
  return "[" + out + "]";
}

struct ContainerOptions {
  std::vector<std::string> args{"/bin/busybox", "true"};
  bool tty = false;
  bool open_stdin = false;
  bool stdin_once = true;
  std::uint64_t memory = 0;
};

/// A real container: a shim, runc, and a root file system that holds nothing but busybox.
class ShimTest : public testing::Test {
 protected:
  void SetUp() override {
    id_ = "gantry-test-" + random_id().substr(0, 16);
    base_ = "/tmp/" + id_;
    dir_ = base_ / "shim";
    sys::make_directories(base_ / "rootfs/bin");
    for (const char* name : {"proc", "dev", "sys", "tmp", "etc"}) sys::make_directories(base_ / "rootfs" / name);
    std::filesystem::copy_file("/bin/busybox", base_ / "rootfs/bin/busybox");
    for (const char* applet : {"sh", "cat", "echo", "sleep", "stty"})
      std::filesystem::create_symlink("busybox", base_ / "rootfs/bin" / applet);
  }

  void TearDown() override {
    if (std::filesystem::exists(dir_ / "socket")) {
      try {
        ShimClient client(dir_);
        run(client.remove());
        run(client.shutdown());
      } catch (const Error& e) {
        ADD_FAILURE() << "cleaning up: " << e.message();
        if (const auto pid = find_shim_blocking(dir_)) ::kill(*pid, SIGKILL);
      }
    }
    sys::remove_tree(base_);
    // Whichever hierarchies runc has used; other tests' groups are not empty and stay.
    for (const auto& entry : std::filesystem::directory_iterator("/sys/fs/cgroup"))
      ::rmdir((entry.path() / "gantry-test").c_str());
    ::rmdir("/sys/fs/cgroup/gantry-test");
  }

  void run(Task<void> task) {
    auto result = boost::asio::co_spawn(loop_, std::move(task), boost::asio::use_future);
    loop_.restart();
    loop_.run();
    result.get();
  }
  /// co_spawn itself wants results that have a default.
  template <class T>
  static Task<void> store(Task<T> task, std::optional<T>* result) {
    result->emplace(co_await std::move(task));
  }
  template <class T>
  T run(Task<T> task) {
    std::optional<T> result;
    run(store(std::move(task), &result));
    return std::move(*result);
  }

  std::string oci_config(const ContainerOptions& options) const {
    const std::string memory =
        options.memory == 0 ? std::string() : R"("memory":{"limit":)" + std::to_string(options.memory) + "}";
    return R"({"ociVersion":"1.0.2","process":{"terminal":)" + std::string(options.tty ? "true" : "false") +
           R"(,"user":{"uid":0,"gid":0},"cwd":"/","env":["PATH=/bin"],"args":)" + quoted_list(options.args) +
           R"(},"root":{"path":")" + (base_ / "rootfs").string() +
           R"("},"hostname":"t","mounts":[{"destination":"/proc","type":"proc","source":"proc"},)"
           R"({"destination":"/dev","type":"tmpfs","source":"tmpfs"},)"
           R"({"destination":"/dev/pts","type":"devpts","source":"devpts","options":["newinstance","ptmxmode=0666"]}],)"
           R"("linux":{"cgroupsPath":"/gantry-test/)" +
           id_ + R"(","resources":{)" + memory +
           R"(},"namespaces":[{"type":"pid"},{"type":"mount"},{"type":"ipc"},{"type":"uts"}]}})";
  }

  ShimClient spawn(const ContainerOptions& options) {
    sys::make_directories(base_ / "bundle");
    sys::write_atomically(base_ / "bundle/config.json", oci_config(options), 0644, false);
    ShimConfig config;
    config.container_id = id_;
    config.bundle = base_ / "bundle";
    config.runtime_path = "runc";
    config.runtime_root = base_ / "runc";
    config.tty = options.tty;
    config.open_stdin = options.open_stdin;
    config.stdin_once = options.stdin_once;
    config.log_path = base_ / "test-json.log";
    config.log = {1 << 20, 2};
    const bool v1 = std::filesystem::exists("/sys/fs/cgroup/memory/cgroup.procs");
    const std::string group = "gantry-test/" + id_;
    config.cgroup_memory = v1 ? "/sys/fs/cgroup/memory/" + group : "/sys/fs/cgroup/" + group;
    config.cgroup_freezer = v1 ? "/sys/fs/cgroup/freezer/" + group : "/sys/fs/cgroup/" + group;
    config.cgroup_procs = config.cgroup_memory;
    spawn_shim_blocking(shim_program(), dir_, config);
    return run(ShimClient::connect(dir_));
  }

  ShimClient started(const ContainerOptions& options) {
    ShimClient client = spawn(options);
    const StartResult result = run(client.start());
    EXPECT_FALSE(result.failure) << result.failure->message;
    return client;
  }

  /// Everything until the end of the stream, as it comes.
  static Task<std::string> read_all(AttachStream* stream) {
    std::string out;
    char buffer[4096];
    while (const std::size_t got = co_await stream->read(buffer, sizeof buffer)) out.append(buffer, got);
    co_return out;
  }
  static Task<std::string> read_until(AttachStream* stream, std::string text) {
    std::string out;
    char buffer[4096];
    while (out.find(text) == std::string::npos) {
      const std::size_t got = co_await stream->read(buffer, sizeof buffer);
      if (got == 0) break;
      out.append(buffer, got);
    }
    co_return out;
  }

  static std::string frame(char stream, std::string_view text) {
    std::string out{stream, 0, 0, 0, 0, 0, 0, static_cast<char>(text.size())};
    return out.append(text);
  }

  std::string process_json(const std::vector<std::string>& args, bool tty = false) const {
    return std::string(R"({"terminal":)") + (tty ? "true" : "false") +
           R"(,"user":{"uid":0,"gid":0},"cwd":"/","env":["PATH=/bin"],"args":)" + quoted_list(args) + "}";
  }

  boost::asio::io_context loop_{1};
  std::string id_;
  sys::Path base_;
  sys::Path dir_;
};

TEST_F(ShimTest, RunsAProcessAndReportsOutputLogAndExitCode) {
  ShimClient client = spawn({{"sh", "-c", "echo out; echo err >&2; exit 3"}});
  AttachStream stream = run(client.attach({}));
  EXPECT_FALSE(stream.tty());
  const StartResult started = run(client.start());
  ASSERT_FALSE(started.failure) << started.failure->message;
  EXPECT_GT(started.pid, 0);
  const std::string output = run(read_all(&stream));
  EXPECT_NE(output.find(frame(1, "out\n")), std::string::npos);
  EXPECT_NE(output.find(frame(2, "err\n")), std::string::npos);
  const ExitRecord exit = run(client.wait());
  EXPECT_EQ(exit.exit_code, 3);
  EXPECT_EQ(exit.signal, 0);
  EXPECT_FALSE(exit.oom_killed);
  EXPECT_EQ(read_exit_blocking(dir_), exit);
  const std::string log = sys::read_file(base_ / "test-json.log");
  EXPECT_NE(log.find(R"({"log":"out\n","stream":"stdout","time":")"), std::string::npos);
  EXPECT_NE(log.find(R"({"log":"err\n","stream":"stderr","time":")"), std::string::npos);
  EXPECT_EQ(run(client.state()).status, ShimStatus::stopped);
}

TEST_F(ShimTest, ReportsAMissingExecutableTyped) {
  ShimClient client = spawn({{"nosuch"}});
  const StartResult started = run(client.start());
  ASSERT_TRUE(started.failure);
  EXPECT_EQ(started.failure->stage, RuntimeStage::create);
  EXPECT_EQ(started.failure->kind, FailureKind::executable_not_found);
  EXPECT_EQ(started.failure->path, "nosuch");
  EXPECT_NE(started.failure->message.find("executable file not found in $PATH"), std::string::npos);
  EXPECT_EQ(run(client.state()).status, ShimStatus::empty);
  EXPECT_FALSE(std::filesystem::exists(base_ / "test-json.log") &&
               std::filesystem::file_size(base_ / "test-json.log") > 0);
}

TEST_F(ShimTest, ReportsAFileThatIsNotExecutableTyped) {
  sys::write_atomically(base_ / "rootfs/etc/passwd", "root:x:0:0::/:/bin/sh\n", 0644, false);
  const StartResult started = run(spawn({{"/etc/passwd"}}).start());
  ASSERT_TRUE(started.failure);
  EXPECT_EQ(started.failure->kind, FailureKind::permission_denied);
  EXPECT_EQ(started.failure->path, "/etc/passwd");
}

TEST_F(ShimTest, PassesInputAndClosesItWhenTheFirstClientDoes) {
  ContainerOptions options{{"cat"}};
  options.open_stdin = true;
  ShimClient client = spawn(options);
  AttachRequest request;
  request.use_stdin = true;
  AttachStream stream = run(client.attach(request));
  run(stream.write("hello\n"));  // before the start
  ASSERT_FALSE(run(client.start()).failure);
  stream.close_write();
  EXPECT_EQ(run(read_all(&stream)), frame(1, "hello\n"));
  EXPECT_EQ(run(client.wait()).exit_code, 0);
}

TEST_F(ShimTest, KeepsInputOpenForTheNextClientUnlessStdinOnce) {
  ContainerOptions options{{"cat"}};
  options.open_stdin = true;
  options.stdin_once = false;
  ShimClient client = started(options);
  AttachRequest request;
  request.use_stdin = true;
  AttachStream first = run(client.attach(request));
  first.close_write();
  EXPECT_EQ(run(read_all(&first)), "");  // only this attach ends
  AttachStream second = run(client.attach(request));
  run(second.write("again\n"));
  EXPECT_EQ(run(read_until(&second, "again\n")), frame(1, "again\n"));
  run(client.kill(SIGKILL));
  const ExitRecord exit = run(client.wait());
  EXPECT_EQ(exit.exit_code, 137);
  EXPECT_EQ(exit.signal, SIGKILL);
  EXPECT_FALSE(exit.oom_killed);
}

TEST_F(ShimTest, GivesATerminalItsSizeAndRawOutput) {
  ContainerOptions options{{"sh", "-c", "read x; stty size; echo got $x"}};
  options.tty = options.open_stdin = true;
  ShimClient client = spawn(options);
  AttachRequest request;
  request.use_stdin = true;
  AttachStream stream = run(client.attach(request));
  EXPECT_TRUE(stream.tty());
  ASSERT_FALSE(run(client.start()).failure);
  run(client.resize(33, 99));
  run(stream.write("word\n"));
  const std::string output = run(read_all(&stream));
  EXPECT_NE(output.find("33 99\r\n"), std::string::npos) << output;
  EXPECT_NE(output.find("got word\r\n"), std::string::npos) << output;
  EXPECT_EQ(run(client.wait()).exit_code, 0);
}

TEST_F(ShimTest, GoesOnWhenEveryConnectionIsLostAndIsFoundAgain) {
  pid_t shim = 0;
  {
    ShimClient client = started({{"sleep", "1000"}});
    AttachStream stream = run(client.attach({}));
    shim = run(client.state()).shim_pid;
  }
  EXPECT_EQ(find_shim_blocking(dir_), shim);
  ShimClient again = run(ShimClient::connect(dir_));
  const ContainerState state = run(again.state());
  EXPECT_EQ(state.status, ShimStatus::running);
  EXPECT_EQ(state.shim_pid, shim);
  EXPECT_GT(state.pid, 0);
  EXPECT_EQ(run(again.pids()), std::vector<pid_t>{state.pid});
  EXPECT_THROW(run(again.shutdown()), Error);
  run(again.kill(SIGKILL));
  EXPECT_EQ(run(again.wait()).signal, SIGKILL);
}

TEST_F(ShimTest, ExecHasItsOwnStreamsAndExitCode) {
  ShimClient client = started({{"sleep", "1000"}});
  ExecRequest request;
  request.exec_id = "e1";
  request.process_json = process_json({"sh", "-c", "cat; exit 7"});
  request.open_stdin = true;
  run(client.exec_create(request));
  AttachRequest attach;
  attach.exec_id = "e1";
  attach.use_stdin = true;
  AttachStream stream = run(client.attach(attach));
  const ExecStartResult result = run(client.exec_start("e1"));
  ASSERT_FALSE(result.failure) << result.failure->message;
  EXPECT_GT(result.pid, 0);
  run(stream.write("via exec"));
  stream.close_write();
  EXPECT_EQ(run(read_all(&stream)), frame(1, "via exec"));
  const ExecState state = run(client.exec_state("e1"));  // known when the stream has ended
  ASSERT_TRUE(state.exit);
  EXPECT_EQ(state.exit->exit_code, 7);
  EXPECT_EQ(run(client.wait("e1")).exit_code, 7);
  run(client.exec_remove("e1"));
  EXPECT_THROW(run(client.exec_state("e1")), Error);
}

TEST_F(ShimTest, ExecOfAMissingProgramIsTypedAndLeavesTheContainerAlone) {
  ShimClient client = started({{"sleep", "1000"}});
  ExecRequest request;
  request.exec_id = "bad";
  request.process_json = process_json({"nosuch"});
  run(client.exec_create(request));
  const ExecStartResult result = run(client.exec_start("bad"));
  ASSERT_TRUE(result.failure);
  EXPECT_EQ(result.failure->stage, RuntimeStage::exec);
  EXPECT_EQ(result.failure->kind, FailureKind::executable_not_found);
  EXPECT_EQ(run(client.wait("bad")).exit_code, 127);
  EXPECT_EQ(run(client.state()).status, ShimStatus::running);
}

TEST_F(ShimTest, ExecWithATerminalCanBeResizedBeforeItStarts) {
  ShimClient client = started({{"sleep", "1000"}});
  ExecRequest request;
  request.exec_id = "tty";
  request.process_json = process_json({"stty", "size"}, true);
  request.tty = true;
  run(client.exec_create(request));
  run(client.resize(11, 22, "tty"));
  AttachRequest attach;
  attach.exec_id = "tty";
  AttachStream stream = run(client.attach(attach));
  const ExecStartResult result = run(client.exec_start("tty"));
  ASSERT_FALSE(result.failure) << result.failure->message;
  EXPECT_EQ(run(read_all(&stream)), "11 22\r\n");
}

TEST_F(ShimTest, AStoppedShimOnlyMakesItsOwnCallsTimeOut) {
  ShimClient client = started({{"sleep", "1000"}});
  const pid_t shim = run(client.state()).shim_pid;
  ::kill(shim, SIGSTOP);
  try {
    run(client.state(200ms));
    ADD_FAILURE() << "a stopped shim answered";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::timed_out);
  }
  ::kill(shim, SIGCONT);
  EXPECT_EQ(run(client.state()).status, ShimStatus::running);
}

TEST_F(ShimTest, AKilledShimIsNoticedAtOnce) {
  ShimClient client = started({{"sleep", "1000"}});
  const ContainerState state = run(client.state());
  sys::Fd pidfd = sys::open_pidfd(state.shim_pid);
  auto waiting = boost::asio::co_spawn(loop_, client.wait(), boost::asio::use_future);
  loop_.restart();
  loop_.poll();
  ::kill(state.shim_pid, SIGKILL);
  loop_.run();
  try {
    waiting.get();
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::unavailable);
  }
  EXPECT_FALSE(find_shim_blocking(dir_));
  try {
    run(client.state());
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::unavailable);
  }
  sys::SpawnOptions cleanup;
  cleanup.argv = {"runc", "--root", (base_ / "runc").string(), "delete", "--force", id_};
  cleanup.env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
  sys::run(cleanup, 20);
  ::unlink((dir_ / "socket").c_str());
}

TEST_F(ShimTest, PausesAndResumes) {
  ShimClient client = started({{"sleep", "1000"}});
  run(client.pause());
  EXPECT_TRUE(run(client.state()).paused);
  EXPECT_THROW(run(client.pause()), Error);
  run(client.resume());
  EXPECT_FALSE(run(client.state()).paused);
  run(client.update(R"({"memory":{"limit":67108864}})"));
}

TEST_F(ShimTest, AClientThatDoesNotReadIsCutOffAndTheContainerEnds) {
  ShimClient client = spawn({{"sh", "-c", "busybox yes | busybox head -c 8000000; exit 5"}});
  AttachRequest request;
  request.queue_bytes = 64 << 10;
  request.patience_ms = 200;
  AttachStream idle = run(client.attach(request));
  AttachStream reader = run(client.attach({}));
  ASSERT_FALSE(run(client.start()).failure);
  std::size_t payload = 0;
  const std::string all = run(read_all(&reader));
  for (std::size_t at = 0; at + 8 <= all.size();) {
    std::uint32_t size = 0;
    for (int i = 4; i < 8; ++i) size = size << 8 | static_cast<unsigned char>(all[at + static_cast<std::size_t>(i)]);
    payload += size;
    at += 8 + size;
  }
  EXPECT_EQ(payload, 8'000'000u);
  EXPECT_EQ(run(client.wait()).exit_code, 5);
}

TEST_F(ShimTest, CountsWhatTheKernelKilledForWantOfMemory) {
  ContainerOptions options{{"sh", "-c", "exec busybox tail /dev/zero"}};
  options.memory = 16 << 20;
  ShimClient client = spawn(options);
  ASSERT_FALSE(run(client.start()).failure);
  const ExitRecord exit = run(client.wait());
  EXPECT_EQ(exit.signal, SIGKILL);
  EXPECT_GE(exit.oom_kills, 1u);
  EXPECT_TRUE(exit.oom_killed);
}

TEST_F(ShimTest, TellsAboutAKilledChildWithoutCallingTheContainerKilled) {
  ContainerOptions options{{"sh", "-c", "busybox tail /dev/zero; exec sleep 1000"}};
  options.memory = 16 << 20;
  ShimClient client = started(options);
  EXPECT_GE(run(client.wait_oom(0)), 1u);
  EXPECT_EQ(run(client.state()).status, ShimStatus::running);
  run(client.kill(SIGKILL));
  const ExitRecord exit = run(client.wait());
  EXPECT_GE(exit.oom_kills, 1u);
  EXPECT_FALSE(exit.oom_killed);
}

TEST_F(ShimTest, NoExitCodeOfAShortExecIsLost) {
  ShimClient client = started({{"sleep", "1000"}});
  for (int i = 0; i < 15; ++i) {
    ExecRequest request;
    request.exec_id = "short" + std::to_string(i);
    request.process_json = process_json({"sh", "-c", "echo x; exit 7"});
    run(client.exec_create(request));
    AttachRequest attach;
    attach.exec_id = request.exec_id;
    AttachStream stream = run(client.attach(attach));
    ASSERT_FALSE(run(client.exec_start(request.exec_id)).failure);
    EXPECT_EQ(run(read_all(&stream)), frame(1, "x\n"));
    EXPECT_EQ(run(client.wait(request.exec_id)).exit_code, 7);
    run(client.exec_remove(request.exec_id));
  }
}

TEST_F(ShimTest, AnExecWhoseChildKeepsTheStreamsStillEnds) {
  ShimClient client = started({{"sleep", "1000"}});
  ExecRequest request;
  request.exec_id = "bg";
  request.process_json = process_json({"sh", "-c", "sleep 1000 & echo done; exit 4"});
  run(client.exec_create(request));
  AttachRequest attach;
  attach.exec_id = "bg";
  AttachStream stream = run(client.attach(attach));
  ASSERT_FALSE(run(client.exec_start("bg")).failure);
  EXPECT_EQ(run(read_all(&stream)), frame(1, "done\n"));
  EXPECT_EQ(run(client.wait("bg")).exit_code, 4);
}

/// A runtime that hangs where `hang` says and otherwise does nothing.
sys::Path fake_runtime(const sys::Path& base, const std::string& hang) {
  const sys::Path path = base / "fake-runtime";
  sys::write_atomically(path, "#!/bin/sh\ncase \"$*\" in *\" " + hang + " \"*) sleep 1000;; esac\n", 0755, false);
  return path;
}

TEST_F(ShimTest, AHangingRuntimeIsKilledAndNamed) {
  ShimConfig config;
  config.container_id = id_;
  config.bundle = base_;
  config.runtime_path = fake_runtime(base_, "run");
  config.runtime_timeout_ms = 200;
  spawn_shim_blocking(shim_program(), dir_, config);
  ShimClient client = run(ShimClient::connect(dir_));
  const StartResult started = run(client.start());
  ASSERT_TRUE(started.failure);
  EXPECT_EQ(started.failure->kind, FailureKind::timed_out);
}

TEST_F(ShimTest, RemoveEndsAStartThatHangs) {
  ShimConfig config;
  config.container_id = id_;
  config.bundle = base_;
  config.runtime_path = fake_runtime(base_, "run");
  spawn_shim_blocking(shim_program(), dir_, config);
  ShimClient client = run(ShimClient::connect(dir_));
  EXPECT_THROW(run(client.start(100ms)), Error);
  EXPECT_EQ(run(client.state()).status, ShimStatus::creating);
  run(client.remove());
  EXPECT_EQ(run(client.state()).status, ShimStatus::deleted);
}

TEST_F(ShimTest, AnswersAnUnknownExecWithNotFoundAndAWrongStateWithConflict) {
  ShimClient client = spawn({{"sleep", "1000"}});
  const auto code_of = [&](Task<void> task) {
    try {
      run(std::move(task));
    } catch (const Error& e) {
      return e.code();
    }
    return Errc::internal;
  };
  EXPECT_EQ(code_of(client.kill(SIGTERM)), Errc::conflict);
  EXPECT_EQ(code_of(client.pause()), Errc::conflict);
  EXPECT_EQ(code_of(client.kill(SIGTERM, false, "nosuch")), Errc::not_found);
}

TEST_F(ShimTest, RefusesToSpawnWithAnUnusableDirectory) {
  ShimConfig config;
  config.container_id = id_;
  config.runtime_path = "runc";
  EXPECT_THROW(spawn_shim_blocking(shim_program(), dir_, config), Error);  // no bundle
  config.bundle = "/nowhere";
  EXPECT_THROW(spawn_shim_blocking("/nosuch/shim", dir_, config), Error);
}

}  // namespace
}  // namespace gantry::runtime
