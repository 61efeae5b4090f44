// Commands as people paste them from tutorials: what of them moves memory, and what is said not to be used.
#include <gtest/gtest.h>

#include <algorithm>

#include "passes/program.hpp"
#include "plan/argument_file.hpp"
#include "plan/launch.hpp"
#include "plan/trainer_command.hpp"
#include "plan/trl_command.hpp"
#include "workload/probe_document.hpp"
#include "workload/probe_presets.hpp"

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
  EXPECT_EQ(f.liger, true);
  EXPECT_EQ(c->ignored, std::vector<std::string>{"everything from '2>&1' on"});
}

TEST(TrainerCommand, WorkspacesOfProductsAreKept) {
  const auto c = read("CUBLAS_WORKSPACE_CONFIG=:4096:8 CUBLASLT_WORKSPACE_SIZE=4096 python run_clm.py --model_name_or_path gpt2 --per_device_train_batch_size 2");
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_TRUE(c->ignored.empty());
  const HfModel& model = find_preset("gpt2")->preset->model;
  const auto w = make_transformers_workload(model, c->flags);
  ASSERT_TRUE(w) << w.error().message;
  EXPECT_EQ(w->transformers->training.workspaces.cublas, std::optional<std::int64_t>(33554432));
  EXPECT_TRUE(shell_join(launch_command(*w)).starts_with("CUBLAS_WORKSPACE_CONFIG=:4096:8 CUBLASLT_WORKSPACE_SIZE=4096 python run_clm.py"));
  std::vector<std::int64_t> cublas, cublaslt;
  const Program p = program_for(*w, {8, 0}, false).value();
  for (const TensorInfo& t : p.tensors) {
    if (std::string_view(t.role) == "cublas_workspace") cublas.push_back(t.bytes);
    if (std::string_view(t.role) == "cublaslt_workspace") cublaslt.push_back(t.bytes);
  }
  EXPECT_EQ(cublas, (std::vector<std::int64_t>{33554432, 33554432}));
  EXPECT_EQ(cublaslt, std::vector<std::int64_t>{4 << 20});  // GPT-2's products with a bias run forward
  TransformersFlags wrong = c->flags;
  wrong.workspaces = {{"CUBLAS_WORKSPACE_CONFIG", "8"}};
  EXPECT_FALSE(make_transformers_workload(model, wrong));
}

