// DeepSpeed's engine without ZeRO (stage 0) around a model on the eager engine: of 16-bit weights an fp32 copy each, whole states on every GPU, gradients summed bucket by bucket once backward is
// done. Knows parameters and their gradients; no model code, no NCCL.
// Source: deepspeed/runtime/fp16/unfused_optimizer.py, which torch's optimizers get; runtime/engine.py buffered_allreduce_fallback, _take_model_step (0.18.2).
#pragma once

#include <memory>
#include <vector>

#include "passes/torch_optimizer.hpp"

namespace dryfit::eager {

class WholeStates {
 public:
  // Allocates what DeepSpeed's optimizer holds. training.weights: what the model computes in.
  WholeStates(Tape& tape, std::vector<Trained> parameters, const Training& training);
  void after_backward(bool boundary);
  void step();
  std::int64_t state_bytes() const;     // fp32 copies and moments, after the first step
  std::int64_t gradient_bytes() const;  // in the weights' dtype

 private:
  bool copies() const { return r_.weights != Dtype::fp32; }
  Tensor wide(std::size_t i, const char* role, Category category);

  Tape& t_;
  const Training& r_;
  std::vector<Trained> parameters_;
  std::vector<std::vector<std::size_t>> groups_;
  std::vector<Tensor> masters_;         // of each parameter
  std::vector<std::unique_ptr<Optimizer>> optimizers_;  // of each group
};

}  // namespace dryfit::eager
