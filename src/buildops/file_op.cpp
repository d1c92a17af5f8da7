#include "buildops/file_op.hpp"

#include <map>
#include <set>
#include <utility>

#include <fcntl.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "buildcache/snapshots.hpp"
#include "buildops/copy.hpp"
#include "buildops/tree_actions.hpp"
#include "buildops/tree_path.hpp"
#include "proto/ops.pb.h"
#include "sys/file.hpp"

namespace gantry::buildops {
namespace {

using buildcache::SnapshotPtr;

std::optional<std::int64_t> timestamp_of(std::int64_t value) {
  if (value == -1) return std::nullopt;
  return value;
}

const pb::ChownOpt* owner_of(const pb::FileAction& action) {
  switch (action.action_case()) {
    case pb::FileAction::kCopy: return action.copy().has_owner() ? &action.copy().owner() : nullptr;
    case pb::FileAction::kMkfile: return action.mkfile().has_owner() ? &action.mkfile().owner() : nullptr;
    case pb::FileAction::kMkdir: return action.mkdir().has_owner() ? &action.mkdir().owner() : nullptr;
    case pb::FileAction::kSymlink: return action.symlink().has_owner() ? &action.symlink().owner() : nullptr;
    default: return nullptr;
  }
}

/// Where the owner's name is looked up; nullopt: nowhere.
std::optional<std::int64_t> names_input(const pb::UserOpt& user) {
  if (user.user_case() != pb::UserOpt::kByName) return std::nullopt;
  return user.by_name().input();
}

OwnerName owner_name(const pb::UserOpt& user) {
  OwnerName out;
  if (user.user_case() == pb::UserOpt::kByName) out.name = user.by_name().name();
  else if (user.user_case() == pb::UserOpt::kById) out.id = user.by_id();
  return out;
}

CopyRequest request_of(const pb::FileActionCopy& copy) {
  CopyRequest request;
  request.source = copy.src();
  request.destination = copy.dest();
  if (!copy.mode_str().empty()) request.mode = ModeChange::parse(copy.mode_str());
  else if (copy.mode() != -1) request.mode = ModeChange::bits(static_cast<mode_t>(copy.mode()));
  request.follow_symlink = copy.follow_symlink();
  request.directory_contents = copy.dir_copy_contents();
  request.unpack = copy.attempt_unpack();
  request.create_destination = copy.create_dest_path();
  request.wildcards = copy.allow_wildcard();
  request.allow_empty_wildcard = copy.allow_empty_wildcard();
  request.always_replace = copy.always_replace();
  request.timestamp = timestamp_of(copy.timestamp());
  request.include.assign(copy.include_patterns().begin(), copy.include_patterns().end());
  request.exclude.assign(copy.exclude_patterns().begin(), copy.exclude_patterns().end());
  request.required.assign(copy.required_paths().begin(), copy.required_paths().end());
  return request;
}

/// One execution of a file step. Values are numbered as in the definition: the step's inputs, then the actions'
/// results.
class Execution {
 public:
  Execution(const Services& services, const llb::Vertex& vertex, const std::vector<SnapshotPtr>& inputs,
            std::stop_token stop)
      : services_(services),
        actions_(vertex.op().file().actions()),
        name_(vertex.name()),
        inputs_(static_cast<std::int64_t>(inputs.size())),
        stop_(std::move(stop)) {
    for (std::size_t i = 0; i < inputs.size(); ++i) trees_[static_cast<std::int64_t>(i)] = inputs[i];
    for (const pb::FileAction& action : actions_) {
      ++written_[action.input()];
      shared_.insert(action.secondary_input());
      if (const pb::ChownOpt* owner = owner_of(action))
        for (const pb::UserOpt* user : {&owner->user(), &owner->group()})
          if (const auto input = names_input(*user); input && *input != action.input()) shared_.insert(*input);
    }
  }

