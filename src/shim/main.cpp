#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <malloc.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.hpp"
#include "base/log.hpp"
#include "shim/dns_server.hpp"
#include "shim/open_files.hpp"
#include "shim/relay.hpp"
#include "shim/server.hpp"

/// gantry-shim --dir DIR [--ready-fd N]: see docs/shim-protocol.md.
namespace gantry::shim {
namespace {

struct Arguments {
  std::string dir;
  int ready_fd = -1;
};

Arguments parse_arguments(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    if (name == "--dir") arguments.dir = argv[i + 1];
    else if (name == "--ready-fd") arguments.ready_fd = std::atoi(argv[i + 1]);
    else throw Error(Errc::invalid_argument, "unknown option " + std::string(name));
  }
  if (arguments.dir.empty()) throw Error(Errc::invalid_argument, "usage: gantry-shim --dir DIR [--ready-fd N]");
  return arguments;
}

/// Leaves the daemon: own session, no terminal, no stream of it, and no parent that waits for us.
void detach(const std::string& dir) {
  const pid_t child = ::fork();
  if (child < 0) throw Error::from_errno(errno, "fork");
  if (child > 0) ::_exit(0);
  (void)::setsid();
  if (::chdir(dir.c_str()) != 0) throw Error::from_errno(errno, "chdir " + dir);
  ::umask(0022);  // the container's processes inherit it
  const sys::Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  const sys::Fd log(::open("log", O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600));
  for (int fd = 0; fd < 3; ++fd) (void)::dup2(fd == 2 && log ? log.get() : null.get(), fd);
}

void prepare_process(const protocol::ShimConfig& config) {
  // Only SIGKILL ends a shim: whoever signals the daemon's group does not mean the container.
  for (const int signal : {SIGHUP, SIGINT, SIGTERM, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2}) ::signal(signal, SIG_IGN);
  if (::prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) throw Error::from_errno(errno, "become a subreaper");
  (void)::prctl(PR_SET_NAME, "gantry-shim");
  if (config.oom_score_adj) {
    const sys::Fd file(::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
    const std::string text = std::to_string(*config.oom_score_adj);
    // Lowering needs CAP_SYS_RESOURCE; without it the shim is as killable as anybody.
    if (file) (void)!::write(file.get(), text.data(), text.size());
  }
}

void tell_ready(int& fd, std::string_view text) {
  if (fd < 0) return;
  (void)!::write(fd, text.data(), text.size());
  ::close(std::exchange(fd, -1));
}

constexpr int kFirstSocket = 4;  // behind the ready pipe; docs/shim-protocol.md

/// Takes the sockets of published ports that the daemon bound.
std::unique_ptr<Relay> make_relay(const protocol::ShimConfig& config) {
  if (config.ports.empty()) return nullptr;
  std::vector<RelayPort> ports;
  for (std::size_t i = 0; i < config.ports.size(); ++i) {
    const protocol::PublishedPort& from = config.ports[i];
    sys::Fd socket(kFirstSocket + static_cast<int>(i));
    if (::fcntl(socket.get(), F_SETFD, FD_CLOEXEC) != 0) throw Error::from_errno(errno, "socket of a published port");
    ports.push_back({from.proto, from.target_ip, from.target_port, from.serve, std::move(socket)});
  }
  return std::make_unique<Relay>(std::move(ports));
}

void run(int& ready_fd) {
  const protocol::ShimConfig config = protocol::parse_config(sys::read_file("config", 1 << 20));
  prepare_process(config);
  raise_open_files();
  std::unique_ptr<Relay> relay = make_relay(config);
  Loop loop;
  Watch relay_watch;
  if (relay) relay_watch = loop.watch(relay->fd(), EPOLLIN, [&relay](std::uint32_t) { relay->on_ready(); });
  Reaper reaper(loop);
  Container container(loop, reaper, config);
  dns::NameServer names(loop);
  if (!config.names.empty()) names.serve(config.netns, config.names);
  Server server(loop, container, names, "socket", [&relay, &relay_watch] {
    relay_watch.reset();
    relay.reset();
  });
  server.on_retarget([&relay](const std::string& ip) {
    if (relay) relay->retarget(ip);
  });
  sys::write_atomically("pid", std::to_string(::getpid()) + "\n", 0600, false);
  tell_ready(ready_fd, "ok\n");
  loop.run();
  ::unlink("pid");
}

int shim_main(int argc, char** argv) {
  // Large blocks go back to the kernel at once, small ones stay few: memory per container is what this program costs.
  (void)::mallopt(M_MMAP_THRESHOLD, 64 << 10);
  (void)::mallopt(M_TRIM_THRESHOLD, 64 << 10);
  (void)::mallopt(M_TOP_PAD, 16 << 10);
  int ready_fd = -1;
  try {
    const Arguments arguments = parse_arguments(argc, argv);
    ready_fd = arguments.ready_fd;
    if (ready_fd >= 0) (void)::fcntl(ready_fd, F_SETFD, FD_CLOEXEC);
    detach(arguments.dir);
    run(ready_fd);
    return 0;
  } catch (const Error& e) {
    log::error("{}", e.message());
    tell_ready(ready_fd, "error: " + e.message() + "\n");
    return 1;
  }
}

}  // namespace
}  // namespace gantry::shim

int main(int argc, char** argv) { return gantry::shim::shim_main(argc, argv); }
