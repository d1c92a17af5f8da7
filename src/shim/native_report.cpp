#include "shim/native_report.hpp"

#include <cerrno>
#include <cstring>

#include <linux/capability.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace gantry::shim {

void NativeReporter::send_descriptor(NativeReport kind, std::string_view bytes, int fd) const {
  std::string packet(1, static_cast<char>(kind));
  packet += bytes;
  iovec data{packet.data(), packet.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fd);
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  // Nobody is left to be told of a failure here: the shim then finds that the report is missing.
  (void)::sendmsg(socket_, &message, MSG_NOSIGNAL);
}

void NativeReporter::fail(std::string_view what) const { fail(protocol::FailureKind::other, {}, what); }

void NativeReporter::fail_errno(std::string_view what) const {
  const int number = errno;
  fail(protocol::FailureKind::other, {}, std::string(what) + ": " + errno_text(number));
}

void NativeReporter::fail(protocol::FailureKind kind, std::string_view path, std::string_view what) const {
  std::string packet(1, static_cast<char>(NativeReport::kFailure));
  packet += static_cast<char>(kind);
  packet += path.substr(0, kMaxNativeReport / 6);
  packet += '\0';
  packet += "exec failed: unable to start container process: ";
  packet += what.substr(0, kMaxNativeReport * 2 / 3);
  // write(2), not send(2): the container's filter may already apply.
  (void)!::write(socket_, packet.data(), packet.size());
  ::_exit(1);
}

std::string errno_text(int number) {
  std::string text = ::strerror(number);
  if (!text.empty() && text[0] >= 'A' && text[0] <= 'Z' && !(text.size() > 1 && text[1] >= 'A' && text[1] <= 'Z'))
    text[0] = static_cast<char>(text[0] - 'A' + 'a');
  return text;
}

bool set_capabilities(std::uint64_t permitted, std::uint64_t effective, std::uint64_t inheritable) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2];
  for (int half = 0; half < 2; ++half) {
    data[half].permitted = static_cast<std::uint32_t>(permitted >> (32 * half));
    data[half].effective = static_cast<std::uint32_t>(effective >> (32 * half));
    data[half].inheritable = static_cast<std::uint32_t>(inheritable >> (32 * half));
  }
  return ::syscall(SYS_capset, &header, data) == 0;
}

}  // namespace gantry::shim
