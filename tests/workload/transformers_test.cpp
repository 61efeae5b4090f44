// Trainings from flags and configuration files: transformers' defaults, DeepSpeed's and accelerate's words, wrong values.
#include <algorithm>

#include <gtest/gtest.h>

#include "workload/probe_document.hpp"
#include "workload/probe_presets.hpp"
#include "workload/transformers.hpp"

namespace dryfit {
namespace {

const HfModel& preset(const char* name) { return find_preset(name)->preset->model; }

TEST(Transformers, defaultsAreTheTrainersAndListed) {
  const auto plan = make_training(preset("llama-3.1-8b"), {});
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->training.device_batch_size, 8);
  EXPECT_EQ(plan->training.seq_len, 2048);
  EXPECT_EQ(plan->training.weights, Dtype::bf16);
  EXPECT_EQ(plan->training.optimizer, OptimizerKind::adamw_fused);
  EXPECT_EQ(plan->training.sharding, Sharding::none);
  EXPECT_GE(plan->assumptions.size(), 4U);
  EXPECT_EQ(make_training(preset("gpt2"), {})->training.seq_len, 1024);
  EXPECT_EQ(make_training(preset("gpt2"), {})->training.weights, Dtype::fp32);
  EXPECT_EQ(make_training(preset("gemma-2-9b"), {})->training.attention, AttentionCode::eager);
}

TEST(Transformers, wrongValuesNameTheFlag) {
  TransformersFlags f;
  f.device_batch_size = 0;
  EXPECT_EQ(make_training(preset("gpt2"), f).error().where, "--device-batch-size");
  f = {};
  f.max_seq_len = 2048;
  EXPECT_NE(make_training(preset("gpt2"), f).error().message.find("1024 positions"), std::string::npos);
  f = {};
  f.attention = AttentionCode::sdpa;
  EXPECT_EQ(make_training(preset("gemma-2-9b"), f).error().where, "--attention");
  EXPECT_EQ(optimizer_of("adamw_torch_fuse", "--optim").error().hint, "did you mean 'adamw_torch_fused'?");
  EXPECT_NE(optimizer_of("galore_adamw", "--optim").error().hint.find("adafactor"), std::string::npos);
}

// TrainingArguments.use_cache came with transformers 5, and is False; before, the model's config.json decided.
TEST(Transformers, theVersionDecidesWhetherACacheIsFilled) {
  TransformersFlags f;
  EXPECT_FALSE(make_training(preset("gpt2"), f)->training.use_cache);
  f.use_cache = true;
  EXPECT_TRUE(make_training(preset("gpt2"), f)->training.use_cache);
  f = {};
  f.transformers = "4.57.1";
  EXPECT_TRUE(make_training(preset("gpt2"), f)->training.use_cache);
  f.use_cache = false;
  EXPECT_FALSE(make_training(preset("gpt2"), f)->training.use_cache);
  f = {};
  for (const char* wrong : {"v5", "", "3.5.1", "newest"}) {
    f.transformers = wrong;
    EXPECT_EQ(make_training(preset("gpt2"), f).error().where, "--transformers") << wrong;
  }
}

// accelerate's wrapper around forward(), which DeepSpeed's engine and fully_shard go without.
TEST(Transformers, outputsBecomeFp32UnderTrainersAutocast) {
  TransformersFlags f;
  EXPECT_FALSE(make_training(preset("gpt2"), f)->training.converts_outputs);
  f.mixed = MixedPrecision::bf16;
  EXPECT_TRUE(make_training(preset("gpt2"), f)->training.converts_outputs);
  f.gpus = 2;
  for (const auto& [kind, converts] : {std::pair{Sharding::ddp, true}, std::pair{Sharding::fsdp1, true}, std::pair{Sharding::fsdp2, false}, std::pair{Sharding::zero2, false}}) {
    f.sharding = kind;
    EXPECT_EQ(make_training(preset("gpt2"), f)->training.converts_outputs, converts) << name_of(kind);
  }
}

TEST(Transformers, everyWordIsReadBack) {
  for (int i = 0; i <= static_cast<int>(OptimizerKind::adamw_loop); ++i) {
    const auto kind = static_cast<OptimizerKind>(i);
    EXPECT_EQ(*optimizer_of(name_of(kind), ""), kind);
  }
  for (int i = 0; i <= static_cast<int>(Sharding::fsdp2); ++i) {
    const auto kind = static_cast<Sharding>(i);
    EXPECT_EQ(*sharding_of(name_of(kind), ""), kind);
  }
}

TransformersFlags deepspeed(std::string_view json, KeysTold* told = nullptr) {
  TransformersFlags f;
  KeysTold keys;
  const auto ok = apply_deepspeed(*document_from_json(json, "ds.json"), "ds.json", f, keys);
  EXPECT_TRUE(ok) << ok.error().message;
  if (told != nullptr) *told = keys;
  return f;
}

TEST(Transformers, deepspeedSetsStagePrecisionAndBatch) {
  KeysTold told;
  TransformersFlags f = deepspeed(R"({"bf16": {"enabled": true}, "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu", "pin_memory": true}, "reduce_bucket_size": 5e8},
                                      "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": "auto", "gradient_clipping": 0.5, "activation_checkpointing": {"partition_activations": true}})", &told);
  EXPECT_EQ(f.sharding, Sharding::zero3);
  EXPECT_EQ(f.device_batch_size, 4);
  EXPECT_FALSE(f.grad_accum_steps);
  EXPECT_EQ(f.offload_optimizer, true);
  EXPECT_EQ(f.offload_parameters, false);
  EXPECT_EQ(told.unused, (std::vector<std::string>{"activation_checkpointing"}));
  EXPECT_EQ(told.used, (std::vector<std::string>{"bf16.enabled", "zero_optimization.offload_optimizer.device", "zero_optimization.stage", "zero_optimization.reduce_bucket_size", "train_micro_batch_size_per_gpu",
                                                 "gradient_accumulation_steps", "gradient_clipping"}));
  const auto plan = make_training(preset("llama-3.1-8b"), f);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->training.weights, Dtype::bf16);
  EXPECT_EQ(plan->training.mixed, MixedPrecision::bf16);
  EXPECT_EQ(plan->training.zero.reduce_bucket_size, 500'000'000);
  EXPECT_FALSE(plan->training.zero.overlap_comm);
}

