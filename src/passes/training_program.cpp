// Load, first step, two steady steps of a transformers run. See training_program.hpp.
#include "passes/training_program.hpp"

#include <memory>

#include "passes/litgpt.hpp"
#include "passes/torch_optimizer.hpp"

namespace dryfit {

namespace {

using eager::Tape;
using eager::Tensor;
using eager::Transformer;
using eager::Litgpt;

class Trainer {
 public:
  Trainer(const Architecture& a, const Training& r, const Target& target, eager::TapeOptions options)
      : a_(a), r_(r), target_(target), tape_(r.device_batch_size, options) {}

  Program run() {
    tape_.segment("load", "weights", 0, Provenance::exact);
    eager::ForwardOptions forward;
    forward.attention = resolve_attention(a_, r_, target_);
    forward.use_cache = r_.use_cache;
    forward.eager_attention = r_.attention == AttentionCode::eager;
    if (r_.framework == Framework::litgpt) litgpt_ = std::make_unique<Litgpt>(tape_, a_, r_, forward);
    else model_ = std::make_unique<Transformer>(tape_, a_, r_, forward);
    std::vector<eager::Trained> trained;
    for (const Transformer::Weight& w : litgpt_ ? litgpt_->weights() : model_->weights()) {
      if (w.trains) trained.push_back({w.tensor, w.role, w.layer});
    }
    if (r_.sharding == Sharding::ddp) make_buckets(trained);
    optimizer_ = std::make_unique<eager::Optimizer>(tape_, r_.optimizer, std::move(trained));
    for (const char* phase : {"first_step", "train_step", "train_step"}) step(phase);
    Program p = tape_.take();
    return p;
  }

 private:
  Tensor ids() {
    return tape_.empty("batch.ids", eager::dims({r_.device_batch_size, r_.seq_len}, true), Dtype::int64);
  }

  // DDP: flat copies of all gradients, in reverse order of the parameters: a bucket ends with the parameter that fills it. The first holds 1 MiB,
  // the rest 25 (torch/csrc/distributed/c10d/reducer.cpp compute_bucket_assignment_by_size, torch/nn/parallel/distributed.py).
  void make_buckets(const std::vector<eager::Trained>& trained) {
    constexpr std::int64_t kFirst = 1 << 20, kRest = 25 << 20;
    tape_.category(Category::communication);
    std::int64_t elements = 0, limit = kFirst;
    Dtype dtype = Dtype::fp32;
    const auto close = [&] {
      if (elements > 0) buckets_.push_back(tape_.empty("ddp.bucket", eager::dims({elements}, false), dtype));
      elements = 0;
    };
    for (auto it = trained.rbegin(); it != trained.rend(); ++it) {
      if (it->parameter.dtype() != dtype) close();
      dtype = it->parameter.dtype();
      elements += it->parameter.dims().numel();
      if (elements * size_of(dtype) < limit) continue;
      close();
      limit = kRest;
    }
    close();
    tape_.category(Category::activations);
  }

  Tensor workspace() {
    const std::int64_t size = target_.compute_major == 9 && target_.compute_minor == 0 ? 33554432 : 8519680;
    return tape_.empty("cublas_workspace", eager::dims({size}, false), Dtype::uint8);
  }

  void workspace_once(Tensor& which) {
    if (which.defined()) return;
    tape_.category(Category::workspace);
    which = workspace();
    tape_.category(Category::activations);
  }

  void micro_step(const char* phase, int micro) {
    tape_.segment(phase, "data", micro, Provenance::exact);
    tape_.category(Category::workspace);
    Transformer::Batch batch{ids(), ids(), ids()};
    tape_.category(Category::activations);
    tape_.segment(phase, "forward", micro);
    workspace_once(workspaces_[0]);
    if (r_.mixed != MixedPrecision::none) tape_.enter_autocast(r_.mixed == MixedPrecision::bf16 ? Dtype::bf16 : Dtype::fp16);
    outputs_ = litgpt_ ? litgpt_->forward(batch) : model_->forward(batch);  // what the name held until now goes
    tape_.leave_autocast();
    loss_ = outputs_.loss;
    if (!r_.holds_outputs) outputs_ = {};
    batch = {};
    if (r_.grad_accum_steps > 1) loss_ = tape_.scale(loss_, "loss");
    tape_.segment(phase, "backward", micro);
    workspace_once(workspaces_[1]);
    tape_.backward(loss_);
    if (model_) model_->finish();
  }

