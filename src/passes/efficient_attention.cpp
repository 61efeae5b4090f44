// See efficient_attention.hpp.
#include "passes/efficient_attention.hpp"

#include <algorithm>

namespace dryfit {

namespace {

struct Kernel { std::int64_t rows = 64, columns = 64; bool in_registers = false; };  // a tile of the scores; whether dk and dv stay in registers

Kernel kernel_of(const EfficientCall& c, int capability) {
  const bool half = size_of(c.dtype) == 2;
  const std::int64_t width = std::max(c.head_dim, c.value_dim);
  if (width <= 64 || capability < 70) return {64, 64, half && width <= 64};
  // tiles of 128 rows need more shared memory than Turing and the chips that are not a data centre's have
  const bool roomy = capability != 75 && capability != 86 && capability != 89 && capability < 110;
  if (!half) return {roomy && capability >= 80 ? 128 : 64, 64, false};
  if (width <= 96 && (capability == 86 || capability == 89) && !c.dropout) return {128, 64, true};
  if (!roomy) return {};
  return {128, width <= 128 && capability >= 80 ? 128 : 64, width <= 128};
}

}  // namespace

EfficientBackward efficient_backward(const EfficientCall& c, int capability) {
  const Kernel kernel = kernel_of(c, capability);
  const bool half = size_of(c.dtype) == 2;
  EfficientBackward out;
  out.sums_rows = half && (kernel.in_registers || capability / 10 != 7 || capability >= 75);
  // a tile is its sums and 16 bytes of a lock
  std::int64_t floats = ceil_div(c.queries, kernel.rows) * ceil_div(c.head_dim, kernel.columns) * (16 + 4 * kernel.rows * kernel.columns) / 4;
  if (half && !kernel.in_registers) {
    out.splits = std::clamp<std::int64_t>(200 / (c.batch * c.heads), 1, ceil_div(c.keys, kernel.columns));
    floats += out.splits * kernel.columns * (round_up(c.head_dim, kernel.rows) + round_up(c.value_dim, kernel.rows));
  }
  out.workspace = c.batch * c.heads * round_up(floats, 4) * 4;
  return out;
}

bool is_seed(const Graph& graph, NodeId v) {
  const Node& n = graph.nodes[static_cast<std::size_t>(v)];
  if (n.kind != Kind::result || n.fn != Fn::result || n.variant < 2) return false;
  const Node& kernel = graph.nodes[static_cast<std::size_t>(n.in[0])];
  return kernel.fn == Fn::attention && static_cast<Attention>(kernel.variant) == Attention::efficient;
}

std::int64_t efficient_sums(const EfficientCall& c) {
  return size_of(c.dtype) == 2 && c.value_dim > 128 ? c.batch * c.queries * c.heads * c.value_dim * 4 : 0;
}

}  // namespace dryfit
