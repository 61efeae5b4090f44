// A transformers training run as a Program: loading, first step, two steady steps, on one GPU of W. The eager engine under
// transformers' model, with the optimizer of the Training.
#pragma once

#include "passes/eager.hpp"
#include "passes/transformer.hpp"

namespace dryfit {

// SDPA's choice for an unmasked causal call on this GPU, or what attn_implementation says.
Attention resolve_attention(const Architecture& architecture, const Training& training, const Target& target);

// Two micro-steps a step when gradients are accumulated, three where FSDP keeps whole gradients until the last. options: how the engine itself behaves (tests: as under the oracle).
// Errors: "unsupported_training": what is not written down yet.
Result<Program> build_program(const Architecture& architecture, const Training& training, const Target& target, eager::TapeOptions options = {});

// What of a program's events depends on batch and accumulation, but for losses without all logits, packed rows and torch.compile, whose parts and cuts are each batch's own. Where it is the same, programs of two device batches differ in the bytes of what is batched,
// and, by less than a row of the embedding a sequence, in the sums of its gradient.
struct TrainingLayout {
  std::int64_t micro_steps;                // laid out: those after the third are as the second
  bool alone;                              // a device batch of 1: nothing is summed over sequences, what is expanded over them stays contiguous
  bool shares_sums;                        // kernels that sum over tokens split them between blocks (column_sum.hpp)
  enum class Ids : std::uint8_t { unsorted, fewer_than_rows, more_than_rows } ids;  // how the embedding's gradient is summed
  std::int64_t attention_splits;           // of the memory-efficient kernel's keys
  std::int64_t written_at_once = 0;        // micro-steps whose completions a rollout writes
  bool of_one_prompt = false;              // all of those
  friend bool operator==(const TrainingLayout&, const TrainingLayout&) = default;
};
TrainingLayout layout_of(const Architecture& architecture, std::int64_t device_batch, std::int64_t seq_len, std::int64_t grad_accum_steps, std::int64_t attention_splits = 1);

// In how many parts the memory-efficient kernel takes the keys in backward, where layers run it. 1 elsewhere.
std::int64_t attention_splits(const Architecture& architecture, const Training& training, const Target& target, std::int64_t device_batch, std::int64_t seq_len);

// Whether build_program describes it. Errors: those of build_program.
Result<void> is_laid_out(const Architecture& architecture, const Training& training, const Target& target);

// Tensors that live through the run on one GPU: weights; gradients; optimizer state. Bytes as stored, not rounded.
StaticBytes static_bytes(const Architecture& architecture, const Training& training);

}  // namespace dryfit
