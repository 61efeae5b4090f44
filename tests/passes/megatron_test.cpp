// Megatron-LM's step on the eager engine. The measured truth is in data/measured (NVIDIA's own runs, by the accuracy test); here: a sum by hand of what is
// alive at the loss, and what must follow from what.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <string>

#include "memory/timeline.hpp"
#include "passes/megatron_step.hpp"

namespace dryfit {
namespace {

constexpr std::int64_t kWorkspace = 4096 * 8 * 1024;

Architecture gpt(std::int64_t layers, std::int64_t width, std::int64_t heads) {
  Architecture a;
  a.family = Family::megatron;
  a.layers = layers, a.width = width, a.heads = a.kv_heads = heads, a.head_dim = width / heads, a.ffn = 4 * width, a.vocab = 1024, a.max_positions = a.position_rows = 512;
  a.norm = NormKind::layer_norm, a.norm_bias = a.qkv_bias = a.out_bias = a.mlp_bias = a.fused_qkv = true;
  a.gated_mlp = false, a.activation = Activation::gelu, a.position = Position::learned, a.tied_head = true;
  a.residual_dropout = a.embedding_dropout = a.attention_dropout = 0.1;
  return a;
}

Training run(std::int64_t batch, std::int64_t length, std::int64_t micro_batches = 1) {
  Training t;
  t.framework = Framework::megatron;
  t.weights = Dtype::bf16;
  t.device_batch_size = batch, t.seq_len = length, t.grad_accum_steps = micro_batches;
  t.megatron.grads_in_fp32 = true, t.megatron.accumulation_fusion = false, t.workspaces.cublas = kWorkspace;
  return t;
}

MixtureOfExperts experts_in(std::vector<bool> layers, std::int64_t experts, std::int64_t top_k, std::int64_t width) {
  MixtureOfExperts moe;
  moe.experts = experts, moe.top_k = top_k, moe.expert_ffn = width, moe.layers = std::move(layers);
  return moe;
}

std::int64_t peak_within(const Program& p, std::string_view phase, std::string_view part) {
  std::int64_t live = 0, peak = 0;
  for (std::size_t i = 0; i < p.events.size(); ++i) {
    const Event& e = p.events[i];
    const std::int64_t bytes = round_up(p.tensors[static_cast<std::size_t>(e.tensor)].bytes, 512);
    live += e.kind == Event::Kind::alloc ? bytes : -bytes;
    const Segment& s = p.segment_of(static_cast<std::int32_t>(i));
    if (s.phase == phase && s.part == part) peak = std::max(peak, live);
  }
  return peak;
}

Program built(const Architecture& a, const Training& t) {
  auto p = build_megatron_program(a, t, {9, 0, 0}, {});
  EXPECT_TRUE(p.has_value());
  return std::move(*p);
}

// Independent of the engine: N tokens, D width, F = 4 D, H heads. What TransformerEngine's modules keep of a layer, and the loss over it all.
TEST(Megatron, TheFirstForwardPassIsTheSumOfWhatItsModulesKeep) {
  const std::int64_t L = 3, D = 512, H = 8, B = 4, S = 512, V = 1024, N = B * S;
  const Architecture a = gpt(L, D, H);
  const std::int64_t layer_weights = 12 * D * D + 13 * D;
  const std::int64_t weights = V * D + 512 * D + L * layer_weights + 2 * D;
  const std::int64_t kept = 2 * weights + 4 * weights + 4 * weights;  // bf16 weights, fp32 gradients, fp32 main weights: no moments yet
  const std::int64_t norm = 2 * N * D + 2 * 4 * N;                    // output, mean, deviation
  const std::int64_t attention = 6 * N * D + 2 * N * D + 4 * B * H * S;  // q, k, v; output; a number per row
  const std::int64_t layer = 2 * N * D + norm + attention + N * D + 2 * N * D + norm + 2 * N * 4 * D + 2 * N * 4 * D + N * D;
  const std::int64_t ends = N * D + 2 * N * D + norm;                 // mask of the embedding's dropout; last hidden state and its norm
  const std::int64_t batch = 3 * 8 * N + 4 * N + B * S * S;           // tokens, labels, positions, loss mask, attention mask
  const std::int64_t loss = (2 + 4) * N * V + 8 * N + 3 * 4 * N + N + 8 * N;  // logits twice; targets, maxima, sums, predicted, mask, targets again
  const std::int64_t workspaces = kWorkspace + 33554432 + 1024;
  const std::int64_t sum = kept + L * layer + ends + batch + loss + workspaces;
  const std::int64_t peak = peak_within(built(a, run(B, S)), "first_step", "forward");
  EXPECT_NEAR(static_cast<double>(peak), static_cast<double>(sum), 64 * 1024.0) << "off by " << peak - sum;  // blocks of small tensors are rounded up
}

// E experts, k of them a token, on two GPUs; one product for all experts of a GPU, a fused SwiGLU. By hand, at the loss.
TEST(Megatron, AMixtureIsTheSumOfWhatItsModulesKeep) {
  const std::int64_t L = 3, D = 512, H = 8, B = 4, S = 512, V = 1024, N = B * S, E = 4, k = 2, F = 256, here = E / 2, T = N * k;
  Architecture a = gpt(L, D, H);
  a.gated_mlp = true, a.activation = Activation::silu, a.mlp_bias = a.out_bias = a.qkv_bias = false, a.residual_dropout = a.embedding_dropout = a.attention_dropout = 0;
  a.moe = experts_in(std::vector<bool>(L, true), E, k, F);
  Training t = run(B, S);
  t.world_size = 2;
  t.megatron.experts.parallel = 2, t.megatron.experts.grouped = true;
  const std::int64_t layer_weights = 4 * D * D + 4 * D + E * D + here * 3 * D * F;
  const std::int64_t weights = V * D + 512 * D + L * layer_weights + 2 * D;
  const std::int64_t kept = (2 + 4 + 4) * weights;
  const std::int64_t norm = 2 * N * D + 2 * 4 * N;
  const std::int64_t attention = 6 * N * D + 2 * N * D + 4 * B * H * S;
  const std::int64_t router = (8 + 4) * N * k;                                             // what was chosen, its softmax
  const std::int64_t dispatcher = 2 * N * here + 8 * T + 2 * T + 2 * N * here;  // map, order, weights; the map by expert
  const std::int64_t experts = 2 * T * (D + 2 * F + F);
  const std::int64_t layer = 2 * N * D + norm + attention + 2 * N * D + norm + router + dispatcher + experts;
  const std::int64_t ends = 2 * N * D + norm;
  const std::int64_t batch = 3 * 8 * N + 4 * N + B * S * S;
  const std::int64_t loss = (2 + 4) * N * V + 8 * N + 3 * 4 * N + N + 8 * N;
  const std::int64_t everyones = 2 * 2 * N * D;                                            // all tokens of both GPUs
  const std::int64_t sum = kept + L * layer + ends + batch + loss + everyones + kWorkspace + 5 * (33554432 + 1024);
  const auto peak = [&](const Training& with) { return peak_within(built(a, with), "first_step", "forward"); };
  EXPECT_NEAR(static_cast<double>(peak(t)), static_cast<double>(sum), 128 * 1024.0) << "off by " << peak(t) - sum;
  // sent by the ranks' kernels, the rows' index is of all pairs, and there is no buffer of everybody's tokens
  Training sent = t;
  sent.megatron.experts.dispatcher = MegatronDispatcher::alltoall;
  const std::int64_t of_sent = (8 * E * N + 8 * T + (2 + 1) * N * E) - dispatcher;
  EXPECT_NEAR(static_cast<double>(peak(sent)), static_cast<double>(sum - everyones + L * of_sent), 128 * 1024.0) << "off by " << peak(sent) - (sum - everyones + L * of_sent);
  Training adds = t;  // a deterministic sum keeps its rows
  adds.megatron.deterministic = true;
  EXPECT_NEAR(static_cast<double>(peak(adds)), static_cast<double>(sum + L * 2 * T * D), 128 * 1024.0) << "off by " << peak(adds) - sum - L * 2 * T * D;
  Training again = t;
  again.megatron.experts.recompute_activation = true;
  EXPECT_NEAR(static_cast<double>(peak(again)), static_cast<double>(sum - L * 2 * T * F), 128 * 1024.0);
  Training full = t;
  full.megatron.experts.recompute_layer = true;
  EXPECT_NEAR(static_cast<double>(peak(full)), static_cast<double>(sum - L * (router + dispatcher + experts) + L * (2 * N * here + 10 * T)), 256 * 1024.0);
}

// Latent attention on one GPU: ranks of queries Q and of keys and values C, heads of n + p and v. By hand, at the loss.
TEST(Megatron, LatentAttentionIsTheSumOfWhatItsModulesKeep) {
  const std::int64_t L = 3, D = 512, H = 8, B = 4, S = 512, V = 1024, N = B * S, Q = 192, C = 64, n = 48, p = 16, v = 32;
  Architecture a = gpt(L, D, H);
  a.mlp_bias = a.out_bias = a.qkv_bias = false, a.residual_dropout = a.embedding_dropout = a.attention_dropout = 0;
  a.latent = LatentAttention{Q, C, n, p, v};
  Training t = run(B, S);
  t.megatron.yarn = true;
  const std::int64_t attention_weights = H * v * D + Q * D + H * (n + p) * Q + (C + p) * D + H * (n + v) * C;
  const std::int64_t weights = V * D + 512 * D + L * (attention_weights + 8 * D * D + 4 * D) + 2 * D;
  const std::int64_t kept = (2 + 4 + 4) * weights;
  const std::int64_t norm = 2 * N * D + 2 * 4 * N;
  const std::int64_t projections = 2 * N * (Q + C);                                  // what goes up; what goes down is the norm's
  const std::int64_t attention = 2 * N * H * (2 * (n + p) + v) + 2 * N * H * v + 4 * B * H * S;
  const std::int64_t layer = 2 * N * D + norm + projections + attention + 2 * N * D + norm + 2 * 2 * N * 4 * D;
  const std::int64_t rotary = 4 * S * p + 2 * 2 * 4096 * p;
  const std::int64_t ends = 2 * N * D + norm, batch = 3 * 8 * N + 4 * N + B * S * S, loss = (2 + 4) * N * V + 8 * N + 3 * 4 * N + N + 8 * N;
  const auto near = [&](const Training& with, std::int64_t more) {
    const std::int64_t sum = kept + L * (layer + rotary) + ends + batch + loss + kWorkspace + 33554432 + 1024 + more, peak = peak_within(built(a, with), "first_step", "forward");
    EXPECT_NEAR(static_cast<double>(peak), static_cast<double>(sum), 64 * 1024.0) << "off by " << peak - sum;
  };
  near(t, 0);
  // the fused rotation writes over the queries, and its tables are of this length
  t.megatron.rope_fusion = true;
  near(t, L * 2 * 2 * (S - 4096) * p);
  // norms of the low ranks: what goes in, what comes out, mean and deviation
  a.qk_norm = QkNorm::per_head;
  near(t, L * 2 * 2 * (S - 4096) * p + L * (2 * N * (Q + C) + 2 * 2 * 4 * N) + L * 2 * (Q + C) * 10);
}

// Whatever is shared out, all ranks together hold the model's experts once for each of their replicas.
TEST(Megatron, ExpertsAreSharedOutAndHaveReplicasOfTheirOwn) {
  Architecture a = gpt(4, 256, 4);
  a.mlp_bias = false;
  a.moe = experts_in({false, true, true, true}, 8, 2, 512);
  const std::int64_t experts = 3 * 8 * 2 * 256 * 512;
  Training t = run(1, 256);
  t.world_size = 8;
  const StaticBytes all = megatron_static_bytes(a, t);
  for (const bool distributed : {false, true}) {
    t.megatron.distributed_optimizer = distributed;
    for (const std::int64_t EP : {1, 2, 4, 8}) {
      t.megatron.experts.parallel = EP;
      const StaticBytes part = megatron_static_bytes(a, t);
      const std::int64_t slack = distributed ? 2 * (64 * 70 + 128 * 8) : 0, dense = all.weights.count / 2 - experts;
      EXPECT_GE(part.weights.count, 2 * (dense + experts / EP));
      EXPECT_LE(part.weights.count, 2 * (dense + experts / EP) + 2 * slack);
      // of a rank's experts there are 8/EP replicas, so that with EP 8 their states are not shared out any more
      const std::int64_t states = distributed ? dense / 8 + experts / EP / (8 / EP) : dense + experts / EP;
      EXPECT_NEAR(static_cast<double>(part.optimizer.count), 12.0 * static_cast<double>(states), 12.0 * static_cast<double>(slack) + 1) << EP;
    }
  }
}

TEST(Megatron, TheFirstStageHoldsAMicroBatchForEveryStageBehindIt) {
  const Architecture a = gpt(8, 256, 4);
  const auto peak = [&](std::int64_t stages, std::int64_t micro_batches) {
    Training t = run(2, 512, micro_batches);
    t.megatron.pipeline = t.world_size = stages;
    t.megatron.stage = 0;
    return peak_of(built(a, t)).count;
  };
  const std::int64_t one = peak(4, 1), two = peak(4, 2), four = peak(4, 4);
  EXPECT_GT(two, one);
  EXPECT_NEAR(static_cast<double>(four - two), 2.0 * static_cast<double>(two - one), 1 << 20);
  EXPECT_EQ(peak(4, 8), peak(4, 64)) << "a full pipeline repeats";
}

TEST(Megatron, TheDistributedOptimizerSharesStatesOutToTheByteOfItsPadding) {
  const Architecture a = gpt(4, 256, 4);
  Training t = run(1, 256);
  const StaticBytes whole = megatron_static_bytes(a, t);
  t.megatron.distributed_optimizer = true;
  for (const std::int64_t W : {1, 2, 4, 8}) {
    t.world_size = W;
    const StaticBytes shared = megatron_static_bytes(a, t);
    EXPECT_EQ(shared.gradients.count, 2 * shared.weights.count);
    EXPECT_GE(shared.gradients, whole.gradients);
    EXPECT_LE(shared.gradients.count, whole.gradients.count + 4 * (64 * 60 + 128 * W));
    EXPECT_LE(shared.optimizer.count, whole.optimizer.count / W + 12 * 64);
    EXPECT_GE(shared.optimizer.count, whole.optimizer.count / W - 12 * (64 * 60 + 128 * W));
  }
}

TEST(Megatron, SchedulesAreMegatronsOwn) {
  MegatronRun m;
  m.pipeline = 4;
  for (std::int64_t stage = 0; stage < 4; ++stage) EXPECT_EQ(warmup_passes(m, 8, stage), 3 - stage);
  EXPECT_EQ(warmup_passes(m, 2, 0), 2);
  m.pipeline = 2, m.virtual_stages = 2;
  EXPECT_EQ(warmup_passes(m, 4, 0), 4);
  EXPECT_EQ(warmup_passes(m, 4, 1), 2);
  std::vector<std::pair<std::int64_t, std::int64_t>> passes;
  for (const Pass& p : schedule_of(m, 4)) passes.emplace_back(p.micro_batch, p.chunk);
  EXPECT_EQ(passes, (std::vector<std::pair<std::int64_t, std::int64_t>>{{0, 0}, {1, 0}, {0, 1}, {1, 1}, {2, 0}, {3, 0}, {2, 1}, {3, 1}}));
  EXPECT_EQ(layers_of(m, 8, 1, 1).first, 6);
  const auto counts = [](const MegatronRun& run, std::int64_t layers) {
    std::vector<std::pair<std::int64_t, std::int64_t>> out;
    for (std::int64_t c = 0; c < run.virtual_stages; ++c) {
      for (std::int64_t s = 0; s < run.pipeline; ++s) out.emplace_back(layers_of(run, layers, s, c).first, layers_of(run, layers, s, c).count);
    }
    return out;
  };
  MegatronRun uneven;
  uneven.pipeline = 4, uneven.first_layers = 3, uneven.last_layers = 2;
  EXPECT_EQ(counts(uneven, 13), (std::vector<std::pair<std::int64_t, std::int64_t>>{{0, 3}, {3, 4}, {7, 4}, {11, 2}}));
  EXPECT_TRUE(check_layers(uneven, 13).has_value());
  EXPECT_FALSE(check_layers(uneven, 14).has_value());
  uneven.first_layers = 13;
  EXPECT_FALSE(check_layers(uneven, 13).has_value());
  MegatronRun counted;
  counted.pipeline = 4, counted.virtual_stages = 2, counted.embedding_counts = counted.loss_counts = true;
  EXPECT_EQ(counts(counted, 6), (std::vector<std::pair<std::int64_t, std::int64_t>>{{0, 0}, {0, 1}, {1, 1}, {2, 1}, {3, 1}, {4, 1}, {5, 1}, {6, 0}}));
  EXPECT_TRUE(check_layers(counted, 6).has_value());
  EXPECT_FALSE(check_layers(counted, 7).has_value());
  using Layers = std::vector<bool>;
  EXPECT_EQ(*expert_layers_of("2", 4, ""), (Layers{true, false, true, false}));
  EXPECT_EQ(*expert_layers_of("([0]*2+[1,1,0])*2", 10, ""), (Layers{false, false, true, true, false, false, false, true, true, false}));
  for (const char* bad : {"0", "x", "[1", "[1]*", "[2]", "[1]*3", "[1]+", "([1]*2]", "[1]*99999", "[1,]"}) EXPECT_FALSE(expert_layers_of(bad, 2, "").has_value()) << bad;
  EXPECT_EQ(*cublas_workspace_of(":4096:8", ""), kWorkspace);
  EXPECT_EQ(*cublas_workspace_of(":4096:2:16:8", ""), 8519680);
  for (const char* bad : {"", "4096:8", ":4096", ":a:b", ":-1:8", ":4096:8:16"}) EXPECT_FALSE(cublas_workspace_of(bad, "").has_value()) << bad;
}

// Two layers on a rank, of the smallest: what the other one's experts no longer save is less than what a checkpoint holds as its backward runs.
TEST(Megatron, ExpertsThatRunAgainHoldWhatTheyReturned) {
  Architecture a = gpt(4, 512, 8);
  a.gated_mlp = true, a.activation = Activation::silu, a.mlp_bias = a.out_bias = false;
  a.moe = experts_in(std::vector<bool>(4, true), 8, 1, 128);
  Training t = run(1, 256, 4);
  t.megatron.bias_activation_fusion = t.megatron.sequence_parallel = t.megatron.experts.grouped = true;
  t.megatron.tensor = 4, t.megatron.pipeline = t.megatron.experts.parallel = 2, t.world_size = 16;
  const auto at_peak = [&](bool again) {
    t.megatron.experts.recompute_layer = again;
    const Program p = built(a, t);
    const Timeline timeline = run_timeline(p);
    std::map<std::string, std::int64_t> bytes;
    for (std::int32_t i : live_tensors(p, timeline.peak_event)) bytes[p.tensors[static_cast<std::size_t>(i)].name()] += p.tensors[static_cast<std::size_t>(i)].bytes;
    return std::pair(timeline.peak, bytes);
  };
  const auto [saved, kept] = at_peak(false);
  const auto [again, held] = at_peak(true);
  const std::int64_t returned = 256 * 512 * 2 / 4;
  for (const char* name : {"h.3.experts.out", "h.3.x"}) {  // and the gradient, named after the sum it comes from
    EXPECT_FALSE(kept.contains(name)) << name;
    ASSERT_TRUE(held.contains(name)) << name;
    EXPECT_EQ(held.at(name), returned) << name;
  }
  for (const char* name : {"h.2.experts.up", "h.2.experts.act", "h.2.experts.x"}) EXPECT_TRUE(kept.contains(name) && !held.contains(name)) << name;
  EXPECT_GT(again, saved);
  EXPECT_LE(again - saved, Bytes(2 * returned));
}

// Every way to save memory saves some, and never costs any; but for experts that run again: while their backward runs, Megatron's CheckpointFunction (core/tensor_parallel/random.py) holds what
// they returned and its gradient. Of two layers on a rank one saves, the other pays this, and small experts with one choice a token save less.
RC_GTEST_PROP(Megatron, WhatSavesMemorySaves, ()) {
  const std::int64_t heads = *rc::gen::element(4, 8), layers = 4;
  Architecture a = gpt(layers, heads * 64, heads);
  if (*rc::gen::arbitrary<bool>()) a.position = Position::rotary, a.rotary_dims = 64, a.position_rows = 0;
  if (*rc::gen::arbitrary<bool>()) a.gated_mlp = true, a.activation = Activation::silu, a.mlp_bias = a.out_bias = false;
  Training t = run(*rc::gen::inRange<std::int64_t>(1, 4), 64 * *rc::gen::inRange<std::int64_t>(4, 9), 4);
  t.megatron.bias_activation_fusion = true;
  t.megatron.tensor = *rc::gen::element<std::int64_t>(1, 2, 4), t.megatron.pipeline = *rc::gen::element<std::int64_t>(1, 2);
  t.megatron.attention = *rc::gen::element(MegatronAttention::automatic, MegatronAttention::flash, MegatronAttention::unfused);
  t.world_size = t.megatron.tensor * t.megatron.pipeline * 2;
  const bool mixture = *rc::gen::arbitrary<bool>();
  if (mixture) {
    a.mlp_bias = false;
    a.moe = experts_in(std::vector<bool>(layers, true), 8, *rc::gen::element<std::int64_t>(1, 2), 128);
    t.megatron.bias_activation_fusion = a.gated_mlp, t.megatron.sequence_parallel = true;
    MegatronExperts& e = t.megatron.experts;
    e.parallel = 2, e.tensor = *rc::gen::element<std::int64_t>(1, t.megatron.tensor), e.grouped = *rc::gen::arbitrary<bool>(), e.permute_fusion = *rc::gen::arbitrary<bool>();
    if (*rc::gen::arbitrary<bool>()) e.dispatcher = MegatronDispatcher::alltoall;
    if (*rc::gen::arbitrary<bool>()) e.router_dtype = Dtype::fp32;
    if (*rc::gen::arbitrary<bool>()) a.moe->shared_ffn = 256;
  }
  const Bytes peak = peak_of(built(a, t));
  const auto saves = [&](const char* what, auto change, Bytes but = Bytes(0)) {
    Training changed = t;
    change(changed);
    RC_LOG() << what << "\n";
    RC_ASSERT(peak_of(built(a, changed)) <= peak + but);
  };
  saves("full recomputation", [](Training& c) { c.megatron.recompute = MegatronRecompute::uniform; });
  saves("sequence parallelism", [](Training& c) { c.megatron.sequence_parallel = true; });
  if (mixture) {
    const Bytes returned(t.device_batch_size * t.seq_len * a.width * size_of(t.weights) / t.megatron.tensor);  // sequence parallel
    saves("experts again", [](Training& c) { c.megatron.experts.recompute_layer = true; }, t.megatron.pipeline > 1 ? returned + returned : Bytes(0));
    if (t.megatron.experts.dispatcher == MegatronDispatcher::alltoall) saves("more ranks for the experts", [](Training& c) { c.megatron.experts.parallel = 4, c.world_size = std::max(c.world_size, c.megatron.expert_model_parallel()); });
  }
  if (t.device_batch_size > 1) saves("a smaller micro-batch", [](Training& c) { --c.device_batch_size; });
  if (t.megatron.attention == MegatronAttention::unfused) saves("flash attention", [](Training& c) { c.megatron.attention = MegatronAttention::flash; });
}

}  // namespace
}  // namespace dryfit
