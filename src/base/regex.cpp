#include "base/regex.hpp"

#include <algorithm>
#include <cctype>
#include <string>

namespace gantry {
namespace {

constexpr std::size_t kMaxPattern = 1024;
constexpr std::size_t kMaxProgram = 20000;
constexpr int kMaxDepth = 50;
constexpr int kMaxRepeat = 1000;

using Set = std::bitset<256>;

bool is_word_byte(unsigned char c) { return std::isalnum(c) != 0 || c == '_'; }

Set make_set(bool (*has)(unsigned char)) {
  Set out;
  for (int c = 0; c < 256; ++c) out[c] = has(static_cast<unsigned char>(c));
  return out;
}

/// The class that \d, \w … stands for; nullopt if the letter is none.
std::optional<Set> class_of_escape(char letter) {
  switch (letter) {
    case 'd': return make_set([](unsigned char c) { return c >= '0' && c <= '9'; });
    case 'D': return ~*class_of_escape('d');
    case 'w': return make_set(is_word_byte);
    case 'W': return ~*class_of_escape('w');
    case 's': return make_set([](unsigned char c) { return c == ' ' || (c >= '\t' && c <= '\r' && c != '\v'); });
    case 'S': return ~*class_of_escape('s');
    default: return std::nullopt;
  }
}

/// The byte that an escaped letter or sign stands for; nullopt if we do not know it.
std::optional<unsigned char> byte_of_escape(char letter) {
  switch (letter) {
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'f': return '\f';
    case 'v': return '\v';
    default: break;
  }
  if (std::isalnum(static_cast<unsigned char>(letter)) != 0) return std::nullopt;
  return static_cast<unsigned char>(letter);
}

}  // namespace

/// Recursive descent over the pattern, writing instructions as it goes. A failed parse leaves ok_ false.
class RegexCompiler {
 public:
  explicit RegexCompiler(std::string_view pattern) : text_(pattern) {}

  std::optional<Regex> run() {
    if (text_.size() > kMaxPattern) return std::nullopt;
    if (text_.starts_with("(?i)")) {
      fold_case_ = true;
      at_ = 4;
    }
    alternatives(0);
    if (!ok_ || at_ != text_.size()) return std::nullopt;
    emit({Regex::Op::match});
    if (!ok_) return std::nullopt;
    return std::move(out_);
  }

 private:
  using Op = Regex::Op;
  using Code = std::vector<Regex::Instruction>;

  bool at_end() const { return at_ >= text_.size(); }
  char peek() const { return text_[at_]; }
  void emit(Regex::Instruction instruction) {
    if (out_.program_.size() >= kMaxProgram) ok_ = false;
    else out_.program_.push_back(instruction);
  }
  std::size_t here() const { return out_.program_.size(); }

  /// Takes the code from `start` on out of the program. Its jumps stay relative to `start`.
  Code take(std::size_t start) {
    Code code(out_.program_.begin() + static_cast<std::ptrdiff_t>(start), out_.program_.end());
    out_.program_.resize(start);
    for (auto& i : code) shift(i, -static_cast<std::ptrdiff_t>(start));
    return code;
  }
  void put(const Code& code) {
    const auto base = static_cast<std::ptrdiff_t>(here());
    for (auto i : code) {
      shift(i, base);
      emit(i);
      if (!ok_) return;
    }
  }
  static void shift(Regex::Instruction& i, std::ptrdiff_t by) {
    if (i.op != Op::split && i.op != Op::jump) return;
    i.a = static_cast<std::size_t>(static_cast<std::ptrdiff_t>(i.a) + by);
    i.b = static_cast<std::size_t>(static_cast<std::ptrdiff_t>(i.b) + by);
  }

  void alternatives(int depth) {
    if (depth > kMaxDepth) ok_ = false;
    if (!ok_) return;
    const std::size_t start = here();
    sequence(depth);
    while (ok_ && !at_end() && peek() == '|') {
      ++at_;
      const Code left = take(start);
      emit({Op::split, start + 1, start + 2 + left.size()});
      put(left);
      const std::size_t jump = here();
      emit({Op::jump});
      sequence(depth);
      if (ok_) out_.program_[jump].a = here();
    }
  }

