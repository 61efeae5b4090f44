// Blocks and head of a transformer, op by op. See transformer.hpp. B batch, T length, N = B*T, D width, H heads, K KV heads, h head size.
#include "passes/transformer.hpp"

#include <algorithm>
#include <array>
#include <tuple>
#include <utility>

#include "passes/cut_loss.hpp"
#include "passes/liger.hpp"

namespace dryfit::eager {

// A nested call keeps its temporaries to the end of the expression in C++ and only until the inner call returns in Python: no expression here
// nests deeper than two.

// LlamaRMSNorm, Gemma's, nn.LayerNorm and OLMo's without weights.
Tensor Transformer::norm(const Tensor& x, const std::pair<Tensor, Tensor>& w, const char* role, bool of_heads) {
  if (!modules_.before) return normed(x, w, role, of_heads);
  const Tensor given = into(&w, {w.first, w.second}, x);
  return out_of(&w, normed(given, w, role, of_heads));
}

Tensor Transformer::normed(const Tensor& x, const std::pair<Tensor, Tensor>& w, const char* role, bool of_heads) {
  const bool qwen3 = a_.family == Family::qwen3 || a_.family == Family::qwen3_moe;
  if (r_.liger.norms && (!of_heads || r_.liger.in_classes || a_.family == Family::gemma3 || (r_.liger.heads_of_qwen3 && qwen3))) {  // monkey_patch.py: what it sets on a model that is there already
    const bool in_place = a_.family != Family::gemma2 && a_.family != Family::gemma3 && a_.family != Family::olmo2 && a_.family != Family::olmo3;
    return liger_rms_norm(t_, x, w.first, in_place, o_.multiprocessors, role);
  }
  if (a_.norm == NormKind::layer_norm) return t_.layer_norm(x, w.first, w.second, role);
  if (a_.norm == NormKind::non_parametric) return t_.to(t_.layer_norm(t_.to(x, Dtype::fp32, role), Tensor(), Tensor(), role), x.dtype(), role);
  const bool gemma = a_.norm == NormKind::rms_norm_plus_one;
  Tensor h = t_.to(x, Dtype::fp32, role);
  const Tensor variance = t_.mean_last(t_.power(h, role), role);
  const Tensor inverse = t_.rsqrt(t_.shift(variance, role), role);
  h = t_.mul(h, inverse, role);
  if (a_.family == Family::olmo2 || a_.family == Family::olmo3 || a_.family == Family::gpt_oss) return t_.to(t_.mul(w.first, h, role), x.dtype(), role);
  if (!gemma) return t_.mul(w.first, t_.to(h, x.dtype(), role), role);
  const Tensor gain = t_.shift(t_.to(w.first, Dtype::fp32, role), role);
  h = t_.mul(h, gain, role);
  return t_.to(h, x.dtype(), role);
}

Tensor Transformer::activate(const Tensor& x, const char* role) {
  switch (a_.activation) {
    case Activation::gelu_new: {  // 0.5 * x * (1 + tanh(c * (x + 0.044715 * x^3)))
      const Tensor half = t_.scale(x, role);
      Tensor inner = t_.scale(t_.power(x, role), role);
      inner = t_.add(x, inner, role);
      inner = t_.scale(inner, role);
      inner = t_.unary(inner, Tape::Keep::result, role);
      inner = t_.shift(inner, role);
      return t_.mul(half, inner, role);
    }
    case Activation::gelu_fast: {  // 0.5 * x * (1 + tanh(x * c * (1 + 0.044715 * x * x)))
      const Tensor half = t_.scale(x, role);
      const Tensor times = t_.scale(x, role);
      Tensor inner = t_.mul(t_.scale(x, role), x, role);
      inner = t_.shift(inner, role);
      inner = t_.mul(times, inner, role);
      inner = t_.unary(inner, Tape::Keep::result, role);
      inner = t_.shift(inner, role);
      return t_.mul(half, inner, role);
    }
    case Activation::quick_gelu: {
      const Tensor gate = t_.unary(t_.scale(x, role), Tape::Keep::result, role);
      return t_.mul(x, gate, role);
    }
    case Activation::relu_squared: return t_.power(t_.unary(x, Tape::Keep::result, role), role);
    case Activation::relu: return t_.unary(x, Tape::Keep::result, role);
    case Activation::gelu:
    case Activation::gelu_tanh:
    case Activation::silu: return t_.unary(x, Tape::Keep::input, role);
  }
  return x;
}

// The activation as a module of its own, as all of transformers' MLPs call it.
Tensor Transformer::activate(const Block::Mlp& mlp, const Tensor& x, const char* role) {
  into(&mlp.activation, {}, {});
  return out_of(&mlp.activation, activate(x, role));
}

Tensor Transformer::mlp(const Block& b, const Block::Mlp& mlp, const std::string& name, const Tensor& x) {
  into(&mlp.self, {}, {});
  const Tensor y = fed(b, mlp, name, x);
  return out_of(&mlp.self, drops_in_branches() ? t_.dropout(y, r_.dropout ? a_.residual_dropout : 0, "mlp.dropout") : y);
}

Tensor Transformer::fed(const Block& b, const Block::Mlp& mlp, const std::string& name, const Tensor& x) {
  if (!a_.gated_mlp) {
    Tensor h = project(b.linear.at(name + "up"), x, "mlp.up");
    h = activate(mlp, h, "mlp.act");
    if (a_.encoder && a_.family != Family::distilbert) intermediate_ = h;
    h = project(b.linear.at(name + "down"), h, "mlp.down");
    return a_.family == Family::gpt2 ? drop(&b.dropout, h, r_.dropout ? a_.residual_dropout : 0, "mlp.dropout") : h;
  }
  if (a_.fused_gate_up) {
    const Tensor both = project(b.linear.at(name + "gate_up"), x, "mlp.gate_up");
    const std::array<std::int64_t, 2> halves = {both.dims().back() / 2, both.dims().back() / 2};
    const std::vector<Tensor> parts = t_.split(both, -1, halves);
    const Tensor product = r_.liger.gated ? liger_gated(t_, parts[0], parts[1], "mlp.product") : t_.mul(parts[1], activate(mlp, parts[0], "mlp.act"), "mlp.product");
    return project(b.linear.at(name + "down"), product, "mlp.down");
  }
  constexpr GatedRoles kRoles = {"mlp.gate", "mlp.up", "mlp.act", "mlp.product", "mlp.down"};
  const Linear &gate = b.linear.at(name + "gate"), &up = b.linear.at(name + "up"), &down = b.linear.at(name + "down");
  return r_.adapter_kernels.mlp && all_adapted({&gate, &up, &down}) ? kernel_mlp(gate, up, down, x, kRoles) : gated(b, mlp, name, x, kRoles);
}

// down(act(gate(x)) * up(x)), of an MLP or of one expert.
Tensor Transformer::gated(const Block& b, const Block::Mlp& mlp, const std::string& name, const Tensor& x, const GatedRoles& roles) {
  const Tensor product = [&] {
    Tensor gate = project(b.linear.at(name + "gate"), x, roles.gate);
    if (r_.liger.gated) return liger_gated(t_, gate, project(b.linear.at(name + "up"), x, roles.up), roles.product);
    gate = activate(mlp, gate, roles.act);
    return t_.mul(gate, project(b.linear.at(name + "up"), x, roles.up), roles.product);
  }();
  return project(b.linear.at(name + "down"), product, roles.down);
}

Tensor Transformer::feed_forward(std::int64_t layer, const Tensor& x) {
  const Block& b = blocks_[static_cast<std::size_t>(layer)];
  return a_.is_moe_layer(layer) ? mixture(b, x) : mlp(b, b.mlp, "mlp.", x);
}

// BertLayer: attention, dropout (not DistilBERT's), norm of the sum; then the same with the MLP.
Tensor Transformer::post_norm_block(std::int64_t layer, const Tensor& x) {
  const Block& b = blocks_[static_cast<std::size_t>(layer)];
  const double p = r_.dropout ? a_.residual_dropout : 0;
  Tensor attended = t_.dropout(attention(layer, x), a_.family == Family::distilbert ? 0 : p, "attn.dropout");
  attended = norm(t_.add(attended, x, "x_mid"), b.norm.at("norm1"), "attn.norm");
  Tensor h = feed_forward(layer, attended);
  h = t_.dropout(h, p, "mlp.dropout");
  Tensor out = norm(t_.add(h, attended, "x"), b.norm.at("norm2"), "mlp.norm");
  intermediate_.reset();
  return out;
}

// GPTNeoXLayer, PhiDecoderLayer: both branches read x.
Tensor Transformer::parallel_block(std::int64_t layer, const Tensor& x) {
  const Block& b = blocks_[static_cast<std::size_t>(layer)];
  const double p = r_.dropout ? a_.residual_dropout : 0;
  Tensor h = norm(x, b.norm.at("norm1"), "attn.norm");
  const Tensor attended = drop(a_.shared_parallel_norm ? &b.dropout : &b.attention_dropout, attention(layer, h), p, "attn.dropout");  // Phi has one module for both
  held_.reset();
  if (!a_.shared_parallel_norm) {  // NeoX names neither
    h.reset();
    h = norm(x, b.norm.at("norm2"), "mlp.norm");
  }
  Tensor fed = feed_forward(layer, h);
  if (!a_.shared_parallel_norm) h.reset();
  fed = drop(&b.dropout, fed, p, "mlp.dropout");
  return t_.add(t_.add(fed, attended, "x_mid"), x, "x");
}

// Gemma 2 and 3: norms before and after each branch; OLMo 2: after only.
Tensor Transformer::output_norm_block(std::int64_t layer, const Tensor& x) {
  const Block& b = blocks_[static_cast<std::size_t>(layer)];
  const bool sandwich = a_.norm_placement == NormPlacement::sandwich;
  Tensor residual = x;
  Tensor h = sandwich ? norm(x, b.norm.at("norm1"), "attn.norm") : x;
  h = attention(layer, h);
  h = norm(h, b.norm.at("norm2"), "attn.post_norm");
  h = t_.add(residual, h, "x_mid");
  residual = h;
  if (sandwich) h = norm(h, b.norm.at("norm3"), "mlp.norm");
  h = feed_forward(layer, h);
  h = norm(h, b.norm.at("norm4"), "mlp.post_norm");
  return t_.add(residual, h, "x");
}

// Llama and its kin; GPT-2, which names the attention's output and adds the other way round.
Tensor Transformer::pre_norm_block(std::int64_t layer, const Tensor& x) {
  const Block& b = blocks_[static_cast<std::size_t>(layer)];
  const bool gpt2 = a_.family == Family::gpt2;
  Tensor residual = x;
  Tensor h = norm(x, b.norm.at("norm1"), "attn.norm");
  Tensor attended = attention(layer, h);
  if (gpt2) attended = drop(&b.attention_dropout, attended, r_.dropout ? a_.residual_dropout : 0, "attn.dropout");
  if (!gpt2) h = std::move(attended);
  const double p = dropped_after_branches();
  h = gpt2 ? t_.add(attended, residual, "x_mid") : add_branch(residual, p > 0 ? drop(&b.attention_dropout, h, p, "attn.dropout") : h, "x_mid");
  residual = h;
  h = norm(h, b.norm.at("norm2"), "mlp.norm");
  const Tensor named = gpt2 ? h : Tensor();  // GPT-2 gives the MLP's output a name of its own
  h = feed_forward(layer, h);
  return add_branch(residual, p > 0 ? drop(&b.dropout, h, p, "mlp.dropout") : h, "x");
}

// residual + h, or, Granite's, residual + h * a number.
Tensor Transformer::add_branch(const Tensor& residual, const Tensor& h, const char* role) {
  return a_.scales_branches ? t_.add(residual, t_.scale(h, role), role) : t_.add(residual, h, role);
}

// One decoder layer: x stays named by the caller until it returns.
Tensor Transformer::block(std::int64_t layer, const Tensor& x) {
  t_.at(static_cast<int>(layer));
  Tensor out;
  if (a_.norm_placement == NormPlacement::post) out = post_norm_block(layer, x);
  else if (a_.parallel_residual) out = parallel_block(layer, x);
  else if (a_.norm_placement != NormPlacement::pre) out = output_norm_block(layer, x);
  else out = pre_norm_block(layer, x);
  if (a_.encoder && !r_.is_transformers_5() && !t_.in_backward()) returned_ = std::exchange(held_, Tensor());  // BertEncoder's name for what a layer gives beside its output
  else held_.reset();
  t_.at(-1);
  return out;
}

Tensor Transformer::enter(std::int64_t unit, const Tensor& x) { return hooks_.before && meets(unit) ? hooks_.before(static_cast<int>(unit), x) : x; }
Tensor Transformer::leave(std::int64_t unit, const Tensor& y) { return hooks_.after && meets(unit) ? hooks_.after(static_cast<int>(unit), y) : y; }
bool Transformer::meets(std::int64_t unit) const { return unit >= UnitHooks::kModel || hooks_.carves; }

Tensor Transformer::unit(std::int64_t layer, const Tensor& x) {
  const Tensor given = enter(layer, x);
  const Block& b = blocks_[static_cast<std::size_t>(layer)];
  into(&b, {}, {});
  return out_of(&b, leave(layer, block(layer, given)));
}

Tensor Transformer::into(Who who, std::initializer_list<Tensor> own, const Tensor& x) {
  return modules_.before && !stopped_ && !inside_leaf_ ? modules_.before(who, std::span(own.begin(), own.size()), x) : x;
}

// A block that runs again stops inside one of its modules: hooks after a forward pass are not met from there on.
Tensor Transformer::out_of(Who who, const Tensor& y) {
  if (!modules_.after || stopped_ || inside_leaf_) return y;
  stopped_ = again_ && who == stop_;
  return stopped_ ? y : modules_.after(who, y, again_);
}

// Backward passes through the end of the block, whose modules save nothing after what is saved last; there the block runs again.
void Transformer::begin_again(std::int64_t layer) {
  const Block& b = blocks_[static_cast<std::size_t>(layer)];
  const bool dropped = (a_.family == Family::gpt2 || drops_in_branches()) && r_.dropout && a_.residual_dropout > 0;
  std::vector<Who> tail{&b};
  if (a_.norm_placement != NormPlacement::pre) {
    tail.push_back(&b.norm.at("norm4"));
  } else {
    const bool mixes = a_.is_moe_layer(layer), ends_shared = mixes && (a_.latent && a_.moe->shared_ffn > 0);
    if (mixes) tail.push_back(&b.mixture);
    if (mixes && (a_.sinks || (groups_ && !is_leaf_mixture(a_) && a_.moe->shared_ffn == 0))) tail.push_back(&b.experts);
    const bool ends_dropped = dropped_after_branches() > 0;
    if (a_.parallel_residual || ends_dropped) tail.push_back(&b.dropout);
    if ((!mixes || ends_shared) && !ends_dropped) {
      tail.push_back(mixes ? &b.shared.self : &b.mlp.self);
      if (a_.family == Family::gpt2) tail.push_back(&b.dropout);
      if (!dropped) tail.push_back(&b.linear.at(mixes ? "shared.down" : "mlp.down"));
    }
  }
  stop_ = tail.back();
  for (Who who : tail) modules_.before_backward(who);
}

// Likewise: what stands last in the block has its gradient before anything saved is asked for.
void Transformer::begin_units_again(std::int64_t layer) {
  const auto& linear = blocks_[static_cast<std::size_t>(layer)].linear;
  const auto down = linear.find("mlp.down");
  const bool last = a_.norm_placement == NormPlacement::pre && !(r_.dropout && a_.residual_dropout > 0);
  if (last && down != linear.end() && down->second.lora && down->second.lora->leaf > 0) hooks_.before_again(down->second.lora->leaf + 1);
}

// nn.Dropout, where it is a module.
Tensor Transformer::drop(Who who, const Tensor& x, double p, const char* role) {
  into(who, {}, {});
  return out_of(who, t_.dropout(x, p, role));
}

// nn.Embedding
Tensor Transformer::lookup(const char* table, const Tensor& ids) {
  const Tensor& weight = tables_.at(table);
  const bool unit = std::string_view(table) == "wte";
  into(&weight, {weight}, ids);
  const Tensor given = unit ? enter(UnitHooks::kEmbedding, ids) : ids;
  Tensor rows = t_.embedding(weight, given, table);
  if (unit && scales_in_embedding()) rows = t_.scale(rows, "x_embed");
  // enable_input_require_grads: adapters behind checkpoints need a gradient to pass there. Its hook was there before those of a strategy.
  if (unit && r_.lora && checkpoints()) input_ = rows = t_.leaf(rows);
  else if (unit && wants_input_gradient_ && !t_.grad_enabled()) rows = t_.leaf(rows);  // whose copy autocast keeps where a product takes it
  return out_of(&weight, unit ? leave(UnitHooks::kEmbedding, rows) : rows);
}

// GradientCheckpointingLayer: the block's hooks lie inside what runs again. The newer form meets them only once: by the time it runs again the
// unit is there for its backward pass.
Tensor Transformer::recomputed(std::int64_t layer, const Tensor& x) {
  const CheckpointForm form{.reentrant = r_.reentrant, .gives = given_last(layer)};
  if (modules_.before && !r_.reentrant) {
    return t_.checkpoint([this, layer, again = false](const Tensor& in) mutable {
      if (again) begin_again(layer);
      again_ = std::exchange(again, true);
      Tensor y = unit(layer, in);
      again_ = stopped_ = false;
      return y;
    }, x, form);
  }
  if (r_.reentrant && !hooks_.wrap) return t_.checkpoint([this, layer](const Tensor& in) { return unit(layer, in); }, x, form);
  const Tensor given = enter(layer, x);
  return leave(layer, t_.checkpoint([this, layer, again = false](const Tensor& in) mutable {
    if (again && !r_.reentrant && o_.leaf_units) begin_units_again(layer);
    again = true;
    return block(layer, in);
  }, given, form));
}

bool Transformer::has_rotary(bool local) const {
  if (a_.position != Position::rotary || (local && !has_local_rotary())) return false;
  return !has_local_rotary() || !r_.is_transformers_5() || std::ranges::any_of(a_.windows, [local](std::int64_t w) { return (w > 0) == local; });
}

// What this layer alone still needs of what all of its kind are given, when it is the last to run again: the first of those with a window, or without.
std::vector<Tensor*> Transformer::given_last(std::int64_t layer) {
  std::vector<Tensor*> out;
  const auto add = [&](std::pair<Tensor, Tensor>& tables) { out.insert(out.end(), {&tables.first, &tables.second}); };
  const auto is_first = [&](bool local) { return layer == std::ranges::find_if(a_.windows, [&](std::int64_t w) { return !a_.windows_by_layer || (w > 0) == local; }) - a_.windows.begin(); };
  if (is_first(false)) out.push_back(&mask_);
  if (is_first(true)) out.push_back(&local_mask_);
  const bool of_its_kind = has_local_rotary() && (a_.family != Family::gemma3 || r_.is_transformers_5());  // before, Gemma 3 gives every layer both
  if (has_local_rotary() && (of_its_kind ? is_first(true) : layer == 0)) add(local_rotary_);
  if (of_its_kind ? is_first(false) : layer == 0) add(rotary_);
  if (layer == 0) out.push_back(&positions_);
  return out;
}

// The mask, built once: booleans [B, 1, T, keys]; for eager attention, and by models with code of their own for it, then zeros and minus infinity in the stream's dtype.
Tensor Transformer::causal_mask(Dtype d, std::int64_t keys) {
  const bool before = t_.grad_enabled();
  t_.grad_enabled(false);
  const Dims seen = dims({B, 1, T, keys}, true);
  Tensor mask = t_.empty("attn.mask", seen, Dtype::bool8);
  if (o_.eager_attention || repeats_keys_itself(a_, r_)) {
    const Tensor allowed = std::move(mask);
    mask = t_.empty("attn.mask", seen, d);
  }
  t_.grad_enabled(before);
  return mask;
}

// One mask for all layers, or, where the file can tell layers apart by their windows, one for those without and one for those with.
void Transformer::make_masks(Dtype d) {
  const auto needs = [this](std::int64_t window) { return o_.eager_attention || takes_mask(window); };
  const auto local = std::ranges::find_if(a_.windows, [](std::int64_t w) { return w > 0; });
  const std::int64_t window = local == a_.windows.end() ? 0 : *local;
  const std::int64_t of_most = a_.windows_by_layer ? 0 : window;
  if (needs(of_most)) mask_ = causal_mask(d, keys_of(of_most));
  if (a_.windows_by_layer && window > 0 && needs(window)) local_mask_ = causal_mask(d, keys_of(window));
}

// Qwen2MoeModel of transformers 5 makes one of layers with a window, whether it has any or not.
bool Transformer::makes_mask_of_none() const {
  return a_.family == Family::qwen2_moe && r_.is_transformers_5() && !is_flash(r_.attention) && std::ranges::none_of(a_.windows, [](std::int64_t w) { return w > 0; });
}

// The embeddings as the base model goes on naming them; x: what its blocks get, which transformers 4's Gemma scales apart.
Tensor Transformer::embed(const Batch& batch, Tensor& x) {
  const Tensor rows = batch.embeddings.defined() ? batch.embeddings : lookup("wte", batch.ids);
  x = a_.embedding_scale && !scales_in_embedding() ? t_.scale(rows, "x_embed") : rows;
  const bool apart = (a_.family == Family::gemma || a_.family == Family::gemma2) && !r_.is_transformers_5();
  return apart ? rows : x;
}

// accelerate looks for the last norm right under the base model, which adapters put one deeper.
bool Transformer::norm_in_tail() const { return a_.final_norm && !r_.lora; }

// The base model: everything up to the last norm.
Tensor Transformer::body(const Batch& batch) {
  Tensor of_none, position, x;
  Tensor embedded = embed(batch, x);  // names of the base model's forward; inputs_embeds, an argument, goes first
  if (a_.encoder) {
    x.reset();
    x = embedded = bert_embeddings(std::move(embedded), batch.types);  // embedding_output, until the model is done
  } else {
    if (!generates_) positions_ = t_.empty("positions", dims({T}, false), Dtype::int64);
    if (a_.position == Position::learned) {
      position = lookup("wpe", generates_ ? t_.empty("positions", dims({B, T}, true), Dtype::int64) : t_.view(positions_, {1, T}));
      x = t_.add(x, position, "x_embed");
    }
    if (!r_.packed) {  // attention_mask as booleans: needed no more where all are ones, or another mask is made of them
      Tensor seen = t_.empty("attn.padding", dims({B, keys_of(0)}, true), Dtype::bool8);
      if (is_flash(r_.attention) && fills_rows()) mask_ = std::move(seen);
    }
    make_masks(embedded.dtype());
    if (makes_mask_of_none()) of_none = causal_mask(embedded.dtype(), keys_of(0));
  }
  if (a_.position == Position::rotary) {
    into(&outer_.rotary, {}, {});
    if (has_rotary(false)) rotary_ = rotary_tables(x.dtype());
    if (has_rotary(true)) local_rotary_ = rotary_tables(x.dtype());  // of layers with a window
    out_of(&outer_.rotary, {});
  }
  const double p = r_.dropout ? a_.embedding_dropout : 0;
  if (!a_.encoder) x = a_.family == Family::gpt2 ? drop(&outer_.dropout, x, p, "x_embed") : t_.dropout(x, p, "x_embed");
  for (std::int64_t layer = 0; layer < a_.layers; ++layer) {
    if (has_value_head()) hidden_.push_back(x);
    x = checkpoints() ? recomputed(layer, x) : unit(layer, x);
  }
  if (a_.final_norm && a_.norm_placement != NormPlacement::post) {
    if (norm_in_tail()) x = enter(UnitHooks::kTail, x);
    x = norm(x, outer_.norm.at("final"), "norm");
  }
  returned_.reset();
  if (!checkpoints()) finish();  // the base model's locals
  else if (std::ranges::find(a_.windows, 0) == a_.windows.end() && a_.windows_by_layer) {  // what no layer was given
    mask_.reset();
    if (a_.family == Family::olmo3) rotary_.first.reset(), rotary_.second.reset();  // transformers 5 has none
  }
  return x;
}

// BertEmbeddings: words and token types summed, positions added onto the sum (to it since transformers 5), norm, dropout; then the mask over keys, [B, 1, 1, T].
// DistilBERT's: words and positions summed.
Tensor Transformer::bert_embeddings(Tensor words, const Tensor& given_types) {
  Tensor x;
  {
    const Tensor inputs = std::move(words);
    // RoBERTa counts them in every row, from what is no padding; a slice of a buffer is one row for all
    const auto positions = [&] { return t_.embedding(tables_.at("wpe"), a_.family == Family::roberta ? t_.empty("positions", dims({B, T}, true), Dtype::int64) : t_.slice(buffers_[0], 1, T), "wpe"); };
    Tensor sum, added, types;
    if (a_.encoder->token_types > 0) {
      types = t_.embedding(tables_.at("token_types"), given_types.defined() ? given_types : t_.expand(t_.slice(buffers_[1], 1, T), dims({B, T}, true)), "token_types");
      sum = t_.add(inputs, types, "x_embed");
      added = positions();
      sum = r_.is_transformers_5() ? t_.add(sum, added, "x_embed") : t_.add_in_place(sum, added);
    } else {
      added = positions();
      sum = t_.add(inputs, added, "x_embed");
    }
    sum = norm(sum, outer_.norm.at("embedding"), "norm_embed");
    x = t_.dropout(sum, r_.dropout ? a_.embedding_dropout : 0, "x_embed");
  }
  if (o_.eager_attention || takes_mask(0)) {
    const bool flags = !o_.eager_attention && r_.is_transformers_5();  // booleans, as causal models have them
    const Dims seen = dims({B, 1, o_.eager_attention ? 1 : T, T}, true);
    const Tensor kept = t_.empty("attn.mask", seen, flags ? Dtype::bool8 : x.dtype());
    if (flags) return mask_ = kept, x;
    const Tensor inverted = t_.scale(kept, "attn.mask");
    if (!o_.eager_attention) const Tensor unseen = t_.empty("attn.mask", seen, Dtype::bool8);
    mask_ = t_.scale(inverted, "attn.mask");
  }
  return x;
}

// SDPA does where rows are filled up to the longest of several or hold several texts, and of a layer whose window (0: none) is not longer than a row (masking_utils.py, _ignore_causal_mask_sdpa:
// one that is as long hides nothing, and the mask is made all the same). FlashAttention knows what it may see.
bool Transformer::takes_mask(std::int64_t window) const {
  return r_.attention == AttentionCode::sdpa && (fills_rows() || r_.packed || (window > 0 && window <= keys_of(window)));
}

Tensor Transformer::head(const Tensor& x) {
  Tensor h = x;
  if (a_.encoder) {
    h = project(outer_.linear.at("head.dense"), h, "head.dense");
    h = activate(h, "head.act");
    h = norm(h, outer_.norm.at("head"), "head.norm");
  }
  const Category before = t_.category();
  t_.category(Category::logits);
  Tensor logits = project(outer_.linear.at("lm_head"), h, "logits");
  if (a_.scales_logits) logits = t_.scale(logits, "logits");
  if (a_.logit_softcap) {
    logits = t_.scale(logits, "logits");
    logits = t_.unary(logits, Tape::Keep::result, "logits");
    logits = t_.scale(logits, "logits");
  }
  t_.category(before);
  return logits;
}

// Labels of causal models: padded by one, then all but the first. `padded` outlives them.
Tensor Transformer::shifted(Tensor& padded) {
  padded = t_.empty("loss.targets", dims({B, T + 1}, true), Dtype::int64);
  return t_.empty("loss.targets", dims({B, T}, true), Dtype::int64);
}

// LigerForCausalLMLoss.
Tensor Transformer::liger_head(const Tensor& x) {
  Tensor padded;
  const Tensor targets = shifted(padded);
  return liger_loss(t_, t_.view(x, {N, a_.width}), outer_.linear.at("lm_head").weight, t_.view(targets, {N}), o_.fuses_products);
}

FusedOutput Transformer::fused_output(const Tensor& rows, FusedAsked asked) {
  const Linear& head = outer_.linear.at("lm_head");
  if (!asks_tail()) return fused_head(t_, rows, head.weight, head.bias, asked);
  return fused_head(t_, rows, hooks_.whole(head.weight), head.bias.defined() ? hooks_.whole(head.bias) : head.bias, asked);
}

// The loss without all logits, of what the head would have been given.
Tensor Transformer::head_loss(const Tensor& x, const Tensor& labels) {
  const Category before = t_.category();
  t_.category(Category::logits);
  const Linear& head = outer_.linear.at("lm_head");
  Tensor loss;
  if (r_.head == HeadLoss::trl) loss = fused_head_loss(t_, fused_output(x, {.entropy = true, .top = true}));
  else if (r_.head == HeadLoss::cut) loss = cut_loss(t_, x, head.weight, head.bias, labels);
  else loss = liger_head(x);
  t_.category(before);
  return loss;
}

// ForCausalLMLoss: fp32 logits, labels padded by one and shifted, cross entropy over N rows. BERT's head: as the logits come, unshifted.
Tensor Transformer::loss_of(const Tensor& given, const Tensor& labels) {
  const Category before = t_.category();
  t_.category(Category::logits);
  const Tensor logits = a_.causal ? t_.to(given, Dtype::fp32, "logits") : given;
  Tensor targets = labels, padded;
  if (a_.causal) targets = shifted(padded);
  const Tensor loss = t_.cross_entropy(t_.view(logits, {N, a_.vocab}), t_.view(targets, {N}), "loss.log_probs");
  t_.category(before);
  return loss;
}

// Whether TRL's head gathers a frozen weight on its own (DTensor.full_tensor): under fully_shard, where nothing of the head's unit has run.
bool Transformer::asks_tail() const {
  return r_.head == HeadLoss::trl && hooks_.whole && !norm_in_tail() && !a_.tied_head && !outer_.linear.at("lm_head").weight.requires_grad();
}

// The base model within the others, up to what its head is given.
Tensor Transformer::rows_for_head(const Batch& batch) {
  enter(-1, {});
  if (r_.lora) into(&weights_, {}, {});  // PeftModel's, around the tuner's, which calls the model's forward itself
  into(this, {}, {});
  into(&outer_, {}, {});
  const Tensor x = out_of(&outer_, body(batch));
  const Tensor rows = norm_in_tail() || asks_tail() ? x : enter(UnitHooks::kTail, x);
  if (r_.head != HeadLoss::logits && modules_.takes) modules_.takes(this, outer_.linear.at("lm_head").weight);  // which is never called: the tail is not left
  return rows;
}

Transformer::Outputs Transformer::forward(const Batch& given) {
  begin(given);
  const Batch batch = prompt_.defined() ? prompted(given) : given;
  Outputs out;
  const Tensor rows = rows_for_head(batch);
  if (a_.classifies()) {
    classify(rows, batch, out);
  } else if (r_.head != HeadLoss::logits) {
    out.loss = head_loss(rows, batch.labels);
  } else {
    out.logits = leave(UnitHooks::kTail, head(rows));
    out.loss = loss_of(out.logits, batch.labels);
  }
  out.cache = std::exchange(cache_, {});
  out.loss = end(out.loss);
  return out;
}

std::int64_t Transformer::buffer_bytes() const {
  std::int64_t sum = 0;
  for (const Tensor& b : buffers_) sum += b.dims().numel() * size_of(b.dtype());
  return sum;
}

void Transformer::finish(bool graph_stays) {
  mask_.reset();
  local_mask_.reset();
  positions_.reset();
  rotary_ = {Tensor{}, Tensor{}};
  local_rotary_ = {Tensor{}, Tensor{}};
  if (graph_stays) return;
  if (input_.defined() && checkpoints()) t_.zero_grad(input_);
  input_.reset();
}

}  // namespace dryfit::eager
