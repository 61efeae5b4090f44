// How build_program writes a run down: the state that the phases share while they append their events one after another.
// Private to this room; each phase's order is in the file of its name.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "passes/compile.hpp"
#include "passes/attention_scratch.hpp"
#include "passes/nanochat_eager.hpp"
#include "passes/optimizer.hpp"
#include "passes/program.hpp"
#include "passes/sampling.hpp"
#include "workload/scripts.hpp"

namespace dryfit {

class ProgramLayout {
 public:
  ProgramLayout(const Workload& workload, const Target& target, bool accumulate);
  Program build();

 private:
  const Graph& graph() const { return step_.joint.graph; }
  const Node& node(NodeId v) const { return graph().nodes[static_cast<std::size_t>(v)]; }

  std::int32_t tensor(const char* role, Category category, Dtype dtype, Shape s, int layer = -1) {
    TensorInfo t;
    t.role = role;
    t.layer = static_cast<std::int16_t>(layer);
    t.dtype = dtype;
    t.category = category;
    t.batched = s.batched;
    t.shape = s;
    t.bytes = s.numel() * size_of(dtype);
    p_.tensors.push_back(t);
    return static_cast<std::int32_t>(p_.tensors.size()) - 1;
  }
  void alloc(std::int32_t t, std::int32_t op = -1) { p_.events.push_back({Event::Kind::alloc, t, op < 0 ? t : op}); }
  void free(std::int32_t t, std::int32_t op = -1) { p_.events.push_back({Event::Kind::free, t, op < 0 ? t : op}); }
  void hand_over(std::int32_t from, std::int32_t t) { free(from), p_.events.push_back({Event::Kind::alloc, t, from, from}); }
  bool on_host(const Graph& of, NodeId v) const { return makes_seeds_on_host(target_, run_.torch) && is_seed(of, v); }
  void add(const BufferStep& s) { p_.events.push_back({s.alloc ? Event::Kind::alloc : Event::Kind::free, s.node, s.op, s.from}); }
  void segment(const char* phase, const char* part, int micro = 0, Provenance provenance = Provenance::modelled) {
    p_.segments.push_back({static_cast<std::int32_t>(p_.events.size()), phase, part, micro, provenance});
  }

  // load.cpp
  void add_graph_tensors();
  void add_tensors_of(const Graph& graph);
  void mark_gradient_logits();
  void load();
  std::vector<std::int32_t> init_model(bool replaced);
  void rotary_tables();
  void read_weights();
  void read_optimizer();
  void let_go(const std::vector<std::int32_t>& tensors);
  void make_later_tensors();
  void add_eager_tensors();
  void loader();
  bool masks_targets() const;
  NodeId input_named(const char* role) const;

  // timing.cpp
  struct Timings { TimingsToCome to_come; bool spares = false; };  // spares: of no training forward
  Timings timings_of(std::vector<Timing> all, bool spares) const;
  void time_kernels(const Graph& of, Timings& timed, std::size_t done);
  struct Copied { Dtype dtype; Shape shape; };
  void time_kernel(const std::vector<Copied>& in_place, bool spares);
  void time_adamw(const Parameter& parameter, std::int64_t elements);
  bool has_choices(std::int64_t elements) const;

  // training_step.cpp
  void play(const Graph& of, const std::vector<BufferStep>& steps, std::int32_t first, Timings timed);
  void play(EagerStep::Part part);
  void eager_micro_step(const char* phase, int micro);
  struct Workspace { std::int32_t tensor = -1; bool made = false; };  // of a thread, kept for the life of the process
  void make_once(Workspace& w) { if (!std::exchange(w.made, true) && p_.tensors[static_cast<std::size_t>(w.tensor)].bytes > 0) alloc(w.tensor); }
  void multiplied(const Graph& of, const BufferStep& s, int thread);
  void make_workspaces(int thread);
  void training_step(const char* phase, bool rolls_out = false);
  bool scales() const;
  void scale_loss();
  void loss_scaled();
  std::int32_t unscale();
  void play_backward(Timings timed);
  void scratch(const Node& dq);
  void keep_gradients(int micro);
  void free_gradients();
  void validation();
  std::vector<Timing> lay_out_validation();
  void validation_loader();
  void bits_per_byte();
  void leave_fp8();

