// The forward pass of a Hugging Face model as torch.compile sees it: transformers' modelling code as one graph.
#pragma once

#include "graph/graph.hpp"
#include "workload/architecture.hpp"
#include "workload/training.hpp"

namespace dryfit {

// Whether transformer_forward() knows the modelling code.
bool has_graph(const Architecture& architecture);

// `GraphInput::parameter` is a place in parameters_of(architecture). Graph::outputs holds what the model returns beside the loss.
// Precondition: has_graph(architecture).
Graph transformer_forward(const Architecture& architecture, const Training& training, int multiprocessors);

}  // namespace dryfit
