// LitGPT's model on the eager engine against PyTorch running LitGPT's own code (commit 6178c7cc of 2023-10-24, logits taken to fp32 as Lightning's
// "bf16-true" does) under torch 2.9.1's FakeTensorMode with the tracker of tools/oracle: one forward and backward pass of two layers.
#include <gtest/gtest.h>

#include <cstdio>
#include <set>

#include "passes/training_program.hpp"
#include "workload/hf_config.hpp"
#include "workload/probe_document.hpp"

namespace dryfit {
namespace {

struct Recorded { const char* name; const char* config; std::int64_t batch; double load, forward, peak, backward; };  // MiB: ends of parts, peak of both

constexpr const char* kLlama = R"({"model_type":"llama","hidden_size":4096,"intermediate_size":11008,"num_hidden_layers":2,"num_attention_heads":32,"vocab_size":32000,"max_position_embeddings":4096})";
constexpr const char* kPhi = R"({"model_type":"phi","hidden_size":2048,"intermediate_size":8192,"num_hidden_layers":2,"num_attention_heads":32,"vocab_size":51200,"max_position_embeddings":2048,"partial_rotary_factor":0.5})";
constexpr const char* kStable = R"({"model_type":"gpt_neox","hidden_size":4096,"intermediate_size":16384,"num_hidden_layers":2,"num_attention_heads":32,"vocab_size":50688,"max_position_embeddings":4096,"rotary_pct":0.25,"use_parallel_residual":true})";

constexpr Recorded kRecorded[] = {
    {"llama-2-7b B1", kLlama, 1, 1272.83203125, 1446.0859375, 1477.33740234375, 1309.95849609375},
    {"llama-2-7b B2", kLlama, 2, 1272.83203125, 1619.2138671875, 1681.71337890625, 1346.58447265625},
    {"phi-1.5 B2", kPhi, 2, 592.5146484375, 884.1953125, 984.19482421875, 709.96240234375},
    {"stablelm-base-alpha-3b B2", kStable, 2, 1560.7919921875, 1907.6220703125, 2006.62158203125, 1677.31787109375},
};

Training lora_training(std::int64_t batch) {
  Training t;
  t.framework = Framework::litgpt;
  t.device_batch_size = batch;
  t.seq_len = 300;
  t.weights = Dtype::bf16;
  t.optimizer = OptimizerKind::adamw;
  t.holds_outputs = true;
  t.max_grad_norm = 0;
  t.litgpt = {LitgptScript::lora, 20231024};
  t.lora.emplace();
  t.lora->dropout = 0.05;
  return t;
}

Architecture architecture(const char* text) {
  const auto document = document_from_json(text, "config");
  EXPECT_TRUE(document.has_value());
  const auto model = architecture_from(*document, "config");
  EXPECT_TRUE(model.has_value());
  return model->architecture;
}

double mib(std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

TEST(Litgpt, OneStepOfTwoLayersIsAsRecorded) {
  static const std::set<std::string> hidden = {"cublas_workspace", "cublaslt_workspace", "attn.softmax_d", "attn.dq_accum"};  // no recording sees them
  for (const Recorded& r : kRecorded) {
    const auto p = build_program(architecture(r.config), lora_training(r.batch), {8, 0, 0}, {.add_in_place = false});
    ASSERT_TRUE(p.has_value()) << p.error().message;
    double load = 0, forward = 0, peak = 0, backward = 0;
    std::int64_t live = 0;
    std::size_t segment = 0;
    for (std::size_t i = 0; i < p->events.size(); ++i) {
      while (segment + 1 < p->segments.size() && p->segments[segment + 1].first_event <= static_cast<std::int32_t>(i)) ++segment;
      const Segment& s = p->segments[segment];
      if (std::string(s.part) == "optimizer") break;
      const TensorInfo& t = p->tensors[static_cast<std::size_t>(p->events[i].tensor)];
      if (hidden.contains(t.role)) continue;
      live += (p->events[i].kind == Event::Kind::alloc ? 1 : -1) * (t.bytes + 511) / 512 * 512;
      peak = std::max(peak, mib(live));
      (std::string(s.phase) == "load" ? load : std::string(s.part) == "forward" ? forward : backward) = mib(live);
    }
    std::printf("%s: load %+.3f forward %+.3f peak %+.3f backward %+.3f MiB\n", r.name, load - r.load, forward - r.forward, peak - r.peak, backward - r.backward);
    EXPECT_NEAR(load, r.load, 0.01) << r.name;
    EXPECT_NEAR(forward, r.forward, 0.2) << r.name;
    EXPECT_NEAR(peak, r.peak, 0.2) << r.name;
    EXPECT_NEAR(backward, r.backward, 0.2) << r.name;
  }
}

// Bytes of one role that are alive when the first optimizer step begins.
std::int64_t left_after_backward(const Program& p, std::string_view role) {
  std::size_t end = p.events.size();
  for (const Segment& s : p.segments) {
    if (std::string_view(s.part) == "optimizer") {
      end = static_cast<std::size_t>(s.first_event);
      break;
    }
  }
  std::int64_t live = 0;
  for (std::size_t i = 0; i < end; ++i) {
    const TensorInfo& t = p.tensors[static_cast<std::size_t>(p.events[i].tensor)];
    if (role == t.role) live += (p.events[i].kind == Event::Kind::alloc ? 1 : -1) * t.bytes;
  }
  return live;
}

// bitsandbytes 0.42's MatMul4Bit names its input; the graph lives as long as the loop's `logits`. So does what the input was, and nothing else.
TEST(Litgpt, FourBitProductsKeepTheirInputsPastBackward) {
  Training t = lora_training(1);
  EXPECT_EQ(left_after_backward(*build_program(architecture(kLlama), t, {8, 0, 0}), "mlp.product"), 0);
  t.quantized = true;
  t.optimizer = OptimizerKind::paged_adamw;
  const auto p = build_program(architecture(kLlama), t, {8, 0, 0});
  ASSERT_TRUE(p.has_value()) << p.error().message;
  EXPECT_EQ(left_after_backward(*p, "mlp.product"), 2 * 300 * 11008 * 2);  // two layers, bf16
  EXPECT_EQ(left_after_backward(*p, "mlp.act"), 0);
}

// adapter.py: prompts from the third layer on, whose keys and values are there before training; only their factors get gradients.
TEST(Litgpt, PromptsBeginAtTheThirdLayer) {
  constexpr const char* kFour = R"({"model_type":"llama","hidden_size":256,"intermediate_size":512,"num_hidden_layers":4,"num_attention_heads":4,"vocab_size":1024,"max_position_embeddings":512})";
  Training t = lora_training(1);
  t.lora.reset();
  t.litgpt = {LitgptScript::adapter, 20240118};
  const Architecture a = architecture(kFour);
  const auto p = build_program(a, t, {8, 0, 0});
  ASSERT_TRUE(p.has_value()) << p.error().message;
  int prompts = 0, gradients = 0;
  for (const TensorInfo& i : p->tensors) {
    if (std::string_view(i.role) == "adapter.kv") {
      ++prompts;
      EXPECT_GE(i.layer, 2);
    }
    gradients += i.category == Category::gradients && std::string_view(i.role) == "adapter.prompt" ? 1 : 0;
  }
  EXPECT_EQ(prompts, 2);
  EXPECT_EQ(gradients, 0);
  t.litgpt.script = LitgptScript::adapter_v2;  // every product gets a scale and a shift
  EXPECT_GT(static_bytes(a, t).gradients, Bytes(0));
  t.litgpt.script = LitgptScript::full;
  t.sharding = Sharding::fsdp2;
  t.world_size = 2;
  EXPECT_FALSE(build_program(a, t, {8, 0, 0}).has_value());
}

// Frozen weights lie in one flat parameter with the adapters, so they get gradients too; FSDP makes the rotary tables 16 bits wide.
TEST(Litgpt, FsdpGivesFrozenWeightsGradients) {
  Training t = lora_training(1);
  t.sharding = Sharding::fsdp1;
  t.world_size = 2;
  t.recompute = Recompute::full;
  const auto p = build_program(architecture(kLlama), t, {8, 0, 0});
  ASSERT_TRUE(p.has_value()) << p.error().message;
  std::int64_t blocks = 0, tables = 0;
  for (const TensorInfo& i : p->tensors) {
    if (i.category == Category::gradients && i.layer >= 0 && std::string_view(i.role) == "attn.qkv") ++blocks;
    if (std::string_view(i.role) == "rotary.cos") tables += i.dtype == Dtype::bf16 ? 1 : 0;
  }
  EXPECT_GT(blocks, 0);
  EXPECT_EQ(tables, 1);
  const StaticBytes s = static_bytes(architecture(kLlama), t);
  EXPECT_LT(s.gradients, s.weights);  // embedding, last norm and head are frozen, and a unit of their own
  EXPECT_LT(s.optimizer, s.gradients);
}

TEST(Litgpt, WhatIsNotWrittenDownIsRefused) {
  const Architecture bert = architecture(R"({"model_type":"bert"})");
  const auto refused = build_program(bert, lora_training(1), {8, 0, 0});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, "unsupported_training");
  Training recomputed = lora_training(1);
  recomputed.recompute = Recompute::full;
  EXPECT_FALSE(build_program(architecture(kLlama), recomputed, {8, 0, 0}).has_value());
}

}  // namespace
}  // namespace dryfit
