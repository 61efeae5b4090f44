// Makes memory snapshots for tests and benchmarks: requests go through the simulated allocator, which gives addresses, segments and
// blocks; the result is written as Python's pickle (protocols 2 and 4) or as JSON, with PyTorch's keys, piece by piece.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "memory/allocator.hpp"

namespace dryfit::test {

struct MadeFrame { std::string file; std::int64_t line; std::string name; };
struct MadeEntry { std::string action; std::int64_t address, size, stream, time_us; int stack; };
struct MadeMark { std::string stage, name; std::int64_t time_us; };

struct MadeSnapshot {
  std::vector<MadeFrame> frames;
  std::vector<std::vector<int>> stacks{{}};  // innermost first; stack 0 is empty
  std::vector<MadeEntry> entries;            // of device 0
  std::vector<SegmentView> segments;
  std::map<std::int64_t, int> block_stacks;  // by address of allocated blocks
  std::vector<MadeMark> marks;
  bool expandable = false;
  std::string conf;
};

class SnapshotMaker {
 public:
  explicit SnapshotMaker(AllocatorConfig config = {}, std::optional<Bytes> capacity = std::nullopt) : capacity_(capacity), allocator_(config, capacity) { made.expandable = config.expandable_segments; }

  int stack(const std::vector<MadeFrame>& frames) {
    std::vector<int> numbers;
    for (const MadeFrame& f : frames) {
      auto it = std::ranges::find_if(made.frames, [&](const MadeFrame& g) { return g.file == f.file && g.line == f.line && g.name == f.name; });
      if (it == made.frames.end()) it = made.frames.insert(made.frames.end(), f);
      numbers.push_back(static_cast<int>(it - made.frames.begin()));
    }
    made.stacks.push_back(numbers);
    return static_cast<int>(made.stacks.size()) - 1;
  }

  // A handle for free; 0 where it failed.
  BlockId alloc(std::int64_t size, int stack, std::int64_t stream = 0) {
    const auto block = allocator_.malloc(Bytes(size), stream);
    segments(stack);
    if (!block) {
      record("oom", capacity_->count - allocator_.stats().reserved.count, allocator_.round_size(Bytes(size)).count, stream, stack);
      return 0;
    }
    record("alloc", allocator_.address_of(*block), size, stream, stack);
    live_[*block] = {size, stream, stack};
    return *block;
  }
  void free(BlockId block) {
    const auto it = live_.find(block);
    if (it == live_.end()) return;
    const std::int64_t address = allocator_.address_of(block);
    record("free_requested", address, it->second.size, it->second.stream, it->second.stack);
    record("free_completed", address, it->second.size, it->second.stream, it->second.stack);
    allocator_.free(block);
    live_.erase(it);
  }
  void empty_cache() {
    allocator_.empty_cache();
    segments(0);
  }
  void mark(std::string stage, std::string name) { made.marks.push_back({std::move(stage), std::move(name), time_++}); }
  // Nothing before this moment is in the trace, as after a late start or in a ring buffer.
  void forget() { made.entries.clear(); }
  const AllocatorStats& stats() const { return allocator_.stats(); }
  const MadeSnapshot& finish() {
    made.segments = allocator_.segments();
    for (const auto& [block, info] : live_) made.block_stacks[allocator_.address_of(block)] = info.stack;
    return made;
  }

  MadeSnapshot made;

