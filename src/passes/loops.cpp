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

// n sets of n numbers, and the operations on them that fusion needs.
class BitRows {
 public:
  using Row = std::uint64_t*;
  BitRows(std::size_t rows, std::size_t n) : words_((n + 63) / 64), all_(rows * words_, 0) {}
  Row row(std::int32_t i) { return all_.data() + static_cast<std::size_t>(i) * words_; }
  const std::uint64_t* row(std::int32_t i) const { return all_.data() + static_cast<std::size_t>(i) * words_; }
  static void set(Row row, std::int32_t i) { row[word(i)] |= 1ULL << (i & 63); }
  static void clear(Row row, std::int32_t i) { row[word(i)] &= ~(1ULL << (i & 63)); }
  static bool test(const std::uint64_t* row, std::int32_t i) { return (row[word(i)] >> (i & 63) & 1) != 0; }
  void add(Row to, const std::uint64_t* from) const {
    for (std::size_t w = 0; w < words_; ++w) to[w] |= from[w];
  }
  void empty(Row row) const { std::fill(row, row + words_, 0); }
  // Calls f for every number in `in` and in `also` that is not in `without`.
  template <typename F>
  void each(const std::uint64_t* in, const std::uint64_t* also, const std::uint64_t* without, F f) const {
    for (std::size_t w = 0; w < words_; ++w) {
      for (std::uint64_t left = in[w] & also[w] & (without == nullptr ? ~0ULL : ~without[w]); left != 0; left &= left - 1) f(static_cast<std::int32_t>(w * 64) + __builtin_ctzll(left));
    }
  }

 private:
  static std::size_t word(std::int32_t i) { return static_cast<std::size_t>(i) >> 6; }
  std::size_t words_;
  std::vector<std::uint64_t> all_;
};

struct Group {
  std::vector<std::int32_t> loops;
  std::int32_t first, last;                     // smallest and largest index of its loops
  std::int64_t rows, columns;
  bool external, reduction;
  std::vector<LoopAccess> accesses;             // reads and writes, sorted, each once
  std::uint64_t* above;                         // loops that must run before
};

bool before(const LoopAccess& a, const LoopAccess& b) { return std::tie(a.buffer, a.slice) < std::tie(b.buffer, b.slice); }

