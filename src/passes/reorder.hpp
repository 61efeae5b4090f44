// Inductor's choice of an order of kernels: its own, or one of three others where that has a lower peak by its own count.
// Source: torch/_inductor/memory.py, reorder_for_peak_memory (2.9.1).
#pragma once

#include <cstdint>
#include <vector>

namespace dryfit {

// Kernels and the buffers between them, as Inductor's scheduler counts them: one that brings several results makes them all at once, and every
// result is then a node of its own that makes nothing and frees itself.
struct Schedule {
  struct Buffer {
    std::int64_t made = 0, freed = 0;  // bytes, when its node runs and after its last reader
    bool output = false;               // of the graph: counted as freed before anything runs
    std::int32_t node = -1;            // what makes it; -1: given to the graph
    std::vector<std::int32_t> readers; // nodes, ascending, once each; of what is written into also those that read the result
  };
  struct Node {
    std::vector<std::int32_t> makes, needs;  // buffers; needs: which it waits for itself
  };
  std::vector<Buffer> buffers;
  std::vector<Node> nodes;             // in an order that respects what each needs
};

// Bytes at each step of an order, and after it. Inductor's count: nothing is reused or written onto, and what the graph returns is taken off from the start.
std::vector<std::int64_t> memory_at_steps(const Schedule& schedule, const std::vector<std::int32_t>& order);
std::int64_t peak_of(const std::vector<std::int64_t>& memory);

// The order with the lowest peak, the given one first among equals, and its memory_at_steps().
struct OrderedKernels { std::vector<std::int32_t> order; std::vector<std::int64_t> memory; };
OrderedKernels least_peak_order(const Schedule& schedule);

}  // namespace dryfit
