// The simulator itself: blocks, pools, segments. Numbers in brackets name the steps of c10/cuda/CUDACachingAllocator.cpp.
#include "memory/allocator.hpp"

#include <algorithm>
#include <bit>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "memory/shelf.hpp"

namespace dryfit {

namespace {

constexpr std::int64_t kMinBlock = 512, kSmallBuffer = 2 << 20, kMinLargeAlloc = 10 << 20, kRoundLarge = 2 << 20;

void rise(Bytes& current, Bytes& peak, std::int64_t by) {
  current += Bytes(by);
  peak = std::max(peak, current);
}

}  // namespace

struct CachingAllocator::Impl {
  struct Pool {
    Shelf free{true}, unmapped{false};
    std::int64_t finds = 0;
    bool small = false;
  };

  AllocatorConfig config;
  std::optional<Bytes> capacity;
  Bytes device_total = gib(80);
  std::function<std::int64_t(Bytes)> next_address;
  std::int64_t lowest = std::int64_t{1} << 47;  // segments lie below; the end of what a process may address
  std::int64_t reserved_from_driver = 0;
  Pool small, large;
  std::deque<Block> storage;
  std::vector<Block*> spare;
  std::vector<Block*> live{nullptr};             // by id; ids count up from 1
  std::map<std::int64_t, Block*> segment_heads;  // by address: first block of every reservation
  std::deque<Block*> pending;
  AllocatorStats stats;
  std::vector<SegmentEvent> events;

  Impl(AllocatorConfig c, std::optional<Bytes> cap) : config(std::move(c)), capacity(cap) {
    small.small = true;
    if (cap) device_total = *cap;
  }

  Pool& pool_of(const Block& b) { return b.small ? small : large; }
  std::int64_t max_split() const { return config.max_split_size ? config.max_split_size->count : Bytes::kMax; }

  Block* make(const Block& like) {
    if (spare.empty()) {
      storage.emplace_back();
      spare.push_back(&storage.back());
    }
    Block* b = spare.back();
    spare.pop_back();
    *b = like;
    return b;
  }
  void discard(Block* b) { spare.push_back(b); }

