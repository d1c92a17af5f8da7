#include "engine/archive.hpp"

#include <algorithm>
#include <cerrno>
#include <exception>
#include <optional>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>

#include <fmt/format.h>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/this_coro.hpp>

#include "async/shield.hpp"
#include "base/error.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "engine/container_tree.hpp"
#include "engine/messages.hpp"
#include "engine/settings.hpp"
#include "runtime/users.hpp"
#include "storage/decompress.hpp"

namespace gantry::engine {
namespace {

/// Each has a thread and a mount namespace.
constexpr std::size_t kMostTransfers = 128;
constexpr std::size_t kLongestPath = 4096;  // PATH_MAX
/// How long the sources of binds may take to answer before the request is given up.
constexpr std::chrono::seconds kOpenPatience{60};

/// Cleaned as the client's own "/" would be, but a trailing "/" or "/." keeps its meaning.
std::string normalize(const std::string& path) {
  if (path.empty()) throw Error(Errc::invalid_argument, "bad parameter: path cannot be empty");
  if (path.size() > kLongestPath || path.find('\0') != std::string::npos)
    throw Error(Errc::invalid_argument, "bad parameter: path is longer than 4096 bytes or contains a NUL byte");
  std::string clean = volume::clean_path("/" + path);
  if (path.ends_with("/.") || path == ".") return clean + (clean == "/" ? "." : "/.");
  if (path.ends_with('/') && clean != "/") clean += '/';
  return clean;
}

}  // namespace

/// One request. Its thread is the only one that touches `tree` once that is open.
struct ArchiveSession {
  ArchiveSession(ContainerPtr whose, std::string shown, std::string asked)
      : container(std::move(whose)),
        reference(std::move(shown)),
        asked_path(std::move(asked)),
        path(normalize(asked_path)),
        lane(std::make_shared<async::Lane>("archive", 1)) {}

  const ContainerPtr container;
  const std::string reference;
  const std::string asked_path;
  const std::string path;
  std::shared_ptr<async::Lane> lane;
  std::string volume_user;  // the name under which it uses volumes
  std::vector<std::string> volumes;
  bool holds_root = false;
  bool stuck = false;  // its thread does not come back
  std::shared_ptr<ContainerTree> tree;
  storage::PathStat stat;

  // While bytes flow.
  std::shared_ptr<storage::ByteChannel> channel = std::make_shared<storage::ByteChannel>();
  std::exception_ptr failure;  // the first one: the others follow from it
  bool over = false;

