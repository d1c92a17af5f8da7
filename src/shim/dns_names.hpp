#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <sys/stat.h>

#include "sys/file.hpp"

/// The shim's view of what gantryd wrote below <exec-root>/names (docs/shim-protocol.md has the format).
namespace gantry::shim::dns {

/// A file that gantryd replaces by rename and never changes in place. Mapped, so that a large table costs no private
/// memory.
class WatchedFile {
 public:
  explicit WatchedFile(sys::Path path) : path_(std::move(path)) {}
  WatchedFile(WatchedFile&& other) noexcept;
  WatchedFile& operator=(WatchedFile&&) = delete;
  ~WatchedFile();

  /// Looks whether another file is there now. True if the text is another than at the last call.
  bool refresh();
  /// Empty if there is no file. Valid until the next refresh().
  std::string_view text() const noexcept { return {data_, size_}; }
  const sys::Path& path() const noexcept { return path_; }

 private:
  void unmap() noexcept;
  sys::Path path_;
  struct stat seen_{};
  const char* data_ = nullptr;
  std::size_t size_ = 0;
};

/// The names of one network.
class NameTable {
 public:
  explicit NameTable(sys::Path path) : file_(std::move(path)) {}
  void refresh();
  const std::string& network() const noexcept { return network_; }
  bool is_called(std::string_view network) const noexcept { return lower_network_ == network; }
  /// Adds the addresses of `family` that `name` (lower case) has. True if the name is known at all.
  bool find(std::string_view name, int family, std::vector<std::string_view>& addresses) const;
  /// The container at an address, or empty.
  std::string_view find_owner(std::string_view address) const;

 private:
  std::string_view lines() const;
  WatchedFile file_;
  std::string network_;
  std::string lower_network_;
};

/// The name servers of the host's resolv.conf(5), which may change at any time and in any way.
class HostServers {
 public:
  explicit HostServers(sys::Path path) : path_(std::move(path)) {}
  const std::vector<std::string>& now();

 private:
  sys::Path path_;
  struct stat seen_{};
  std::vector<std::string> servers_;
};

/// A name server to forward to.
struct Upstream {
  std::string address;  // "10.0.0.2", "fe80::1%eth0"
  bool in_host = true;  // asked from the host's network namespace, else from the container's
  friend bool operator==(const Upstream&, const Upstream&) = default;
};

/// Everything that one container can ask for.
class Names {
 public:
  /// `container_file`: <exec-root>/names/containers/<id>.
  explicit Names(sys::Path container_file);

  struct Found {
    bool known = false;                       // some container has this name, if not this kind of address
    std::vector<std::string_view> addresses;  // as text; valid until the next find()
  };
  /// `name` in lower case. AF_UNSPEC: only whether it is known.
  Found find(std::string_view name, int family);
  /// "<container>.<network>", or empty.
  std::string find_owner(std::string_view address);
  /// At most three, in the order in which they are to be asked; without those that this container may not use.
  std::vector<Upstream> upstreams();
  /// Single labels are not forwarded: the client is to try its search list.
  bool keeps_single_labels() const noexcept { return ndots_; }

 private:
  struct Link {
    std::string alias;
    std::string target;
  };
  struct Network {
    NameTable table;
    std::vector<Link> links;
  };
  void refresh();
  void parse();
  static bool find_in(const Network& network, std::string_view name, int family,
                      std::vector<std::string_view>& addresses);

  WatchedFile file_;
  std::vector<Network> networks_;
  std::vector<Upstream> servers_;
  std::unique_ptr<HostServers> host_servers_;
  bool external_ = false;
  bool ndots_ = false;
};

/// The name servers of a resolv.conf(5).
std::vector<std::string> servers_of(std::string_view resolv_conf);

}  // namespace gantry::shim::dns