  std::int64_t round_size(std::int64_t n) const {
    if (n < kMinBlock) return kMinBlock;
    const std::int64_t divisions = division_of(n);
    if (divisions > 1 && n > kMinBlock * divisions) return round_division(n, divisions);
    return round_up(n, kMinBlock);
  }
  std::int64_t division_of(std::int64_t n) const {
    if (config.roundup_power2_divisions.empty()) return 0;
    const int log = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(n))) - 1;
    return config.roundup_power2_divisions[static_cast<std::size_t>(std::clamp(log - 20, 0, 15))];
  }
  static std::int64_t round_division(std::int64_t n, std::int64_t divisions) {
    const auto u = static_cast<std::uint64_t>(n);
    if (std::has_single_bit(u)) return n;
    const auto floor = static_cast<std::int64_t>(std::bit_floor(u));
    const std::int64_t part = floor >> (std::bit_width(static_cast<std::uint64_t>(divisions)) - 1);
    if (part == 0) return 2 * floor;
    const std::int64_t down = n & ~(part - 1);
    return down == n ? n : down + part;
  }
  std::int64_t alloc_size(std::int64_t rounded) const {
    if (rounded <= kSmallSize) return kSmallBuffer;
    if (rounded < kMinLargeAlloc) return config.large_segment_size.count;
    return round_up(rounded, kRoundLarge);
  }

  // [3] the smallest sufficient free block of the stream, lowest address among equals; only this first candidate is examined
  // It stays on the shelf: its entry is where it was found.
  struct Candidate { Block* block = nullptr; Shelf::Row* row = nullptr; Shelf::Row::iterator at; };
  Candidate find(Pool& pool, std::int64_t rounded, std::int64_t stream) {
    ++pool.finds;
    Shelf::Row& row = pool.free.of(stream);
    auto it = row.at_least(rounded);
    if (it == row.end()) return {};
    if (it->block->expandable) {
      if (config.expandable_segments) {
        const auto growable = [](const Block* b) { return b->size + (b->next != nullptr && !b->next->mapped ? b->next->size : 0); };
        auto next = std::next(it);
        while (it->block->expandable && next != row.end() && growable(next->block) < growable(it->block)) it = next++;
      } else {
        while (it != row.end() && it->block->expandable) ++it;
        if (it == row.end()) return {};
      }
    }
    if (rounded < max_split() && it->size >= max_split()) return {};
    if (rounded >= max_split() && it->size >= rounded + config.max_non_split_rounding.count) return {};
    return {it->block, &row, it};
  }

  bool driver_gives(std::int64_t bytes) {
    if (capacity && reserved_from_driver + bytes > capacity->count) return false;
    return true;
  }
  bool fraction_allows(std::int64_t bytes) const {
    if (!config.memory_fraction) return true;
    return reserved_from_driver + bytes <= static_cast<std::int64_t>(*config.memory_fraction * static_cast<double>(device_total.count));
  }
  std::int64_t take_address(std::int64_t size) {
    if (next_address) return next_address(Bytes(size));
    lowest -= round_up(size, 32 << 20);
    return lowest;
  }
  void note(SegmentEvent::Kind kind, std::int64_t address, std::int64_t size, std::int64_t stream) { events.push_back({kind, address, Bytes(size), stream}); }

  // [alloc_block] new memory from the driver
  Block* from_driver(Pool& pool, std::int64_t rounded, std::int64_t size, std::int64_t stream) {
    if (!fraction_allows(size)) return nullptr;
    if (config.expandable_segments) return expand(pool, rounded, stream);
    if (!driver_gives(size)) return nullptr;
    Block fresh;
    fresh.address = fresh.segment = take_address(size);
    fresh.size = size;
    fresh.stream = stream;
    fresh.small = pool.small;
    Block* b = make(fresh);
    segment_heads[b->address] = b;
    reserved_from_driver += size;
    rise(stats.reserved, stats.reserved_peak, size);
    ++stats.segments;
    note(SegmentEvent::Kind::alloc, b->address, size, stream);
    return b;
  }

  std::int64_t page(const Pool& pool) const { return pool.small ? kSmallBuffer : config.large_segment_size.count; }

  std::int64_t reservation(const Pool& pool) const { return round_up(device_total.count + device_total.count / 8, page(pool)); }

  // First run of free and unmapped neighbours, by address, that is long enough; a new reservation when there is none.
  Block* expandable_candidate(Pool& pool, std::int64_t rounded, std::int64_t stream) {
    for (const Shelf::Entry& entry : pool.unmapped.of(stream)) {
      Block* c = entry.block;
      if (c->prev != nullptr && !c->prev->allocated && !c->prev->pending && c->prev->mapped) c = c->prev;
      std::int64_t room = 0;
      for (const Block* b = c; b != nullptr && !b->allocated && !b->pending; b = b->next) {
        room += b->size;
        if (room >= rounded) return c;
      }
    }
    Block fresh;
    fresh.size = std::max(reservation(pool), round_up(rounded, page(pool)));
    fresh.address = fresh.segment = take_address(fresh.size);
    fresh.stream = stream;
    fresh.small = pool.small;
    fresh.expandable = true;
    fresh.mapped = false;
    Block* b = make(fresh);
    segment_heads[b->address] = b;
    pool.unmapped.insert(b);
    return b;
  }

  Block* expand(Pool& pool, std::int64_t rounded, std::int64_t stream) {
    Block* c = expandable_candidate(pool, rounded, stream);
    if (!c->mapped && !map(pool, c, std::min(c->size, rounded))) return nullptr;
    while (c->size < rounded) {
      const std::int64_t missing = std::min(rounded - c->size, c->next->size);
      if (!map(pool, c->next, missing)) return nullptr;
    }
    pool.free.erase(c);
    return c;
  }

  // Maps the front of an unmapped block, whole pages; what is mapped merges with free neighbours. Keeps `b` or its left neighbour.
  bool map(Pool& pool, Block* b, std::int64_t wanted) {
    const std::int64_t unit = page(pool), start = (b->address - b->segment) / unit * unit;
    const std::int64_t length = round_up(b->address - b->segment + wanted, unit) - start;
    if (!driver_gives(length)) return false;
    pool.unmapped.erase(b);
    if (length < b->size) {
      Block rest = *b;
      rest.address += length;
      rest.size -= length;
      rest.prev = b;
      Block* tail = make(rest);
      if (b->next != nullptr) b->next->prev = tail;
      b->next = tail;
      b->size = length;
      pool.unmapped.insert(tail);
    }
    b->mapped = true;
    reserved_from_driver += length;
    rise(stats.reserved, stats.reserved_peak, length);
    note(SegmentEvent::Kind::map, b->address, length, b->stream);
    Block* left = b->prev;
    if (left != nullptr && left->mapped && !left->allocated && !left->pending) {  // keep the left block's identity
      pool.free.erase(left);
      absorb(left, b);
      b = left;
    }
    merge_right(pool, b);
    b->born = pool.finds;
    pool.free.insert(b);
    return true;
  }

  void absorb(Block* left, Block* right) {
    left->size += right->size;
    left->next = right->next;
    if (right->next != nullptr) right->next->prev = left;
    discard(right);
  }
  void merge_right(Pool& pool, Block* b) {
    Block* right = b->next;
    if (right == nullptr || right->allocated || right->pending || right->mapped != b->mapped) return;
    (b->mapped ? static_cast<void>(pool.free.erase(right)) : static_cast<void>(pool.unmapped.erase(right)));
    absorb(b, right);
  }

  bool should_split(const Pool& pool, const Block& b, std::int64_t rounded) const {
    const std::int64_t rest = b.size - rounded;
    if (pool.small || config.expandable_segments) return rest >= kMinBlock;
    return rounded < max_split() && rest > kSmallSize;
  }

  Block* malloc(std::int64_t size, std::int64_t stream) {
    const std::int64_t rounded = round_size(size), wanted = alloc_size(rounded);
    Pool& pool = rounded <= kSmallSize ? small : large;
    const Candidate found = find(pool, rounded, stream);
    Block* b = found.block;
    if (b == nullptr && config.memory_fraction && config.garbage_collection_threshold > 0) collect_garbage();
    if (b == nullptr) b = from_driver(pool, rounded, wanted, stream);
    if (b == nullptr && config.max_split_size && release_oversize(pool, rounded, stream)) b = from_driver(pool, rounded, wanted, stream);
    if (b == nullptr) {
      ++stats.retries;
      release_cached();
      b = from_driver(pool, rounded, wanted, stream);
    }
    if (b == nullptr) {
      ++stats.ooms;
      return nullptr;
    }
    const bool was_split = b->split();
    if (should_split(pool, *b, rounded)) {
      Block* tail = make(*b);
      tail->address += rounded;
      tail->size -= rounded;
      tail->prev = b;
      tail->used_elsewhere = false;
      tail->born = pool.finds;
      if (b->next != nullptr) b->next->prev = tail;
      b->next = tail;
      b->size = rounded;
      if (found.row != nullptr) pool.free.replace(*found.row, found.at, tail);
      else pool.free.insert(tail);
      if (!b->expandable) stats.inactive_split += was_split ? Bytes(-rounded) : Bytes(tail->size);
    } else {
      if (found.row != nullptr) found.row->erase(found.at);
      if (was_split && !b->expandable) stats.inactive_split -= Bytes(b->size);
    }
    b->allocated = true;
    b->requested = size;
    hand_out(b);
    return b;
  }

  BlockId hand_out(Block* b) {
    b->id = static_cast<BlockId>(live.size());
    live.push_back(b);
    rise(stats.allocated, stats.allocated_peak, b->size);
    rise(stats.active, stats.active_peak, b->size);
    rise(stats.requested, stats.requested_peak, b->requested);
    return b->id;
  }

  // For restore: a block behind the last one of its segment; and what is reserved but not mapped, up to an address.
  Block* append(Block* last, Block fresh) {
    fresh.prev = last;
    Block* b = make(fresh);
    (last != nullptr ? last->next : segment_heads[b->address]) = b;
    return b;
  }
  Block* reserve_until(Block* last, std::int64_t address) {
    Block fresh = *last;
    fresh.address = last->address + last->size;
    fresh.size = address - fresh.address;
    if (fresh.size <= 0) return last;
    fresh.allocated = fresh.mapped = false;
    fresh.next = nullptr;
    fresh.requested = fresh.id = 0;
    Block* b = append(last, fresh);
    pool_of(*b).unmapped.insert(b);
    return b;
  }

  Block* find_live(BlockId id) const { return id > 0 && id < static_cast<BlockId>(live.size()) ? live[static_cast<std::size_t>(id)] : nullptr; }

  void free(BlockId id) {
    Block* b = find_live(id);
    if (b == nullptr) return;
    live[static_cast<std::size_t>(id)] = nullptr;
    b->allocated = false;
    stats.allocated -= Bytes(b->size);
    if (b->used_elsewhere) {
      b->pending = true;
      b->used_elsewhere = false;
      pending.push_back(b);
    } else {
      give_back(b);
    }
  }

  void give_back(Block* b) {
    Pool& pool = pool_of(*b);
    const std::int64_t own = b->size;
    stats.active -= Bytes(own);
    stats.requested -= Bytes(b->requested);
    std::int64_t net = 0;
    const auto mergeable = [&](const Block* n) { return n != nullptr && !n->allocated && !n->pending && n->mapped == b->mapped; };
    if (mergeable(b->prev)) {
      Block* left = b->prev;
      net -= left->size;
      pool.free.erase(left);
      absorb(left, b);
      b = left;
    }
    if (b->next != nullptr && !b->next->allocated && !b->next->pending && b->next->mapped) {
      net -= b->next->size;
      merge_right(pool, b);
    }
    b->requested = 0;
    b->born = pool.finds;
    pool.free.insert(b);
    if (!b->expandable) stats.inactive_split += Bytes(net + (b->split() ? b->size : 0));
  }

  void complete_events() {
    while (!pending.empty()) {
      Block* b = pending.front();
      pending.pop_front();
      b->pending = false;
      give_back(b);
    }
  }

  void release(Block* b) {
    pool_of(*b).free.erase(b);
    reserved_from_driver -= b->size;
    stats.reserved -= Bytes(b->size);
    --stats.segments;
    note(SegmentEvent::Kind::free, b->address, b->size, b->stream);
    segment_heads.erase(b->address);
    discard(b);
  }

  // Whole pages strictly inside a free block go back; head and tail stay mapped.
  void unmap(Block* b) {
    Pool& pool = pool_of(*b);
    const std::int64_t unit = page(pool);
    const std::int64_t start = round_up(b->address - b->segment, unit) + b->segment;
    const std::int64_t end = (b->address + b->size - b->segment) / unit * unit + b->segment;
    if (start >= end) return;
    pool.free.erase(b);
    if (start > b->address) split_off_front(pool, b, start - b->address);
    if (b->address + b->size > end) {
      Block rest = *b;
      rest.address = end;
      rest.size = b->address + b->size - end;
      rest.prev = b;
      Block* tail = make(rest);
      if (b->next != nullptr) b->next->prev = tail;
      b->next = tail;
      b->size = end - b->address;
      pool.free.insert(tail);
    }
    b->mapped = false;
    reserved_from_driver -= b->size;
    stats.reserved -= Bytes(b->size);
    note(SegmentEvent::Kind::unmap, b->address, b->size, b->stream);
    if (b->prev != nullptr && !b->prev->mapped) {
      Block* left = b->prev;
      pool.unmapped.erase(left);
      absorb(left, b);
      b = left;
    }
    merge_right(pool, b);
    if (!b->split()) {
      segment_heads.erase(b->address);
      discard(b);
      return;
    }
    pool.unmapped.insert(b);
  }

  void split_off_front(Pool& pool, Block* b, std::int64_t size) {
    Block front = *b;
    front.size = size;
    front.next = b;
    Block* head = make(front);
    if (b->prev != nullptr) b->prev->next = head;
    else segment_heads[head->address] = head;
    b->prev = head;
    b->address += size;
    b->size -= size;
    pool.free.insert(head);
  }

  void release_cached() {
    complete_events();
    std::vector<Block*> expandables;
    for (Pool* pool : {&large, &small}) {
      const std::vector<Block*> blocks = pool->free.blocks();
      for (Block* b : blocks) {
        if (b->expandable) expandables.push_back(b);
        else if (!b->split()) release(b);
      }
      for (Block* b : expandables) unmap(b);
      expandables.clear();
    }
  }

  // With a finite max_split_size: free oversize blocks of the stream, largest first, until enough is gone.
  bool release_oversize(Pool& pool, std::int64_t rounded, std::int64_t stream) {
    const std::int64_t least = std::max(rounded, max_split());
    Shelf::Row& row = pool.free.of(stream);
    const auto it = row.at_least(least);
    if (it != row.end()) {
      if (!it->block->split() && !it->block->expandable) release(it->block);
      return true;
    }
    std::int64_t total = 0;
    std::vector<Block*> chosen;
    for (auto down = it; down != row.begin() && total < least;) {
      --down;
      if (down->size < max_split()) break;
      total += down->size;
      chosen.push_back(down->block);
    }
    for (Block* b : chosen) {
      if (!b->split() && !b->expandable) release(b);
    }
    return total >= least;
  }

  // garbage_collection_threshold: unsplit free blocks of the large pool, oldest first by mean age.
  void collect_garbage() {
    const double allowed = *config.memory_fraction * static_cast<double>(device_total.count);
    const auto limit = static_cast<std::int64_t>(config.garbage_collection_threshold * allowed);
    if (reserved_from_driver <= limit) return;
    const std::int64_t target = reserved_from_driver - limit;
    std::int64_t freed = 0;
    const auto age = [&](const Block* b) { return static_cast<double>(large.finds - b->born); };
    double ages = 0;
    int count = 0;
    for (const Block* b : large.free.blocks()) {
      if (!b->split() && !b->expandable) ages += age(b), ++count;
    }
    bool some = true;
    while (freed < target && some && count > 0) {
      some = false;
      const double threshold = ages / count;
      const std::vector<Block*> blocks = large.free.blocks();
      for (Block* b : blocks) {
        if (freed >= target) break;
        if (b->split() || b->expandable || age(b) < threshold) continue;
        some = true;
        freed += b->size;
        ages -= age(b);
        --count;
        release(b);
      }
    }
  }
};

