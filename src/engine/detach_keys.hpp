#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace gantry::engine {

/// The bytes of "ctrl-p,ctrl-q": single characters or ctrl- and one of a-z @ [ \ ] ^ _, separated by commas. Empty
/// text: the default, ctrl-p,ctrl-q. Throws invalid_argument `Invalid detach keys (x) provided`.
std::string parse_detach_keys(std::string_view text);

/// Looks for the detach sequence in what a client types. Bytes that may begin it are held back until it is clear
/// whether they do.
class DetachScanner {
 public:
  /// An empty sequence is never found.
  explicit DetachScanner(std::string keys) : keys_(std::move(keys)) {}

  struct Result {
    std::string forward;  // to be passed on
    bool detached = false;
  };
  Result feed(std::string_view typed);

 private:
  std::string keys_;
  std::size_t matched_ = 0;  // this many bytes of keys_ are held back
};

}  // namespace gantry::engine
