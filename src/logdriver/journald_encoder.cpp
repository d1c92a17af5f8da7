#include "base/ids.hpp"
#include "base/time.hpp"
#include "logdriver/encoder.hpp"

namespace gantry::logdriver {
namespace {

/// The journal's native protocol: KEY=value, or KEY, a little-endian length and the bytes where there is a newline.
void put_field(std::string& out, std::string_view key, std::string_view value) {
  out += key;
  if (value.find('\n') == std::string_view::npos) {
    out.append("=").append(value) += '\n';
    return;
  }
  out += '\n';
  for (int i = 0; i < 8; ++i) out += static_cast<char>(std::uint64_t{value.size()} >> (8 * i));
  out.append(value) += '\n';
}

class JournaldEncoder : public Encoder {
 public:
  explicit JournaldEncoder(const Settings& settings) : epoch_(random_id()) {
    const std::string id = settings.get("container_id");
    const std::string name = settings.get("container_name");
    std::map<std::string, std::string> fields{{"CONTAINER_ID", id.substr(0, 12)},
                                              {"CONTAINER_ID_FULL", id},
                                              {"CONTAINER_NAME", name.starts_with('/') ? name.substr(1) : name},
                                              {"CONTAINER_TAG", settings.get("tag")},
                                              {"IMAGE_NAME", settings.get("image_name")},
                                              {"SYSLOG_IDENTIFIER", settings.get("tag")}};
    for (const auto& [key, value] : settings.extras())
      if (std::string field = journal_field(key); !field.empty()) fields[std::move(field)] = value;
    for (const auto& [key, value] : fields) put_field(fixed_, key, value);
  }

  void encode(const LogMessage& message, std::vector<Record>& out) override {
    std::string bytes;
    put_field(bytes, "PRIORITY", message.stream == logs::Stream::err ? "3" : "6");
    put_field(bytes, "MESSAGE", message.text);
    bytes += fixed_;
    put_field(bytes, "SYSLOG_TIMESTAMP", render_rfc3339_nano(message.time));
    put_field(bytes, "CONTAINER_LOG_EPOCH", epoch_);
    put_field(bytes, "CONTAINER_LOG_ORDINAL", std::to_string(++ordinal_));
    if (message.partial) {
      put_field(bytes, "CONTAINER_PARTIAL_ID", message.partial_id);
      put_field(bytes, "CONTAINER_PARTIAL_ORDINAL", std::to_string(message.ordinal));
      put_field(bytes, "CONTAINER_PARTIAL_LAST", message.last ? "true" : "false");
      if (!message.last) put_field(bytes, "CONTAINER_PARTIAL_MESSAGE", "true");
    }
    out.push_back({std::move(bytes), {}});
  }

 private:
  std::string fixed_;
  std::string epoch_;
  std::uint64_t ordinal_ = 0;
};

}  // namespace

std::string journal_field(std::string_view key) {
  std::string out;
  for (const char c : key) {
    const bool lower = c >= 'a' && c <= 'z';
    const bool kept = (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    const char made = lower ? static_cast<char>(c - 'a' + 'A') : kept ? c : '_';
    if (!out.empty() || made != '_') out += made;
  }
  return out;
}

std::unique_ptr<Encoder> make_journald_encoder(const Settings& settings) {
  return std::make_unique<JournaldEncoder>(settings);
}

}  // namespace gantry::logdriver
