// The forward pass of GPT-2 as torch.compile sees it, up to the logits: transformers knows no loss by its class's name and warns, at which Dynamo ends the graph.
#pragma once

#include <span>

#include "graph/graph.hpp"
#include "workload/architecture.hpp"
#include "workload/training.hpp"

namespace dryfit {

// Whether gpt2_forward() knows the modelling code.
bool has_gpt2_graph(const Architecture& architecture);

// As transformer_forward(). Outputs: the logits, each layer's values and keys where there is a cache, and what the head is given.
Graph gpt2_forward(const Architecture& architecture, const Training& training, std::span<const std::int32_t> adapted, CompileTarget target);

}  // namespace dryfit
