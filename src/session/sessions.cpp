#include "session/sessions.hpp"

#include <algorithm>
#include <utility>

#include <fcntl.h>

#include <grpcpp/create_channel_posix.h>
#include <grpcpp/support/channel_arguments.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "session/session_link.hpp"

namespace gantry::session {

namespace {

constexpr std::size_t kMaxSessions = 1024;
constexpr std::size_t kMaxText = 256;
constexpr std::size_t kMaxMethods = 256;

void check_headers(const SessionHeaders& headers) {
  const auto printable = [](const std::string& text) {
    return std::all_of(text.begin(), text.end(), [](unsigned char c) { return c > 0x20 && c < 0x7f; });
  };
  if (headers.id.empty() || headers.id.size() > kMaxText || !printable(headers.id))
    throw Error(Errc::invalid_argument, "invalid session id " + quote(headers.id.substr(0, kMaxText)));
  if (headers.shared_key.size() > 16 * kMaxText) throw Error(Errc::invalid_argument, "the session's key is too long");
  if (headers.methods.size() > kMaxMethods ||
      std::any_of(headers.methods.begin(), headers.methods.end(),
                  [](const std::string& method) { return method.size() > kMaxText; }))
    throw Error(Errc::invalid_argument, "the session serves too many methods");
}

std::shared_ptr<grpc::Channel> make_channel(sys::Fd connection) {
  const int flags = ::fcntl(connection.get(), F_GETFL);
  if (flags < 0 || ::fcntl(connection.get(), F_SETFL, flags | O_NONBLOCK) != 0)
    throw Error::from_errno(errno, "session's connection");
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  return grpc::CreateCustomInsecureChannelFromFd("localhost", connection.release(), arguments);
}

}  // namespace

Sessions::Sessions() = default;

Sessions::~Sessions() {
  const std::lock_guard lock(mutex_);
  for (const auto& [id, session] : sessions_) session->close();
}

std::shared_ptr<Session> Sessions::serve(sys::Fd connection, SessionHeaders headers) {
  check_headers(headers);
  const std::string id = headers.id;
  const sys::Fd watched = connection.duplicate();
  std::shared_ptr<Session> session;
  {
    const std::lock_guard lock(mutex_);
    if (sessions_.contains(id)) throw Error(Errc::conflict, "session " + id + " already exists");
    if (sessions_.size() == kMaxSessions) throw Error(Errc::unavailable, "too many sessions");
    auto link = std::make_unique<Session::Link>(make_channel(std::move(connection)), watched.duplicate());
    session = std::make_shared<Session>(std::move(headers), std::move(link));
    sessions_.emplace(id, session);
  }
  arrived_.notify_all();
  watch_.add(watched, [this, id, weak = std::weak_ptr<Session>(session), raw = session.get()] {
    if (const auto gone = weak.lock()) gone->close();
    forget(id, raw);
  });
  return session;
}

void Sessions::forget(const std::string& id, const Session* session) {
  std::shared_ptr<Session> last;
  const std::lock_guard lock(mutex_);
  const auto it = sessions_.find(id);
  if (it == sessions_.end() || it->second.get() != session) return;
  last = std::move(it->second);
  sessions_.erase(it);
}

std::shared_ptr<Session> Sessions::wait(const std::string& id, std::chrono::milliseconds timeout,
                                        std::stop_token stop) {
  const auto colon = id.find(':');
  const std::string name = colon == std::string::npos ? id : id.substr(colon + 1);
  std::unique_lock lock(mutex_);
  const bool found = arrived_.wait_for(lock, stop, timeout, [&] { return sessions_.contains(name); });
  if (found) return sessions_.at(name);
  if (stop.stop_requested()) throw Error(Errc::cancelled, "context canceled");
  throw Error(Errc::not_found, "no active session for " + name + ": context deadline exceeded");
}

std::vector<std::shared_ptr<Session>> Sessions::find(const std::vector<std::string>& ids, std::string_view method,
                                                     std::stop_token stop) {
  std::vector<std::shared_ptr<Session>> out;
  const auto collect = [&] {
    for (const auto& id : ids)
      if (const auto it = sessions_.find(id); it != sessions_.end()) out.push_back(it->second);
    return !out.empty();
  };
  std::unique_lock lock(mutex_);
  if (!ids.empty() && !collect()) (void)arrived_.wait_for(lock, stop, kWait, collect);
  lock.unlock();
  if (stop.stop_requested()) throw Error(Errc::cancelled, "context canceled");
  std::erase_if(out, [&](const std::shared_ptr<Session>& session) { return !session->supports(method); });
  return out;
}

std::string Sessions::secret(const std::vector<std::string>& ids, const std::string& secret, std::stop_token stop) {
  for (const auto& session : find(ids, kGetSecret, stop))
    if (auto found = session->secret(secret, stop)) return std::move(*found);
  throw Error(Errc::not_found, "secret " + secret + ": not found");
}

std::optional<Credentials> Sessions::credentials(const std::vector<std::string>& ids, const std::string& host,
                                                 std::stop_token stop) {
  for (const auto& session : find(ids, kCredentials, stop))
    if (auto found = session->credentials(host, stop)) return found;
  return std::nullopt;
}

std::optional<Token> Sessions::fetch_token(const std::vector<std::string>& ids, const TokenRequest& request,
                                           std::stop_token stop) {
  for (const auto& session : find(ids, kFetchToken, stop))
    if (auto found = session->fetch_token(request, stop)) return found;
  return std::nullopt;
}

std::size_t Sessions::count() const {
  const std::lock_guard lock(mutex_);
  return sessions_.size();
}

SessionHeaders read_session_headers(const std::vector<std::pair<std::string, std::string>>& fields) {
  constexpr std::string_view prefix = "x-docker-expose-session-";
  SessionHeaders out;
  for (const auto& [field, value] : fields) {
    const std::string name = to_lower(field);
    if (!name.starts_with(prefix)) continue;
    const std::string_view rest = std::string_view(name).substr(prefix.size());
    if (rest == "uuid") out.id = value;
    if (rest == "name") out.name = value;
    if (rest == "sharedkey") out.shared_key = value;
    if (rest == "grpc-method") out.methods.push_back(value);
  }
  return out;
}

}  // namespace gantry::session
