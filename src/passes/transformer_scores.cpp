// What a model says of answers, in place of a loss of its labels: log-probabilities in tiles, all logits, one number a row or a token. See transformer.hpp. B rows, T length.
// Source: trl 1.16, trainer/utils.py (add_fused_lm_head); trl 0.24, models/modeling_value_head.py; transformers 4.57, utils/generic.py (check_model_inputs).
#include "passes/transformer.hpp"

namespace dryfit::eager {

void Transformer::begin(const Batch& batch) {
  const Dims d = batch.ids.dims();
  B = d.size[0];
  T = d.size[1];
  N = B * T;
}

// Of what a gradient comes through, as the modules around the model hand it out.
Tensor Transformer::end(Tensor out) {
  out = out_of(this, leave(-1, out));
  return r_.lora ? out_of(&weights_, out) : out;
}

FusedOutput Transformer::scores(const Batch& batch, FusedAsked asked) {
  begin(batch);
  const Tensor rows = rows_for_head(batch);
  const Category before = t_.category();
  t_.category(Category::logits);
  FusedOutput out = fused_output(rows, asked);
  t_.category(before);
  out.log_probs = end(out.log_probs);
  return out;
}

Tensor Transformer::logits(const Batch& batch) {
  begin(batch);
  return end(leave(UnitHooks::kTail, head(rows_for_head(batch))));
}

Tensor Transformer::rewards(const Batch& batch) {
  begin(batch);
  Outputs out;
  classify(rows_for_head(batch), batch, out);
  return end(out.logits);
}

// The model takes its loss of words too, for the batch has labels; logits are cast, and what the blocks were given stays until the wrapper returns, though nobody asks for either.
Transformer::Values Transformer::values(const Batch& batch) {
  begin(batch);
  const Tensor rows = rows_for_head(batch);
  Values out;
  const Tensor all = head(rows);
  out.loss = loss_of(all, batch.labels);
  Tensor x = t_.dropout(rows, 0.1, "value_head.dropout");  // ValueHead's summary_dropout_prob
  x = t_.to(x, Dtype::fp32, "value_head");
  const Tensor each = t_.linear(x, value_head_.first, "value_head", value_head_.second);
  x.reset();
  out.values = t_.view(each, {B, T});
  const Category before = t_.category();
  t_.category(Category::logits);
  out.logits = t_.to(all, Dtype::fp32, "logits");
  t_.category(before);
  hidden_.clear();
  return out;
}

}  // namespace dryfit::eager
