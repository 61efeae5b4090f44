// LLaMA-Factory's commands: which file, which launcher, what stands over the file.
#include <gtest/gtest.h>

#include "plan/launch.hpp"
#include "plan/llamafactory_command.hpp"

namespace dryfit {
namespace {

Result<LlamafactoryCommand> factory_command(std::string_view text, std::optional<std::int64_t> gpus = {}) {
  const auto launch = parse_launch(*shell_split(text));
  if (!launch) return std::unexpected(launch.error());
  EXPECT_TRUE(is_llamafactory_command(*launch)) << text;
  return read_llamafactory_command(*launch, gpus);
}

TEST(LlamafactoryCommand, launchersAndGpus) {
  struct Case { const char* text; std::optional<std::int64_t> gpus; bool expands; };
  for (const Case& c : {Case{"llamafactory-cli train a.yaml", std::nullopt, false}, Case{"CUDA_VISIBLE_DEVICES=0,1 llamafactory-cli train a.yaml | tee log", 2, true}, Case{"lmf train a.yaml", std::nullopt, false}, Case{"FORCE_TORCHRUN=1 llamafactory-cli train a.yaml", std::nullopt, true},
                        Case{"FORCE_TORCHRUN=1 NNODES=2 NPROC_PER_NODE=8 NODE_RANK=0 MASTER_ADDR=a MASTER_PORT=1 llamafactory-cli train a.yaml", 16, true}, Case{"OPTIM_TORCH=0 CUDA_VISIBLE_DEVICES=0,1 llamafactory-cli train a.yaml", 2, false}, Case{"CUDA_VISIBLE_DEVICES=3 llamafactory-cli train a.yaml", 1, false}}) {
    const auto read = factory_command(c.text);
    ASSERT_TRUE(read) << c.text << " " << read.error().message;
    EXPECT_EQ(read->file, "a.yaml") << c.text;
    EXPECT_EQ(read->launched.flags.gpus, c.gpus) << c.text;
    EXPECT_EQ(read->launched.alloc_conf.has_value(), c.expands) << c.text;
  }
  EXPECT_TRUE(factory_command("llamafactory-cli train a.yaml", 4)->launched.alloc_conf);
}

TEST(LlamafactoryCommand, wordsOverTheFile) {
  const auto c = factory_command("llamafactory-cli train a.yaml cutoff_len=4096 bf16=true");
  ASSERT_TRUE(c);
  ASSERT_EQ(c->over.size(), 2u);
  EXPECT_EQ(c->over[0].name, "cutoff_len");
  EXPECT_EQ(c->over[0].values[0], "4096");
  const auto flags = factory_command("python src/train_bash.py --stage sft --model_name_or_path gpt2 --do_train --finetuning_type lora --lora_target q_proj,v_proj --per_device_train_batch_size 4");
  ASSERT_TRUE(flags);
  EXPECT_TRUE(flags->file.empty());
  ASSERT_EQ(flags->over.size(), 6u);
  EXPECT_EQ(flags->over[2].name, "do_train");
  EXPECT_EQ(flags->over[2].values[0], "true");
}

TEST(LlamafactoryCommand, whatTrainsNothing) {
  for (const char* text : {"llamafactory-cli chat a.yaml", "llamafactory-cli", "llamafactory-cli train", "NPROC_PER_NODE=many llamafactory-cli train a.yaml"}) {
    const auto launch = parse_launch(*shell_split(text));
    const auto read = launch ? read_llamafactory_command(*launch, {}) : Result<LlamafactoryCommand>(std::unexpected(launch.error()));
    ASSERT_FALSE(read) << text;
    EXPECT_FALSE(read.error().hint.empty()) << text;
  }
  EXPECT_FALSE(is_llamafactory_command(*parse_launch(*shell_split("python train.py --stage 3 --model_name_or_path gpt2"))));
}

}  // namespace
}  // namespace dryfit