CachingAllocator::CachingAllocator(AllocatorConfig config, std::optional<Bytes> capacity) : impl_(std::make_unique<Impl>(std::move(config), capacity)) {}
CachingAllocator::~CachingAllocator() = default;
CachingAllocator::CachingAllocator(CachingAllocator&&) noexcept = default;
CachingAllocator& CachingAllocator::operator=(CachingAllocator&&) noexcept = default;

void CachingAllocator::set_segment_addresses(std::function<std::int64_t(Bytes)> next) { impl_->next_address = std::move(next); }
void CachingAllocator::set_capacity(std::optional<Bytes> capacity) { impl_->capacity = capacity; }
void CachingAllocator::set_device_total(Bytes total) { impl_->device_total = total; }

std::vector<BlockId> CachingAllocator::restore(const std::vector<SegmentView>& segments) {
  std::vector<BlockId> ids;
  std::map<std::pair<std::int64_t, bool>, Block*> open;  // last block of the reservation of a stream and pool
  for (const SegmentView& segment : segments) {
    impl_->lowest = std::min(impl_->lowest, segment.address / (32 << 20) * (32 << 20));
    Block fresh;
    fresh.stream = segment.stream;
    fresh.small = segment.small_pool;
    fresh.segment = segment.address;
    fresh.expandable = segment.expandable;
    Block* last = nullptr;
    if (segment.expandable) {
      Block*& end = open[{segment.stream, segment.small_pool}];
      const bool same = end != nullptr && segment.address + segment.size.count <= end->segment + impl_->reservation(impl_->pool_of(*end));
      if (end != nullptr) last = impl_->reserve_until(end, same ? segment.address : end->segment + impl_->reservation(impl_->pool_of(*end)));
      if (same) fresh.segment = last->segment;
      else last = nullptr;
    }
    std::vector<Block*> made;
    for (const BlockView& view : segment.blocks) {
      fresh.address = view.address;
      fresh.size = view.size.count;
      fresh.requested = view.requested.count;
      fresh.allocated = view.allocated;
      made.push_back(last = impl_->append(last, fresh));
      if (view.allocated) ids.push_back(impl_->hand_out(last));
    }
    if (segment.expandable) open[{segment.stream, segment.small_pool}] = last;
    for (Block* b : made) {
      if (b->allocated) continue;
      impl_->pool_of(*b).free.insert(b);
      if (b->split() && !b->expandable) impl_->stats.inactive_split += Bytes(b->size);
    }
    impl_->reserved_from_driver += segment.size.count;
    rise(impl_->stats.reserved, impl_->stats.reserved_peak, segment.size.count);
    if (!segment.expandable) ++impl_->stats.segments;
  }
  for (const auto& [key, end] : open) impl_->reserve_until(end, end->segment + impl_->reservation(impl_->pool_of(*end)));
  return ids;
}