// transformers' examples whose models end in classes: the head, its labels, the rows; and the command that is printed says the same.
TEST(TrainerCommand, scriptsThatTrainClasses) {
  const auto built = [](const std::string& text) {
    const auto c = read(text);
    if (!c) throw std::runtime_error(c.error().message);
    const auto w = make_transformers_workload(find_preset(*c->flags.model)->preset->model, c->flags);
    if (!w) throw std::runtime_error(w.error().message);
    return *w;
  };
  const std::string glue = "python examples/pytorch/text-classification/run_glue.py --model_name_or_path bert-base-cased --output_dir x ";
  const Workload w = built(glue + "--task_name mnli");
  const Architecture& a = w.transformers->architecture;
  const Training& t = w.transformers->training;
  EXPECT_EQ(a.class_name, "BertForSequenceClassification");
  EXPECT_EQ(a.classes, 3);
  EXPECT_EQ(t.seq_len, 128);
  EXPECT_TRUE(t.padded && t.filled);
  EXPECT_TRUE(w.warnings.empty());
  EXPECT_EQ(built(shell_join(launch_command(w))).transformers->architecture.classes, 3);
  EXPECT_EQ(built(glue + "--task_name stsb").transformers->architecture.classes, 1);
  EXPECT_EQ(built(glue + "--train_file a.csv").transformers->architecture.classes, 2);
  const Training longest = built(glue + "--task_name mrpc --pad_to_max_length False --max_seq_length 256").transformers->training;
  EXPECT_TRUE(longest.padded && !longest.filled && longest.seq_len == 256);
  const Workload answers = built("python run_qa.py --model_name_or_path distilbert-base-uncased --dataset_name squad --do_train --do_eval --doc_stride 128 --output_dir x");
  EXPECT_EQ(answers.transformers->architecture.class_name, "DistilBertForQuestionAnswering");
  EXPECT_EQ(answers.transformers->training.seq_len, 384);
  EXPECT_EQ(answers.transformers->training.evaluation->keeps, EvaluationRun::Keeps::logits);
  EXPECT_EQ(built("python run_ner.py --model_name_or_path roberta-base --dataset_name wnut_17 --output_dir x").transformers->architecture.classes, 13);
  const Workload unknown = built("accelerate launch run_ner_no_trainer.py --model_name_or_path roberta-base --train_file a.json --per_device_train_batch_size 4");
  EXPECT_EQ(unknown.transformers->architecture.classes, 9);
  EXPECT_TRUE(std::ranges::any_of(unknown.assumptions, [](const Assumption& s) { return s.key == "num_labels"; }));
  EXPECT_EQ(unknown.transformers->training.seq_len, 128);
  // Liger-Kernel's loss is of words
  const Workload liger = built("python run_glue.py --model_name_or_path llama-3.2-1b --use_liger_kernel True --output_dir x");
  EXPECT_EQ(liger.transformers->training.head, HeadLoss::logits);
  EXPECT_TRUE(liger.transformers->training.liger.any());
  EXPECT_EQ(liger.warnings.size(), 1U);
  EXPECT_NE(shell_join(launch_command(liger)).find("--liger_kernel_config"), std::string::npos);
  // no class in transformers; a script that is not described
  const auto gemma = read("python run_qa.py --model_name_or_path gemma-2b --output_dir x");
  ASSERT_TRUE(gemma);
  EXPECT_EQ(make_transformers_workload(find_preset("gemma-2b")->preset->model, gemma->flags).error().code, "unsupported_training");
  EXPECT_EQ(read("python run_swag.py --model_name_or_path bert-base-uncased --output_dir x").error().code, "unsupported_training");
}

// A script knows its model's head better than the file of the model does.
TEST(TrainerCommand, aScriptsHeadStandsOverTheFiles) {
  HfModel model = find_preset("bert-base-uncased")->preset->model;
  Architecture& a = model.architecture;
  const std::int64_t words = static_cast<std::int64_t>(parameters_of(a).size());
  a.class_name = "BertForTokenClassification", a.head = HeadKind::tokens, a.classes = 5, a.tied_head = false;
  const auto head = [&](const char* text) { return make_transformers_workload(model, read(text)->flags)->transformers->architecture; };
  const Architecture mlm = head("python run_mlm.py --model_name_or_path bert-base-uncased --output_dir x");
  EXPECT_EQ(mlm.class_name, "BertForMaskedLM");
  EXPECT_EQ(static_cast<std::int64_t>(parameters_of(mlm).size()), words);
  EXPECT_EQ(head("python train.py --model_name_or_path bert-base-uncased --output_dir x").classes, 5);
  EXPECT_EQ(head("python run_qa.py --model_name_or_path bert-base-uncased --output_dir x").head, HeadKind::answers);
}

