// Memory of a training process that PyTorch's allocator does not see: CUDA context, loaded kernels, NCCL buffers.
// Ranges are measured figures of others (OOM texts, NCCL issues), listed in docs/formulas.md; a card's own are learned by `dryfit calibrate`.
#pragma once

#include <string_view>

#include "base/bytes.hpp"

namespace dryfit {

struct OutsideMemory {
  Bytes low, middle, high;
  friend OutsideMemory operator+(const OutsideMemory& a, const OutsideMemory& b) { return {a.low + b.low, a.middle + b.middle, a.high + b.high}; }
};

// CUDA context and kernels, by compute capability (0.0: unknown) and version of torch ("": unknown).
OutsideMemory context_memory(int compute_major, int compute_minor, std::string_view torch);
// Buffers of the first communicator, by number of GPUs in it; nothing for one.
OutsideMemory nccl_memory(std::int64_t world_size);
// Both.
OutsideMemory outside_memory(int compute_major, int compute_minor, std::int64_t world_size, std::string_view torch = {});

}  // namespace dryfit
