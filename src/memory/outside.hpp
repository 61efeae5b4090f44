// Memory of a training process that PyTorch's allocator does not see: CUDA context, loaded kernels, NCCL buffers.
// Ranges are measured figures of others (OOM texts, NCCL issues), listed in docs/formulas.md; a card's own are learned by use.
#pragma once

#include "base/bytes.hpp"

namespace dryfit {

struct OutsideMemory { Bytes low, middle, high; };

// By compute capability and number of GPUs in the communicator.
OutsideMemory outside_memory(int compute_major, int compute_minor, std::int64_t world_size);

}  // namespace dryfit
