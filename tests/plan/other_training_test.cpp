// Commands that ask for another training than what would be laid out: an error that names the place, in place of a figure of some other run.
#include <gtest/gtest.h>

#include "plan/argument_file.hpp"
#include "plan/launch.hpp"
#include "plan/trainer_command.hpp"
#include "workload/probe_document.hpp"
#include "workload/probe_presets.hpp"

namespace dryfit {
namespace {

Result<TrainerCommand> read(std::string_view text) { return read_trainer_command(*parse_launch(*shell_split(text))); }

TEST(OtherTraining, trainersOfPreferencesAndRewardsAreRefused) {
  struct Case { const char *text, *where; };
  for (const Case& c : {Case{"python scripts/run_dpo.py --model_name_or_path gpt2", "pasted command"}, Case{"accelerate launch examples/scripts/dpo_vlm.py --model_name_or_path gpt2", "pasted command"}, Case{"python scripts/run_orpo.py --model_name_or_path gpt2", "pasted command"},
                        Case{"python -m trl.scripts.rloo --model_name_or_path gpt2", "pasted command"}, Case{"python examples/scripts/reward_modeling.py --model_name_or_path gpt2", "pasted command"}, Case{"python open_instruct/grpo_fast.py --model_name_or_path gpt2", "pasted command"},
                        Case{"python train.py --model_name_or_path gpt2 --num_generations 8", "--num-generations"}, Case{"python train.py --model_name_or_path gpt2 --max_prompt_length 512", "--max-prompt-length"}, Case{"python train.py --model_name_or_path gpt2 --pref_loss sigmoid", "--pref-loss"}}) {
    const auto read_ = read(c.text);
    ASSERT_FALSE(read_) << c.text;
    EXPECT_EQ(read_.error().code, "unsupported_training") << c.text;
    EXPECT_EQ(read_.error().where, c.where) << c.text;
    EXPECT_NE(read_.error().hint.find("dryfit.capture"), std::string::npos) << c.text;
  }
  for (const char* text : {"python dpo_data/sft.py --model_name_or_path gpt2", "python sft.py --model_name_or_path gpt2 --num_generations 0", "python endpoints.py --model_name_or_path gpt2"}) EXPECT_TRUE(read(text)) << text;
}

std::optional<Unclear> about(std::string_view text) {
  const auto c = read("python train.py --model_name_or_path gpt2 " + std::string(text));
  EXPECT_TRUE(c) << text;
  if (!c || c->unclear.empty()) return std::nullopt;
  EXPECT_EQ(c->unclear.size(), 1u) << text;
  EXPECT_FALSE(unclear_error(c->unclear[0]).hint.empty());
  return c->unclear[0].about;
}

TEST(OtherTraining, whatOnlyTheScriptKnowsIsNotPassedOver) {
  struct Case { const char* text; Unclear about; };
  for (const Case& c : {Case{"--load_in_8bit", Unclear::int8}, Case{"--bits 4", Unclear::quantization}, Case{"--quantization_bit 4", Unclear::quantization}, Case{"--lora_modules all", Unclear::adapters}, Case{"--use_my_lora True", Unclear::adapters}, Case{"--finetuning_type lora", Unclear::adapters},
                        Case{"--freeze_layers 20", Unclear::freezing}, Case{"--tensor_parallel_size 2", Unclear::parallel}, Case{"--sequence_parallel_size 4", Unclear::parallel}, Case{"--cpu_offload True", Unclear::offload}, Case{"--activation_offloading", Unclear::activations}, Case{"--lora_r 64", Unclear::adapters},
                        Case{"--lora_target_modules q_proj v_proj", Unclear::adapters}}) {
    EXPECT_EQ(about(c.text), c.about) << c.text;
  }
  // said off, of a kind that moves nothing, or explained
  for (const char* text : {"--load_in_8bit False", "--tensor_parallel_size 1", "--freeze_backbone false", "--lora_alpha 16", "--use_rslora True", "--bnb_4bit_quant_type nf4", "--optim adamw_8bit", "--use_peft --lora_r 64", "--use_peft False --lora_r 64", "--offload_folder x"}) EXPECT_EQ(about(text), std::nullopt) << text;
  const auto trl = read("python trl/scripts/sft.py --model_name_or_path gpt2 --lora_r 64");  // without --use_peft its ModelConfig makes none
  ASSERT_TRUE(trl);
  EXPECT_TRUE(trl->unclear.empty());
  EXPECT_FALSE(trl->flags.lora);
  const auto launcher = read("accelerate launch --parallelism_config_cp_size 2 train.py --model_name_or_path gpt2");
  ASSERT_TRUE(launcher);
  ASSERT_EQ(launcher->unclear.size(), 1u);
  EXPECT_EQ(launcher->unclear[0].about, Unclear::parallel);
}

// peft's examples/sft/train.py has names of its own.
TEST(OtherTraining, namesOfPeftsExample) {
  const auto c = read("python train.py --model_name_or_path meta-llama/Llama-2-7b-hf --use_peft_lora True --lora_r 8 --lora_target_modules all-linear --use_4bit_quantization True --use_nested_quant True --bnb_4bit_quant_storage_dtype bfloat16 --use_flash_attn True --use_reentrant True");
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_TRUE(c->unclear.empty());
  ASSERT_TRUE(c->flags.lora);
  EXPECT_EQ(c->flags.lora->rank, 8);
  EXPECT_TRUE(c->flags.quantized && c->flags.double_quantized);
  EXPECT_EQ(c->flags.quant_storage, Dtype::bf16);
  EXPECT_EQ(c->flags.weights, Dtype::bf16);
  EXPECT_EQ(c->flags.attention, AttentionCode::flash_attention_2);
  EXPECT_EQ(c->flags.reentrant, true);
  const auto prompt = read("python train.py --model_name_or_path gpt2 --num_virtual_tokens 20");
  ASSERT_TRUE(prompt && prompt->flags.lora);
  EXPECT_EQ(prompt->flags.lora->virtual_tokens, 20);
}

// The stage is the file's where accelerate is given one.
TEST(OtherTraining, aStageIsOnlyAssumedWithoutAFile) {
  EXPECT_EQ(read("accelerate launch --use_deepspeed t.py --model_name_or_path gpt2")->flags.sharding, Sharding::zero2);
  const auto c = read("accelerate launch --use_deepspeed --deepspeed_config_file z3.json t.py --model_name_or_path gpt2");
  EXPECT_FALSE(c->flags.sharding);
  EXPECT_EQ(c->deepspeed_file, "z3.json");
}

// An evaluation is laid out; of one that is not, compiled, what is said are the logits that no training step makes: of more rows, or by Liger-Kernel. Never by TRL's head.
TEST(OtherTraining, evaluationsAreLaidOutOrWarnedOf) {
  const auto workload = [](std::string_view text) {
    const auto c = read("python t.py --model_name_or_path gpt2 " + std::string(text));
    EXPECT_TRUE(c) << text;
    const auto w = make_transformers_workload(find_preset("gpt2")->preset->model, c->flags);
    EXPECT_TRUE(w) << text;
    return *w;
  };
  const auto warns = [&](std::string_view text) {
    for (const std::string& one : workload(text).warnings) {
      if (one.starts_with("the script evaluates")) return one.substr(one.find("whose"));
    }
    return std::string();
  };
  EXPECT_EQ(warns("--torch_compile --do_eval --bf16 --per_device_train_batch_size 2"), "whose logits take 3.8 GiB beside weights and optimizer");  // 8 x 1024 x 50257 x (2 + 4 + 4)
  EXPECT_EQ(warns("--torch_compile --do_eval --per_device_train_batch_size 2 --per_device_eval_batch_size 4"), "whose logits take 1.5 GiB beside weights and optimizer");  // x (4 + 4)
  for (const char* text : {"--do_eval --per_device_train_batch_size 2", "--torch_compile --do_eval --per_device_train_batch_size 8", "--torch_compile --eval_strategy no --per_device_train_batch_size 2"}) EXPECT_EQ(warns(text), "") << text;
  const auto evaluation = [&](std::string_view text) { return workload(text).transformers->training.evaluation; };
  ASSERT_TRUE(evaluation("--eval_strategy steps"));
  EXPECT_EQ(evaluation("--eval_strategy steps")->batch_size, 8);
  const auto said = evaluation("--evaluation_strategy epoch --per_device_eval_batch_size 3 --eval_accumulation_steps 5 --max_eval_samples 100 --eval_on_start");
  ASSERT_TRUE(said);
  EXPECT_EQ(said->batch_size, 3);
  EXPECT_EQ(said->accumulation, 5);
  EXPECT_EQ(said->batches, 34);
  EXPECT_TRUE(said->on_start);
  EXPECT_EQ(said->keeps, EvaluationRun::Keeps::loss);  // of a script that nothing is known of
  for (const char* text : {"", "--eval_strategy no", "--do_eval False", "--per_device_eval_batch_size 4"}) EXPECT_FALSE(evaluation(text)) << text;
  const auto c = read("python t.py --model_name_or_path gpt2 --do_eval --per_device_train_batch_size 2 --eval_strategy steps --eval_accumulation_steps 4");
  EXPECT_EQ(c->flags.users.kept, (std::vector<std::string>{"--do_eval", "--eval_strategy", "steps", "--eval_accumulation_steps", "4"}));  // the printed command keeps them
}

// run_clm.py hands Trainer an argmax over the logits, where it evaluates.
TEST(OtherTraining, examplesThatMeasureAccuracyKeepPredictions) {
  const auto keeps = [](std::string_view text) { return read(text)->flags.eval_keeps; };
  EXPECT_EQ(keeps("python examples/pytorch/language-modeling/run_clm.py --model_name_or_path gpt2 --do_eval"), EvaluationRun::Keeps::choices);
  EXPECT_FALSE(keeps("python run_clm.py --model_name_or_path gpt2 --do_eval --prediction_loss_only"));
  EXPECT_FALSE(keeps("python run_clm.py --model_name_or_path gpt2"));
  EXPECT_FALSE(keeps("python train.py --model_name_or_path gpt2 --do_eval"));
}

TEST(OtherTraining, wordsThatTurnTheCompilerOn) {
  EXPECT_EQ(read("python t.py --model_name_or_path gpt2 --torch_compile_backend inductor")->flags.compile, true);
  EXPECT_EQ(read("python t.py --model_name_or_path gpt2 --torch_compile_mode reduce-overhead").error().where, "--torch-compile-mode");
}

// alignment-handbook: a file, and flags over it.
TEST(OtherTraining, aFileWithFlagsBehindIt) {
  const auto launch = parse_launch(*shell_split("accelerate launch --num_processes 2 scripts/run_sft.py args.yaml --load_in_4bit=true --per_device_train_batch_size=4"));
  ASSERT_TRUE(is_trainer_command(*launch));
  EXPECT_EQ(argument_file(*launch), "args.yaml");
  const auto filed = arguments_in(*document_from_yaml("model_name_or_path: gpt2\nuse_peft: true\nper_device_train_batch_size: 2\n", "args.yaml"), "args.yaml");
  const auto c = read_trainer_command(*launch, *filed);
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_TRUE(c->flags.quantized);
  EXPECT_EQ(c->flags.device_batch_size, 4);
  EXPECT_TRUE(c->ignored.empty());
}

}  // namespace
}  // namespace dryfit
