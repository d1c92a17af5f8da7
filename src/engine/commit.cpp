#include "engine/commit.hpp"

#include <exception>

#include <fcntl.h>

#include <fmt/format.h>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/this_coro.hpp>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "engine/settings.hpp"
#include "image/config_changes.hpp"
#include "image/reference.hpp"
#include "storage/root_access.hpp"

namespace gantry::engine {
namespace {

/// A layer on its way from the packing thread to the image store. The first failure is the one that is told.
struct LayerStream {
  std::shared_ptr<storage::ByteChannel> channel = std::make_shared<storage::ByteChannel>();
  std::exception_ptr failure;
  std::string id;
  void fail(std::exception_ptr error) {
    if (!failure) failure = std::move(error);
  }
};
using LayerStreamPtr = std::shared_ptr<LayerStream>;

Task<void> pack(storage::RootfsStore* rootfs, ContainerId id, LayerStreamPtr stream) {
  try {
    co_await rootfs->pack_changes(id, stream->channel);
  } catch (const std::exception&) {
    stream->fail(std::current_exception());
    stream->channel->fail(stream->failure);
  }
}

Task<void> store(image::Transfers* transfers, image::CommitRequest request, LayerStreamPtr stream) {
  try {
    const image::ImagePtr image = co_await transfers->commit(std::move(request));
    stream->id = image->id;
  } catch (const std::exception&) {
    stream->fail(std::current_exception());
  }
  stream->channel->abort();  // whatever was not read is not wanted: the packing must not wait for room
}

std::string command_line(const Container& container) {
  std::vector<std::string> words{container.path};
  words.insert(words.end(), container.args.begin(), container.args.end());
  return join(words, " ");
}

std::vector<image::Reference> parse_names(const CommitOptions& options) {
  if (options.repository.empty()) return {};
  image::Reference name = image::parse_reference(options.repository);
  if (!name.digest.empty()) throw Error(Errc::invalid_argument, "refusing to create a tag with a digest reference");
  if (!options.tag.empty()) {
    if (!image::is_valid_tag(options.tag)) throw Error(Errc::invalid_argument, "invalid tag format");
    name.tag = options.tag;
  }
  return {name.with_default_tag()};
}

}  // namespace

/// What the image says of itself: the container's settings, changed as the client wants.
image::CommitRequest Commit::make_request(const Container& container, const CommitOptions& options) const {
  image::CommitRequest request;
  request.names = parse_names(options);
  request.config.config = options.config ? *options.config : container.config;
  image::apply_changes(request.config.config, options.changes);
  merge_image_config(request.config.config, container.config);
  request.config.author = options.author;
  request.config.comment = options.comment;
  request.config.created = now();
  if (!container.chain_id.empty()) {
    request.base = services_.images.find(container.image_id);
    if (!request.base || request.base->top_chain() != container.chain_id)
      throw Error(Errc::conflict, fmt::format("the image of container {} is gone, so there is nothing to commit on top "
                                              "of: docker export and docker import keep its files",
                                              container.id.str()));
    request.config.platform = request.base->platform;
    request.config.history = request.base->history;
  } else {
    request.config.platform = image::host_platform();
  }
  image::HistoryEntry entry;
  entry.created = request.config.created;
  entry.created_by = command_line(container);
  entry.author = options.author;
  entry.comment = options.comment;
  request.config.history.push_back(std::move(entry));
  return request;
}

/// True if it is paused now because of us.
Task<bool> Commit::pause(ContainerPtr container) {
  if (!container->state.running || container->state.paused) co_return false;
  try {
    co_await lifecycle_.pause(container->id.str());
    co_return true;
  } catch (const Error& e) {
    // It may have ended, or be between two tries: what is there is committed.
    log::debug("container {}: committed without a pause: {}", container->name, e.message());
    co_return false;
  }
}

Task<std::string> Commit::build(ContainerPtr container, image::CommitRequest request) {
  using namespace boost::asio::experimental::awaitable_operators;
  const bool changed =
      co_await services_.lanes.quick.run([upper = services_.rootfs.info(container->id, container->chain_id).upper] {
        return !storage::is_empty_directory(sys::open_file(upper, O_RDONLY | O_DIRECTORY).get());
      });
  auto stream = std::make_shared<LayerStream>();
  // An image without layers needs one.
  if (changed || !request.base) {
    request.layer = stream->channel;
    co_await (pack(&services_.rootfs, container->id, stream) && store(&transfers_, std::move(request), stream));
  } else {
    co_await store(&transfers_, std::move(request), stream);
  }
  if (stream->failure) std::rethrow_exception(stream->failure);
  co_return stream->id;
}

Task<std::string> Commit::run(std::string reference, CommitOptions options) {
  ContainerPtr container = store_.get(reference);
  const std::string id = container->id.str();
  if (container->removing || container->removed)
    throw Error(Errc::conflict, fmt::format("You cannot commit container {} which is being removed", id));
  if (container->state.dead)
    throw Error(Errc::conflict, fmt::format("You cannot commit container {} which is Dead", id));
  auto op = services_.operations.begin("container.commit", container->name);
  op->step("putting the image's settings together");
  image::CommitRequest request = make_request(*container, options);
  const std::vector<image::Reference> names = request.names;

  op->step("packing the container's changes");
  std::exception_ptr failure;
  std::string image_id;
  bool paused = false;
  try {
    if (options.pause) paused = co_await pause(container);
    image_id = co_await build(container, std::move(request));
    announce(*container, options, image_id, names);
  } catch (const std::exception&) {
    failure = std::current_exception();
  }
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  if (paused) {
    try {
      co_await lifecycle_.unpause(id);
    } catch (const Error& e) {
      log::debug("container {}: not unpaused after its commit: {}", container->name, e.message());
    }
  }
  if (failure) std::rethrow_exception(failure);
  co_return image_id;
}

void Commit::announce(const Container& container, const CommitOptions& options, const std::string& image_id,
                      const std::vector<image::Reference>& names) {
  const std::string shown = names.empty() ? std::string() : names.front().familiar();
  if (!names.empty()) services_.events.publish("image", "tag", image_id, {{"name", shown}});
  lifecycle_.publish(container, "commit", {{"comment", options.comment}, {"imageID", image_id}, {"imageRef", shown}});
}

}  // namespace gantry::engine
