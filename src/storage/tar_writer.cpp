#include "storage/tar_writer.hpp"

#include <algorithm>
#include <cstring>
#include <optional>

#include <sys/sysmacros.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::storage {
namespace {

constexpr std::size_t kBlock = 512;
constexpr std::size_t kBuffer = 256 << 10;
constexpr std::uint64_t kLargestOctal7 = 07777777;
constexpr std::uint64_t kLargestOctal11 = 077777777777;

/// One ustar header block.
struct Header {
  char name[100];
  char mode[8];
  char uid[8];
  char gid[8];
  char size[12];
  char mtime[12];
  char checksum[8];
  char type;
  char link[100];
  char magic[6];
  char version[2];
  char user[32];
  char group[32];
  char major[8];
  char minor[8];
  char prefix[155];
  char padding[12];
};
static_assert(sizeof(Header) == kBlock);

template <std::size_t N>
void put_text(char (&field)[N], std::string_view text) {
  std::memcpy(field, text.data(), std::min(text.size(), N));
}

template <std::size_t N>
void put_octal(char (&field)[N], std::uint64_t number) {
  field[N - 1] = '\0';
  for (std::size_t i = N - 1; i-- > 0; number >>= 3) field[i] = static_cast<char>('0' + (number & 7));
}

Header make_header(char type, std::string_view name, std::string_view prefix) {
  Header header{};
  header.type = type;
  put_text(header.name, name);
  put_text(header.prefix, prefix);
  std::memcpy(header.magic, "ustar", 6);
  std::memcpy(header.version, "00", 2);
  return header;
}

std::string_view sealed(Header& header) {
  std::memset(header.checksum, ' ', sizeof header.checksum);
  const auto* bytes = reinterpret_cast<const unsigned char*>(&header);
  unsigned sum = 0;
  for (std::size_t i = 0; i < kBlock; ++i) sum += bytes[i];
  fmt::format_to_n(header.checksum, 6, "{:06o}", sum);
  header.checksum[6] = '\0';
  return {reinterpret_cast<const char*>(&header), kBlock};
}

/// "<length> <key>=<value>\n", where the length counts itself.
std::string pax_record(std::string_view key, std::string_view value) {
  const std::size_t rest = key.size() + value.size() + 3;
  std::size_t length = rest + 1;
  while (std::to_string(length).size() + rest != length) length = std::to_string(length).size() + rest;
  return fmt::format("{} {}={}\n", length, key, value);
}

/// The name as ustar's prefix and name, if it fits.
std::optional<std::pair<std::string_view, std::string_view>> split_name(std::string_view name) {
  if (name.size() <= 100) return {{"", name}};
  for (std::size_t slash = name.find('/'); slash != std::string_view::npos && slash <= 155;
       slash = name.find('/', slash + 1)) {
    const std::string_view rest = name.substr(slash + 1);
    if (slash > 0 && !rest.empty() && rest.size() <= 100) return {{name.substr(0, slash), rest}};
  }
  return std::nullopt;
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

/// UTF-8 goes into a PAX record, whose charset is defined; other bytes stay in the header, which has none.
bool needs_record(std::string_view text, bool fits) { return !fits || (!is_ascii(text) && is_valid_utf8(text)); }

char type_flag(TarType type) {
  switch (type) {
    case TarType::file: return '0';
    case TarType::hardlink: return '1';
    case TarType::symlink: return '2';
    case TarType::character_device: return '3';
    case TarType::block_device: return '4';
    case TarType::directory: return '5';
    case TarType::fifo: return '6';
  }
  throw Error(Errc::internal, "unknown type of tar entry");
}

std::string pax_records(const TarEntry& entry, bool name_fits) {
  std::string records;
  // Names that are not UTF-8 and too long for a header: POSIX lets a record say so.
  const bool binary =
      (!name_fits && !is_valid_utf8(entry.name)) || (entry.link.size() > 100 && !is_valid_utf8(entry.link));
  if (binary) records += pax_record("hdrcharset", "BINARY");
  if (needs_record(entry.name, name_fits)) records += pax_record("path", entry.name);
  if (needs_record(entry.link, entry.link.size() <= 100)) records += pax_record("linkpath", entry.link);
  if (entry.size > kLargestOctal11) records += pax_record("size", std::to_string(entry.size));
  if (entry.uid > kLargestOctal7) records += pax_record("uid", std::to_string(entry.uid));
  if (entry.gid > kLargestOctal7) records += pax_record("gid", std::to_string(entry.gid));
  if (entry.mtime.tv_sec < 0 || static_cast<std::uint64_t>(entry.mtime.tv_sec) > kLargestOctal11)
    records += pax_record("mtime", std::to_string(entry.mtime.tv_sec));
  for (const sys::Xattr& attribute : entry.xattrs)
    records += pax_record("SCHILY.xattr." + attribute.name, attribute.value);
  return records;
}

}  // namespace

TarWriter::TarWriter(const ByteSink& sink) : sink_(sink) { buffer_.reserve(kBuffer + kBlock); }

void TarWriter::flush() {
  if (!buffer_.empty()) sink_(buffer_);
  buffer_.clear();
}

void TarWriter::write(std::string_view bytes) {
  written_ += bytes.size();
  if (buffer_.size() + bytes.size() > kBuffer) flush();
  if (bytes.size() >= kBuffer) sink_(bytes);
  else buffer_ += bytes;
}

void TarWriter::write_pax(const std::string& records) {
  Header header = make_header('x', "PaxHeaders.0/x", "");
  put_octal(header.mode, 0644);
  put_octal(header.uid, 0);
  put_octal(header.gid, 0);
  put_octal(header.size, records.size());
  put_octal(header.mtime, 0);
  write(sealed(header));
  write(records);
  end_data();
}

void TarWriter::write_header(const TarEntry& entry) {
  const auto parts = split_name(entry.name);
  const std::string records = pax_records(entry, parts.has_value());
  if (!records.empty()) write_pax(records);
  Header header = parts ? make_header(type_flag(entry.type), parts->second, parts->first)
                        : make_header(type_flag(entry.type), std::string_view(entry.name).substr(0, 100), "");
  put_text(header.link, std::string_view(entry.link).substr(0, 100));
  put_octal(header.mode, entry.mode & 07777);
  put_octal(header.uid, std::min<std::uint64_t>(entry.uid, kLargestOctal7));
  put_octal(header.gid, std::min<std::uint64_t>(entry.gid, kLargestOctal7));
  put_octal(header.size, std::min(entry.size, kLargestOctal11));
  const auto second = static_cast<std::uint64_t>(std::max<time_t>(entry.mtime.tv_sec, 0));
  put_octal(header.mtime, std::min(second, kLargestOctal11));
  const bool device = entry.type == TarType::character_device || entry.type == TarType::block_device;
  put_octal(header.major, device ? major(entry.device) : 0);
  put_octal(header.minor, device ? minor(entry.device) : 0);
  write(sealed(header));
}

void TarWriter::write_data(std::string_view bytes) { write(bytes); }

void TarWriter::write_zeros(std::uint64_t count) {
  static const std::string zeros(64 << 10, '\0');
  for (; count > 0; count -= std::min<std::uint64_t>(count, zeros.size()))
    write(std::string_view(zeros).substr(0, std::min<std::uint64_t>(count, zeros.size())));
}

void TarWriter::end_data() { write_zeros((kBlock - written_ % kBlock) % kBlock); }

void TarWriter::finish() {
  write_zeros(2 * kBlock);
  flush();
}

}  // namespace gantry::storage
