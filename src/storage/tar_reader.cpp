#include "storage/tar_reader.hpp"

#include <exception>

#include <locale.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::storage {
namespace {

constexpr std::int64_t kLargestId = 0xFFFFFFFE;  // 2^32-1 means "leave as it is" to chown(2)
constexpr std::int64_t kFurthestSecond = std::int64_t{1} << 40;

/// Lets libarchive pass pax names, which are UTF-8, through as they are instead of converting them to the C locale.
class Utf8Locale {
 public:
  Utf8Locale() : mine_(::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr)) {
    if (mine_ == locale_t{}) throw Error(Errc::internal, "locale C.UTF-8 is not available");
    before_ = ::uselocale(mine_);
  }
  ~Utf8Locale() {
    ::uselocale(before_);
    ::freelocale(mine_);
  }
  Utf8Locale(const Utf8Locale&) = delete;
  Utf8Locale& operator=(const Utf8Locale&) = delete;

 private:
  locale_t mine_;
  locale_t before_{};
};

[[noreturn]] void refuse(const TarEntry& entry, std::string_view why) {
  throw Error(Errc::invalid_argument, fmt::format("tar entry {}: {}", shown_name(entry.name), why));
}

std::string text_or_empty(const char* text) { return text != nullptr ? text : ""; }

/// libarchive keeps a name as bytes or as UTF-8, whichever the header had.
std::string entry_name(archive_entry* e) {
  if (const char* bytes = archive_entry_pathname(e)) return bytes;
  return text_or_empty(archive_entry_pathname_utf8(e));
}

TarType entry_type(archive_entry* e, const TarEntry& entry) {
  switch (archive_entry_filetype(e)) {
    case AE_IFREG: return TarType::file;
    case AE_IFDIR: return TarType::directory;
    case AE_IFLNK: return TarType::symlink;
    case AE_IFCHR: return TarType::character_device;
    case AE_IFBLK: return TarType::block_device;
    case AE_IFIFO: return TarType::fifo;
    default: refuse(entry, "unknown type");
  }
}

}  // namespace

struct TarReader::State {
  State(ByteSource& bytes, const UnpackBudget& limits) : source(bytes), budget(limits), buffer(128 << 10) {}
  ~State() { archive_read_free(archive); }

  static la_ssize_t on_read(struct archive* a, void* self_pointer, const void** out) {
    auto& self = *static_cast<State*>(self_pointer);
    try {
      *out = self.buffer.data();
      return static_cast<la_ssize_t>(self.source.read(self.buffer.data(), self.buffer.size()));
    } catch (const std::exception& e) {
      // An exception must not cross the C library: fail() throws it on.
      self.failure = std::current_exception();
      archive_set_error(a, EIO, "%s", e.what());
      return ARCHIVE_FATAL;
    }
  }

  [[noreturn]] void fail() {
    if (failure) std::rethrow_exception(failure);
    const std::string reason = text_or_empty(archive_error_string(archive));
    if (reason.find("runcated") != std::string::npos) throw Error(Errc::corrupted, "tar: unexpected EOF");
    throw Error(Errc::invalid_argument, fmt::format("invalid tar header: {}", reason));
  }

  void fill(archive_entry* e);
  void fill_xattrs(archive_entry* e);

  Utf8Locale locale;
  ByteSource& source;
  const UnpackBudget budget;
  std::vector<char> buffer;
  struct archive* archive = nullptr;
  std::exception_ptr failure;
  TarEntry entry;
  std::uint64_t entries = 0;
  std::uint64_t bytes = 0;
  std::uint64_t data_end = 0;
};

TarReader::TarReader(ByteSource& source, const UnpackBudget& budget) : state_(std::make_unique<State>(source, budget)) {
  state_->archive = archive_read_new();
  if (state_->archive == nullptr) throw Error(Errc::internal, "libarchive: out of memory");
  archive_read_support_format_tar(state_->archive);
  archive_read_support_format_empty(state_->archive);
  if (archive_read_open(state_->archive, state_.get(), nullptr, &State::on_read, nullptr) != ARCHIVE_OK) state_->fail();
}

TarReader::~TarReader() = default;

