// The optimizer's step: Newton-Schulz, stacks, collectives, and what un-waited NCCL works keep alive until the next step.
// Order and lifetimes: nanochat/{muon,adamw,optim}.py of the version.
#include "passes/program_layout.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include "workload/data_loader.hpp"

namespace dryfit {

using Optimizer = NanochatVersion::Optimizer;

namespace {

constexpr std::size_t kGroupStates = 2;  // of stacked matrices of one shape: momentum and the factored second moment

// One optimizer's orthogonalization, of matrices that are square, wider than tall, taller than wide: X makes an iterate, A a Gram matrix of the smaller side, F an update in fp32, -k frees
// the k-th that was made (from 0, by 0 to 9 and a to z). Kernels that are timed (timing.cpp): T one that writes nothing in place, S one that is the same whatever the shape, tk onto the k-th, G onto stacked gradients and momentum, P onto
// stacked parameters, each an argument twice, Q onto the first that was made and stacked parameters.
struct Recorded { std::string_view square, wide, tall; };

bool iterates_in_fp32(const Workload& w) { return w.model.version.muon_in_compute && w.run.compute != Dtype::bf16; }

const Recorded& recorded_of(const Workload& workload) {
  const Model& model = workload.model;
  // five rounds of Newton-Schulz, each with buffers of its own where the two sizes differ
  static constexpr Recorded kNewtonSchulz{"XXTAAATA-2T-5-1-3-0", "XXTAAATA-2-3-4X-0AAA-5-7-8TX-1AAA-9-b-cX-aAAA-d-f-gX-eAAA-h-j-kX-i-l-6",
                                          "XXTAAATA-2-3-4X-0AAA-5-7-8TX-1AAA-9-b-cX-aAAA-d-f-gX-eAAA-h-j-kX-i-l-m"};
  static constexpr Recorded kPerParameter{"XXTAAt2t1Tt3Tt2Tt3T-0-3-2XT-1X-5", "XXTAAt2-3X-0At2-5TX-1At2-7TX-6At2-9TX-8At2-bTX-a-2-4XT-cX-e",
                                          "XXTAAt2-3X-0At2-5TX-1At2-7TX-6At2-9TX-8At2-bTX-a-2-cXT-4X-e"};
  static constexpr Recorded kByGroup{"XGAAt1TAAt3TAt3TAt1-3-1t0-4-5t2-2P-0-6", "XGAAt1XXTt1XTt1XTt1-2X-4t0-5-6-7At1-8-1P-0-3", "XGAAt1XXTt1XTt1XTt1-2X-4t0-5-6-7At1-8-1P-0-3"};
  static constexpr Recorded kApart{"XGAAt1TAAt3TAt3TAt1-3-1t0-4-5t2-2P-0-6", "XGAAt1XXTt1XTt1XTt1-2X-4t0-5-6-7At1-8-1P-0-3", "TTXGAAt1XXTt1XTt1XTt1-2X-4t3-5-6-7At1-8-1FT-0-3-9"};
  static constexpr Recorded kAllGroups{"XXTAAt2TXt1TXt2-1t0t5St3-5-3P-0-4-2", "XXTAAt2XTt2XTt2X-1t0t2St2-3-5-2P-0-6-4", "XXTAAt2XTt2XTt2X-1t0t2St2-3-5-2P-0-6-4"};
  // what has to be cast no more is read in place
  static constexpr Recorded kByGroupInFp32{"XXGAAt2TAt1TAt1TAt2-1-2t0-4-5t3-3Q-6-0", "XXGAAt2XTt2XTt2XTt2-3X-1t0-5-6-7At2-8-2Q-4-0", "XXGAAt2XTt2XTt2XTt2-3X-1t0-5-6-7At2-8-2Q-4-0"};
  static constexpr Recorded kAllGroupsInFp32{"XXTAAt2TXt1TXt2-1t0t5Tt3-5-3Q-4-2-0", "XXTAAt2XTt2XTt2-3X-1t0At2Tt2-7-5-2Q-6-4-0", "XXTAAt2XTt2XTt2-3X-1t0At2Tt2-7-5-2Q-6-4-0"};
  if (iterates_in_fp32(workload)) return model.version.optimizer == Optimizer::muon_all_groups ? kAllGroupsInFp32 : kByGroupInFp32;
  switch (model.version.optimizer) {
    case Optimizer::torch_adamw_muon: return kNewtonSchulz;
    case Optimizer::muon_per_param: return kPerParameter;
    case Optimizer::muon_stacked_by_group: return stand_apart(model) ? kApart : kByGroup;
    case Optimizer::muon_all_groups: break;
  }
  return kAllGroups;
}

std::size_t states_of_matrix(Optimizer optimizer) { return optimizer == Optimizer::torch_adamw_muon ? 1 : 2; }  // momentum; E3: the factored second moment
constexpr std::size_t kAdamwStates = 3;  // of a slice: both moments and the step's number

std::size_t number_of(char digit) { return static_cast<std::size_t>(digit <= '9' ? digit - '0' : digit - 'a' + 10); }

}  // namespace

std::int32_t ProgramLayout::temporary(const char* role, Dtype d, std::int64_t elements, Category category) {
  return tensor(role, category, d, shape({elements}, false));
}

// Newton-Schulz / Polar Express on K matrices of m x n in bf16 (or fp32), compiled: buffers in the order Inductor makes and frees them. What is not freed at the end is the update;
// returned, or -1. Recorded: docs/oracle.md.
std::int32_t ProgramLayout::orthogonalize(std::int64_t count, std::int64_t m, std::int64_t n) {
  if (!run_.optimizer_compiled) return orthogonalize_op_by_op(count, m, n, iterates_in_fp32(w_));
  const Recorded& recorded = recorded_of(w_);
  const Dtype iterate = iterates_in_fp32(w_) ? Dtype::fp32 : Dtype::bf16;
  const std::string_view order = m == n ? recorded.square : m < n ? recorded.wide : recorded.tall;
  const std::int64_t small = std::min(m, n);
  std::vector<std::int32_t> made;
  const Shape stack = shape({count, m, n}, false);
  const bool times = has_choices(count * small * small);
  std::int64_t timings = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const char kind = order[i];
    if (std::string_view("TtSGPQ").contains(kind)) {
      std::vector<Copied> copied;
      if (kind == 't' || kind == 'Q') {
        const TensorInfo& onto = p_.tensors[static_cast<std::size_t>(made[kind == 't' ? number_of(order[++i]) : 0])];
        copied.push_back({onto.dtype, onto.shape});
      }
      copied.insert(copied.end(), kind == 'G' ? 4 : kind == 'P' || kind == 'Q' ? 2 : 0, {Dtype::fp32, stack});
      // wide and tall matrices of one size have one code, but for what goes along their rows
      const bool along_rows = kind == 'P' || kind == 'Q';
      ++timings;
      const std::vector<std::int64_t> code = kind == 'S' ? std::vector{count * m * n} : std::vector{timings, count * m * n, small, std::int64_t{m == n}, std::int64_t{along_rows && m > n}};
      if (times && timed_.insert(code).second) time_kernel(copied, true);
      continue;
    }
    if (kind == '-') {
      std::int32_t& gone = made[number_of(order[++i])];
      free(gone);
      gone = -1;
      continue;
    }
    made.push_back(kind == 'A' ? temporary("muon.gram", iterate, count * small * small) : temporary("muon.iterate", kind == 'F' ? Dtype::fp32 : iterate, count * m * n));
    alloc(made.back());
  }
  const auto left = std::ranges::find_if(made, [](std::int32_t t) { return t >= 0; });
  return left == made.end() ? -1 : *left;
}

