#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>

#include "async/task.hpp"
#include "async/task_group.hpp"
#include "build/leases.hpp"
#include "build/link.hpp"
#include "engine/services.hpp"
#include "image/transfers.hpp"
#include "protocol/build_link.hpp"

namespace gantry::build {

/// What the worker asks for, done with the daemon's services (protocol/build_link.hpp). Loop thread.
class Answers {
 public:
  using SettingsSource = std::function<protocol::BuildSettings()>;
  using UsageSink = std::function<void(protocol::UsageReport)>;

  Answers(engine::Services& services, image::Transfers& transfers, Leases& leases, SettingsSource settings,
          UsageSink usage);

  /// See LinkHandler. Throws not_implemented for a method that there is not.
  Task<LinkReply> answer(std::string method, std::string params, LinkCallPtr call);
  /// The worker has ended: its networks are taken apart, and what it held is given up.
  Task<void> take_back();
  /// Removes what released layers leave without a user. Does nothing if none was released.
  Task<void> collect();

 private:
  using Handler = Task<std::string> (Answers::*)(std::string params, LinkCallPtr call);
  Task<std::string> resolve_image(std::string params, LinkCallPtr call);
  Task<image::ImagePtr> find_or_pull(protocol::ResolveImageParams wanted, LinkCallPtr call);
  Task<std::string> commit_layer(std::string params, LinkCallPtr call);
  Task<storage::Unpacked> keep_layer(storage::AdoptRequest request, std::string blob);
  Task<std::string> release_layers(std::string params, LinkCallPtr call);
  Task<std::string> list_kept(std::string params, LinkCallPtr call);
  Task<std::string> hold_layer(std::string params, LinkCallPtr call);
  Task<std::string> drop_lease(std::string params, LinkCallPtr call);
  Task<std::string> layers_of_images(std::string params, LinkCallPtr call);
  Task<std::string> create_image(std::string params, LinkCallPtr call);
  Task<LinkReply> save_image(std::string params);
  Task<LinkReply> attach_network(std::string params);
  Task<std::string> detach_network(std::string params, LinkCallPtr call);
  Task<void> release_network(std::string id);
  Task<std::string> read_settings(std::string params, LinkCallPtr call);
  Task<std::string> note_pruned(std::string params, LinkCallPtr call);
  Task<std::string> note_usage(std::string params, LinkCallPtr call);
  Task<protocol::LinkLayer> describe(std::string chain);
  sys::Path network_directory(const std::string& id) const;

  engine::Services& services_;
  image::Transfers& transfers_;
  Leases& leases_;
  SettingsSource settings_;
  UsageSink usage_;
  std::map<std::string, Handler, std::less<>> handlers_;
  std::set<std::string> networks_;  // ids without the prefix
  bool collect_ = false;
  async::TaskGroup tasks_;
};

}  // namespace gantry::build
