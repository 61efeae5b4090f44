// Multi-head latent attention as Megatron-LM's MLASelfAttention runs it with TransformerEngine's modules, op by op. See megatron.hpp.
// Source: Megatron-LM megatron/core/transformer/multi_latent_attention.py, fusions/fused_mla_yarn_rope_apply.py, models/common/embeddings/ (2026-08).
// Symbols: n and p the parts of a query or key head without and with a position, v a value head.
#include <array>

#include "passes/megatron.hpp"

namespace dryfit::eager {

// The norm before is a module of its own; projections down are whole on every rank.
void MegatronChunk::make_latent_attention(Layer& l, int layer) {
  const LatentAttention& m = *a_.latent;
  const std::int64_t D = a_.width, H = heads(), query = m.nope_head_dim + m.rope_head_dim;
  l.attention_norm = make_norm("attn.norm", layer, D);
  l.proj.weight = weight("attn.o", layer, {D, H * m.value_head_dim});
  if (a_.out_bias) l.proj.bias = weight("attn.o", layer, {D});
  const bool normed = a_.qk_norm != QkNorm::none;
  if (m.q_lora_rank > 0) {
    l.q_down.weight = weight("attn.q_down", layer, {m.q_lora_rank, D});
    if (normed) l.q_norm = make_norm("attn.q_norm", layer, m.q_lora_rank);
  }
  l.qkv.weight = weight("attn.q", layer, {H * query, m.q_lora_rank > 0 ? m.q_lora_rank : D});
  l.kv_down.weight = weight("attn.kv_down", layer, {m.kv_lora_rank + m.rope_head_dim, D});
  if (normed) l.k_norm = make_norm("attn.kv_norm", layer, m.kv_lora_rank);
  l.kv_up.weight = weight("attn.kv", layer, {H * (m.nope_head_dim + m.value_head_dim), m.kv_lora_rank});
  // Each layer's rotary module keeps its angles (of 32 modules at the most), and YaRN's sines and cosines of its original length.
  constexpr std::int64_t kOriginal = 4096;
  if (layers_.size() < 32) rotaries_.push_back(t_.buffer("rotary", full_rows() * m.rope_head_dim, Dtype::fp32, Category::workspace));
  if (m_.yarn) rotaries_.push_back(t_.buffer("rotary", 2 * (m_.rope_fusion ? full_rows() : kOriginal) * m.rope_head_dim, dtype(), Category::workspace));
}

// A product that each rank makes of its own rows.
Tensor MegatronChunk::duplicated(const Tensor& x, const Linear& w, const char* role) {
  const Dims d = x.dims();
  const Tensor out = expert_product(t_.view(x, {d.size[0] * d.size[1], d.size[2]}), std::span(&w, 1), role);
  return t_.view(out, {d.size[0], d.size[1], out.dims().back()});
}

// A projection up, of all ranks' rows.
Tensor MegatronChunk::raised(const Tensor& x, const Norm& before, const Linear& w, const char* role) {
  const Tensor whole = t_.contiguous(x, role);
  return before.weight.defined() ? norm_linear(whole, before, w, false, role) : gathering_linear(whole, w, role);
}

// apply_rotary_pos_emb, unfused: halves joined, a product each with cosines and sines, their sum, and it once more beside nothing.
Tensor MegatronChunk::rotated(const Tensor& x, const char* role) {
  const auto like = [this, role](const Tensor& t) { return t_.empty(role, contiguous(t.dims()), dtype()); };
  Tensor out;
  {
    Tensor sum;
    {
      const Tensor halves = like(x), by_cosine = like(x), turned = like(x), by_sine = like(x);
      sum = like(x);
    }
    out = like(x);
  }
  return t_.function(out, std::array{x}, {}, role, [like](const Tensor& g, std::vector<Tensor>&) {
    const Tensor by_sine = like(g), turned = like(g), by_cosine = like(g);
    const Tensor sum = like(g);
    return Gradients{like(g)};
  });
}

std::array<Tensor, 3> MegatronChunk::latent_heads(const Layer& l, const Tensor& x) {
  const LatentAttention& m = *a_.latent;
  const std::int64_t T = full_rows(), B = r_.device_batch_size, H = heads(), n = m.nope_head_dim, p = m.rope_head_dim, v = m.value_head_dim;
  const Tensor low_q = m.q_lora_rank > 0 ? duplicated(x, l.q_down, "attn.q_down") : x;
  const std::vector<Tensor> low = t_.split(duplicated(x, l.kv_down, "attn.kv_down"), -1, std::array{m.kv_lora_rank, p});
  Tensor position = low[1];
  if (sequence_parallel()) {
    const Tensor mine = t_.contiguous(position, "attn.k_rot");
    position = t_.function(rows(T, p, dtype(), "attn.k_rot"), std::array{mine}, {}, "attn.k_rot", [this, p](const Tensor&, std::vector<Tensor>&) { return Gradients{rows(rank_rows(), p, dtype(), "attn.k_rot")}; });
  }
  const Tensor q = t_.view(raised(low_q, m.q_lora_rank > 0 ? l.q_norm : Norm{}, l.qkv, "attn.q"), {T, B, H, n + p});
  const Tensor kv = t_.view(raised(low[0], l.k_norm, l.kv_up, "attn.kv"), {T, B, H, n + v});
  if (m_.rope_fusion) {
    const Tensor turned = t_.function(q, std::array{q}, {}, "attn.q", [this](const Tensor& g, std::vector<Tensor>&) { return Gradients{t_.contiguous(g, "attn.dq")}; });
    const Tensor key = t_.empty("attn.k", dims({T, B, H, n + p}, true), dtype()), value = t_.empty("attn.v", dims({T, B, H, v}, true), dtype());
    const std::vector<Tensor> made = t_.function(std::array{key, value}, std::array{kv, position}, {}, "attn.kv", [this, of_kv = contiguous(kv.dims()), of_position = contiguous(position.dims())](std::span<const Tensor>, std::vector<Tensor>&) {
      Gradients out{t_.empty("attn.kv", of_kv, dtype())};
      out.push_back(t_.empty("attn.k_rot", of_position, dtype()));
      return out;
    });
    return {turned, made[0], made[1]};
  }
  const std::vector<Tensor> of_q = t_.split(q, -1, std::array{n, p}), of_kv = t_.split(kv, -1, std::array{n, v});
  const Tensor q_turned = rotated(of_q[1], "attn.q_rot"), k_turned = rotated(t_.view(t_.contiguous(position, "attn.k_rot"), {T, B, 1, p}), "attn.k_rot");
  const Tensor query = t_.cat(std::array{of_q[0], q_turned}, 3, "attn.q");
  const Tensor key = t_.cat(std::array{of_kv[0], t_.expand(k_turned, dims({T, B, H, p}, true))}, 3, "attn.k");
  return {query, key, t_.contiguous(of_kv[1], "attn.v")};
}

Tensor MegatronChunk::latent_attention(const Layer& l, const Tensor& x) {
  const std::array<Tensor, 3> of = latent_heads(l, norm(x, l.attention_norm, "attn.norm"));
  return row(m_.recompute_attention ? checkpointed(of[0], of[1], of[2]) : core_attention(of[0], of[1], of[2]), l.proj, "attn.o");
}

}  // namespace dryfit::eager