TEST(TrainerCommand, qloraWithTrl) {
  const auto c = read("python trl/scripts/sft.py --model_name_or_path Qwen/Qwen2.5-7B --per_device_train_batch_size 2 --use_peft --lora_r 32 --lora_alpha 16 --lora_dropout 0.05 --lora_target_modules q_proj k_proj,v_proj o_proj "
                      "--load_in_4bit --use_bnb_nested_quant --optim paged_adamw_8bit --max_length 4096 --bf16 False --loss_type nll");
  ASSERT_TRUE(c) << c.error().message;
  ASSERT_TRUE(c->flags.lora);
  EXPECT_EQ(c->flags.lora->rank, 32);
  EXPECT_EQ(c->flags.lora->targets, (std::vector<std::string>{"q_proj", "k_proj", "v_proj", "o_proj"}));
  EXPECT_TRUE(c->flags.quantized && c->flags.double_quantized);
  EXPECT_EQ(c->flags.optimizer, OptimizerKind::paged_adamw_8bit);
  EXPECT_FALSE(c->flags.mixed);
  EXPECT_EQ(c->flags.gpus, 1);
  EXPECT_EQ(c->flags.lora->dtype, Dtype::bf16);  // as SFTTrainer casts them
  EXPECT_FALSE(c->flags.lora->upcast_rest);
  EXPECT_TRUE(c->ignored.empty());
  const auto plain = read("python train.py --model_name_or_path Qwen/Qwen2.5-7B --use_peft --load_in_4bit");
  ASSERT_TRUE(plain) << plain.error().message;
  EXPECT_TRUE(!plain->flags.lora->dtype && plain->flags.lora->upcast_rest);
  // what 4-bit values are packed into: TRL's default is bytes; where Trainer says how FSDP loads, it does not do so on the host unless asked
  EXPECT_EQ(c->flags.quant_storage, Dtype::uint8);
  EXPECT_FALSE(plain->flags.quant_storage);
  const auto packed = read("python train.py --model_name_or_path Qwen/Qwen2.5-7B --use_peft --load_in_4bit --bnb_4bit_quant_storage bfloat16 --fsdp full_shard --fsdp_config '{\"cpu_ram_efficient_loading\": true}'");
  ASSERT_TRUE(packed) << packed.error().message;
  EXPECT_EQ(packed->flags.quant_storage, Dtype::bf16);
  EXPECT_TRUE(packed->flags.flat->loads_on_host);
  const auto whole = read("python train.py --model_name_or_path Qwen/Qwen2.5-7B --use_peft --load_in_4bit --fsdp full_shard");
  ASSERT_TRUE(whole) << whole.error().message;
  EXPECT_FALSE(whole->flags.flat->loads_on_host);
  EXPECT_FALSE(read("python train.py --model_name_or_path Qwen/Qwen2.5-7B --use_peft --load_in_4bit --bnb_4bit_quant_storage int3"));
}

// SFTConfig's defaults are not the Trainer's; its program starts accelerate.
TEST(TrainerCommand, trlsOwnProgram) {
  const auto c = read("trl sft --model_name_or_path gpt2 --use_peft --num_processes 4 --accelerate_config zero2 | tee log");
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_EQ(c->flags.mixed, MixedPrecision::bf16);
  EXPECT_EQ(c->flags.weights, Dtype::fp32);
  EXPECT_EQ(c->flags.recompute, Recompute::full);
  EXPECT_EQ(c->flags.max_seq_len, 1024);
  EXPECT_EQ(c->flags.gpus, 4);
  EXPECT_EQ(c->accelerate_file, "zero2");
  ASSERT_TRUE(c->flags.lora);
  EXPECT_EQ(c->flags.lora->rank, 16);
  EXPECT_EQ(c->flags.lora->dropout, 0.05);
  EXPECT_EQ(c->told.assumed.size(), 6u);
  EXPECT_TRUE(c->flags.padded.value_or(false));
  EXPECT_FALSE(read("trl sft --model_name_or_path gpt2 --packing --packing_strategy wrapped")->flags.padded.value_or(true));
  EXPECT_EQ(c->flags.head, HeadLoss::trl);
  EXPECT_EQ(c->ignored, std::vector<std::string>{"everything from '|' on"});
  const auto said = read("trl sft --model_name_or_path gpt2 --bf16 false --dtype auto --gradient_checkpointing false --max_length 512 --loss_type nll");
  ASSERT_TRUE(said);
  EXPECT_EQ(said->told.assumed.size(), 2u);  // where the loss comes from, that rows are filled up
  EXPECT_TRUE(said->ignored.empty());
  EXPECT_FALSE(said->flags.mixed || said->flags.weights);
  EXPECT_EQ(said->flags.recompute, Recompute::none);
  for (const char* name : {"single_gpu", "multi_gpu", "zero1", "zero2", "zero3", "fsdp1", "fsdp2"}) {
    TransformersFlags f;
    KeysTold told;
    const auto document = document_from_yaml(trl_accelerate_config(name), name);
    ASSERT_TRUE(document) << name << document.error().message;
    ASSERT_TRUE(apply_accelerate(*document, name, f, told)) << name;
    EXPECT_EQ(f.gpus, std::string_view(name) == "single_gpu" ? 1 : 8) << name;
    EXPECT_TRUE(told.unused.empty()) << name << told.unused[0];
  }
  EXPECT_TRUE(trl_accelerate_config("zero9").empty());
}

