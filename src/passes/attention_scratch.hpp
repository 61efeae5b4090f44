// What the backward kernels of attention take beside their results, whoever calls them: nanochat's compiled step, the eager engine, another compiled function.
#pragma once

#include <cstdint>
#include <type_traits>
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

// Both lists in that order: make(item) of each, let_go(what it made) of what goes.
template <class Item, class Make, class LetGo>
void play_scratch(const std::vector<Item>& before, const std::vector<Item>& beside, Make make, LetGo let_go) {
  using Made = std::invoke_result_t<Make, const Item&>;
  std::vector<Made> early, late;
  const auto all_go = [&](std::vector<Made>& made) {
    for (; !made.empty(); made.pop_back()) let_go(made.back());
  };
  for (const Item& item : before) early.push_back(make(item));
  for (const Item& item : beside) {
    late.push_back(make(item));
    all_go(early);
  }
  all_go(late);
}

}  // namespace dryfit
