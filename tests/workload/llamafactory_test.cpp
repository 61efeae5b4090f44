// LLaMA-Factory's arguments: what they mean for the run, what is told as not used, and what is refused by name.
#include <gtest/gtest.h>

#include "workload/llamafactory.hpp"
#include "workload/probe_document.hpp"

namespace dryfit {
namespace {

struct FactoryOutcome {
  Result<void> ok;
  TransformersFlags flags;
  KeysTold told;
};

FactoryOutcome factory(std::string_view yaml) {
  FactoryOutcome out;
  const auto document = document_from_yaml(yaml, "f.yaml");
  EXPECT_TRUE(document) << document.error().message;
  if (document) out.ok = apply_llamafactory(*document, "f.yaml", out.flags, out.told);
  return out;
}

std::string factory_fault(std::string_view yaml) {
  const FactoryOutcome out = factory("model_name_or_path: gpt2\n" + std::string(yaml));
  return out.ok ? "none" : out.ok.error().code + " " + out.ok.error().where;
}

// examples/train_lora/llama3_lora_sft.yaml
TEST(Llamafactory, itsExampleOfLora) {
  const FactoryOutcome o = factory("model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct\ntrust_remote_code: true\nstage: sft\ndo_train: true\nfinetuning_type: lora\nlora_rank: 8\nlora_target: all\ndataset: identity,alpaca_en_demo\ntemplate: llama3\ncutoff_len: 2048\nmax_samples: 1000\n"
                                   "preprocessing_num_workers: 16\ndataloader_num_workers: 4\noutput_dir: saves\nlogging_steps: 10\nsave_steps: 500\nplot_loss: true\noverwrite_output_dir: true\nsave_only_model: false\nreport_to: none\nper_device_train_batch_size: 1\ngradient_accumulation_steps: 8\n"
                                   "learning_rate: 1.0e-4\nnum_train_epochs: 3.0\nlr_scheduler_type: cosine\nwarmup_ratio: 0.1\nbf16: true\nddp_timeout: 180000000\nresume_from_checkpoint: null\n");
  ASSERT_TRUE(o.ok) << o.ok.error().message;
  EXPECT_TRUE(o.told.unused.empty()) << o.told.unused[0];
  EXPECT_EQ(o.told.assumed, std::vector<std::string>{"checkpoints (LLaMA-Factory's default)"});
  EXPECT_EQ(o.flags.device_batch_size, 1);
  EXPECT_EQ(o.flags.grad_accum_steps, 8);
  EXPECT_EQ(o.flags.max_seq_len, 2048);
  EXPECT_EQ(o.flags.weights, Dtype::bf16);
  EXPECT_EQ(o.flags.mixed, MixedPrecision::bf16);
  EXPECT_EQ(o.flags.recompute, Recompute::full);
  EXPECT_EQ(o.flags.reentrant, true);
  EXPECT_EQ(o.flags.ddp_find_unused, false);
  ASSERT_TRUE(o.flags.lora);
  EXPECT_EQ(o.flags.lora->rank, 8);
  EXPECT_EQ(o.flags.lora->targets, std::vector<std::string>{"all-linear"});
  EXPECT_FALSE(o.flags.quantized || o.flags.attention || o.flags.optimizer);
}

TEST(Llamafactory, fourBitsAreQuantizedTwiceAndNotPrepared) {
  const FactoryOutcome o = factory("model_name_or_path: gpt2\nquantization_bit: 4\nquantization_method: bnb\nlora_target: q_proj, v_proj\nadditional_target: embed_tokens,lm_head\nlora_dropout: 0.1\nbf16: true\nflash_attn: fa2\noptim: paged_adamw_8bit\nuse_dora: true\nenable_liger_kernel: true\n");
  ASSERT_TRUE(o.ok) << o.ok.error().message;
  EXPECT_TRUE(o.flags.quantized && o.flags.double_quantized);
  EXPECT_EQ(o.flags.quant_storage, Dtype::bf16);
  EXPECT_FALSE(o.flags.lora->upcast_rest);
  EXPECT_TRUE(o.flags.lora->dora);
  EXPECT_EQ(o.flags.lora->targets, (std::vector<std::string>{"q_proj", "v_proj"}));
  EXPECT_EQ(o.flags.lora->saved_modules, (std::vector<std::string>{"embed_tokens", "lm_head"}));
  EXPECT_EQ(o.flags.attention, AttentionCode::flash_attention_2);
  EXPECT_EQ(o.flags.optimizer, OptimizerKind::paged_adamw_8bit);
  EXPECT_EQ(o.flags.head, HeadLoss::liger);
  EXPECT_TRUE(o.flags.liger_parts && o.flags.liger_parts->in_classes);
  EXPECT_FALSE(factory("model_name_or_path: gpt2\nquantization_bit: 4\ndouble_quantization: false\n").flags.double_quantized);
}

// What trains is in fp32, but in pure bf16 and under DeepSpeed.
TEST(Llamafactory, wholeModelsTrainInFp32) {
  struct Case { const char* yaml; std::optional<Dtype> weights; std::optional<MixedPrecision> mixed; };
  for (const Case& c : {Case{"bf16: true\n", Dtype::fp32, MixedPrecision::bf16}, Case{"pure_bf16: true\n", Dtype::bf16, std::nullopt}, Case{"bf16: true\ndeepspeed: z3.json\n", Dtype::bf16, MixedPrecision::bf16}, Case{"fp16: true\n", Dtype::fp32, MixedPrecision::fp16}}) {
    const FactoryOutcome o = factory("model_name_or_path: gpt2\nfinetuning_type: full\nlora_rank: 8\n" + std::string(c.yaml));
    ASSERT_TRUE(o.ok) << o.ok.error().message;
    EXPECT_EQ(o.flags.weights, c.weights) << c.yaml;
    EXPECT_EQ(o.flags.mixed, c.mixed) << c.yaml;
    EXPECT_FALSE(o.flags.lora);
    EXPECT_EQ(o.flags.deepspeed, std::string_view(c.yaml).find("deepspeed") != std::string_view::npos);
  }
  EXPECT_EQ(factory("model_name_or_path: gpt2\ndisable_gradient_checkpointing: true\n").flags.recompute, Recompute::none);
  EXPECT_EQ(factory("model_name_or_path: gpt2\nuse_reentrant_gc: false\n").flags.reentrant, false);
}

TEST(Llamafactory, preferencesAndRewardsAreRead) {
  using P = Preference;
  struct Case { const char* yaml; P::Trainer trainer; P::Loss loss; std::optional<Dtype> reference; };
  for (const Case& c : {Case{"stage: dpo\nbf16: true\n", P::Trainer::factory_dpo, P::Loss::compared, Dtype::bf16}, Case{"stage: dpo\npref_loss: orpo\nfp16: true\n", P::Trainer::factory_dpo, P::Loss::orpo, Dtype::fp16},
                        Case{"stage: dpo\npref_loss: simpo\npure_bf16: true\n", P::Trainer::factory_dpo, P::Loss::simpo, Dtype::bf16}, Case{"stage: dpo\npref_loss: ipo\nfinetuning_type: full\n", P::Trainer::factory_dpo, P::Loss::compared, std::nullopt},
                        Case{"stage: rm\nbf16: true\n", P::Trainer::factory_rm, P::Loss::compared, Dtype::bf16}}) {
    const FactoryOutcome o = factory("model_name_or_path: gpt2\n" + std::string(c.yaml));
    ASSERT_TRUE(o.ok) << c.yaml << o.ok.error().message;
    ASSERT_TRUE(o.flags.preference) << c.yaml;
    EXPECT_EQ(o.flags.preference->trainer, c.trainer) << c.yaml;
    EXPECT_EQ(o.flags.preference->loss, c.loss) << c.yaml;
    EXPECT_EQ(o.flags.preference->reference, c.reference) << c.yaml;
    EXPECT_EQ(o.flags.padded, true) << c.yaml;
  }
  EXPECT_FALSE(factory("model_name_or_path: gpt2\npref_loss: orpo\n").flags.preference);
  EXPECT_EQ(factory_fault("stage: dpo\npref_loss: kto_pair\n"), "unsupported_training f.yaml: pref_loss");
  EXPECT_EQ(factory_fault("stage: dpo\npref_loss: best\n"), "bad_config f.yaml: pref_loss");
  EXPECT_EQ(factory_fault("stage: dpo\nref_model: other\n"), "unsupported_training f.yaml: ref_model");
  EXPECT_EQ(factory_fault("stage: dpo\nld_alpha: 0.5\n"), "unsupported_training f.yaml: ld_alpha");
  EXPECT_EQ(factory_fault("stage: rm\nenable_liger_kernel: true\n"), "unsupported_training f.yaml: enable_liger_kernel");
  EXPECT_EQ(factory_fault("stage: dpo\nadditional_target: lm_head\n"), "unsupported_training f.yaml: additional_target");
}

TEST(Llamafactory, whatIsAnotherRunIsRefused) {
  for (const char* stage : {"kto", "ppo"}) EXPECT_EQ(factory_fault("stage: " + std::string(stage) + "\n"), "unsupported_training f.yaml: stage");
  EXPECT_EQ(factory_fault("stage: pt\n"), "none");
  EXPECT_EQ(factory_fault("finetuning_type: freeze\n"), "unsupported_training f.yaml: finetuning_type");
  EXPECT_EQ(factory_fault("finetuning_type: some\n"), "bad_config f.yaml: finetuning_type");
  EXPECT_EQ(factory_fault("quantization_bit: 8\n"), "unsupported_training f.yaml: quantization_bit");
  EXPECT_EQ(factory_fault("finetuning_type: full\nquantization_bit: 4\n"), "bad_config f.yaml: quantization_bit");
  EXPECT_EQ(factory_fault("quantization_bit: 4\nquantization_method: hqq\n"), "unsupported_training f.yaml: quantization_method");
  EXPECT_EQ(factory_fault("use_unsloth: true\n"), "unsupported_training f.yaml: use_unsloth");
  EXPECT_EQ(factory_fault("use_unsloth: false\n"), "none");
  EXPECT_EQ(factory_fault("finetuning_type: full\nuse_galore: true\n"), "unsupported_training f.yaml: use_galore");
  EXPECT_EQ(factory_fault("flash_attn: fast\n"), "bad_config f.yaml: flash_attn");
  EXPECT_EQ(factory_fault("lora_rank: 0\n"), "bad_config f.yaml: lora_rank");
  EXPECT_EQ(factory_fault("fsdp: full_shard\n"), "bad_config f.yaml: fsdp");
  EXPECT_FALSE(factory("stage: sft\n").ok);
  EXPECT_EQ(factory("model_name_or_path: gpt2\nneat_packing: true\nupcast_layernorm: true\npredict_with_generate: true\n").told.unused, (std::vector<std::string>{"neat_packing", "upcast_layernorm", "predict_with_generate"}));
  EXPECT_TRUE(factory("model_name_or_path: gpt2\nval_size: 0.1\nper_device_eval_batch_size: 1\n").flags.evaluates);
  EXPECT_FALSE(factory("model_name_or_path: gpt2\nval_size: 0.0\neval_strategy: steps\n").flags.evaluates);
}

}  // namespace
}  // namespace dryfit
