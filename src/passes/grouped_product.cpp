// torch._grouped_mm on the eager engine: rows that are sorted into groups, each times a matrix of its own. What it allocates forward and backward, the memory its
// kernel takes beside, and its work. Sources: aten/src/ATen/native/{GroupedMMUtils.h,cuda/GroupedBlas.cpp,cuda/GroupMM.cu}, FunctionsManual.cpp (torch 2.9).
#include <algorithm>

#include "passes/eager.hpp"

namespace dryfit::eager {

// Rows of 16 bytes are what the kernel asks of its operands, so that the result needs no padding.
Tensor Tape::grouped(const Tensor& rows, const Tensor& weights, const Tensor& ends, const char* role) {
  const std::int32_t n = record(Rule::grouped, {rows, weights}, role);
  if (!grouping_.by_transformers) save_other(n, rows, weights);
  else save(n, rows), save(n, weights);
  save(n, ends);
  if (n >= 0 && value(weights).view) {  // a transposed weight, a tensor of its own: ZeRO-3 lets go of the parameter's memory and not of this
    for (Saved& one : node(n).saved) one.part = one.part || one.storage == value(weights).storage;
    parts_of_weights_ = true;
  }
  Tensor out = empty(role, eager::dims({rows.dims().size[0], weights.dims().size[2]}, rows.dims().batched), rows.dtype());
  grouping_scratch(weights.dims().size[0], rows.dtype());
  return attach(std::move(out), n);
}

// aten/src/ATen/native/cuda/GroupMM.cu on sm_90: of each group three pointers, the problem's shape and three strides; CUTLASS's workspace, descriptors of two operands and,
// for each of two warp groups and the addend, of the result on every multiprocessor.
void Tape::grouping_scratch(std::int64_t groups, Dtype dtype) {
  if (grouping_.multiprocessors == 0 || dtype != Dtype::bf16) return;
  const Tensor arguments = scratch("grouped.arguments", eager::dims({round_up(groups, 2) * 24 + groups * 36}, false), Dtype::uint8);
  const Tensor descriptors = scratch("grouped.descriptors", eager::dims({5 * 128 * grouping_.multiprocessors}, false), Dtype::uint8);
}

// _grouped_mm_mat2_backward, then _grouped_mm_mat1_backward: each in its operand's layout, a transposed weight's as the transpose of row-major ones. transformers' operator goes the other way.
void Tape::backward_grouped(std::int32_t n, std::vector<Tensor>& out) {
  const Dtype dtype = node(n).grad[0].dtype();
  const Dims d = input(n, 1).dims;
  if (grouping_.by_transformers) {
    out[0] = empty(node(n).role, eager::contiguous(input(n, 0).dims), dtype);
    out[1] = empty(node(n).role, like(d), dtype, wants(n, 1) ? Category::gradients : Category::workspace);
    return;
  }
  if (wants(n, 1)) {
    out[1] = empty(node(n).role, d.stride[1] == 1 ? swapped(eager::contiguous(swapped(d, 1, 2)), 1, 2) : eager::contiguous(d), dtype, Category::gradients);
    grouping_scratch(d.size[0], dtype);
  }
  if (wants(n, 0)) {
    out[0] = empty(node(n).role, eager::contiguous(input(n, 0).dims), dtype);
    grouping_scratch(d.size[0], dtype);
  }
}

// As many products as there are groups, of as many rows each; of_weights: their gradients, which sum over the rows.
void Tape::tell_grouped(const Operand& rows, const Dims& weights, const char* role, bool of_weights) {
  Work w;
  w.kind = WorkKind::matmul;
  w.role = role;
  w.backward = ready_ != nullptr;
  w.operands = rows.dtype;
  w.count = weights.size[0];
  const std::int64_t each = std::max<std::int64_t>(1, rows.dims.size[0] / w.count);
  w.m = of_weights ? weights.size[1] : each, w.k = of_weights ? each : weights.size[1], w.n = weights.size[2];
  w.m_batched = !of_weights, w.k_batched = of_weights;
  const double width = static_cast<double>(size_of(rows.dtype));
  w.batched_bytes = rows.bytes() + width * static_cast<double>(rows.dims.size[0] * w.n);
  w.fixed_bytes = width * static_cast<double>(weights.numel());
  tell(w);
}

}  // namespace dryfit::eager
