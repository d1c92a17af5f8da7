#include <cstdio>
#include <cstdlib>

#include <zlib.h>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "logdriver/encoder.hpp"

namespace gantry::logdriver {
namespace {

constexpr std::size_t kDatagram = 1420;  // what fits into one Ethernet frame, as other GELF clients have it
constexpr std::size_t kChunkHeader = 12;
constexpr std::size_t kMaxChunks = 128;  // GELF via UDP, "chunking"

void put_json(std::string& out, std::string_view text) {
  const std::size_t start = out.size();
  out.resize(start + text.size() * logs::kWorstEscape + 32);
  const char* const end = logs::write_escaped(out.data() + start, text.data(), text.size());
  out.resize(static_cast<std::size_t>(end - out.data()));
}

void put_member(std::string& out, std::string_view key, std::string_view value) {
  out += ",\"";
  put_json(out, key);
  out += "\":\"";
  put_json(out, value);
  out += '"';
}

/// Eight random bytes.
std::string message_id() {
  const std::string digits = random_id();
  std::string id;
  for (std::size_t i = 0; i < 16; i += 2)
    id += static_cast<char>(std::strtoul(digits.substr(i, 2).c_str(), nullptr, 16));
  return id;
}

class GelfEncoder : public Encoder {
 public:
  GelfEncoder(const Settings& settings, const std::string& hostname)
      : stream_(settings.get("gelf-address").starts_with("tcp:")),
        level_(static_cast<int>(settings.number("gelf-compression-level", 1))) {
    const std::string type = settings.get("gelf-compression-type", "gzip");
    window_ = stream_ || type == "none" ? 0 : type == "zlib" ? MAX_WBITS : MAX_WBITS + 16;  // zlib.h: 16 makes it gzip
    head_ = R"({"version":"1.1","host":")";
    put_json(head_, hostname);
    head_ += R"(","short_message":")";
    std::map<std::string, std::string> members{{"_container_id", settings.get("container_id")},
                                               {"_image_id", settings.get("image_id")},
                                               {"_image_name", settings.get("image_name")},
                                               {"_command", settings.get("command")},
                                               {"_tag", settings.get("tag")},
                                               {"_created", settings.get("created")}};
    const std::string name = settings.get("container_name");
    members["_container_name"] = name.starts_with('/') ? name.substr(1) : name;
    for (const auto& [key, value] : settings.extras()) members[key.starts_with('_') ? key : "_" + key] = value;
    for (const auto& [key, value] : members) put_member(tail_, key, value);
    tail_ += '}';
  }

  void encode(const LogMessage& message, std::vector<Record>& out) override {
    std::string json = head_;
    put_json(json, message.text);
    const auto ms = std::chrono::floor<std::chrono::milliseconds>(message.time).time_since_epoch().count();
    char stamp[48];
    std::snprintf(stamp, sizeof stamp, "\",\"timestamp\":%lld.%03d,\"level\":%d", static_cast<long long>(ms / 1000),
                  static_cast<int>(ms % 1000), message.stream == logs::Stream::err ? 3 : 6);
    json.append(stamp).append(tail_);
    if (stream_) {
      json += '\0';
      out.push_back({std::move(json), {}});
      return;
    }
    put_datagrams(window_ == 0 ? std::move(json) : compressed(json), out);
  }

 private:
  std::string compressed(const std::string& json) const {
    z_stream z{};
    if (::deflateInit2(&z, level_, Z_DEFLATED, window_, 8, Z_DEFAULT_STRATEGY) != Z_OK)
      throw Error(Errc::internal, "gelf: no memory for compression");
    std::string out(::deflateBound(&z, json.size()), '\0');
    z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(json.data()));
    z.avail_in = static_cast<uInt>(json.size());
    z.next_out = reinterpret_cast<Bytef*>(out.data());
    z.avail_out = static_cast<uInt>(out.size());
    (void)::deflate(&z, Z_FINISH);
    out.resize(z.total_out);
    (void)::deflateEnd(&z);
    return out;
  }

  static void put_datagrams(std::string bytes, std::vector<Record>& out) {
    if (bytes.size() <= kDatagram) {
      out.push_back({std::move(bytes), {}});
      return;
    }
    constexpr std::size_t kPayload = kDatagram - kChunkHeader;
    const std::size_t count = (bytes.size() + kPayload - 1) / kPayload;
    if (count > kMaxChunks) return;
    const std::string id = message_id();
    for (std::size_t n = 0; n < count; ++n) {
      std::string chunk = "\x1e\x0f" + id;
      chunk += static_cast<char>(n);
      chunk += static_cast<char>(count);
      chunk.append(bytes, n * kPayload, kPayload);
      out.push_back({std::move(chunk), {}});
    }
  }

  bool stream_;
  int level_;
  int window_ = 0;
  std::string head_;
  std::string tail_;
};

}  // namespace

std::unique_ptr<Encoder> make_gelf_encoder(const Settings& settings, std::string hostname) {
  return std::make_unique<GelfEncoder>(settings, hostname);
}

}  // namespace gantry::logdriver