// HfTrainerDeepSpeedConfig.trainer_config_finalize: of a width of 4096 4096^2, 0.9 * 4096^2 cut to a whole number, 40960.
TEST(Transformers, deepspeedsAutoIsByTheModelsWidth) {
  TransformersFlags f = deepspeed(R"({"bf16": {"enabled": true}, "optimizer": {"type": "AdamW"}, "zero_optimization": {"stage": 3, "overlap_comm": true, "contiguous_gradients": false,
                                      "reduce_bucket_size": "auto", "stage3_prefetch_bucket_size": "auto", "stage3_param_persistence_threshold": "auto", "sub_group_size": 1e8, "stage3_max_live_parameters": 3e8}})");
  f.gpus = 8;
  const auto plan = make_training(preset("llama-3.1-8b"), f);
  ASSERT_TRUE(plan) << plan.error().message;
  const ZeroConfig& z = plan->training.zero;
  EXPECT_EQ(z.reduce_bucket_size, 16777216);
  EXPECT_EQ(z.prefetch_bucket_size, 15099494);
  EXPECT_EQ(z.param_persistence_threshold, 40960);
  EXPECT_EQ(z.sub_group_size, 100'000'000);
  EXPECT_EQ(z.max_live_parameters, 300'000'000);
  EXPECT_EQ(z.max_reuse_distance, 1'000'000'000);
  EXPECT_EQ(z.overlap_comm, true);
  EXPECT_FALSE(z.contiguous_gradients);
  EXPECT_FALSE(z.split_groups);
  EXPECT_EQ(plan->training.optimizer, OptimizerKind::adamw_fused);
  // the reference's engine is made before that, and DeepSpeed takes "auto" for its defaults
  f.preference.emplace();
  const auto preferences = make_training(preset("llama-3.1-8b"), f);
  ASSERT_TRUE(preferences && preferences->training.preference->zero);
  const ZeroConfig& of_reference = *preferences->training.preference->zero;
  EXPECT_EQ(preferences->training.zero.reduce_bucket_size, 16777216);
  EXPECT_EQ(of_reference.reduce_bucket_size, 500'000'000);
  EXPECT_EQ(of_reference.prefetch_bucket_size, 50'000'000);
  EXPECT_EQ(of_reference.param_persistence_threshold, 100'000);
  EXPECT_EQ(of_reference.max_live_parameters, 300'000'000);
}

// DeepSpeed's own fused optimizer joins weights where ZeRO does not; only stage 3 can send parameters to the host.
TEST(Transformers, whatDeepspeedIsNotLaidOutForIsSaid) {
  const auto refused = [](std::string_view json) {
    TransformersFlags f = deepspeed(json);
    const auto w = make_transformers_workload(preset("llama-3.1-8b"), f);
    return w ? std::string() : w.error().message;
  };
  EXPECT_NE(refused(R"({"bf16": {"enabled": true}, "optimizer": {"type": "AdamW", "params": {}}})").find("without ZeRO"), std::string::npos);
  EXPECT_EQ(refused(R"({"bf16": {"enabled": true}})"), "");
  EXPECT_EQ(refused(R"({"zero_optimization": {"stage": 0}})"), "");
  EXPECT_NE(refused(R"({"bf16": {"enabled": true}, "zero_optimization": {"stage": 0, "offload_optimizer": {"device": "cpu"}}})").find("shared out"), std::string::npos);
  EXPECT_NE(refused(R"({"bf16": {"enabled": true}, "zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}})").find("stage 3"), std::string::npos);
  EXPECT_EQ(refused(R"({"bf16": {"enabled": true}, "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}})"), "");
}

