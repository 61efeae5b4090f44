// The allocator by hand-derived cases, and its invariants under random use.
#include "memory/allocator.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include "memory/shelf.hpp"

namespace dryfit {
namespace {

// Rows of free blocks against the set that PyTorch has: few sizes and many, more equal ones than a page holds.
TEST(Shelf, isAnOrderedSet) {
  const auto less = [](const Block* a, const Block* b) { return std::pair(a->size, a->address) < std::pair(b->size, b->address); };
  std::mt19937 random(7);
  for (const std::int64_t sizes : {1, 3, 5000}) {
    std::vector<Block> blocks(3000);
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      blocks[i].address = static_cast<std::int64_t>(random() % 10'000'000 * 4096 + i);
      blocks[i].size = 512 * (1 + static_cast<std::int64_t>(random() % static_cast<std::uint32_t>(sizes)) * (sizes > 3 ? 977 : 40'000));
    }
    Shelf shelf(true);
    std::set<Block*, decltype(less)> set(less);
    for (int step = 0; step < 12'000; ++step) {
      Block* b = &blocks[random() % blocks.size()];
      if (step % 4000 > 3000 ? set.contains(b) : !set.contains(b)) {  // grows, then shrinks
        set.contains(b) ? shelf.erase(b) : shelf.insert(b);
        set.contains(b) ? static_cast<void>(set.erase(b)) : static_cast<void>(set.insert(b));
      }
      Block asked;
      asked.size = b->size + 512 * (step % 3 - 1);
      asked.address = std::numeric_limits<std::int64_t>::min();
      const Shelf::Row& row = shelf.of(0);
      const auto found = row.at_least(asked.size);
      const auto expected = set.lower_bound(&asked);
      ASSERT_EQ(found == row.end(), expected == set.end());
      if (expected == set.end()) continue;
      ASSERT_EQ(found->block, *expected);
      if (step % 8 == 0) {
        shelf.replace(shelf.of(0), found, *expected);  // itself: nothing changes
        ASSERT_EQ(shelf.of(0).at_least(asked.size)->block, *expected);
      }
      if (step % 1000 == 0) {
        ASSERT_TRUE(std::ranges::equal(shelf.blocks(), set));
        std::vector<Block*> down;
        for (auto it = row.end(); it != row.begin();) down.push_back((--it)->block);
        ASSERT_TRUE(std::equal(down.begin(), down.end(), set.rbegin(), set.rend()));
      }
    }
  }
}

TEST(Rounding, blocksAndSegments) {
  const CachingAllocator a({}, std::nullopt);
  EXPECT_EQ(a.round_size(Bytes(1)), Bytes(512));
  EXPECT_EQ(a.round_size(Bytes(513)), Bytes(1024));
  EXPECT_EQ(a.alloc_size(Bytes(1 << 20)), mib(2));        // exactly 1 MiB is small
  EXPECT_EQ(a.alloc_size(Bytes((1 << 20) + 512)), mib(20));
  EXPECT_EQ(a.alloc_size(mib(10)), mib(10));
  EXPECT_EQ(a.alloc_size(mib(11) + Bytes(512)), mib(12));
}

TEST(Rounding, powerOfTwoDivisions) {
  AllocatorConfig config;
  config.roundup_power2_divisions.assign(16, 4);
  const CachingAllocator a(config, std::nullopt);
  EXPECT_EQ(a.round_size(Bytes(1200)), Bytes(1536));  // below 512 x 4: plain rounding
  EXPECT_EQ(a.round_size(Bytes(4096)), Bytes(4096));
  EXPECT_EQ(a.round_size(Bytes(4097)), Bytes(5120));
}

TEST(Splitting, smallAlwaysLargeAboveOneMebibyte) {
  CachingAllocator a({}, std::nullopt);
  const BlockId one = *a.malloc(Bytes(512));
  EXPECT_EQ(a.stats().reserved, mib(2));
  const BlockId two = *a.malloc(Bytes(1024));
  EXPECT_EQ(a.address_of(two), a.address_of(one) + 512);
  CachingAllocator b({}, std::nullopt);
  (void)*b.malloc(mib(19) + Bytes(512));  // own segment of 20 MiB, less than 1 MiB over: handed out whole
  EXPECT_EQ(b.stats().allocated, mib(20));
  (void)*b.malloc(mib(5));                // 20 MiB segment, 15 MiB left over
  EXPECT_EQ(b.stats().allocated, mib(25));
  EXPECT_EQ(b.stats().inactive_split, mib(15));
}

TEST(Freeing, neighboursMergeAndCacheIsReused) {
  CachingAllocator a({}, std::nullopt);
  const BlockId x = *a.malloc(mib(4)), y = *a.malloc(mib(4)), z = *a.malloc(mib(4));
  const std::int64_t first = a.address_of(x);
  a.free(x);
  a.free(z);
  a.free(y);
  EXPECT_EQ(a.stats().inactive_split, Bytes(0));
  EXPECT_EQ(a.address_of(*a.malloc(mib(8))), first);
  EXPECT_EQ(a.stats().reserved, mib(20));
}

TEST(OutOfMemory, releasesItsCacheFirst) {
  CachingAllocator a({}, mib(100));
  const BlockId x = *a.malloc(mib(60));
  a.free(x);
  EXPECT_TRUE(a.malloc(mib(90)));  // the cached 60 go back to the driver
  EXPECT_EQ(a.stats().retries, 1);
  EXPECT_FALSE(a.malloc(mib(20)));
  EXPECT_EQ(a.stats().ooms, 1);
}

TEST(Expandable, growsByPagesWithoutSlack) {
  AllocatorConfig config;
  config.expandable_segments = true;
  CachingAllocator a(config, gib(1));
  const BlockId x = *a.malloc(mib(19) + Bytes(512));
  EXPECT_EQ(a.stats().allocated, mib(19) + Bytes(512));
  EXPECT_EQ(a.stats().reserved, mib(20));
  const BlockId y = *a.malloc(mib(30));
  EXPECT_EQ(a.address_of(y), a.address_of(x) + mib(19).count + 512);
  EXPECT_EQ(a.stats().reserved, mib(60));
  a.free(x);
  a.free(y);
  a.empty_cache();
  EXPECT_EQ(a.stats().reserved, Bytes(0));
}

TEST(Streams, otherStreamsHoldABlockBack) {
  CachingAllocator a({}, std::nullopt);
  const BlockId x = *a.malloc(mib(4), 1);
  a.record_stream(x, 2);
  a.free(x);
  EXPECT_EQ(a.stats().allocated, Bytes(0));
  EXPECT_EQ(a.stats().active, mib(4));
  a.complete_events();
  EXPECT_EQ(a.stats().active, Bytes(0));
}

void check_invariants(const CachingAllocator& a) {
  Bytes reserved, allocated;
  for (const SegmentView& s : a.segments()) {
    std::int64_t at = s.address;
    bool last_free = false;
    for (const BlockView& b : s.blocks) {
      RC_ASSERT(b.address == at);
      RC_ASSERT(!(last_free && !b.allocated && !b.pending_free));
      last_free = !b.allocated && !b.pending_free;
      at += b.size.count;
      if (b.allocated) allocated += b.size;
    }
    RC_ASSERT(at == s.address + s.size.count);
    reserved += s.size;
  }
  RC_ASSERT(reserved == a.stats().reserved);
  RC_ASSERT(allocated == a.stats().allocated);
  RC_ASSERT(a.stats().reserved_peak >= a.stats().reserved);
  RC_ASSERT(a.stats().allocated_peak >= a.stats().allocated);
}

TEST(Invariants, holdUnderRandomUse) {
  EXPECT_TRUE(rc::check("blocks tile segments, sums are the statistics", [] {
    AllocatorConfig config;
    config.expandable_segments = *rc::gen::arbitrary<bool>();
    if (*rc::gen::arbitrary<bool>()) config.max_split_size = mib(*rc::gen::inRange(21, 200));
    CachingAllocator a(config, gib(2));
    std::vector<BlockId> live;
    const auto steps = *rc::gen::container<std::vector<std::pair<int, std::uint32_t>>>(rc::gen::pair(rc::gen::inRange(0, 10), rc::gen::arbitrary<std::uint32_t>()));
    for (const auto& [what, value] : steps) {
      if (what < 6) {
        const std::int64_t size = what < 3 ? value % (1 << 20) : value % (80 << 20);
        if (const auto b = a.malloc(Bytes(size), what % 2); b && *b != 0) live.push_back(*b);
      } else if (what < 9 && !live.empty()) {
        const std::size_t i = value % live.size();
        if (what == 8) a.record_stream(live[i], 3);
        a.free(live[i]);
        live.erase(live.begin() + static_cast<std::ptrdiff_t>(i));
      } else if (what == 9) {
        a.empty_cache();
      }
      check_invariants(a);
    }
    for (BlockId b : live) a.free(b);
    a.empty_cache();
    RC_ASSERT(a.stats().reserved == Bytes(0));
    RC_ASSERT(a.stats().active == Bytes(0));
    RC_ASSERT(a.stats().inactive_split == Bytes(0));
  }));
}

}  // namespace
}  // namespace dryfit
