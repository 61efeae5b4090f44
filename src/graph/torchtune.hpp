// The functions that torchtune compiles (training/_compile.py): each block, and the loss, of one chunk of the length or of all.
#pragma once

#include "graph/graph.hpp"
#include "workload/architecture.hpp"
#include "workload/training.hpp"

namespace dryfit {

// Whether torchtune_block() knows the code of this model and day.
bool has_torchtune_graph(const Architecture& architecture, const Training& training);

// Whether a module has an adapter: lora_attn_modules by peft's names; "mlp" and "lm_head" for apply_lora_to_mlp and apply_lora_to_output.
bool torchtune_adapts(const Training& training, std::string_view module);

// TransformerSelfAttentionLayer. Inputs: x and the weights as Torchtune names them (attention's projections q, k, v, o, gate, down, up, each with its bias and
// adapter where it has one, both norms), all `GraphInput::parameter`; then the rotary table. One output. first: of all blocks, whose x wants no gradient where
// the embedding is frozen.
Graph torchtune_block(const Architecture& architecture, const Training& training, Attention attention, int multiprocessors, bool first);

// The loss of `rows` rows of logits: their sum, in 16 bits until the function casts them, or the mean of fp32 ones. Inputs: logits, labels.
Graph torchtune_loss(std::int64_t rows, std::int64_t vocab, Dtype logits, bool mean);

}  // namespace dryfit