std::optional<BlockId> CachingAllocator::take(Bytes size, std::int64_t stream) {
  if (size.count <= 0) return BlockId{0};
  const Block* b = impl_->malloc(size.count, stream);
  return b != nullptr ? std::optional(b->id) : std::nullopt;
}
Result<BlockId> CachingAllocator::malloc(Bytes size, std::int64_t stream) {
  if (const auto block = take(size, stream)) return *block;
  return fail("out_of_memory", "the allocator cannot get " + std::to_string(impl_->alloc_size(impl_->round_size(size.count))) + " bytes",
              "use a smaller device batch or a GPU with more memory");
}
void CachingAllocator::free(BlockId block) { impl_->free(block); }
void CachingAllocator::record_stream(BlockId block, std::int64_t stream) {
  Block* b = impl_->find_live(block);
  if (b != nullptr && b->stream != stream) b->used_elsewhere = true;
}
void CachingAllocator::complete_events() { impl_->complete_events(); }
void CachingAllocator::empty_cache() { impl_->release_cached(); }
std::int64_t CachingAllocator::address_of(BlockId block) const {
  const Block* b = impl_->find_live(block);
  return b == nullptr ? 0 : b->address;
}
Bytes CachingAllocator::size_of(BlockId block) const {
  const Block* b = impl_->find_live(block);
  return Bytes(b == nullptr ? 0 : b->size);
}
Bytes CachingAllocator::round_size(Bytes size) const { return Bytes(impl_->round_size(size.count)); }
Bytes CachingAllocator::alloc_size(Bytes rounded) const { return Bytes(impl_->alloc_size(rounded.count)); }
const AllocatorStats& CachingAllocator::stats() const { return impl_->stats; }
const std::vector<SegmentEvent>& CachingAllocator::segment_events() const { return impl_->events; }

std::vector<SegmentView> CachingAllocator::segments() const {
  std::vector<SegmentView> out;
  for (const auto& [address, head] : impl_->segment_heads) {
    SegmentView* current = nullptr;  // an expandable reservation shows each mapped stretch as a segment
    for (const Block* b = head; b != nullptr; b = b->next) {
      if (!b->mapped) {
        current = nullptr;
        continue;
      }
      if (current == nullptr) {
        out.push_back({b->address, Bytes(0), b->stream, b->small, b->expandable, {}});
        current = &out.back();
      }
      current->size += Bytes(b->size);
      current->blocks.push_back({b->address, Bytes(b->size), Bytes(b->requested), b->allocated, b->pending, b->stream, b->small});
    }
  }
  return out;
}

}  // namespace dryfit
