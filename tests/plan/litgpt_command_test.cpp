// Pasted commands of LitGPT: what is used, what is refused, and that the command written for a run is read back as the same run.
#include <gtest/gtest.h>

#include "base/text.hpp"
#include "plan/argument_file.hpp"
#include "plan/litgpt_command.hpp"
#include "workload/probe_document.hpp"

namespace dryfit {
namespace {

Result<TrainerCommand> read(std::string_view line) {
  std::vector<std::string> words;
  for (std::string_view w : split(line, ' ')) words.emplace_back(w);
  const auto launch = parse_launch(words);
  if (!launch) return std::unexpected(launch.error());
  EXPECT_TRUE(is_litgpt_command(*launch));
  return read_litgpt_command(*launch);
}

TEST(LitgptCommand, QloraOfEveryPart) {
  const auto c = read("litgpt finetune_lora checkpoints/microsoft/phi-2 --precision bf16-true --quantize=bnb.nf4-dq --lora_r 16 --lora_dropout 0.1 --lora_key true --lora_mlp true --lora_query false --train.micro_batch_size 4 --train.global_batch_size 16 "
                      "--train.max_seq_length 512 --data Alpaca2k --lora_alpha 16 --devices 2");
  ASSERT_TRUE(c) << c.error().message;
  const TransformersFlags& f = c->flags;
  EXPECT_EQ(f.model, "microsoft/phi-2");
  EXPECT_EQ(f.framework, Framework::litgpt);
  EXPECT_EQ(f.litgpt_script, LitgptScript::lora);
  EXPECT_EQ(f.weights, Dtype::bf16);
  EXPECT_EQ(f.mixed, MixedPrecision::none);
  EXPECT_TRUE(f.quantized && f.double_quantized);
  EXPECT_EQ(f.device_batch_size, 4);
  EXPECT_EQ(f.grad_accum_steps, 2);  // 16 over 2 GPUs of 4
  EXPECT_EQ(f.gpus, 2);
  ASSERT_TRUE(f.lora);
  EXPECT_EQ(f.lora->rank, 16);
  EXPECT_EQ(f.lora->targets, (std::vector<std::string>{"k_proj", "v_proj", "mlp"}));
  EXPECT_EQ(c->ignored, (std::vector<std::string>{"--data"}));
}

// What follows --config wins over the file, what stands before it does not.
TEST(LitgptCommand, ArgumentsInAFile) {
  const auto with = [](std::string_view line, std::string_view yaml) -> Result<TrainerCommand> {
    std::vector<std::string> words;
    for (std::string_view w : split(line, ' ')) words.emplace_back(w);
    const auto launch = parse_launch(words);
    EXPECT_EQ(argument_file(*launch), "q.yaml");
    const auto filed = arguments_in(*document_from_yaml(yaml, "q.yaml"), "q.yaml", true);
    if (!filed) return std::unexpected(filed.error());
    return read_litgpt_command(*launch, *filed);
  };
  const auto c = with("litgpt finetune_lora --lora_r 4 --config q.yaml --train.micro_batch_size 1",
                      "checkpoint_dir: checkpoints/microsoft/phi-2\nprecision: bf16-true\nquantize: bnb.nf4\nlora_r: 32\nlora_mlp: true\nlora_key: false\ndata: {class_path: litgpt.data.Alpaca2k, init_args: {seed: 42}}\n"
                      "train: {micro_batch_size: 2, global_batch_size: 8, max_seq_length: 512, max_tokens: null, tie_embeddings: true}\noptimizer: {class_path: torch.optim.SGD, init_args: {lr: 1.0e-2, foreach: false}}\n");
  ASSERT_TRUE(c) << c.error().message;
  const TransformersFlags& f = c->flags;
  EXPECT_EQ(f.model, "microsoft/phi-2");
  EXPECT_EQ(f.lora->rank, 32);
  EXPECT_EQ(f.lora->targets, (std::vector<std::string>{"q_proj", "v_proj", "mlp"}));
  EXPECT_EQ(f.device_batch_size, 1);
  EXPECT_EQ(f.grad_accum_steps, 8);
  EXPECT_EQ(f.max_seq_len, 512);
  EXPECT_EQ(f.optimizer, OptimizerKind::sgd);
  EXPECT_TRUE(f.quantized);
  EXPECT_EQ(c->told.used, (std::vector<std::string>{"checkpoint_dir", "precision", "quantize", "lora_r", "lora_mlp", "lora_key", "train.micro_batch_size", "train.global_batch_size", "train.max_seq_length", "optimizer.class_path"}));
  EXPECT_EQ(c->told.unused, (std::vector<std::string>{"train.tie_embeddings", "optimizer.init_args.foreach"}));
  const auto where = [&](std::string_view yaml) {
    const auto wrong = with("litgpt finetune_lora --config q.yaml", yaml);
    return wrong ? std::string("none") : wrong.error().where;
  };
  EXPECT_EQ(where("train: {micro_batch_size: 0}\n"), "q.yaml: train.micro_batch_size");
  EXPECT_EQ(where("lora_key: 3\n"), "q.yaml: lora_key");
  EXPECT_EQ(where("precision: fp8\n"), "q.yaml: precision");
  EXPECT_EQ(where("model_config: {n_layer: 2}\n"), "q.yaml: model_config.n_layer");
}

TEST(LitgptCommand, OlderNamesAndDefaults) {
  const auto c = read("litgpt finetune adapter_v2 --checkpoint_dir checkpoints/meta-llama/Llama-2-7b-hf");
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_EQ(c->flags.litgpt_script, LitgptScript::adapter_v2);
  EXPECT_EQ(c->flags.model, "meta-llama/Llama-2-7b-hf");
  EXPECT_FALSE(c->flags.lora);
  EXPECT_EQ(c->flags.mixed, MixedPrecision::bf16);  // over fp32 weights: LitGPT's default
  EXPECT_EQ(c->flags.weights, Dtype::fp32);
  EXPECT_EQ(c->flags.device_batch_size, 1);
  EXPECT_EQ(c->flags.grad_accum_steps, 16);
  EXPECT_EQ(read("litgpt pretrain tiny-llama-1.1b --train.micro_batch_size 8")->flags.grad_accum_steps, 64);
}

TEST(LitgptCommand, WrongOnesAreToldWithTheFlag) {
  for (const auto& [line, where] : {std::pair{"litgpt", "pasted command"}, std::pair{"litgpt chat some/model", "litgpt"}, std::pair{"litgpt finetune_lora m --quantize int3", "--quantize"}, std::pair{"litgpt finetune_lora m --quantize bnb.nf4", "--quantize"}, std::pair{"litgpt finetune_full m --quantize bnb.nf4", "--quantize"},
                                    std::pair{"litgpt finetune_lora m --precision fp8", "--precision"}, std::pair{"litgpt finetune_lora m --lora_key maybe", "--lora-key"}, std::pair{"litgpt finetune_lora m --train.micro_batch_size 0", "--train.micro-batch-size"},
                                    std::pair{"litgpt finetune_lora m --lora_r x", "--lora-r"}, std::pair{"litgpt finetune_lora m --lora_query false --lora_value false", "pasted command"}, std::pair{"litgpt finetune_lora m --optimizer Shampoo", "--optimizer"}}) {
    const auto c = read(line);
    ASSERT_FALSE(c) << line;
    EXPECT_EQ(c.error().where, where) << line;
    EXPECT_FALSE(c.error().hint.empty()) << line;
  }
}

}  // namespace
}  // namespace dryfit
