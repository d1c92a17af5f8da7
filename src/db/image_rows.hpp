#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/time.hpp"

namespace gantry::db {

class Db;

/// The tables of this file, for the schema list.
extern const char* const kImageSchema;

/// A blob that is completely on disk.
struct BlobRow {
  std::string digest;
  std::int64_t size = 0;
};

/// An image, named by the digest of its index or manifest.
struct ImageRow {
  std::string id;
  std::string media_type;
  std::int64_t size = 0;  // of the index or manifest
  Timestamp added{};
  Timestamp last_tagged{};  // epoch: never tagged here
};

/// A platform of an image whose content is here.
struct ImageManifestRow {
  std::string image;  // ImageRow::id
  std::string digest;
  std::string media_type;
  std::int64_t size = 0;
};

/// A canonical name: "docker.io/library/alpine:3.20" or "docker.io/library/alpine@sha256:…".
struct ImageNameRow {
  std::string name;
  std::string image;
};

/// A repository that is known to hold a blob.
struct BlobSourceRow {
  std::string digest;
  std::string repository;
};

/// What goes when images or names of images are removed.
struct ImageRemoval {
  std::vector<std::string> names;
  std::vector<std::string> images;          // with their names and manifests
  std::vector<ImageManifestRow> manifests;  // platforms of images that stay; `image` and `digest` tell which
  std::vector<std::string> layers;          // chain ids
  std::vector<std::string> blobs;           // and where they came from
  bool empty() const { return names.empty() && images.empty() && manifests.empty() && layers.empty() && blobs.empty(); }
};

/// All of these block: db lane.
std::vector<BlobRow> list_blobs(Db& db);
/// One transaction.
void save_blobs(Db& db, const std::vector<BlobRow>& rows);
/// Removes only that the blob is here: where it came from stays known.
void remove_blob_row(Db& db, const std::string& digest);

std::vector<ImageRow> list_images(Db& db);
std::vector<ImageManifestRow> list_image_manifests(Db& db);
std::vector<ImageNameRow> list_image_names(Db& db);
std::vector<BlobSourceRow> list_blob_sources(Db& db);

/// Inserts the image or replaces its row; adds the manifests; moves the names here; notes the sources. One transaction.
void save_image(Db& db, const ImageRow& image, const std::vector<ImageManifestRow>& manifests,
                const std::vector<std::string>& names, const std::vector<BlobSourceRow>& sources);
/// Gives or moves a name to an image. One transaction.
void save_image_name(Db& db, const ImageNameRow& row, Timestamp tagged);
/// One transaction.
void remove_images(Db& db, const ImageRemoval& removal);

}  // namespace gantry::db
