#include "storage/layer_store.hpp"

#include <thread>

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "db/sqlite.hpp"
#include "storage/hash.hpp"
#include "storage/test_support.hpp"
#include "storage/tree.hpp"
#include "sys/mount.hpp"

namespace asio = boost::asio;

namespace gantry::storage {
namespace {

using test::TarBuilder;
using test::TemporaryDirectory;

/// A store on a data root of its own, with its loop.
class Store {
 public:
  explicit Store(const sys::Path& data_root) {
    paths_.data_root = data_root;
    paths_.exec_root = data_root / "run";
    sys::make_directories(data_root);
    db_ = std::make_unique<db::Db>(paths_.database());
    layers_ = std::make_unique<LayerStore>(loop_.get_executor(), lanes_, *db_, paths_);
    problems_ = run(layers_->recover());
  }
  ~Store() { run(layers_->stop()); }

  template <class T>
  T run(Task<T> task) {
    std::optional<T> result;
    std::exception_ptr failure;
    asio::co_spawn(loop_, std::move(task), [&](std::exception_ptr error, T value) {
      failure = error;
      if (!error) result = std::move(value);
    });
    turn();
    if (failure) std::rethrow_exception(failure);
    return std::move(*result);
  }
  void run(Task<void> task) {
    std::exception_ptr failure;
    asio::co_spawn(loop_, std::move(task), [&](std::exception_ptr error) { failure = error; });
    turn();
    if (failure) std::rethrow_exception(failure);
  }
  void turn() {
    loop_.restart();
    loop_.run();
  }

  Unpacked unpack(const std::string& tar, const std::string& parent = "", const std::string& diff_id = "") {
    return run(layers_->unpack(request(make_string_source(tar), parent, diff_id)));
  }
  static UnpackRequest request(std::shared_ptr<ByteSource> source, const std::string& parent = "",
                               const std::string& diff_id = "") {
    UnpackRequest r;
    r.parent = parent;
    r.diff_id = diff_id;
    r.source = std::move(source);
    return r;
  }

