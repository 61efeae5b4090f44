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
// Where loss_is_apart() it ends with the logits.
Graph transformer_forward(const Architecture& architecture, const Training& training, std::span<const std::int32_t> adapted, CompileTarget target);

// Whether Dynamo takes the loss in a graph of its own, and what accelerate makes of the outputs under autocast in a third.
bool loss_is_apart(const Architecture& architecture);
// Inputs: the logits, whose gradient is GraphInput 0's, and the labels.
Graph transformer_loss(const Architecture& architecture, const Training& training);
// The logits in fp32.
Graph logits_handed_out(const Architecture& architecture, const Training& training);

}  // namespace dryfit