TEST(TrainerCommand, preferencesOfTrlAreReadOverItsDefaults) {
  for (const char* script : {"trl dpo", "accelerate launch --num_processes 1 examples/scripts/dpo.py", "python -m trl.scripts.dpo", "python trl/scripts/dpo.py"}) {
    const auto c = read(std::string(script) + " --model_name_or_path gpt2 --per_device_train_batch_size 2 --use_peft --load_in_4bit --loss_type ipo --beta 0.2");
    ASSERT_TRUE(c) << script << c.error().message;
    ASSERT_TRUE(c->flags.preference) << script;
    EXPECT_FALSE(c->flags.preference->precomputed);
    EXPECT_EQ(c->flags.head, HeadLoss::trl);
    EXPECT_EQ(c->flags.recompute, Recompute::full);
    EXPECT_EQ(c->flags.lora->dtype, Dtype::bf16);
    EXPECT_EQ(c->flags.users.script, (std::vector<std::string>{"-m", "trl.scripts.dpo"}));
  }
  const auto before = read("trl dpo --model_name_or_path gpt2 --precompute_ref_log_probs --padding_free");
  ASSERT_TRUE(before);
  EXPECT_TRUE(before->flags.preference->precomputed);
  EXPECT_FALSE(before->flags.packed);
  for (const char* more : {"--loss_type sft", "--use_weighting", "--ld_alpha 0.5", "--sync_ref_model True", "--use_liger_kernel", "--disable_dropout False", "--activation_offloading", "--precompute_ref_batch_size 64"}) {
    const auto refused = read("trl dpo --model_name_or_path gpt2 " + std::string(more));
    ASSERT_FALSE(refused) << more;
    EXPECT_EQ(refused.error().code, "unsupported_training") << more;
  }
}

TEST(TrainerCommand, rolloutsOfTrlAreReadOverItsDefaults) {
  for (const char* script : {"trl grpo", "accelerate launch --num_processes 1 grpo.py", "python -m trl.scripts.grpo", "python trl/scripts/grpo.py"}) {
    const auto c = read(std::string(script) + " --model_name_or_path gpt2 --reward_funcs accuracy_reward think_format_reward --max_completion_length 256 --num_generations 4 --beta 0.04 --temperature 0.9 --top_p 1.0 --num_iterations 2 --loss_type grpo --epsilon 0.1");
    ASSERT_TRUE(c) << script << c.error().message;
    ASSERT_TRUE(c->flags.rollouts) << script;
    const RolloutFlags& g = *c->flags.rollouts;
    EXPECT_EQ(g.completion, 256);
    EXPECT_EQ(g.generations, 4);
    EXPECT_EQ(g.iterations, 2);
    EXPECT_TRUE(g.rest.reference && g.rest.scales_logits && g.rest.drops_out);
    EXPECT_FALSE(g.rest.cuts_sum || g.rest.cuts_most || g.rest.cuts_least || g.rest.penalizes || g.rest.by_vllm);
    EXPECT_EQ(c->flags.head, HeadLoss::trl);
    EXPECT_EQ(c->flags.mixed, MixedPrecision::bf16);
    EXPECT_EQ(c->flags.recompute, Recompute::full);
    EXPECT_FALSE(c->flags.max_seq_len);
    EXPECT_TRUE(c->ignored.empty());
    EXPECT_EQ(c->flags.users.script, (std::vector<std::string>{"-m", "trl.scripts.grpo"}));
  }
  const auto plain = read("trl grpo --model_name_or_path gpt2");
  ASSERT_TRUE(plain);
  EXPECT_FALSE(plain->flags.rollouts->rest.reference || plain->flags.rollouts->generations || plain->flags.rollouts->completion);
  const auto served = read("trl grpo --model_name_or_path gpt2 --use_vllm true --vllm_mode server --vllm_server_host 10.0.0.1 --disable_dropout true --max_prompt_length 300 --steps_per_generation 4");
  ASSERT_TRUE(served) << served.error().message;
  EXPECT_TRUE(served->flags.rollouts->rest.by_vllm && served->flags.rollouts->rest.elsewhere);
  EXPECT_FALSE(served->flags.rollouts->rest.drops_out);
  EXPECT_EQ(served->flags.rollouts->prompt, 300);
  EXPECT_EQ(served->flags.rollouts->steps, 4);
}

