// What is on the GPU before the first step: weights, buffers of the loader; and the tensors that later steps will make.
#include "passes/program_layout.hpp"

#include <cstring>

namespace dryfit {

// Tensor i stands for graph node i, so that events of the compiled step need no table.
void ProgramLayout::add_graph_tensors() {
  p_.tensors.reserve(graph().nodes.size() + 2048);
  for (const Node& n : graph().nodes) {
    Category category = Category::activations;
    if (std::strcmp(n.role, "logits") == 0 && n.kind == Kind::matmul && n.variant == 0) category = Category::logits;
    if (n.fn == Fn::input) category = Category::weights;
    tensor(n.role, category, n.dtype, n.shape, n.layer);
  }
  for (NodeId g : step_.gradients) {
    if (g != kNone) p_.tensors[static_cast<std::size_t>(g)].category = Category::gradients;
  }
  mark_gradient_logits();
}

// The gradient of the logits overwrites them: it is the same memory and belongs to the same row of the account.
void ProgramLayout::mark_gradient_logits() {
  for (const BufferStep& s : step_.backward) {
    const Node& n = node(s.node);
    if (n.backward && n.dtype != Dtype::fp32 && std::strcmp(n.role, "logits") == 0 && n.kind == Kind::pointwise && n.shape.batched &&
        n.shape.numel() >= node(graph().cross_entropy.logits).shape.numel()) {
      p_.tensors[static_cast<std::size_t>(s.node)].category = Category::logits;
    }
  }
}

void ProgramLayout::load() {
  segment("load", "weights", 0, Provenance::exact);
  for (const GraphInput& input : graph().inputs) {
    if (input.parameter >= 0 || input.node == input_named("cos") || input.node == input_named("sin")) alloc(input.node);
  }
  alloc(tensor("token_bytes", Category::workspace, Dtype::int32, shape({m_.vocab}, false)));
  const std::int64_t B = run_.device_batch_size, T = run_.max_seq_len;
  if (m_.version.loader_gpu_buffer) {
    alloc(tensor("loader_buffer", Category::workspace, Dtype::int64, shape({2, B, T}, true)));
  } else {
    alloc(tensor("idx", Category::workspace, Dtype::int32, shape({B, T}, true)));
    alloc(tensor("targets", Category::workspace, Dtype::int64, shape({B, T}, true)));
  }
  for (const StateTensor& s : optimizer_state(m_, run_.world_size)) {
    const std::int32_t t = tensor(s.role, Category::optimizer, s.dtype, shape({s.elements}, false));
    if (std::strcmp(s.role, "muon.zero_buffer") == 0) alloc(t);  // made with the optimizer, not with its first step
    else state_.push_back(t);
  }
  // one cuBLAS workspace for the main thread, one for autograd's: kept for the life of the process
  const std::int64_t workspace = target_.compute_major == 9 && target_.compute_minor == 0 ? 33554432 : 8519680;
  for (std::int32_t& t : workspaces_) t = tensor("cublas_workspace", Category::workspace, Dtype::uint8, shape({workspace}, false));
  loss_ = tensor("loss", Category::workspace, Dtype::fp32, shape({1}, false));
  for (NodeId g : step_.gradients) {
    if (g == kNone) {
      sums_.push_back(-1);
      continue;
    }
    sums_.push_back(static_cast<std::int32_t>(p_.tensors.size()));
    p_.tensors.push_back(p_.tensors[static_cast<std::size_t>(g)]);
  }
}

NodeId ProgramLayout::input_named(const char* role) const {
  for (const GraphInput& input : graph().inputs) {
    if (std::strcmp(node(input.node).role, role) == 0) return input.node;
  }
  return kNone;
}

}  // namespace dryfit
