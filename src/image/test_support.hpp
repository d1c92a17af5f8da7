#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

#include "async/lanes.hpp"
#include "config/config.hpp"
#include "db/sqlite.hpp"
#include "events/bus.hpp"
#include "image/context.hpp"
#include "image/images.hpp"
#include "image/transfers.hpp"
#include "storage/layer_store.hpp"
#include "sys/paths.hpp"

/// For this module's tests: a whole image store on a directory of its own, image layouts made on the spot, and
/// registries on loopback: Debian's, and one that misbehaves on command.
namespace gantry::image::test {

class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  const sys::Path& path() const { return path_; }

 private:
  sys::Path path_;
};

/// Runs a program to its end. Throws, with its output, unless it succeeds.
std::string run_program(const std::vector<std::string>& argv);

struct TarFile {
  std::string name;
  std::string content;
  char type = '0';  // '0' file, '5' directory, '2' symlink, '1' hard link
  std::string link = {};
};
std::string make_tar(const std::vector<TarFile>& files);
std::string gzip(const std::string& bytes);

/// An image as bytes: what a layout or a registry needs to serve it.
struct ImageBytes {
  std::map<std::string, std::string> blobs;  // by digest, manifests too
  Descriptor manifest;
  std::string config_digest;
};
/// One layer for each tar. `compressed`: gzip layers.
ImageBytes make_image(const std::vector<std::string>& tars, const std::string& architecture, bool compressed = true);
/// An index over several images.
ImageBytes make_index(const std::vector<ImageBytes>& images, const std::vector<Platform>& platforms);
/// Writes an OCI layout directory.
void write_layout(const sys::Path& directory, const ImageBytes& image, const std::string& name = "");

class Machine {
 public:
  explicit Machine(const sys::Path& root);
  ~Machine();

  template <class T>
  T run(Task<T> task) {
    std::optional<T> result;
    std::exception_ptr failure;
    bool done = false;
    boost::asio::co_spawn(loop, std::move(task), [&](std::exception_ptr error, T value) {
      failure = error;
      if (!error) result = std::move(value);
      done = true;
    });
    turn_until(done);
    if (failure) std::rethrow_exception(failure);
    return std::move(*result);
  }
  void run(Task<void> task);
  /// Runs a verb and returns what a client would have seen. Errors go to `error` if it is given.
  std::vector<std::string> lines(std::function<Task<void>(ProgressPtr)> verb, std::string* error = nullptr);
  std::vector<std::string> pull(const std::string& image, const std::string& tag = "", RegistryAuth auth = {},
                                std::optional<Platform> platform = {});
  /// Files of the image's root file system, by the layers' directories.
  std::string read_rootfs(const Image& image, const std::string& file);
  /// Bytes below the data root, apart from the database.
  std::size_t files_in(const sys::Path& directory) const;

  boost::asio::io_context loop;
  sys::Paths paths;
  async::Lanes lanes;
  std::unique_ptr<db::Db> db;
  std::unique_ptr<storage::LayerStore> layers;
  std::unique_ptr<ContentStore> content;
  events::Bus bus;
  std::unique_ptr<Images> images;
  std::unique_ptr<Transfers> transfers;
  std::vector<storage::Problem> problems;
  std::vector<ImageUser> users;

 private:
  void turn_until(const bool& done);
};

/// Debian's docker-registry on a free loopback port.
class DebianRegistry {
 public:
  explicit DebianRegistry(const std::string& htpasswd = "");
  ~DebianRegistry();
  std::string host() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  TemporaryDirectory directory_;
  int port_ = 0;
  int pid_ = -1;
};

/// A registry on a thread that does what a test tells it to.
class FakeRegistry {
 public:
  struct Request {
    std::string method;
    std::string path;
    std::map<std::string, std::string> headers;  // lower-case names
  };
  struct Reply {
    int status = 200;
    std::vector<std::string> headers;
    std::string body;
    std::size_t cut_after = std::string::npos;  // bytes of the body after which the connection is dropped
  };
  using Handler = std::function<std::optional<Reply>(const Request&)>;

  FakeRegistry();
  ~FakeRegistry();
  std::string host() const { return "127.0.0.1:" + std::to_string(port_); }
  /// Serves the image under /v2/<any>/…, by digest and as every tag. Ranges are honoured.
  void serve(const ImageBytes& image);
  /// Looks at each request first; nullopt leaves it to serve().
  void intercept(Handler handler);
  std::vector<Request> requests() const;

 private:
  void accept_all();
  void answer(int fd);
  Reply reply_to(const Request& request);

  int listener_ = -1;
  int port_ = 0;
  std::atomic<bool> stop_{false};
  mutable std::mutex mutex_;
  Handler handler_;
  ImageBytes image_;
  std::vector<Request> requests_;
  std::vector<std::thread> connections_;
  std::vector<int> open_;
  std::thread thread_;
};

}  // namespace gantry::image::test
