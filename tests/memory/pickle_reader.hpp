// A small safe reader of Python pickles, for tests: builtin types only, executes nothing, refuses everything else.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dryfit::test {

struct Value;
using Ref = std::shared_ptr<Value>;

struct Value {
  enum class Type { none, boolean, integer, real, text, list, dict } type = Type::none;
  std::int64_t integer = 0;
  double real = 0;
  std::string text;
  std::vector<Ref> list;
  std::map<std::string, Ref> dict;
  const Value* get(const std::string& key) const {
    const auto it = dict.find(key);
    return it == dict.end() ? nullptr : it->second.get();
  }
  std::int64_t number(const std::string& key) const { return get(key) != nullptr ? get(key)->integer : 0; }
  std::string string(const std::string& key) const { return get(key) != nullptr ? get(key)->text : std::string(); }
};

class PickleReader {
 public:
  explicit PickleReader(std::string_view bytes) : in_(bytes) {}

  // nullptr on anything malformed or not made of builtin types.
  Ref read() {
    while (at_ < in_.size()) {
      const auto op = static_cast<unsigned char>(in_[at_++]);
      if (op == '.') return stack_.empty() ? nullptr : stack_.back();
      if (!step(op)) return nullptr;
    }
    return nullptr;
  }

 private:
  template <class T>
  std::optional<T> fixed() {
    if (in_.size() - at_ < sizeof(T)) return std::nullopt;
    T v{};
    std::memcpy(&v, in_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return v;
  }
  Ref make(Value::Type type) {
    auto v = std::make_shared<Value>();
    v->type = type;
    stack_.push_back(v);
    return v;
  }
  bool integer(std::optional<std::int64_t> n, Value::Type type = Value::Type::integer) {
    if (!n) return false;
    make(type)->integer = *n;
    return true;
  }
  bool text(std::optional<std::uint64_t> length) {
    if (!length || *length > in_.size() - at_) return false;
    make(Value::Type::text)->text = std::string(in_.substr(at_, *length));
    at_ += *length;
    return true;
  }
  bool long_integer() {
    const auto length = fixed<std::uint8_t>();
    if (!length || *length > 8 || in_.size() - at_ < *length) return length && *length == 9 && in_.size() - at_ >= 9 ? wide() : false;
    std::uint64_t v = 0;
    for (int i = 0; i < *length; ++i) v |= static_cast<std::uint64_t>(static_cast<unsigned char>(in_[at_ + static_cast<std::size_t>(i)])) << (8 * i);
    if (*length > 0 && *length < 8 && (in_[at_ + *length - 1] & 0x80) != 0) v |= ~std::uint64_t{0} << (8 * *length);
    at_ += *length;
    return integer(static_cast<std::int64_t>(v));
  }
  bool wide() {  // unsigned 64-bit values take nine bytes
    const auto low = fixed<std::uint64_t>();
    ++at_;
    return integer(static_cast<std::int64_t>(*low));
  }
  std::optional<std::size_t> mark() {
    if (marks_.empty() || marks_.back() > stack_.size()) return std::nullopt;
    const std::size_t m = marks_.back();
    marks_.pop_back();
    return m;
  }
  static std::string key_of(const Value& v) { return v.type == Value::Type::text ? v.text : std::to_string(v.integer); }
  bool set_items(std::size_t from) {
    if (from == 0 || (stack_.size() - from) % 2 != 0 || stack_[from - 1]->type != Value::Type::dict) return false;
    for (std::size_t i = from; i + 1 < stack_.size(); i += 2) stack_[from - 1]->dict[key_of(*stack_[i])] = stack_[i + 1];
    stack_.resize(from);
    return true;
  }
  bool append(std::size_t from) {
    if (from == 0) return false;
    for (std::size_t i = from; i < stack_.size(); ++i) stack_[from - 1]->list.push_back(stack_[i]);
    stack_.resize(from);
    return true;
  }
  bool tuple(std::size_t count) {
    if (stack_.size() < count) return false;
    auto v = std::make_shared<Value>();
    v->type = Value::Type::list;
    v->list.assign(stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
    stack_.push_back(v);
    return true;
  }
  bool put(std::optional<std::uint32_t> i) {
    if (!i || stack_.empty()) return false;
    memo_[*i] = stack_.back();
    return true;
  }
  bool get(std::optional<std::uint32_t> i) {
    if (!i || !memo_.contains(*i)) return false;
    stack_.push_back(memo_[*i]);
    return true;
  }
  template <class T>
  std::optional<std::uint32_t> index() {
    const auto v = fixed<T>();
    return v ? std::optional<std::uint32_t>(static_cast<std::uint32_t>(*v)) : std::nullopt;
  }
  template <class T>
  std::optional<std::int64_t> number() {
    const auto v = fixed<T>();
    return v ? std::optional<std::int64_t>(static_cast<std::int64_t>(*v)) : std::nullopt;
  }

  bool step(unsigned char op) {
    switch (op) {
      case 0x80: return fixed<std::uint8_t>().has_value();                 // PROTO
      case 0x95: return fixed<std::uint64_t>().has_value();                // FRAME
      case '(': marks_.push_back(stack_.size()); return true;
      case '}': make(Value::Type::dict); return true;
      case ']': case ')': make(Value::Type::list); return true;
      case 'N': make(Value::Type::none); return true;
      case 0x88: return integer(1, Value::Type::boolean);
      case 0x89: return integer(0, Value::Type::boolean);
      case 'K': return integer(number<std::uint8_t>());
      case 'M': return integer(number<std::uint16_t>());
      case 'J': return integer(number<std::int32_t>());
      case 0x8a: return long_integer();
      case 'G': {
        const auto bits = fixed<std::uint64_t>();
        if (!bits) return false;
        const std::uint64_t swapped = __builtin_bswap64(*bits);
        std::memcpy(&make(Value::Type::real)->real, &swapped, 8);
        return true;
      }
      case 'X': return text(index<std::uint32_t>());
      case 0x8c: return text(index<std::uint8_t>());
      case 0x8d: return text(fixed<std::uint64_t>());
      case 'q': return put(index<std::uint8_t>());
      case 'r': return put(index<std::uint32_t>());
      case 0x94: memo_[static_cast<std::uint32_t>(memo_.size())] = stack_.empty() ? nullptr : stack_.back(); return !stack_.empty();
      case 'h': return get(index<std::uint8_t>());
      case 'j': return get(index<std::uint32_t>());
      case 'u': { const auto m = mark(); return m && set_items(*m); }
      case 's': return stack_.size() >= 3 && set_items(stack_.size() - 2);
      case 'e': { const auto m = mark(); return m && append(*m); }
      case 'a': return stack_.size() >= 2 && append(stack_.size() - 1);
      case 't': { const auto m = mark(); return m && tuple(stack_.size() - *m); }
      case 0x85: return tuple(1);
      case 0x86: return tuple(2);
      case 0x87: return tuple(3);
      default: return false;
    }
  }

  std::string_view in_;
  std::size_t at_ = 0;
  std::vector<Ref> stack_;
  std::vector<std::size_t> marks_;
  std::map<std::uint32_t, Ref> memo_;
};

}  // namespace dryfit::test