  std::vector<SnapshotPtr> run(std::size_t outputs) {
    std::vector<SnapshotPtr> results(outputs);
    for (int i = 0; i < actions_.size(); ++i) {
      if (stop_.stop_requested()) throw Error(Errc::cancelled, "context canceled");
      const pb::FileAction& action = actions_[i];
      perform(action, i);
      if (action.output() >= 0) results.at(static_cast<std::size_t>(action.output())) = tree(inputs_ + i);
    }
    return results;
  }

 private:
  struct Work {
    std::unique_ptr<buildcache::Workspace> workspace;
    sys::Fd root;
  };
  struct Seen {
    std::unique_ptr<buildcache::View> view;
    sys::Fd root;
  };

  void perform(const pb::FileAction& action, int index) {
    Work work = take_work(action.input());
    const Looks looks{owner(action, work.root.get()), {}, {}};
    switch (action.action_case()) {
      case pb::FileAction::kCopy: {
        CopyRequest request = request_of(action.copy());
        request.owner = looks.owner;
        copy(root_of(action.secondary_input()), work.root.get(), request, stop_);
        break;
      }
      case pb::FileAction::kMkfile: {
        const pb::FileActionMkFile& a = action.mkfile();
        make_file(work.root.get(), a.path(), static_cast<mode_t>(a.mode()), a.data(),
                  {looks.owner, {}, timestamp_of(a.timestamp())});
        break;
      }
      case pb::FileAction::kMkdir: {
        const pb::FileActionMkDir& a = action.mkdir();
        make_directory(work.root.get(), a.path(), static_cast<mode_t>(a.mode()), a.make_parents(),
                       {looks.owner, {}, timestamp_of(a.timestamp())});
        break;
      }
      case pb::FileAction::kRm:
        remove_path(work.root.get(), action.rm().path(), action.rm().allow_not_found(), action.rm().allow_wildcard());
        break;
      case pb::FileAction::kSymlink: {
        const pb::FileActionSymlink& a = action.symlink();
        make_symlink(work.root.get(), a.oldpath(), a.newpath(), {looks.owner, {}, timestamp_of(a.timestamp())});
        break;
      }
      default: throw Error(Errc::not_implemented, "unknown file action");
    }
    works_[inputs_ + index] = std::move(work);
  }

  /// A tree to go on with: the one of the action before if nobody else needs it as it is now, else a new layer.
  Work take_work(std::int64_t value) {
    const auto unfinished = works_.find(value);
    if (unfinished != works_.end() && written_[value] == 1 && !shared_.contains(value)) {
      Work work = std::move(unfinished->second);
      works_.erase(unfinished);
      return work;
    }
    Work work;
    work.workspace = services_.snapshots.create(tree(value), buildcache::RecordType::regular, name_);
    work.root = sys::open_file(work.workspace->mount(), O_RDONLY | O_DIRECTORY);
    return work;
  }

  /// A value as a finished tree; nullptr for scratch.
  SnapshotPtr tree(std::int64_t value) {
    if (value < 0) return nullptr;
    const auto unfinished = works_.find(value);
    if (unfinished == works_.end()) return trees_.at(value);
    unfinished->second.root.reset();
    SnapshotPtr made = unfinished->second.workspace->commit();
    works_.erase(unfinished);
    return trees_[value] = std::move(made);
  }

  /// A value to read from.
  int root_of(std::int64_t value) {
    Seen& seen = seen_[value];
    if (!seen.view) {
      seen.view = services_.snapshots.view(tree(value));
      seen.root = sys::open_file(seen.view->path(), O_RDONLY | O_DIRECTORY);
    }
    return seen.root.get();
  }

  std::optional<Owner> owner(const pb::FileAction& action, int work_root) {
    const pb::ChownOpt* const wanted = owner_of(action);
    if (wanted == nullptr) return std::nullopt;
    int root = -1;
    for (const pb::UserOpt* user : {&wanted->user(), &wanted->group()})
      if (const auto input = names_input(*user); input && *input >= 0)
        root = *input == action.input() ? work_root : root_of(*input);
    return resolve_owner(root, owner_name(wanted->user()), owner_name(wanted->group()));
  }

