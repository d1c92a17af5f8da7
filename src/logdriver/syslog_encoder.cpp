#include <cstdio>
#include <ctime>

#include "logdriver/encoder.hpp"
#include "logs/options.hpp"

namespace gantry::logdriver {
namespace {

constexpr int kError = 3;  // RFC 5424, 6.2.1
constexpr int kInfo = 6;

/// The formats of Docker's driver: without a name it is what syslog(3) writes to /dev/log, without the host's name.
enum class Form { local, rfc3164, rfc5424, rfc5424micro };

Form form_of(const std::string& name) {
  if (name == "rfc3164") return Form::rfc3164;
  if (name == "rfc5424") return Form::rfc5424;
  return name == "rfc5424micro" ? Form::rfc5424micro : Form::local;
}

std::tm local_time(Timestamp time) {
  const std::time_t seconds = std::chrono::floor<std::chrono::seconds>(time).time_since_epoch().count();
  std::tm parts{};
  (void)::localtime_r(&seconds, &parts);
  return parts;
}

/// "Nov  2 13:29:07", whatever the locale.
std::string short_stamp(Timestamp time) {
  static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                            "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const std::tm parts = local_time(time);
  char text[32];
  std::snprintf(text, sizeof text, "%s %2d %02d:%02d:%02d", kMonths[parts.tm_mon % 12], parts.tm_mday, parts.tm_hour,
                parts.tm_min, parts.tm_sec);
  return text;
}

/// RFC 3339 in local time; up to six digits of fraction without trailing zeros if `micro`.
std::string long_stamp(Timestamp time, bool micro) {
  const std::tm parts = local_time(time);
  char text[64];
  std::snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d", parts.tm_year + 1900, parts.tm_mon + 1,
                parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
  std::string out = text;
  if (micro) {
    const auto whole = std::chrono::floor<std::chrono::seconds>(time);
    std::snprintf(text, sizeof text, ".%06ld",
                  static_cast<long>(std::chrono::duration_cast<std::chrono::microseconds>(time - whole).count()));
    out += text;
    while (out.back() == '0') out.pop_back();
    if (out.back() == '.') out.pop_back();
  }
  if (parts.tm_gmtoff == 0) return out + "Z";
  const long minutes = (parts.tm_gmtoff < 0 ? -parts.tm_gmtoff : parts.tm_gmtoff) / 60;
  std::snprintf(text, sizeof text, "%c%02ld:%02ld", parts.tm_gmtoff < 0 ? '-' : '+', minutes / 60, minutes % 60);
  return out + text;
}

class SyslogEncoder : public Encoder {
 public:
  SyslogEncoder(const Settings& settings, std::string hostname, int pid)
      : form_(form_of(settings.get("syslog-format"))),
        facility_(logs::parse_facility(settings.get("syslog-facility"))),
        tag_(settings.get("tag")),
        hostname_(std::move(hostname)),
        pid_(std::to_string(pid)) {
    const bool tls = settings.get("syslog-address").starts_with("tcp+tls://");
    counted_ = tls && (form_ == Form::rfc5424 || form_ == Form::rfc5424micro);
  }

  void encode(const LogMessage& message, std::vector<Record>& out) override {
    const int severity = message.stream == logs::Stream::err ? kError : kInfo;
    std::string line = "<" + std::to_string(facility_ * 8 + severity) + ">";
    switch (form_) {
      case Form::local: line += short_stamp(message.time) + ' ' + tag_ + '[' + pid_ + "]: "; break;
      case Form::rfc3164: line += short_stamp(message.time) + ' ' + hostname_ + ' ' + tag_ + '[' + pid_ + "]: "; break;
      case Form::rfc5424:
      case Form::rfc5424micro:
        // The tag is the application's name and the message's id: servers file by the former.
        line += "1 " + long_stamp(message.time, form_ == Form::rfc5424micro) + ' ' + hostname_ + ' ' + tag_ + ' ' +
                pid_ + ' ' + tag_ + " - ";
        break;
    }
    line.append(message.text) += '\n';
    // RFC 5425, 4.3: over TLS the length stands before each message.
    if (counted_) line.insert(0, std::to_string(line.size()) + ' ');
    out.push_back({std::move(line), {}});
  }

 private:
  Form form_;
  int facility_;
  bool counted_ = false;
  std::string tag_;
  std::string hostname_;
  std::string pid_;
};

}  // namespace

std::unique_ptr<Encoder> make_syslog_encoder(const Settings& settings, std::string hostname, int pid) {
  return std::make_unique<SyslogEncoder>(settings, std::move(hostname), pid);
}

}  // namespace gantry::logdriver
