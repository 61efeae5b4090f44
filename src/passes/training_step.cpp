// A training step: its micro-steps forward and backward, what happens to the gradients; and the validation, which runs the forward pass alone.
// Order and lifetimes: scripts/base_train.py of the version.
#include <iterator>
#include <span>
#include <utility>

#include "graph/nanochat.hpp"
#include "passes/program_layout.hpp"

namespace dryfit {

void ProgramLayout::play(const Graph& of, const std::vector<BufferStep>& steps, std::int32_t first, Timings timed) {
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const BufferStep& s = steps[i];
    if (!on_host(of, s.node)) add({s.alloc, s.node + first, s.op + first, s.from == kNone ? kNone : s.from + first});
    multiplied(of, s, 0);
    time_kernels(of, timed, i + 1);
  }
}

void ProgramLayout::play(EagerStep::Part part) {
  for (const Event& e : eager_->events(part)) p_.events.push_back({e.kind, eager_tensors_[static_cast<std::size_t>(e.tensor)], eager_tensors_[static_cast<std::size_t>(e.op)]});
}

void ProgramLayout::make_workspaces(int thread) {
  make_once(workspaces_[thread]);
  if (run_.fp8) make_once(lt_workspaces_[thread]);
}

void ProgramLayout::eager_micro_step(const char* phase, int micro) {
  segment(phase, "forward", micro);
  if (trains_on_rows(w_) && !std::exchange(loaded_, true)) loader();
  make_workspaces(0);
  play(micro == 1 ? EagerStep::forward : EagerStep::forward_again);
  segment(phase, "backward", micro);
  make_workspaces(1);
  scale_loss();
  play(micro == 1 ? EagerStep::backward : EagerStep::backward_again);
  loss_scaled();
}

// fp16 has a GradScaler: its factor and how long that has held are made with the first loss that it scales (torch/amp/grad_scaler.py).
bool ProgramLayout::scales() const { return run_.compute == Dtype::fp16 && run_.script != Script::chat_rl; }

void ProgramLayout::scale_loss() {
  if (!scales()) return;
  if (scaler_.empty()) {
    for (const Dtype d : {Dtype::fp32, Dtype::int32, Dtype::fp32}) scaler_.push_back(temporary("scaler", d, 1, Category::workspace));
    alloc(scaler_[0]);
    alloc(scaler_[1]);
  }
  alloc(scaler_[2]);
}

void ProgramLayout::loss_scaled() {
  if (scales()) free(scaler_[2]);
}

// The factor's inverse, in fp64 on its way, and whether a gradient is infinite: kept until the factor is set anew.
std::int32_t ProgramLayout::unscale() {
  if (!scales()) return -1;
  const std::int32_t wide = temporary("scaler", Dtype::fp64, 1, Category::workspace), inverse_wide = temporary("scaler", Dtype::fp64, 1, Category::workspace);
  const std::int32_t inverse = temporary("scaler", Dtype::fp32, 1, Category::workspace), found = temporary("scaler", Dtype::fp32, 1, Category::workspace);
  alloc(wide), alloc(inverse_wide), free(wide);
  alloc(inverse), free(inverse_wide);
  alloc(found), free(inverse);
  return found;
}

// A thread's first matrix product has its result and then takes cuBLAS' workspace, which comes with its handle; cuBLASLt, which runs products in fp8, is handed that handle (ATen/cuda/CublasHandlePool.cpp,
// getCurrentCUDABlasLtHandle) and takes one of its own after it.
void ProgramLayout::multiplied(const Graph& of, const BufferStep& s, int thread) {
  const Node& n = of.nodes[static_cast<std::size_t>(s.node)];
  if (!s.alloc || n.fn != Fn::matmul) return;
  make_once(workspaces_[thread]);
  if (is_scaled(n)) make_once(lt_workspaces_[thread]);
}

// rolls_out: chat_rl samples for the next question while it keeps the gradients of the last.
void ProgramLayout::training_step(const char* phase, bool rolls_out) {
  const int micro_steps = accumulate_ ? 2 : 1;
  for (int micro = 1; micro <= micro_steps; ++micro) {
    if (rolls_out && micro == 2) sampling("rollout", rollout_of(run_));
    if (eager_) {
      eager_micro_step(phase, micro);
      continue;
    }
    const Provenance provenance = run_.compile ? Provenance::exact : Provenance::modelled;
    segment(phase, "forward", micro, provenance);
    const bool first = steps_ == 0 && micro == 1;
    play(graph(), step_.forward, 0, first ? timings_of(step_.forward_timings, false) : Timings{});
    alloc(loss_);
    segment(phase, "backward", micro, provenance);
    scale_loss();
    play_backward(first ? timings_of(step_.backward_timings, true) : Timings{});
    loss_scaled();
    keep_gradients(micro);
    free(loss_);
    free(step_.loss);
  }
  segment(phase, "optimizer");
  optimizer_step();
}

// Attention's backward kernel needs scratch that no graph shows: row sums (FlashAttention 3 returns those), and dq in fp32.
void ProgramLayout::play_backward(Timings timed) {
  const auto first_of_attention = [&](const BufferStep& s) {
    const Node& n = node(s.node);
    return s.alloc && n.kind == Kind::result && n.fn == Fn::result && node(n.in[0]).fn == Fn::attention_backward && n.variant == 0;
  };
  const std::vector<BufferStep>& steps = step_.backward;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const bool takes_over = i + 1 < steps.size() && steps[i + 1].from != kNone;  // nothing comes between the two
    if (first_of_attention(steps[takes_over ? i + 1 : i]) && steps[i].from == kNone) scratch(node(steps[takes_over ? i + 1 : i].node));
    if (!on_host(graph(), steps[i].node)) add(steps[i]);
    multiplied(graph(), steps[i], 1);
    time_kernels(graph(), timed, i + 1);
  }
}

