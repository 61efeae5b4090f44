// Work: what the kernels of one optimizer step compute, move and send, kernel by kernel, for one device batch. From the same compiled
// step as the memory. No GPU and no seconds: speed/ puts them together.
// Symbols: B device batch, T sequence length, W GPUs; products are (m x k) times (k x n).
#pragma once

#include <cstdint>
#include <vector>

#include "passes/compile.hpp"
#include "workload/workload.hpp"

namespace dryfit {

enum class WorkKind : std::uint8_t { matmul, attention, elementwise, optimizer, communication };
constexpr int kWorkKinds = 5;
std::string_view name_of(WorkKind kind);

struct Work {
  WorkKind kind = WorkKind::elementwise;  // what it is counted as: a product of the optimizer is `optimizer`
  const char* role = "";
  bool backward = false;
  bool reduces = false;              // an elementwise kernel with a reduction in it
  // bytes that must move, once each
  double fixed_bytes = 0, batched_bytes = 0;
  // matmul: `count` products in one launch; k = 0: none. m, k batched: proportional to the device batch.
  std::int64_t m = 0, n = 0, k = 0, count = 1;
  bool m_batched = false, k_batched = false, count_batched = false;
  Dtype operands = Dtype::bf16;
  // attention: length = 0: none
  Attention attention = Attention::flash;
  bool masked = false;               // by a (T, T) tensor: every score is computed
  bool causal = true;
  std::int64_t heads = 0, length = 0, head_dim = 0, window = 0;  // heads: B * H
  std::int64_t launches = 1;
  // of the host before it: dispatcher calls that launch nothing (views, numbers), compiled functions that are entered, tensors whose guards are checked
  std::int64_t calls = 0, graphs = 0, guards = 0;
  // communication: bytes are those of the whole tensors, twice where they are summed everywhere
  enum class Beside : std::uint8_t { nothing, earlier, later } beside = Beside::nothing;  // arithmetic that runs meanwhile: what came before its result is needed; what follows
  double bytes() const { return fixed_bytes + batched_bytes; }
  // Arithmetic of matmul and attention, as the mathematics needs it: 2 m n k; causal scores within the window, 4 h each, 10 h backward.
  double flops() const;
};

// One unit of the optimizer: its gradients are reduced, it is computed, its parameters are gathered. Units of one phase overlap: their
// reductions are all under way before the first is computed. Bytes: of the whole tensors; 0 on one GPU.
struct OptimizerUnit {
  int phase = 0;
  double reduce_bytes = 0, gather_bytes = 0;
  bool all_reduce = false;           // small tensors: summed everywhere, nothing to gather
  std::vector<Work> work;
};

struct StepWork {
  std::int64_t device_batch = 1;     // the batch that the numbers hold for
  // Of the eager engine: forward and backward in the order of their kernels, of the first micro-step, one between, the last, as far as they differ.
  // Empty where the step is compiled.
  std::vector<std::vector<Work>> laid_out;
  std::vector<Work> micro_step;      // forward and backward
  std::vector<Work> accumulate;      // added to every micro-step but the first: old gradients + new ones
  std::vector<Work> before_step;     // once: gradient clipping; of the eager engine all that follows the last micro-step
  std::vector<OptimizerUnit> optimizer;
};

// Forward and backward, one kernel after the other. parameters: whose guards are looked at when the compiled function is entered.
std::vector<Work> micro_step_work(const CompiledStep& step, std::int64_t parameters);

StepWork step_work(const Workload& workload, const CompiledStep& step);

// The same step at another device batch.
StepWork at_batch(StepWork work, std::int64_t device_batch);

}  // namespace dryfit
