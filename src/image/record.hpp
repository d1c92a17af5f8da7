#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "image/images.hpp"

namespace gantry::image {

/// What the index holds for one Image::id. Internal to Images.
struct Images::Record {
  db::ImageRow row;
  std::vector<Descriptor> wanted;       // the manifests of the platforms that the rows say are here
  std::optional<Index> index;           // absent: the image is a single manifest, or its index is lost
  std::vector<Attachment> attachments;  // of `index`, those that are here
  std::vector<ImagePtr> variants;       // the platforms that are here; replaced, never changed
  std::set<std::string> names;          // canonical

  Descriptor descriptor() const {
    Descriptor d;
    d.media_type = row.media_type;
    d.digest = row.id;
    d.size = row.size;
    return d;
  }
};

/// What a removal takes away. Internal to Images.
struct Images::Doomed {
  std::vector<std::string> names;   // canonical
  std::vector<std::string> images;  // Image::id; all their names are in `names`
  std::set<std::string> manifests;  // platforms that images lose which stay
  bool content = true;              // layers and blobs that nothing needs, too
  bool resumable = false;           // see ContentStore::end_removal()

  void add(const Record& record) {
    names.insert(names.end(), record.names.begin(), record.names.end());
    images.push_back(record.row.id);
  }
  bool has(const Record& record) const {
    return std::find(images.begin(), images.end(), record.row.id) != images.end();
  }
};

}  // namespace gantry::image
