#include "engine/container_files.hpp"

#include <fmt/format.h>
#include <boost/asio/experimental/awaitable_operators.hpp>

#include "storage/byte_source.hpp"

namespace gantry::engine {
namespace {

/// The reader's side leaves whatever happens: otherwise the packing would wait for room for ever.
Task<void> pass_on(std::shared_ptr<storage::ByteChannel> channel, std::shared_ptr<ByteWriter> writer) {
  struct Leave {
    storage::ByteChannel& channel;
    ~Leave() { channel.abort(); }
  } leave{*channel};
  for (;;) {
    std::string piece = co_await channel->next();
    if (piece.empty()) co_return;
    co_await writer->write(std::move(piece));
  }
}

}  // namespace

Task<std::vector<storage::Change>> list_changes(Services& services, ContainerStore& store, std::string reference) {
  ContainerPtr container = store.get(reference);
  co_return co_await services.rootfs.changes(container->id, container->chain_id);
}

ContainerPtr begin_export(const ContainerStore& store, const std::string& reference) {
  ContainerPtr container = store.get(reference);
  if (container->removing || container->removed)
    throw Error(Errc::conflict,
                fmt::format("You cannot export container {} which is being removed", container->id.str()));
  if (container->state.dead)
    throw Error(Errc::conflict, fmt::format("You cannot export container {} which is Dead", container->id.str()));
  return container;
}

Task<void> run_export(Services& services, Lifecycle& lifecycle, ContainerPtr container,
                      std::shared_ptr<ByteWriter> writer) {
  using namespace boost::asio::experimental::awaitable_operators;
  auto channel = std::make_shared<storage::ByteChannel>();
  co_await (services.rootfs.pack_rootfs(container->id, container->chain_id, channel) && pass_on(channel, writer));
  lifecycle.publish(*container, "export");
}

}  // namespace gantry::engine
