#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "sys/file.hpp"

/// Clients' sessions: what a client that builds serves to us over a connection of its own. Its directories, secrets,
/// SSH agent, registry accounts, standard input, and places for results. Every call blocks, may be made from any
/// thread, ends within a second of a stop by throwing cancelled, and throws unavailable when the client has gone.
/// What the client sends is hostile.
namespace gantry::session {

/// Full names of the methods that a session may serve; what supports() and Sessions::find() are asked for.
inline constexpr std::string_view kFileSync = "/moby.filesync.v1.FileSync/DiffCopy";
inline constexpr std::string_view kFileSend = "/moby.filesync.v1.FileSend/DiffCopy";
inline constexpr std::string_view kCredentials = "/moby.filesync.v1.Auth/Credentials";
inline constexpr std::string_view kFetchToken = "/moby.filesync.v1.Auth/FetchToken";
inline constexpr std::string_view kGetSecret = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
inline constexpr std::string_view kCheckAgent = "/moby.sshforward.v1.SSH/CheckAgent";
inline constexpr std::string_view kForwardAgent = "/moby.sshforward.v1.SSH/ForwardAgent";
inline constexpr std::string_view kUpload = "/moby.upload.v1.Upload/Pull";

/// What a connection says of itself when it comes: X-Docker-Expose-Session-*.
struct SessionHeaders {
  std::string id;                    // -Uuid
  std::string name;                  // -Name
  std::string shared_key;            // -Sharedkey: tells directories of the same name apart
  std::vector<std::string> methods;  // -Grpc-Method, one for each
};

/// Which directory of the client to fetch, and what of it. The client applies the patterns.
struct ReceiveOptions {
  std::string name;                  // "context", "dockerfile", a name that the client knows
  std::vector<std::string> include;  // patterns of .dockerignore, all three
  std::vector<std::string> exclude;
  std::vector<std::string> follow;  // paths: what symbolic links in them lead to comes, too
  bool always_fetch = false;        // also files that look unchanged
};

struct ReceiveReport {
  std::int64_t bytes = 0;    // that came from the client
  std::int64_t entries = 0;  // in the tree now
  bool changed = false;      // something was written or removed
};

struct Credentials {
  std::string username;  // empty: the secret is an identity token
  std::string secret;
};

struct TokenRequest {
  std::string client_id, host, realm, service;
  std::vector<std::string> scopes;
};

struct Token {
  std::string token;
  std::int64_t expires_in = 0;  // s
  std::int64_t issued_at = 0;   // s since 1970
};

/// A unix socket below which a client's SSH agent answers. Destroying it ends its connections.
class AgentSocket {
 public:
  virtual ~AgentSocket() = default;
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  struct Link;  // the connection, in session_link.hpp: only its users include gRPC
  Session(SessionHeaders headers, std::unique_ptr<Link> link);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const std::string& id() const noexcept { return headers_.id; }
  const std::string& shared_key() const noexcept { return headers_.shared_key; }
  bool supports(std::string_view method) const;
  /// False from the moment that the connection is known to be gone.
  bool alive() const noexcept;
  /// Ends the connection; calls that are under way throw unavailable.
  void close() noexcept;

  /// Brings the directory `root`, which may hold an older copy, in line with the client's: only what differs is
  /// fetched, what the client no longer has is removed, nothing outside of `root` is touched whatever the client
  /// sends. `changed` is called for each path (relative, no trailing slash) that was written or removed, a removed
  /// directory once; `progress` with the bytes received so far. After an error the tree is a mixture of both.
  /// Throws not_found `no access allowed to dir "x"`.
  ReceiveReport receive(const ReceiveOptions& options, int root,
                        const std::function<void(const std::string& path)>& changed,
                        const std::function<void(std::int64_t bytes)>& progress, std::stop_token stop);

  /// Gives the client one stream (its exporter `index`): `produce` is called with a function that takes the bytes.
  void send_stream(int index, const std::function<void(const std::function<void(std::string_view)>&)>& produce,
                   std::stop_token stop);
  /// Gives the client the tree below `root` (its exporter `index`).
  void send_tree(int index, int root, const std::function<void(std::int64_t bytes)>& progress, std::stop_token stop);

  /// The client's account at a registry; nullopt if it has none.
  std::optional<Credentials> credentials(const std::string& host, std::stop_token stop);
  /// Lets the client do the registry's token exchange. nullopt if it cannot or has no account.
  std::optional<Token> fetch_token(const TokenRequest& request, std::stop_token stop);
  /// nullopt if the client does not have it. At most 500 KiB.
  std::optional<std::string> secret(const std::string& id, std::stop_token stop);
  /// Whether the client forwards an SSH agent (or key) under this id.
  bool check_agent(const std::string& id, std::stop_token stop);
  /// Listens at `path`, which must not exist; owner and mode as given. One connection there is one to the agent.
  std::unique_ptr<AgentSocket> forward_agent(const std::string& id, const sys::Path& path, uid_t uid, gid_t gid,
                                             mode_t mode);
  /// What the client reads from its standard input, once: `url` is that of the context,
  /// "http://buildkit-session/<id>". `sink` gets the pieces.
  void pull_upload(const std::string& url, const std::function<void(std::string_view)>& sink, std::stop_token stop);

 private:
  const SessionHeaders headers_;
  const std::unique_ptr<Link> link_;
};

}  // namespace gantry::session
