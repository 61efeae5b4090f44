// axolotl's YAML: what it means for the run, what is told as not used, and what is refused by name.
#include <gtest/gtest.h>

#include "workload/axolotl.hpp"
#include "workload/probe_document.hpp"

namespace dryfit {
namespace {

struct Outcome {
  Result<void> ok;
  TransformersFlags flags;
  KeysTold told;
};

Outcome apply(std::string_view yaml) {
  Outcome out;
  const auto document = document_from_yaml(yaml, "a.yml");
  EXPECT_TRUE(document) << document.error().message;
  if (document) out.ok = apply_axolotl(*document, "a.yml", out.flags, out.told);
  return out;
}

std::string fault(std::string_view yaml) {
  const Outcome out = apply(yaml);
  return out.ok ? "none" : out.ok.error().code + " " + out.ok.error().where;
}

constexpr std::string_view kWhole = "base_model: gpt2\nattn_implementation: flash_attention_2\n";

TEST(Axolotl, itsDefaults) {
  const Outcome o = apply(kWhole);
  ASSERT_TRUE(o.ok) << o.ok.error().message;
  EXPECT_EQ(o.flags.model, "gpt2");
  EXPECT_EQ(o.flags.max_seq_len, 512);
  EXPECT_EQ(o.flags.device_batch_size, 1);
  EXPECT_EQ(o.flags.grad_accum_steps, 1);
  EXPECT_EQ(o.flags.weights, Dtype::bf16);  // bf16: auto
  EXPECT_EQ(o.flags.mixed, MixedPrecision::bf16);
  EXPECT_EQ(o.flags.attention, AttentionCode::flash_attention_2);
  EXPECT_EQ(o.flags.ddp_find_unused, false);
  EXPECT_EQ(o.flags.reentrant, false);
  EXPECT_FALSE(o.flags.recompute || o.flags.optimizer || o.flags.lora || o.flags.quantized || o.flags.sharding);
  EXPECT_TRUE(o.told.unused.empty()) << o.told.unused[0];
  EXPECT_EQ(o.told.assumed, (std::vector<std::string>{"micro_batch_size 1 (axolotl's default)", "sequence_len 512 (axolotl's default)", "bf16 auto (axolotl's default)"}));
}

TEST(Axolotl, qloraIsNf4QuantizedTwice) {
  const Outcome o = apply("base_model: gpt2\nadapter: qlora\nload_in_4bit: true\nlora_r: 32\nlora_dropout: 0.05\nlora_target_linear: true\nsequence_len: 4096\nmicro_batch_size: 2\nbatch_size: 8\noptimizer: paged_adamw_32bit\ngradient_checkpointing: true\n"
                          "sample_packing: true\nval_set_size: 0.05\nlora_mlp_kernel: false\nwandb_project: x\nlearning_rate: 2e-4\nplugins: [axolotl.integrations.liger.LigerPlugin]\nliger_fused_linear_cross_entropy: true\nmax_grad_norm: 0.5\n");
  ASSERT_TRUE(o.ok) << o.ok.error().message;
  ASSERT_TRUE(o.flags.lora);
  EXPECT_EQ(o.flags.lora->rank, 32);
  EXPECT_EQ(o.flags.lora->dropout, 0.05);
  EXPECT_EQ(o.flags.lora->targets, std::vector<std::string>{"all-linear"});
  EXPECT_FALSE(o.flags.lora->upcast_rest);
  EXPECT_TRUE(o.flags.quantized && o.flags.double_quantized);
  EXPECT_EQ(o.flags.grad_accum_steps, 4);
  EXPECT_EQ(o.flags.recompute, Recompute::full);
  EXPECT_EQ(o.flags.optimizer, OptimizerKind::paged_adamw);
  EXPECT_EQ(o.flags.head, HeadLoss::liger);
  EXPECT_FALSE(o.flags.liger_parts || o.flags.packed.value());  // SDPA: rows stay rows
  EXPECT_FALSE(o.flags.adapter_kernels->any());
  EXPECT_TRUE(o.told.unused.empty()) << o.told.unused[0];
  EXPECT_TRUE(o.flags.evaluates);
  EXPECT_EQ(o.flags.eval_batch_size, 2);  // of training
  EXPECT_EQ(o.flags.eval_accumulation_steps, 4);
  const Outcome once = apply("base_model: gpt2\nadapter: qlora\nload_in_4bit: true\nlora_r: 8\nlora_target_modules: [c_attn]\nbnb_config_kwargs: {bnb_4bit_use_double_quant: false}\n");
  ASSERT_TRUE(once.ok) << once.ok.error().message;
  EXPECT_FALSE(once.flags.double_quantized);
  EXPECT_TRUE(once.told.unused.empty()) << once.told.unused[0];
}

// Each of Liger's parts by itself, where its plugin is named.
TEST(Axolotl, ligersParts) {
  const std::string parts = "liger_rms_norm: true\nliger_glu_activation: true\n", plugin = "plugins: [axolotl.integrations.liger.LigerPlugin]\n";
  const Outcome some = apply(std::string(kWhole) + plugin + parts), all = apply(std::string(kWhole) + plugin + parts + "liger_rope: true\nliger_fused_linear_cross_entropy: true\n"), none = apply(std::string(kWhole) + parts);
  ASSERT_TRUE(some.flags.liger_parts && all.flags.liger_parts);
  EXPECT_TRUE(some.flags.liger_parts->norms && some.flags.liger_parts->gated && some.flags.liger_parts->in_classes);
  EXPECT_FALSE(some.flags.liger_parts->rotary || some.flags.head);
  EXPECT_TRUE(all.flags.liger_parts->rotary);
  EXPECT_EQ(all.flags.head, HeadLoss::liger);
  EXPECT_TRUE(some.told.unused.empty() && all.told.unused.empty());
  EXPECT_FALSE(none.flags.liger_parts);
  EXPECT_EQ(none.told.unused, (std::vector<std::string>{"liger_rms_norm", "liger_glu_activation"}));
}

TEST(Axolotl, cutCrossEntropyIsItsPlugins) {
  const std::string plugin = std::string(kWhole) + "plugins: [axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin, axolotl.integrations.liger.LigerPlugin]\n";
  EXPECT_EQ(apply(plugin).flags.head, HeadLoss::cut);
  EXPECT_EQ(apply(plugin + "cut_cross_entropy: true\n").flags.head, HeadLoss::cut);
  EXPECT_FALSE(apply(plugin + "cut_cross_entropy: false\n").flags.head);
  EXPECT_FALSE(apply(std::string(kWhole) + "cut_cross_entropy: true\n").flags.head);
  EXPECT_EQ(apply(std::string(kWhole) + "plugins: [axolotl.integrations.spectrum.SpectrumPlugin]\n").told.unused, std::vector<std::string>{"plugins"});
  EXPECT_EQ(fault(plugin + "liger_fused_linear_cross_entropy: true\n"), "bad_config a.yml: cut_cross_entropy");
}

// Texts of a micro-batch are one row where FlashAttention takes them; multipack_real_batches decides otherwise.
TEST(Axolotl, packing) {
  const auto packed = [](const std::string& more) { return apply(std::string(kWhole) + "sample_packing: true\n" + more).flags.packed; };
  EXPECT_EQ(packed(""), true);  // kWhole has FlashAttention
  EXPECT_EQ(packed("multipack_real_batches: true\n"), false);
  EXPECT_EQ(apply("base_model: gpt2\nsample_packing: true\nattn_implementation: sdpa\nbf16: false\n").flags.packed, false);
  EXPECT_EQ(apply(std::string(kWhole) + "sample_packing: false\n").flags.packed, false);
}

// check_auto_enable_lora_kernels
TEST(Axolotl, adapterKernelsAreOnUnlessTheFileNamesOne) {
  const std::string lora = std::string(kWhole) + "adapter: lora\nlora_r: 8\nlora_target_linear: true\n";
  const auto kernels = [&](const std::string& more) { return *apply(lora + more).flags.adapter_kernels; };
  const AdapterKernels all = kernels("");
  EXPECT_TRUE(all.mlp && all.qkv && all.o);
  const AdapterKernels one = kernels("lora_o_kernel: true\n");
  EXPECT_TRUE(one.o && !one.mlp && !one.qkv);
  EXPECT_FALSE(kernels("lora_mlp_kernel: false\n").any());
  EXPECT_FALSE(kernels("trust_remote_code: true\n").any());
  EXPECT_FALSE(kernels("fsdp_config: {fsdp_version: 1}\n").any());
  EXPECT_TRUE(kernels("fsdp_version: 2\nfsdp_config: {fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP}\n").any());
  const Outcome dora = apply(lora + "peft_use_dora: true\n");
  EXPECT_FALSE(dora.flags.adapter_kernels);
  EXPECT_EQ(dora.told.unused, std::vector<std::string>{"lora_*_kernel, which are on unless set to false"});
}

TEST(Axolotl, precisionAsItResolvesIt) {
  struct Case { const char* yaml; Dtype weights; std::optional<MixedPrecision> mixed; };
  for (const Case& c : {Case{"bf16: true\n", Dtype::bf16, MixedPrecision::bf16}, Case{"bf16: full\n", Dtype::bf16, std::nullopt}, Case{"bf16: false\nfp16: true\n", Dtype::fp16, MixedPrecision::fp16}, Case{"fp16: true\n", Dtype::fp16, MixedPrecision::fp16},
                        Case{"bf16:\n", Dtype::fp32, std::nullopt}, Case{"bf16: false\n", Dtype::fp32, std::nullopt}, Case{"bf16: false\nfloat16: true\n", Dtype::fp16, std::nullopt}, Case{"bf16: false\nbfloat16: true\n", Dtype::bf16, MixedPrecision::bf16}}) {
    const Outcome o = apply(std::string(kWhole) + c.yaml);
    ASSERT_TRUE(o.ok) << c.yaml;
    EXPECT_EQ(o.flags.weights, c.weights) << c.yaml;
    EXPECT_EQ(o.flags.mixed, c.mixed) << c.yaml;
  }
}

TEST(Axolotl, severalGpus) {
  const Outcome fsdp = apply(std::string(kWhole) + "fsdp: [full_shard, auto_wrap]\nfsdp_config:\n  fsdp_limit_all_gathers: true\n  fsdp_backward_prefetch: BACKWARD_PRE\n  fsdp_transformer_layer_cls_to_wrap: GPT2Block\n");
  ASSERT_TRUE(fsdp.ok) << fsdp.ok.error().message;
  EXPECT_EQ(fsdp.flags.sharding, Sharding::fsdp1);
  EXPECT_EQ(fsdp.flags.wrap_blocks, true);
  EXPECT_EQ(fsdp.flags.flat->backward_prefetch, FlatShardConfig::Prefetch::pre);
  EXPECT_TRUE(fsdp.told.unused.empty()) << fsdp.told.unused[0];
  const Outcome second = apply("base_model: gpt2\nfsdp_version: 2\nfsdp_config: {auto_wrap_policy: TRANSFORMER_BASED_WRAP, reshard_after_forward: true, offload_params: false}\n");
  ASSERT_TRUE(second.ok) << second.ok.error().message;
  EXPECT_EQ(second.flags.sharding, Sharding::fsdp2);
  EXPECT_EQ(second.flags.wrap_blocks, true);
  EXPECT_EQ(apply("base_model: gpt2\ndeepspeed: ds/zero2.json\n").flags.deepspeed_file, "ds/zero2.json");
  EXPECT_EQ(apply("base_model: gpt2\ndeepspeed: {zero_optimization: {stage: 2}}\n").flags.deepspeed_file, "{\"zero_optimization\": {\"stage\": 2}}");
}

TEST(Axolotl, refusesByName) {
  const auto with = [](std::string_view line) { return fault(std::string(kWhole) + std::string(line) + "\n"); };
  for (const char* line : {"rl: dpo", "reward_model: true", "gptq: true", "qat: {weight_dtype: int4}", "relora: true", "fp8: true", "activation_offloading: true", "layer_offloading: true", "selective_checkpointing: true", "tensor_parallel_size: 2", "context_parallel_size: 2",
                           "sequence_parallel_degree: 4", "expert_parallel_size: 2", "dp_replicate_size: 2", "unfrozen_parameters: [lm_head]", "peft_layers_to_transform: [1]"}) {
    EXPECT_EQ(with(line), "unsupported_training a.yml: " + std::string(line).substr(0, std::string_view(line).find(':'))) << line;
  }
  for (const char* line : {"rl: ''", "rl:", "qat: {}", "relora: false", "tensor_parallel_size: 1", "unfrozen_parameters: []"}) EXPECT_EQ(with(line), "none") << line;
  EXPECT_EQ(fault("base_model: gpt2\n"), "unsupported_training a.yml: attn_implementation");  // embeddings and norms would be fp32
  EXPECT_EQ(fault("base_model: gpt2\nbf16: false\n"), "none");
  EXPECT_EQ(fault("base_model: gpt2\nadapter: llama-adapter\n"), "unsupported_training a.yml: adapter");
  EXPECT_EQ(fault("base_model: gpt2\nadapter: lora\nload_in_8bit: true\n"), "unsupported_training a.yml: load_in_8bit");
  EXPECT_EQ(fault("base_model: gpt2\nadapter: lora\nload_in_4bit: true\n"), "bad_config a.yml: adapter");
  EXPECT_EQ(fault("base_model: gpt2\nadapter: qlora\n"), "bad_config a.yml: adapter");
  EXPECT_EQ(fault("base_model: gpt2\nload_in_4bit: true\n"), "bad_config a.yml: load_in_4bit");
  EXPECT_EQ(fault("base_model: gpt2\nadapter: lora\nlora_r: 8\n"), "bad_config a.yml: lora_target_modules");
  EXPECT_EQ(fault("base_model: gpt2\nadapter: lora\nlora_target_linear: true\n"), "bad_config a.yml: lora_r");
  EXPECT_EQ(fault("sequence_len: 8\n"), "bad_config a.yml: base_model");
  EXPECT_EQ(fault("- 1\n"), "bad_config a.yml");
  EXPECT_EQ(with("micro_batch_size: 0"), "bad_config a.yml: micro_batch_size");
  EXPECT_EQ(with("bf16: maybe"), "bad_config a.yml: bf16");
  EXPECT_EQ(with("optimizer: sophia"), "bad_value a.yml: optimizer");
  EXPECT_EQ(with("optimizer: muon"), "unsupported_training a.yml: optimizer");  // torch's is laid out, axolotl has its own
  EXPECT_EQ(with("gradient_checkpointing: offload"), "bad_config a.yml: gradient_checkpointing");
  EXPECT_EQ(fault("base_model: gpt2\nflex_attention: true\n"), "bad_value a.yml: flex_attention");
}

}  // namespace
}  // namespace dryfit
