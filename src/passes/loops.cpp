// Rounds of pairwise fusion. See loops.hpp.
#include "passes/loops.hpp"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <span>
#include <tuple>
#include <utility>

namespace dryfit {

namespace {

constexpr int kRounds = 10;                     // scheduler.py, fuse_nodes
constexpr std::int32_t kMostLoops = 64;         // inductor.config.max_fusion_size
constexpr std::int32_t kFarthest = 64;          // scheduler.py, are_long_distant_nodes
constexpr std::size_t kPartners = 64;           // inductor.config.max_fusion_buffer_group_pairwise_attempts
constexpr std::int64_t kLeastShared = 10;       // inductor.config.score_fusion_memory_threshold, bytes
constexpr std::int64_t kWorthPerByte = 32;      // scheduler.py, can_fusion_increase_peak_memory

class Bits {
 public:
  explicit Bits(std::size_t n) : words_((n + 63) / 64, 0) {}
  void set(std::int32_t i) { words_[word(i)] |= 1ULL << (i & 63); }
  void clear(std::int32_t i) { words_[word(i)] &= ~(1ULL << (i & 63)); }
  bool test(std::int32_t i) const { return (words_[word(i)] >> (i & 63) & 1) != 0; }
  void add(const Bits& other) {
    for (std::size_t w = 0; w < words_.size(); ++w) words_[w] |= other.words_[w];
  }
  // Calls f for every set bit that is not in `without`, until it returns true; says whether it did.
  template <typename F>
  bool any_outside(const Bits* without, F f) const {
    for (std::size_t w = 0; w < words_.size(); ++w) {
      std::uint64_t left = without == nullptr ? words_[w] : words_[w] & ~without->words_[w];
      for (; left != 0; left &= left - 1) {
        if (f(static_cast<std::int32_t>(w * 64) + __builtin_ctzll(left))) return true;
      }
    }
    return false;
  }

 private:
  static std::size_t word(std::int32_t i) { return static_cast<std::size_t>(i) >> 6; }
  std::vector<std::uint64_t> words_;
};

struct Group {
  std::vector<std::int32_t> loops;
  std::int32_t first, last;                     // smallest and largest index of its loops
  std::int64_t rows, columns;
  bool external, reduction;
  std::vector<LoopAccess> accesses;             // reads and writes, sorted, each once
  Bits above;                                   // loops that must run before
};

bool before(const LoopAccess& a, const LoopAccess& b) { return std::tie(a.buffer, a.slice) < std::tie(b.buffer, b.slice); }

class Fusion {
 public:
  Fusion(const std::vector<Loop>& loops, std::int32_t buffers) : loops_(loops), writer_(static_cast<std::size_t>(buffers), -1), group_of_(loops.size()) {
    for (std::size_t i = 0; i < loops.size(); ++i) writer_[at(loops[i].writes)] = static_cast<std::int32_t>(i);
    groups_.reserve(loops.size());
    for (std::size_t i = 0; i < loops.size(); ++i) {
      const Loop& l = loops[i];
      const auto me = static_cast<std::int32_t>(i);
      Group g{{me}, me, me, l.rows, l.columns, l.external, l.reduction, l.reads, Bits(loops.size())};
      g.accesses.push_back({l.writes, 0, l.write_bytes});
      std::ranges::sort(g.accesses, before);
      for (const LoopAccess& r : l.reads) {
        const std::int32_t w = writer_[at(r.buffer)];
        if (w < 0 || w >= me) continue;
        g.above.set(w);
        g.above.add(groups_[at(w)].above);
      }
      groups_.push_back(std::move(g));
      group_of_[i] = me;
      order_.push_back(me);
    }
  }

  std::vector<std::vector<std::int32_t>> run() {
    for (int round = 0; round < kRounds; ++round) {
      const std::size_t before_round = order_.size();
      for (const Candidate& c : candidates()) {
        const std::int32_t a = group_of_[at(groups_[at(c.a)].loops.front())], b = group_of_[at(groups_[at(c.b)].loops.front())];
        if (a != b && can_fuse(a, b) && !makes_cycle(a, b)) fuse(a, b);
      }
      sort_groups();
      if (order_.size() == before_round) break;
    }
    std::vector<std::vector<std::int32_t>> kernels;
    for (std::int32_t g : order_) kernels.push_back(std::move(groups_[at(g)].loops));
    return kernels;
  }

