// What Inductor makes of a graph: which values get memory, which kernels write them, in which order, and when buffers are
// taken over, reused or freed. Source: torch/_inductor/{scheduler,memory}.py and codegen/wrapper.py (2.9.1).
#pragma once

#include <utility>
#include <vector>

#include "graph/graph.hpp"

namespace dryfit {

// One change of memory: the buffer of `node` comes to life or dies around kernel `op` (named by its last node).
struct BufferStep {
  bool alloc;
  NodeId node;
  NodeId op;
  NodeId from = kNone;             // of an alloc: whose memory it takes over as it is; that one's end is the step before
};

// One kernel as launched: what it writes last names it. Bytes it must move, those proportional to the device batch apart: every
// stored value it reads once (of a table or a longer buffer no more than the kernel has elements), every value it writes once.
struct Launch {
  NodeId op;
  double fixed_bytes = 0, batched_bytes = 0;
  bool reduces = false;            // sums or maxima over rows, or over everything, are part of it
};

constexpr int kTimedConfigurations = 2;  // that stand for all of a kernel

// A kernel that Inductor has several configurations for, at its first launch: each is timed before one is chosen. Where its caches know the kernel none is.
struct Timing {
  std::int32_t step;               // it is launched when so many of the steps are done
  std::vector<NodeId> in_place;    // what it writes where it has read: each try has copies of these
};

// Loops of up to so many elements have one configuration, others have two.
constexpr std::int64_t kTinyLoop = 128;

// Those of a half that is played for the first time, in order.
struct TimingsToCome {
  std::vector<Timing> all;
  std::size_t next = 0;
  // The next that is launched when so many steps are done; nullptr: none is left of them.
  const Timing* after(std::size_t done) { return next < all.size() && static_cast<std::size_t>(all[next].step) <= done ? &all[next++] : nullptr; }
};

struct FuseInput {
  const Graph* graph;
  std::vector<NodeId> compute;   // nodes to run, in graph order (recomputed ones where they are first needed)
  std::vector<NodeId> borrowed;  // available, owned by the caller: never freed or overwritten
  std::vector<NodeId> given;     // available and given away: freed after their last use, may be overwritten
  std::vector<NodeId> outputs;   // stay alive at the end
  std::vector<NodeId> shared = {};  // of those given, what somebody else names too: never overwritten
  std::vector<NodeId> parts = {};   // views of those given, handed over beside them
  std::vector<NodeId> views = {};   // of outputs, which are what is returned
};

struct FuseResult {
  std::vector<BufferStep> steps;
  std::vector<NodeId> outputs;   // per FuseInput::outputs: the node that owns the storage
  std::vector<Launch> launches;  // in order
  std::vector<std::pair<NodeId, std::int64_t>> spread;  // sums in parts that stand for the workspace of a kernel that reduces in both orders: its elements
  std::vector<Timing> timings = {};  // in order
};

FuseResult fuse(const FuseInput& input);
// Without torch.compile: every op is a kernel of its own and nothing is fused, reused or overwritten.
FuseResult run_eagerly(const FuseInput& input);

}  // namespace dryfit
