// See attention_scratch.hpp. Sources: aten/src/ATen/native/transformers/cuda/ of PyTorch (flash_attn/flash_api.cpp, attention_backward.cu), cudnn-frontend, hopper/flash_api.cpp of flash-attention.
#include "passes/attention_scratch.hpp"

#include <algorithm>

namespace dryfit {

namespace {

// mha_bwd, mha_varlen_bwd: sums of rows, dq in fp32; where heads share keys dk and dv of every head. Rows in tiles of 128; packed ones leave room after each sequence.
AttentionScratch flash_scratch(const AttentionBackwardCall& call) {
  const EfficientCall& c = call.of;
  const std::int64_t rows = call.sequences > 0 ? c.queries + 128 * call.sequences : round_up(c.queries, 128);
  AttentionScratch out;
  out.beside = {{"attn.softmax_d", Dtype::fp32, {c.batch, c.heads, rows}}, {"attn.dq_accum", Dtype::fp32, {c.batch, rows, c.heads, round_up(c.head_dim, 32)}}};
  if (call.key_heads != c.heads) {
    for (const char* role : {"attn.dk_expanded", "attn.dv_expanded"}) out.beside.push_back({role, c.dtype, {c.batch, c.queries, c.heads, c.head_dim}});
  }
  return out;
}

// mha_bwd: rows in tiles of its kernels for sm90; sums of rows, the log-sum-exp in powers of two, dq in fp32; where heads share keys dk and dv too.
AttentionScratch flash_3_scratch(const AttentionBackwardCall& call) {
  const EfficientCall& c = call.of;
  const std::int64_t h = c.head_dim, head = h <= 64 ? 64 : h <= 96 ? 96 : h <= 128 ? 128 : h <= 192 ? 192 : 256;
  const std::int64_t tile = head <= 64 ? 128 : head == 128 && !call.causal ? 80 : 64, key_tile = head <= 128 ? 128 : head <= 192 ? 96 : 80;
  const std::int64_t sequences = std::max<std::int64_t>(call.sequences, 1);
  const auto padded = [&](std::int64_t to) { return round_up(call.sequences > 0 ? c.queries + call.sequences * to : c.queries, to); };
  AttentionScratch out;
  if (!call.sums_given) out.beside.push_back({"attn.softmax_d", Dtype::fp32, {c.batch, c.heads, padded(tile)}});
  out.beside.push_back({"attn.lse_log2", Dtype::fp32, {c.batch, c.heads, padded(tile)}});
  out.beside.push_back({"attn.dq_accum", Dtype::fp32, {c.batch, c.heads, padded(tile), head}});
  if (call.key_heads != c.heads) {
    for (const char* role : {"attn.dk_accum", "attn.dv_accum"}) out.beside.push_back({role, Dtype::fp32, {c.batch, call.key_heads, padded(key_tile), head}});
  }
  out.beside.push_back({"attn.dq_semaphore", Dtype::int32, {c.batch * sequences, ceil_div(c.queries / sequences, tile), c.heads}});
  return out;
}

// It says how much it wants when it is asked. What its frontend declares are the same sums of rows, and dQ, dK and dV in full (include/cudnn_frontend/node/scaled_dot_product_flash_attention.h:
// softmax_sum, dQ_accum, dK_fullhead, dV_fullhead), in one block, as a run on an H100 shows.
AttentionScratch cudnn_scratch(const AttentionBackwardCall& call) {
  const EfficientCall& c = call.of;
  const std::int64_t shared = call.key_heads != c.heads ? 2 * c.queries * c.head_dim * size_of(c.dtype) / size_of(Dtype::fp32) : 0;
  return {{}, {{"attn.dq_accum", Dtype::fp32, {c.batch, c.heads, c.queries * (c.head_dim + 1) + shared}}}};
}

// _efficient_attention_backward: the sums of rows by ops of torch in fp32 where the kernel does not make them itself.
AttentionScratch efficient_scratch(const AttentionBackwardCall& call) {
  const EfficientCall& c = call.of;
  const EfficientBackward taken = efficient_backward(c, call.capability);
  const ScratchTensor sums{"attn.delta", Dtype::fp32, {c.batch, c.heads, c.queries}};
  AttentionScratch out;
  if (!taken.sums_rows) {
    for (int i = c.dtype == Dtype::fp32 ? 1 : 3; i > 0; --i) out.before.push_back({"attn.delta_product", Dtype::fp32, {c.batch, c.queries, c.heads, c.value_dim}});  // and its factors, in fp32
    out.before.push_back(sums);
  }
  out.beside = {sums, {"attn.workspace", Dtype::uint8, {c.batch, taken.workspace / c.batch}}};
  return out;
}

}  // namespace

AttentionScratch backward_scratch(const AttentionBackwardCall& call) {
  switch (call.kind) {
    case Attention::flash: return flash_scratch(call);
    case Attention::fa3: return flash_3_scratch(call);
    case Attention::cudnn: return cudnn_scratch(call);
    case Attention::efficient: return efficient_scratch(call);
    default: return {};
  }
}

}  // namespace dryfit