 private:
  struct Candidate { std::int32_t a, b; bool alike; std::int64_t shared; std::int32_t distance; };
  static std::size_t at(std::int32_t i) { return static_cast<std::size_t>(i); }

  static std::int64_t shared_bytes(const Group& a, const Group& b) {
    std::int64_t bytes = 0;
    for (std::size_t i = 0, j = 0; i < a.accesses.size() && j < b.accesses.size();) {
      if (before(a.accesses[i], b.accesses[j])) ++i;
      else if (before(b.accesses[j], a.accesses[i])) ++j;
      else bytes += a.accesses[i].bytes, ++i, ++j;
    }
    return bytes;
  }
  static std::int32_t distance(const Group& a, const Group& b) { return std::max(std::abs(a.first - b.last), std::abs(b.first - a.last)); }

  // All pairs that share a buffer and may be fused as they stand, best first; equal ones as they are found.
  std::vector<Candidate> candidates() {
    std::vector<std::vector<std::int32_t>> users(writer_.size());
    std::vector<std::int32_t> seen_buffers;
    for (std::int32_t g : order_) {
      if (groups_[at(g)].external) continue;
      std::int32_t last = -1;
      for (const LoopAccess& a : groups_[at(g)].accesses) {
        if (a.buffer == last) continue;
        last = a.buffer;
        if (users[at(a.buffer)].empty()) seen_buffers.push_back(a.buffer);
        users[at(a.buffer)].push_back(g);
      }
    }
    std::vector<std::pair<std::int32_t, std::int32_t>> pairs;
    for (std::int32_t buffer : seen_buffers) {
      const auto& list = users[at(buffer)];
      for (std::size_t i = 0; i < list.size(); ++i) {
        for (std::size_t j = i + 1; j < std::min(list.size(), i + 1 + kPartners); ++j) pairs.push_back({list[i], list[j]});
      }
    }
    std::vector<std::size_t> index(pairs.size());
    for (std::size_t i = 0; i < index.size(); ++i) index[i] = i;
    std::ranges::stable_sort(index, {}, [&](std::size_t i) { return pairs[i]; });
    std::vector<bool> again(pairs.size(), false);
    for (std::size_t i = 1; i < index.size(); ++i) again[index[i]] = pairs[index[i]] == pairs[index[i - 1]];
    std::vector<Candidate> found;
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      const auto [a, b] = pairs[i];
      if (again[i] || !can_fuse(a, b)) continue;
      const Group &x = groups_[at(a)], &y = groups_[at(b)];
      found.push_back({a, b, x.reduction == y.reduction, shared_bytes(x, y), distance(x, y)});
    }
    std::ranges::stable_sort(found, [](const Candidate& l, const Candidate& r) {
      return std::tuple(!l.alike, -l.shared, l.distance) < std::tuple(!r.alike, -r.shared, r.distance);
    });
    return found;
  }

  // simd.py, can_fuse: the same elements; a reduction also with what runs over all of its elements, or over its rows.
  static bool loops_match(const Group& a, const Group& b) {
    if (a.reduction == b.reduction) return a.rows == b.rows && a.columns == b.columns;
    const Group &pointwise = a.reduction ? b : a, &reduction = a.reduction ? a : b;
    return pointwise.rows == reduction.rows * reduction.columns || pointwise.rows == reduction.rows;
  }

  bool depends(const Group& b, const Group& a) const {
    return std::ranges::any_of(a.loops, [&](std::int32_t l) { return b.above.test(l); });
  }

  bool can_fuse(std::int32_t first, std::int32_t second) const {
    const Group &a = groups_[at(first)], &b = groups_[at(second)];
    if (a.external || b.external || !loops_match(a, b) || depends(a, b)) return false;
    const std::int64_t shared = shared_bytes(a, b);
    if (shared == 0 || static_cast<std::int32_t>(a.loops.size() + b.loops.size()) > kMostLoops || costs_memory(a, b, shared)) return false;
    if (depends(b, a)) return can_follow(a, b);
    return shared >= kLeastShared && distance(a, b) <= kFarthest;
  }