// The next `count` of the states that are not there yet: the first step makes each as it comes to it.
void ProgramLayout::make_states(std::size_t count) {
  for (; count > 0 && states_made_ < state_.size(); --count) alloc(state_[states_made_++]);
}

void ProgramLayout::optimizer_step() {
  const std::int32_t found_infinite = unscale();
  if (!is_distributed(m_, run_)) {
    single_gpu_step();
  } else {
    if (run_.compute == Dtype::fp16 || trains_on_rows(w_)) collective({});  // GradScaler's found_inf is shared first (scripts/base_train.py), rewards or counts of tokens are
    updates_each_matrix(m_.version.optimizer) ? distributed_lists() : distributed_stacks();
    end_distributed_step();
  }
  if (found_infinite >= 0) free(found_infinite);
  ++steps_;
}

void ProgramLayout::single_gpu_step() {
  const Optimizer kind = m_.version.optimizer;
  const std::vector<MuonGroup> groups = muon_groups(m_);
  const auto stack = [&](const char* role, const MuonGroup& g) {
    const std::int32_t t = temporary(role, Dtype::fp32, g.count * g.elements());
    alloc(t);
    return t;
  };
  std::vector<std::int32_t> held;
  if (updates_each_matrix(kind)) {
    make_states(adamw_states_);
    const std::size_t states = states_of_matrix(kind);
    for (const MuonGroup& g : groups) {  // nothing stays of a matrix' update: the first and the last stand for all
      for (const std::int64_t matrices : {std::int64_t{1}, g.count - 1}) {
        if (matrices == 0) continue;
        make_states(states * static_cast<std::size_t>(matrices));
        const std::int32_t update = orthogonalize(1, g.rows, g.cols);
        if (update >= 0) free(update);
      }
    }
  } else if (kind == Optimizer::muon_stacked_by_group) {
    adamw_steps();
    for (const MuonGroup& g : groups) {
      make_states(kGroupStates);
      std::vector<std::int32_t> before = std::exchange(held, {});
      for (const char* role : {"muon.stacked_grads", "muon.stacked_params"}) {
        held.push_back(stack(role, g));
        if (!before.empty()) free(before[held.size() - 1]);
      }
      orthogonalize(g.count, g.rows, g.cols);
      if (!stand_apart(m_)) let_go(std::exchange(held, {}));  // where they do, a group's stacks live until the next group's take their names
    }
  } else {  // E7: every group's gradients are stacked first, and updated stacks wait for the last phase
    for (const MuonGroup& g : groups) held.push_back(stack("muon.stacked_grads", g));
    adamw_steps();
    for (const MuonGroup& g : groups) {
      make_states(kGroupStates);
      held.push_back(stack("muon.stacked_params", g));
      orthogonalize(g.count, g.rows, g.cols);
    }
  }
  let_go(held);
  free_gradients();
}

