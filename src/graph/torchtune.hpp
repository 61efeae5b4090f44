// The functions that torchtune compiles (training/_compile.py): each block, and the loss, of one chunk of the length or of all.
#pragma once

#include "graph/graph.hpp"
#include "workload/architecture.hpp"
#include "workload/training.hpp"

namespace dryfit {

// Whether torchtune_block() knows the code of this model and day.
bool has_torchtune_graph(const Architecture& architecture, const Training& training);

// TransformerSelfAttentionLayer. Inputs: x and the weights as Torchtune names them (attention's projections q, k, v, o, gate, down, up, each with its bias where it
// has one, both norms), all `GraphInput::parameter`; then the rotary table. One output.
Graph torchtune_block(const Architecture& architecture, const Training& training, Attention attention, int multiprocessors);

// The loss of `rows` rows of logits: their sum, in 16 bits until the function casts them, or the mean of fp32 ones. Inputs: logits, labels.
Graph torchtune_loss(std::int64_t rows, std::int64_t vocab, Dtype logits, bool mean);

}  // namespace dryfit
