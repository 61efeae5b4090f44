// A transformer as generate() calls it: passes over what comes after the tokens that a DynamicCache has. See transformer.hpp. B rows, n tokens of a pass, D width, V vocabulary.
// Source: transformers 4.57 and 5.17, generation/utils.py (_sample), cache_utils.py (DynamicLayer, DynamicSlidingWindowLayer).
#include <array>
#include <utility>

#include "passes/transformer.hpp"

namespace dryfit::eager {

// The cache joins what comes to what it has, keys first; values take the first keys' dtype. A layer with a window keeps a part of what it joined, whose memory stays whole until the next pass.
void Transformer::join_cache(std::int64_t layer, Tensor& k, Tensor& v) {
  const auto at = static_cast<std::size_t>(2 * layer);
  if (cache_.size() < at + 2) cache_.resize(at + 2);
  const std::int64_t window = window_of(layer);
  const auto joined = [this](const Tensor& kept, const Tensor& x, const char* role, Dtype d) { return kept.defined() ? t_.cat(std::array{kept, x}, 2, role, d) : t_.cat(std::array{x}, 2, role, d); };
  const auto kept_of = [&](const Tensor& whole) { return window > 0 && whole.dims().size[2] > window - 1 ? t_.slice(whole, 2, window - 1) : whole; };
  Tensor keys = joined(cache_[at], k, "attn.k_cache", cache_[at].defined() ? cache_[at].dtype() : k.dtype());
  if (window == 0) cache_[at] = keys;
  Tensor values = joined(cache_[at + 1], v, "attn.v_cache", keys.dtype());
  cache_[at] = kept_of(keys), cache_[at + 1] = kept_of(values);
  k = std::move(keys), v = std::move(values);
}

Tensor Transformer::next_logits(const Tensor& ids, bool fills) {
  const NoGrad inside(t_);
  const Dims d = ids.dims();
  B = d.size[0], T = d.size[1], N = B * T;
  generates_ = true, fills_prompts_ = fills;
  const Tensor rows = body(Batch{ids, {}, {}, {}});
  seen_ += T;
  generates_ = false;
  return head(t_.slice(rows, 1, 1));  // logits_to_keep=1
}

void Transformer::grow_cache() {
  const NoGrad inside(t_);
  for (std::size_t i = 0; i < cache_.size(); ++i) {
    Dims d = contiguous(cache_[i].dims());
    const std::int64_t window = window_of(static_cast<std::int64_t>(i / 2));
    if (window > 0 && d.size[2] == window - 1) continue;  // as long as it becomes
    ++d.size[2];
    cache_[i] = t_.empty(i % 2 == 0 ? "attn.k_cache" : "attn.v_cache", contiguous(d), cache_[i].dtype());
  }
  ++seen_;
}

}  // namespace dryfit::eager
