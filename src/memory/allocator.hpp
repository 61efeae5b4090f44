// PyTorch's native CUDA caching allocator, simulated to the byte: rounding, pools, splitting, best fit, segments,
// release and retry, expandable segments, garbage collection. Says what max_memory_allocated and max_memory_reserved print.
// Not here: what calls it (passes/), memory outside the pool (memory/outside.hpp).
// Sources: c10/cuda/CUDACachingAllocator.cpp of PyTorch 2.6 (behaviour unchanged to 2.9.1 where not noted).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "base/result.hpp"

namespace dryfit {

// PYTORCH_CUDA_ALLOC_CONF. Sizes in bytes.
struct AllocatorConfig {
  bool expandable_segments = false;
  std::optional<Bytes> max_split_size;             // max_split_size_mb; none = unlimited
  Bytes max_non_split_rounding = mib(20);          // max_non_split_rounding_mb
  double garbage_collection_threshold = 0;         // 0 = off; acts only with a memory fraction
  std::vector<std::int64_t> roundup_power2_divisions;  // empty, or 16 entries for 1 MiB .. 64 GiB
  Bytes large_segment_size = mib(20);
  std::optional<double> memory_fraction;           // set_per_process_memory_fraction
};
// "expandable_segments:True,max_split_size_mb:128,roundup_power2_divisions:[256:1,512:2,>:8]". Errors: "bad_alloc_conf".
Result<AllocatorConfig> parse_alloc_conf(std::string_view text);

constexpr std::int64_t kSmallSize = 1 << 20;  // bytes: blocks up to here lie in the small pool

using BlockId = std::int64_t;

struct AllocatorStats {
  Bytes allocated, allocated_peak, active, active_peak, reserved, reserved_peak, requested, requested_peak;
  Bytes inactive_split;
  std::int64_t segments = 0, retries = 0, ooms = 0;
};

// What the simulator did, for replay tests and pictures.
struct SegmentEvent { enum class Kind { alloc, free, map, unmap } kind; std::int64_t address; Bytes size; std::int64_t stream; };
struct BlockView { std::int64_t address; Bytes size, requested; bool allocated, pending_free; std::int64_t stream; bool small_pool; };
struct SegmentView { std::int64_t address; Bytes size; std::int64_t stream; bool small_pool, expandable; std::vector<BlockView> blocks; };

class CachingAllocator {
 public:
  // capacity: what cudaMalloc may hand out in all (device memory left to this process); none = unlimited.
  CachingAllocator(AllocatorConfig config, std::optional<Bytes> capacity);
  ~CachingAllocator();
  CachingAllocator(CachingAllocator&&) noexcept;
  CachingAllocator& operator=(CachingAllocator&&) noexcept;

  // For replays: the address cudaMalloc (or the reservation of an expandable segment) gives next. Otherwise each lies below the one before it, at a multiple
  // of 32 MiB, as Linux drivers place them (tests/golden/traces): which of two equal blocks is taken hangs on it.
  void set_segment_addresses(std::function<std::int64_t(Bytes size)> next);
  // Expandable segments reserve 1.125 times the device's memory as addresses; capacity when not set.
  void set_device_total(Bytes total);

  // Another capacity from now on: a neighbour on the card took memory, or gave it back.
  void set_capacity(std::optional<Bytes> capacity);

  // Starts from a recorded state instead of an empty device: segments with their blocks, which tile them. Before any malloc.
  // Expandable ones, by address: each mapped stretch of a reservation is a segment; a reservation is taken to begin at the first.
  // Returns the ids of the allocated blocks, in the order given.
  std::vector<BlockId> restore(const std::vector<SegmentView>& segments);

  // Returns a block, or "out_of_memory" after the same retries PyTorch makes. size 0 gives block 0 and changes nothing.
  Result<BlockId> malloc(Bytes size, std::int64_t stream = 0);
  std::optional<BlockId> take(Bytes size, std::int64_t stream = 0);  // the same, where nobody reads why there is none
  void free(BlockId block);                                   // on the stream it was made on
  void record_stream(BlockId block, std::int64_t stream);     // its free completes only after complete_events()
  void complete_events();                                     // all pending stream uses are over
  void empty_cache();
  std::int64_t address_of(BlockId block) const;
  Bytes size_of(BlockId block) const;                         // as handed out
  // Size PyTorch would request from CUDA for this size (what the OOM text prints) and the rounded block size.
  Bytes round_size(Bytes size) const;
  Bytes alloc_size(Bytes rounded) const;
  const AllocatorStats& stats() const;
  std::vector<SegmentView> segments() const;                  // by address
  const std::vector<SegmentEvent>& segment_events() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dryfit