void TarReader::State::fill_xattrs(archive_entry* e) {
  std::size_t total = 0;
  archive_entry_xattr_reset(e);
  const char* name = nullptr;
  const void* value = nullptr;
  std::size_t size = 0;
  while (archive_entry_xattr_next(e, &name, &value, &size) == ARCHIVE_OK) {
    total += std::string_view(name).size() + size;
    if (total > budget.xattr_bytes)
      refuse(entry, fmt::format("extended attributes exceed the limit of {} bytes", budget.xattr_bytes));
    entry.xattrs.push_back({name, std::string(static_cast<const char*>(value), size)});
  }
}

void TarReader::State::fill(archive_entry* e) {
  entry = {};
  data_end = 0;
  entry.name = entry_name(e);
  if (entry.name.empty()) refuse(entry, "empty name");
  const char* hardlink = archive_entry_hardlink(e);
  if (hardlink == nullptr) hardlink = archive_entry_hardlink_utf8(e);
  if (hardlink != nullptr) {
    entry.type = TarType::hardlink;
    entry.link = hardlink;
  } else {
    entry.type = entry_type(e, entry);
  }
  if (entry.type == TarType::symlink) {
    const char* target = archive_entry_symlink(e);
    entry.link = text_or_empty(target != nullptr ? target : archive_entry_symlink_utf8(e));
  }
  const std::int64_t uid = archive_entry_uid(e);
  const std::int64_t gid = archive_entry_gid(e);
  if (uid < 0 || uid > kLargestId) refuse(entry, fmt::format("user id {} is out of range", uid));
  if (gid < 0 || gid > kLargestId) refuse(entry, fmt::format("group id {} is out of range", gid));
  entry.uid = static_cast<uid_t>(uid);
  entry.gid = static_cast<gid_t>(gid);
  entry.mode = archive_entry_perm(e) & 07777;
  const std::int64_t second = archive_entry_mtime(e);
  if (second < -kFurthestSecond || second > kFurthestSecond)
    refuse(entry, fmt::format("modification time {} is out of range", second));
  entry.mtime.tv_sec = second;
  entry.mtime.tv_nsec = archive_entry_mtime_nsec(e);
  if (entry.mtime.tv_nsec < 0 || entry.mtime.tv_nsec > 999'999'999) entry.mtime.tv_nsec = 0;
  entry.device =
      makedev(static_cast<unsigned>(archive_entry_rdevmajor(e)), static_cast<unsigned>(archive_entry_rdevminor(e)));
  if (entry.type == TarType::file) {
    const std::int64_t size = archive_entry_size(e);
    if (size < 0) refuse(entry, "negative size");
    entry.size = static_cast<std::uint64_t>(size);
    if (entry.size > budget.bytes - bytes)
      refuse(entry, fmt::format("content exceeds the limit of {} bytes", budget.bytes));
    bytes += entry.size;
  }
  fill_xattrs(e);
}

const TarEntry* TarReader::next() {
  archive_entry* e = nullptr;
  const int result = archive_read_next_header(state_->archive, &e);
  if (result == ARCHIVE_EOF) {
    while (state_->source.read(state_->buffer.data(), state_->buffer.size()) > 0) {
    }
    return nullptr;
  }
  // A warning is about a name that is not UTF-8, which is a legal name all the same.
  if (result != ARCHIVE_OK && result != ARCHIVE_WARN) state_->fail();
  if (++state_->entries > state_->budget.entries)
    throw Error(Errc::invalid_argument, fmt::format("archive has more than {} entries", state_->budget.entries));
  state_->fill(e);
  return &state_->entry;
}

bool TarReader::read_data(std::string_view& bytes, std::uint64_t& offset) {
  const void* data = nullptr;
  std::size_t size = 0;
  la_int64_t at = 0;
  const int result = archive_read_data_block(state_->archive, &data, &size, &at);
  if (result == ARCHIVE_EOF) return false;
  if (result != ARCHIVE_OK) state_->fail();
  const TarEntry& entry = state_->entry;
  const auto begin = static_cast<std::uint64_t>(at);
  if (at < 0 || begin < state_->data_end || begin > entry.size || size > entry.size - begin)
    refuse(entry, "invalid sparse map");
  state_->data_end = begin + size;
  bytes = {static_cast<const char*>(data), size};
  offset = begin;
  return true;
}

std::string shown_name(std::string_view name) {
  constexpr std::size_t kShown = 256;
  if (name.size() <= kShown) return quote(name);
  return quote(name.substr(0, kShown)) + "…";
}

}  // namespace gantry::storage