TEST(TrainerCommand, whatOfRolloutsIsNotLaidOutIsRefused) {
  for (const char* more : {"--reward_model_name_or_path gpt2", "--sync_ref_model True", "--use_liger_kernel", "--eval_strategy steps", "--eval_on_start", "--use_transformers_continuous_batching true", "--cast_lm_head_to_fp32", "--entropy_coef 0.01", "--use_adaptive_entropy true", "--pad_to_multiple_of 8",
                           "--cache_implementation static", "--generation_kwargs {}", "--vllm_enable_sleep_mode true", "--lora_modules_to_save lm_head"}) {
    const auto refused = read("trl grpo --model_name_or_path gpt2 " + std::string(more));
    ASSERT_FALSE(refused) << more;
    EXPECT_EQ(refused.error().code, "unsupported_training") << more;
    EXPECT_FALSE(refused.error().hint.empty() || refused.error().where.empty()) << more;
  }
  for (const char* more : {"--num_generations x", "--max_completion_length 0", "--max_completion_length 99999999", "--beta no", "--vllm_mode elsewhere", "--vllm_gpu_memory_utilization 1.5", "--use_vllm perhaps"}) {
    const auto refused = read("trl grpo --model_name_or_path gpt2 " + std::string(more));
    ASSERT_FALSE(refused) << more;
    EXPECT_FALSE(refused.error().where.empty()) << more;
  }
  for (const char* more : {"--eval_strategy no", "--entropy_coef 0.0", "--pad_to_multiple_of auto", "--cache_implementation dynamic", "--sync_ref_model False", "--vllm_enable_sleep_mode false", "--min_p None"}) EXPECT_TRUE(read("trl grpo --model_name_or_path gpt2 " + std::string(more))) << more;
}