  // optimizer_step.cpp
  std::int32_t temporary(const char* role, Dtype d, std::int64_t elements, Category category = Category::optimizer);
  std::int32_t orthogonalize(std::int64_t count, std::int64_t m, std::int64_t n);
  void adamw_steps();
  void make_states(std::size_t count);
  void optimizer_step();
  void single_gpu_step();
  void distributed_lists();
  void adamw_of_slices();
  void distributed_stacks();
  std::int32_t gradient_of(std::size_t parameter) const;
  std::vector<std::int32_t> matrix_gradients() const;
  std::int32_t named(const char* role, Dtype dtype, std::int64_t elements);
  void forget_names();
  void collective(const std::vector<std::int32_t>& tensors);
  void compiling();
  void let_stash_go();
  void end_distributed_step();
  std::size_t sets() const;

  // optimizer_uncompiled.cpp
  class OpByOp;
  void adamw_op_by_op(const Parameter& parameter);
  std::int32_t orthogonalize_op_by_op(std::int64_t count, std::int64_t m, std::int64_t n, bool in_fp32);

  // program.cpp
  void train();
  void evaluate();
  void release_stashes();
  void core_evaluation();
  void chat_evaluation();
  void sampling(const char* phase, const Generation& generation);
  void append(const EagerForward& forward);

  const Workload& w_;
  const Model& m_;
  const Run& run_;
  Target target_;
  bool accumulate_;
  CompiledStep step_;                   // of a run that is not compiled: for its inputs and its work alone
  std::optional<EagerStep> eager_;      // of a run that is not compiled
  std::vector<std::int32_t> eager_tensors_;  // of those, the tensor here
  std::vector<BufferStep> validation_;  // laid out once, played before and after training
  Graph evaluated_;                     // the model as it is evaluated
  std::int32_t evaluated_first_ = 0;    // the tensor that stands for its first node
  std::vector<std::int32_t> swapped_;   // weights of the Linears that stand in for those in fp8
  NodeId losses_ = kNone;
  std::vector<std::int32_t> of_last_batch_;  // what a validation still names of the batch before
  bool validated_ = false, loaded_ = false;  // whether a validation was, whether rows to train on are there
  Program p_;
  std::vector<std::int32_t> state_, sums_;
  Workspace workspaces_[2], lt_workspaces_[2];  // cuBLAS', cuBLASLt's; of the main thread, of autograd's
  struct Scratch { std::vector<std::int32_t> before, beside; };  // freed when the first beside it is there; held while the kernel runs
  std::map<Attention, Scratch> scratch_;                         // of its backward kernel
  std::int32_t loss_ = -1;
  std::vector<std::int32_t> scaler_;    // GradScaler's factor, how long it has held, a loss that it scaled
  std::size_t adamw_states_ = 0, states_made_ = 0;  // how many of state_ are AdamW's, the first; how many are there
  std::vector<std::int32_t> named_, shelf_;              // of this step: what Python names, what works hold
  std::vector<std::vector<std::int32_t>> stashes_;       // what works of past steps hold, the oldest first
  bool released_ = false, compiling_ = false;            // whether this step's first collective was; whether compiling took time since the last
  int steps_ = 0;                                        // optimizer steps laid out so far
  std::int32_t l2_ = -1;                                 // what clears the L2 cache while kernels are timed
  HighWater high_water_;
  std::set<std::vector<std::int64_t>> timed_;            // functions of the optimizer that were compiled, by what they were compiled for
};

}  // namespace dryfit
