// The words of a snapshot and the limits of its numbers. Part of snapshot_store. Field names: torch/csrc/cuda/Module.cpp and
// memory_snapshot.cpp of PyTorch 1.13 to 2.11.
#pragma once

#include <cstdint>
#include <iterator>
#include <string_view>

namespace dryfit::snapshot_words {

// Texts the store looks for. They are interned first, in this order, so that a text's number tells which one it is.
enum Word : std::uint32_t {
  kEmpty, kAction, kAddr, kSize, kStream, kTimeUs, kFrames, kDeviceFree, kUserMetadata, kFilename, kName, kLine, kAddress, kRequestedSize, kState, kHistory, kRealSize,
  kDevice, kTotalSize, kAllocatedSize, kActiveSize, kSegmentType, kSegmentPoolId, kIsExpandable, kBlocks,
  kActive, kPending, kAwaiting, kInactive, kSmall, kLarge, kFirstAction,
};
constexpr std::string_view kWords[] = {
    "", "action", "addr", "size", "stream", "time_us", "frames", "device_free", "user_metadata", "filename", "name", "line", "address", "requested_size", "state", "history", "real_size",
    "device", "total_size", "allocated_size", "active_size", "segment_type", "segment_pool_id", "is_expandable", "blocks",
    "active_allocated", "active_pending_free", "active_awaiting_free", "inactive", "small", "large"};
constexpr std::string_view kActions[] = {"alloc", "free_requested", "free_completed", "segment_alloc", "segment_free", "segment_map", "segment_unmap", "snapshot", "oom", "other"};
static_assert(std::size(kWords) == kFirstAction);

constexpr std::int64_t kMostSize = std::int64_t{1} << 44;     // 16 TiB: no device has it
constexpr std::int64_t kMostTotal = std::int64_t{1} << 61;    // of all sizes: sums stay far from 2^63
constexpr std::int64_t kMostAddress = std::int64_t{1} << 61;  // either sign: the highest addresses of XPUs read as negative

}  // namespace dryfit::snapshot_words
