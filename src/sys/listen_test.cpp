#include "sys/listen.hpp"

#include <cstdlib>
#include <filesystem>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace gantry::sys {
namespace {

class ListenTest : public ::testing::Test {
 protected:
  ListenTest() {
    char name[] = "/tmp/gantry-listen-XXXXXX";
    directory_ = ::mkdtemp(name);
  }
  ~ListenTest() override { std::filesystem::remove_all(directory_); }
  std::string directory_;
};

struct stat status(const std::string& path) {
  struct stat st{};
  EXPECT_EQ(::lstat(path.c_str(), &st), 0) << path;
  return st;
}

TEST_F(ListenTest, MakesASocketWithModeAndGroup) {
  const std::string path = directory_ + "/sub/x.sock";
  const UnixListener listener = listen_unix(path, {.mode = 0660, .group = "123"});
  const struct stat st = status(path);
  EXPECT_TRUE(S_ISSOCK(st.st_mode));
  EXPECT_EQ(st.st_mode & 07777, 0660U);
  EXPECT_EQ(st.st_gid, 123U);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_ + "/sub"), {}), 1);
}

TEST_F(ListenTest, WarnsAboutAMissingGroupUnlessItIsRequired) {
  const UnixListener listener = listen_unix(directory_ + "/a", {.group = "no-such-group"});
  EXPECT_NE(listener.warning.find("no-such-group"), std::string::npos);
  EXPECT_THROW(listen_unix(directory_ + "/b", {.group = "no-such-group", .group_required = true}), Error);
  EXPECT_FALSE(std::filesystem::exists(directory_ + "/b"));
}

TEST_F(ListenTest, ReplacesAStaleSocketButNotOneInUseNorAFile) {
  const std::string path = directory_ + "/x";
  {
    const UnixListener stale = listen_unix(path, {});
  }
  ASSERT_TRUE(std::filesystem::exists(path));
  const UnixListener fresh = listen_unix(path, {});
  EXPECT_THROW(listen_unix(path, {}), Error);
  EXPECT_EQ(status(path).st_ino, fresh.inode);
  const Fd file(::open((directory_ + "/file").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  EXPECT_THROW(listen_unix(directory_ + "/file", {}), Error);
  EXPECT_THROW(listen_unix(directory_ + "/" + std::string(200, 'x'), {}), Error);
}

TEST_F(ListenTest, UnlinksOnlyItsOwnSocket) {
  const std::string path = directory_ + "/x";
  UnixListener first = listen_unix(path, {});
  first.fd.reset();
  const UnixListener second = listen_unix(path, {});
  first.unlink_if_ours();
  EXPECT_TRUE(std::filesystem::exists(path));
  second.unlink_if_ours();
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(ListenTest, TakesSocketsOfTheServiceManager) {
  // Descriptors 3 and 4 have to be free: only a process of its own can promise that.
  EXPECT_EXIT(
      {
        ::closefrom(3);
        UnixListener a = listen_unix(directory_ + "/a", {});
        UnixListener b = listen_unix(directory_ + "/b", {});
        if (a.fd.get() != 3 || b.fd.get() != 4) ::_exit(1);
        (void)a.fd.release();
        (void)b.fd.release();
        ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
        ::setenv("LISTEN_FDS", "2", 1);
        ::setenv("LISTEN_FDNAMES", "api:other", 1);
        const auto sockets = take_activated_sockets();
        const bool good = sockets.size() == 2 && sockets[0].name == "api" && sockets[1].name == "other" &&
                          sockets[1].family == AF_UNIX && ::getenv("LISTEN_FDS") == nullptr &&
                          (::fcntl(3, F_GETFD) & FD_CLOEXEC) != 0 && take_activated_sockets().empty();
        ::_exit(good ? 0 : 2);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST_F(ListenTest, RefusesDescriptorsThatAreNoListeningSockets) {
  EXPECT_EXIT(
      {
        ::closefrom(3);
        (void)::open("/dev/null", O_RDONLY);
        ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
        ::setenv("LISTEN_FDS", "1", 1);
        try {
          (void)take_activated_sockets();
        } catch (const Error& e) {
          ::_exit(e.code() == Errc::invalid_argument ? 0 : 3);
        }
        ::_exit(4);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST_F(ListenTest, IgnoresSocketsForAnotherProcess) {
  ::setenv("LISTEN_PID", "1", 1);
  ::setenv("LISTEN_FDS", "2", 1);
  EXPECT_TRUE(take_activated_sockets().empty());
}

TEST_F(ListenTest, NotifiesTheServiceManager) {
  ::unsetenv("NOTIFY_SOCKET");
  EXPECT_FALSE(notify_service_manager("READY=1"));
  const std::string path = directory_ + "/notify";
  const Fd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ::setenv("NOTIFY_SOCKET", path.c_str(), 1);
  EXPECT_TRUE(notify_service_manager("READY=1"));
  char buffer[64];
  EXPECT_EQ(::recv(fd.get(), buffer, sizeof buffer, MSG_DONTWAIT), 7);
  ::unsetenv("NOTIFY_SOCKET");
}

}  // namespace
}  // namespace gantry::sys
