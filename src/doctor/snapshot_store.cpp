// See snapshot_store.hpp. Here the stack, lists, and the snapshot at the end; dictionaries become records in snapshot_records.cpp.
#include "doctor/snapshot_store.hpp"

#include <algorithm>

#include "doctor/log_text.hpp"
#include "doctor/snapshot_words.hpp"

namespace dryfit {

using namespace snapshot_words;

std::string_view name_of(Action action) { return kActions[static_cast<std::size_t>(action)]; }

SnapshotStore::SnapshotStore() {
  for (const std::string_view w : kWords) out_.texts.intern(w);
  for (const std::string_view w : kActions) out_.texts.intern(w);
  out_.streams.push_back(0);  // the default stream, and that of entries which name none
}

bool SnapshotStore::wrong(std::string message) {
  if (problem_.empty()) problem_ = std::move(message);
  return false;
}

void SnapshotStore::push_integer(std::int64_t n) {
  constexpr std::int64_t kInline = std::int64_t{1} << 58;
  if (n >= -kInline && n < kInline) {
    stack_.push_back(pack(Kind::integer, static_cast<std::uint64_t>(n + kInline)));
    return;
  }
  wides_.push_back(n);
  stack_.push_back(pack(Kind::wide, wides_.size() - 1));
}

void SnapshotStore::push_real(double x) {
  reals_.push_back(x);
  stack_.push_back(pack(Kind::real, reals_.size() - 1));
}

void SnapshotStore::push_container(Kind kind) {
  containers_.push_back(pack(kind, kFresh));
  stack_.push_back(pack(Kind::container, containers_.size() - 1));
}

std::optional<std::string_view> SnapshotStore::text_below_top(std::size_t below) const {
  if (stack_.size() <= below) return std::nullopt;
  const Value v = stack_[stack_.size() - 1 - below];
  return kind(v) == Kind::text ? std::optional(out_.text(static_cast<std::uint32_t>(payload(v)))) : std::nullopt;
}

std::size_t SnapshotStore::memory() const {
  return out_.texts.memory() + out_.frames.memory() + out_.stacks.memory() + out_.entries.memory() + out_.blocks.capacity() * sizeof(SnapshotBlock) + segments_.capacity() * sizeof(SnapshotSegment) +
         containers_.memory() + (stack_.capacity() + marks_.capacity() + wides_.size() + reals_.size() + generic_items_ * 2) * 8 + sequences_ * 64 + runs_.size() * sizeof(Run);
}

bool SnapshotStore::pop() {
  if (stack_.empty() || (!marks_.empty() && marks_.back() == stack_.size())) return wrong("an empty stack");
  stack_.pop_back();
  return true;
}

std::optional<std::size_t> SnapshotStore::take_mark() {
  if (marks_.empty() || marks_.back() > stack_.size()) {
    wrong("no mark on the stack");
    return std::nullopt;
  }
  const std::size_t at = marks_.back();
  marks_.pop_back();
  return at;
}

bool SnapshotStore::pop_mark() {
  const auto at = take_mark();
  if (at) stack_.resize(*at);
  return at.has_value();
}

bool SnapshotStore::duplicate() {
  if (stack_.empty()) return wrong("an empty stack");
  stack_.push_back(stack_.back());
  return true;
}

bool SnapshotStore::append_one() {
  if (stack_.size() < 2) return wrong("an empty stack");
  const Value list = stack_[stack_.size() - 2];
  if (kind(list) != Kind::container) return wrong("items for what is no list");
  const Value extended = extend(containers_[payload(list)], std::span(stack_).last(1));
  if (!problem_.empty()) return false;
  containers_[payload(list)] = extended;
  stack_.pop_back();
  return true;
}

bool SnapshotStore::append_marked() {
  const auto at = take_mark();
  if (!at) return false;
  if (*at == 0 || kind(stack_[*at - 1]) != Kind::container) return wrong("items for what is no list");
  const std::size_t number = payload(stack_[*at - 1]);
  const Value extended = extend(containers_[number], std::span(stack_).subspan(*at));
  if (!problem_.empty()) return false;
  containers_[number] = extended;
  stack_.resize(*at);
  return true;
}

bool SnapshotStore::set_one() {
  if (stack_.size() < 3) return wrong("an empty stack");
  const Value dict = stack_[stack_.size() - 3];
  if (kind(dict) != Kind::container || !set(containers_[payload(dict)], std::span(stack_).last(2))) return wrong("a key for what is no dictionary");
  stack_.resize(stack_.size() - 2);
  return true;
}

bool SnapshotStore::set_marked() {
  const auto at = take_mark();
  if (!at) return false;
  if (*at == 0 || (stack_.size() - *at) % 2 != 0 || kind(stack_[*at - 1]) != Kind::container) return wrong("keys for what is no dictionary");
  if (!set(containers_[payload(stack_[*at - 1])], std::span(stack_).subspan(*at))) return wrong("keys for what is no dictionary");
  stack_.resize(*at);
  return true;
}

bool SnapshotStore::list_marked() {
  const auto at = take_mark();
  if (!at) return false;
  const Value list = extend(pack(Kind::list, kFresh), std::span(stack_).subspan(*at));
  stack_.resize(*at);
  stack_.push_back(list);
  return problem_.empty();
}

bool SnapshotStore::dict_marked() {
  const auto at = take_mark();
  if (!at) return false;
  if ((stack_.size() - *at) % 2 != 0) return wrong("a key without a value");
  Value dict = pack(Kind::dict, kFresh);
  if (!set(dict, std::span(stack_).subspan(*at))) return false;
  stack_.resize(*at);
  stack_.push_back(dict);
  return true;
}

bool SnapshotStore::tuple(std::size_t count) {
  if (stack_.size() < count) return wrong("an empty stack");
  const Value list = extend(pack(Kind::list, kFresh), std::span(stack_).last(count));
  stack_.resize(stack_.size() - count);
  stack_.push_back(list);
  return problem_.empty();
}

// A list with more items: frames make a stack, records in their order of making a run, everything else stays as it is.
SnapshotStore::Value SnapshotStore::extend(Value list, std::span<const Value> items) {
  const auto holds = [](Kind k) { return k == Kind::list || k == Kind::stack || k == Kind::run; };
  if (!holds(kind(list))) {
    wrong("items for what is no list");
    return list;
  }
  if (items.empty()) return list;
  const bool fresh = kind(list) == Kind::list && payload(list) == kFresh;
  const Kind first = kind(resolve(items[0]));
  if (first == Kind::frame && (fresh || kind(list) == Kind::stack)) {
    scratch_.clear();
    if (!fresh) {
      const auto old = out_.stack(static_cast<std::uint32_t>(payload(list)));
      scratch_.assign(old.begin(), old.end());
    }
    bool all = true;
    for (const Value item : items) {
      const Value v = resolve(item);
      all = all && kind(v) == Kind::frame;
      scratch_.push_back(static_cast<std::uint32_t>(payload(v)));
    }
    if (all) return pack(Kind::stack, out_.stacks.intern(scratch_));
  }
  const bool record = first == Kind::entry || first == Kind::block || first == Kind::segment;
  if (record && (fresh || (kind(list) == Kind::run && runs_[payload(list)].kind == first))) {
    const Run before = fresh ? Run{first, static_cast<std::size_t>(payload(resolve(items[0]))), 0} : runs_[payload(list)];
    std::size_t next = before.first + before.count;
    const bool follow = std::ranges::all_of(items, [&](Value item) { return resolve(item).bits == pack(first, next++).bits; });
    if (follow) {
      if (fresh) runs_.push_back({first, before.first, items.size()});
      else runs_[payload(list)].count += items.size();
      return fresh ? pack(Kind::run, runs_.size() - 1) : list;
    }
  }
  const Value out = generic_list(list);
  Items& generic = lists_[payload(out)];
  generic.insert(generic.end(), items.begin(), items.end());
  generic_items_ += items.size();
  return out;
}

SnapshotStore::Value SnapshotStore::generic_list(Value v) {
  if (kind(v) == Kind::list && payload(v) != kFresh) return v;
  Items items;
  if (kind(v) == Kind::stack) {
    for (const std::uint32_t frame : out_.stack(static_cast<std::uint32_t>(payload(v)))) items.push_back(pack(Kind::frame, frame));
  } else if (kind(v) == Kind::run) {
    const Run run = runs_[payload(v)];
    for (std::size_t i = 0; i < run.count; ++i) items.push_back(pack(run.kind, run.first + i));
  }
  generic_items_ += items.size();
  ++sequences_;
  lists_.push_back(std::move(items));
  return pack(Kind::list, lists_.size() - 1);
}

std::optional<SnapshotStore::Value> SnapshotStore::field(Value dict, std::string_view key) {
  if (kind(dict) != Kind::dict || payload(dict) == kFresh) return std::nullopt;
  const std::uint32_t name = out_.texts.intern(key);
  const Items& items = dicts_[payload(dict)];
  for (std::size_t i = items.size(); i >= 2; i -= 2) {  // the last one holds
    if (items[i - 2].bits == pack(Kind::text, name).bits) return resolve(items[i - 1]);
  }
  return std::nullopt;
}

// Records that came key by key lie in dictionaries: they become records now. Blocks follow each other in out_.blocks.
bool SnapshotStore::take_segments(Value list) {
  std::vector<SnapshotBlock> blocks;
  const bool ok = each(list, [&](Value item) {
    if (kind(item) == Kind::dict && payload(item) != kFresh) {
      const Items pairs = dicts_[payload(item)];
      segments_.emplace_back();
      if (!set_segment(segments_.back(), pairs)) return false;
      item = pack(Kind::segment, segments_.size() - 1);
    }
    if (kind(item) != Kind::segment) return wrong("a segment is not a dictionary");
    if (out_.segments.size() >= (1 << 22)) return wrong("more than four million segments");
    SnapshotSegment segment = segments_[payload(item)];
    const Value held{segment.blocks};
    segment.first_block = blocks.size();
    std::int64_t at = segment.address, end = 0;
    const bool taken = segment.blocks == 0 || each(held, [&](Value v) {
      if (kind(v) == Kind::dict && payload(v) != kFresh) {
        const Items pairs = dicts_[payload(v)];
        out_.blocks.emplace_back();
        if (!set_block(out_.blocks.back(), pairs)) return false;
        v = pack(Kind::block, out_.blocks.size() - 1);
      }
      if (kind(v) != Kind::block) return wrong("a block is not a dictionary");
      SnapshotBlock block = out_.blocks[payload(v)];
      if (block.address == 0) block.address = at;  // before 2.0 blocks have no address
      if (block.requested == Bytes(0) || block.requested > block.size) block.requested = block.size;
      if (block.address < at || block.size <= Bytes(0)) return wrong("the blocks of a segment overlap");
      at = end = block.address + block.size.count;
      if (end > segment.address + segment.size.count) return wrong("a block lies outside its segment");
      if (blocks.size() >= out_.blocks.size()) return wrong("blocks belong to more than one segment");
      blocks.push_back(block);
      return true;
    });
    if (!taken) return false;
    segment.blocks = blocks.size() - segment.first_block;
    if (segment.device < 0 || segment.device > 1023) return wrong("a segment is on device " + std::to_string(segment.device));
    out_.segments.push_back(segment);
    return true;
  });
  out_.blocks = std::move(blocks);
  std::ranges::stable_sort(out_.segments, {}, [](const SnapshotSegment& s) { return std::pair(s.device, s.address); });
  for (std::size_t i = 0; ok && i + 1 < out_.segments.size(); ++i) {
    const SnapshotSegment &a = out_.segments[i], &b = out_.segments[i + 1];
    if (a.device == b.device && a.address + a.size.count > b.address) return wrong("two segments overlap");
  }
  return ok;
}

bool SnapshotStore::take_traces(Value list) {
  std::int64_t device = 0;
  std::size_t taken = 0;
  const std::size_t most = out_.entries.size() + dicts_.size();
  return each(list, [&](Value trace) {
    if (device > 1023) return wrong("traces of more than 1024 devices");
    if (kind(trace) == Kind::run && runs_[payload(trace)].kind == Kind::entry) {
      out_.traces.push_back({device, runs_[payload(trace)].first, runs_[payload(trace)].count});
      taken += runs_[payload(trace)].count;
    } else {  // entries in another order than they were made in: rare, copied
      const std::size_t first = out_.entries.size();
      const bool ok = each(trace, [&](Value item) {
        if (++taken > most) return wrong("entries belong to more than one trace");
        if (kind(item) == Kind::dict && payload(item) != kFresh) {
          const Items pairs = dicts_[payload(item)];
          TraceEntry entry;
          if (!set_entry(entry, pairs)) return false;
          out_.entries.push_back(entry);
          return true;
        }
        if (kind(item) != Kind::entry) return wrong("an entry of a trace is not a dictionary");
        const TraceEntry entry = out_.entries[payload(item)];
        out_.entries.push_back(entry);
        return true;
      });
      if (!ok) return false;
      if (out_.entries.size() > first) out_.traces.push_back({device, first, out_.entries.size() - first});
    }
    ++device;
    return taken <= most || wrong("entries belong to more than one trace");
  });
}

void SnapshotStore::take_settings(Value dict) {
  if (kind(dict) != Kind::dict) return;
  AllocatorConfig config;
  const auto whole = [&](std::string_view key) {
    const auto v = field(dict, key);
    return v ? integer(*v) : std::nullopt;
  };
  config.expandable_segments = whole("expandable_segments").value_or(0) != 0;
  if (const auto most = whole("max_split_size"); most && *most > 0 && *most < kMostSize) config.max_split_size = Bytes(*most);
  if (const auto divisions = field(dict, "roundup_power2_divisions"); divisions && kind(*divisions) == Kind::dict) {
    std::vector<std::int64_t> read;
    for (int i = 0; i < 16; ++i) {
      const auto v = field(*divisions, std::to_string(1 << i));
      const auto n = v ? integer(*v) : std::nullopt;
      read.push_back(n && *n >= 0 && *n <= 64 && (*n & (*n - 1)) == 0 ? *n : 0);
    }
    if (std::ranges::any_of(read, [](std::int64_t n) { return n > 1; })) config.roundup_power2_divisions = read;
  }
  if (const auto conf = field(dict, "PYTORCH_CUDA_ALLOC_CONF"); conf && kind(*conf) == Kind::text) {
    out_.conf = printable(out_.text(static_cast<std::uint32_t>(payload(*conf))), 400);
    // what the dictionary does not hold
    if (const auto parsed = parse_alloc_conf(out_.conf)) {
      config.large_segment_size = parsed->large_segment_size;
      config.max_non_split_rounding = parsed->max_non_split_rounding;
    }
  }
  out_.settings = std::move(config);
}

void SnapshotStore::take_annotations(Value list) {
  if (kind(list) != Kind::list) return;
  each(list, [&](Value item) {
    const auto stage = field(item, "stage"), name = field(item, "name"), device = field(item, "device"), time = field(item, "time_us");
    if (!stage || !name || !time || kind(*stage) != Kind::text || kind(*name) != Kind::text) return true;
    Annotation a;
    a.name = static_cast<std::uint32_t>(payload(*name));
    a.start = out_.text(static_cast<std::uint32_t>(payload(*stage))) == "START";
    a.time_us = integer(*time).value_or(0);
    a.device = device ? integer(*device).value_or(0) : 0;
    out_.annotations.push_back(a);
    return true;
  });
}

Result<Snapshot> SnapshotStore::finish() {
  constexpr const char* kHint = "give the file that torch.cuda.memory._dump_snapshot(\"snapshot.pickle\") writes";
  if (stack_.empty()) return fail("not_a_snapshot", "this file holds no value", kHint);
  const Value root = resolve(stack_.back());
  const bool old = kind(root) == Kind::run && runs_[payload(root)].kind == Kind::segment;  // torch.cuda.memory_snapshot() itself
  const auto segments = old ? std::optional(root) : field(root, "segments");
  if (!segments) return fail("not_a_snapshot", "this is no memory snapshot: it has no 'segments'", kHint);
  if (!take_segments(*segments)) return fail("bad_snapshot", problem_, kHint, "segments");
  if (!old) {
    if (const auto traces = field(root, "device_traces"); traces && kind(*traces) != Kind::none && !take_traces(*traces)) return fail("bad_snapshot", problem_, kHint, "device_traces");
    if (const auto settings = field(root, "allocator_settings")) take_settings(*settings);
    if (const auto annotations = field(root, "external_annotations")) take_annotations(*annotations);
  }
  return std::move(out_);
}

}  // namespace dryfit
