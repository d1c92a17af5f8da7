#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "session/connection_watch.hpp"
#include "session/session.hpp"
#include "sys/fd.hpp"

namespace gantry::session {

/// The sessions that clients have open. Thread-safe.
class Sessions {
 public:
  Sessions();
  /// Closes all of them.
  ~Sessions();
  Sessions(const Sessions&) = delete;
  Sessions& operator=(const Sessions&) = delete;

  /// Takes over a connection on which the client serves from now on (h2 with prior knowledge). The session is known
  /// until the connection ends. Throws conflict `session X already exists`, invalid_argument for bad headers.
  std::shared_ptr<Session> serve(sys::Fd connection, SessionHeaders headers);

  /// How long a build waits for a session that has not come yet.
  static constexpr std::chrono::seconds kWait{5};
  /// The session with this id ("name:id" counts as "id"), as soon as it is there. Throws not_found
  /// `no active session for X: context deadline exceeded`, cancelled.
  std::shared_ptr<Session> wait(const std::string& id, std::chrono::milliseconds timeout, std::stop_token stop);

  /// Those of the ids that are there and serve `method`, in order. Waits for the first id's if none of them is there
  /// yet. May be empty.
  std::vector<std::shared_ptr<Session>> find(const std::vector<std::string>& ids, std::string_view method,
                                             std::stop_token stop);

  /// From the first of the sessions that has it. Throws not_found `secret <id>: not found`.
  std::string secret(const std::vector<std::string>& ids, const std::string& secret, std::stop_token stop);
  /// nullopt if no session has an account there.
  std::optional<Credentials> credentials(const std::vector<std::string>& ids, const std::string& host,
                                         std::stop_token stop);
  std::optional<Token> fetch_token(const std::vector<std::string>& ids, const TokenRequest& request,
                                   std::stop_token stop);

  std::size_t count() const;

 private:
  void forget(const std::string& id, const Session* session);

  mutable std::mutex mutex_;
  std::condition_variable_any arrived_;
  std::map<std::string, std::shared_ptr<Session>> sessions_;
  ConnectionWatch watch_;
};

/// The headers of a request for a session, from pairs of lower-case names and values.
SessionHeaders read_session_headers(const std::vector<std::pair<std::string, std::string>>& fields);

}  // namespace gantry::session
