// torch's memory-efficient attention: which of its kernels runs, and what it takes beside its results. Source: aten/src/ATen/native/transformers/cuda/ of PyTorch: attention.cu,
// attention_backward.cu, mem_eff_attention/kernel_backward.h and kernels/generate_kernels.py (in this order of preference the first that the GPU can run).
#pragma once

#include <cstdint>
#include <string_view>

#include "base/text.hpp"
#include "graph/graph.hpp"
#include "passes/program.hpp"
#include "workload/workload.hpp"

namespace dryfit {

struct EfficientCall {
  std::int64_t batch = 1, heads = 1, queries = 1, keys = 1;  // heads: of queries; keys are repeated for each
  std::int64_t head_dim = 1, value_dim = 1;
  Dtype dtype = Dtype::bf16;
  bool dropout = false;
};

struct EfficientBackward {
  std::int64_t workspace = 0;  // bytes: dq in fp32 by tiles, and dk and dv where a kernel's registers do not hold them
  std::int64_t splits = 1;     // of the keys, each with a tile of dk and dv. Not in proportion to the batch
  bool sums_rows = true;       // of the gradient times the output, itself; else ops of torch do before it
};
// capability: of the GPU, as 10 * major + minor.
EfficientBackward efficient_backward(const EfficientCall& call, int capability);

// Bytes of fp32 sums that the forward kernel takes: heads of over 128 values, of 16 bits.
std::int64_t efficient_sums(const EfficientCall& call);

// Its two numbers of dropout's are made in the host's memory: outside CUDA graphs, until torch 2.12 (pull request 184166). Fake tensors show them on the GPU.
inline bool makes_seeds_on_host(const Target& target, std::string_view torch) { return !target.fake_tensors && !version_from(torch, 2, 13); }
bool is_seed(const Graph& graph, NodeId node);

}  // namespace dryfit