// nanochat's own AdamW, one parameter after the other; until E4d one GPU has torch's fused one, which is a kernel whatever is compiled.
void ProgramLayout::adamw_steps() {
  const bool own = is_distributed(m_, run_) || !stand_apart(m_);
  for (std::size_t i : adamw_parameters(m_)) {
    const std::size_t states = adamw_states_ / adamw_parameters(m_).size();
    make_states(states);
    if (own && !run_.optimizer_compiled) adamw_op_by_op(m_.parameters[i]);
    if (own && run_.optimizer_compiled) time_adamw(m_.parameters[i], adamw_elements(m_.parameters[i], m_, run_.world_size));
  }
}

// E1..E3b on several GPUs: reduce-scatter and all-gather over lists, which NCCL flattens into padded copies.
void ProgramLayout::distributed_lists() {
  const std::int64_t world = run_.world_size;
  for (std::size_t i : adamw_parameters(m_)) {
    const Parameter& p = m_.parameters[i];
    if (m_.version.epoch == "E1") {  // a tensor like the whole gradient, made for its first slice and let go
      const std::int32_t whole = temporary("adamw.empty_like", p.dtype, p.count(), Category::communication);
      alloc(whole);
      free(whole);
    }
    collective({gradient_of(i), named("adamw.grad_slice", p.dtype, adamw_elements(p, m_, world))});
  }
  adamw_of_slices();
  forget_names();
  const std::vector<MuonGroup> groups = muon_groups(m_);
  const auto flat = [&](const char* role, const MuonGroup& g) {
    const std::int32_t t = temporary(role, Dtype::fp32, world * g.elements(), Category::communication);
    alloc(t);
    return t;
  };
  std::vector<std::int32_t> matrices = matrix_gradients();
  for (const MuonGroup& g : groups) {
    for (std::int64_t i = 0; i < g.count; i += world) {
      matrices.push_back(flat("muon.reduce_flat", g));
      collective(std::exchange(matrices, {}));
    }
  }
  std::int32_t update = -1;  // whose name lives until the next matrix' gradient takes it
  const auto let_update_go = [&] { if (update >= 0) free(std::exchange(update, -1)); };
  for (const MuonGroup& g : groups) {
    compiling();
    for (std::int64_t i = 0; i < g.count; i += world) {
      let_update_go();
      make_states(states_of_matrix(m_.version.optimizer));
      update = orthogonalize(1, g.rows, g.cols);
      std::vector<std::int32_t> held;
      for (std::int64_t r = g.count; r < i + world; ++r) {
        held.push_back(temporary("muon.gather_padding", Dtype::fp32, g.elements(), Category::communication));
        alloc(held.back());
      }
      held.push_back(flat("muon.gather_flat", g));
      collective(held);
    }
  }
  let_update_go();
}