  asio::io_context loop_{1};
  async::Lanes lanes_;
  sys::Paths paths_;
  std::unique_ptr<db::Db> db_;
  std::unique_ptr<LayerStore> layers_;
  std::vector<Problem> problems_;
};

std::string small_tar(const std::string& content) { return TarBuilder().directory("d").file("d/f", content).finish(); }

TEST(LayerStore, UnpacksVerifiesAndRemembers) {
  TemporaryDirectory root;
  const std::string tar = small_tar("one");
  const std::string diff = sha256_digest(tar);
  std::string chain;
  {
    Store store(root.path());
    for (const Compression kind : {Compression::gzip, Compression::zstd, Compression::xz}) {
      const Unpacked got = store.unpack(test::compress(kind, tar), "", diff);
      EXPECT_EQ(got.reused, kind != Compression::gzip);
      chain = got.layer.chain_id;
    }
    EXPECT_EQ(chain, diff);
    EXPECT_EQ(sys::read_file(store.layers_->directory(chain) / "d/f"), "one");
    const Unpacked second = store.unpack(small_tar("two"), chain);
    EXPECT_EQ(second.layer.chain_id, chain_id(chain, second.layer.diff_id));
    EXPECT_EQ(store.layers_->get_chain(second.layer.chain_id).size(), 2u);
    EXPECT_EQ(store.layers_->chain_size(second.layer.chain_id), 6);
    chain = second.layer.chain_id;
  }
  Store again(root.path());
  EXPECT_TRUE(again.problems_.empty());
  EXPECT_TRUE(again.layers_->is_complete(chain));
  EXPECT_TRUE(again.run(again.layers_->verify_layer(chain)).empty());
  EXPECT_TRUE(again.run(again.layers_->check()).empty());
  EXPECT_TRUE(sys::list_directory(root / "tmp").empty());
}

TEST(LayerStore, RefusesContentThatIsNotWhatItsDigestSays) {
  TemporaryDirectory root;
  Store store(root.path());
  try {
    store.unpack(small_tar("x"), "", sha256_digest("something else"));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::corrupted);
    EXPECT_NE(e.message().find(sha256_digest("something else")), std::string::npos);
  }
  EXPECT_TRUE(store.layers_->list().empty());
  EXPECT_TRUE(sys::list_directory(root / "tmp").empty());
  EXPECT_TRUE(sys::list_directory(root / "layers").empty());
}

TEST(LayerStore, AHostileTarLeavesNothing) {
  TemporaryDirectory root;
  Store store(root.path());
  EXPECT_THROW(store.unpack(TarBuilder().file("ok", "x").file("../../escape", "y").finish()), Error);
  EXPECT_TRUE(sys::list_directory(root / "tmp").empty());
  EXPECT_TRUE(sys::list_directory(root / "layers").empty());
}

TEST(LayerStore, StopsBeforeTheDiskIsFullAndCleansUp) {
  TemporaryDirectory outer;
  const sys::Path root = outer / "small";
  sys::make_directories(root);
  sys::attach_mount(sys::make_mount("tmpfs", {"size=48m"}).get(), root);
  Store store(root);
  const std::string tar =
      TarBuilder().file("a", std::string(30 << 20, 'a')).file("b", std::string(30 << 20, 'b')).finish();
  EXPECT_THROW(store.unpack(tar), Error);
  EXPECT_TRUE(sys::list_directory(root / "tmp").empty());
  EXPECT_FALSE(store.unpack(small_tar("still works")).reused);
}

TEST(LayerStore, ALayerWithoutItsParentIsRefused) {
  TemporaryDirectory root;
  Store store(root.path());
  EXPECT_NE(test::error_of([&] { store.unpack(small_tar("x"), sha256_digest("parent")); }).find("parent layer"),
            std::string::npos);
}

TEST(LayerStore, TwoRequestsForOneLayerShareTheWork) {
  TemporaryDirectory root;
  Store store(root.path());
  const std::string tar = small_tar("shared");
  const std::string diff = sha256_digest(tar);
  auto first = std::make_shared<ByteChannel>();
  std::vector<Unpacked> results;
  auto note = [&](std::exception_ptr error, Unpacked got) {
    ASSERT_FALSE(error);
    results.push_back(got);
  };
  asio::co_spawn(store.loop_, store.layers_->unpack(Store::request(first, "", diff)), note);
  // Its source would throw if anyone read it.
  auto second = std::make_shared<ByteChannel>();
  second->fail(std::make_exception_ptr(Error(Errc::internal, "was read")));
  asio::co_spawn(store.loop_, store.layers_->unpack(Store::request(second, "", diff)), note);
  std::thread writer([&] {
    first->write_blocking(tar);
    first->close();
  });
  store.turn();
  writer.join();
  ASSERT_EQ(results.size(), 2u);
  EXPECT_NE(results[0].reused, results[1].reused);
  EXPECT_EQ(store.layers_->list().size(), 1u);
}

TEST(LayerStore, IfTheFirstOfTwoRequestsFailsTheSecondUsesItsOwnSource) {
  TemporaryDirectory root;
  Store store(root.path());
  const std::string tar = small_tar("retried");
  const std::string diff = sha256_digest(tar);
  auto broken = std::make_shared<ByteChannel>();
  std::string failure;
  bool second_done = false;
  asio::co_spawn(
      store.loop_, store.layers_->unpack(Store::request(broken, "", diff)),
      [&](std::exception_ptr error, Unpacked) { failure = test::error_of([&] { std::rethrow_exception(error); }); });
  asio::co_spawn(store.loop_, store.layers_->unpack(Store::request(make_string_source(tar), "", diff)),
                 [&](std::exception_ptr error, Unpacked got) { second_done = !error && !got.reused; });
  broken->write_blocking(tar.substr(0, 700));
  broken->fail(std::make_exception_ptr(Error(Errc::unavailable, "connection reset by registry")));
  store.turn();
  EXPECT_EQ(failure, "connection reset by registry");
  EXPECT_TRUE(second_done);
}

TEST(LayerStore, CancellingTheCallerAbortsTheSource) {
  TemporaryDirectory root;
  Store store(root.path());
  auto endless = std::make_shared<ByteChannel>();
  endless->write_blocking(small_tar("x").substr(0, 600));
  asio::cancellation_signal cancel;
  bool ended = false;
  asio::co_spawn(store.loop_, store.layers_->unpack(Store::request(endless)),
                 asio::bind_cancellation_slot(cancel.slot(),
                                              [&](std::exception_ptr error, Unpacked) { ended = error != nullptr; }));
  asio::post(store.loop_, [&] { cancel.emit(asio::cancellation_type::terminal); });
  store.turn();  // ends only if nothing waits for the source any more
  EXPECT_TRUE(ended);
  EXPECT_THROW(endless->write_blocking("more"), Error);
  EXPECT_TRUE(sys::list_directory(root / "tmp").empty());
}

TEST(LayerStore, ImpliedDirectoriesLookAsInTheLayersBelow) {
  TemporaryDirectory root;
  Store store(root.path());
  TarEntry tmp;
  tmp.type = TarType::directory;
  tmp.name = "tmp/";
  tmp.mode = 01777;
  tmp.uid = 5;
  tmp.mtime = {4242, 0};
  const std::string base = store.unpack(TarBuilder().entry(tmp).finish()).layer.chain_id;
  const std::string top = store.unpack(TarBuilder().file("tmp/deep/f", "x").finish(), base).layer.chain_id;
  struct stat st{};
  ASSERT_EQ(::stat((store.layers_->directory(top) / "tmp").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode, S_IFDIR | 01777u);
  EXPECT_EQ(st.st_uid, 5u);
  EXPECT_EQ(st.st_mtim.tv_sec, 4242);
  EXPECT_TRUE(store.run(store.layers_->verify_layer(top)).empty());
}

/// As whoever removes images does. Returns the bytes freed.
std::int64_t remove_unused(Store& store, const std::set<std::string>& used) {
  LayerRemoval removal = store.layers_->begin_removal(used);
  for (const Layer& layer : removal.layers) db::remove_layer(*store.db_, layer.chain_id);
  FAILPOINT("test.after_rows");
  const std::int64_t bytes = removal.bytes;
  store.run(store.layers_->end_removal(std::move(removal)));
  return bytes;
}

TEST(LayerStore, ARemovalThatIsCancelledHasChangedNothing) {
  TemporaryDirectory root;
  Store store(root.path());
  const std::string tar = small_tar("base");
  const std::string base = store.unpack(tar).layer.chain_id;
  const std::string top = store.unpack(small_tar("top"), base).layer.chain_id;
  const LayerRemoval removal = store.layers_->begin_removal({});
  EXPECT_EQ(removal.layers.size(), 2u);
  EXPECT_EQ(store.layers_->find(base), nullptr);
  store.layers_->cancel_removal(removal);
  EXPECT_TRUE(store.layers_->is_complete(top));
  EXPECT_TRUE(store.unpack(tar).reused);
}

TEST(LayerStore, RemovesWhatNothingUsesAndKeepsTheRest) {
  TemporaryDirectory root;
  Store store(root.path());
  const std::string base = store.unpack(small_tar("base")).layer.chain_id;
  const std::string used = store.unpack(small_tar("used"), base).layer.chain_id;
  const std::string held = store.unpack(small_tar("held"), base).layer.chain_id;
  const std::string unused = store.unpack(small_tar("unused!"), base).layer.chain_id;
  const std::string above = store.unpack(small_tar("above"), unused).layer.chain_id;
  {
    LayerHold hold = store.layers_->hold();
    hold.add(held);
    EXPECT_EQ(remove_unused(store, {used}), 7 + 5);
    EXPECT_TRUE(store.layers_->is_complete(held));
  }
  EXPECT_EQ(remove_unused(store, {used}), 4);
  EXPECT_TRUE(store.layers_->is_complete(used));
  EXPECT_EQ(store.layers_->list().size(), 2u);
  EXPECT_EQ(sys::list_directory(root / "layers").size(), 2u);
  EXPECT_TRUE(sys::list_directory(root / "tmp").empty());
  EXPECT_EQ(store.layers_->find(above), nullptr);
}

TEST(LayerStore, FindsALostLayerAtStartAndRebuildsIt) {
  TemporaryDirectory root;
  const std::string tar = small_tar("lost");
  std::string chain;
  {
    Store store(root.path());
    chain = store.unpack(tar).layer.chain_id;
  }
  sys::remove_tree(root / "layers");
  Store store(root.path());
  ASSERT_EQ(store.problems_.size(), 1u);
  EXPECT_EQ(store.problems_[0].subject, "layer " + chain);
  EXPECT_FALSE(store.layers_->is_complete(chain));
  EXPECT_THROW(store.layers_->get_chain(chain), Error);
  EXPECT_FALSE(store.run(store.layers_->rebuild(chain, make_string_source(tar))).reused);
  EXPECT_TRUE(store.layers_->is_complete(chain));
}

TEST(LayerStore, NoticesADamagedLayer) {
  TemporaryDirectory root;
  Store store(root.path());
  const std::string tar = small_tar("content");
  const std::string chain = store.unpack(tar).layer.chain_id;
  ASSERT_EQ(::truncate((store.layers_->directory(chain) / "d/f").c_str(), 3), 0);
  EXPECT_EQ(store.run(store.layers_->verify_layer(chain)).size(), 1u);
  store.run(store.layers_->mark_missing(chain));
  EXPECT_FALSE(store.layers_->is_complete(chain));
  EXPECT_TRUE(sys::list_directory(root / "layers").empty());
  store.run(store.layers_->rebuild(chain, make_string_source(tar)));
  EXPECT_TRUE(store.run(store.layers_->verify_layer(chain)).empty());
}

/// Kills a process that unpacks at each of the failpoints, and looks at what the next one finds.
TEST(LayerStore, KilledAnywhereItLeavesNothingOrAWholeLayer) {
  const std::string tar = small_tar("crash");
  for (const char* point : {"layer.after_stage_directory", "layer.after_unpack", "layer.after_sync",
                            "layer.after_rename", "layer.after_row"}) {
    TemporaryDirectory root;
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      arm_failpoints(std::string(point) + "=kill");
      Store store(root.path());
      store.unpack(tar);
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status)) << point;
    {
      Store store(root.path());
      const bool kept = std::string_view(point) == "layer.after_row";
      EXPECT_EQ(store.layers_->list().size(), kept ? 1u : 0u) << point;
      EXPECT_EQ(sys::list_directory(root / "layers").size(), kept ? 1u : 0u) << point;
      EXPECT_EQ(store.problems_.size(), std::string_view(point) == "layer.after_rename" ? 1u : 0u) << point;
      EXPECT_EQ(store.unpack(tar).reused, kept);
    }
    EXPECT_TRUE(sys::list_directory(root / "tmp").empty()) << point;
  }
}

TEST(LayerStore, KilledWhileRemovingTheRestGoesAtTheNextStart) {
  for (const char* point : {"test.after_rows", "layer.after_discard_rename"}) {
    TemporaryDirectory root;
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      Store store(root.path());
      store.unpack(small_tar("x"));
      arm_failpoints(std::string(point) + "=kill");
      (void)remove_unused(store, {});
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status)) << point;
    {
      Store store(root.path());
    }
    EXPECT_TRUE(sys::list_directory(root / "layers").empty()) << point;
    EXPECT_TRUE(sys::list_directory(root / "tmp").empty()) << point;
  }
}

}  // namespace
}  // namespace gantry::storage