  void finish(std::exception_ptr error) {
    if (error && !failure) failure = std::move(error);
    over = true;
    container->changed.notify();
  }
  Error missing() const {
    return {Errc::not_found, fmt::format("Could not find the file {} in container {}", asked_path, reference)};
  }
  /// Throws if the files that were worked on may have been gone already.
  void require_still_there() const {
    if (container->removing || container->removed)
      throw Error(Errc::conflict, fmt::format("container {} is being removed", container->id.str()));
  }
};

namespace {

using SessionPtr = std::shared_ptr<ArchiveSession>;

TreePlan plan_tree(const Services& services, const Container& container) {
  TreePlan plan;
  const std::string id = container.id.str();
  plan.container_id = id;
  plan.rootfs = services.paths.rootfs(id);
  plan.read_only_root = container.host.ReadonlyRootfs;
  plan.mounts = container.mounts;
  plan.ids = container.id_mapping;
  plan.anchor = services.paths.exec_root;
  if (container.state.running && !container.state.restarting) plan.init_pid = container.state.pid;
  const std::string donor = joined_container(container.network_mode());
  const sys::Path files = services.paths.container(donor.empty() ? id : donor);
  for (const char* name : {"resolv.conf", "hostname", "hosts"}) {
    const std::string destination = std::string("/etc/") + name;
    const auto covers = [&](const volume::MountPoint& mount) { return mount.destination == destination; };
    if (std::ranges::none_of(plan.mounts, covers)) plan.files.push_back({files / name, destination});
  }
  return plan;
}

/// Ends the transfer when the container goes.
Task<void> watch_removal(SessionPtr session) {
  while (!session->over) {
    if (session->container->removing || session->container->removed) {
      if (!session->failure) {
        try {
          session->require_still_there();
        } catch (const Error&) {
          session->failure = std::current_exception();
        }
      }
      session->channel->abort();
      session->channel->fail(session->failure);
      std::rethrow_exception(session->failure);
    }
    co_await session->container->changed.wait();
  }
}

Task<void> pack_in_lane(SessionPtr session) {
  try {
    co_await session->lane->run([session] {
      storage::tar_path(session->tree->root(), session->path,
                        [session](std::string_view bytes) { session->channel->write_blocking(bytes); },
                        session->container->id_mapping);
    });
    session->require_still_there();
    session->channel->close();
  } catch (const std::exception&) {
    if (!session->failure) session->failure = std::current_exception();
    session->channel->fail(session->failure);
  }
}

Task<void> send_to(SessionPtr session, std::shared_ptr<ArchiveReader> reader) {
  std::exception_ptr failure;
  try {
    for (;;) {
      std::string piece = co_await session->channel->next();
      if (piece.empty()) break;
      co_await reader->write(std::move(piece));
    }
  } catch (const std::exception&) {
    failure = std::current_exception();
  }
  session->channel->abort();
  session->finish(failure);
  if (failure) std::rethrow_exception(failure);
}

Task<void> unpack_in_lane(SessionPtr session, storage::UnpackOptions options) {
  std::exception_ptr failure;
  try {
    co_await session->lane->run([session, options] {
      const auto plain = storage::decompress(session->channel, options.budget);
      storage::untar_into(session->tree->root(), session->path, *plain, options);
    });
    session->require_still_there();
  } catch (const std::exception&) {
    failure = std::current_exception();
  }
  session->channel->abort();
  session->finish(failure);
  if (failure) std::rethrow_exception(failure);
}

Task<void> receive_from(SessionPtr session, std::shared_ptr<ArchiveWriter> writer) {
  try {
    for (;;) {
      std::string piece = co_await writer->read();
      if (piece.empty()) break;
      co_await session->channel->write(std::move(piece));
    }
    session->channel->close();
  } catch (const std::exception&) {
    if (!session->failure) session->failure = std::current_exception();
    session->channel->fail(session->failure);
  }
}

/// Docker's answer for a directory that cannot be unpacked into.
void check_target_blocking(int root, const std::string& path) {
  sys::Fd target;
  try {
    target = sys::open_in_root(root, path, O_PATH);
  } catch (const Error& e) {
    if (e.sys_errno() != ENOTDIR) throw;
  }
  struct stat st{};
  if (!target || ::fstat(target.get(), &st) != 0 || !S_ISDIR(st.st_mode))
    throw Error(Errc::invalid_argument, "extraction point is not a directory");
  const std::string reason = read_only_reason(root, target.get());
  if (!reason.empty()) throw Error(Errc::invalid_argument, reason);
}

runtime::ResolvedUser find_user_blocking(int root, const std::string& user) {
  try {
    return runtime::resolve_user(storage::read_file_in_root(root, "/etc/passwd"),
                                 storage::read_file_in_root(root, "/etc/group"), user, {});
  } catch (const Error& e) {
    throw Error(Errc::invalid_argument,
                fmt::format("failed to look up user {} in container: {}", quote(user), e.message()));
  }
}

}  // namespace

std::shared_ptr<ArchiveSession> Archive::begin(const std::string& reference, const std::string& path) {
  if (reference.empty()) throw Error(Errc::invalid_argument, "bad parameter: name cannot be empty");
  (void)normalize(path);
  ContainerPtr container = store_.get(reference);
  if (transfers_ >= kMostTransfers)
    throw Error(Errc::unavailable, fmt::format("{} transfers from and to containers are under way, which is the limit: "
                                               "wait until one has ended",
                                               transfers_));
  auto session = std::make_shared<ArchiveSession>(container, reference, path);
  session->volume_user = fmt::format("{}/archive-{}", container->id.str(), ++last_number_);
  return session;
}

/// Opens the tree, does the steps and takes everything down again whatever happens, also when the client leaves.
Task<void> Archive::run(SessionPtr session, Task<void> steps) {
  auto op = services_.operations.begin("container.archive", session->container->name);
  ++transfers_;
  std::exception_ptr failure;
  try {
    op->step("opening the container's files");
    co_await async::shielded(open(session));
    op->step("transferring " + session->path.substr(0, 256));
    co_await std::move(steps);
  } catch (const std::exception&) {
    failure = std::current_exception();
  }
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  op->step("closing the container's files");
  co_await close(session);
  if (!session->stuck) --transfers_;
  if (failure) std::rethrow_exception(failure);
}

Task<void> Archive::open(SessionPtr session) {
  ContainerPtr container = session->container;
  const std::string id = container->id.str();
  TreePlan plan;
  {
    const auto turn = co_await container->mutex.lock("archive");
    if (container->removed) throw no_such_container(session->reference);
    session->require_still_there();
    if (container->state.dead) throw Error(Errc::conflict, fmt::format("container {} is Dead", id));
    co_await services_.rootfs.hold(container->id, container->chain_id);
    session->holds_root = true;
    for (const volume::MountPoint& mount : container->mounts) {
      if (mount.type != volume::MountType::volume) continue;
      const auto found = services_.volumes.find(mount.name);
      if (!found || !found->has_backing_mount()) continue;
      co_await services_.volumes.mount(session->volume_user, mount.name, volume_use(mount));
      session->volumes.push_back(mount.name);
    }
    plan = plan_tree(services_, *container);
  }
  std::exception_ptr failure;
  try {
    session->tree = co_await session->lane->run_within(
        kOpenPatience, [plan] { return std::make_shared<ContainerTree>(ContainerTree::open_blocking(plan)); });
  } catch (const Error& e) {
    failure = std::current_exception();
    // The thread waits in the kernel for a file server that does not answer: joining it would wait as well.
    session->stuck = e.code() == Errc::timed_out;
    if (session->stuck) (void)new std::shared_ptr<async::Lane>(session->lane);
  }
  if (failure) std::rethrow_exception(failure);
}

Task<void> Archive::close(SessionPtr session) {
  // Taking a mount namespace down can wait for the kernel: not on the loop.
  if (session->tree) co_await session->lane->run([session] { session->tree.reset(); });
  try {
    for (const std::string& name : session->volumes) co_await services_.volumes.unmount(session->volume_user, name);
    if (session->holds_root) co_await services_.rootfs.release(session->container->id);
  } catch (const Error& e) {
    log::error("container {}: its files could not be closed: {}", session->container->name, e.log_detail());
  }
}

Task<void> Archive::stat_steps(SessionPtr session) {
  try {
    session->stat =
        co_await session->lane->run([session] { return storage::stat_path(session->tree->root(), session->path); });
  } catch (const Error& e) {
    if (e.code() == Errc::not_found) throw session->missing();
    throw;
  }
}

Task<storage::PathStat> Archive::stat(std::string reference, std::string path) {
  SessionPtr session = begin(reference, path);
  co_await run(session, stat_steps(session));
  co_return session->stat;
}

Task<void> Archive::read_steps(SessionPtr session, std::shared_ptr<ArchiveReader> reader) {
  using namespace boost::asio::experimental::awaitable_operators;
  co_await stat_steps(session);
  lifecycle_.publish(*session->container, "archive-path");
  co_await reader->begin(session->stat);
  try {
    co_await (pack_in_lane(session) && send_to(session, reader) && watch_removal(session));
  } catch (const std::exception&) {
    if (!session->failure) throw;
  }
  if (session->failure) std::rethrow_exception(session->failure);
}

Task<void> Archive::read(std::string reference, std::string path, std::shared_ptr<ArchiveReader> reader) {
  SessionPtr session = begin(reference, path);
  co_await run(session, read_steps(session, std::move(reader)));
}

Task<void> Archive::write_steps(SessionPtr session, ExtractOptions options, std::shared_ptr<ArchiveWriter> writer) {
  using namespace boost::asio::experimental::awaitable_operators;
  storage::UnpackOptions unpack;
  unpack.no_overwrite_dir_non_dir = options.no_overwrite_dir_non_dir;
  unpack.ids = session->container->id_mapping;
  const std::string user = options.copy_uid_gid ? session->container->config.User : std::string();
  try {
    const auto owner = co_await session->lane->run([session, user]() -> std::optional<runtime::ResolvedUser> {
      check_target_blocking(session->tree->root(), session->path);
      if (user.empty()) return std::nullopt;
      return find_user_blocking(session->tree->root(), user);
    });
    if (owner) {
      unpack.uid = owner->user.uid;
      unpack.gid = owner->user.gid;
    }
  } catch (const Error& e) {
    if (e.code() == Errc::not_found) throw session->missing();
    throw;
  }
  try {
    co_await (receive_from(session, writer) && unpack_in_lane(session, unpack) && watch_removal(session));
  } catch (const std::exception&) {
    if (!session->failure) throw;
  }
  if (session->failure) std::rethrow_exception(session->failure);
  lifecycle_.publish(*session->container, "extract-to-dir");
}

Task<void> Archive::write(std::string reference, std::string path, ExtractOptions options,
                          std::shared_ptr<ArchiveWriter> writer) {
  SessionPtr session = begin(reference, path);
  co_await run(session, write_steps(session, options, std::move(writer)));
}

}  // namespace gantry::engine
