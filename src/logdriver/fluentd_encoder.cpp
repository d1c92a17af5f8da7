#include <cstring>

#include "base/ids.hpp"
#include "base/text.hpp"
#include "logdriver/encoder.hpp"

namespace gantry::logdriver {
namespace {

// MessagePack: https://github.com/msgpack/msgpack/blob/master/spec.md

void put_big_endian(std::string& out, std::uint64_t value, int bytes) {
  for (int i = bytes - 1; i >= 0; --i) out += static_cast<char>(value >> (8 * i));
}

void put_string(std::string& out, std::string_view text) {
  if (text.size() < 32) {
    out += static_cast<char>(0xa0 | text.size());
  } else if (text.size() < 256) {
    out += '\xd9';
    put_big_endian(out, text.size(), 1);
  } else if (text.size() < 65536) {
    out += '\xda';
    put_big_endian(out, text.size(), 2);
  } else {
    out += '\xdb';
    put_big_endian(out, text.size(), 4);
  }
  out += text;
}

void put_map(std::string& out, std::size_t size) {
  if (size < 16) {
    out += static_cast<char>(0x80 | size);
  } else if (size < 65536) {
    out += '\xde';
    put_big_endian(out, size, 2);
  } else {
    out += '\xdf';
    put_big_endian(out, size, 4);
  }
}

/// Seconds as an integer, or the forward protocol's EventTime: extension 0 of seconds and nanoseconds.
void put_time(std::string& out, Timestamp time, bool precise) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(time);
  if (!precise) {
    out += '\xd3';
    put_big_endian(out, static_cast<std::uint64_t>(seconds.time_since_epoch().count()), 8);
    return;
  }
  out.append("\xd7\x00", 2);
  put_big_endian(out, static_cast<std::uint64_t>(seconds.time_since_epoch().count()), 4);
  put_big_endian(out, static_cast<std::uint64_t>((time - seconds).count()), 4);
}

class FluentdEncoder : public Encoder {
 public:
  explicit FluentdEncoder(const Settings& settings)
      : tag_(settings.get("tag")),
        precise_(settings.flag("fluentd-sub-second-precision")),
        acks_(settings.flag("fluentd-request-ack")),
        fields_(settings.extras()) {
    // A label of the same name takes the place of the field, as with Docker.
    fields_.try_emplace("container_id", settings.get("container_id"));
    fields_.try_emplace("container_name", settings.get("container_name"));
    for (const auto& [key, value] : fields_) {
      if (key == "source" || key == "log") continue;
      put_string(fixed_, key);
      put_string(fixed_, value);
      ++fixed_count_;
    }
  }

  void encode(const LogMessage& message, std::vector<Record>& out) override {
    Record record;
    record.bytes += '\x94';  // tag, time, record, option
    put_string(record.bytes, tag_);
    put_time(record.bytes, message.time, precise_);
    put_map(record.bytes, fixed_count_ + 2 + (message.partial ? 4 : 0));
    record.bytes += fixed_;
    put_field(record.bytes, "source", logs::stream_name(message.stream));
    put_field(record.bytes, "log", message.text);
    if (message.partial) {
      put_field(record.bytes, "partial_message", "true");
      put_field(record.bytes, "partial_id", message.partial_id);
      put_field(record.bytes, "partial_ordinal", std::to_string(message.ordinal));
      put_field(record.bytes, "partial_last", message.last ? "true" : "false");
    }
    put_map(record.bytes, acks_ ? 1 : 0);
    if (acks_) {
      record.ack = base64_encode(random_id().substr(0, 16));
      put_string(record.bytes, "chunk");
      put_string(record.bytes, record.ack);
    }
    out.push_back(std::move(record));
  }

 private:
  void put_field(std::string& out, const std::string& key, std::string_view value) const {
    put_string(out, key);
    const auto own = fields_.find(key);
    put_string(out, own == fields_.end() ? value : std::string_view(own->second));
  }

  std::string tag_;
  bool precise_;
  bool acks_;
  std::map<std::string, std::string> fields_;
  std::string fixed_;  // encoded
  std::size_t fixed_count_ = 0;
};

}  // namespace

std::unique_ptr<Encoder> make_fluentd_encoder(const Settings& settings) {
  return std::make_unique<FluentdEncoder>(settings);
}

}  // namespace gantry::logdriver