  void sequence(int depth) {
    while (ok_ && !at_end() && peek() != '|' && peek() != ')') {
      const std::size_t start = here();
      atom(depth);
      repetition(start);
    }
  }

  void repetition(std::size_t start) {
    bool repeated = false;
    while (ok_ && !at_end()) {
      int least = 0;
      int most = -1;
      if (peek() == '*') ++at_;
      else if (peek() == '+') least = 1, ++at_;
      else if (peek() == '?') most = 1, ++at_;
      else if (peek() != '{' || !bounds(least, most)) return;
      if (repeated) ok_ = false;  // "a**" is an error in Go
      repeated = true;
      if (!at_end() && peek() == '?') ++at_;  // lazy: the same set of texts
      if (ok_) repeat(start, least, most);
    }
  }

  /// Reads "{m}", "{m,}" or "{m,n}". Anything else is a literal brace.
  bool bounds(int& least, int& most) {
    std::size_t p = at_ + 1;
    auto number = [&](int& out) {
      const std::size_t from = p;
      out = 0;
      while (p < text_.size() && std::isdigit(static_cast<unsigned char>(text_[p])) != 0 && out <= kMaxRepeat)
        out = out * 10 + (text_[p++] - '0');
      return p > from;
    };
    if (!number(least)) return false;
    most = least;
    if (p < text_.size() && text_[p] == ',') {
      ++p;
      if (!number(most)) most = -1;
    }
    if (p >= text_.size() || text_[p] != '}') return false;
    if (least > kMaxRepeat || most > kMaxRepeat || (most >= 0 && most < least)) ok_ = false;
    at_ = p + 1;
    return true;
  }

  void repeat(std::size_t start, int least, int most) {
    const Code unit = take(start);
    for (int i = 0; i < least && ok_; ++i) put(unit);
    if (most < 0) {
      const std::size_t loop = here();
      emit({Op::split, loop + 1, loop + 2 + unit.size()});
      put(unit);
      emit({Op::jump, loop});
      return;
    }
    for (int i = least; i < most && ok_; ++i) {
      emit({Op::split, here() + 1, here() + 1 + unit.size()});
      put(unit);
    }
  }

  void atom(int depth) {
    const char c = text_[at_++];
    switch (c) {
      case '(': group(depth); return;
      case '[': set(); return;
      case '.': emit_set(~Set().set('\n')); return;
      case '^': emit({Op::begin}); return;
      case '$': emit({Op::end}); return;
      case '*':
      case '+':
      case '?': ok_ = false; return;
      case '\\': escape(); return;
      default: emit_byte(static_cast<unsigned char>(c));
    }
  }

  void group(int depth) {
    if (text_.substr(at_).starts_with("?:")) at_ += 2;
    else if (!at_end() && peek() == '?') ok_ = false;
    alternatives(depth + 1);
    if (!ok_ || at_end() || peek() != ')') ok_ = false;
    else ++at_;
  }

  void escape() {
    if (at_end()) {
      ok_ = false;
      return;
    }
    const char c = text_[at_++];
    if (const auto set = class_of_escape(c)) emit_set(*set);
    else if (c == 'b') emit({Op::word_edge});
    else if (c == 'B') emit({Op::no_word_edge});
    else if (c == 'A') emit({Op::begin});
    else if (c == 'z') emit({Op::end});
    else if (const auto byte = byte_of_escape(c)) emit_byte(*byte);
    else ok_ = false;
  }

  /// One byte of a "[…]", or a class inside it (then nullopt, and the class is added to `set`).
  std::optional<unsigned char> set_item(Set& set) {
    const char c = text_[at_++];
    if (c != '\\') return static_cast<unsigned char>(c);
    if (at_end()) {
      ok_ = false;
      return std::nullopt;
    }
    const char letter = text_[at_++];
    if (const auto escaped = class_of_escape(letter)) {
      set |= *escaped;
      return std::nullopt;
    }
    const auto byte = byte_of_escape(letter);
    if (!byte) ok_ = false;
    return byte;
  }

