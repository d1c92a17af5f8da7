#include "shim/dns_names.hpp"

#include <algorithm>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/text.hpp"

namespace gantry::shim::dns {
namespace {

constexpr std::string_view kMagic = "gantry-names 1";
constexpr std::size_t kMaxUpstreams = 3;
constexpr std::size_t kMaxNetworks = 256;
constexpr std::size_t kMaxFile = 64 << 20;
constexpr std::size_t kMaxResolvConf = 64 << 10;
constexpr std::string_view kOwnAddress = "127.0.0.11";
// Where the host names none, as Docker does.
constexpr const char* kFallback[] = {"8.8.8.8", "8.8.4.4"};

bool same_file(const struct stat& a, const struct stat& b) {
  return a.st_ino == b.st_ino && a.st_dev == b.st_dev && a.st_size == b.st_size &&
         a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

/// Where the first line is that is not less than `key`. The lines are sorted by their bytes.
std::size_t lower_bound(std::string_view lines, std::string_view key) {
  std::size_t low = 0, high = lines.size();  // both at the start of a line, or the end
  while (low < high) {
    const std::size_t middle = low + (high - low) / 2;
    std::size_t start = low;
    if (middle > low) {
      const auto before = lines.rfind('\n', middle - 1);
      if (before != std::string_view::npos && before >= low) start = before + 1;
    }
    const std::size_t end = std::min(lines.find('\n', middle), lines.size());
    if (lines.substr(start, end - start) < key) low = std::min(end + 1, lines.size());
    else high = start;
  }
  return low;
}

/// Calls `use` with the rest of each line that begins with `key`.
template <class F>
void each_with(std::string_view lines, std::string_view key, F use) {
  for (std::size_t at = lower_bound(lines, key); at < lines.size();) {
    const std::size_t end = std::min(lines.find('\n', at), lines.size());
    const std::string_view line = lines.substr(at, end - at);
    if (!line.starts_with(key)) return;
    use(line.substr(key.size()));
    at = end + 1;
  }
}

std::string key_of(char kind, std::string_view text) {
  std::string key{kind, ' '};
  key += text;
  key += ' ';
  return key;
}

}  // namespace

// ---- files

WatchedFile::WatchedFile(WatchedFile&& other) noexcept
    : path_(std::move(other.path_)),
      seen_(other.seen_),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

WatchedFile::~WatchedFile() { unmap(); }

void WatchedFile::unmap() noexcept {
  if (data_ != nullptr) ::munmap(const_cast<char*>(data_), size_);
  data_ = nullptr;
  size_ = 0;
}

bool WatchedFile::refresh() {
  struct stat now{};
  if (::stat(path_.c_str(), &now) != 0) now = {};
  if (same_file(now, seen_)) return false;
  const sys::Fd file(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  if (file && ::fstat(file.get(), &now) != 0) return false;
  if (!file) now = {};
  unmap();
  seen_ = now;
  const auto size = static_cast<std::size_t>(now.st_size);
  if (!file || size == 0 || size > kMaxFile) return true;
  void* const data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) {
    seen_ = {};  // no memory: try again at the next question
    return true;
  }
  data_ = static_cast<const char*>(data);
  size_ = size;
  return true;
}

// ---- one network

std::string_view NameTable::lines() const { return split_once(file_.text(), '\n').second; }

void NameTable::refresh() {
  if (!file_.refresh()) return;
  const std::string_view first = split_once(file_.text(), '\n').first;
  network_ = first.starts_with(kMagic) && first.size() > kMagic.size() ? first.substr(kMagic.size() + 1) : "";
  lower_network_ = to_lower(network_);
}

bool NameTable::find(std::string_view name, int family, std::vector<std::string_view>& addresses) const {
  bool known = false;
  each_with(lines(), key_of('a', name), [&](std::string_view address) {
    known = true;
    const int its_family = address.find(':') == std::string_view::npos ? AF_INET : AF_INET6;
    if (its_family == family) addresses.push_back(address);
  });
  return known;
}

std::string_view NameTable::find_owner(std::string_view address) const {
  std::string_view owner;
  each_with(lines(), key_of('p', address), [&](std::string_view name) {
    if (owner.empty()) owner = name;
  });
  return owner;
}

// ---- one container

Names::Names(sys::Path container_file) : file_(std::move(container_file)) { refresh(); }

void Names::refresh() {
  if (file_.refresh()) parse();
  for (Network& network : networks_) network.table.refresh();
}

void Names::parse() {
  networks_.clear();
  servers_.clear();
  host_servers_.reset();
  external_ = ndots_ = false;
  const sys::Path tables = file_.path().parent_path().parent_path() / "networks";
  const auto lines = split(file_.text(), '\n');
  if (lines.empty() || lines.front() != kMagic) return;
  for (const std::string& line : lines) {
    const auto [keyword, value] = split_once(line, ' ');
    if (keyword == "network" && networks_.size() < kMaxNetworks && value.find('/') == std::string_view::npos) {
      networks_.push_back({NameTable(tables / std::string(value)), {}});
    } else if (keyword == "link" && !networks_.empty()) {
      const auto [alias, target] = split_once(value, ' ');
      networks_.back().links.push_back({std::string(alias), std::string(target)});
    } else if (keyword == "server" && value != kOwnAddress) {
      servers_.push_back({std::string(value), false});
    } else if (keyword == "host-servers") {
      host_servers_ = std::make_unique<HostServers>(std::string(value));
    } else if (keyword == "external") {
      external_ = value == "1";
    } else if (keyword == "ndots") {
      ndots_ = value == "1";
    }
  }
}

bool Names::find_in(const Network& network, std::string_view name, int family,
                    std::vector<std::string_view>& addresses) {
  bool known = false;
  for (const Link& link : network.links)
    if (link.alias == name) known = network.table.find(link.target, family, addresses) || known;
  if (!addresses.empty()) return true;
  return network.table.find(name, family, addresses) || known;
}

Names::Found Names::find(std::string_view name, int family) {
  refresh();
  Found found;
  // "a.b.c": as a whole in any network, then "a.b" in the network "c", then "a" in the network "b.c".
  std::size_t cut = name.size();
  while (found.addresses.empty()) {
    const std::string_view wanted = cut == name.size() ? std::string_view() : name.substr(cut + 1);
    for (const Network& network : networks_) {
      if (!wanted.empty() && !network.table.is_called(wanted)) continue;
      found.known = find_in(network, name.substr(0, cut), family, found.addresses) || found.known;
      if (!found.addresses.empty()) break;
    }
    const auto dot = cut == 0 ? std::string_view::npos : name.rfind('.', cut - 1);
    if (dot == std::string_view::npos || dot == 0) break;
    cut = dot;
  }
  return found;
}

std::string Names::find_owner(std::string_view address) {
  refresh();
  for (const Network& network : networks_) {
    const std::string_view owner = network.table.find_owner(address);
    if (!owner.empty()) return std::string(owner) + "." + network.table.network();
  }
  return {};
}

std::vector<Upstream> Names::upstreams() {
  refresh();
  std::vector<Upstream> out = servers_;
  if (host_servers_ && external_) {
    for (const std::string& server : host_servers_->now()) out.push_back({server, true});
    if (out.empty())
      for (const char* server : kFallback) out.push_back({server, true});
  }
  if (out.size() > kMaxUpstreams) out.resize(kMaxUpstreams);
  return out;
}

// Read and not mapped: people edit this file in place.
const std::vector<std::string>& HostServers::now() {
  struct stat current{};
  if (::stat(path_.c_str(), &current) != 0) current = {};
  if (same_file(current, seen_)) return servers_;
  seen_ = current;
  servers_.clear();
  const sys::Fd file(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  std::string text(kMaxResolvConf, '\0');
  const ssize_t got = file ? ::read(file.get(), text.data(), text.size()) : 0;
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  servers_ = servers_of(text);
  return servers_;
}

std::vector<std::string> servers_of(std::string_view text) {
  std::vector<std::string> out;
  for (std::string line : split(text, '\n')) {
    std::ranges::replace(line, '\t', ' ');
    const auto [keyword, rest] = split_once(trim(line), ' ');
    if (keyword != "nameserver") continue;
    const std::string server(split_once(trim(rest), ' ').first);
    if (!server.empty() && std::ranges::find(out, server) == out.end()) out.push_back(server);
  }
  return out;
}

}  // namespace gantry::shim::dns
