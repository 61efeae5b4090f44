// The forward pass of GPT-NeoX as torch.compile sees it.
#pragma once

#include <span>

#include "graph/graph.hpp"
#include "workload/architecture.hpp"
#include "workload/training.hpp"

namespace dryfit {

// Whether neox_forward() knows the modelling code.
bool has_neox_graph(const Architecture& architecture);

// As transformer_forward().
Graph neox_forward(const Architecture& architecture, const Training& training, std::span<const std::int32_t> adapted, CompileTarget target);

}  // namespace dryfit