// All or nothing, and of transformers' own loop.
TEST(Transformers, whatFsdpKeepsOnTheHostIsSaid) {
  const auto refused = [](Sharding sharding, bool parameters, Framework framework) {
    TransformersFlags f;
    f.gpus = 2, f.sharding = sharding, f.device_batch_size = 1, f.max_seq_len = 128;
    f.offload_optimizer = true, f.offload_parameters = parameters, f.framework = framework;
    const auto w = make_transformers_workload(preset("llama-3.1-8b"), f);
    return w ? std::string() : w.error().message;
  };
  EXPECT_EQ(refused(Sharding::fsdp1, true, Framework::transformers), "");
  EXPECT_EQ(refused(Sharding::fsdp2, true, Framework::transformers), "");
  EXPECT_NE(refused(Sharding::fsdp2, false, Framework::transformers).find("or none of them"), std::string::npos);
  EXPECT_NE(refused(Sharding::ddp, true, Framework::transformers).find("shared out"), std::string::npos);
  EXPECT_NE(refused(Sharding::fsdp1, true, Framework::litgpt).find("litgpt"), std::string::npos);
}

TEST(Transformers, deepspeedLeavesAutoToTheArguments) {
  TransformersFlags f = deepspeed(R"({"bf16": {"enabled": "auto"}, "fp16": {"enabled": false}, "optimizer": {"type": "AdamW", "params": {"lr": "auto"}}})");
  EXPECT_FALSE(f.mixed);
  EXPECT_EQ(f.optimizer, OptimizerKind::adamw_fused);
  EXPECT_EQ(deepspeed(R"({"optimizer": {"type": "Adam", "params": {"torch_adam": true}}})").optimizer, OptimizerKind::adamw);
  EXPECT_EQ(f.sharding, Sharding::zero0);
}

TEST(Transformers, configurationFilesWithFaultsSayWhere) {
  TransformersFlags f;
  KeysTold told;
  const auto fault = [&](auto apply, std::string_view json) {
    const auto ok = apply(*document_from_json(json, "c.json"), "c.json", f, told);
    return ok ? std::string("none") : ok.error().where;
  };
  EXPECT_EQ(fault(apply_deepspeed, R"({"zero_optimization": {"stage": 7}})"), "c.json: zero_optimization.stage");
  EXPECT_EQ(fault(apply_deepspeed, R"({"bf16": {"enabled": 1}})"), "c.json: bf16.enabled");
  EXPECT_EQ(fault(apply_deepspeed, R"({"zero_optimization": {"stage": 2, "reduce_bucket_size": -1}})"), "c.json: zero_optimization.reduce_bucket_size");
  EXPECT_EQ(fault(apply_deepspeed, R"({"zero_optimization": {"stage": 2, "sub_group_size": 1.5}})"), "c.json: zero_optimization.sub_group_size");
  EXPECT_EQ(fault(apply_deepspeed, R"({"zero_optimization": {"stage": 2, "overlap_comm": "auto"}})"), "c.json: zero_optimization.overlap_comm");
  EXPECT_EQ(fault(apply_deepspeed, R"({"optimizer": {"type": "OneBitAdam"}})"), "c.json: optimizer.type");
  EXPECT_EQ(fault(apply_deepspeed, "[]"), "c.json");
  EXPECT_EQ(fault(apply_accelerate, R"({"distributed_type": "MEGATRON_LM"})"), "c.json: distributed_type");
  EXPECT_EQ(fault(apply_accelerate, R"({"mixed_precision": "fp8"})"), "c.json: mixed_precision");
  EXPECT_EQ(fault(apply_accelerate, R"({"distributed_type": "FSDP", "fsdp_config": {"fsdp_sharding_strategy": "HYBRID_SHARD"}})"), "c.json: fsdp_config.fsdp_sharding_strategy");
}

