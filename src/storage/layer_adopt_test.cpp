#include <sys/stat.h>

#include <gtest/gtest.h>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

#include "async/lanes.hpp"
#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "db/sqlite.hpp"
#include "storage/hash.hpp"
#include "storage/layer_store.hpp"
#include "storage/pack.hpp"
#include "storage/test_support.hpp"

namespace asio = boost::asio;

namespace gantry::storage {
namespace {

using test::TemporaryDirectory;

class Adopt : public testing::Test {
 protected:
  Adopt() {
    paths_.data_root = root_.path();
    paths_.exec_root = root_ / "run";
    db_ = std::make_unique<db::Db>(paths_.database());
    open();
  }
  ~Adopt() override { run(layers_->stop()); }

  void open() {
    layers_ = std::make_unique<LayerStore>(loop_.get_executor(), lanes_, *db_, paths_);
    problems_ = run(layers_->recover());
  }

  template <class T>
  T run(Task<T> task) {
    std::optional<T> result;
    std::exception_ptr failure;
    asio::co_spawn(loop_, std::move(task), [&](std::exception_ptr error, T value) {
      failure = error;
      if (!error) result = std::move(value);
    });
    loop_.restart();
    loop_.run();
    if (failure) std::rethrow_exception(failure);
    return std::move(*result);
  }
  void run(Task<void> task) {
    asio::co_spawn(loop_, std::move(task), [](std::exception_ptr) {});
    loop_.restart();
    loop_.run();
  }

  /// A directory with one file, as a build leaves it, and the request for it.
  AdoptRequest make(const std::string& name, const std::string& content, const std::string& parent = "") {
    AdoptRequest request;
    request.directory = root_ / ("made-" + name);
    sys::make_directories(request.directory, 0755);
    sys::write_atomically(request.directory / name, content, 0640, false);
    PackOptions options;
    options.mode = PackMode::layer;
    request.diff_id = sha256_digest(test::pack_directory(request.directory, options));
    request.parent = parent;
    request.created = now();
    return request;
  }

  TemporaryDirectory root_;
  sys::Paths paths_;
  asio::io_context loop_{1};
  async::Lanes lanes_;
  std::unique_ptr<db::Db> db_;
  std::unique_ptr<LayerStore> layers_;
  std::vector<Problem> problems_;
};

TEST_F(Adopt, MovesTheDirectoryAndKeepsItOverARestart) {
  const AdoptRequest request = make("file", "content");
  const Unpacked first = run(layers_->adopt(request));
  EXPECT_FALSE(first.reused);
  EXPECT_FALSE(std::filesystem::exists(request.directory));
  EXPECT_EQ(first.layer.size, 7);
  EXPECT_EQ(first.layer.entries, 1);
  const Unpacked second = run(layers_->adopt(make("above", "more", first.layer.chain_id)));
  open();
  EXPECT_TRUE(problems_.empty());
  EXPECT_EQ(layers_->get_chain(second.layer.chain_id).size(), 2U);
  EXPECT_EQ(sys::read_file(layers_->directory(first.layer.chain_id) / "file"), "content");
  EXPECT_TRUE(run(layers_->verify_layer(second.layer.chain_id)).empty());
}

TEST_F(Adopt, LeavesTheDirectoryOfALayerThatIsThere) {
  (void)run(layers_->adopt(make("file", "content")));
  const AdoptRequest again = make("file", "content");
  EXPECT_TRUE(run(layers_->adopt(again)).reused);
  EXPECT_EQ(sys::read_file(again.directory / "file"), "content");
}

TEST_F(Adopt, RefusesAParentThatIsNotStored) {
  const AdoptRequest request = make("file", "content", "sha256:" + std::string(64, '0'));
  EXPECT_THROW((void)run(layers_->adopt(request)), Error);
  EXPECT_TRUE(std::filesystem::exists(request.directory / "file"));
}

TEST_F(Adopt, LeavesNothingHalfMade) {
  for (const char* place : {"layer.adopt.after_take", "layer.after_sync", "layer.after_rename"}) {
    arm_failpoints(std::string(place) + "=error");
    EXPECT_THROW((void)run(layers_->adopt(make("file", place))), Error) << place;
    arm_failpoints("");
    open();
    EXPECT_TRUE(layers_->list().empty()) << place;
    EXPECT_TRUE(sys::list_directory(paths_.layers()).empty()) << place;
    EXPECT_TRUE(sys::list_directory(paths_.tmp()).empty()) << place;
  }
}

}  // namespace
}  // namespace gantry::storage
