#pragma once

#include <optional>

#include <boost/asio/any_io_executor.hpp>

#include "async/lanes.hpp"
#include "async/task_group.hpp"
#include "base/error.hpp"
#include "events/bus.hpp"
#include "image/download.hpp"
#include "image/images.hpp"
#include "image/registry_client.hpp"
#include "sys/paths.hpp"

namespace gantry::image {

/// What the verbs that move images share. Internal to the module.
struct Context {
  boost::asio::any_io_executor loop;
  async::Lanes& lanes;
  Images& images;
  events::Bus& events;
  sys::Paths paths;
  Registry registry;
  Downloads downloads;
  /// Reads and writes clients' archives: its threads wait for clients, which must not delay other bulk work.
  async::Lane archives{"archives", 4};
  int max_downloads = 3;
  int max_uploads = 5;
  int max_attempts = 5;
  async::TaskGroup tasks;

  ContentStore& content() noexcept { return images.content(); }
  storage::LayerStore& layers() noexcept { return images.layers(); }
  Context(boost::asio::any_io_executor executor, async::Lanes& all_lanes, Images& image_index, events::Bus& bus,
          const sys::Paths& all_paths, RegistrySettings settings)
      : loop(executor),
        lanes(all_lanes),
        images(image_index),
        events(bus),
        paths(all_paths),
        registry(all_lanes, std::move(settings)),
        downloads(executor, all_lanes, image_index.content()),
        tasks(executor) {}

  void publish(const std::string& action, const std::string& actor, const std::string& name, const Image* image);
};

/// Removes what a verb that failed with `why` has stored, unless another try could go on from it. Publishes nothing,
/// and throws nothing but cancelled. The verb's holds are to be gone.
Task<void> sweep_after(Context& context, const Error& why);

/// Runs a verb that stores content; see sweep_after().
template <class T>
Task<T> swept_if_it_fails(Context& context, Task<T> verb) {
  std::optional<Error> failure;
  try {
    co_return co_await std::move(verb);
  } catch (const Error& e) {
    failure = e;
  }
  co_await sweep_after(context, *failure);
  throw std::move(*failure);
}

/// Layer blobs are announced to clients by the start of their digest.
std::string layer_label(const Descriptor& layer);

}  // namespace gantry::image
