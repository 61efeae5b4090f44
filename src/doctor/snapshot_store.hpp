// Values of a snapshot as they come from its file, pushed on a stack and put together there: dictionaries that look like trace entries,
// frames, blocks or segments become records at once, so that hundreds of megabytes stay small. Knows neither pickle nor JSON.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "doctor/snapshot.hpp"

namespace dryfit {

class SnapshotStore {
 public:
  // What lies on the stack: a kind and a number. container: one that may still be filled, by number.
  enum class Kind : std::uint8_t { none, boolean, integer, wide, real, text, container, list, dict, entry, frame, block, segment, stack, run, other };
  struct Value { std::uint64_t bits = 0; };

  SnapshotStore();

  void push_none() { stack_.push_back(pack(Kind::none, 0)); }
  void push_boolean(bool b) { stack_.push_back(pack(Kind::boolean, b ? 1 : 0)); }
  void push_integer(std::int64_t n);
  void push_real(double x);
  void push_text(std::string_view text) { stack_.push_back(pack(Kind::text, out_.texts.intern(text))); }
  void push_other() { stack_.push_back(pack(Kind::other, 0)); }  // of a builtin type no snapshot holds
  void push(Value v) { stack_.push_back(v); }
  void push_list() { push_container(Kind::list); }
  void push_dict() { push_container(Kind::dict); }
  void push_mark() { marks_.push_back(stack_.size()); }

  // Each returns false where the stack does not hold what it takes, or a field has a wrong type: problem() says what.
  bool pop();
  bool pop_mark();
  bool duplicate();
  bool append_one();            // list item -> list
  bool append_marked();         // list mark items.. -> list
  bool set_one();               // dict key value -> dict
  bool set_marked();            // dict mark key value .. -> dict
  bool list_marked();           // mark items.. -> list
  bool dict_marked();           // mark key value .. -> dict
  bool tuple(std::size_t count);

  std::optional<Value> top() const { return stack_.empty() ? std::nullopt : std::optional(stack_.back()); }
  std::optional<std::string_view> text_below_top(std::size_t below) const;
  std::size_t depth() const { return stack_.size(); }
  const std::string& problem() const { return problem_; }
  std::size_t memory() const;   // bytes held, about

  // The topmost value as a snapshot. Errors: "not_a_snapshot", "bad_snapshot". The store is spent.
  Result<Snapshot> finish();

 private:
  using Items = std::vector<Value>;
  struct Run { Kind kind; std::size_t first, count; };  // records that follow each other
  static constexpr std::uint64_t kFresh = (std::uint64_t{1} << 60) - 1;  // payload of an empty list or dict

  static Value pack(Kind kind, std::uint64_t payload) { return {payload << 4 | static_cast<std::uint64_t>(kind)}; }
  static Kind kind(Value v) { return static_cast<Kind>(v.bits & 15); }
  static std::uint64_t payload(Value v) { return v.bits >> 4; }
  Value resolve(Value v) const { return kind(v) == Kind::container ? containers_[payload(v)] : v; }
  void push_container(Kind kind);
  bool wrong(std::string message);

  std::optional<std::size_t> take_mark();
  std::optional<std::int64_t> integer(Value v) const;
  bool number(Value v, std::string_view field, std::int64_t& out);
  bool size(Value v, std::string_view field, Bytes& out);
  bool address(Value v, std::string_view field, std::int64_t& out);
  bool frames(Value v, std::uint32_t& out);
  bool stream(Value v, std::uint16_t& out);

  Value extend(Value list, std::span<const Value> items);
  Value generic_list(Value v);
  bool set(Value& dict, std::span<const Value> pairs);
  Kind record_kind(std::span<const Value> pairs) const;
  bool set_entry(TraceEntry& entry, std::span<const Value> pairs);
  bool set_frame(Value& dict, std::span<const Value> pairs);
  bool set_block(SnapshotBlock& block, std::span<const Value> pairs);
  bool set_segment(SnapshotSegment& segment, std::span<const Value> pairs);
  bool set_history(SnapshotBlock& block, Value history);

  template <class Each>
  bool each(Value list, Each&& call);  // items of a list of any form
  std::optional<Value> field(Value dict, std::string_view key);
  bool take_segments(Value list);
  bool take_traces(Value list);
  void take_settings(Value dict);
  void take_annotations(Value list);

  Snapshot out_;
  std::vector<Value> stack_;
  std::vector<std::size_t> marks_;
  Chunked<Value> containers_;
  std::deque<Items> lists_;              // generic
  std::deque<Items> dicts_;              // generic: key, value, ..
  std::deque<Run> runs_;
  std::deque<std::int64_t> wides_;
  std::deque<double> reals_;
  std::vector<SnapshotSegment> segments_;  // as they came; blocks: run number, put in order at the end
  std::size_t generic_items_ = 0, sequences_ = 0;
  Bytes total_;                          // of all sizes
  std::vector<std::uint32_t> scratch_;
  std::string problem_;
};

// An item's wrong() ends it.
template <class Each>
bool SnapshotStore::each(Value list, Each&& call) {
  switch (kind(list)) {
    case Kind::list:
      if (payload(list) == kFresh) return true;
      for (std::size_t i = 0; i < lists_[payload(list)].size(); ++i) {
        if (!call(resolve(lists_[payload(list)][i]))) return false;
      }
      return true;
    case Kind::run:
      for (std::size_t i = 0; i < runs_[payload(list)].count; ++i) {
        if (!call(pack(runs_[payload(list)].kind, runs_[payload(list)].first + i))) return false;
      }
      return true;
    case Kind::stack: return true;
    default: return wrong("a list is missing");
  }
}

}  // namespace dryfit