TEST(Transformers, accelerateSetsProcessesPrecisionAndSharding) {
  TransformersFlags f;
  KeysTold told;
  const auto ok = apply_accelerate(*document_from_json(R"({"compute_environment": "LOCAL_MACHINE", "distributed_type": "FSDP", "mixed_precision": "bf16", "num_processes": 8,
    "fsdp_config": {"fsdp_version": 2, "fsdp_reshard_after_forward": true, "fsdp_offload_params": false, "fsdp_activation_checkpointing": true, "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}})", "a.json"), "a.json", f, told);
  ASSERT_TRUE(ok);
  EXPECT_EQ(f.gpus, 8);
  EXPECT_EQ(f.mixed, MixedPrecision::bf16);
  EXPECT_EQ(f.sharding, Sharding::fsdp2);
  EXPECT_EQ(f.reshard_after_forward, true);
  EXPECT_EQ(f.recompute, Recompute::full);
  EXPECT_TRUE(told.unused.empty());
}

TEST(Transformers, accelerateSaysHowFsdp1Prefetches) {
  TransformersFlags f;
  KeysTold told;
  const auto with = [&](std::string_view fields) {
    return apply_accelerate(*document_from_json(R"({"distributed_type": "FSDP", "num_processes": 2, "fsdp_config": {)" + std::string(fields) + "}}", "a.json"), "a.json", f, told);
  };
  ASSERT_TRUE(with(R"("fsdp_sharding_strategy": "SHARD_GRAD_OP", "fsdp_backward_prefetch": "BACKWARD_PRE", "fsdp_use_orig_params": false)"));
  EXPECT_EQ(f.sharding, Sharding::fsdp1_grad_op);
  EXPECT_EQ(f.flat->backward_prefetch, FlatShardConfig::Prefetch::pre);
  EXPECT_FALSE(f.flat->original_parameters);
  ASSERT_TRUE(with(R"("fsdp_version": 1)"));
  EXPECT_EQ(f.flat->backward_prefetch, FlatShardConfig::Prefetch::none);
  ASSERT_TRUE(with(R"("fsdp_version": 1, "fsdp_reshard_after_forward": "SHARD_GRAD_OP")"));
  EXPECT_EQ(f.sharding, Sharding::fsdp1_grad_op);
  EXPECT_EQ(f.wrap_blocks, false);  // NO_WRAP where nothing is said
  ASSERT_TRUE(with(R"("version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP")"));  // launch.py puts fsdp_ before them
  EXPECT_EQ(f.sharding, Sharding::fsdp2);
  EXPECT_EQ(f.wrap_blocks, true);
  const auto wrong = with(R"("fsdp_backward_prefetch": "EARLY")");
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().where, "a.json: fsdp_config.fsdp_backward_prefetch");
}

