#include "engine/container_store.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "async/shield.hpp"
#include "base/text.hpp"
#include "db/container_rows.hpp"
#include "engine/container_codec.hpp"
#include "engine/messages.hpp"

namespace gantry::engine {
namespace {

db::ContainerRow to_row(const Container& container) {
  db::ContainerRow row;
  row.id = container.id.str();
  row.name = container.name;
  row.created_ns = static_cast<std::int64_t>(container.created.time_since_epoch().count());
  row.config = encode_config(container);
  row.state = encode_state(container.state);
  return row;
}

ContainerPtr from_row(const db::ContainerRow& row) {
  auto container = std::make_shared<Container>();
  container->id = ContainerId(row.id);
  container->name = row.name;
  container->created = Timestamp(std::chrono::nanoseconds(row.created_ns));
  decode_config(row.config, *container);
  container->state = decode_state(row.state);
  return container;
}

}  // namespace

Task<std::vector<std::string>> ContainerStore::load() {
  db::Db* db = &db_;
  const std::vector<db::ContainerRow> rows = co_await lanes_.db.run([db] { return db::load_containers(*db); });
  std::vector<std::string> problems;
  for (const db::ContainerRow& row : rows) {
    try {
      ContainerPtr container = from_row(row);
      by_id_[row.id] = container;
      by_name_[row.name] = container;
    } catch (const Error& e) {
      // The row stays, and so does its name: a later version may understand it.
      reserved_.insert(row.name);
      problems.push_back(
          fmt::format("container {} ({}) is set aside, its row cannot be read: {}", row.name, row.id, e.message()));
    }
  }
  co_return problems;
}

ContainerPtr ContainerStore::find_by_name(const std::string& name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : it->second;
}

ContainerPtr ContainerStore::get(const std::string& reference) const {
  if (reference.empty()) throw Error(Errc::invalid_argument, "invalid name or ID supplied: \"\"");
  if (const auto it = by_id_.find(reference); it != by_id_.end()) return it->second;
  const std::string name = reference.front() == '/' ? reference.substr(1) : reference;
  if (ContainerPtr found = find_by_name(name)) return found;
  ContainerPtr match;
  for (const auto& [id, container] : by_id_) {
    if (!id.starts_with(reference)) continue;
    if (match) throw Error(Errc::invalid_argument, "multiple IDs found with provided prefix: " + reference);
    match = container;
  }
  if (!match) throw no_such_container(reference);
  return match;
}

ContainerPtr ContainerStore::find(const std::string& reference) const {
  try {
    return get(reference);
  } catch (const Error&) {
    return nullptr;
  }
}

std::vector<ContainerPtr> ContainerStore::list() const {
  std::vector<ContainerPtr> all;
  all.reserve(by_id_.size());
  for (const auto& [id, container] : by_id_) all.push_back(container);
  std::sort(all.begin(), all.end(), [](const ContainerPtr& a, const ContainerPtr& b) {
    return a->created != b->created ? a->created > b->created : a->id < b->id;
  });
  return all;
}

NameReservation ContainerStore::reserve_name(const std::string& name) {
  if (ContainerPtr holder = find_by_name(name)) throw name_in_use(name, holder->id.str());
  if (!reserved_.insert(name).second) throw name_in_use(name, "(being created)");
  return {&reserved_, name};
}

Task<void> ContainerStore::insert(ContainerPtr container) {
  db::Db* db = &db_;
  co_await lanes_.db.run([db, row = to_row(*container)] { db::insert_container(*db, row); });
  by_id_[container->id.str()] = container;
  by_name_[container->name] = container;
}

Task<void> ContainerStore::save_state(ContainerPtr container) {
  db::Db* db = &db_;
  std::string state = encode_state(container->state);
  co_await lanes_.db.run(
      [db, id = container->id.str(), state = std::move(state)] { db::update_container_state(*db, id, state); });
}

Task<void> ContainerStore::save(ContainerPtr container) {
  db::Db* db = &db_;
  co_await lanes_.db.run([db, row = to_row(*container)] { db::update_container(*db, row); });
}

Task<void> ContainerStore::rename(ContainerPtr container, std::string name) {
  db::Db* db = &db_;
  co_await lanes_.db.run([db, id = container->id.str(), name] { db::rename_container(*db, id, name); });
  by_name_.erase(container->name);
  container->name = name;
  by_name_[name] = container;
}

Task<void> ContainerStore::remove(ContainerPtr container) {
  db::Db* db = &db_;
  co_await lanes_.db.run([db, id = container->id.str()] { db::remove_container(*db, id); });
  by_id_.erase(container->id.str());
  by_name_.erase(container->name);
}

}  // namespace gantry::engine
