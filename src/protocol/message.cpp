#include "protocol/message.hpp"

#include <algorithm>

#include "base/error.hpp"

namespace gantry::protocol {
namespace {

constexpr std::size_t kFieldHeader = 6;  // u16 tag, u32 length

void append_be(std::string& out, std::uint64_t value, int bytes) {
  for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift & 0xff));
}

std::uint64_t read_be(std::string_view bytes) {
  std::uint64_t value = 0;
  for (const char c : bytes) value = value << 8 | static_cast<unsigned char>(c);
  return value;
}

[[noreturn]] void malformed(const char* what) {
  throw Error(Errc::invalid_argument, std::string("malformed frame: ") + what);
}

}  // namespace

Message& Message::put(Tag tag, std::string_view text) {
  fields_.emplace_back(tag, std::string(text));
  return *this;
}

Message& Message::put_number(Tag tag, std::uint64_t number) {
  std::string bytes;
  append_be(bytes, number, 8);
  fields_.emplace_back(tag, std::move(bytes));
  return *this;
}

std::optional<std::string_view> Message::find(Tag tag) const {
  for (const auto& [name, value] : fields_)
    if (name == tag) return value;
  return std::nullopt;
}

std::string Message::text(Tag tag) const { return std::string(find(tag).value_or(std::string_view())); }

std::uint64_t Message::number(Tag tag, std::uint64_t fallback) const {
  const auto value = find(tag);
  if (!value) return fallback;
  if (value->size() != 8) malformed("a number is not eight bytes");
  return read_be(*value);
}

std::vector<std::string_view> Message::all(Tag tag) const {
  std::vector<std::string_view> found;
  for (const auto& [name, value] : fields_)
    if (name == tag) found.emplace_back(value);
  return found;
}

std::string Message::encode_fields() const {
  std::size_t size = 0;
  for (const auto& field : fields_) size += kFieldHeader + field.second.size();
  if (fields_.size() > kMaxFields || size > kMaxFrame)
    throw Error(Errc::invalid_argument, "message is too large for the shim protocol");
  std::string out;
  out.reserve(size);
  for (const auto& [tag, value] : fields_) {
    append_be(out, static_cast<std::uint16_t>(tag), 2);
    append_be(out, value.size(), 4);
    out += value;
  }
  return out;
}

std::string Message::encode() const {
  const std::string fields = encode_fields();
  if (fields.size() + kHeaderSize > kMaxFrame)
    throw Error(Errc::invalid_argument, "message is too large for the shim protocol");
  std::string out;
  out.reserve(kHeaderSize + fields.size());
  append_be(out, fields.size() + kHeaderSize - 4, 4);
  append_be(out, static_cast<std::uint16_t>(type_), 2);
  append_be(out, request_, 4);
  return out += fields;
}

Message Message::decode_fields(Type type, std::uint32_t request, std::string_view bytes) {
  Message message(type, request);
  while (!bytes.empty()) {
    if (bytes.size() < kFieldHeader) malformed("a field is cut short");
    const auto tag = static_cast<Tag>(read_be(bytes.substr(0, 2)));
    const std::uint64_t size = read_be(bytes.substr(2, 4));
    bytes.remove_prefix(kFieldHeader);
    if (size > bytes.size()) malformed("a field is longer than its frame");
    if (message.fields_.size() == kMaxFields) malformed("too many fields");
    message.put(tag, bytes.substr(0, size));
    bytes.remove_prefix(size);
  }
  return message;
}

void Decoder::feed(std::string_view bytes) {
  if (consumed_ == buffer_.size()) {
    buffer_.clear();
    consumed_ = 0;
  } else if (consumed_ > buffer_.size() / 2) {
    buffer_.erase(0, consumed_);
    consumed_ = 0;
  }
  buffer_ += bytes;
}

std::optional<Message> Decoder::next() {
  const std::string_view pending = std::string_view(buffer_).substr(consumed_);
  if (pending.size() < 4) return std::nullopt;
  const std::uint64_t size = read_be(pending.substr(0, 4)) + 4;
  if (size > kMaxFrame) malformed("announced length is too large");
  if (size < kHeaderSize) malformed("announced length is too small");
  if (pending.size() < size) return std::nullopt;
  const auto type = static_cast<Type>(read_be(pending.substr(4, 2)));
  const auto request = static_cast<std::uint32_t>(read_be(pending.substr(6, 4)));
  Message message = Message::decode_fields(type, request, pending.substr(kHeaderSize, size - kHeaderSize));
  consumed_ += size;
  if (consumed_ == buffer_.size()) {
    buffer_ = std::string();  // gives a large frame's memory back
    consumed_ = 0;
  }
  return message;
}

std::string Decoder::take_rest() {
  std::string rest = buffer_.substr(consumed_);
  buffer_ = std::string();
  consumed_ = 0;
  return rest;
}

}  // namespace gantry::protocol