// DistAdamW's step is Python that is not compiled (a collective in its loop makes Dynamo skip it): each parameter's denominator and update live until the next one's are there.
void ProgramLayout::adamw_of_slices() {
  const bool counts = counts_on_gpu(m_, run_);
  const bool corrects_first = m_.version.date >= std::string_view("2026-01-08");  // 4ddc803, the day of E2b: the second moment is divided by its bias, into a tensor more, before its root is taken
  std::vector<std::int32_t> last;
  for (std::size_t i : adamw_parameters(m_)) {
    const Parameter& p = m_.parameters[i];
    make_states(counts ? kAdamwStates : kAdamwStates - 1);
    const auto make = [&](const char* role) {
      const std::int32_t t = temporary(role, p.dtype, adamw_elements(p, m_, run_.world_size));
      alloc(t);
      return t;
    };
    const std::int32_t quotient = corrects_first ? make("adamw.quotient") : -1, denominator = make("adamw.denominator");
    if (quotient >= 0) free(quotient);
    if (!last.empty()) free(last[0]);
    const std::int32_t update = make("adamw.update");
    if (!last.empty()) free(last[1]);
    last = {denominator, update};
  }
  let_go(last);
}

// E3c on, several GPUs: one padded stack of gradients per shape, this rank's chunk, its updated chunk.
void ProgramLayout::distributed_stacks() {
  const std::int64_t world = run_.world_size;
  for (std::size_t i : adamw_parameters(m_)) {
    const Parameter& p = m_.parameters[i];
    if (is_replicated(p, m_)) collective({gradient_of(i)});
    else collective({gradient_of(i), named("adamw.grad_slice", p.dtype, adamw_elements(p, m_, world))});
  }
  const auto adamw = [&] {
    if (m_.version.epoch == "E3c") return adamw_of_slices();
    compiling();
    adamw_steps();
    collective({});
  };
  if (stand_apart(m_)) adamw(), forget_names();
  std::vector<std::int32_t> stacks, lingering;
  for (const MuonGroup& g : muon_groups(m_)) {
    const std::int64_t chunk = ceil_div(g.count, world);
    const std::int32_t grad_stack = temporary("muon.grad_stack", Dtype::fp32, g.count * g.elements());
    alloc(grad_stack);
    let_go(std::exchange(lingering, {}));
    stacks.push_back(named("muon.stacked_grads", Dtype::fp32, chunk * world * g.elements()));
    const std::int32_t grad_chunk = named("muon.grad_chunk", Dtype::fp32, chunk * g.elements());
    collective({stacks.back(), grad_chunk});
    stand_apart(m_) ? lingering.push_back(grad_stack) : free(grad_stack);
  }
  std::vector<std::int32_t> lingering_owned;
  if (!stand_apart(m_)) adamw();
  auto gathered = stacks.begin();  // into the memory of the stacked gradients
  for (const MuonGroup& g : muon_groups(m_)) {
    make_states(kGroupStates);
    const std::int64_t chunk = ceil_div(g.count, world);
    const std::int32_t updated = temporary("muon.updated_params", Dtype::fp32, chunk * g.elements(), Category::communication);
    const bool made_late = m_.version.optimizer == Optimizer::muon_all_groups;
    if (!made_late) alloc(updated);
    const std::int32_t owned = temporary("muon.stacked_owned", Dtype::fp32, std::min(chunk, g.count) * g.elements());
    alloc(owned);
    let_go(std::exchange(lingering_owned, {}));
    compiling();
    orthogonalize(std::min(chunk, g.count), g.rows, g.cols);
    if (made_late) alloc(updated);
    stand_apart(m_) ? lingering_owned.push_back(owned) : free(owned);
    collective({*gathered++, updated});
  }
  let_go(lingering);
  let_go(lingering_owned);
}