TEST(TrainerCommand, likedAnswersAndRewardsOfTrlAreReadOverItsDefaults) {
  for (const char* script : {"trl kto", "accelerate launch --num_processes 1 examples/scripts/kto.py", "python -m trl.scripts.kto"}) {
    const auto c = read(std::string(script) + " --model_name_or_path gpt2 --loss_type apo_zero_unpaired --beta 0.2 --per_device_train_batch_size 1");
    ASSERT_TRUE(c) << script << c.error().message;
    ASSERT_TRUE(c->flags.preference) << script;
    EXPECT_EQ(name_of(*c->flags.preference), "kto-unpaired");
    EXPECT_EQ(c->flags.head, HeadLoss::trl);
    EXPECT_EQ(c->flags.max_seq_len, 1024);
    EXPECT_EQ(c->flags.users.script, (std::vector<std::string>{"-m", "trl.scripts.kto"}));
  }
  const auto reward = read("trl reward --model_name_or_path gpt2 --use_peft --load_in_4bit --center_rewards_coefficient 0.01");
  ASSERT_TRUE(reward);
  EXPECT_EQ(name_of(*reward->flags.preference), "reward");
  EXPECT_EQ(reward->flags.task, HeadKind::sequences);
  EXPECT_EQ(reward->flags.labels, 1);
  EXPECT_EQ(reward->flags.saves_head, false);  // peft's task is CAUSAL_LM where nobody says another
  EXPECT_FALSE(reward->flags.head);
  EXPECT_EQ(reward->flags.recompute, Recompute::full);
  EXPECT_EQ(reward->flags.lora->dtype, Dtype::bf16);
  EXPECT_EQ(read("trl reward --model_name_or_path gpt2 --use_peft --lora_task_type SEQ_CLS")->flags.saves_head, true);
  struct Refused { const char *text, *code; };
  for (const Refused& r : {Refused{"trl kto --model_name_or_path gpt2 --loss_type bco", "bad_value"}, Refused{"trl kto --model_name_or_path gpt2 --per_device_train_batch_size 1", "bad_value"}, Refused{"trl kto --model_name_or_path gpt2 --sync_ref_model", "unsupported_training"},
                           Refused{"trl reward --model_name_or_path gpt2 --activation_offloading", "unsupported_training"}, Refused{"trl reward --model_name_or_path gpt2 --disable_dropout False", "unsupported_training"}}) {
    const auto refused = read(r.text);
    ASSERT_FALSE(refused) << r.text;
    EXPECT_EQ(refused.error().code, r.code) << r.text;
  }
}

TEST(TrainerCommand, whatIsNotLaidOutIsRefusedByName) {
  for (const char* text : {"trl rloo --model_name_or_path gpt2", "trl"}) {
    const auto launch = parse_launch(*shell_split(text));
    ASSERT_FALSE(launch) << text;
    EXPECT_NE(launch.error().hint.find("dryfit.capture"), std::string::npos) << text;
  }
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
  const auto smoothed = read("python train.py --model_name_or_path gpt2 --label_smoothing_factor 0.1");
  ASSERT_FALSE(smoothed);
  EXPECT_EQ(smoothed.error().code, "unsupported_training");
  EXPECT_TRUE(read("python train.py --model_name_or_path gpt2 --label_smoothing_factor 0.0"));
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
  EXPECT_EQ(fsdp->flags.flat->backward_prefetch, FlatShardConfig::Prefetch::none);  // Trainer's default
  const auto ahead = read("torchrun --nproc_per_node 2 train.py --model_name_or_path gpt2 --fsdp 'shard_grad_op auto_wrap' --fsdp_config '{\"backward_prefetch\": \"backward_pre\", \"use_orig_params\": \"false\"}'");
  ASSERT_TRUE(ahead);
  EXPECT_EQ(ahead->flags.sharding, Sharding::fsdp1_grad_op);
  EXPECT_EQ(ahead->flags.flat->backward_prefetch, FlatShardConfig::Prefetch::pre);
  EXPECT_FALSE(ahead->flags.flat->original_parameters);
  EXPECT_TRUE(ahead->flags.fsdp_unsaid);  // which of them it is transformers' version tells
  EXPECT_FALSE(read("torchrun --nproc_per_node 2 train.py --model_name_or_path gpt2 --fsdp full_shard --fsdp_config '{\"version\": 1}'")->flags.fsdp_unsaid);
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
  EXPECT_EQ(first->flags.flat->backward_prefetch, FlatShardConfig::Prefetch::post);
  EXPECT_TRUE(first->flags.flat->forward_prefetch);
  EXPECT_EQ(first->flags.recompute, Recompute::full);
  EXPECT_TRUE(first->ignored.empty());
  EXPECT_EQ(read("accelerate launch --num_processes 4 --use_fsdp train.py --model_name_or_path gpt2")->flags.wrap_blocks, false);  // NO_WRAP
}

