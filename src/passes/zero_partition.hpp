// DeepSpeed's ZeRO stages 1 and 2 around a model on the eager engine: 16-bit weights in flat groups, an fp32 partition of each, buckets in which
// gradients are reduced, and the step on this rank's partition. Knows parameters and when their gradients come; no model code, no NCCL.
// Source: deepspeed/runtime/zero/stage_1_and_2.py, runtime/engine.py allreduce_gradients (0.18.2).
#pragma once

#include <memory>

#include "passes/torch_optimizer.hpp"

namespace dryfit::eager {

// Trainer's param_groups, as indices: what decays (matrices), what does not (norms, biases). One group when DeepSpeed makes the optimizer.
std::vector<std::vector<std::size_t>> optimizer_groups(std::span<const Trained> parameters, bool split);

// One param_group laid out flat and cut into W equal partitions. Counts are elements.
struct FlatGroup {
  struct Span {
    std::size_t parameter;
    std::int64_t elements, first;        // of the whole; the rank in whose partition it begins
    std::vector<std::int64_t> lengths;   // of its pieces in the partitions of ranks first, first + 1, ...
    std::int64_t length_at(std::int64_t rank) const;
  };
  std::vector<Span> spans;               // as flattened: round_robin_gradients deals them out over the ranks
  std::int64_t elements = 0, partition = 0;  // with padding to a multiple of 2 W; of one rank
};
FlatGroup flat_group(std::span<const Trained> parameters, const std::vector<std::size_t>& members, std::int64_t ranks, bool round_robin);

// Whose whole gradients take most: parameters that cross a boundary are held by both sides.
std::int64_t heaviest_rank(std::span<const FlatGroup> groups, std::int64_t ranks);

class ZeroPartition {
 public:
  // Allocates what DeepSpeed's optimizer holds; `parameters` have no memory of their own (ForwardOptions::flat).
  ZeroPartition(Tape& tape, std::vector<Trained> parameters, const Training& training);
  void before_backward(bool boundary) { boundary_ = boundary; }
  void after_backward();
  void step();
  std::int64_t state_bytes() const;      // fp32 partitions and moments on the GPU
  std::int64_t weight_bytes() const;     // the flat 16-bit groups
  std::int64_t gradient_bytes() const;   // whole gradients of the parameters that this rank's partitions touch

 private:
  struct Place { const FlatGroup::Span* span = nullptr; std::int64_t mine = 0; };  // of a parameter; elements of it in my partition

  void arrived(std::size_t i);
  void bucket(std::size_t i);
  void reduce();
  void average();
  void flatten(std::span<const std::int64_t> slices, std::int64_t most);
  void keep(std::size_t i);
  void to_host(std::size_t i);
  void look_for_infinities(std::int64_t elements);
  Tensor leaf_master(std::int64_t partition, Tensor copy);
  void finish();
  void norms();
  std::int64_t elements(std::size_t i) const { return parameters_[i].parameter.dims().numel(); }

  Tape& t_;
  const Training& r_;
  const ZeroConfig& z_;
  std::vector<Trained> parameters_;
  std::vector<FlatGroup> groups_;
  std::vector<Place> places_;
  std::int64_t rank_ = 0;
  Dtype dtype_ = Dtype::bf16;
  bool boundary_ = true, host_ = false, contiguous_ = true, overlap_ = false;
  std::vector<Tensor> flat_, masters_;
  std::vector<std::unique_ptr<Optimizer>> optimizers_;
  Tensor ipg_[2], kept_, host_staging_;  // ipg_buffer; grads_in_partition; temp_grad_buffer_for_gpu_offload
  int index_ = 0;
  bool ready_ = false;
  std::vector<std::size_t> in_bucket_, previous_;
  std::int64_t bucket_elements_ = 0;
  std::vector<std::vector<Tensor>> accumulated_, averaged_;  // all_grad_tensors, averaged_gradients by group
  std::vector<Tensor> host_norms_;
};

}  // namespace dryfit::eager
