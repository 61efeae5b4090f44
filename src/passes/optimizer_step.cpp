// The optimizer's step: Newton-Schulz, stacks, collectives, and what un-waited NCCL works keep alive until the next step.
// Order and lifetimes: nanochat/{muon,adamw,optim}.py of the version.
#include "passes/program_layout.hpp"

#include <algorithm>
#include <string_view>

namespace dryfit {

using Optimizer = NanochatVersion::Optimizer;

namespace {

constexpr std::size_t kGroupStates = 2;  // of stacked matrices of one shape: momentum and the factored second moment

}  // namespace

std::int32_t ProgramLayout::temporary(const char* role, Dtype d, std::int64_t elements, Category category) {
  return tensor(role, category, d, shape({elements}, false));
}

// Newton-Schulz / Polar Express on K matrices of m x n in bf16, compiled: X the iterates, A the Gram matrices of the smaller side,
// in the order Inductor makes (+) and frees (-) them, the oldest of a kind first. Recorded: tests/golden/oracle/recordings.jsonl.
void ProgramLayout::orthogonalize(std::int64_t count, std::int64_t m, std::int64_t n) {
  std::string_view order = "+X+A+A+X+X+X+X-A+X-X-X-X-X+A-A-A-X-X";
  if (m_.version.optimizer == Optimizer::muon_all_groups) order = "+X+X+A+A+X+X+X-X-A-X-A-X-X-X";
  if (m_.version.optimizer == Optimizer::torch_adamw_muon || m_.version.optimizer == Optimizer::muon_per_param) order = "+X+X+A+A+A+A-A-A-A+X-X-X-X-A";
  const std::int64_t small = std::min(m, n);
  std::vector<std::int32_t> iterates, grams;
  std::size_t oldest_iterate = 0, oldest_gram = 0;
  for (std::size_t i = 0; i < order.size(); i += 2) {
    const bool gram = order[i + 1] == 'A';
    std::vector<std::int32_t>& kind = gram ? grams : iterates;
    std::size_t& oldest = gram ? oldest_gram : oldest_iterate;
    if (order[i] == '-') {
      free(kind[oldest++]);
      continue;
    }
    kind.push_back(gram ? temporary("muon.gram", Dtype::bf16, count * small * small) : temporary("muon.iterate", Dtype::bf16, count * m * n));
    alloc(kind.back());
  }
}

// The next `count` of the states that are not there yet: the first step makes each as it comes to it.
void ProgramLayout::make_states(std::size_t count) {
  for (; count > 0 && states_made_ < state_.size(); --count) alloc(state_[states_made_++]);
}

void ProgramLayout::optimizer_step() {
  if (run_.world_size == 1) single_gpu_step();
  else if (m_.version.optimizer == Optimizer::torch_adamw_muon || m_.version.optimizer == Optimizer::muon_per_param) distributed_lists();
  else distributed_stacks();
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
  if (kind == Optimizer::torch_adamw_muon || kind == Optimizer::muon_per_param) {
    make_states(state_.size());
    for (const MuonGroup& g : groups) orthogonalize(1, g.rows, g.cols);
  } else if (kind == Optimizer::muon_stacked_by_group) {
    make_states(adamw_states_);
    for (const MuonGroup& g : groups) {
      make_states(kGroupStates);
      const std::int32_t grads = stack("muon.stacked_grads", g), params = stack("muon.stacked_params", g);
      orthogonalize(g.count, g.rows, g.cols);
      free(grads);
      free(params);
    }
  } else {  // E7: every group's gradients are stacked first, and updated stacks wait for the last phase
    for (const MuonGroup& g : groups) held.push_back(stack("muon.stacked_grads", g));
    make_states(adamw_states_);
    for (const MuonGroup& g : groups) {
      make_states(kGroupStates);
      held.push_back(stack("muon.stacked_params", g));
      orthogonalize(g.count, g.rows, g.cols);
    }
  }
  for (std::int32_t t : held) free(t);
  free_gradients();
}

// E1..E3b on several GPUs: reduce-scatter and all-gather over lists, which NCCL flattens into padded copies.
void ProgramLayout::distributed_lists() {
  const std::int64_t world = run_.world_size;
  std::vector<std::int32_t> kept;
  for (std::size_t i : adamw_parameters(m_)) {
    const Parameter& p = m_.parameters[i];
    if (m_.version.epoch == "E1") {  // a tensor like the whole gradient, made for its first slice and let go
      const std::int32_t whole = temporary("adamw.empty_like", p.dtype, p.count(), Category::communication);
      alloc(whole);
      free(whole);
    }
    kept.push_back(temporary("adamw.grad_slice", p.dtype, std::max<std::int64_t>(1, p.count() / world), Category::communication));
    alloc(kept.back());
    release_stash();  // at the first collective
  }
  make_states(state_.size());
  for (const MuonGroup& g : muon_groups(m_)) {
    const std::int64_t rounds = ceil_div(g.count, world), padding = rounds * world - g.count;
    for (std::int64_t r = 0; r < rounds; ++r) {
      for (const char* role : {"muon.reduce_flat", "muon.gather_flat"}) {
        kept.push_back(temporary(role, Dtype::fp32, world * g.elements(), Category::communication));
        alloc(kept.back());
      }
    }
    for (std::int64_t r = 0; r < padding; ++r) {
      kept.push_back(temporary("muon.gather_padding", Dtype::fp32, g.elements(), Category::communication));
      alloc(kept.back());
    }
    orthogonalize(1, g.rows, g.cols);
  }
  stash(std::move(kept), true);
}

// E3c on, several GPUs: one padded stack of gradients per shape, this rank's chunk, its updated chunk.
void ProgramLayout::distributed_stacks() {
  const std::int64_t world = run_.world_size;
  std::vector<std::int32_t> kept;
  for (std::size_t i : adamw_parameters(m_)) {
    const Parameter& p = m_.parameters[i];
    if (p.count() < 1024) continue;
    kept.push_back(temporary("adamw.grad_slice", p.dtype, p.count() / world, Category::communication));
    alloc(kept.back());
    release_stash();  // at the first collective
  }
  for (const MuonGroup& g : muon_groups(m_)) {
    const std::int64_t chunk = ceil_div(g.count, world);
    const std::int32_t grad_stack = temporary("muon.grad_stack", Dtype::fp32, g.count * g.elements());
    alloc(grad_stack);
    kept.push_back(temporary("muon.stacked_grads", Dtype::fp32, chunk * world * g.elements(), Category::communication));
    alloc(kept.back());
    kept.push_back(temporary("muon.grad_chunk", Dtype::fp32, chunk * g.elements(), Category::communication));
    alloc(kept.back());
    free(grad_stack);
  }
  make_states(adamw_states_);
  for (const MuonGroup& g : muon_groups(m_)) {
    make_states(kGroupStates);
    const std::int64_t chunk = ceil_div(g.count, world);
    const std::int32_t owned = temporary("muon.stacked_owned", Dtype::fp32, std::min(chunk, g.count) * g.elements());
    kept.push_back(temporary("muon.updated_params", Dtype::fp32, chunk * g.elements(), Category::communication));
    const bool made_late = m_.version.optimizer == Optimizer::muon_all_groups;
    if (!made_late) alloc(kept.back());
    alloc(owned);
    orthogonalize(std::min(chunk, g.count), g.rows, g.cols);
    if (made_late) alloc(kept.back());
    free(owned);
  }
  stash(std::move(kept), false);
}

// nanochat waits on futures, never on works, so nothing unstashes what an asynchronous collective holds: inputs and outputs of a
// step's collectives live until the next step's first collective (one step later still where a step is shorter than the
// watchdog's 100 ms). Gradients that were handed to a collective live as long; the others die at zero_grad.
void ProgramLayout::stash(std::vector<std::int32_t> kept, bool matrices_too) {
  for (std::size_t i = 0; i < step_.gradients.size(); ++i) {
    if (sums_[i] < 0) continue;
    const Parameter& p = m_.parameters[static_cast<std::size_t>(graph().inputs[i].parameter)];
    const bool handed = p.group != ParamGroup::transformer_matrices || matrices_too;
    free(sums_[i]);
    if (!handed) continue;
    TensorInfo copy = p_.tensors[static_cast<std::size_t>(sums_[i])];
    copy.category = Category::communication;
    p_.tensors.push_back(copy);
    kept.push_back(static_cast<std::int32_t>(p_.tensors.size()) - 1);
    alloc(kept.back());
  }
  stashes_.push_back(std::move(kept));
  released_ = false;
  if (stashes_.size() < sets()) {  // the steady state, reached after a few steps: two sets
    std::vector<std::int32_t> older;
    for (std::int32_t t : stashes_.back()) {
      p_.tensors.push_back(p_.tensors[static_cast<std::size_t>(t)]);
      older.push_back(static_cast<std::int32_t>(p_.tensors.size()) - 1);
      alloc(older.back());
    }
    stashes_.insert(stashes_.begin(), std::move(older));
  }
}

// Called at each collective: only the first of a step finds sets to let go.
void ProgramLayout::release_stash() {
  if (released_) return;
  released_ = true;
  while (stashes_.size() >= sets() && !stashes_.empty()) {
    for (std::int32_t t : stashes_.front()) free(t);
    stashes_.erase(stashes_.begin());
  }
}

// How many steps' worth of stashes are alive during forward and backward.
std::size_t ProgramLayout::sets() const {
  if (target_.bf16_tflops <= 0) return 1;
  const double matmul = static_cast<double>(m_.param_count(ParamGroup::transformer_matrices) + m_.param_count(ParamGroup::lm_head));
  const double attention = 12.0 * static_cast<double>(m_.depth * m_.width * run_.max_seq_len);
  const double flops = (6 * matmul + attention) * static_cast<double>(run_.total_batch_size) / static_cast<double>(run_.world_size);
  constexpr double kUtilization = 0.4, kWatchdogSeconds = 0.1;
  return flops / (target_.bf16_tflops * 1e12 * kUtilization) < kWatchdogSeconds ? 2 : 1;
}

}  // namespace dryfit
