// Heads of classes in place of one of words, op by op, and what their batches hold. See transformer.hpp. B batch, T length, D width, C classes.
// Source: transformers 4.57 and 5.17, modeling_layers.py (Generic*) and models/{bert,roberta,distilbert,gpt2,gpt_neox}/modeling_*.py; loss/loss_utils.py.
#include <array>

#include "passes/transformer.hpp"

namespace dryfit::eager {

Result<void> classes_are_described(const Architecture& a, const Training& r) {
  const auto refuse = [&](const std::string& what, std::string hint) { return fail("unsupported_training", what + " " + a.class_name + " is not laid out yet", std::move(hint)); };
  if (r.framework != Framework::transformers) return refuse(std::string(name_of(r.framework)) + "'s training of", "leave --framework out");
  if (r.compile) return refuse("torch.compile of", "leave torch.compile out; the rest of the run is");
  if (gathers_weights(r.sharding)) return refuse("with " + std::string(name_of(r.sharding)) + ", training of", "use --parallel ddp or zero2");
  if (r.head != HeadLoss::logits || (r.preference && r.preference->trainer != Preference::Trainer::reward) || r.packed) return refuse("with a loss of words or packed rows, training of", "leave them out; the rest of the run is");
  return {};
}

// mse_loss of the mean: both are saved. The kernel's own memory, as much as the input, is not shown to tensors.
Tensor Tape::squared_error(const Tensor& given, const Tensor& targets) {
  const Tensor x = full_precision(given, "loss");
  Tensor loss = empty("loss", dims({}, false), x.dtype() == targets.dtype() ? x.dtype() : Dtype::fp32);
  const std::int32_t n = record(Rule::nll, {x}, "loss");
  save(n, x), save(n, targets);
  return attach(std::move(loss), n);
}

Transformer::Batch Transformer::batch_of_classes(Tape& t, const Architecture& a, std::int64_t rows, std::int64_t length, bool labelled) {
  const auto ids = [&] { return t.empty("batch.ids", dims({rows, length}, true), Dtype::int64); };
  const auto one_a_row = [&] { return t.empty("batch.labels", dims({rows}, true), a.head == HeadKind::sequences && a.classes == 1 ? Dtype::fp32 : Dtype::int64); };
  Batch out;
  if (a.head == HeadKind::sequences) out.labels = one_a_row();  // default_data_collator brings labels first
  out.ids = ids();
  if (a.family == Family::bert) out.types = ids();  // of its tokenizer alone
  out.mask = ids();
  if (a.head == HeadKind::tokens) out.labels = ids();
  if (a.head == HeadKind::answers && labelled) out.labels = one_a_row(), out.ends = one_a_row();
  return out;
}

// What the loss is taken of, or its rows are chosen from; h, the hidden states, is what the model's code names then.
Tensor Transformer::class_logits(Tensor& h) {
  const double p = r_.dropout ? a_.head_dropouts[static_cast<std::size_t>(a_.head)] : 0;
  if (a_.encoder && a_.head == HeadKind::sequences) {
    h = t_.view(t_.slice(h, 1, 1), {B, a_.width});  // the first token's
    if (a_.family == Family::roberta) h = t_.dropout(h, p, "head.dropout");
    h = project(outer_.linear.at("pooler"), h, "head.dense");
    h = t_.unary(h, Tape::Keep::result, "head.act");  // tanh; DistilBERT's relu
  }
  h = t_.dropout(h, p, "head.dropout");
  t_.category(Category::logits);
  return project(outer_.linear.at("classes"), h, "logits");
}

// The last token that is no padding, by the ids; its row of the logits.
Tensor Transformer::of_last_tokens(const Tensor& logits) {
  const auto places = [&](std::int64_t rows, Dtype d) { return t_.empty("loss.places", dims({rows, T}, true), d); };
  const auto one_a_row = [&] { return t_.empty("loss.places", dims({B}, true), Dtype::int64); };
  Tensor last, counted;
  {
    const Tensor flags = places(B, Dtype::bool8);
    counted = places(B, Dtype::int32);
  }
  const Tensor indices = t_.empty("loss.places", dims({T}, false), Dtype::int32);
  {
    const Tensor product = places(B, Dtype::int32);
    last = one_a_row();
  }
  const Tensor rows = one_a_row();
  return t_.index(logits, rows, dims({B, a_.classes}, true), "logits", last);
}

// Where answers begin and where they end: a loss each, and their mean.
void Transformer::classify_answers(const Tensor& x, const Batch& batch, Outputs& out) {
  Tensor hidden = x;
  const Tensor logits = class_logits(hidden);
  std::array<Tensor, 2> places;
  {
    const std::vector<Tensor> parts = t_.split(logits, -1, std::array<std::int64_t, 2>{1, 1});
    for (std::size_t i = 0; i < 2; ++i) places[i] = t_.contiguous(t_.view(parts[i], {B, T}), "logits");
  }
  out.logits = places[0], out.end_logits = places[1];
  if (!batch.labels.defined()) return;
  const auto clamped = [&] { return t_.empty("loss.targets", dims({B}, true), Dtype::int64); };
  const std::array<Tensor, 2> targets{clamped(), clamped()};
  const Tensor first = t_.cross_entropy(places[0], targets[0], "loss.log_probs"), second = t_.cross_entropy(places[1], targets[1], "loss.log_probs");
  const Tensor sum = t_.add(first, second, "loss");
  out.loss = t_.scale(sum, "loss");
}

void Transformer::classify(const Tensor& x, const Batch& batch, Outputs& out) {
  const Category before = t_.category();
  if (a_.head == HeadKind::answers) {
    classify_answers(x, batch, out);
    t_.category(before);
    return;
  }
  Tensor hidden = x;
  const Tensor logits = class_logits(hidden);
  const bool texts = a_.head == HeadKind::sequences, number = texts && a_.classes == 1;
  out.logits = texts && !a_.encoder ? of_last_tokens(logits) : logits;
  if (!batch.labels.defined()) {  // of rewards
    t_.category(before);
    return;
  }
  const std::int64_t rows = texts ? B : N;
  if (number) {
    out.loss = t_.squared_error(t_.view(out.logits, {B}), batch.labels);
  } else {
    Tensor of = t_.view(out.logits, {rows, a_.classes});
    if (!texts && !a_.encoder && a_.family != Family::gpt2) of = t_.to(of, Dtype::fp32, "logits");  // ForTokenClassification's
    out.loss = t_.cross_entropy(of, t_.view(batch.labels, {rows}), "loss.log_probs");
  }
  t_.category(before);
}

}  // namespace dryfit::eager
