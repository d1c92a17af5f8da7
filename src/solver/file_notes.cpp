#include "solver/file_notes.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>

#include "base/error.hpp"
#include "base/log.hpp"

namespace gantry::solver {
namespace {

constexpr std::string_view kMagic = "gantry notes 1\n\n";  // 16 bytes, so that what follows is aligned
constexpr std::size_t kMostNotes = 2'000'000;

std::int64_t nanoseconds(const timespec& t) { return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec; }

}  // namespace

FileNotes::FileNotes(sys::Path file) : file_(std::move(file)) {
  if (!file_.empty()) map();
}

FileNotes::~FileNotes() {
  if (mapping_ != nullptr) ::munmap(mapping_, mapped_bytes_);
}

void FileNotes::map() {
  static_assert(sizeof(Note) == 64 && kMagic.size() == 16);
  const sys::Fd fd(::open(file_.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  struct stat st{};
  if (!fd || ::fstat(fd.get(), &st) != 0) return;
  const auto size = static_cast<std::size_t>(st.st_size);
  if (size <= kMagic.size() || (size - kMagic.size()) % sizeof(Note) != 0) return;
  void* mapping = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (mapping == MAP_FAILED) return;
  mapping_ = mapping;
  mapped_bytes_ = size;
  if (std::memcmp(mapping, kMagic.data(), kMagic.size()) != 0) return;
  known_ = reinterpret_cast<const Note*>(static_cast<const char*>(mapping) + kMagic.size());
  count_ = (size - kMagic.size()) / sizeof(Note);
  asked_.resize(count_);
}

FileNotes::Note FileNotes::key_of(const struct stat& st) {
  return {st.st_ino, st.st_size, nanoseconds(st.st_ctim), nanoseconds(st.st_mtim), {}};
}

bool FileNotes::same_file(const Note& a, const Note& b) {
  return a.inode == b.inode && a.size == b.size && a.changed == b.changed && a.modified == b.modified;
}

const DataDigest* FileNotes::find(const struct stat& st) const {
  if (count_ == 0) return nullptr;
  const Note key = key_of(st);
  const Note* end = known_ + count_;
  const Note* at = std::lower_bound(known_, end, key, [](const Note& a, const Note& b) { return a.inode < b.inode; });
  if (at == end || !same_file(*at, key)) return nullptr;
  asked_[static_cast<std::size_t>(at - known_)] = true;
  return &at->digest;
}

void FileNotes::add(const struct stat& st, const DataDigest& digest) {
  if (file_.empty() || added_.size() >= kMostNotes) return;
  added_.push_back(key_of(st));
  added_.back().digest = digest;
}

void FileNotes::save(bool all) {
  if (added_.empty()) return;  // a few that are no more do no harm
  std::vector<Note> notes = std::exchange(added_, {});
  std::sort(notes.begin(), notes.end(), [](const Note& a, const Note& b) { return a.inode < b.inode; });
  // Hard links come several times.
  notes.erase(std::unique(notes.begin(), notes.end(), [](const Note& a, const Note& b) { return a.inode == b.inode; }),
              notes.end());
  std::vector<Note> merged;
  merged.reserve(notes.size() + count_);
  auto fresh = notes.begin();
  for (std::size_t i = 0; i < count_ && merged.size() < kMostNotes; ++i) {
    while (fresh != notes.end() && fresh->inode < known_[i].inode) merged.push_back(*fresh++);
    const bool replaced = fresh != notes.end() && fresh->inode == known_[i].inode;
    if (!replaced && (asked_[i] || !all)) merged.push_back(known_[i]);
  }
  merged.insert(merged.end(), fresh, notes.end());
  std::string bytes(kMagic);
  bytes.append(reinterpret_cast<const char*>(merged.data()), merged.size() * sizeof(Note));
  try {
    sys::write_atomically(file_, bytes, 0600, false);
  } catch (const Error& e) {
    log::debug("build cache: notes of a context: {}", e.what());  // the files are read again next time
  }
}

}  // namespace gantry::solver
