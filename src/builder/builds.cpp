#include "builder/builds.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/error.hpp"
#include "base/text.hpp"
#include "buildcache/cache.hpp"
#include "buildlink/engine.hpp"
#include "solver/solver.hpp"

namespace gantry::builder {

namespace {

// A client's calls for one build come at the same time, in any order.
constexpr std::chrono::seconds kWaitForJob{6};
constexpr std::chrono::seconds kWaitForBridge{3};
constexpr std::chrono::seconds kDrain{5};
constexpr std::chrono::seconds kKeepUnread{3};
constexpr std::size_t kMaxRef = 256;
constexpr std::size_t kMaxBuilds = 256;

void check_ref(const std::string& ref) {
  const bool printable = std::all_of(ref.begin(), ref.end(), [](unsigned char c) { return c > 0x20 && c < 0x7f; });
  if (ref.empty() || ref.size() > kMaxRef || !printable)
    throw Error(Errc::invalid_argument, "invalid build reference " + quote(ref.substr(0, kMaxRef)));
}

}  // namespace

Builds::Builds(const Services& services)
    : services_(services), late_([this](const std::stop_token& stop) { discard_late(stop); }) {}

Builds::~Builds() = default;

void Builds::check_entitlements(const BuildRequest& request) const {
  if (request.entitlements.empty()) return;
  const auto settings = services_.engine.settings();
  for (const auto& wanted : request.entitlements) {
    const bool known = wanted == "network.host" || wanted == "security.insecure" || wanted.starts_with("device");
    if (!known) throw Error(Errc::invalid_argument, "unknown entitlement " + wanted);
    const bool allowed = wanted == "network.host"        ? settings.AllowNetworkHost
                         : wanted == "security.insecure" ? settings.AllowInsecure
                                                         : settings.AllowDevice;
    if (!allowed)
      throw Error(Errc::invalid_argument,
                  "granting entitlement " + wanted + " is not allowed by build daemon configuration");
  }
}

std::map<std::string, std::string> Builds::run(BuildRequest request, std::stop_token stop) {
  check_ref(request.ref);
  check_entitlements(request);
  solver::JobOptions options;
  if (!request.session.empty()) options.sessions.push_back(request.session);
  options.entitlements.insert(request.entitlements.begin(), request.entitlements.end());
  const std::string ref = request.ref;
  const solver::JobPtr job = services_.solver.create_job(ref, std::move(options));
  auto build = std::make_shared<Build>(services_, job, std::move(request));
  {
    const std::lock_guard lock(mutex_);
    if (builds_.size() == kMaxBuilds) {
      services_.solver.discard_job(ref);
      throw Error(Errc::unavailable, "too many builds");
    }
    builds_.emplace(ref, build);
  }
  arrived_.notify_all();
  struct End {
    Builds& builds;
    const std::shared_ptr<Build>& build;
    ~End() { builds.end(build); }
  } end{*this, build};
  const std::stop_callback on_stop(stop, [&job] { job->stop().request_stop(); });
  return build->run(job->stop().get_token());
}

// Whatever ended the build: what runs for it ends, readers of its progress get the end, and it is forgotten.
void Builds::end(const std::shared_ptr<Build>& build) {
  const std::string& ref = build->job()->ref();
  build->job()->stop().request_stop();
  build->job()->finish();
  bool read = false;
  {
    const std::lock_guard lock(mutex_);
    builds_.erase(ref);
    read = read_.erase(ref) != 0;
    if (!read) unread_.emplace_back(std::chrono::steady_clock::now() + kKeepUnread, ref);
  }
  if (read) {
    build->job()->wait_drained(kDrain);
    services_.solver.discard_job(ref);
  } else {
    unread_changed_.notify_all();
  }
  services_.cache.collect_soon();
}

void Builds::discard_late(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  for (;;) {
    unread_changed_.wait(lock, stop, [this] { return !unread_.empty(); });
    if (unread_.empty()) return;
    const auto [when, ref] = unread_.front();
    unread_changed_.wait_until(lock, stop, when, [] { return false; });
    unread_.pop_front();
    lock.unlock();
    services_.solver.discard_job(ref);
    lock.lock();
  }
}

std::shared_ptr<Build> Builds::wait(const std::string& ref, std::stop_token stop) {
  std::unique_lock lock(mutex_);
  if (arrived_.wait_for(lock, stop, kWaitForBridge, [&] { return builds_.contains(ref); })) return builds_.at(ref);
  if (stop.stop_requested()) throw Error(Errc::cancelled, "context canceled");
  throw Error(Errc::not_found, "no such job " + ref.substr(0, kMaxRef));
}

std::unique_ptr<solver::StatusReader> Builds::read_progress(const std::string& ref, std::stop_token stop) {
  const solver::JobPtr job = services_.solver.wait_job(ref, kWaitForJob, std::move(stop));
  auto reader = job->read();
  const std::lock_guard lock(mutex_);
  if (builds_.contains(ref)) read_.insert(ref);
  return reader;
}

std::size_t Builds::count() const {
  const std::lock_guard lock(mutex_);
  return builds_.size();
}

}  // namespace gantry::builder