  void step(const char* phase) {
    const int micro_steps = r_.grad_accum_steps > 1 ? 2 : 1;
    for (int micro = 1; micro <= micro_steps; ++micro) micro_step(phase, micro);
    tape_.segment(phase, "optimizer");
    if (r_.max_grad_norm > 0) optimizer_->clip();
    optimizer_->step();
    optimizer_->zero_grad();
  }

  const Architecture& a_;
  const Training& r_;
  Target target_;
  Tape tape_;                         // outlives every tensor below
  std::unique_ptr<Transformer> model_;  // one of these two
  std::unique_ptr<Litgpt> litgpt_;
  std::unique_ptr<eager::Optimizer> optimizer_;
  Tensor workspaces_[2], loss_;
  Transformer::Outputs outputs_;
  std::vector<Tensor> buckets_;
};

}  // namespace

Attention resolve_attention(const Architecture& a, const Training& r, const Target& target) {
  if (r.attention == AttentionCode::flash_attention_2) return Attention::flash;
  const bool half = r.mixed != MixedPrecision::none || r.weights != Dtype::fp32;
  if (half && target.compute_major >= 8 && a.head_dim <= 256) return Attention::flash;
  return Attention::efficient;
}

Result<Program> build_program(const Architecture& a, const Training& r, const Target& target, eager::TapeOptions options) {
  const auto unsupported = [](std::string what) { return fail("unsupported_training", std::move(what) + " is not laid out yet", "leave it out; the rest of the run is"); };
  const bool litgpt = r.framework == Framework::litgpt;
  const bool described = a.causal && !a.conv1d && !a.moe && a.position == Position::rotary && a.norm_placement == NormPlacement::pre && a.qk_norm == QkNorm::none && a.norm != NormKind::rms_norm_plus_one;
  if (litgpt && !described) return unsupported("this architecture (" + a.model_type + ") in LitGPT");
  if (litgpt && (r.recompute != Recompute::none || (r.lora && r.lora->quantized))) return unsupported("LitGPT with checkpointing or quantized weights");
  if (a.latent) return unsupported("multi-head latent attention (" + a.model_type + ")");
  if (r.compile) return unsupported("torch.compile of a transformers model");
  if (r.lora && r.lora->dora) return unsupported("DoRA");
  if (r.lora && (r.lora->bias || !r.lora->saved_modules.empty())) return unsupported("training modules beside the adapters");
  if (r.sharding != Sharding::none && r.sharding != Sharding::ddp) return unsupported("sharding of the states over several GPUs (ZeRO, FSDP)");
  return Trainer(a, r, target, options).run();
}

// Sums over the tensors that loading and the first optimizer step make; no activations are laid out.
StaticBytes static_bytes(const Architecture& a, const Training& r) {
  Tape tape(1);
  std::optional<Transformer> transformer;
  std::optional<Litgpt> litgpt;
  if (r.framework == Framework::litgpt) litgpt.emplace(tape, a, r, eager::ForwardOptions{});
  else transformer.emplace(tape, a, r, eager::ForwardOptions{});
  StaticBytes out;
  std::vector<eager::Trained> trained;
  for (const Transformer::Weight& w : litgpt ? litgpt->weights() : transformer->weights()) {
    const Bytes bytes(w.tensor.dims().numel() * size_of(w.tensor.dtype()));
    out.weights += bytes;
    if (!w.trains) continue;
    out.gradients += bytes;
    trained.push_back({w.tensor, w.role, w.layer});
  }
  if (transformer) out.weights += Bytes(transformer->frozen_bytes());
  eager::Optimizer optimizer(tape, r.optimizer, std::move(trained));
  optimizer.step();
  out.optimizer = Bytes(optimizer.state_bytes());
  return out;
}

}  // namespace dryfit
