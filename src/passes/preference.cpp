// See preference.hpp. B pairs, T length.
#include "passes/preference.hpp"

#include <array>
#include <utility>

namespace dryfit::eager {

namespace {

// Sums of the rows' log-probabilities, chosen and rejected apart.
std::vector<Tensor> scores(Tape& t, const Tensor& log_probs, std::int64_t pairs) {
  const Tensor kept = t.slice(log_probs, 1, log_probs.dims().size[1]);
  return t.split(t.sum(kept, 1, "loss"), 0, std::array{pairs, pairs});
}

// What is logged, but for single numbers: entropy, mean logits of either answer, how often the chosen one's tokens are the likeliest.
void log_of(Tape& t, const FusedOutput& made, std::int64_t pairs) {
  const NoGrad inside(t);
  const std::int64_t length = made.log_probs.dims().size[1];
  t.mul(made.entropy, made.log_probs, "loss.entropy");
  const Dims half = dims({pairs, length}, true);
  for (int answer = 0; answer < 2; ++answer) {
    const Tensor counts = t.empty("loss.mask", half, Dtype::bool8);
    const Tensor places = t.empty("loss.places", dims({pairs * length, 2}, true), Dtype::int64);
    t.empty("loss.mean_logits", dims({pairs * length}, true), Dtype::fp32);
  }
  const Tensor counts = t.empty("loss.mask", half, Dtype::bool8);
  t.empty("loss.top", half, Dtype::bool8);
}

}  // namespace

Tensor preference_loss(Tape& t, const PreferenceInputs& in) {
  const std::int64_t pairs = in.tokens.size[0] / 2;
  Tensor labels;
  {
    const Tensor prompt = t.empty("loss.mask", in.tokens, Dtype::bool8);
    labels = t.empty("loss.targets", in.tokens, Dtype::int64);
  }
  const FusedOutput made = in.policy();
  const std::vector<Tensor> own = scores(t, made.log_probs, pairs);
  FusedOutput of_reference;
  std::vector<Tensor> others(in.computed_before.begin(), in.computed_before.end());
  if (in.reference) {
    const NoGrad inside(t);
    of_reference = in.reference();
    others = scores(t, of_reference.log_probs, pairs);
  }
  const Tensor chosen = t.sub(own[0], others[0], "loss"), rejected = t.sub(own[1], others[1], "loss");
  const Tensor delta = t.sub(chosen, rejected, "loss");
  const Tensor of_pairs = t.scale(t.unary(t.scale(delta, "loss"), Tape::Keep::input, "loss"), "loss");  // -logsigmoid(beta * delta)
  Tensor loss = t.scale(t.mean_last(of_pairs, "loss"), "loss");
  loss = t.shift(loss, "loss");
  log_of(t, made, pairs);
  return loss;
}

Result<void> preference_is_described(const Architecture& a, const Training& r) {
  const auto with = [](std::string what, std::string hint) { return fail("unsupported_training", "preference training (DPO) " + std::move(what) + " is not laid out yet", std::move(hint)); };
  if (!a.causal || r.framework != Framework::transformers) return with(a.causal ? "in " + std::string(name_of(r.framework)) : "of " + a.model_type, "causal models by TRL's DPOTrainer are laid out");
  if (a.moe) return with("of a mixture of experts, whose routers add a loss,", "dense models are laid out");
  if (a.attention_dropout > 0 && a.family != Family::gpt2) return with("of " + a.model_type + " with dropout in its attention, which disable_dropout leaves there,", "set attention_dropout to 0 in config.json");
  if (r.compile) return with("under torch.compile", "leave it out: the rest of the run is");
  if (r.liger.any() || r.adapter_kernels.any()) return with("with other kernels in the model", "leave --liger out: the rest of the run is");
  if (r.packed) return with("of packed rows", "leave padding_free out");
  if (r.ema) return with("and a moving average of the weights", "leave --ema out: the rest of the run is");
  if (r.lora && (r.lora->virtual_tokens > 0 || r.lora->dora || r.lora->biases != Lora::Biases::none || !r.lora->saved_modules.empty())) return with("with other adapters than LoRA's two matrices", "use --lora-rank 16");
  return {};
}

}  // namespace dryfit::eager
