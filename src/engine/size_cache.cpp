#include "engine/size_cache.hpp"

#include "base/error.hpp"
#include "base/log.hpp"

namespace gantry::engine {
namespace {

constexpr unsigned kWalksAtOnce = 3;
constexpr std::size_t kMostEntries = 4096;
constexpr auto kForgetAfter = std::chrono::minutes(10);

}  // namespace

Task<std::map<std::string, std::uint64_t>> SizeCache::measure(std::vector<Subject> subjects,
                                                              std::chrono::milliseconds max_age,
                                                              std::chrono::milliseconds limit) {
  const auto begun = std::chrono::steady_clock::now();
  std::vector<EntryPtr> wanted;
  for (const Subject& subject : subjects) {
    EntryPtr known = entry(subject.name);
    if (!known->bytes || begun - known->at > max_age) begin_walk(subject, known);
    wanted.push_back(std::move(known));
  }
  for (const EntryPtr& known : wanted) {
    while (known->walking) {
      const auto left = begun + limit - std::chrono::steady_clock::now();
      if (left <= std::chrono::nanoseconds(0) || !co_await done_.wait_for(left)) break;
    }
  }
  std::map<std::string, std::uint64_t> sizes;
  for (std::size_t i = 0; i < wanted.size(); ++i)
    if (wanted[i]->bytes) sizes[subjects[i].name] = *wanted[i]->bytes;
  co_return sizes;
}

SizeCache::EntryPtr SizeCache::entry(const std::string& name) {
  if (entries_.size() >= kMostEntries) drop_old();
  EntryPtr& place = entries_[name];
  if (!place) place = std::make_shared<Entry>();
  return place;
}

void SizeCache::begin_walk(Subject subject, EntryPtr known) {
  if (known->walking) return;
  known->walking = true;
  walks_.spawn("size of " + subject.name, walk(std::move(subject), std::move(known)));
}

Task<void> SizeCache::walk(Subject subject, EntryPtr known) {
  while (walking_ >= kWalksAtOnce) co_await done_.wait();
  ++walking_;
  std::string failure;
  try {
    known->bytes = co_await subject.walk();
  } catch (const Error& e) {
    failure = e.message();  // most likely it was removed meanwhile
  }
  if (!failure.empty()) log::debug("size of {}: {}", subject.name, failure);
  known->at = std::chrono::steady_clock::now();
  known->walking = false;
  --walking_;
  done_.notify();
}

void SizeCache::drop_old() {
  const auto oldest = std::chrono::steady_clock::now() - kForgetAfter;
  std::erase_if(entries_, [oldest](const auto& item) { return !item.second->walking && item.second->at < oldest; });
}

}  // namespace gantry::engine
