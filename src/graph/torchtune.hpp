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

// TransformerSelfAttentionLayer as one function, or in the parts that Dynamo leaves of it around flex attention, which is told to stay out: a call that
// breaks the graph ends it in every frame above.
enum class TorchtunePart : std::uint8_t { whole, norm, heads, output, rest };

// Inputs in order: x (`output`: the heads' result instead), of `rest` the attention's result at its side; weights where they are used first, each projection's with
// its bias and adapter (attention's norm; the rotary table and q, k, v; o; the other norm, gate, down, up), all `GraphInput::parameter` but the table. One output;
// of `heads` queries, keys and values of all heads. first: of all blocks, whose x wants no gradient where the embedding is frozen.
Graph torchtune_block(const Architecture& architecture, const Training& training, Attention attention, int multiprocessors, TorchtunePart part, bool first);

// The loss of `rows` rows of logits: their sum, in 16 bits until the function casts them, or the mean of fp32 ones. Inputs: logits, labels.
Graph torchtune_loss(std::int64_t rows, std::int64_t vocab, Dtype logits, bool mean);

}  // namespace dryfit