std::int32_t ProgramLayout::gradient_of(std::size_t parameter) const {
  for (std::size_t i = 0; i < sums_.size(); ++i) {
    if (sums_[i] >= 0 && graph().inputs[i].parameter == static_cast<std::int32_t>(parameter)) return sums_[i];
  }
  return -1;
}

std::vector<std::int32_t> ProgramLayout::matrix_gradients() const {
  std::vector<std::int32_t> found;
  for (std::size_t i = 0; i < sums_.size(); ++i) {
    if (sums_[i] >= 0 && m_.parameters[static_cast<std::size_t>(graph().inputs[i].parameter)].group == ParamGroup::transformer_matrices) found.push_back(sums_[i]);
  }
  return found;
}

// A tensor that Python names until the step's end (forget_names), whatever collectives hold it.
std::int32_t ProgramLayout::named(const char* role, Dtype dtype, std::int64_t elements) {
  named_.push_back(temporary(role, dtype, elements, Category::communication));
  alloc(named_.back());
  return named_.back();
}

void ProgramLayout::forget_names() {
  for (std::int32_t t : std::exchange(named_, {})) {
    if (std::ranges::find(shelf_, t) == shelf_.end()) free(t);
  }
}

// An asynchronous collective. nanochat waits on futures, never on works, so nothing unstashes what its work holds, inputs and outputs: NCCL's watchdog hands over what is done, every 100 ms, and
// the next collective lets that go (ProcessGroupNCCL.cpp, workEnqueue). Python enqueues a whole step before the GPU is through with it: so a step's works live until the next step's
// first collective (one step later still where a step is shorter than the 100 ms). Where the compiler takes seconds between two collectives, the second lets go of all before it.
void ProgramLayout::collective(const std::vector<std::int32_t>& tensors) {
  if (!released_) {
    while (stashes_.size() >= sets()) let_stash_go();
  }
  if (compiling_) {
    release_stashes();
    for (std::int32_t t : std::exchange(shelf_, {})) {
      if (std::ranges::find(named_, t) == named_.end() && std::ranges::find(sums_, t) == sums_.end()) free(t);
    }
  }
  released_ = true;
  compiling_ = false;
  for (std::int32_t t : tensors) {
    if (std::ranges::find(shelf_, t) == shelf_.end()) shelf_.push_back(t);
  }
}

// Called where an optimizer's function of new shapes first runs.
void ProgramLayout::compiling() { compiling_ = steps_ == 0 && run_.optimizer_compiled; }

void ProgramLayout::let_stash_go() {
  let_go(stashes_.front());
  stashes_.erase(stashes_.begin());
}

// The step's end: names go, and gradients; what works hold stays, under names of its own.
void ProgramLayout::end_distributed_step() {
  forget_names();
  for (std::int32_t sum : sums_) {
    if (sum < 0) continue;
    const auto held = std::ranges::find(shelf_, sum);
    if (held == shelf_.end()) {
      free(sum);
      continue;
    }
    TensorInfo kept = p_.tensors[static_cast<std::size_t>(sum)];
    kept.category = Category::communication;
    p_.tensors.push_back(kept);
    *held = static_cast<std::int32_t>(p_.tensors.size()) - 1;
    hand_over(sum, *held);
  }
  stashes_.push_back(std::exchange(shelf_, {}));
  released_ = false;
}

// How many steps' worth of stashes are alive during forward and backward. The largest peak counts: a step is as short as the GPU and the fastest host's data loader let it be.
std::size_t ProgramLayout::sets() const {
  if (target_.bf16_tflops <= 0) return 1;
  constexpr double kUtilization = 0.4, kWatchdogSeconds = 0.1;
  if (loader_seconds(w_) * kFastHost * static_cast<double>(run_.grad_accum_steps) >= kWatchdogSeconds) return 1;
  const double matmul = static_cast<double>(m_.param_count(ParamGroup::transformer_matrices) + m_.param_count(ParamGroup::lm_head));
  const double attention = 12.0 * static_cast<double>(m_.depth * m_.width * run_.max_seq_len);
  const double flops = (6 * matmul + attention) * static_cast<double>(run_.total_batch_size) / static_cast<double>(run_.world_size);
  return flops / (target_.bf16_tflops * 1e12 * kUtilization) < kWatchdogSeconds ? 2 : 1;
}

}  // namespace dryfit
