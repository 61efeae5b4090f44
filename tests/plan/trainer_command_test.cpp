// Commands as people paste them from tutorials: what of them moves memory, and what is said not to be used.
#include <gtest/gtest.h>

#include "plan/launch.hpp"
#include "plan/trainer_command.hpp"

namespace dryfit {
namespace {

Result<TrainerCommand> read(std::string_view text) {
  const auto words = shell_split(text);
  if (!words) return std::unexpected(words.error());
  const auto launch = parse_launch(*words);
  if (!launch) return std::unexpected(launch.error());
  EXPECT_TRUE(is_trainer_command(*launch)) << text;
  return read_trainer_command(*launch);
}

TEST(TrainerCommand, runClmUnderTorchrun) {
  const auto c = read("PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True torchrun --nproc_per_node=8 --nnodes 2 run_clm.py --model_name_or_path meta-llama/Llama-3.1-8B --dataset_name wikitext --per_device_train_batch_size 4 "
                      "--gradient_accumulation_steps=2 --bf16 --gradient_checkpointing True --gradient_checkpointing_kwargs '{\"use_reentrant\": false}' --optim adamw_torch_fused --block_size 2048 --torch_dtype bfloat16 "
                      "--attn_implementation flash_attention_2 --output_dir /tmp/x --learning_rate 1e-5 --use_liger_kernel 2>&1 | tee log");
  ASSERT_TRUE(c) << c.error().message;
  const TransformersFlags& f = c->flags;
  EXPECT_EQ(f.model, "meta-llama/Llama-3.1-8B");
  EXPECT_EQ(f.gpus, 16);
  EXPECT_EQ(f.device_batch_size, 4);
  EXPECT_EQ(f.grad_accum_steps, 2);
  EXPECT_EQ(f.mixed, MixedPrecision::bf16);
  EXPECT_EQ(f.recompute, Recompute::full);
  EXPECT_EQ(f.reentrant, false);
  EXPECT_EQ(f.optimizer, OptimizerKind::adamw_fused);
  EXPECT_EQ(f.max_seq_len, 2048);
  EXPECT_EQ(f.weights, Dtype::bf16);
  EXPECT_EQ(f.attention, AttentionCode::flash_attention_2);
  EXPECT_EQ(c->alloc_conf, "expandable_segments:True");
  EXPECT_EQ(c->ignored, (std::vector<std::string>{"everything from '2>&1' on", "--use-liger-kernel"}));
}

TEST(TrainerCommand, qloraWithTrl) {
  const auto c = read("python trl/scripts/sft.py --model_name_or_path Qwen/Qwen2.5-7B --per_device_train_batch_size 2 --use_peft --lora_r 32 --lora_alpha 16 --lora_dropout 0.05 --lora_target_modules q_proj k_proj,v_proj o_proj "
                      "--load_in_4bit --use_bnb_nested_quant --optim paged_adamw_8bit --max_length 4096 --fp16 False");
  ASSERT_TRUE(c) << c.error().message;
  ASSERT_TRUE(c->flags.lora);
  EXPECT_EQ(c->flags.lora->rank, 32);
  EXPECT_EQ(c->flags.lora->targets, (std::vector<std::string>{"q_proj", "k_proj", "v_proj", "o_proj"}));
  EXPECT_TRUE(c->flags.quantized && c->flags.double_quantized);
  EXPECT_EQ(c->flags.optimizer, OptimizerKind::paged_adamw_8bit);
  EXPECT_FALSE(c->flags.mixed);
  EXPECT_EQ(c->flags.gpus, 1);
  EXPECT_TRUE(c->ignored.empty()) << c->ignored.front();
}

TEST(TrainerCommand, launchersNameFilesAndStages) {
  const auto deepspeed = read("deepspeed --num_gpus 4 train.py --deepspeed ds_z3.json --model_name_or_path gpt2 --per_device_train_batch_size 1");
  ASSERT_TRUE(deepspeed);
  EXPECT_EQ(deepspeed->flags.gpus, 4);
  EXPECT_EQ(deepspeed->deepspeed_file, "ds_z3.json");
  EXPECT_TRUE(deepspeed->flags.deepspeed);
  const auto accelerate = read("accelerate launch --config_file fsdp.json --num_processes 8 --mixed_precision bf16 run_clm.py --model_name_or_path gpt2 --output_dir x");
  ASSERT_TRUE(accelerate);
  EXPECT_EQ(accelerate->flags.gpus, 8);
  EXPECT_EQ(accelerate->accelerate_file, "fsdp.json");
  EXPECT_EQ(accelerate->flags.mixed, MixedPrecision::bf16);
  const auto staged = read("accelerate launch --use_deepspeed --zero_stage 3 train.py --model_name_or_path gpt2");
  ASSERT_TRUE(staged);
  EXPECT_EQ(staged->flags.sharding, Sharding::zero3);
  EXPECT_FALSE(staged->flags.gpus);
  const auto offloaded = read("accelerate launch --use_deepspeed --offload_optimizer_device cpu --offload_param_device none --gradient_clipping 0.5 train.py --model_name_or_path gpt2");
  ASSERT_TRUE(offloaded);
  EXPECT_EQ(offloaded->flags.sharding, Sharding::zero2);
  EXPECT_EQ(offloaded->flags.offload_optimizer, true);
  EXPECT_EQ(offloaded->flags.offload_parameters, false);
  EXPECT_EQ(offloaded->flags.max_grad_norm, 0.5);
  const auto fsdp = read("torchrun --nproc_per_node 2 train.py --model_name_or_path gpt2 --fsdp 'full_shard auto_wrap offload'");
  ASSERT_TRUE(fsdp);
  EXPECT_EQ(fsdp->flags.sharding, Sharding::fsdp1);
  EXPECT_EQ(fsdp->flags.offload_parameters, true);
  EXPECT_EQ(fsdp->flags.flat.backward_prefetch, FlatShardConfig::Prefetch::none);  // Trainer's default
  const auto ahead = read("torchrun --nproc_per_node 2 train.py --model_name_or_path gpt2 --fsdp 'shard_grad_op auto_wrap' --fsdp_config '{\"backward_prefetch\": \"backward_pre\", \"use_orig_params\": \"false\"}'");
  ASSERT_TRUE(ahead);
  EXPECT_EQ(ahead->flags.sharding, Sharding::fsdp1_grad_op);
  EXPECT_EQ(ahead->flags.flat.backward_prefetch, FlatShardConfig::Prefetch::pre);
  EXPECT_FALSE(ahead->flags.flat.original_parameters);
  const auto newer = read("torchrun --nproc_per_node 2 train.py --model_name_or_path gpt2 --fsdp 'full_shard auto_wrap' --fsdp_config '{\"version\": 2, \"reshard_after_forward\": false}' --ddp_find_unused_parameters False");
  ASSERT_TRUE(newer);
  EXPECT_EQ(newer->flags.sharding, Sharding::fsdp2);
  EXPECT_EQ(newer->flags.wrap_blocks, true);
  EXPECT_EQ(newer->flags.reshard_after_forward, false);
  EXPECT_EQ(newer->flags.ddp_find_unused, false);
  const auto launched = read("accelerate launch --num_processes 4 --use_fsdp --fsdp_version 2 train.py --model_name_or_path gpt2");
  ASSERT_TRUE(launched);
  EXPECT_EQ(launched->flags.sharding, Sharding::fsdp2);
  EXPECT_TRUE(launched->ignored.empty());
  const auto first = read("accelerate launch --num_processes 4 --use_fsdp --fsdp_sharding_strategy FULL_SHARD --fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP --fsdp_backward_prefetch BACKWARD_POST --fsdp_forward_prefetch true --fsdp_activation_checkpointing true --fsdp_state_dict_type SHARDED_STATE_DICT train.py --model_name_or_path gpt2");
  ASSERT_TRUE(first);
  EXPECT_EQ(first->flags.sharding, Sharding::fsdp1);
  EXPECT_EQ(first->flags.wrap_blocks, true);
  EXPECT_EQ(first->flags.flat.backward_prefetch, FlatShardConfig::Prefetch::post);
  EXPECT_TRUE(first->flags.flat.forward_prefetch);
  EXPECT_EQ(first->flags.recompute, Recompute::full);
  EXPECT_TRUE(first->ignored.empty());
  EXPECT_EQ(read("accelerate launch --num_processes 4 --use_fsdp train.py --model_name_or_path gpt2")->flags.wrap_blocks, false);  // NO_WRAP
}

TEST(TrainerCommand, wrongValuesNameTheFlag) {
  const auto where = [](std::string_view text) {
    const auto c = read(text);
    return c ? std::string("none") : c.error().where;
  };
  EXPECT_EQ(where("python t.py --model_name_or_path gpt2 --per_device_train_batch_size x"), "--per-device-train-batch-size");
  EXPECT_EQ(where("python t.py --model_name_or_path gpt2 --per_device_train_batch_size 0"), "--per-device-train-batch-size");
  EXPECT_EQ(where("python t.py --model_name_or_path gpt2 --optim galore_adamw"), "--optim");
  EXPECT_EQ(where("python t.py --model_name_or_path gpt2 --bf16 maybe"), "--bf16");
  EXPECT_EQ(where("python t.py --model_name_or_path gpt2 --fsdp hybrid_shard"), "--fsdp");
  EXPECT_EQ(where("accelerate launch --use_fsdp --fsdp_backward_prefetch SOMETIMES t.py --model_name_or_path gpt2"), "--fsdp-backward-prefetch");
  EXPECT_EQ(where("python t.py --model_name_or_path gpt2 --load_in_4bit"), "--load_in_4bit");
}

TEST(TrainerCommand, otherScriptsAreNot) {
  for (const char* text : {"python train.py config.yaml", "python -m scripts.base_train --depth=4", "torchrun train.py"}) EXPECT_FALSE(is_trainer_command(*parse_launch(*shell_split(text)))) << text;
}

}  // namespace
}  // namespace dryfit
