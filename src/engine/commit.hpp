#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/task.hpp"
#include "engine/container_store.hpp"
#include "engine/lifecycle.hpp"
#include "engine/services.hpp"
#include "image/reference.hpp"
#include "image/transfers.hpp"
#include "model/container_config.hpp"

namespace gantry::engine {

struct CommitOptions {
  std::string repository;  // empty: the image gets no name
  std::string tag;
  std::string author;
  std::string comment;
  std::vector<std::string> changes;              // Dockerfile instructions
  std::optional<model::ContainerConfig> config;  // instead of the container's; what it leaves open is the container's
  bool pause = true;                             // while its files are read
};

/// `docker commit`: makes an image of a container's files and settings.
class Commit {
 public:
  Commit(Services& services, ContainerStore& store, Lifecycle& lifecycle, image::Transfers& transfers)
      : services_(services), store_(store), lifecycle_(lifecycle), transfers_(transfers) {}

  /// Returns the image's ID. Durable on return. Publishes `commit`, and the image's `tag` if it gets a name.
  /// Throws not_found; conflict if the container is dead or being removed, or if its image is gone;
  /// invalid_argument for names and changes.
  Task<std::string> run(std::string reference, CommitOptions options);

 private:
  image::CommitRequest make_request(const Container& container, const CommitOptions& options) const;
  Task<std::string> build(ContainerPtr container, image::CommitRequest request);
  Task<bool> pause(ContainerPtr container);
  void announce(const Container& container, const CommitOptions& options, const std::string& image_id,
                const std::vector<image::Reference>& names);

  Services& services_;
  ContainerStore& store_;
  Lifecycle& lifecycle_;
  image::Transfers& transfers_;
};

}  // namespace gantry::engine
