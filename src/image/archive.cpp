#include "image/archive.hpp"

#include <cerrno>

#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "storage/decompress.hpp"
#include "storage/tar_reader.hpp"
#include "sys/file.hpp"

namespace gantry::image {
namespace {

constexpr std::size_t kMaxEntries = 100'000;
constexpr int kMaxLinks = 16;

/// "./a//b/" to "a/b". Throws for a path that climbs out.
std::string clean(const std::string& path, const std::string& relative_to = "") {
  std::vector<std::string> out;
  const std::string full = path.starts_with('/') ? path : relative_to + "/" + path;
  for (const std::string& part : split(full, '/')) {
    if (part.empty() || part == ".") continue;
    if (part != "..") {
      out.push_back(part);
      continue;
    }
    if (out.empty())
      throw Error(Errc::invalid_argument,
                  fmt::format("invalid archive: {} leads out of it", storage::shown_name(path)));
    out.pop_back();
  }
  return join(out, "/");
}

std::string parent_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == std::string::npos ? std::string() : path.substr(0, slash);
}

}  // namespace

Archive Archive::read_blocking(const ContentStore& content, std::shared_ptr<storage::ByteSource> source) {
  Archive out;
  const storage::UnpackBudget budget;
  auto plain = storage::decompress(std::move(source), budget);
  storage::TarReader reader(*plain, budget);
  std::size_t entries = 0;
  while (const storage::TarEntry* entry = reader.next()) {
    if (++entries > kMaxEntries)
      throw Error(Errc::invalid_argument, fmt::format("invalid archive: more than {} entries", kMaxEntries));
    const std::string name = clean(entry->name);
    if (entry->type == storage::TarType::symlink) out.links_[name] = clean(entry->link, parent_of(name));
    if (entry->type == storage::TarType::hardlink) out.links_[name] = clean(entry->link);
    if (entry->type != storage::TarType::file) continue;
    auto data = content.begin();
    std::string_view bytes;
    std::uint64_t offset = 0;
    while (reader.read_data(bytes, offset)) {
      // A hole of a sparse entry is zeros.
      static const std::string kZeros(64 << 10, '\0');
      while (std::uint64_t(data->size()) < offset)
        data->write(std::string_view(kZeros).substr(
            0, std::min<std::uint64_t>(kZeros.size(), offset - std::uint64_t(data->size()))));
      data->write(bytes);
    }
    data->seal();
    File file{data, data->finish(), data->size()};
    out.by_digest_[file.digest] = name;
    out.links_.erase(name);
    out.files_[name] = std::move(file);
  }
  return out;
}

const Archive::File* Archive::find(const std::string& path) const {
  std::string at = clean(path);
  for (int hop = 0; hop <= kMaxLinks; ++hop) {
    if (const auto file = files_.find(at); file != files_.end()) return &file->second;
    const auto link = links_.find(at);
    if (link == links_.end()) return nullptr;
    at = link->second;
  }
  return nullptr;
}

const Archive::File& Archive::get(const std::string& path) const {
  const File* file = find(path);
  if (file == nullptr)
    throw Error(Errc::invalid_argument, fmt::format("invalid archive: {} not found in it", storage::shown_name(path)));
  return *file;
}

const Archive::File* Archive::find_digest(const std::string& digest) const {
  const auto it = by_digest_.find(digest);
  const File* file = it == by_digest_.end() ? nullptr : find(it->second);
  // An archive may have two files of one name: the later one counts.
  return file != nullptr && file->digest == digest ? file : nullptr;
}

std::string Archive::read_text_blocking(const File& file, std::size_t limit) {
  if (file.size > std::int64_t(limit))
    throw Error(Errc::invalid_argument, fmt::format("invalid archive: a document is larger than {} bytes", limit));
  const sys::Fd fd = file.data->open_reader();
  std::string text(std::size_t(file.size), '\0');
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t got = ::pread(fd.get(), text.data() + done, text.size() - done, off_t(done));
    if (got <= 0) throw Error::from_errno(got < 0 ? errno : EIO, "read archive");
    done += std::size_t(got);
  }
  return text;
}

std::string Archive::read_text_blocking(const std::string& path, std::size_t limit) const {
  return read_text_blocking(get(path), limit);
}

}  // namespace gantry::image
