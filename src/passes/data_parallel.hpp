// DistributedDataParallel around a model on the eager engine: its buckets, the copies of outputs and buffers. Every gradient stays whole on every GPU;
// the buckets hold them all once more (gradient_as_bucket_view is off unless asked for). Knows no model and no optimizer.
// Source: torch/nn/parallel/distributed.py, torch/csrc/distributed/c10d/{reducer,comm}.cpp (2.9); transformers/trainer.py for who asks for what.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "passes/torch_optimizer.hpp"

namespace dryfit::eager {

// reducer.cpp compute_bucket_assignment_by_size: indices into `parameters`, bucket by bucket. One bucket a dtype is filled at a time; the
// parameter that reaches the limit ends it. limits: bytes of the first, second, ... bucket of a dtype; the last one stays.
std::vector<std::vector<std::size_t>> buckets_by_size(std::span<const Trained> parameters, std::span<const std::int64_t> limits);

class DataParallel {
 public:
  // find_unused: Trainer's find_unused_parameters, on unless the model is checkpointed. Without it everything is one bucket for one step,
  // then buckets are made anew in the order in which gradients came.
  DataParallel(Tape& tape, std::vector<Trained> parameters, std::int64_t buffer_bytes, bool find_unused);
  void before_forward(bool reduces);     // reduces: not under no_sync
  void after_backward();
  Tensor output(const Tensor& x);        // _DDPSink's copy of an output, where unused parameters are looked for

 private:
  void make_buckets(std::span<const Trained> parameters, std::span<const std::int64_t> limits);

  Tape& t_;
  std::vector<Trained> parameters_, arrived_;
  std::vector<Tensor> buckets_;
  std::int64_t buffer_bytes_;
  bool find_unused_, reduces_ = true, rebuilt_ = false;
  void send();
  double ready_ = 0;                     // bytes of gradients that wait for their bucket
  std::int64_t arrived_tensors_ = 0;
  bool sent_ = false;                    // the first bucket of this pass
};

}  // namespace dryfit::eager