  void set() {
    Set out;
    const bool negated = !at_end() && peek() == '^';
    if (negated) ++at_;
    for (bool first = true; ok_ && !at_end() && (first || peek() != ']'); first = false) {
      const auto low = set_item(out);
      if (!low) continue;
      auto high = low;
      if (at_ + 1 < text_.size() && peek() == '-' && text_[at_ + 1] != ']') {
        ++at_;
        high = set_item(out);
        if (!high || *high < *low) ok_ = false;
      }
      for (unsigned c = *low; ok_ && c <= *high; ++c) out.set(c);
    }
    if (!ok_ || at_end()) {
      ok_ = false;
      return;
    }
    ++at_;
    if (fold_case_) fold(out);
    emit_set(negated ? ~out : out);
  }

  static void fold(Set& set) {
    for (int c = 'a'; c <= 'z'; ++c) {
      const bool any = set[c] || set[c - 'a' + 'A'];
      set[c] = any;
      set[c - 'a' + 'A'] = any;
    }
  }
  void emit_byte(unsigned char c) {
    Set one;
    one.set(c);
    if (fold_case_) fold(one);
    emit_set(one);
  }
  void emit_set(const Set& set) {
    auto& sets = out_.sets_;
    const auto known = std::find(sets.begin(), sets.end(), set);
    const auto number = static_cast<std::size_t>(known - sets.begin());
    if (known == sets.end()) sets.push_back(set);
    emit({Op::set, number});
  }

  std::string_view text_;
  std::size_t at_ = 0;
  bool ok_ = true;
  bool fold_case_ = false;
  Regex out_;
};

std::optional<Regex> Regex::compile(std::string_view pattern) { return RegexCompiler(pattern).run(); }

/// Adds the instruction and all that is reachable from it without reading a byte. Each at most once per position.
void Regex::add_thread(std::vector<std::size_t>& threads, std::vector<std::size_t>& marks, std::size_t step,
                       std::size_t start, std::string_view text, std::size_t at) const {
  auto word = [&](std::size_t i) { return i < text.size() && is_word_byte(static_cast<unsigned char>(text[i])); };
  std::vector<std::size_t> todo{start};
  while (!todo.empty()) {
    const std::size_t pc = todo.back();
    todo.pop_back();
    if (marks[pc] == step) continue;
    marks[pc] = step;
    const Instruction& i = program_[pc];
    const bool edge = (at > 0 && word(at - 1)) != word(at);
    switch (i.op) {
      case Op::jump: todo.push_back(i.a); break;
      case Op::split:
        todo.push_back(i.b);
        todo.push_back(i.a);
        break;
      case Op::begin:
        if (at == 0) todo.push_back(pc + 1);
        break;
      case Op::end:
        if (at == text.size()) todo.push_back(pc + 1);
        break;
      case Op::word_edge:
        if (edge) todo.push_back(pc + 1);
        break;
      case Op::no_word_edge:
        if (!edge) todo.push_back(pc + 1);
        break;
      case Op::set:
      case Op::match: threads.push_back(pc);
    }
  }
}

bool Regex::found_in(std::string_view text) const {
  std::vector<std::size_t> current;
  std::vector<std::size_t> next;
  std::vector<std::size_t> marks(program_.size(), 0);
  std::size_t step = 0;
  for (std::size_t at = 0;; ++at) {
    ++step;
    for (const std::size_t pc : current) marks[pc] = step;
    add_thread(current, marks, step, 0, text, at);
    next.clear();
    ++step;
    for (const std::size_t pc : current) {
      const Instruction& i = program_[pc];
      if (i.op == Op::match) return true;
      if (at < text.size() && sets_[i.a][static_cast<unsigned char>(text[at])])
        add_thread(next, marks, step, pc + 1, text, at + 1);
    }
    if (at >= text.size()) return false;
    current.swap(next);
  }
}

}  // namespace gantry
