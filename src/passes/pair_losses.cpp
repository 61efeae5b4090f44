// See pair_losses.hpp. B pairs, or answers of KTO, T length, V vocabulary.
#include "passes/pair_losses.hpp"

#include <array>
#include <utility>

namespace dryfit::eager {

namespace {

Tensor ids_like(Tape& t, const Tensor& ids) { return t.empty("batch.copy", ids.dims(), Dtype::int64); }

// nested_detach with clone=True, which every forward pass of a run with a reference takes.
Transformer::Batch copied(Tape& t, const Transformer::Batch& batch) {
  const NoGrad inside(t);
  return {ids_like(t, batch.ids), ids_like(t, batch.mask), ids_like(t, batch.labels), {}};
}

struct RowLogProbs { Tensor sums, counts; };  // [2 B]

// get_batch_logps: sums over a row of the labels' log-probabilities, and how many there are.
RowLogProbs row_log_probs(Tape& t, const Tensor& logits) {
  const Category before = t.category();
  t.category(Category::logits);
  const std::int64_t rows = logits.dims().size[0], length = logits.dims().size[1] - 1;
  const Tensor targets = t.empty("loss.targets", dims({rows, length}, true), Dtype::int64);
  const Tensor mask = t.empty("loss.mask", targets.dims(), Dtype::bool8);
  t.empty("loss.mask", targets.dims(), Dtype::bool8);
  Tensor of_labels;
  {
    const Tensor log_probs = t.log_softmax(t.slice(logits, 1, length), "loss.log_probs");
    of_labels = t.view(t.gather(log_probs, t.view(targets, {rows, length, 1}), dims({rows, length, 1}, true), "loss.log_probs"), {rows, length});
  }
  RowLogProbs out;
  out.counts = t.empty("loss.count", dims({rows}, true), Dtype::int64);
  out.sums = t.sum(t.mul(of_labels, mask, "loss.log_probs"), 1, "loss");
  t.category(before);
  return out;
}

// -logsigmoid
Tensor surprise(Tape& t, const Tensor& x) { return t.scale(t.unary(x, Tape::Keep::input, "loss"), "loss"); }

std::vector<Tensor> halves(Tape& t, const Tensor& x) {
  const std::int64_t half = x.dims().size[0] / 2;
  return t.split(x, 0, std::array{half, half});
}

// dpo_loss's "sigmoid", with no label smoothed: both of its terms are there.
Tensor compared(Tape& t, const std::vector<Tensor>& own, const std::vector<Tensor>& others) {
  const Tensor ratio = t.sub(own[0], own[1], "loss"), of_reference = t.sub(others[0], others[1], "loss");
  const Tensor logits = t.sub(ratio, of_reference, "loss");
  const Tensor likely = t.scale(surprise(t, t.scale(logits, "loss")), "loss");
  const Tensor unlikely = t.scale(t.unary(t.scale(logits, "loss"), Tape::Keep::input, "loss"), "loss");
  return t.sub(likely, unlikely, "loss");
}

Tensor odds_ratio(Tape& t, const std::vector<Tensor>& own) {
  const auto of_rest = [&](const Tensor& x) { return t.unary(t.scale(t.unary(x, Tape::Keep::result, "loss"), "loss"), Tape::Keep::input, "loss"); };  // log1p(-exp(x))
  const Tensor odds = t.sub(t.sub(own[0], own[1], "loss"), t.sub(of_rest(own[0]), of_rest(own[1]), "loss"), "loss");
  return t.add(t.scale(own[0], "loss"), t.scale(surprise(t, odds), "loss"), "loss");
}

Tensor with_margin(Tape& t, const std::vector<Tensor>& own) { return surprise(t, t.scale(t.shift(t.sub(own[0], own[1], "loss"), "loss"), "loss")); }

}  // namespace

Tensor factory_preference_loss(Tape& t, FactoryPairs in) {
  const bool copies = in.loss == Preference::Loss::compared;
  Tensor all;  // its halves are looked at for what is logged
  RowLogProbs made;
  {
    const Transformer::Batch own = copies ? copied(t, in.batch) : in.batch;
    all = in.policy(own);
    made = row_log_probs(t, all);
  }
  if (!copies) made.sums = t.masked(made.sums, made.counts, "loss");
  const std::vector<Tensor> own = halves(t, made.sums);
  const Tensor mean = copies ? t.masked(own[0], made.counts, "loss") : Tensor();
  std::vector<Tensor> others;
  if (in.reference) {
    const NoGrad inside(t);
    const Transformer::Batch again = copied(t, in.batch);
    others = halves(t, row_log_probs(t, in.reference(again)).sums);
  }
  const Tensor losses = copies ? compared(t, own, others) : in.loss == Preference::Loss::orpo ? odds_ratio(t, own) : with_margin(t, own);
  return t.mean_last(losses, "loss");
}

Tensor reward_loss(Tape& t, const Tensor& rewards) {
  const std::vector<Tensor> of = halves(t, t.view(rewards, {rewards.dims().size[0]}));
  return t.scale(t.mean_last(t.unary(t.sub(of[0], of[1], "loss"), Tape::Keep::input, "loss"), "loss"), "loss");
}

Tensor last_values_loss(Tape& t, const Tensor& values) {
  const std::vector<Tensor> of = halves(t, values);
  const std::int64_t pairs = of[0].dims().size[0];
  const auto last = [&](const Tensor& x) { return t.view(t.gather(x, t.empty("loss.places", dims({pairs, 1}, true), Dtype::int64), dims({pairs, 1}, true), "loss"), {pairs}); };
  const Tensor chosen = last(of[0]), rejected = last(of[1]);
  return t.mean_last(surprise(t, t.sub(chosen, rejected, "loss")), "loss");
}

Tensor liked_answers_loss(Tape& t, const LikedAnswers& in) {
  const Dims tokens = in.batch.ids.dims();
  const std::int64_t rows = tokens.size[0], length = tokens.size[1] - 1, liked = rows / 2;
  const Transformer::Batch others{in.others ? in.batch.others[0] : Tensor(), in.others ? in.batch.others[1] : Tensor(), {}, {}};
  const auto labels = [&] {  // masked_fill of the ids
    const Tensor prompt = t.empty("loss.mask", tokens, Dtype::bool8);
    return t.empty("loss.targets", tokens, Dtype::int64);
  };
  const auto sums = [&](const FusedOutput& of) { return t.sum(t.slice(of.log_probs, 1, length), 1, "loss"); };
  const auto of_others = [&](const auto& says) {
    if (!in.others) return Tensor();
    const NoGrad inside(t);
    const Tensor targets = labels();
    return sums(says(others));
  };
  const Tensor own_of_others = of_others([&](const Transformer::Batch& b) { return in.policy(b, false); });
  const Tensor targets = labels();
  const FusedOutput made = in.policy(in.batch, true);
  const Tensor completions = sums(made);
  const auto indices = [&](std::int64_t count) { return t.empty("loss.places", dims({count}, true), Dtype::int64); };
  const std::array<Tensor, 2> places{indices(liked), indices(rows - liked)};
  const auto picked = [&](const Tensor& x, int which) { return t.gather(x, places[static_cast<std::size_t>(which)], places[static_cast<std::size_t>(which)].dims(), "loss"); };
  const std::array<Tensor, 2> own{picked(completions, 0), picked(completions, 1)};
  std::array<Tensor, 2> reference;
  Tensor reference_of_others = in.batch.computed[1];
  FusedOutput of_reference;
  {
    const NoGrad inside(t);
    Tensor said = in.batch.computed[0];
    if (in.reference) {
      reference_of_others = of_others(in.reference);
      of_reference = in.reference(in.batch);
      said = sums(of_reference);
    }
    for (int which = 0; which < 2; ++which) reference[static_cast<std::size_t>(which)] = picked(said, which);
  }
  Tensor divergence;
  if (in.others) {
    const NoGrad inside(t);
    divergence = t.mean_last(t.sub(own_of_others, reference_of_others, "loss"), "loss");
  }
  std::array<Tensor, 2> losses;
  for (int which = 0; which < 2; ++which) {
    Tensor ratio = t.sub(own[static_cast<std::size_t>(which)], reference[static_cast<std::size_t>(which)], "loss");
    if (in.others) ratio = t.sub(ratio, divergence, "loss");
    losses[static_cast<std::size_t>(which)] = t.scale(t.shift(t.unary(t.scale(ratio, "loss"), Tape::Keep::result, "loss"), "loss"), "loss");
  }
  const Tensor all = t.cat(losses, 0, "loss");
  {
    const NoGrad inside(t);  // what is logged: entropy, and the mean logits of answers of either kind
    const Dims shifted = dims({rows, length}, true);
    t.empty("loss.entropy", shifted, Dtype::fp32);
    std::array<Tensor, 4> kept;
    for (int which = 0; which < 2; ++which) kept[static_cast<std::size_t>(which)] = t.empty("loss.mean_logits", dims({which == 0 ? liked : rows - liked, length}, true), Dtype::fp32);
    for (int which = 0; which < 2; ++which) kept[static_cast<std::size_t>(2 + which)] = t.empty("loss.mask", kept[static_cast<std::size_t>(which)].dims(), Dtype::int64);
    for (int which = 0; which < 2; ++which) {
      const Dims half = kept[static_cast<std::size_t>(which)].dims();
      const Tensor flags = t.empty("loss.mask", half, Dtype::bool8);
      const Tensor pairs = t.empty("loss.places", dims({half.size[0] * length, 2}, true), Dtype::int64);
      t.empty("loss.mean_logits", dims({half.size[0] * length}, true), Dtype::fp32);
    }
  }
  return t.mean_last(all, "loss");
}

Result<void> pairs_are_described(const Architecture& a, const Training& r) {
  const Preference& p = *r.preference;
  const auto with = [&](std::string what, std::string hint) { return fail("unsupported_training", "training of " + std::string(p.of_rewards() ? "reward models" : "preferences") + " (" + std::string(name_of(p)) + ") " + std::move(what) + " is not laid out yet", std::move(hint)); };
  if (!a.causal || r.framework != Framework::transformers) return with(a.causal ? "in " + std::string(name_of(r.framework)) : "of " + a.model_type, "causal models are laid out");
  const bool head = p.trainer == Preference::Trainer::reward;
  if (head && gathers_weights(r.sharding)) return with("under " + std::string(name_of(r.sharding)), "use --parallel ddp or zero2");
  const bool finds_none = p.trainer == Preference::Trainer::factory_rm;  // the head of words has no gradient: DistributedDataParallel waits for it
  if (!head && r.sharding != Sharding::none && (r.sharding != Sharding::ddp || finds_none)) return with(finds_none ? "on several GPUs" : "under " + std::string(name_of(r.sharding)), finds_none ? "ask for one GPU" : "use --parallel ddp, or one GPU; TRL's DPO (trl dpo) is laid out under all");
  if (a.moe) return with("of a mixture of experts", "dense models are laid out");
  if (a.attention_dropout > 0 && a.family != Family::gpt2 && p.trainer != Preference::Trainer::factory_rm) return with("of " + a.model_type + " with dropout in its attention, which disable_dropout leaves there,", "set attention_dropout to 0 in config.json");
  if (r.compile) return with("under torch.compile", "leave it out: the rest of the run is");
  if (r.liger.any() || r.adapter_kernels.any()) return with("with other kernels in the model", "leave Liger-Kernel out: the rest of the run is");
  if (r.packed) return with("of packed rows", "leave packing out");
  if (r.ema) return with("and a moving average of the weights", "leave --ema out: the rest of the run is");
  if (r.lora && (r.lora->virtual_tokens > 0 || r.lora->dora || r.lora->biases != Lora::Biases::none || (!head && !r.lora->saved_modules.empty()))) return with("with other adapters than LoRA's two matrices", "use --lora-rank 16");
  return {};
}

}  // namespace dryfit::eager
