#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "async/task.hpp"
#include "engine/container.hpp"
#include "engine/container_store.hpp"
#include "engine/services.hpp"
#include "model/model.hpp"

namespace gantry::engine {

class Lifecycle;

struct CreateRequest {
  std::string name;      // empty: generated
  std::string platform;  // "os/arch/variant"; empty: the host's
  model::ContainerConfig config;
  model::HostConfig host;
  std::map<std::string, model::EndpointSettings> networks;
  std::vector<std::string> warnings;  // of the caller, to go in front
};
struct CreateResult {
  std::string id;
  std::vector<std::string> warnings;
};

struct RemoveOptions {
  bool volumes = false;  // anonymous ones too
  bool force = false;
  bool link = false;
};
struct PruneResult {
  std::vector<std::string> removed;
  std::uint64_t reclaimed = 0;
};

/// Making and removing containers. The verbs end once they have begun: a client that goes away does not stop them.
class Containers {
 public:
  Containers(Services& services, ContainerStore& store, Lifecycle& lifecycle);
  /// Lets the image module know which images and layers containers need. Once, before anything is removed.
  void attach_to_images();

  /// Durable on return: the row, the root file system's directories, volumes (filled from the image), references.
  /// All or nothing. Throws not_found `No such image: …`, conflict for the name, invalid_argument for settings.
  Task<CreateResult> create(CreateRequest request);
  /// Throws conflict for a running container without `force`, and while another removal runs.
  Task<void> remove(std::string reference, RemoveOptions options);
  /// Removes what does not run and passes `matches`.
  Task<PruneResult> prune(std::function<bool(const Container&)> matches);
  Task<void> rename(std::string reference, std::string name);
  /// New limits and restart policy; applied at once to a running container. Returns warnings.
  Task<std::vector<std::string>> update(std::string reference, model::Resources resources,
                                        std::optional<model::RestartPolicy> policy);

  /// Removes one container whose mutex the caller does not hold; used by --rm and by remove().
  Task<void> remove_container(ContainerPtr container, RemoveOptions options);

 private:
  Task<CreateResult> create_steps(async::OperationPtr op, CreateRequest request);
  Task<void> make_durable(async::OperationPtr op, ContainerPtr container, image::ImagePtr image);
  void find_mounted_images(Container& container, storage::LayerHold& hold);
  Task<void> make_volumes(async::OperationPtr op, ContainerPtr container);
  Task<void> prepare_content(ContainerPtr container);
  Task<void> fill_volumes(ContainerPtr container);
  Task<void> remove_directories(ContainerPtr container);
  Task<void> remove_volumes(std::vector<std::string> names);
  Task<void> remove_steps(async::OperationPtr op, ContainerPtr container, RemoveOptions options);

  Services& services_;
  ContainerStore& store_;
  Lifecycle& lifecycle_;
  bool pruning_ = false;
};

}  // namespace gantry::engine
