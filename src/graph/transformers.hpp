// The forward pass of a Hugging Face model as torch.compile sees it: transformers' modelling code as one graph.
#pragma once

#include <span>

#include "graph/graph.hpp"
#include "workload/architecture.hpp"
#include "workload/training.hpp"

namespace dryfit {

// Whether transformer_forward() knows the modelling code.
bool has_graph(const Architecture& architecture);

// `GraphInput::parameter` is a place in parameters_of(architecture), where two matrices of an adapter follow the module that has one. Graph::outputs
// holds what the model returns beside the loss. adapted: places in parameters_of of weights with adapters, ascending.
// Precondition: has_graph(architecture).
Graph transformer_forward(const Architecture& architecture, const Training& training, std::span<const std::int32_t> adapted, int multiprocessors);

}  // namespace dryfit
