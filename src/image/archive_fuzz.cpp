#include <cstdint>
#include <exception>
#include <memory>
#include <string>

#include <stdlib.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

#include "async/lanes.hpp"
#include "base/fuzz.hpp"
#include "config/config.hpp"
#include "db/sqlite.hpp"
#include "events/bus.hpp"
#include "image/transfers.hpp"
#include "storage/layer_store.hpp"
#include "storage/tar_fuzz.hpp"
#include "sys/file.hpp"

using gantry::Task;
using gantry::fuzz::accepts;
using gantry::fuzz::require;
namespace image = gantry::image;
namespace storage = gantry::storage;
namespace sys = gantry::sys;

namespace {

/// An image store of its own on a memory file system.
class Store {
 public:
  Store() {
    std::string name = "/dev/shm/gantry-fuzz-XXXXXX";
    require(::mkdtemp(name.data()) != nullptr, "a scratch directory");
    paths_.data_root = name;
    paths_.exec_root = paths_.data_root / "run";
    db_ = std::make_unique<gantry::db::Db>(paths_.database());
    layers_ = std::make_unique<storage::LayerStore>(loop_.get_executor(), lanes_, *db_, paths_);
    content_ = std::make_unique<image::ContentStore>(lanes_, *db_, paths_);
    images_ = std::make_unique<image::Images>(lanes_, *db_, *layers_, *content_, bus_);
    images_->set_users([] { return std::vector<image::ImageUser>{}; });
    transfers_ = std::make_unique<image::Transfers>(loop_.get_executor(), lanes_, *images_, bus_, paths_,
                                                    gantry::config::Config{});
    run(recover());
  }
  ~Store() {
    transfers_.reset();
    run(layers_->stop());
    loop_.stop();
    sys::remove_tree(paths_.data_root);
  }

  /// Loads an archive and takes the outcome back.
  void load(std::string archive) {
    accepts([&] { run(load_steps(std::move(archive))); });
    run(empty());
    require(images_->list({}).empty(), "no image is left");
    require(content_->list().empty() && sys::list_directory(paths_.blobs()).empty(), "no blob is left");
    require(layers_->list().empty(), "no layer is left");
    require(sys::list_directory(paths_.tmp()).empty(), "nothing unfinished is left");
  }

 private:
  void run(Task<void> task) {
    std::exception_ptr failure;
    bool done = false;
    boost::asio::co_spawn(loop_, std::move(task), [&](std::exception_ptr error) {
      failure = error;
      done = true;
    });
    loop_.restart();
    while (!done) loop_.run_one();
    if (failure) std::rethrow_exception(failure);
  }
  Task<void> recover() {
    (void)co_await layers_->recover();
    (void)co_await content_->recover();
    (void)co_await images_->recover();
  }
  Task<void> load_steps(std::string archive) {
    image::LoadRequest request;
    request.archive = storage::make_string_source(std::move(archive));
    co_await transfers_->load(std::move(request), std::make_shared<image::Progress>());
  }
  Task<void> empty() {
    image::RemoveOptions options;
    options.force = true;
    for (const image::ImageSummary& summary : images_->list({}))
      (void)co_await images_->remove(summary.image->id, options);
    (void)co_await images_->collect_garbage();
  }

  boost::asio::io_context loop_;
  sys::Paths paths_;
  gantry::async::Lanes lanes_;
  std::unique_ptr<gantry::db::Db> db_;
  std::unique_ptr<storage::LayerStore> layers_;
  std::unique_ptr<image::ContentStore> content_;
  gantry::events::Bus bus_;
  std::unique_ptr<image::Images> images_;
  std::unique_ptr<image::Transfers> transfers_;
};

}  // namespace

// `docker load`: whatever the archive is, it becomes complete images or leaves nothing.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static auto store = std::make_unique<Store>();
  static const bool registered = ::atexit([] { store.reset(); }) == 0;
  require(registered, "an exit handler");
  store->load({reinterpret_cast<const char*>(data), size});
  return 0;
}
