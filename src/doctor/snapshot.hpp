// A CUDA memory snapshot (torch.cuda.memory._dump_snapshot) as compact values: segments and blocks at the end, the trace of every device.
// Texts, frames and stacks are kept once and named by number. What it means is snapshot_report.hpp; how it is read, snapshot_store.hpp.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "base/chunked.hpp"
#include "base/span_pool.hpp"
#include "memory/allocator.hpp"

namespace dryfit {

// as wide as what it shares a word with below: the ABI of Windows packs only what is equally wide
enum class Action : std::uint32_t { alloc, free_requested, free_completed, segment_alloc, segment_free, segment_map, segment_unmap, snapshot, oom, other };
std::string_view name_of(Action action);

struct TraceEntry {
  std::int64_t address = 0;            // oom: what the driver had left (device_free)
  std::uint64_t size : 48 = 0;         // alloc, free: as requested; segments: as mapped; oom: the rounded request
  std::uint64_t stream : 16 = 0;       // number in Snapshot::streams
  std::int64_t time_us = 0;            // since 1970; 0: not recorded (before 2.2)
  std::uint32_t stack = 0;
  Action action : 8 = Action::other;
  std::uint32_t metadata : 24 = 0;     // text that the user set (user_metadata)
  Bytes bytes() const { return Bytes(static_cast<std::int64_t>(size)); }
};
static_assert(sizeof(TraceEntry) == 32);

enum class BlockState : std::uint8_t { inactive, allocated, pending_free };

struct SnapshotBlock {
  std::int64_t address = 0;
  Bytes size, requested;
  std::uint32_t stack = 0;
  BlockState state = BlockState::inactive;
};

// An expandable reservation has one entry for each mapped stretch.
struct SnapshotSegment {
  std::int64_t address = 0, stream = 0, device = 0;
  Bytes size, allocated, active, requested;
  bool small = false, expandable = false, private_pool = false;
  std::size_t first_block = 0, blocks = 0;
  std::uint32_t stack = 0;
};

struct Annotation { std::uint32_t name = 0; std::int64_t device = 0, time_us = 0; bool start = false; };

struct StackFrame { std::string_view file, function; std::int64_t line = 0; };

struct Snapshot {
  struct Trace { std::int64_t device = 0; std::size_t first = 0, count = 0; };

  SpanPool<char> texts;
  SpanPool<std::uint32_t> frames;        // file, function, line
  SpanPool<std::uint32_t> stacks;        // frames, innermost first
  Chunked<TraceEntry> entries;
  std::vector<Trace> traces;             // with at least one entry, by device
  std::vector<SnapshotSegment> segments;
  std::vector<SnapshotBlock> blocks;
  std::vector<std::int64_t> streams;     // handles
  std::vector<Annotation> annotations;   // torch 2.5 and newer: profiler marks, such as the optimizer's steps
  std::optional<AllocatorConfig> settings;  // torch 2.1 and newer
  std::string conf;                      // PYTORCH_CUDA_ALLOC_CONF as recorded
  std::vector<std::string> notes;        // what could not be used
  std::int64_t bytes = 0;                // of the file
  bool json = false;

  std::string_view text(std::uint32_t number) const { const auto s = texts[number]; return {s.data(), s.size()}; }
  StackFrame frame(std::uint32_t number) const {
    const auto f = frames[number];
    return f.size() == 3 ? StackFrame{text(f[0]), text(f[1]), static_cast<std::int64_t>(f[2])} : StackFrame{};
  }
  std::span<const std::uint32_t> stack(std::uint32_t number) const { return stacks[number]; }
};

}  // namespace dryfit