void ProgramLayout::scratch(const Node& dq) {
  const std::int64_t B = run_.device_batch_size, T = run_.max_seq_len;
  const auto kind = static_cast<Attention>(node(dq.in[0]).variant);
  const auto [found, is_new] = scratch_.try_emplace(kind);
  auto& [before, beside] = found->second;
  if (is_new) {
    // FlashAttention 3's row sums are a buffer of the graph
    const AttentionScratch taken = backward_scratch({kind, {B, m_.heads, T, T, m_.head_dim, m_.head_dim, dq.dtype}, m_.heads, true, 0, true, target_.capability()});
    const auto named = [&](const ScratchTensor& t) { return tensor(t.role, Category::workspace, t.dtype, shape(t.size, true)); };
    for (const ScratchTensor& t : taken.before) before.push_back(named(t));
    for (const ScratchTensor& t : taken.beside) beside.push_back(named(t));
  }
  play_scratch(before, beside, [&](std::int32_t t) { return alloc(t), t; }, [&](std::int32_t t) { free(t); });
}

// First micro-step: autograd keeps the new gradients. Later ones: added to what is there, then let go; compiled backward hands
// all of them over at its end, so old and new live together there.
void ProgramLayout::keep_gradients(int micro) {
  for (std::size_t i = 0; i < step_.gradients.size(); ++i) {
    const NodeId g = step_.gradients[i];
    if (g == kNone) continue;
    if (micro == 1) hand_over(g, sums_[i]);
    else free(g);
  }
}

void ProgramLayout::free_gradients() {
  for (std::int32_t t : sums_) {
    if (t >= 0) free(t);
  }
}

// Validation: the forward pass without gradients; only the loss of each token comes out.
void ProgramLayout::validation() {
  segment("validation", "forward");
  leave_fp8();
  if (!validated_) validation_loader();
  if (!validated_) bits_per_byte();
  validated_ = true;
  for (const std::int32_t t : of_last_batch_) alloc(t);
  if (eager_) {
    make_once(workspaces_[0]);
    play(EagerStep::validation);
  } else {
    Timings timed;
    if (losses_ == kNone) timed = timings_of(lay_out_validation(), true);
    play(evaluated_, validation_, evaluated_first_, timed);
    free(losses_);
  }
  let_go(of_last_batch_);
}

// What evaluate_bpb goes on naming of a batch while the next one's forward pass runs (nanochat/loss_eval.py): each token's loss and bytes, and where tokens are masked which and what stands for them.
void ProgramLayout::bits_per_byte() {
  if (trains_on_rows(w_)) return;
  const Shape tokens = shape({run_.device_batch_size, run_.max_seq_len}, true);
  const auto named = [&](const char* role, Dtype dtype) { of_last_batch_.push_back(tensor(role, Category::workspace, dtype, tokens)); };
  named("bpb.losses", Dtype::fp32);
  named("bpb.bytes", Dtype::int32);
  if (run_.script != Script::chat_sft) return;
  named("bpb.valid", Dtype::bool8);
  named("bpb.safe", Dtype::int64);
}

std::vector<Timing> ProgramLayout::lay_out_validation() {
  CompiledForward compiled = compile_forward(nanochat_forward(w_, resolve_attention(w_, target_), true));
  evaluated_ = std::move(compiled.graph);
  evaluated_first_ = static_cast<std::int32_t>(p_.tensors.size());
  add_tensors_of(evaluated_);
  validation_ = std::move(compiled.steps);
  losses_ = compiled.output + evaluated_first_;
  return std::move(compiled.timings);
}

// nanochat evaluates in bf16: each Linear in fp8 is replaced by a fresh one, whose own weight goes as soon as it is there (base_train.py, disable_fp8).
void ProgramLayout::leave_fp8() {
  if (!run_.fp8 || !m_.version.fp8_swapped_on_gpu) return;
  if (swapped_.empty()) {
    for (const Float8Linear& l : graph().float8) swapped_.push_back(tensor("linear.weight", Category::weights, node(l.w).dtype, node(l.w).shape, node(l.w).layer));
  }
  for (const std::int32_t t : swapped_) alloc(t), free(t);
}

// The name of the validation loader stays until the next one: so does its batch.
void ProgramLayout::validation_loader() {
  const std::int64_t B = run_.device_batch_size, T = run_.max_seq_len;
  if (run_.script == Script::base_train && m_.version.loader_gpu_buffer) {
    alloc(tensor("val_loader_buffer", Category::workspace, Dtype::int64, shape({2, B, T}, true)));
  } else {
    alloc(tensor("val_idx", Category::workspace, trains_eagerly(w_) ? Dtype::int64 : Dtype::int32, shape({B, T}, true)));
    alloc(tensor("val_targets", Category::workspace, Dtype::int64, shape({B, T}, true)));
    if (masks_targets()) alloc(tensor("val_mask", Category::workspace, Dtype::uint8, shape({B, T}, true)));
  }
}

}  // namespace dryfit
