// How the pools are cut up at the end of a snapshot: sums for each pool, and every segment piece by piece. See snapshot_report.hpp.
#include <algorithm>

#include "doctor/snapshot_trace.hpp"

namespace dryfit {

namespace {

constexpr std::size_t kMostPieces = 96;

// Neighbours of one kind become one piece; of a segment with too many the smallest pieces join their left neighbour.
void join(std::vector<SegmentMap::Piece>& pieces, std::int64_t total) {
  std::vector<SegmentMap::Piece> out;
  const auto alike = [](const SegmentMap::Piece& a, const SegmentMap::Piece& b) { return a.free == b.free && a.pending == b.pending && (a.free || a.owner == b.owner); };
  for (const SegmentMap::Piece& p : pieces) {
    if (!out.empty() && alike(out.back(), p)) out.back().size += p.size;
    else out.push_back(p);
  }
  if (out.size() > kMostPieces) {
    std::vector<SegmentMap::Piece> coarse;
    const std::int64_t least = total / static_cast<std::int64_t>(kMostPieces);
    for (const SegmentMap::Piece& p : out) {
      if (!coarse.empty() && coarse.back().size.count < least) {
        SegmentMap::Piece& left = coarse.back();
        if (p.size > left.size) left.owner = p.owner, left.free = p.free, left.pending = p.pending;
        left.size += p.size;
      } else {
        coarse.push_back(p);
      }
    }
    out = std::move(coarse);
  }
  pieces = std::move(out);
}

}  // namespace

std::vector<PoolState> pools_of(const Snapshot& snapshot, std::int64_t device) {
  std::vector<PoolState> out;
  for (const SnapshotSegment& s : snapshot.segments) {
    if (s.device != device) continue;
    const std::string name = std::string(s.private_pool ? "private " : "") + (s.small ? "small" : "large");
    auto pool = std::ranges::find(out, name, &PoolState::name);
    if (pool == out.end()) pool = out.insert(out.end(), {name, {}, {}, {}, {}, {}, {}, {}, 0});
    pool->reserved += s.size;
    ++pool->segments;
    Bytes used;
    for (std::size_t i = 0; i < s.blocks; ++i) {
      const SnapshotBlock& b = snapshot.blocks[s.first_block + i];
      if (b.state == BlockState::allocated) pool->allocated += b.size;
      else if (b.state == BlockState::pending_free) pool->pending += b.size;
      if (b.state != BlockState::inactive) {
        used += b.size;
        continue;
      }
      pool->largest_free = std::max(pool->largest_free, b.size);
      if (s.blocks > 1 && !s.expandable) pool->inactive_split += b.size;
    }
    pool->free += s.size - used;
    if (used == Bytes(0)) pool->empty_segments += s.size;
  }
  std::ranges::stable_sort(out, std::greater<>{}, &PoolState::reserved);
  return out;
}

std::vector<SegmentMap> map_of(const Snapshot& snapshot, std::int64_t device, const StackPlaces& places, const std::map<std::int64_t, LiveBlock>& live) {
  std::vector<SegmentMap> out;
  for (const SnapshotSegment& s : snapshot.segments) {
    if (s.device != device || s.size <= Bytes(0)) continue;
    SegmentMap map{s.address, s.size, Bytes(0), Bytes(0), s.small, s.expandable, s.private_pool, {}};
    std::int64_t at = s.address;
    const auto add = [&](Bytes size, std::size_t owner, bool free, bool pending) {
      if (size <= Bytes(0)) return;
      map.pieces.push_back({size, owner, free, pending});
      if (!free) return;
      map.free += size;
      map.largest_free = std::max(map.largest_free, size);
    };
    for (std::size_t i = 0; i < s.blocks; ++i) {
      const SnapshotBlock& b = snapshot.blocks[s.first_block + i];
      add(Bytes(b.address - at), kUnknownOwner, true, false);
      const auto found = live.find(b.address);
      const bool known = found != live.end() && found->second.entry != LiveBlock::kStart;
      const std::size_t by_stack = b.stack == 0 ? (live.empty() ? kUnknownOwner : kBeforeTrace) : owner_of_place(places.of(b.stack));
      add(b.size, known ? found->second.owner : by_stack, b.state == BlockState::inactive, b.state == BlockState::pending_free);
      at = b.address + b.size.count;
    }
    add(Bytes(s.address + s.size.count - at), kUnknownOwner, true, false);
    join(map.pieces, s.size.count);
    out.push_back(std::move(map));
  }
  std::ranges::stable_sort(out, [](const SegmentMap& a, const SegmentMap& b) { return std::pair(b.free, b.size) < std::pair(a.free, a.size); });
  return out;
}

}  // namespace dryfit
