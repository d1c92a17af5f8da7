#pragma once

#include <string>

#include <boost/asio/any_io_executor.hpp>

#include "async/lanes.hpp"
#include "async/operation.hpp"
#include "config/config.hpp"
#include "events/bus.hpp"
#include "image/images.hpp"
#include "network/networks.hpp"
#include "runtime/host_facts.hpp"
#include "runtime/seccomp.hpp"
#include "storage/layer_store.hpp"
#include "storage/rootfs.hpp"
#include "sys/id_mapping.hpp"
#include "sys/paths.hpp"
#include "volume/volumes.hpp"

namespace gantry::engine {

/// What the engine joins. References live as long as the daemon; app.cpp owns everything.
struct Services {
  boost::asio::any_io_executor loop;
  async::Lanes& lanes;
  async::Operations& operations;
  const config::Config& config;
  const sys::Paths& paths;
  const runtime::HostFacts& host;
  runtime::SeccompCache& seccomp;
  events::Bus& events;
  storage::LayerStore& layers;
  storage::RootfsStore& rootfs;
  image::Images& images;
  network::Networks& networks;
  volume::Volumes& volumes;
  sys::Path shim_program;
  sys::IdMapping id_mapping{};  // of containers that are made now; empty: they have the host's ids
};

}  // namespace gantry::engine