  const Services& services_;
  const google::protobuf::RepeatedPtrField<pb::FileAction>& actions_;
  const std::string name_;
  const std::int64_t inputs_;
  const std::stop_token stop_;
  std::map<std::int64_t, SnapshotPtr> trees_;
  std::map<std::int64_t, Work> works_;
  std::map<std::int64_t, Seen> seen_;
  std::map<std::int64_t, int> written_;  // how many actions go on from a value
  std::set<std::int64_t> shared_;        // values that are read
};

class FileOperation final : public solver::Operation {
 public:
  FileOperation(const Services& services, const llb::Vertex& vertex) : services_(services), vertex_(vertex) {
    for (const pb::FileAction& action : op().actions())
      if (action.action_case() == pb::FileAction::ACTION_NOT_SET)
        throw Error(Errc::invalid_argument, "a file action is of no known kind");
  }

  solver::CacheMap cache_map(solver::OpContext&) override {
    solver::CacheMap map;
    map.key = "file.v1\n";
    const auto inputs = static_cast<std::int64_t>(vertex_.inputs().size());
    std::vector<std::vector<solver::Selector>> selectors(vertex_.inputs().size());
    std::set<std::int64_t> bases;  // inputs of which all is in the result
    for (const pb::FileAction& action : op().actions()) {
      bases.insert(action.input());
      pb::FileAction keyed = action;
      if (action.action_case() == pb::FileAction::kCopy && is_input(action.secondary_input(), inputs)) {
        selectors[static_cast<std::size_t>(action.secondary_input())].push_back(selector_of(action.copy()));
        keyed.mutable_copy()->set_src(split_last(absolute_path(action.copy().src())).second);
      }
      if (const pb::ChownOpt* owner = owner_of(action)) {
        add_names(owner->user(), "/etc/passwd", inputs, selectors);
        add_names(owner->group(), "/etc/group", inputs, selectors);
      }
      const std::string bytes = keyed.SerializeAsString();
      map.key += fmt::format("{}\n{}\n", bytes.size(), bytes);
    }
    for (std::size_t i = 0; i < selectors.size(); ++i) {
      solver::CacheDep dep;
      dep.by_content = !selectors[i].empty() && !bases.contains(static_cast<std::int64_t>(i));
      if (dep.by_content) dep.selectors = std::move(selectors[i]);
      map.deps.push_back(std::move(dep));
    }
    return map;
  }

  std::vector<SnapshotPtr> execute(solver::OpContext& context, const std::vector<SnapshotPtr>& inputs) override {
    return Execution(services_, vertex_, inputs, context.stop).run(static_cast<std::size_t>(vertex_.outputs()));
  }

 private:
  const pb::FileOp& op() const { return vertex_.op().file(); }
  static bool is_input(std::int64_t value, std::int64_t inputs) { return value >= 0 && value < inputs; }

  static solver::Selector selector_of(const pb::FileActionCopy& copy) {
    solver::Selector selector;
    selector.path = copy.src();
    selector.wildcard = copy.allow_wildcard() && has_wildcards(copy.src());
    selector.follow_links = copy.follow_symlink();
    selector.contents_only = copy.dir_copy_contents() && !selector.wildcard;
    selector.include.assign(copy.include_patterns().begin(), copy.include_patterns().end());
    selector.exclude.assign(copy.exclude_patterns().begin(), copy.exclude_patterns().end());
    return selector;
  }

  static void add_names(const pb::UserOpt& user, const char* file, std::int64_t inputs,
                        std::vector<std::vector<solver::Selector>>& selectors) {
    const auto input = names_input(user);
    if (!input || !is_input(*input, inputs)) return;
    solver::Selector selector;
    selector.path = file;
    selectors[static_cast<std::size_t>(*input)].push_back(selector);
  }

  const Services& services_;
  const llb::Vertex vertex_;
};

}  // namespace

std::unique_ptr<solver::Operation> make_file_operation(const Services& services, const llb::Vertex& vertex) {
  return std::make_unique<FileOperation>(services, vertex);
}

}  // namespace gantry::buildops