// The file's arguments come first, the command's own over them.
TEST(TrainerCommand, argumentsInAFile) {
  const auto with = [](std::string_view command, std::string_view yaml) -> Result<TrainerCommand> {
    const auto launch = parse_launch(*shell_split(command));
    EXPECT_EQ(argument_file(*launch), "args.yaml");
    const auto filed = arguments_in(*document_from_yaml(yaml, "args.yaml"), "args.yaml");
    if (!filed) return std::unexpected(filed.error());
    return read_trainer_command(*launch, *filed);
  };
  const auto sft = with("accelerate launch --num_processes 2 sft.py --config args.yaml --per_device_train_batch_size 4 --bf16 False --use_liger_kernel",
                        "model_name_or_path: gpt2\nper_device_train_batch_size: 2\nbf16: yes\nmax_grad_norm: 1.0e-1\nuse_peft: true\nlora_target_modules: [c_attn, c_proj]\ngradient_checkpointing: true\n"
                        "gradient_checkpointing_kwargs: {use_reentrant: false}\nreport_to: null\nlearning_rate: 1e-5\nweight_decay: 0.01\npacking: true\nneftune_noise_alpha: 5\ndeepspeed: {zero_optimization: {stage: 2}}\n");
  ASSERT_TRUE(sft) << sft.error().message;
  const TransformersFlags& f = sft->flags;
  EXPECT_EQ(f.model, "gpt2");
  EXPECT_EQ(f.device_batch_size, 4);
  EXPECT_FALSE(f.mixed);
  EXPECT_EQ(f.gpus, 2);
  EXPECT_EQ(f.max_grad_norm, 0.1);
  EXPECT_EQ(f.weight_decay, 0.01);
  EXPECT_EQ(f.reentrant, false);
  EXPECT_EQ(f.lora->targets, (std::vector<std::string>{"c_attn", "c_proj"}));
  EXPECT_EQ(sft->deepspeed_file, "{\"zero_optimization\": {\"stage\": 2}}");
  EXPECT_EQ(sft->told.unused, std::vector<std::string>{"neftune_noise_alpha"});
  EXPECT_EQ(sft->told.used.size(), 10u);
  EXPECT_EQ(f.packed, true);
  EXPECT_EQ(f.liger, true);
  EXPECT_TRUE(sft->ignored.empty());
  const auto alone = with("python run_clm.py args.yaml", "model_name_or_path: gpt2\nblock_size: 512\nfsdp: full_shard auto_wrap\n");
  ASSERT_TRUE(alone) << alone.error().message;
  EXPECT_EQ(alone->flags.max_seq_len, 512);
  EXPECT_EQ(alone->flags.sharding, Sharding::fsdp1);
  EXPECT_TRUE(alone->ignored.empty());
  const auto where = [&](std::string_view yaml) {
    const auto c = with("python run_clm.py args.yaml", yaml);
    return c ? std::string("none") : c.error().where;
  };
  EXPECT_EQ(where("model_name_or_path: gpt2\nbf16: maybe\n"), "args.yaml: bf16");
  EXPECT_EQ(where("model_name_or_path: gpt2\nper_device_train_batch_size: 0\n"), "args.yaml: per_device_train_batch_size");
  EXPECT_EQ(where("model_name_or_path: gpt2\nfsdp: hybrid_shard\n"), "args.yaml: fsdp");
  EXPECT_EQ(where("- 1\n"), "args.yaml");
  EXPECT_EQ(where("learning_rate: 0.1\n"), "args.yaml");
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
  for (const char* text : {"python train.py config.py", "python -m scripts.base_train --depth=4", "torchrun train.py"}) EXPECT_FALSE(is_trainer_command(*parse_launch(*shell_split(text)))) << text;
}

}  // namespace
}  // namespace dryfit