  // b reads what a writes exactly as a writes it, and nothing that has to run between the two.
  bool can_follow(const Group& a, const Group& b) const {
    for (std::int32_t l : b.loops) {
      for (const LoopAccess& r : loops_[at(l)].reads) {
        const std::int32_t w = writer_[at(r.buffer)];
        if (w < 0) continue;
        const std::int32_t from = group_of_[at(w)];
        if (&groups_[at(from)] == &b) continue;
        if (&groups_[at(from)] == &a) {
          if (r.slice != 0 || loops_[at(w)].closed) return false;
        } else if (depends(groups_[at(from)], a)) {
          return false;
        }
      }
    }
    return true;
  }

  // Both read, for the last time, buffers that could have been handed from one to the other.
  bool costs_memory(const Group& a, const Group& b, std::int64_t shared) const {
    const auto last_reads = [&](const Group& g) {
      std::vector<std::pair<std::int64_t, std::int64_t>> keys;
      for (const LoopAccess& x : g.accesses) {
        const std::int32_t w = writer_[at(x.buffer)];
        if (w < 0 || loops_[at(w)].readers != 1 || std::ranges::find(g.loops, w) != g.loops.end()) continue;
        keys.push_back({loops_[at(w)].reuse_key, loops_[at(w)].elements});
      }
      std::ranges::sort(keys);
      const auto twice = std::ranges::unique(keys);
      keys.erase(twice.begin(), twice.end());
      return keys;
    };
    std::int64_t elements = 0;
    const auto mine = last_reads(a);
    if (mine.empty()) return false;
    for (const auto& key : last_reads(b)) elements += std::ranges::binary_search(mine, key) ? key.second : 0;
    return elements > kWorthPerByte * shared;
  }

  // Whether another kernel would have to run both before and after the fused one.
  bool makes_cycle(std::int32_t first, std::int32_t second) const {
    const Group &a = groups_[at(first)], &b = groups_[at(second)];
    Bits above = a.above;
    above.add(b.above);
    for (const Group* g : {&a, &b}) {
      for (std::int32_t l : g->loops) above.clear(l);
    }
    std::vector<bool> visited(groups_.size(), false);
    std::vector<std::int32_t> open;
    const auto visit = [&](std::int32_t loop) {
      const std::int32_t g = group_of_[at(loop)];
      if (groups_[at(g)].loops.size() > 1 && !visited[at(g)]) {
        visited[at(g)] = true;
        open.push_back(g);
      }
      return false;
    };
    above.any_outside(nullptr, visit);
    while (!open.empty()) {
      const Group& g = groups_[at(open.back())];
      open.pop_back();
      if (std::ranges::all_of(g.loops, [&](std::int32_t l) { return above.test(l); })) continue;
      if (depends(g, a) || depends(g, b)) return true;
      g.above.any_outside(&above, visit);
    }
    return false;
  }

  void fuse(std::int32_t first, std::int32_t second) {
    Group &a = groups_[at(first)], &b = groups_[at(second)];
    Group both{a.loops, std::min(a.first, b.first), std::max(a.last, b.last), a.rows, a.columns, false, a.reduction || b.reduction, {}, a.above};
    if (!a.reduction && b.reduction) both.rows = b.rows, both.columns = b.columns;
    both.loops.insert(both.loops.end(), b.loops.begin(), b.loops.end());
    std::ranges::set_union(a.accesses, b.accesses, std::back_inserter(both.accesses), before);
    both.above.add(b.above);
    for (std::int32_t l : both.loops) {
      both.above.clear(l);
      group_of_[at(l)] = first;
    }
    std::erase(order_, second);
    a = std::move(both);
  }

  void sort_groups() {
    std::ranges::stable_sort(order_, {}, [&](std::int32_t g) { return groups_[at(g)].first; });
  }

  const std::vector<Loop>& loops_;
  std::vector<std::int32_t> writer_;            // per buffer: the loop, or -1
  std::vector<Group> groups_;
  std::vector<std::int32_t> group_of_, order_;
};

}  // namespace

std::vector<std::vector<std::int32_t>> fuse_loops(const std::vector<Loop>& loops, std::int32_t buffers) { return Fusion(loops, buffers).run(); }

}  // namespace dryfit
