// Mixtral and Qwen 3's mixtures as torch.compile sees them: Dynamo ends a graph at the question which experts are hit (nonzero), and goes on within what Python
// calls from there.
#pragma once

#include <span>

#include "graph/graph.hpp"
#include "workload/architecture.hpp"
#include "workload/training.hpp"

namespace dryfit {

// The functions that are compiled, in the order in which a step meets them; blocks share theirs, and so do experts.
enum class MixturePart : std::uint8_t {
  mask,       // padding -> which keys a query sees [B, T, T]
  tables,     // frequencies, positions [T] -> cosines, sines
  attention,  // x, the block's norm, q, k, v, cosines, sines, mask, o, the second norm -> what the router is given, x after attention. Qwen 3: the norms of q and k after their products
  router,     // x, its weight -> logits, shares, zeros [N, D], which expert is whose choice [N, k, E], which experts are hit [E]
  expert,     // weight of gate, its rows, weights of up and down -> its output
  residual,   // x after attention, the mixture's output -> their sum
  norm,       // x, its weight -> the head's input
  loss,       // x, the head's weight, labels -> loss, logits
};

// Whether mixture_part() knows the modelling code.
bool has_mixture_graph(const Architecture& architecture);

// Inputs in the order above, an adapter's two matrices after their weight. adapted: as for transformer_forward(), of attention's products. rows: of an expert. first: of the first block,
// whose x wants no gradient where the embedding is frozen. Precondition: has_mixture_graph(architecture).
struct MixtureShape { std::int64_t rows = 0; bool first = false; CompileTarget target{}; };
Graph mixture_part(const Architecture& architecture, const Training& training, std::span<const std::int32_t> adapted, MixturePart part, MixtureShape shape);

}  // namespace dryfit
