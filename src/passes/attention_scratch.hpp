// What the backward kernels of attention take beside their results, whoever calls them: nanochat's compiled step, the eager engine, another compiled function.
#pragma once

#include <cstdint>
#include <vector>

#include "passes/efficient_attention.hpp"
#include "workload/workload.hpp"

namespace dryfit {

struct AttentionBackwardCall {
  Attention kind = Attention::flash;
  EfficientCall of;                // batch, heads of queries, lengths, head sizes, dtype, dropout
  std::int64_t key_heads = 1;
  bool causal = true;
  std::int64_t sequences = 0;      // that a row is made of, each as long (kernels of varying lengths); 0: rows are not packed
  bool sums_given = false;         // FlashAttention 3: the caller holds the row sums
  int capability = 80;             // of the GPU, as 10 * major + minor
};

struct ScratchTensor {
  const char* role;
  Dtype dtype;
  std::vector<std::int64_t> size;  // the first in proportion to the batch
};

// In the order in which they are made; let go in the reverse one.
struct AttentionScratch {
  std::vector<ScratchTensor> before;  // of torch's own ops before the kernel: gone once the first beside it is there
  std::vector<ScratchTensor> beside;  // while the kernel runs
};
AttentionScratch backward_scratch(const AttentionBackwardCall& call);

}  // namespace dryfit
