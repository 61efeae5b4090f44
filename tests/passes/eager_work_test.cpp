// What the eager engine tells of a step's kernels, against FLOPs and bytes worked out by hand: products, attention, recomputation, adapters,
// accumulation, collectives; and that no family's kernels are forgotten.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string_view>

#include "passes/program.hpp"
#include "workload/probe_presets.hpp"
#include "workload/transformers.hpp"

namespace dryfit {
namespace {

constexpr Target kH100{9, 0, 989};

TransformersFlags flags(std::int64_t batch = 2, std::int64_t length = 512) {
  TransformersFlags f;
  f.gpus = 1, f.device_batch_size = batch, f.max_seq_len = length, f.mixed = MixedPrecision::bf16;
  return f;
}
Workload make(const char* model, const TransformersFlags& f) {
  auto w = make_transformers_workload(find_preset(model)->preset->model, f);
  EXPECT_TRUE(w) << (w ? "" : w.error().message);
  return *w;
}
StepWork told(const Workload& w) {
  const auto p = program_for(w, kH100, w.run.grad_accum_steps > 1);
  EXPECT_TRUE(p) << (p ? "" : p.error().message);
  return p->work;
}

double flops(const std::vector<Work>& list, WorkKind kind) {
  return std::accumulate(list.begin(), list.end(), 0.0, [&](double sum, const Work& w) { return sum + (w.kind == kind ? w.flops() : 0); });
}
double sent(const std::vector<Work>& list) {
  return std::accumulate(list.begin(), list.end(), 0.0, [](double sum, const Work& w) { return sum + (w.kind == WorkKind::communication ? w.bytes() : 0); });
}
// Of Llama's kind: what a token meets in products, by the sizes of its matrices.
double matrices(const Architecture& a) {
  const double D = static_cast<double>(a.width), q = static_cast<double>(a.heads * a.head_dim), kv = static_cast<double>(a.kv_heads * a.head_dim);
  return static_cast<double>(a.layers) * (2 * D * q + 2 * D * kv + 3 * D * static_cast<double>(a.ffn)) + D * static_cast<double>(a.vocab);
}
// q k^T and its product with v, causal: a query sees its own key and those before it.
double scores(const Architecture& a, std::int64_t B, std::int64_t T) { return static_cast<double>(B * a.layers * a.heads * a.head_dim) * static_cast<double>(T) * static_cast<double>(T + 1) / 2; }

TEST(EagerWork, ProductsAreSixFlopsAParameterAndToken) {
  const Workload w = make("llama-3.2-1b", flags());
  const StepWork work = told(w);
  const Architecture& a = w.transformers->architecture;
  ASSERT_EQ(work.laid_out.size(), 1U);
  // rotary tables: 32 frequencies times 512 positions, in fp32
  EXPECT_NEAR(flops(work.laid_out[0], WorkKind::matmul) / (6 * matrices(a) * 2 * 512), 1, 1e-5);
  EXPECT_NEAR(flops(work.laid_out[0], WorkKind::attention) / ((4 + 10) * scores(a, 2, 512)), 1, 1e-12);
}

TEST(EagerWork, EagerAttentionComputesEveryScoreInProducts) {
  TransformersFlags f = flags();
  f.attention = AttentionCode::eager;
  const Workload w = make("llama-3.2-1b", f);
  const StepWork work = told(w);
  const Architecture& a = w.transformers->architecture;
  const double all = static_cast<double>(2 * a.layers * a.heads * a.head_dim) * 512 * 512;
  EXPECT_EQ(flops(work.laid_out[0], WorkKind::attention), 0);
  EXPECT_NEAR(flops(work.laid_out[0], WorkKind::matmul) / (6 * matrices(a) * 2 * 512 + 12 * all), 1, 1e-5);
}

TEST(EagerWork, RecomputationRunsBlocksForwardTwice) {
  TransformersFlags f = flags();
  f.recompute = Recompute::full;
  const Workload w = make("llama-3.2-1b", f);
  const StepWork work = told(w);
  const Architecture& a = w.transformers->architecture;
  const double head = static_cast<double>(a.width * a.vocab), down = static_cast<double>(a.layers * a.width * a.ffn);
  // 8 FLOP a parameter of the blocks; but the last product of a block is not run again: all that it saves is there before it
  EXPECT_NEAR(flops(work.laid_out[0], WorkKind::matmul) / ((8 * (matrices(a) - head) + 6 * head - 2 * down) * 2 * 512), 1, 1e-5);
  EXPECT_NEAR(flops(work.laid_out[0], WorkKind::attention) / ((8 + 10) * scores(a, 2, 512)), 1, 1e-12);
}

TEST(EagerWork, FrozenWeightsHaveNoGradients) {
  TransformersFlags f = flags();
  f.lora.emplace().rank = 8;
  const Workload w = make("llama-3.2-1b", f);
  const Architecture& a = w.transformers->architecture;
  double adapters = 0;
  for (const Parameter& p : w.model.parameters) adapters += p.name.find("lora") != std::string::npos ? static_cast<double>(p.count()) : 0;
  const double trained = flops(told(w).laid_out[0], WorkKind::matmul) / (2 * 512);
  // the first block's q, k, v get no gradient of their input: nothing below them trains; adapters are a thousandth
  EXPECT_GT(trained, 4 * matrices(a) * 0.985);
  EXPECT_LT(trained, 4 * matrices(a) * 1.02);
}

TEST(EagerWork, FourBitWeightsAreDequantisedForEachProduct) {
  TransformersFlags f = flags();
  f.lora.emplace().rank = 8;
  f.quantized = true;
  const Workload w = make("llama-3.2-1b", f);
  const Architecture& a = w.transformers->architecture;
  const auto list = told(w).laid_out[0];
  EXPECT_NEAR(flops(list, WorkKind::matmul) / (4 * matrices(a) * 2 * 512), 1, 0.02);
  // a kernel for each of 7 matrices a block, forward and (but for the first block's q, k, v) backward: 4 bits and a scale for 64 read, 16 bits written
  const double blocks = matrices(a) - static_cast<double>(a.width * a.vocab);
  double written = 0;
  for (const Work& one : list) written += one.kind == WorkKind::elementwise && !one.backward && one.fixed_bytes > 1e6 && one.batched_bytes == 0 ? one.fixed_bytes : 0;
  EXPECT_GE(written, blocks * 2.5);
}

TEST(EagerWork, LaterMicroStepsAddTheirGradients) {
  TransformersFlags f = flags();
  f.grad_accum_steps = 4;
  const StepWork work = told(make("llama-3.2-1b", f));
  ASSERT_EQ(work.laid_out.size(), 2U);
  const auto bytes = [](const std::vector<Work>& list) { return std::accumulate(list.begin(), list.end(), 0.0, [](double s, const Work& w) { return s + (w.kind == WorkKind::elementwise ? w.bytes() : 0); }); };
  // two read, one written, of 16-bit gradients: 1.236 B of them
  EXPECT_NEAR((bytes(work.laid_out[1]) - bytes(work.laid_out[0])) / (6.0 * 1235814400), 1, 0.01);
  EXPECT_EQ(flops(work.laid_out[0], WorkKind::matmul), flops(work.laid_out[1], WorkKind::matmul));
}

TEST(EagerWork, UpdateAndClippingByHand) {
  TransformersFlags f = flags();
  f.optimizer = OptimizerKind::adamw_fused;
  const StepWork work = told(make("llama-3.2-1b", f));
  double update = 0, clip = 0;
  for (const Work& w : work.before_step) (std::string_view(w.role) == "optimizer.update" ? update : clip) += w.bytes();
  EXPECT_NEAR(update / (14.0 * 1235814400), 1, 1e-6);
  EXPECT_NEAR(clip / (6.0 * 1235814400), 1, 1e-4);
}

TEST(EagerWork, CollectivesSendWhatEachStrategyDoes) {
  TransformersFlags f = flags();
  f.gpus = 8;
  const double parameters = 1235814400;
  const auto of = [&](Sharding s, std::int64_t steps = 1) {
    f.sharding = s;
    f.grad_accum_steps = steps;
    return told(make("llama-3.2-1b", f));
  };
  EXPECT_NEAR(sent(of(Sharding::ddp).laid_out[0]) / (2 * 2 * parameters), 1, 0.001);                // 16-bit gradients, summed everywhere
  EXPECT_EQ(sent(of(Sharding::ddp, 2).laid_out[0]), 0);                                            // under no_sync
  EXPECT_NEAR(sent(of(Sharding::fsdp2).laid_out[0]) / (3 * 2 * parameters), 1, 0.15);               // 16-bit weights twice, gradients once; the root once
  EXPECT_NEAR(sent(of(Sharding::fsdp1).laid_out[0]) / (3 * 2 * parameters), 1, 0.15);
  EXPECT_NEAR(sent(of(Sharding::zero2).laid_out[0]) / (2 * parameters), 1, 0.01);
  EXPECT_NEAR(sent(of(Sharding::zero2).before_step) / (2 * parameters), 1, 0.01);
  EXPECT_NEAR(sent(of(Sharding::zero3).laid_out[0]) / (3 * 2 * parameters), 1, 0.35);
}

TEST(EagerWork, ScalesWithTheBatchAsIfBuiltForIt) {
  const Workload small = make("llama-3.2-1b", flags(2)), large = make("llama-3.2-1b", flags(6));
  const StepWork scaled = at_batch(told(small), 6), built = told(large);
  const auto& a = scaled.laid_out[0];
  const auto& b = built.laid_out[0];
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].flops(), b[i].flops()) << i << " " << a[i].role;
    if (std::string_view(a[i].role) != "wte") EXPECT_NEAR(a[i].bytes(), b[i].bytes(), b[i].bytes() * 0.005) << i << " " << a[i].role;
  }
}

