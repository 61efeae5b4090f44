// CORE and ChatCORE: nanochat runs the model that was not compiled, without gradients, on prompts whose length has nothing to do
// with --max-seq-len or --device-batch-size. Its peak is the soft-cap and the loss over all logits of the largest prompt.
#pragma once

#include <cstdint>
#include <vector>

#include "passes/inference.hpp"

namespace dryfit {

// The largest batch of prompts that rank 0 meets: `choices` sequences of `middle` tokens. low, high: the count depends on the
// user's own tokenizer, these bracket it (high also covers every other rank). Source: data/core_prompts.csv.
struct CorePrompts { std::int64_t choices, low, middle, high; };
CorePrompts core_prompts(const Run& run);

// The evaluation of one batch of prompts from input to loss, as events on its own tensors; everything is let go at the end.
// rows: sequences; length: tokens each; attention: resolved.
EagerForward core_forward(const Workload& workload, Attention attention, std::int64_t rows, std::int64_t length);

// ChatCORE's multiple-choice questions (MMLU, ARC): `rows` of them at once, padded to the longest. How long MMLU's longest are was not
// counted: middle is a guess between what ARC's take and the 2,048 tokens at which nanochat cuts a conversation.
struct ChatPrompts { std::int64_t rows, low, middle, high; };
ChatPrompts chat_prompts(const Workload& workload);

// Two such batches, one after the other (scripts/chat_eval.py, run_categorical_eval): the logits of all positions are made, no loss, and the first one's are there until the second's are.
EagerForward chat_forward(const Workload& workload, Attention attention, std::int64_t rows, std::int64_t length);

}  // namespace dryfit
