#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "async/signal.hpp"
#include "async/task.hpp"

namespace gantry::image {

/// The messages of a long verb on their way to a client, in the form of engine-api.md §3.10: JSON lines that end in
/// CR LF. It never makes the verb wait: while the client is slow, a newer progress figure replaces the one that was
/// not sent yet, so what is queued stays bounded by the number of layers. Loop thread.
class Progress {
 public:
  /// {"status":…} or, with an id, {"status":…,"progressDetail":{},"id":…}
  void status(std::string text, std::string id = {});
  /// {"status":…,"id":…}: how a pull begins; `id` is the tag.
  void headline(std::string text, std::string id);
  /// {"status":…,"progressDetail":{"current":…,"total":…},"id":…}; total is left out when it is not positive. At most
  /// one per id and 100 ms, except the last (current == total).
  void update(std::string id, std::string text, std::int64_t current, std::int64_t total);
  /// {"stream":…}
  void stream(std::string text);
  /// {"progressDetail":{},"aux":…}; `json` is the value's text.
  void aux(std::string json);
  /// {"errorDetail":{"message":…},"error":…}
  void error(const std::string& text);
  /// Nothing more comes.
  void close();

  /// The next message; nullopt after close(). Throws when cancelled.
  Task<std::optional<std::string>> next();
  /// Without update messages: for clients that asked for quiet.
  void set_quiet(bool quiet) { quiet_ = quiet; }

 private:
  struct Message {
    std::string id;
    bool is_update = false;
    std::string text;
  };
  void push(Message message);

  std::deque<Message> queue_;
  std::map<std::string, std::chrono::steady_clock::time_point> last_update_;
  bool closed_ = false;
  bool quiet_ = false;
  async::Signal changed_;
};
using ProgressPtr = std::shared_ptr<Progress>;

}  // namespace gantry::image