class Fusion {
 public:
  Fusion(const std::vector<Loop>& loops, std::int32_t buffers)
      : loops_(loops), writer_(static_cast<std::size_t>(buffers), -1), above_(loops.size(), loops.size()), met_(loops.size(), loops.size()), sets_(2, loops.size()), group_of_(loops.size()), visited_(loops.size(), 0) {
    for (std::size_t i = 0; i < loops.size(); ++i) writer_[at(loops[i].writes)] = static_cast<std::int32_t>(i);
    groups_.reserve(loops.size());
    for (std::size_t i = 0; i < loops.size(); ++i) {
      const Loop& l = loops[i];
      const auto me = static_cast<std::int32_t>(i);
      Group g{{me}, me, me, l.rows, l.columns, l.external, l.reduction, {}, above_.row(me)};
      g.accesses.reserve(l.reads.size() + 1);
      g.accesses = l.reads;
      g.accesses.push_back({l.writes, 0, l.write_bytes});
      std::ranges::sort(g.accesses, before);
      for (const LoopAccess& r : l.reads) {
        const std::int32_t w = writer_[at(r.buffer)];
        if (w < 0 || w >= me) continue;
        BitRows::set(g.above, w);
        above_.add(g.above, above_.row(w));
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
        const std::int32_t a = group_of_[at(c.a)], b = group_of_[at(c.b)];  // a group has the number of its first loop
        if (a != b && can_fuse(groups_[at(a)], groups_[at(b)]) != 0 && !makes_cycle(a, b)) fuse(a, b);
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
    // who touches each buffer, buffers in the order in which they are met
    std::vector<std::int32_t> place(writer_.size(), -1), begins, users;
    const auto each_use = [&](auto use) {
      for (std::int32_t g : order_) {
        if (groups_[at(g)].external) continue;
        std::int32_t last = -1;
        for (const LoopAccess& a : groups_[at(g)].accesses) {
          if (a.buffer != last) use(g, a.buffer);
          last = a.buffer;
        }
      }
    };
    each_use([&](std::int32_t, std::int32_t buffer) {
      if (place[at(buffer)] < 0) place[at(buffer)] = static_cast<std::int32_t>(begins.size()), begins.push_back(0);
      ++begins[at(place[at(buffer)])];
    });
    std::int32_t total = 0;
    for (std::int32_t& b : begins) total += std::exchange(b, total);
    begins.push_back(total);
    users.resize(at(total));
    std::vector<std::int32_t> ends(begins.begin(), begins.end());
    each_use([&](std::int32_t g, std::int32_t buffer) { users[at(ends[at(place[at(buffer)])]++)] = g; });
    for (std::int32_t g : order_) met_.empty(met_.row(g));
    std::vector<Candidate> found;
    for (std::size_t b = 0; b + 1 < begins.size(); ++b) {
      const auto list = std::span(users).subspan(at(begins[b]), at(begins[b + 1] - begins[b]));
      for (std::size_t i = 0; i < list.size(); ++i) {
        const Group& x = groups_[at(list[i])];
        const BitRows::Row met = met_.row(list[i]);
        for (std::size_t j = i + 1; j < std::min(list.size(), i + 1 + kPartners); ++j) {
          const Group& y = groups_[at(list[j])];
          if (!loops_match(x, y) || BitRows::test(met, list[j])) continue;
          BitRows::set(met, list[j]);  // they may share another buffer too
          if (const std::int64_t shared = can_fuse(x, y)) found.push_back({list[i], list[j], x.reduction == y.reduction, shared, distance(x, y)});
        }
      }
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
    return std::ranges::any_of(a.loops, [&](std::int32_t l) { return BitRows::test(b.above, l); });
  }

  // The bytes that a kernel of both would save, or 0 where there can be none.
  std::int64_t can_fuse(const Group& a, const Group& b) {
    if (a.external || b.external || !loops_match(a, b) || depends(a, b)) return 0;
    const std::int64_t shared = shared_bytes(a, b);
    if (shared == 0 || static_cast<std::int32_t>(a.loops.size() + b.loops.size()) > kMostLoops) return 0;
    const bool may = depends(b, a) ? can_follow(a, b) : shared >= kLeastShared && distance(a, b) <= kFarthest;
    return may && !costs_memory(a, b, shared) ? shared : 0;
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
  bool costs_memory(const Group& a, const Group& b, std::int64_t shared) {
    const auto last_reads = [&](const Group& g, std::vector<std::pair<std::int64_t, std::int64_t>>& keys) {
      keys.clear();
      for (const LoopAccess& x : g.accesses) {
        const std::int32_t w = writer_[at(x.buffer)];
        if (w < 0 || loops_[at(w)].readers != 1 || std::ranges::find(g.loops, w) != g.loops.end()) continue;
        keys.push_back({loops_[at(w)].reuse_key, loops_[at(w)].elements});
      }
      std::ranges::sort(keys);
      const auto twice = std::ranges::unique(keys);
      keys.erase(twice.begin(), twice.end());
    };
    last_reads(a, mine_);
    if (mine_.empty()) return false;
    last_reads(b, theirs_);
    std::int64_t elements = 0;
    for (const auto& key : theirs_) elements += std::ranges::binary_search(mine_, key) ? key.second : 0;
    return elements > kWorthPerByte * shared;
  }

  // Whether another kernel would have to run both before and after the fused one.
  bool makes_cycle(std::int32_t first, std::int32_t second) {
    const Group &a = groups_[at(first)], &b = groups_[at(second)];
    const BitRows::Row above = sets_.row(0), fused = sets_.row(1);
    sets_.empty(above);
    sets_.add(above, a.above);
    sets_.add(above, b.above);
    for (const Group* g : {&a, &b}) {
      for (std::int32_t l : g->loops) BitRows::clear(above, l);
    }
    std::vector<std::int32_t> open;
    ++visits_;
    const auto visit = [&](std::int32_t loop) {
      const std::int32_t g = group_of_[at(loop)];
      if (visited_[at(g)] == visits_) return;
      visited_[at(g)] = visits_;
      open.push_back(g);
    };
    sets_.each(above, fused, nullptr, visit);
    while (!open.empty()) {
      const Group& g = groups_[at(open.back())];
      open.pop_back();
      if (std::ranges::all_of(g.loops, [&](std::int32_t l) { return BitRows::test(above, l); })) continue;
      if (depends(g, a) || depends(g, b)) return true;
      sets_.each(g.above, fused, above, visit);
    }
    return false;
  }

  void fuse(std::int32_t first, std::int32_t second) {
    Group &a = groups_[at(first)], &b = groups_[at(second)];
    if (!a.reduction && b.reduction) a.rows = b.rows, a.columns = b.columns;
    a.reduction = a.reduction || b.reduction;
    a.first = std::min(a.first, b.first);
    a.last = std::max(a.last, b.last);
    a.loops.insert(a.loops.end(), b.loops.begin(), b.loops.end());
    b.loops.clear();
    std::vector<LoopAccess> both;
    both.reserve(a.accesses.size() + b.accesses.size());
    std::ranges::set_union(a.accesses, b.accesses, std::back_inserter(both), before);
    a.accesses = std::move(both);
    above_.add(a.above, b.above);
    for (std::int32_t l : a.loops) {
      BitRows::clear(a.above, l);
      BitRows::set(sets_.row(1), l);
      group_of_[at(l)] = first;
    }
  }

  void sort_groups() {
    std::erase_if(order_, [&](std::int32_t g) { return groups_[at(g)].loops.empty(); });
    std::ranges::stable_sort(order_, {}, [&](std::int32_t g) { return groups_[at(g)].first; });
  }

  const std::vector<Loop>& loops_;
  std::vector<std::int32_t> writer_;            // per buffer: the loop, or -1
  BitRows above_, met_;                         // per group: what must run before; partners of this round
  BitRows sets_;                                // 0: scratch of makes_cycle; 1: the loops of groups that have more than one
  std::vector<Group> groups_;                   // one that joined another is empty
  std::vector<std::int32_t> group_of_, order_;
  std::vector<std::int32_t> visited_;           // the search that last came by
  std::int32_t visits_ = 0;
  std::vector<std::pair<std::int64_t, std::int64_t>> mine_, theirs_;  // scratch of costs_memory
};

}  // namespace

std::vector<std::vector<std::int32_t>> fuse_loops(const std::vector<Loop>& loops, std::int32_t buffers) { return Fusion(loops, buffers).run(); }

}  // namespace dryfit