 private:
  struct Live { std::int64_t size, stream; int stack; };
  void record(const char* action, std::int64_t address, std::int64_t size, std::int64_t stream, int stack) { made.entries.push_back({action, address, size, stream, time_ += 10, stack}); }
  void segments(int stack) {
    static constexpr const char* kNames[] = {"segment_alloc", "segment_free", "segment_map", "segment_unmap"};
    for (; seen_ < allocator_.segment_events().size(); ++seen_) {
      const SegmentEvent& e = allocator_.segment_events()[seen_];
      record(kNames[static_cast<int>(e.kind)], e.address, e.size.count, e.stream, stack);
    }
  }
  std::optional<Bytes> capacity_;
  CachingAllocator allocator_;
  std::map<BlockId, Live> live_;
  std::size_t seen_ = 0;
  std::int64_t time_ = 1700000000000000;
};

using Out = std::function<void(std::string_view)>;

// What a writer must offer: text, integer, boolean, real, none; list and dict with their ends; a shared value by name.
class PickleWriter {
 public:
  PickleWriter(Out out, int protocol) : out_(std::move(out)), protocol_(protocol) { put(std::string("\x80") + static_cast<char>(protocol)); }
  void text(std::string_view s) {
    if (const auto it = texts_.find(std::string(s)); it != texts_.end()) return get(it->second);
    if (protocol_ >= 4 && s.size() < 256) put(std::string("\x8c") + static_cast<char>(s.size()));
    else put("X" + fixed(static_cast<std::uint32_t>(s.size())));
    put(s);
    texts_[std::string(s)] = memoize();
  }
  void integer(std::int64_t n) {
    if (n >= 0 && n < 256) return put(std::string("K") + static_cast<char>(n));
    if (n >= 0 && n < 65536) return put("M" + fixed(static_cast<std::uint16_t>(n)));
    if (n >= INT32_MIN && n <= INT32_MAX) return put("J" + fixed(static_cast<std::int32_t>(n)));
    put(std::string("\x8a\x08") + fixed(n));
  }
  void boolean(bool b) { put(b ? "\x88" : "\x89"); }
  void real(double x) { put("G" + fixed(std::byteswap(std::bit_cast<std::uint64_t>(x)))); }
  void none() { put("N"); }
  void begin_list() {
    begin("]");
    counts_.push_back(0);
  }
  void end_list() {
    put("e");
    counts_.pop_back();
  }
  void begin_dict() { begin("}"); }
  void end_dict() { put("u"); }
  void key(std::string_view s) { text(s); }
  void item() {  // a thousand at a time, as CPython does
    if (++counts_.back() % 1000 == 0) put("e(");
  }
  // The same object again: true when it was written before.
  bool again(std::uint64_t name) {
    const auto it = shared_.find(name);
    if (it == shared_.end()) return false;
    get(it->second);
    return true;
  }
  void share(std::uint64_t name) { naming_ = name; }  // the container that begins next
  void finish() {
    put(".");
    flush();
  }

 private:
  template <class T>
  static std::string fixed(T v) { return {reinterpret_cast<const char*>(&v), sizeof v}; }
  void put(std::string_view s) {
    buffer_ += s;
    if (buffer_.size() > (1 << 16)) flush();
  }
  void flush() {
    out_(buffer_);
    buffer_.clear();
  }
  std::uint32_t memoize() {
    const std::uint32_t i = memo_++;
    if (protocol_ >= 4) put("\x94");
    else if (i < 256) put(std::string("q") + static_cast<char>(i));
    else put("r" + fixed(i));
    return i;
  }
  void get(std::uint32_t i) { i < 256 ? put(std::string("h") + static_cast<char>(i)) : put("j" + fixed(i)); }
  void begin(const char* opcode) {
    put(opcode);
    const std::uint32_t i = memoize();
    if (naming_) shared_[*naming_] = i;
    naming_.reset();
    put("(");
  }
  Out out_;
  int protocol_;
  std::string buffer_;
  std::uint32_t memo_ = 0;
  std::map<std::string, std::uint32_t> texts_;
  std::map<std::uint64_t, std::uint32_t> shared_;
  std::optional<std::uint64_t> naming_;
  std::vector<int> counts_;
};

class JsonWriter {
 public:
  explicit JsonWriter(Out out) : out_(std::move(out)) {}
  void text(std::string_view s) {
    std::string quoted = "\"";
    for (const char c : s) {
      if (c == '"' || c == '\\') quoted += '\\';
      quoted += c;
    }
    put(quoted + "\"");
  }
  void integer(std::int64_t n) { put(std::to_string(n)); }
  void boolean(bool b) { put(b ? "true" : "false"); }
  void real(double x) { put(std::to_string(x)); }
  void none() { put("null"); }
  void begin_list() { open("["); }
  void end_list() { close("]"); }
  void begin_dict() { open("{"); }
  void end_dict() { close("}"); }
  void key(std::string_view s) {
    item();
    text(s);
    put(": ");
  }
  void item() {
    if (!first_) put(", ");
    first_ = false;
  }
  bool again(std::uint64_t) { return false; }
  void share(std::uint64_t) {}
  void finish() { out_(buffer_); }

