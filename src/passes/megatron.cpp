// See megatron.hpp.
#include "passes/megatron.hpp"

#include <algorithm>
#include <array>

namespace dryfit::eager {

namespace {

Dims like_width(Dims d, std::int64_t width) {
  d.size[d.rank - 1U] = width;
  return contiguous(d);
}

}  // namespace

MegatronChunk::MegatronChunk(Tape& tape, const Architecture& a, const Training& r, MegatronAttention attention, LayerRange layers, bool first, bool last, Shared& shared)
    : t_(tape), a_(a), r_(r), m_(r.megatron), attention_(attention), range_(layers), first_(first), last_(last), shared_(shared) {
  const Category before = t_.category();
  t_.category(Category::weights);
  if (first_) {
    word_embeddings_ = weight("word_embeddings", -1, {vocabulary(), a_.width});
    if (a_.position == Position::learned) position_embeddings_ = weight("position_embeddings", -1, {a_.position_rows, a_.width});
  }
  for (std::int64_t i = 0; i < range_.count; ++i) make_layer(static_cast<int>(range_.first + i));
  held_.resize(layers_.size());
  if (last_) {
    final_norm_ = make_norm("final_layernorm", -1, a_.width);
    if (!a_.tied_head || !first_) output_ = weight("output_layer", -1, {vocabulary(), a_.width});
    if (a_.tied_head && !first_) weights_.back().shared_embedding = true;
    if (a_.tied_head && first_) output_ = word_embeddings_;
  }
  t_.category(before);
}

Tensor MegatronChunk::weight(const char* role, int layer, std::initializer_list<std::int64_t> sizes) {
  t_.at(layer);
  Tensor made = t_.hollow_parameter(role, dims(sizes, false), 0, dtype(), true);
  t_.at(-1);
  weights_.push_back({made, role, layer, false});
  return made;
}

MegatronChunk::Norm MegatronChunk::make_norm(const char* role, int layer, std::int64_t size) {
  Norm out;
  out.weight = weight(role, layer, {size});
  if (a_.norm == NormKind::layer_norm) out.bias = weight(role, layer, {size});
  return out;
}

MegatronChunk::Linear MegatronChunk::make_linear(const char* role, int layer, std::int64_t out, std::int64_t in, bool bias) {
  Linear made;
  made.weight = weight(role, layer, {out, in});
  if (bias) made.bias = weight(role, layer, {out});
  return made;
}

// TransformerEngine's layer registers the projection before the product with the norm inside; the local one has norms of their own.
void MegatronChunk::make_attention(Layer& l, int layer) {
  const std::int64_t qkv = (a_.heads + 2 * a_.kv_heads) * a_.head_dim / m_.tensor, D = a_.width;
  if (!m_.transformer_engine) l.attention_norm = make_norm("attn.norm", layer, D);
  l.proj = make_linear("attn.o", layer, D, a_.heads * a_.head_dim / m_.tensor, a_.out_bias);
  if (m_.transformer_engine) l.attention_norm = make_norm("attn.norm", layer, D);
  l.qkv = make_linear("attn.qkv", layer, qkv, D, a_.qkv_bias);
  if (a_.qk_norm == QkNorm::none) return;
  l.q_norm = make_norm("attn.q_norm", layer, a_.head_dim);
  l.k_norm = make_norm("attn.k_norm", layer, a_.head_dim);
}

void MegatronChunk::make_layer(int layer) {
  const std::int64_t D = a_.width, F = a_.ffn / m_.tensor;
  Layer l;
  if (a_.latent) make_latent_attention(l, layer);
  else make_attention(l, layer);
  l.mlp_norm = make_norm("mlp.norm", layer, D);
  if (a_.is_moe_layer(layer)) {
    l.experts = make_experts(layer);
  } else {
    l.fc1 = make_linear("mlp.up", layer, a_.gated_mlp ? 2 * F : F, D, a_.mlp_bias);
    l.fc2 = make_linear("mlp.down", layer, D, F, a_.mlp_bias);
  }
  layers_.push_back(std::move(l));
}

Dims MegatronChunk::hidden_dims() const { return dims({rank_rows(), r_.device_batch_size, a_.width}, true); }

Tensor MegatronChunk::rows(std::int64_t n, std::int64_t width, Dtype d, const char* role) { return t_.empty(role, dims({n, r_.device_batch_size, width}, true), d); }

// -- products

// The gradient of a weight: a tensor of its own, or, where the product added it to the buffer already, the dummy that stands for it
// (module/base.py get_dummy_wgrad: one for each shape, kept).
Tensor MegatronChunk::weight_gradient(const Tensor& w, const char* role) {
  const Dims d = w.dims();
  if (!m_.accumulation_fusion) return t_.empty(role, d, dtype(), Category::gradients);
  const std::array<std::int64_t, 2> shape{d.size[0], d.size[1]};
  auto known = std::ranges::find(shared_.dummy_gradients, shape, [](const auto& entry) { return entry.first; });
  if (known == shared_.dummy_gradients.end()) {
    shared_.dummy_gradients.emplace_back(shape, t_.buffer("wgrad.dummy", d.numel(), dtype(), Category::gradients));
    known = shared_.dummy_gradients.end() - 1;
  }
  return t_.view(known->second, {shape[0], shape[1]});
}

// parallel_state.py GlobalMemoryBuffer.get_tensor: kept, made anew when more is asked for.
void MegatronChunk::global_buffer(std::int64_t elements) {
  if (shared_.global.defined() && shared_.global.dims().numel() >= elements) return;
  shared_.global = t_.buffer("global_buffer", elements, dtype(), Category::workspace);
}

void MegatronChunk::product_workspace() {
  Tensor& mine = shared_.workspaces[shared_.backward ? 1 : 0];
  if (!mine.defined() && shared_.cublas_workspace > 0) mine = t_.buffer("cublas_workspace", shared_.cublas_workspace, Dtype::uint8, Category::workspace);
}

// Of the sequence, this rank's part: the ranks' tensors are summed and scattered, or, where all have the same, it is cut out and cloned; gathered
// again in backward. Nothing without sequence parallelism.
Tensor MegatronChunk::to_rank(const Tensor& whole, const char* role) {
  if (!sequence_parallel()) return whole;
  const std::int64_t width = whole.dims().back();
  return t_.function(rows(rank_rows(), width, dtype(), role), std::array{whole}, {}, role, [this, width, role](const Tensor&, std::vector<Tensor>&) { return Gradients{rows(full_rows(), width, dtype(), role)}; });
}

// TELayerNormColumnParallelLinear: the norm's output is kept for the weight's gradient, and gathered again for it.
Tensor MegatronChunk::norm_linear(const Tensor& x, const Norm& n, const Linear& w, bool adds_bias, const char* role) {
  const std::int64_t width = x.dims().back();
  const bool centred = a_.norm == NormKind::layer_norm;
  const Dims statistic = like_width(x.dims(), 1);
  const Tensor normed = t_.empty(role, contiguous(x.dims()), dtype());
  Tensor out, mean;
  if (centred) mean = t_.empty(role, statistic, Dtype::fp32);
  const Tensor deviation = t_.empty(role, statistic, Dtype::fp32);
  {
    Tensor whole;  // the gathered input goes with the product
    if (sequence_parallel()) whole = rows(full_rows(), width, dtype(), role);
    out = rows(full_rows(), w.weight.dims().size[0], dtype(), role);
  }
  const Tensor bias = adds_bias ? w.bias : Tensor();
  return t_.function(out, std::array{x, n.weight, n.bias, w.weight, bias}, std::array{x, normed, mean, deviation}, role, [this, n, w, role, width, adds_bias](const Tensor& given, std::vector<Tensor>& saved) {
    const Tensor g = t_.contiguous(given, role);
    Tensor whole, scattered_gradient;
    if (sequence_parallel()) whole = rows(full_rows(), width, dtype(), role);
    const Tensor dx = rows(full_rows(), width, dtype(), role);
    if (sequence_parallel()) scattered_gradient = rows(rank_rows(), width, dtype(), role);
    Gradients made(5);
    made[3] = weight_gradient(w.weight, role);
    if (adds_bias && w.bias.defined()) made[4] = t_.empty(role, w.bias.dims(), dtype());
    saved[1].reset();
    whole.reset();
    made[0] = t_.empty(role, contiguous(saved[0].dims()), dtype());
    made[1] = t_.empty(role, n.weight.dims(), dtype());
    if (n.bias.defined()) made[2] = t_.empty(role, n.bias.dims(), dtype());
    return made;
  });
}

// LinearWithGradAccumulationAndAsyncCommunication: Megatron's own product. gathers: a column-parallel one, whose input is gathered into
// the global buffer under sequence parallelism.
Tensor MegatronChunk::own_linear(const Tensor& x, const Tensor& w, const Tensor& bias, bool gathers, const char* role) {
  const bool sequence = gathers && sequence_parallel();
  const std::int64_t whole = full_rows() * r_.device_batch_size * x.dims().back();
  if (sequence) global_buffer(whole);
  product_workspace();
  Tensor out = rows(full_rows(), w.dims().size[0], dtype(), role);
  if (bias.defined()) out = rows(full_rows(), w.dims().size[0], dtype(), role);
  return t_.function(out, std::array{x, w, bias}, std::array{x}, role, [this, w, bias, role, sequence, whole](const Tensor&, std::vector<Tensor>& saved) {
    const std::int64_t in = saved[0].dims().back();
    if (sequence) global_buffer(whole);
    product_workspace();
    Gradients made(3);
    const Tensor dx = rows(full_rows(), in, dtype(), role);
    made[0] = sequence ? rows(rank_rows(), in, dtype(), role) : dx;
    made[1] = weight_gradient(w, role);
    if (bias.defined()) made[2] = t_.empty(role, bias.dims(), dtype());
    return made;
  });
}

Tensor MegatronChunk::column(const Tensor& x, const Norm& before, const Linear& w, bool adds_bias, const char* role) {
  if (m_.transformer_engine) return norm_linear(x, before, w, adds_bias, role);
  const Tensor normed = norm(x, before, "norm");
  return own_linear(normed, w.weight, adds_bias ? w.bias : Tensor(), true, role);
}

// Row-parallel: each rank's product is a part of a sum. The bias is given on.
Tensor MegatronChunk::row(const Tensor& x, const Linear& w, const char* role) {
  if (!m_.transformer_engine) return to_rank(own_linear(x, w.weight, {}, false, role), role);
  Tensor out = rows(full_rows(), a_.width, dtype(), role);
  if (sequence_parallel()) out = rows(rank_rows(), a_.width, dtype(), role);
  return t_.function(out, std::array{x, w.weight}, std::array{x}, role, [this, w, role](const Tensor& given, std::vector<Tensor>& saved) {
    const Tensor g = t_.contiguous(given, role);
    Tensor whole;
    if (sequence_parallel()) whole = rows(full_rows(), a_.width, dtype(), role);
    Gradients made(2);
    made[0] = t_.empty(role, contiguous(saved[0].dims()), dtype());
    made[1] = weight_gradient(w.weight, role);
    saved[0].reset();
    return made;
  });
}

Tensor MegatronChunk::norm(const Tensor& x, const Norm& w, const char* role) {
  return a_.norm == NormKind::layer_norm ? t_.layer_norm(x, w.weight, w.bias, role) : t_.rms_norm(x, w.weight, role);
}

// -- pieces between products

// bias_dropout_add, compiled: of dropout a mask of a byte an element is kept, nothing else.
Tensor MegatronChunk::add_dropped(const Tensor& x, const Tensor& bias, const Tensor& residual, const char* role) {
  const double p = r_.dropout ? a_.residual_dropout : 0;
  if (!m_.bias_dropout_fusion) {
    const Tensor dropped = t_.dropout(bias.defined() ? t_.add(x, bias, role) : x, p, role);
    return t_.add(residual, dropped, role);
  }
  const Tensor out = t_.empty(role, contiguous(residual.dims()), residual.dtype());
  Tensor mask;
  if (p > 0) mask = t_.empty("dropout.mask", contiguous(residual.dims()), Dtype::bool8);
  return t_.function(out, std::array{x, bias, residual}, std::array{mask}, role, [this, bias, role, p](const Tensor& g, std::vector<Tensor>&) {
    Gradients made(3);
    made[0] = p > 0 ? t_.empty(role, contiguous(g.dims()), g.dtype()) : g;
    if (bias.defined()) made[1] = t_.empty(role, bias.dims(), dtype());
    made[2] = g;
    return made;
  });
}

// bias_gelu and bias_swiglu are functions that keep what goes in and compute the rest again.
Tensor MegatronChunk::activate(const Tensor& x, const Tensor& bias, std::int64_t width) {
  const char* role = "mlp.act";
  if (m_.bias_activation_fusion) {
    const Tensor out = t_.empty(role, like_width(x.dims(), width), dtype());
    return t_.function(out, std::array{x, bias}, std::array{x}, role, [this, role](const Tensor&, std::vector<Tensor>& saved) {
      const Tensor dx = t_.empty(role, contiguous(saved[0].dims()), dtype());
      return Gradients{dx, dx};
    });
  }
  return unfused(bias.defined() ? t_.add(x, bias, role) : x, width, role, "mlp.product");
}

// The activation op by op, of an MLP or of experts; product: of what is gated.
Tensor MegatronChunk::unfused(const Tensor& x, std::int64_t width, const char* role, const char* product) {
  if (!a_.gated_mlp) {
    if (a_.activation == Activation::relu_squared) return t_.power(t_.unary(x, Tape::Keep::result, role), role);
    return t_.unary(x, Tape::Keep::input, role);
  }
  const std::array<std::int64_t, 2> halves = {width, width};
  const std::vector<Tensor> parts = t_.split(x, -1, halves);
  const Tensor gate = t_.unary(parts[0], Tape::Keep::input, role);
  return t_.mul(gate, t_.shift(parts[1], role), product);  // glu_linear_offset, which is 0
}

Tensor MegatronChunk::mlp(const Layer& l, const Tensor& x) {
  const Tensor up = column(x, l.mlp_norm, l.fc1, false, "mlp.up");
  const Tensor active = activate(up, l.fc1.bias, a_.ffn / m_.tensor);
  return row(active, l.fc2, "mlp.down");
}

}  // namespace dryfit::eager
