#include "buildcache/prune.hpp"

#include <algorithm>
#include <cctype>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/regex.hpp"
#include "base/text.hpp"

namespace gantry::buildcache {
namespace {

constexpr std::size_t kMostExpressions = 64;
constexpr std::size_t kLongestExpression = 4096;

/// Reads one expression of containerd's filter language.
class FilterReader {
 public:
  explicit FilterReader(std::string_view text) : text_(text) {}

  bool at_end() const { return at_ >= text_.size(); }
  bool accept(std::string_view what) {
    if (text_.substr(at_, what.size()) != what) return false;
    at_ += what.size();
    return true;
  }
  std::string field() {
    const std::size_t begin = at_;
    const auto belongs = [](char c) {
      return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.';
    };
    while (!at_end() && belongs(text_[at_])) ++at_;
    if (at_ == begin) fail("expected a field");
    return std::string(text_.substr(begin, at_ - begin));
  }
  std::string value() {
    if (at_end()) fail("expected a value");
    const char quote = text_[at_];
    if (quote == '"' || quote == '|' || quote == '/') return quoted(quote);
    const std::size_t begin = at_;
    while (!at_end() && text_[at_] != ',') ++at_;
    if (at_ == begin) fail("expected a value");
    return std::string(text_.substr(begin, at_ - begin));
  }
  [[noreturn]] void fail(std::string_view what) const {
    throw Error(Errc::invalid_argument, fmt::format("filters: parse error: [{}]: {} at {}", text_, what, at_));
  }

 private:
  std::string quoted(char quote) {
    std::string out;
    for (++at_; !at_end() && text_[at_] != quote; ++at_) {
      if (text_[at_] == '\\' && at_ + 1 < text_.size() && (text_[at_ + 1] == quote || text_[at_ + 1] == '\\')) ++at_;
      out.push_back(text_[at_]);
    }
    if (at_end()) fail("quoted literal not terminated");
    ++at_;
    return out;
  }
  const std::string_view text_;
  std::size_t at_ = 0;
};

/// What the field holds; nullptr for "not present".
std::optional<std::string> field_of(const UsageRecord& record, const std::string& field) {
  const auto text = [](std::string value) { return value.empty() ? std::nullopt : std::optional(std::move(value)); };
  const auto flag = [](bool value) { return value ? std::optional<std::string>("") : std::nullopt; };
  if (field == "id") return text(record.id);
  if (field == "parents") return text(join(record.parents, ";"));
  if (field == "description") return text(record.description);
  if (field == "type") return std::string(record_type_name(record.type));
  if (field == "inuse") return flag(record.in_use);
  if (field == "mutable") return flag(record.is_mutable);
  if (field == "immutable") return flag(!record.is_mutable);
  if (field == "shared") return flag(record.shared);
  if (field == "private") return flag(!record.shared);
  return std::nullopt;
}

}  // namespace

UsageFilter::UsageFilter(const std::vector<std::string>& expressions) {
  if (expressions.size() > kMostExpressions) throw Error(Errc::invalid_argument, "filters: too many");
  for (const std::string& expression : expressions) {
    if (expression.size() > kLongestExpression) throw Error(Errc::invalid_argument, "filters: too long");
    alternatives_.push_back(parse(expression));
  }
}

std::vector<UsageFilter::Condition> UsageFilter::parse(std::string_view expression) {
  std::vector<Condition> out;
  FilterReader reader(expression);
  if (reader.at_end()) return out;
  do {
    Condition condition;
    condition.field = reader.field();
    if (reader.accept("==")) condition.test = Condition::Test::equal;
    else if (reader.accept("!=")) condition.test = Condition::Test::differs;
    else if (reader.accept("~=")) condition.test = Condition::Test::regex;
    if (condition.test != Condition::Test::present) condition.value = reader.value();
    if (condition.test == Condition::Test::regex && !Regex::compile(condition.value))
      reader.fail("not a regular expression");
    out.push_back(std::move(condition));
  } while (reader.accept(","));
  if (!reader.at_end()) reader.fail("unexpected character");
  return out;
}

bool UsageFilter::holds(const Condition& condition, const UsageRecord& record) {
  const auto value = field_of(record, condition.field);
  switch (condition.test) {
    case Condition::Test::present: return value.has_value();
    case Condition::Test::equal: return value && *value == condition.value;
    case Condition::Test::differs: return value.value_or("") != condition.value;
    case Condition::Test::regex: return value && Regex::compile(condition.value)->found_in(*value);
  }
  return false;
}

bool UsageFilter::matches(const UsageRecord& record) const {
  const auto all_hold = [&](const std::vector<Condition>& conditions) {
    return std::all_of(conditions.begin(), conditions.end(), [&](const Condition& condition) {
      if (condition.test != Condition::Test::equal) return holds(condition, record);
      // No field has two values at once: Docker's own policy "type==a,type==b" means either.
      return std::any_of(conditions.begin(), conditions.end(), [&](const Condition& other) {
        return other.test == Condition::Test::equal && other.field == condition.field && holds(other, record);
      });
    });
  };
  return alternatives_.empty() || std::any_of(alternatives_.begin(), alternatives_.end(), all_hold);
}

std::vector<PruneOptions> gc_policies(const GcSettings& settings, std::int64_t disk_size) {
  if (!settings.enabled) return {};
  if (!settings.policies.empty()) return settings.policies;
  PruneOptions capped;
  capped.reserved_space = settings.reserved_space;
  capped.max_used_space = settings.max_used_space;
  capped.min_free_space = settings.min_free_space;
  if (capped.reserved_space == 0 && capped.max_used_space == 0 && capped.min_free_space == 0) {
    capped.reserved_space = disk_size / 10;
    capped.max_used_space = disk_size / 10 * 8;
    capped.min_free_space = disk_size / 10 * 2;
  }
  using std::chrono::hours;
  PruneOptions easily_made;
  easily_made.filters = {"type==source.local,type==exec.cachemount,type==source.git.checkout"};
  easily_made.keep_duration = hours(48);
  easily_made.max_used_space = std::max<std::int64_t>(512'000'000, disk_size / 100);
  PruneOptions old = capped;
  old.keep_duration = hours(60 * 24);
  PruneOptions everything = capped;
  everything.all = true;
  return {easily_made, old, capped, everything};
}

}  // namespace gantry::buildcache