// As `accelerate config` writes it; NO without quotes is false in YAML.
TEST(Transformers, accelerateInYaml) {
  TransformersFlags f;
  KeysTold told;
  const auto with = [&](std::string_view yaml) {
    const auto document = document_from_yaml(yaml, "a.yaml");
    EXPECT_TRUE(document) << document.error().message;
    return apply_accelerate(*document, "a.yaml", f, told);
  };
  ASSERT_TRUE(with("compute_environment: LOCAL_MACHINE\ndebug: false\ndeepspeed_config:\n  deepspeed_config_file: ds.json\n  zero3_init_flag: true\ndistributed_type: DEEPSPEED\ndowncast_bf16: 'no'\nmachine_rank: 0\n"
                   "main_training_function: main\nmixed_precision: bf16\nnum_machines: 1\nnum_processes: 4\nrdzv_backend: static\nsame_network: true\ntpu_env: []\ntpu_use_cluster: false\ntpu_use_sudo: false\nuse_cpu: false\n"));
  EXPECT_EQ(f.deepspeed_file, "ds.json");
  EXPECT_EQ(f.gpus, 4);
  EXPECT_TRUE(told.unused.empty()) << told.unused[0];
  EXPECT_EQ(told.used, (std::vector<std::string>{"deepspeed_config.deepspeed_config_file", "distributed_type", "mixed_precision", "num_processes"}));
  f = {};
  ASSERT_TRUE(with("distributed_type: NO\nmixed_precision: no\nnum_processes: 8\ndynamo_config: {}\ndynamo_backend: INDUCTOR\n"));
  EXPECT_FALSE(f.sharding || f.mixed);
  EXPECT_EQ(f.gpus, 1);  // one process, whatever num_processes says
  EXPECT_EQ(told.unused, (std::vector<std::string>{"dynamo_backend"}));
  const auto wrong = with("distributed_type: yes\n");
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().where, "a.yaml: distributed_type");
}

// In Trainer peft makes a unit of every adapter, whatever wrapping was asked for; LoRA kernels and biases go around those.
TEST(Transformers, adaptersUnderFsdp1AreUnits) {
  TransformersFlags f;
  f.sharding = Sharding::fsdp1, f.gpus = 2, f.wrap_blocks = false;
  const auto training = [&] { return make_transformers_workload(preset("gpt2"), f); };
  auto w = training();
  ASSERT_TRUE(w);
  EXPECT_FALSE(w->transformers->training.flat.adapters_apart || w->transformers->training.wrap_blocks);
  f.lora.emplace();
  w = training();
  ASSERT_TRUE(w);
  EXPECT_TRUE(w->transformers->training.flat.adapters_apart && w->transformers->training.wrap_blocks);
  f.lora->biases = Lora::Biases::all;
  EXPECT_FALSE(training());
  f.lora->biases = Lora::Biases::none;
  f.adapter_kernels = AdapterKernels{true, true, true};
  EXPECT_FALSE(training());
}

// They are shared out as weights of what they are packed into, which has to be the model's dtype.
TEST(Transformers, fourBitsUnderFsdpArePackedIntoTheModelsDtype) {
  for (const Sharding sharding : {Sharding::fsdp1, Sharding::fsdp2}) {
    TransformersFlags f;
    f.sharding = sharding, f.gpus = 2, f.quantized = true, f.weights = Dtype::bf16;
    f.lora.emplace();
    const auto w = make_transformers_workload(preset("llama-3.2-1b"), f);
    ASSERT_TRUE(w) << w.error().message;
    EXPECT_TRUE(std::ranges::any_of(w->assumptions, [](const Assumption& a) { return a.key == "bnb_4bit_quant_storage" && a.value == "bfloat16"; }));
    EXPECT_FALSE(w->transformers->training.lora->upcast_rest);
    f.quant_storage = Dtype::bf16;
    EXPECT_TRUE(make_transformers_workload(preset("llama-3.2-1b"), f));
    for (const auto& [weights, storage] : {std::pair{Dtype::bf16, Dtype::uint8}, std::pair{Dtype::bf16, Dtype::fp16}, std::pair{Dtype::fp32, Dtype::fp32}}) {
      f.weights = weights, f.quant_storage = storage;
      const auto refused = make_transformers_workload(preset("llama-3.2-1b"), f);
      ASSERT_FALSE(refused);
      EXPECT_NE(refused.error().hint.find(weights == Dtype::fp32 ? "--dtype bf16" : "--bnb_4bit_quant_storage bfloat16"), std::string::npos);
    }
  }
}

