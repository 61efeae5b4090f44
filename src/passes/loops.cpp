// Rounds of pairwise fusion. See loops.hpp.
#include "passes/loops.hpp"

#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <iterator>
#include <optional>
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
constexpr std::int64_t kFarMore = 16;           // choices.py, FusionScore (2.10)
constexpr std::uint32_t kSliceTurned = 1U << 31;
// scheduler.py, MixOrderReduction: least elements, rows, and rows for each column of a kernel that reduces in both orders; most columns
constexpr std::int64_t kLeastMixed = 5 << 20, kLeastMixedRows = 4096, kRowsForColumn = 2, kMostMixedColumns = 16384;

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
  // Calls f for every number in `in` and in `also` that is not in `without`, up to that of the word in which `last` is.
  template <typename F>
  static void each(const std::uint64_t* in, const std::uint64_t* also, const std::uint64_t* without, std::int32_t last, F f) {
    for (std::size_t w = 0; w <= word(last); ++w) {
      for (std::uint64_t left = in[w] & also[w] & ~without[w]; left != 0; left &= left - 1) f(static_cast<std::int32_t>(w * 64) + __builtin_ctzll(left));
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
  bool across = false;                          // has sums of columns
  std::int64_t parts = 1;                       // of such sums
  std::vector<Group> halves{};                  // of a kernel that reduces in both orders: along rows, and across
  bool half = false;
};

bool before(const LoopAccess& a, const LoopAccess& b) { return std::tie(a.buffer, a.slice, a.over) < std::tie(b.buffer, b.slice, b.over); }

std::size_t count_of(const Ranges& r) { return static_cast<std::size_t>(std::ranges::find(r, 0) - r.begin()); }

std::int64_t elements_of(const Ranges& r) {
  std::int64_t n = 1;
  for (std::size_t i = 0; i < count_of(r); ++i) n *= r[i];
  return n;
}

Ranges reversed(Ranges r) {
  std::reverse(r.begin(), r.begin() + static_cast<std::ptrdiff_t>(count_of(r)));
  return r;
}

// Whether loops can be gone over as so many rows of so many columns (codegen/simd.py, SIMDKernel._split_iteration_ranges).
bool splits_into(const Ranges& loops, std::int64_t rows, std::int64_t columns) {
  for (std::size_t i = 0; i < count_of(loops); ++i) {
    const std::int64_t across = rows == 1 || loops[i] <= rows ? 1 : loops[i] / rows;  // the part of this loop that goes over columns
    std::int64_t& left = rows == 1 ? columns : rows;
    if (across > 1 ? loops[i] % rows != 0 || columns % across != 0 : left % loops[i] != 0) return false;
    if (across > 1) rows = 1, columns /= across;
    else left /= loops[i];
  }
  return true;
}

// What a loop writes. A reduction's columns are no part of it.
LoopAccess written(const Loop& l) {
  LoopAccess w{l.writes, l.turned ? kExchanged : 0, l.write_bytes, l.ranges};
  if (l.reduction && l.columns > 1 && count_of(w.over) > 0) w.over[count_of(w.over) - 1] = 0;
  return w;
}

// The same access once two loops have changed places, which now run over `loops`.
void turn(LoopAccess& a, const Ranges& loops) {
  if (a.over == Ranges{}) return;
  const bool of_rows = a.slice == kExchangedRows;
  switch (a.slice) {
    case 0: a.slice = count_of(a.over) == 1 ? kExchangedRows : kExchanged; break;
    case kExchanged: case kExchangedRows: a.slice = 0; break;
    default: a.slice ^= kSliceTurned;
  }
  a.over = of_rows ? Ranges{loops[0]} : loops;
}

// Whether one is the other where loops are merged (dependencies.py, MemoryDep.normalize).
bool same_when_merged(const LoopAccess& a, const LoopAccess& b) {
  return a.slice == 0 && b.slice == 0 && elements_of(a.over) == elements_of(b.over);
}

// Whether one is the other whatever the order of the loops (normalize_with_stride_order).
bool same_in_some_order(const LoopAccess& a, const LoopAccess& b) {
  const auto whole = [](const LoopAccess& x) { return x.slice == 0 || x.slice == kExchanged; };
  return (whole(a) && whole(b) && elements_of(a.over) == elements_of(b.over)) || (a.slice == b.slice && a.over == b.over);
}

class Fusion {
 public:
  Fusion(std::vector<Loop> loops, std::int32_t buffers, bool apart)
      : loops_(std::move(loops)), apart_(apart), writer_(static_cast<std::size_t>(buffers), -1), above_(loops_.size(), loops_.size()), above_of_halves_(apart ? loops_.size() : 0, loops_.size()), met_(loops_.size(), loops_.size()), sets_(2, loops_.size()), group_of_(loops_.size()), visited_(loops_.size(), 0), looked_at_(loops_.size(), 0), reach_(loops_.size(), 0) {
    for (std::size_t i = 0; i < loops_.size(); ++i) writer_[at(loops_[i].writes)] = static_cast<std::int32_t>(i);
    groups_.reserve(loops_.size());
    for (std::size_t i = 0; i < loops_.size(); ++i) {
      const Loop& l = loops_[i];
      const auto me = static_cast<std::int32_t>(i);
      Group g{{me}, me, me, l.rows, l.columns, l.external, l.reduction, {}, above_.row(me), l.across, l.parts};
      g.accesses = accesses_of(l);
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
      go_round();
      if (order_.size() == before_round) break;
    }
    turning_ = apart_;
    if (turning_) go_round();
    std::vector<std::vector<std::int32_t>> kernels;
    for (std::int32_t g : order_) kernels.push_back(std::move(groups_[at(g)].loops));
    return kernels;
  }

 private:
  struct Candidate { std::int32_t a, b; bool alike; std::int64_t shared; std::int32_t distance; };
  static std::size_t at(std::int32_t i) { return static_cast<std::size_t>(i); }

  void go_round() {
    for (const Candidate& c : candidates()) {
      const std::int32_t a = group_of_[at(c.a)], b = group_of_[at(c.b)];  // a group has the number of its first loop
      if (a != b && can_fuse(groups_[at(a)], groups_[at(b)]) && !makes_cycle(a, b)) fuse(a, b);
    }
    sort_groups();
  }

  static std::vector<LoopAccess> accesses_of(const Loop& l) {
    std::vector<LoopAccess> all = l.reads;
    all.push_back(written(l));
    std::ranges::sort(all, before);
    return all;
  }

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
        Group& x = groups_[at(list[i])];
        const BitRows::Row met = met_.row(list[i]);
        for (std::size_t j = i + 1; j < std::min(list.size(), i + 1 + kPartners); ++j) {
          Group& y = groups_[at(list[j])];
          if (BitRows::test(met, list[j]) || (x.halves.empty() && !loops_match(x, y) && !mixes(x, y))) continue;
          BitRows::set(met, list[j]);  // they may share another buffer too
          if (can_fuse(x, y)) found.push_back({list[i], list[j], x.reduction == y.reduction, 0, distance(x, y)});
        }
      }
    }
    for (Candidate& c : found) {
      const Group &a = groups_[at(c.a)], &b = groups_[at(c.b)];
      c.shared = mixes(a, b) ? a.rows * a.columns : shared_bytes(a, b);
      c.alike = c.alike && c.shared > 0;
    }
    std::ranges::stable_sort(found, [&](const Candidate& l, const Candidate& r) {
      // from 2.10 on whether both reduce matters where the bytes are of one size (choices.py, FusionScore); that is an order too, no three of them go round
      if (apart_ && std::max(l.shared, r.shared) > kFarMore * std::min(l.shared, r.shared)) return l.shared > r.shared;
      return std::tuple(!l.alike, -l.shared, l.distance) < std::tuple(!r.alike, -r.shared, r.distance);
    });
    return found;
  }

  // simd.py, can_fuse: the same elements; a reduction also with what runs over all of its elements, or over its rows.
  bool loops_match(const Group& a, const Group& b) const {
    if (a.reduction == b.reduction) return a.rows == b.rows && a.columns == b.columns;
    const Group &pointwise = a.reduction ? b : a, &reduction = a.reduction ? a : b;
    if (pointwise.rows != reduction.rows * reduction.columns) return pointwise.rows == reduction.rows;
    return !apart_ || std::ranges::all_of(pointwise.loops, [&](std::int32_t l) { return splits_into(loops_[at(l)].ranges, reduction.rows, reduction.columns); });
  }

  bool depends(const Group& b, const Group& a) const {
    return std::ranges::any_of(a.loops, [&](std::int32_t l) { return BitRows::test(b.above, l); });
  }

  // Whether one sums rows and the other columns of a large tensor that both read as a whole (scheduler.py, MixOrderReduction.can_fuse). Sums in parts count as the one they are parts of.
  bool mixes(const Group& a, const Group& b) const {
    if (!apart_ || !a.reduction || !b.reduction || a.across == b.across || !a.halves.empty() || !b.halves.empty()) return false;
    const Group &along = a.across ? b : a, &across = a.across ? a : b;
    const std::int64_t rows = along.rows, columns = along.columns;
    if (across.rows != columns * across.parts || across.columns * across.parts != rows || rows * columns < kLeastMixed || rows < std::max(kLeastMixedRows, columns * kRowsForColumn) || columns > kMostMixedColumns) return false;
    const auto is_whole = [&](const LoopAccess& x) { return elements_of(x.over) == rows * columns; };
    const bool common = std::ranges::any_of(along.accesses, [&](const LoopAccess& x) {
      return is_whole(x) && std::ranges::any_of(across.accesses, [&](const LoopAccess& y) { return y.buffer == x.buffer && is_whole(y); });
    });
    return common && !depends(a, b) && !depends(b, a);
  }

  // Whether there can be a kernel of both, and it would save something. In the last round loops may turn around for it, and stay so.
  bool can_fuse(Group& a, Group& b) {
    if (!a.halves.empty()) return can_join(a, b);
    if (!b.halves.empty()) return false;
    const bool mixed = mixes(a, b);
    if (a.external || b.external || (!mixed && !loops_match(a, b)) || depends(a, b)) return false;
    std::int64_t shared = mixed ? a.rows * a.columns : shared_bytes(a, b);
    const bool turns = turning_ && !mixed && !a.half;
    if (turns && shared < kLeastShared) shared = std::max(shared, shared_otherwise(a, b));
    if (shared == 0 || static_cast<std::int32_t>(a.loops.size() + b.loops.size()) > kMostLoops) return false;
    const bool may = depends(b, a) ? can_follow(a, b) : mixed || (shared >= kLeastShared && distance(a, b) <= kFarthest);
    return may && !costs_memory(a, b, turns ? shared_bytes(a, b) : shared);
  }

  // Whether `more` can become part of one half without coming between it and the other (FusedMixOrderReductions.sub_node_can_fuse).
  bool takes(Group& half, Group& more, std::initializer_list<const Group*> others) {
    const bool mixed_again = mixes(half, more);
    if (mixed_again || (!half.across && more.across) || !can_fuse(half, more)) return false;
    const auto apart = [&](const Group* other) { return !depends(half, *other) && !depends(more, *other) && !depends(*other, half) && !depends(*other, more); };
    return std::ranges::all_of(others, apart) && (!more.reduction || shared_bytes(half, more) >= half.rows * half.columns);
  }

  bool can_join(Group& a, Group& b) {
    Group &along = a.halves[0], &across = a.halves[1];
    if (b.halves.empty()) return takes(along, b, {&across}) || takes(across, b, {&along});
    return takes(along, b.halves[0], {&across, &b.halves[1]}) && takes(across, b.halves[1], {});
  }

  // What a group does with a buffer: that it writes it, else the last of its reads (scheduler.py, shared_data_after_reordering_loop).
  std::optional<LoopAccess> last_access(const Group& g, std::int32_t buffer) const {
    const std::int32_t w = writer_[at(buffer)];
    std::vector<LoopAccess> seen;
    if (w >= 0 && group_of_[at(w)] == group_of_[at(g.loops.front())]) return written(loops_[at(w)]);
    for (std::int32_t l : g.loops) {
      for (const LoopAccess& r : loops_[at(l)].reads) {
        if (r.buffer == buffer && std::ranges::none_of(seen, [&](const LoopAccess& s) { return !before(s, r) && !before(r, s); })) seen.push_back(r);
      }
    }
    return seen.empty() ? std::nullopt : std::optional(seen.back());
  }

  // Bytes of the largest buffer that both go over in ways which only the order of loops tells apart; -1: none.
  std::int64_t shared_otherwise(Group& a, Group& b) {
    std::optional<LoopAccess> mine, theirs;
    std::int32_t looked_at = -1;
    for (std::int32_t l : a.loops) {
      const auto consider = [&](std::int32_t buffer) {
        const std::optional<LoopAccess> x = last_access(a, buffer), y = last_access(b, buffer);
        if (!x || !y || !same_in_some_order(*x, *y) || (mine && elements_of(x->over) <= elements_of(mine->over))) return;
        mine = x, theirs = y;
      };
      for (const LoopAccess& r : loops_[at(l)].reads) {
        if (std::exchange(looked_at, r.buffer) != r.buffer) consider(r.buffer);
      }
      consider(loops_[at(l)].writes);
    }
    if (!mine) return -1;
    if (count_of(mine->over) != count_of(theirs->over)) return same_when_merged(*mine, *theirs) ? mine->bytes : -1;
    Group& moved = a.reduction ? b : a;
    if (moved.reduction || count_of(mine->over) != 2 || mine->slice == theirs->slice || mine->over != reversed(theirs->over)) return -1;
    const Ranges over = loops_[at(moved.loops.front())].ranges;
    if (std::ranges::any_of(moved.loops, [&](std::int32_t l) { return loops_[at(l)].ranges != over; }) || count_of(over) != 2) return -1;
    turn_around(moved, reversed(over));
    return shared_bytes(a, b);
  }

  void turn_around(Group& g, const Ranges& over) {
    g.accesses.clear();
    for (std::int32_t i : g.loops) {
      Loop& l = loops_[at(i)];
      l.ranges = over;
      l.turned = !l.turned;
      for (LoopAccess& r : l.reads) turn(r, over);
      std::vector<LoopAccess> own = accesses_of(l), both;
      std::ranges::set_union(g.accesses, own, std::back_inserter(both), before);
      g.accesses = std::move(both);
    }
  }

  bool has(const Group& g, std::int32_t loop) const { return g.half ? std::ranges::find(g.loops, loop) != g.loops.end() : &groups_[at(group_of_[at(loop)])] == &g; }

  // b reads what a writes exactly as a writes it, and nothing that has to run between the two.
  bool can_follow(const Group& a, const Group& b) const {
    for (std::int32_t l : b.loops) {
      for (const LoopAccess& r : loops_[at(l)].reads) {
        const std::int32_t w = writer_[at(r.buffer)];
        if (w < 0) continue;
        const std::int32_t from = group_of_[at(w)];
        if (has(b, w)) continue;
        if (has(a, w)) {
          if (loops_[at(w)].closed || !reads_as_written(r, written(loops_[at(w)]))) return false;
        } else if (depends(groups_[at(from)], a)) {
          return false;
        }
      }
    }
    return true;
  }

  // Loops that are merged to be compared are so only where their numbers differ (scheduler.py, fusable_read_and_write).
  static bool reads_as_written(const LoopAccess& r, const LoopAccess& w) {
    if (count_of(r.over) != count_of(w.over)) return same_when_merged(r, w);
    return r.slice == w.slice && r.over == w.over;
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
    // groups with loops both in and out of `above`; what lies in it as a whole changes nothing
    BitRows::each(fused, fused, above, reach_[at(std::max(a.last, b.last))], [&](std::int32_t loop) {
      const std::int32_t g = group_of_[at(loop)];
      if (std::exchange(looked_at_[at(g)], visits_) == visits_) return;
      if (std::ranges::any_of(groups_[at(g)].loops, [&](std::int32_t l) { return BitRows::test(above, l); })) visit(loop);
    });
    while (!open.empty()) {
      const Group& g = groups_[at(open.back())];
      open.pop_back();
      if (depends(g, a) || depends(g, b)) return true;
      BitRows::each(g.above, fused, above, g.last, visit);
    }
    return false;
  }

  void fuse(std::int32_t first, std::int32_t second) {
    Group &a = groups_[at(first)], &b = groups_[at(second)];
    if (mixes(a, b)) a.halves = halves_of(first, second);
    else if (!a.halves.empty()) extend(a, b);
    join(a, b);
    if (!a.halves.empty()) {
      const Group &along = a.halves[0], &across = a.halves[1];
      a.rows = along.rows, a.columns = along.columns;
      a.loops = along.loops;
      a.loops.insert(a.loops.end(), across.loops.begin(), across.loops.end());
    }
    b.loops.clear();
    for (std::size_t i = at(a.first); i < reach_.size() && reach_[i] < a.last; ++i) reach_[i] = a.last;
    for (std::int32_t l : a.loops) {
      BitRows::set(sets_.row(1), l);
      group_of_[at(l)] = first;
    }
  }

  void join(Group& a, const Group& b) const {
    if (!a.reduction && b.reduction) a.rows = b.rows, a.columns = b.columns, a.parts = b.parts;
    a.reduction = a.reduction || b.reduction;
    a.across = a.across || b.across;
    a.first = std::min(a.first, b.first);
    a.last = std::max(a.last, b.last);
    a.loops.insert(a.loops.end(), b.loops.begin(), b.loops.end());
    std::vector<LoopAccess> both;
    both.reserve(a.accesses.size() + b.accesses.size());
    std::ranges::set_union(a.accesses, b.accesses, std::back_inserter(both), before);
    a.accesses = std::move(both);
    above_.add(a.above, b.above);
    for (std::int32_t l : a.loops) BitRows::clear(a.above, l);
  }

  // Two groups as the halves of one, along rows first.
  std::vector<Group> halves_of(std::int32_t first, std::int32_t second) {
    std::vector<Group> halves;
    for (const std::int32_t g : {first, second}) {
      halves.push_back(groups_[at(g)]);
      halves.back().half = true;
      halves.back().above = above_of_halves_.row(g);
      above_.add(halves.back().above, groups_[at(g)].above);
    }
    if (halves.front().across) std::swap(halves[0], halves[1]);
    return halves;
  }

  void extend(Group& a, Group& b) {
    if (b.halves.empty()) return join(takes(a.halves[0], b, {&a.halves[1]}) ? a.halves[0] : a.halves[1], b);
    for (std::size_t i = 0; i < 2; ++i) join(a.halves[i], b.halves[i]);
  }

  void sort_groups() {
    std::erase_if(order_, [&](std::int32_t g) { return groups_[at(g)].loops.empty(); });
    std::ranges::stable_sort(order_, {}, [&](std::int32_t g) { return groups_[at(g)].first; });
  }

  std::vector<Loop> loops_;
  bool apart_, turning_ = false;                // turning: in the last round
  std::vector<std::int32_t> writer_;            // per buffer: the loop, or -1
  BitRows above_, above_of_halves_, met_;       // per group: what must run before, as a half of a kernel that reduces in both orders too; partners of this round
  BitRows sets_;                                // 0: scratch of makes_cycle; 1: the loops of groups that have more than one
  std::vector<Group> groups_;                   // one that joined another is empty
  std::vector<std::int32_t> group_of_, order_;
  std::vector<std::int32_t> visited_, looked_at_;  // the search that last came by
  std::vector<std::int32_t> reach_;             // per loop: the last loop of all groups of several that begin there or before
  std::int32_t visits_ = 0;
  std::vector<std::pair<std::int64_t, std::int64_t>> mine_, theirs_;  // scratch of costs_memory
};

}  // namespace

std::vector<std::vector<std::int32_t>> fuse_loops(std::vector<Loop> loops, std::int32_t buffers, bool apart) { return Fusion(std::move(loops), buffers, apart).run(); }

}  // namespace dryfit
