// See rollouts.hpp. B device batch, P tokens of a prompt, C of a completion, T both, V vocabulary.
#include "passes/rollouts.hpp"

#include <algorithm>
#include <utility>

#include "workload/rollouts.hpp"

namespace dryfit::eager {

namespace {

constexpr std::int64_t kWhole = 16;  // passes of one token, all of which are laid out where there are no more; else the first of them and the last
constexpr std::int64_t kEnds = 2;

// torch.min of two: both are kept, for masks of where each is the smaller.
Tensor smaller(Tape& t, const Tensor& a, const Tensor& b) {
  Tensor out;
  {
    const NoGrad inside(t);
    out = t.add(a, b, "loss");
  }
  return t.function(out, std::array{a, b}, std::array{a, b}, "loss", [&t](const Tensor& g, std::vector<Tensor>&) {
    const auto part = [&] {
      const Tensor equal = t.empty("loss.mask", like(g.dims()), Dtype::bool8), beyond = t.empty("loss.mask", like(g.dims()), Dtype::bool8);
      return t.empty("loss", like(g.dims()), g.dtype());
    };
    Tensor of_a = part(), of_b = part();
    return std::vector<Tensor>{std::move(of_a), std::move(of_b)};
  });
}

}  // namespace

RolloutLoop::RolloutLoop(Tape& tape, const Architecture& a, const Training& r, Training& computes, Transformer& model, ReferenceModel* reference)
    : t_(tape), a_(a), r_(r), g_(*r.rollouts), computes_(computes), model_(model), reference_(reference) {}

int RolloutLoop::micro_steps() const {
  const std::int64_t all = r_.grad_accum_steps;
  return static_cast<int>(std::min<std::int64_t>(all, g_.every() < all ? 3 : 2));
}

bool RolloutLoop::is_time(int micro) const {
  if (micro == 1) return true;  // where completions last for longer than a step, of a step that begins with writing
  return micro < micro_steps() || (r_.grad_accum_steps - 1) % g_.every() == 0;
}

// Where optimizer steps and completions are not in step, or another's words are to be weighed.
bool RolloutLoop::scores_itself() const { return r_.grad_accum_steps % g_.every() != 0 || (g_.by_vllm && g_.corrected); }

void RolloutLoop::before(int micro) {
  if (!is_time(micro)) return;
  ++written_;
  const bool checkpoints = std::exchange(computes_.recompute, Recompute::none) != Recompute::none;
  const Category category = t_.category();
  {
    const NoGrad inside(t_);
    if (!g_.by_vllm) write();
    score();
  }
  t_.category(category);
  if (checkpoints) computes_.recompute = r_.recompute;
}

// prepare_inputs_for_generation: copies of the last tokens and of where they stand. transformers 5 counts once; before, in every pass, from the mask.
void RolloutLoop::give(std::int64_t tokens) {
  const std::int64_t seen = mask_.dims().size[1];
  const auto numbers = [&](std::int64_t n) { return made("positions", rows(), n, Dtype::int64); };
  Tensor ids = made("rollout.ids", rows(), tokens, Dtype::int64), places;
  if (!r_.is_transformers_5()) {
    Tensor sums = numbers(seen);
    const Tensor counted = numbers(seen);
    sums.reset();
    made("attn.padding", rows(), seen, Dtype::bool8);
    places = numbers(tokens);
  } else {
    places = tokens == seen ? counted_ : numbers(tokens);
  }
  given_ = {std::move(ids), std::move(places), mask_};
}

// unwrap_model_for_generation keeps accelerate's autocast around the forward pass, but for what peft's wrapper calls, which is the model within.
void RolloutLoop::pass(std::int64_t tokens) {
  give(tokens);
  const auto half = r_.lora ? std::nullopt : half_of(computes_.mixed);
  if (half) t_.enter_autocast(*half);
  const bool alike = g_.alike || rows() == 1;
  Tensor logits = model_.next_logits(given_.ids, !alike);
  t_.leave_autocast();
  t_.category(Category::logits);
  logits_ = half ? t_.to(logits, Dtype::fp32, "logits") : std::move(logits);
  t_.category(Category::activations);
}

// What sampling does to the logits [rows, V] in fp32 before it: LogitsProcessorList.
Tensor RolloutLoop::processed(const Tensor& logits) {
  const std::int64_t R = rows(), V = a_.vocab;
  const auto like_logits = [&](Dtype d) { return made("logits.processed", R, V, d); };
  Tensor scores = logits;
  if (g_.penalizes) {
    const std::int64_t seen = tokens_.dims().size[1];
    const Tensor picked = made("logits.processed", R, seen, Dtype::fp32), changed = made("logits.processed", R, seen, Dtype::fp32);
    scores = like_logits(Dtype::fp32);
  }
  if (g_.scales_logits) scores = like_logits(Dtype::fp32);
  const auto without = [&](const Tensor& removed) { return removed.defined() ? like_logits(Dtype::fp32) : Tensor(); };
  if (g_.cuts_most) scores = without(like_logits(Dtype::bool8));
  if (g_.cuts_sum) {
    const Tensor sorted = like_logits(Dtype::fp32), indices = like_logits(Dtype::int64);
    Tensor sums = like_logits(Dtype::fp32);
    sums = like_logits(Dtype::fp32);
    const Tensor of_sorted = like_logits(Dtype::bool8), removed = like_logits(Dtype::bool8);
    scores = without(removed);
  }
  if (g_.cuts_least) {
    const Tensor probabilities = like_logits(Dtype::fp32), removed = like_logits(Dtype::bool8), indices = like_logits(Dtype::int64), of_sorted = like_logits(Dtype::bool8), back = like_logits(Dtype::bool8);
    scores = without(back);
  }
  return scores;
}

// The next token of each row. Logits, scores and probabilities keep their names until there are new ones.
void RolloutLoop::sample() {
  t_.category(Category::logits);
  const std::int64_t seen = mask_.dims().size[1] + 1;
  if (counted_.defined()) counted_ = made("positions", rows(), seen, Dtype::int64);
  mask_ = made("rollout.mask", rows(), seen, Dtype::int64);
  Tensor wide = made("logits", rows(), a_.vocab, Dtype::fp32);
  next_ = wide;
  scores_ = processed(next_);
  probabilities_ = made("logits.probabilities", rows(), a_.vocab, Dtype::fp32);
  tokens_ = made("rollout.ids", rows(), tokens_.dims().size[1] + 1, Dtype::int64);
  logits_.reset();
  t_.category(Category::activations);
}

// generate(): a pass over the prompts, then over one token after the other.
void RolloutLoop::write() {
  t_.segment("rollout", "inputs", written_);
  t_.category(Category::workspace);
  inputs_ = {made("rollout.ids", rows(), prompt(), Dtype::int64), made("rollout.mask", rows(), prompt(), Dtype::int64)};
  t_.segment("rollout", "prefill", written_);
  tokens_ = inputs_[0], mask_ = inputs_[1];
  const auto of_rows = [&](Dtype d) { return t_.empty("rollout.state", dims({rows()}, true), d); };
  const auto number = [&] { return t_.empty("rollout.state", dims({}, false), Dtype::int64); };
  const std::array states{number(), number(), number(), of_rows(Dtype::int64), of_rows(Dtype::int64), of_rows(Dtype::int64)};  // tokens that begin, end and fill; which rows go on, and their last
  if (r_.is_transformers_5()) counted_ = made("positions", rows(), prompt(), Dtype::int64);
  t_.category(Category::activations);
  pass(prompt());
  t_.segment("rollout", "decode", written_);
  sample();
  const std::int64_t passes = g_.completion - 1;
  for (std::int64_t i = 0; i < passes; ++i) {
    if (passes > kWhole && i >= kEnds && i < passes - kEnds) {
      model_.grow_cache();
      continue;
    }
    pass(1);
    sample();
  }
  model_.forget_cache();
  mask_.reset(), counted_.reset(), next_.reset(), scores_.reset(), probabilities_.reset();
  given_ = {};
}

FusedOutput RolloutLoop::scores(const Transformer::Batch& batch, FusedAsked asked, bool by_reference) {
  if (by_reference && reference_ != nullptr) return reference_->scores(batch, asked);
  if (const auto half = half_of(computes_.mixed)) t_.enter_autocast(*half);
  FusedOutput out = by_reference ? model_.scores_as_reference(batch, asked) : model_.scores(batch, asked);
  t_.leave_autocast();
  return out;
}

// Log-probabilities of all completions, a device batch at a time; those of a part stay whole until all are joined.
Tensor RolloutLoop::scored(bool by_reference) {
  t_.segment("scoring", by_reference ? "reference" : "own", written_);
  const std::int64_t B = r_.device_batch_size, T = r_.seq_len;
  const FusedAsked asked{.entropy = !(by_reference && reference_ != nullptr), .last = g_.completion};
  std::vector<Tensor> parts;
  FusedOutput outputs;
  Transformer::Batch batch;
  for (std::int64_t i = 0; i < g_.steps; ++i) {
    if (i >= 2 && i < g_.steps - 1) {
      parts.push_back(made("loss.spread", B, T - 1, Dtype::fp32));
      continue;
    }
    const Tensor labels = made("loss.targets", B, T, Dtype::int64);
    outputs = scores(Transformer::Batch{t_.empty("batch.ids", dims({B, T}, true), Dtype::int64), {}, labels, {}}, asked, by_reference);
    parts.push_back(outputs.log_probs);
  }
  return made("loss.log_probs", rows(), g_.completion, Dtype::fp32);
}

void RolloutLoop::score() {
  const std::int64_t R = rows(), P = prompt(), C = g_.completion;
  if (!g_.by_vllm) t_.segment("rollout", "batch", written_);
  else t_.segment("scoring", "batch", written_);
  inputs_ = {}, tokens_.reset();
  t_.category(Category::workspace);
  Kept made_now;
  made_now.prompts = made("batch.ids", R, P, Dtype::int64), made_now.prompt_mask = made("batch.mask", R, P, Dtype::int64);
  made_now.completions = made("batch.ids", R, C, Dtype::int64), made_now.completion_mask = made("batch.mask", R, C, Dtype::int64);
  if (g_.by_vllm) made_now.said = made("batch.score", R, C, Dtype::fp32);
  {
    const Tensor ids = made("batch.ids", R, P + C, Dtype::int64), mask = made("batch.mask", R, P + C, Dtype::int64);
    t_.category(Category::activations);
    if (scores_itself()) made_now.before = scored(false);
    if (g_.by_vllm && g_.corrected) {
      const Tensor apart = made("loss.ratio", R, C, Dtype::fp32);
      made_now.trust = made("loss.ratio", R, 1, Dtype::fp32);
    }
    if (g_.reference) made_now.of_reference = scored(true);
    t_.segment("scoring", "rewards", written_);
    t_.category(Category::workspace);
    const auto each = [&](Dtype d) { return t_.empty("batch.score", dims({R}, true), d); };  // of the rewards: what is there when the most is
    const std::array rewards{each(Dtype::fp32), each(Dtype::fp32), each(Dtype::fp32), each(Dtype::fp32), each(Dtype::fp32), each(Dtype::fp32), each(Dtype::bool8), each(Dtype::bool8), each(Dtype::bool8)};
    made_now.advantages = each(Dtype::fp32);
  }
  // shuffle_sequence_dict; what was kept of the last completions goes when these have its name
  Kept shuffled;
  const auto copy = [&](const Tensor& x) { return x.defined() ? t_.empty("batch.kept", contiguous(x.dims()), x.dtype()) : Tensor(); };
  shuffled.prompts = copy(made_now.prompts), shuffled.prompt_mask = copy(made_now.prompt_mask), shuffled.completions = copy(made_now.completions), shuffled.completion_mask = copy(made_now.completion_mask);
  shuffled.advantages = copy(made_now.advantages), shuffled.before = copy(made_now.before), shuffled.of_reference = copy(made_now.of_reference), shuffled.said = copy(made_now.said), shuffled.trust = copy(made_now.trust);
  made_now = {};
  kept_ = std::move(shuffled);
}

Tensor RolloutLoop::loss() {
  const std::int64_t B = r_.device_batch_size, C = g_.completion;
  const Tensor ids = made("batch.ids", B, r_.seq_len, Dtype::int64), mask = made("batch.mask", B, r_.seq_len, Dtype::int64);
  Tensor log_probs, entropies;
  {
    const Tensor labels = made("loss.targets", B, r_.seq_len, Dtype::int64);
    const FusedOutput made_now = scores(Transformer::Batch{ids, mask, labels, {}}, {.entropy = true, .last = C}, false);
    log_probs = t_.cat(std::array{t_.slice(made_now.log_probs, 1, C)}, 0, "loss.log_probs");
    entropies = t_.cat(std::array{t_.slice(made_now.entropy, 1, C)}, 0, "loss.entropy");
  }
  const auto part = [&](const Tensor& x) { return t_.slice(x, 0, B); };
  const Tensor before = kept_.before.defined() ? part(kept_.before) : t_.detach(log_probs);
  const Tensor ratio = t_.sub(log_probs, before, "loss.ratio");
  const Tensor weights = t_.unary(ratio, Tape::Keep::result, "loss.ratio");
  Tensor divergence;
  if (g_.reference) {
    const Tensor other = part(kept_.of_reference);
    const Tensor raised = t_.unary(t_.sub(other, log_probs, "loss.divergence"), Tape::Keep::result, "loss.divergence");
    divergence = t_.sub(raised, t_.sub(other, log_probs, "loss.divergence"), "loss.divergence");
    divergence = t_.shift(divergence, "loss.divergence");
    divergence = t_.mul(divergence, weights, "loss.divergence");
  }
  const Tensor advantages = t_.view(part(kept_.advantages), dims({B, 1}, true));
  const Tensor clipped = t_.unary(weights, Tape::Keep::input, "loss.ratio");
  const Tensor first = t_.mul(weights, advantages, "loss"), second = t_.mul(clipped, advantages, "loss");
  Tensor each = t_.scale(smaller(t_, first, second), "loss");
  if (kept_.trust.defined()) each = t_.mul(each, part(kept_.trust), "loss");
  if (divergence.defined()) each = t_.add(each, t_.scale(divergence, "loss.divergence"), "loss");
  const Tensor counted = t_.mul(each, part(kept_.completion_mask), "loss");
  Tensor loss = t_.scale(t_.sum(t_.view(counted, {B * C}), 0, "loss"), "loss");
  const NoGrad inside(t_);  // what is logged
  for (int i = 0; i < 3; ++i) {
    const Tensor clips = t_.empty("loss.mask", dims({B, C}, true), Dtype::bool8);
    made("loss", B, C, Dtype::fp32);
  }
  return loss;
}

Result<void> rollouts_are_described(const Architecture& a, const Training& r) {
  const auto with = [](std::string what, std::string hint) { return fail("unsupported_training", "rollouts (GRPO) " + std::move(what) + " are not laid out yet", std::move(hint)); };
  if (!a.causal || r.framework != Framework::transformers) return with(a.causal ? "in " + std::string(name_of(r.framework)) : "of " + a.model_type, "causal models by TRL's GRPOTrainer are laid out");
  if (a.moe) return with("of a mixture of experts, which takes other ways while it writes and whose routers add a loss,", "dense models are laid out");
  if (a.latent) return with("of " + a.model_type + " with latent attention", "models with keys and values of their own are laid out");
  if (r.world_size > 1 || r.sharding != Sharding::none) return with("on several GPUs", "ask for one GPU");
  if (r.compile) return with("under torch.compile", "leave it out: the rest of the run is");
  if (r.liger.any() || r.adapter_kernels.any()) return with("with other kernels in the model", "leave --use_liger_kernel out: the rest of the run is");
  if (r.packed) return with("of packed rows", "leave packing out");
  if (r.ema) return with("and a moving average of the weights", "leave --ema out: the rest of the run is");
  if (auto ok = rollouts_are_legal(r); !ok) return ok;
  if (is_flash(r.attention) && !r.rollouts->by_vllm) return with("written by FlashAttention's kernels", "use --attn_implementation sdpa, or a server of vLLM's (--use_vllm true --vllm_mode server)");
  if (r.lora && (r.lora->virtual_tokens > 0 || r.lora->dora || r.lora->biases != Lora::Biases::none || !r.lora->saved_modules.empty())) return with("with other adapters than LoRA's two matrices", "use --lora_r 16 without modules to save");
  return {};
}

}  // namespace dryfit::eager
