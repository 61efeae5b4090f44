// The way of a micro-batch through a chunk: embedding, layers, attention, head, loss. See megatron.hpp.
#include <algorithm>
#include <array>

#include "passes/megatron.hpp"

namespace dryfit::eager {

// -- attention: q [s, B, H, h], k and v [s, B, K, h]; out [s, B, H*h]

// cuDNN's kernel reads q, k and v where the product wrote them side by side; once one of them has moved, all become contiguous (attention/
// dot_product_attention/utils.py get_qkv_layout). Kept: q, k, v, the output, a number per row, the random state.
Tensor MegatronChunk::fused(const Tensor& given_q, const Tensor& given_k, const Tensor& given_v) {
  const bool together = !a_.latent && a_.position != Position::rotary && a_.qk_norm == QkNorm::none && heads() == groups();
  const auto laid = [&](const Tensor& x, const char* role) { return together ? x : t_.contiguous(x, role); };
  const Tensor q = laid(given_q, "attn.q"), k = laid(given_k, "attn.k"), v = laid(given_v, "attn.v");
  const Dims d = q.dims();
  const Tensor out = t_.empty("attn.out", dims({d.size[0], d.size[1], d.size[2] * v.dims().size[3]}, true), dtype());
  const Tensor statistics = t_.empty("attn.lse", dims({d.size[1], d.size[2], d.size[0]}, true), Dtype::fp32);
  const Tensor random = t_.empty("attn.seed", dims({2}, false), Dtype::int64);
  return t_.function(out, std::array{q, k, v}, std::array{q, k, v, out, statistics, random}, "attn.out", [this](const Tensor&, std::vector<Tensor>& saved) {
    Gradients made;
    for (std::size_t i = 0; i < 3; ++i) made.push_back(t_.empty(i == 0 ? "attn.dq" : i == 1 ? "attn.dk" : "attn.dv", contiguous(saved[i].dims()), dtype()));
    return made;
  });
}

// FlashAttention 2 wants [B, s, H, h]: copies go in, and its output is copied back.
Tensor MegatronChunk::flash(const Tensor& q, const Tensor& k, const Tensor& v) {
  const auto turned = [&](const Tensor& x, const char* role) { return t_.transpose(t_.contiguous(t_.transpose(x, 0, 1), role), 1, 2); };
  const Tensor q_turned = turned(q, "attn.q"), k_turned = turned(k, "attn.k"), v_turned = turned(v, "attn.v");
  const Tensor out = t_.attention(Attention::flash, q_turned, k_turned, v_turned, {}, r_.dropout ? a_.attention_dropout : 0, "attn.out");
  const Dims d = q.dims();
  const Tensor back = t_.contiguous(t_.transpose(t_.transpose(out, 1, 2), 0, 1), "attn.out");
  return t_.view(back, {d.size[0], d.size[1], d.size[2] * d.size[3]});
}

// Context parallelism: keys and values go round a ring of ranks, a part of the result is made at each (context_parallel.py AttnFuncWithCPAndKVP2P).
// Kept: q, the last keys and values to arrive, the result, a number per row. In backward keys, values and their gradients go round together.
Tensor MegatronChunk::ring(const Tensor& given_q, const Tensor& given_k, const Tensor& given_v) {
  const auto turned = [&](const Tensor& x, const char* role) { return t_.contiguous(t_.transpose(x, 0, 1), role); };
  const Tensor q = turned(given_q, "attn.q"), k = turned(given_k, "attn.k"), v = turned(given_v, "attn.v");
  const Dims d = q.dims();
  const std::int64_t pair = k.dims().numel() + v.dims().numel();
  const auto flat = [&](const char* role, std::int64_t elements, Dtype type) { return t_.empty(role, dims({elements}, true), type); };
  Tensor out, arrived, statistics;
  {
    std::vector<Tensor> buffers, parts;
    for (std::int64_t i = 0; i < m_.context; ++i) buffers.push_back(flat("attn.kv", pair, dtype()));
    for (std::int64_t i = 0; i < m_.context; ++i) {
      parts.push_back(flat("attn.part", d.numel(), dtype()));
      parts.push_back(flat("attn.lse", d.numel() / d.back(), Dtype::fp32));
    }
    statistics = flat("attn.lse", d.numel() / d.back(), Dtype::fp32);
    out = t_.empty("attn.out", contiguous(d), dtype());
    arrived = buffers.back();
  }
  const Tensor made = t_.function(out, std::array{q, k, v}, std::array{q, arrived, out, statistics}, "attn.out", [this, pair, of_k = k.dims(), of_v = v.dims()](const Tensor&, std::vector<Tensor>& saved) {
    Gradients made_gradients(3);
    made_gradients[0] = t_.empty("attn.dq", contiguous(saved[0].dims()), dtype());
    {
      const Tensor here = t_.empty("attn.kv", dims({2 * pair}, true), dtype()), next = t_.empty("attn.kv", dims({2 * pair}, true), dtype());
      const Tensor part = t_.empty("attn.part", dims({saved[0].dims().numel() + pair}, true), dtype());
    }
    made_gradients[1] = t_.empty("attn.dk", contiguous(of_k), dtype());
    made_gradients[2] = t_.empty("attn.dv", contiguous(of_v), dtype());
    return made_gradients;
  });
  out.reset();
  const Dims given = given_q.dims();
  return t_.view(t_.contiguous(t_.transpose(made, 0, 1), "attn.out"), {given.size[0], given.size[1], given.size[2] * given.size[3]});
}

// One kernel that keeps its result and writes the gradient over the one it gets; else float, mask, softmax, and back.
Tensor MegatronChunk::masked_softmax(const Tensor& scores) {
  const Dims d = scores.dims();
  const std::int64_t T = d.size[2];
  const bool kernel = m_.transformer_engine ? T % 8 == 0 && T > 16 && T < 16384 : m_.masked_softmax_fusion && T % 4 == 0 && T > 16 && T <= 4096;
  if (kernel && (d.size[0] * d.size[1]) % 4 == 0) {
    const Tensor out = t_.empty("attn.probs", contiguous(d), dtype());
    return t_.function(out, std::array{scores}, std::array{out}, "attn.probs", [](const Tensor& g, std::vector<Tensor>&) { return Gradients{g}; });
  }
  Tensor wide = t_.to(scores, Dtype::fp32, "attn.scores");
  wide = t_.scale(wide, "attn.scores");
  return t_.to(t_.softmax(wide, "attn.softmax"), dtype(), "attn.probs");
}

// Scores and probabilities in full. TransformerEngine's and Megatron's own differ in the buffer they give baddbmm.
Tensor MegatronChunk::unfused(const Tensor& q, const Tensor& given_k, const Tensor& given_v) {
  const Dims d = q.dims();
  const std::int64_t T = d.size[0], B = d.size[1], H = d.size[2];
  const auto repeated = [&](const Tensor& x, const char* role) {
    const std::int64_t K = x.dims().size[2], h = x.dims().size[3];
    if (K == H) return x;
    const Tensor wide = t_.expand(t_.view(x, {T, B, K, 1, h}), dims({T, B, K, H / K, h}, true));
    return t_.reshape(wide, dims({T, B, H, h}, true), role);
  };
  const Tensor k = repeated(given_k, "attn.k"), v = repeated(given_v, "attn.v");
  const auto flat = [&](const Tensor& x) { return t_.transpose(t_.reshape(x, dims({T, B * H, x.dims().size[3]}, true), "attn.flat"), 0, 1); };
  Tensor scores;
  product_workspace();
  {
    Tensor given;  // with beta 0 it is not read
    if (m_.transformer_engine) given = t_.empty("attn.scores", dims({B * H, T, T}, true), dtype());
    else global_buffer(B * H * T * T);
    scores = t_.bmm(flat(q), t_.transpose(flat(k), 1, 2), "attn.scores");
  }
  scores = t_.view(scores, {B, H, T, T});
  Tensor probs = masked_softmax(scores);
  probs = t_.dropout(probs, r_.dropout ? a_.attention_dropout : 0, "attn.dropout");
  const Tensor context = t_.view(t_.bmm(t_.view(probs, {B * H, T, T}), flat(v), "attn.out"), {B, H, T, v.dims().size[3]});
  const Tensor turned = t_.transpose(t_.transpose(context, 1, 2), 0, 1);  // permute(2, 0, 1, 3)
  return t_.hook(t_.view(t_.contiguous(turned, "attn.out"), {T, B, H * v.dims().size[3]}), [this] { product_workspace(); });
}

Tensor MegatronChunk::core_attention(const Tensor& q, const Tensor& k, const Tensor& v) {
  if (m_.context > 1) return ring(q, k, v);
  if (!m_.transformer_engine || attention_ == MegatronAttention::unfused) return unfused(q, k, v);
  return attention_ == MegatronAttention::flash ? flash(q, k, v) : fused(q, k, v);
}

// tensor_parallel.checkpoint of the core attention: what goes in is kept, the rest computed again in backward.
Tensor MegatronChunk::checkpointed(const Tensor& q, const Tensor& k, const Tensor& v) {
  Tensor out;
  {
    const NoGrad none(t_);
    out = core_attention(q, k, v);
  }
  return t_.function(out, std::array{q, k, v}, std::array{q, k, v}, "attn.out", [this](const Tensor& g, std::vector<Tensor>& saved) {
    std::array<Tensor, 3> given;
    for (std::size_t i = 0; i < 3; ++i) given[i] = t_.leaf(saved[i]);
    t_.grad_enabled(true);
    const Tensor again = core_attention(given[0], given[1], given[2]);
    t_.grad_enabled(false);
    t_.backward(again, g);
    Gradients made;
    for (Tensor& x : given) {
      made.push_back(t_.gradient(x));
      t_.zero_grad(x);
    }
    return made;
  });
}

// TransformerEngine's rotation is one kernel.
Tensor MegatronChunk::rotate(const Tensor& x, const char* role) {
  return t_.function(t_.empty(role, contiguous(x.dims()), dtype()), std::array{x}, {}, role, [this, role](const Tensor& g, std::vector<Tensor>&) { return Gradients{t_.empty(role, contiguous(g.dims()), dtype())}; });
}

Tensor MegatronChunk::attention(const Layer& l, const Tensor& x) {
  const std::int64_t h = a_.head_dim, each = heads() / groups(), T = full_rows(), B = r_.device_batch_size;
  const Tensor mixed = t_.view(column(x, l.attention_norm, l.qkv, true, "attn.qkv"), {T, B, groups(), (each + 2) * h});
  const std::array<std::int64_t, 3> parts = {each * h, h, h};
  const std::vector<Tensor> split = t_.split(mixed, -1, parts);
  Tensor q = t_.reshape(split[0], dims({T, B, heads(), h}, true), "attn.q"), k = split[1];
  const Tensor& v = split[2];
  if (a_.qk_norm != QkNorm::none) {
    q = norm(q, l.q_norm, "attn.q_norm");
    k = norm(k, l.k_norm, "attn.k_norm");
  }
  if (a_.position == Position::rotary) {
    q = rotate(q, "attn.q_rot");
    k = rotate(k, "attn.k_rot");
  }
  const Tensor out = m_.recompute_attention ? checkpointed(q, k, v) : core_attention(q, k, v);
  return row(out, l.proj, "attn.o");
}

Tensor MegatronChunk::layer(std::size_t i, const Tensor& x) {
  const Layer& l = layers_[i];
  t_.at(static_cast<int>(range_.first) + static_cast<int>(i));
  const Tensor attended = a_.latent ? latent_attention(l, x) : attention(l, x);
  const Tensor middle = add_dropped(attended, l.proj.bias, x, "x_mid");
  if (l.experts) {
    const Tensor normed = norm(middle, l.mlp_norm, "mlp.norm");
    const Tensor mixed = m_.experts.recompute_layer ? t_.checkpoint([this, i](const Tensor& in) { return mixture(i, in); }, normed, true) : mixture(i, normed);
    return add_dropped(mixed, {}, middle, "x");
  }
  const Tensor fed = m_.recompute_mlp ? t_.checkpoint([this, &l](const Tensor& in) { return mlp(l, in); }, middle, true) : mlp(l, middle);
  return add_dropped(fed, l.fc2.bias, middle, "x");
}

// transformer_block.py _checkpointed_forward.
Tensor MegatronChunk::block(Tensor x) {
  const std::size_t count = layers_.size();
  const auto run = [this](std::size_t from, std::size_t to) {
    return [this, from, to](const Tensor& in) {
      Tensor y = in;
      for (std::size_t i = from; i < to; ++i) y = layer(i, y);
      return y;
    };
  };
  if (m_.recompute == MegatronRecompute::uniform) {
    const auto step = static_cast<std::size_t>(m_.recompute_layers);
    for (std::size_t i = 0; i < count; i += step) x = t_.checkpoint(run(i, std::min(count, i + step)), x, true);
    return x;
  }
  const std::size_t again = m_.recompute == MegatronRecompute::block ? std::min(count, static_cast<std::size_t>(m_.recompute_layers)) : 0;
  for (std::size_t i = 0; i < again; ++i) x = t_.checkpoint(run(i, i + 1), x, true);
  for (std::size_t i = again; i < count; ++i) x = layer(i, x);
  return x;
}

// VocabParallelEmbedding, positions, [B, s] to [s, B], dropout. Under tensor parallelism ids of other ranks are masked.
Tensor MegatronChunk::embed(const Batch& batch) {
  const std::int64_t B = r_.device_batch_size, s = full_rows();
  Tensor x;
  {
    Tensor ids = batch.tokens, foreign;
    if (m_.tensor > 1) {
      foreign = t_.empty("embedding.mask", batch.tokens.dims(), Dtype::bool8);
      ids = t_.empty("embedding.ids", batch.tokens.dims(), Dtype::int64);
    }
    x = m_.deterministic ? t_.gather(word_embeddings_, ids, dims({B, s, a_.width}, true), "x_embed") : t_.embedding(word_embeddings_, ids, "x_embed");
  }
  {
    const Tensor words = x;
    Tensor positions;
    if (a_.position == Position::learned) {
      positions = t_.embedding(position_embeddings_, batch.positions, "x_position");
      x = t_.add(words, positions, "x_embed");
    }
    x = t_.contiguous(t_.transpose(x, 0, 1), "x_embed");
    x = to_rank(x, "x_embed");
  }
  return t_.dropout(x, r_.dropout ? a_.embedding_dropout : 0, "x_embed");
}

Tensor MegatronChunk::head(const Tensor& x) {
  const Tensor normed = norm(x, final_norm_, "norm");
  const Category before = t_.category();
  t_.category(Category::logits);
  Tensor logits = own_linear(normed, output_, {}, true, "logits");
  t_.category(before);
  return logits;
}

Tensor MegatronChunk::loss(const Tensor& logits, const Batch& batch) {
  const Category before = t_.category();
  t_.category(Category::logits);
  const Tensor labels = t_.empty("loss.targets", dims({logits.dims().size[0], logits.dims().size[1]}, true), Dtype::int64);
  const Tensor lost = vocab_parallel_cross_entropy(t_, logits, m_.cross_entropy_fusion);
  t_.category(before);
  // loss_func: masked, summed
  const Tensor turned = t_.contiguous(t_.transpose(lost, 0, 1), "loss");
  const Tensor masked = t_.mul(t_.view(turned, {turned.dims().numel()}), t_.view(batch.loss_mask, {turned.dims().numel()}), "loss");
  return t_.function(t_.empty("loss", dims({}, false), Dtype::fp32), std::array{masked}, {}, "loss", [this, masked_dims = masked.dims()](const Tensor&, std::vector<Tensor>&) { return Gradients{t_.empty("loss", masked_dims, Dtype::fp32)}; });
}

Tensor vocab_parallel_cross_entropy(Tape& t, const Tensor& logits, bool fused) {
  const Dims d = logits.dims();
  const Dims per_row = dims({d.size[0], d.size[1]}, true);
  Tensor out, probs, foreign, target;
  {
    probs = t.empty("logits", contiguous(d), Dtype::fp32);
    const Tensor most = t.empty("loss.max", per_row, Dtype::fp32);
    foreign = t.empty("loss.mask", per_row, Dtype::bool8);
    target = t.empty("loss.targets", per_row, Dtype::int64);
    if (fused) t.empty("logits", contiguous(d), Dtype::fp32);
    const Tensor predicted = t.empty("loss.predicted", per_row, Dtype::fp32), sum = t.empty("loss.sum", per_row, Dtype::fp32);
    out = t.empty("loss", per_row, Dtype::fp32);
  }
  return t.function(out, std::array{logits}, std::array{probs, foreign, target}, "logits", [&t, fused, dtype = logits.dtype()](const Tensor&, std::vector<Tensor>& saved) -> std::vector<Tensor> {
    if (!fused) return {saved[0]};
    const Tensor wide = t.empty("logits", contiguous(saved[0].dims()), Dtype::fp32);
    return {t.empty("logits", contiguous(saved[0].dims()), dtype)};
  });
}

Tensor MegatronChunk::forward(const Batch& batch, const Tensor& hidden) {
  if (a_.position == Position::rotary && !a_.latent && !rotary_.defined()) rotary_ = t_.empty("rotary", dims({full_rows(), 1, 1, a_.rotary_dims}, false), Dtype::fp32, Category::workspace);
  Tensor x = first_ ? embed(batch) : hidden;
  x = block(std::move(x));
  t_.at(-1);
  if (!last_) return x;
  const Tensor logits = head(x);
  x.reset();
  return loss(logits, batch);
}

}  // namespace dryfit::eager
