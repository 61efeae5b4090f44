// See transformers_rules.hpp.
#include "speed/transformers_rules.hpp"

#include <algorithm>

namespace dryfit {

double transformers_flops_per_token(const Workload& w) {
  const Architecture& a = w.transformers->architecture;
  std::int64_t products = active_of(a, w.model.param_count()) - w.model.param_count(ParamGroup::wte);
  if (a.tied_head) products += a.vocab * a.width;
  if (a.head == HeadKind::sequences && a.encoder) products -= w.model.param_count(ParamGroup::lm_head);  // of one token of a row
  const Training& t = w.transformers->training;
  double reference = t.preference && t.preference->asks_reference() ? 2 : 0;  // its forward pass
  if (t.preference && t.preference->of_others()) reference += reference + 2;  // the same of other answers, and the model's
  const double each = (t.lora ? 4 : 6) + reference;
  return each * static_cast<double>(products) + (12.0 + 2 * reference) * static_cast<double>(w.run.max_seq_len * a.heads * a.head_dim * a.layers);
}

std::optional<Horizon> transformers_horizon(const Workload& w) {
  const Training& t = w.transformers->training;
  const double total = static_cast<double>(w.run.total_batch_size);
  if (!t.max_steps && !t.max_tokens) return std::nullopt;
  Horizon h;
  h.rule = t.max_steps ? "--max-steps" : t.framework == Framework::litgpt ? "train.max_tokens" : "--max-tokens";
  h.iterations = t.max_steps ? *t.max_steps : std::max<std::int64_t>(1, ceil_div(*t.max_tokens, w.run.total_batch_size));
  h.tokens = static_cast<double>(h.iterations) * total;
  return h;
}

}  // namespace dryfit