// A kernel writes what is made: in each family's step at least as many kernels are told as tensors of activations and gradients are made.
TEST(EagerWork, EveryFamilyTellsItsKernels) {
  for (const char* model : {"gpt2", "pythia-160m", "llama-3.2-1b", "qwen3-0.6b", "gemma-3-1b", "phi-1.5", "olmo-2-1b", "bert-base-uncased"}) {
    if (!find_preset(model)) continue;
    TransformersFlags f = flags(1, 256);
    const Workload w = make(model, f);
    const auto p = program_for(w, kH100, false);
    ASSERT_TRUE(p);
    std::int64_t made = 0, told_here = 0, products = 0;
    std::size_t last = 0;
    for (std::size_t i = 0; i < p->segments.size(); ++i) last = std::string_view(p->segments[i].part) == "forward" ? i : last;
    const auto end = static_cast<std::size_t>(p->segments[last + 2].first_event);
    for (auto e = static_cast<std::size_t>(p->segments[last].first_event); e < end; ++e) {
      const TensorInfo& t = p->tensors[static_cast<std::size_t>(p->events[e].tensor)];
      made += p->events[e].kind == Event::Kind::alloc && t.category == Category::activations && t.bytes >= 256 * 1024 ? 1 : 0;
    }
    for (const Work& one : p->work.laid_out[0]) told_here += one.launches, products += one.k > 0 ? 1 : 0;
    EXPECT_GE(told_here, made) << model;
    EXPECT_GE(products, 3 * 4 * w.transformers->architecture.layers) << model;
    for (const Work& one : p->work.laid_out[0]) EXPECT_TRUE(one.k > 0 || one.length > 0 || one.bytes() > 0) << model << " " << one.role;
  }
}

}  // namespace
}  // namespace dryfit
