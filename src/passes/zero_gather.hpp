// DeepSpeed's ZeRO stage 3 around a model on the eager engine: every weight cut over all ranks, gathered when a module runs and let go after it,
// prefetched along the order of modules of the first step; gradients reduced through one bucket; the step on sub-groups of partitions.
// Knows modules by who calls and what they own; no model code, no NCCL.
// Source: deepspeed/runtime/zero/{stage3,partition_parameters,partitioned_param_coordinator,parameter_offload}.py,
// runtime/comm/coalesced_collectives.py (0.18.2).
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>

#include "passes/torch_optimizer.hpp"
#include "passes/transformer.hpp"

namespace dryfit::eager {

class ZeroGather {
 public:
  // Allocates what DeepSpeed's optimizer holds; weights have no memory of their own (ForwardOptions::gathered).
  // reads: an engine without an optimizer (DeepSpeedZeRoOffload alone), of a model that is only asked; step() and after_backward() are not for it.
  ZeroGather(Tape& tape, const std::vector<Transformer::Weight>& weights, const Training& training, bool reads = false);
  ModuleHooks hooks();
  void before_forward();                 // of every micro-step: "reset_step"
  void before_backward(bool boundary) { boundary_ = boundary; }
  void after_backward();
  void step();
  std::int64_t weight_bytes() const;     // partitions; gathered weights are not counted
  std::int64_t gradient_bytes() const;
  std::int64_t state_bytes() const;

 private:
  using Who = ModuleHooks::Who;
  enum class Status : std::uint8_t { away, in_flight, there };
  struct Gather { Tensor flat; std::vector<std::size_t> members; bool done = false; };  // one collective
  struct Param {
    std::int64_t elements = 0, part = 0;   // of the whole; of a rank, padded
    Status status = Status::away;
    bool persists = false, trains = true, of_leaf = false;  // of_leaf: its gradient waits for those of its module
    std::set<int> users;                   // "ds_active_sub_modules"
    int fetched_for = -1;                  // "most_recent_step_id_param_fetched_for"
    std::shared_ptr<Gather> flight;
  };
  struct Module {
    std::vector<std::size_t> own;
    int remaining = 0;                     // "ds_grads_remaining": inputs of the last call whose gradients are to come
  };
  enum class Trace : std::uint8_t { invalid, recording, complete };
  struct Queued { std::size_t param; int step; };

  int module_of(Who who, std::span<const Tensor> own);
  Tensor before(Who who, std::span<const Tensor> own, const Tensor& x);
  Tensor before_leaf(Who who, std::span<const Tensor> all, const Tensor& x);
  Tensor after(Who who, const Tensor& y, bool again);
  void before_backward_of(int module);
  void take(int module, const Tensor& weight);
  void expect(int module);
  void input_has_gradient(int module);
  void fetch(int module);
  void prefetch();
  void gather(const std::vector<std::size_t>& params);
  void wait(std::size_t param);
  void release(int module, bool again = false);
  const std::set<std::size_t>& releasable(int module);
  void let_go(std::size_t param, bool again = false);
  void partition_all();
  void settle();                           // "_clean_inflight_param_registry"
  void arrived(std::size_t i);
  void reduce();
  void to_host(std::size_t i);
  void look_for_infinities();
  void norms();
  Tensor buffer(const char* role, std::int64_t elements, Dtype d, Category category, int stream = 0);

  Tape& t_;
  const Training& r_;
  const ZeroConfig& z_;
  std::vector<Trained> parameters_;        // frozen ones too
  std::vector<Tensor> frozen_;             // their partitions
  std::vector<Param> params_;
  std::map<Who, int> ids_;
  std::vector<Module> modules_;
  Dtype dtype_;
  std::int64_t W, rank_ = 0;
  bool overlap_ = true, host_ = false, boundary_ = true, copies_ = true;
  // the coordinator
  Trace trace_ = Trace::invalid;
  std::vector<int> order_;                 // modules as they came
  std::vector<Queued> param_order_;
  std::deque<Queued> queue_;
  std::map<std::pair<int, int>, std::set<std::size_t>> releasable_;  // by module and step; computed once, as there
  int step_ = 0;
  std::int64_t available_ = 0;
  // the optimizer
  std::vector<std::vector<std::size_t>> sub_groups_;
  std::vector<Tensor> masters_;
  std::vector<std::unique_ptr<Optimizer>> optimizers_;
  Tensor partitions_, bucket_, gradients_, tracker_;
  std::vector<std::size_t> in_bucket_;
  std::int64_t bucket_elements_ = 0;
  Tensor host_last_;                       // the gradient that went to the host last: the name lives on
  std::vector<Tensor> host_norms_;
  Tensor global_norm_;                     // "_global_grad_norm"
};

}  // namespace dryfit::eager
