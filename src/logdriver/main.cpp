#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <malloc.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "logdriver/compress.hpp"
#include "logdriver/file_log.hpp"
#include "logdriver/sender.hpp"
#include "sys/file.hpp"

/// gantry-log: what gantry-shim starts for work that would make it large or slow (docs/decisions/0011).
///   gantry-log send       descriptor 0: "key=value" settings, each ended by a NUL; 3: the shim, see logs/pipe.hpp
///   gantry-log write     the same, for a log file: see logdriver/file_log.hpp
///   gantry-log compress   descriptor 0: a rotated log file; 1: what it becomes
namespace gantry::logdriver {
namespace {

constexpr int kShim = 3;
constexpr std::size_t kMaxSettings = 16 << 20;

int send() {
  (void)::fcntl(kShim, F_SETFD, FD_CLOEXEC);
  try {
    std::string text = sys::read_all(0, kMaxSettings);
    Sender sender(Settings::parse(split(text, '\0')), kShim);
    text = std::string();
    return sender.run() ? 0 : 1;
  } catch (const Error& e) {
    const std::string line = "error " + e.message() + "\n";
    (void)!::send(kShim, line.data(), line.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    return 1;
  }
}

int write() {
  (void)::fcntl(kShim, F_SETFD, FD_CLOEXEC);
  // Before the disk is touched: no container waits for it.
  (void)!::send(kShim, "ok\n", 3, MSG_NOSIGNAL | MSG_DONTWAIT);
  try {
    FileLog(Settings::parse(split(sys::read_all(0, kMaxSettings), '\0')), kShim).run();
    return 0;
  } catch (const Error& e) {
    const std::string line = "log " + e.message() + "\n";
    (void)!::send(kShim, line.data(), line.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    return 1;
  }
}

int compress() {
  // Nobody waits for it.
  (void)::setpriority(PRIO_PROCESS, 0, 15);
  try {
    compress_file(0, 1);
    return 0;
  } catch (const Error& e) {
    log::error("{}", e.message());
    return 1;
  }
}

int log_main(int argc, char** argv) {
  (void)::mallopt(M_MMAP_THRESHOLD, 64 << 10);
  (void)::mallopt(M_TRIM_THRESHOLD, 64 << 10);
  for (const int signal : {SIGHUP, SIGINT, SIGTERM, SIGQUIT, SIGPIPE}) ::signal(signal, SIG_IGN);
  const std::string_view verb = argc == 2 ? argv[1] : "";
  if (verb == "send") return send();
  if (verb == "write") return write();
  if (verb == "compress") return compress();
  std::fputs("usage: gantry-log send|write|compress (started by gantry-shim)\n", stderr);
  return 2;
}

}  // namespace
}  // namespace gantry::logdriver

int main(int argc, char** argv) { return gantry::logdriver::log_main(argc, argv); }
