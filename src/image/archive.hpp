#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "image/content_store.hpp"
#include "storage/byte_source.hpp"

namespace gantry::image {

/// The files of an image archive, spooled below tmp/ and hashed on the way. Nothing of it is unpacked to its own name,
/// so names cannot lead anywhere; links are followed within the archive only.
class Archive {
 public:
  /// Reads the whole stream, compressed or not. Blocks. Throws invalid_argument for what is no archive, climbs out with
  /// "..", or crosses the bounds.
  static Archive read_blocking(const ContentStore& content, std::shared_ptr<storage::ByteSource> source);

  struct File {
    std::shared_ptr<Ingest> data;
    std::string digest;
    std::int64_t size = 0;
  };

  /// nullptr if there is no such file. Follows symbolic and hard links.
  const File* find(const std::string& path) const;
  /// As find(); throws invalid_argument `invalid archive: … not found`.
  const File& get(const std::string& path) const;
  /// The file with these contents, wherever it is. nullptr if there is none.
  const File* find_digest(const std::string& digest) const;
  /// The content of a small file. Blocks.
  std::string read_text_blocking(const std::string& path, std::size_t limit) const;
  static std::string read_text_blocking(const File& file, std::size_t limit);

 private:
  std::map<std::string, File> files_;
  std::map<std::string, std::string> links_;  // to a path from the archive's root
  std::map<std::string, std::string> by_digest_;
};

}  // namespace gantry::image