TEST(Transformers, whatPeftAndLigerHaveIsSaidByName) {
  const auto outcome = [&](const char* model, auto change) -> std::string {
    TransformersFlags f;
    change(f);
    const auto w = make_transformers_workload(preset(model), f);
    return w ? w->warnings.empty() ? "none" : w->warnings[0] : w.error().code + " " + w.error().where;
  };
  EXPECT_EQ(outcome("llama-3.1-8b", [](TransformersFlags& f) { f.liger = true; }), "none");
  const auto cut = [](TransformersFlags& f) { f.head = HeadLoss::cut, f.weights = Dtype::bf16; };
  EXPECT_EQ(outcome("llama-3.1-8b", cut), "none");
  EXPECT_EQ(outcome("gpt2", cut), "unsupported_training cut_cross_entropy");
  EXPECT_EQ(outcome("llama-3.1-8b", [](TransformersFlags& f) { f.head = HeadLoss::cut, f.weights = Dtype::fp32; }), "unsupported_training cut_cross_entropy");
  EXPECT_EQ(outcome("llama-3.1-8b", [](TransformersFlags& f) { f.head = HeadLoss::cut, f.weights = Dtype::bf16, f.gpus = 2, f.sharding = Sharding::zero3; }), "unsupported_training cut_cross_entropy");
  EXPECT_EQ(outcome("llama-3.1-8b", [](TransformersFlags& f) { f.adapter_kernels = AdapterKernels{true, true, true}, f.lora.emplace(), f.gpus = 2, f.sharding = Sharding::zero3; }), "unsupported_training lora_qkv_kernel");
  EXPECT_EQ(outcome("gpt2", [](TransformersFlags& f) { f.liger = true; }), "Liger-Kernel replaces nothing of gpt2: the run is as without it");
  EXPECT_EQ(outcome("llama-3.1-8b", [](TransformersFlags& f) { f.liger = true, f.gpus = 2, f.sharding = Sharding::zero3; }), "unsupported_training --liger");
  EXPECT_EQ(outcome("llama-3.1-8b", [](TransformersFlags& f) { f.liger = true, f.framework = Framework::litgpt; }), "bad_value --liger");
  EXPECT_EQ(outcome("llama-3.1-8b", [](TransformersFlags& f) { f.lora.emplace().saved_modules = {"lm_head", "embed_tokens"}; }), "none");
  EXPECT_EQ(outcome("llama-3.1-8b", [](TransformersFlags& f) { f.lora.emplace().saved_modules = {"lm_hat"}; }), "bad_value lora_modules_to_save");
  EXPECT_EQ(outcome("llama-3.2-1b", [](TransformersFlags& f) { f.lora.emplace().saved_modules = {"lm_head"}; }), "unsupported_training lora_modules_to_save");  // tied
  EXPECT_EQ(outcome("granite-3.3-2b", [](TransformersFlags& f) { f.liger = true; }), "unsupported_training --liger");
  EXPECT_EQ(outcome("smollm3-3b", [](TransformersFlags& f) { f.liger = true; }), "none");
  EXPECT_EQ(outcome("gpt-oss-20b", [](TransformersFlags& f) { f.attention = AttentionCode::sdpa; }), "unsupported_training --attention");
  EXPECT_EQ(outcome("gpt2", [](TransformersFlags& f) { f.ema = true, f.gpus = 2, f.sharding = Sharding::zero2; }), "unsupported_training --ema");
  EXPECT_EQ(outcome("gpt2", [](TransformersFlags& f) { f.ema = true, f.quantized = true, f.lora.emplace(); }), "unsupported_training --ema");
  EXPECT_EQ(outcome("gpt2", [](TransformersFlags& f) { f.lora.emplace().virtual_tokens = 8; }), "unsupported_training --num_virtual_tokens");
  EXPECT_EQ(outcome("llama-3.1-8b", [](TransformersFlags& f) { f.lora.emplace().dora = true, f.gpus = 2, f.sharding = Sharding::fsdp2; }), "unsupported_training --parallel");
}

TEST(Transformers, severalGpusAndTheirNumberAgree) {
  const auto where = [&](Sharding kind, std::int64_t gpus) -> std::string {
    TransformersFlags f;
    f.sharding = kind, f.gpus = gpus;
    const auto plan = make_training(preset("gpt2"), f);
    return plan ? std::string(name_of(plan->training.sharding)) : plan.error().where;
  };
  EXPECT_EQ(where(Sharding::fsdp2, 8), "fsdp2");
  EXPECT_EQ(where(Sharding::fsdp2, 1), "--parallel");
  EXPECT_EQ(where(Sharding::fsdp1, 8), "fsdp1");
  EXPECT_EQ(where(Sharding::fsdp1_grad_op, 1), "--parallel");
  EXPECT_EQ(where(Sharding::none, 2), "--parallel");
  EXPECT_EQ(where(Sharding::ddp, 1), "none");
}

}  // namespace
}  // namespace dryfit
