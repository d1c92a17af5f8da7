#pragma once

#include <memory>
#include <string>
#include <vector>

#include "logdriver/message.hpp"
#include "logdriver/settings.hpp"

namespace gantry::logdriver {

/// What goes to the server in one piece: a datagram, or part of a stream.
struct Record {
  std::string bytes;
  std::string ack;  // fluentd: the server must send this back before the next record goes out
};

/// Puts messages into a driver's words.
class Encoder {
 public:
  virtual ~Encoder() = default;
  /// Appends the records of one message; none if it cannot be sent at all.
  virtual void encode(const LogMessage& message, std::vector<Record>& out) = 0;
};

std::unique_ptr<Encoder> make_syslog_encoder(const Settings& settings, std::string hostname, int pid);
std::unique_ptr<Encoder> make_fluentd_encoder(const Settings& settings);
std::unique_ptr<Encoder> make_gelf_encoder(const Settings& settings, std::string hostname);
std::unique_ptr<Encoder> make_journald_encoder(const Settings& settings);

/// An option's name as a journal field: upper-case letters, digits and underscores, not beginning with one.
std::string journal_field(std::string_view key);

}  // namespace gantry::logdriver