 private:
  void put(std::string_view s) {
    buffer_ += s;
    if (buffer_.size() > (1 << 16)) out_(std::exchange(buffer_, {}));
  }
  void open(const char* bracket) {
    put(bracket);
    first_ = true;
  }
  void close(const char* bracket) {
    put(bracket);
    first_ = false;
  }
  Out out_;
  std::string buffer_;
  bool first_ = true;
};

template <class Writer>
void write_frames(Writer& w, const MadeSnapshot& s, int stack) {
  if (stack < 0) stack = 0;
  w.begin_list();
  for (const int number : s.stacks[static_cast<std::size_t>(stack)]) {
    w.item();
    if (w.again(static_cast<std::uint64_t>(number))) continue;
    w.share(static_cast<std::uint64_t>(number));
    const MadeFrame& f = s.frames[static_cast<std::size_t>(number)];
    w.begin_dict();
    w.key("name"), w.text(f.name), w.key("filename"), w.text(f.file), w.key("line"), w.integer(f.line);
    w.end_dict();
  }
  w.end_list();
}

template <class Writer>
void write_segments(Writer& w, const MadeSnapshot& s) {
  w.begin_list();
  for (const SegmentView& segment : s.segments) {
    std::int64_t allocated = 0, requested = 0;
    for (const BlockView& b : segment.blocks) allocated += b.allocated ? b.size.count : 0, requested += b.allocated ? b.requested.count : 0;
    w.item(), w.begin_dict();
    w.key("device"), w.integer(0), w.key("address"), w.integer(segment.address), w.key("total_size"), w.integer(segment.size.count), w.key("allocated_size"), w.integer(allocated);
    w.key("active_size"), w.integer(allocated), w.key("requested_size"), w.integer(requested), w.key("stream"), w.integer(segment.stream), w.key("segment_type"), w.text(segment.small_pool ? "small" : "large");
    w.key("segment_pool_id"), w.begin_list(), w.item(), w.integer(0), w.item(), w.integer(0), w.end_list();
    w.key("is_expandable"), w.boolean(segment.expandable), w.key("frames"), write_frames(w, s, 0), w.key("blocks"), w.begin_list();
    for (const BlockView& b : segment.blocks) {
      const auto stack = s.block_stacks.find(b.address);
      w.item(), w.begin_dict();
      w.key("address"), w.integer(b.address), w.key("size"), w.integer(b.size.count), w.key("requested_size"), w.integer(b.allocated ? b.requested.count : 0);
      w.key("state"), w.text(b.allocated ? "active_allocated" : "inactive"), w.key("frames"), write_frames(w, s, b.allocated && stack != s.block_stacks.end() ? stack->second : 0);
      w.end_dict();
    }
    w.end_list(), w.end_dict();
  }
  w.end_list();
}

template <class Writer>
void write_entry(Writer& w, const MadeSnapshot& s, const MadeEntry& e) {
  w.item(), w.begin_dict();
  w.key("action"), w.text(e.action), w.key(e.action == "oom" ? "device_free" : "addr"), w.integer(e.address), w.key("size"), w.integer(e.size), w.key("stream"), w.integer(e.stream), w.key("time_us"), w.integer(e.time_us);
  w.key("compile_context"), w.text("N/A"), w.key("user_metadata"), w.text(""), w.key("frames"), write_frames(w, s, e.stack);
  w.end_dict();
}

// repeat: the entries so often, as from so many equal steps.
template <class Writer>
void write_snapshot(Writer&& w, const MadeSnapshot& s, std::int64_t repeat = 1) {
  w.begin_dict();
  w.key("segments"), write_segments(w, s);
  w.key("device_traces"), w.begin_list(), w.item(), w.begin_list();
  const std::int64_t length = s.entries.empty() ? 0 : s.entries.back().time_us - s.entries.front().time_us + 10;
  for (std::int64_t r = 0; r < repeat; ++r) {
    for (MadeEntry e : s.entries) {
      e.time_us += r * length;
      write_entry(w, s, e);
    }
  }
  w.end_list(), w.end_list();
  w.key("allocator_settings"), w.begin_dict();
  w.key("PYTORCH_CUDA_ALLOC_CONF"), w.text(s.conf), w.key("max_split_size"), w.integer(-1), w.key("garbage_collection_threshold"), w.real(0), w.key("expandable_segments"), w.boolean(s.expandable);
  w.end_dict();
  w.key("external_annotations"), w.begin_list();
  for (const MadeMark& m : s.marks) {
    w.item(), w.begin_dict();
    w.key("stage"), w.text(m.stage), w.key("name"), w.text(m.name), w.key("device"), w.integer(0), w.key("time_us"), w.integer(m.time_us);
    w.end_dict();
  }
  w.end_list(), w.end_dict();
  w.finish();
}

inline std::string pickled(const MadeSnapshot& s, int protocol = 4) {
  std::string out;
  write_snapshot(PickleWriter([&](std::string_view piece) { out += piece; }, protocol), s);
  return out;
}
inline std::string as_json(const MadeSnapshot& s) {
  std::string out;
  write_snapshot(JsonWriter([&](std::string_view piece) { out += piece; }), s);
  return out;
}

}  // namespace dryfit::test
