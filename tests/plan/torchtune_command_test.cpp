// torchtune's command line: launcher, recipe, configuration and the words over it; what is no recipe is refused with a way out.
#include <gtest/gtest.h>

#include "plan/launch.hpp"
#include "plan/torchtune_command.hpp"

namespace dryfit {
namespace {

Result<TorchtuneCommand> read(std::string_view text) {
  const auto words = shell_split(text);
  const auto launch = parse_launch(*words);
  if (!launch) return std::unexpected(launch.error());
  EXPECT_TRUE(is_torchtune_command(*launch));
  return read_torchtune_command(*launch);
}

TEST(TorchtuneCommand, itsWords) {
  const auto c = read("PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True tune run lora_finetune_single_device --config llama3_2/3B_lora_single_device batch_size=4 model.lora_attn_modules=['q_proj','v_proj'] ~lr_scheduler > log");
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_EQ(c->recipe, TorchtuneRecipe::lora_single_device);
  EXPECT_EQ(c->config, "llama3_2/3B_lora_single_device");
  EXPECT_EQ(c->launched.alloc_conf, "expandable_segments:True");
  EXPECT_EQ(c->launched.flags.gpus, 1);
  ASSERT_EQ(c->over.size(), 3U);
  EXPECT_EQ(c->over[0].name, "batch_size");
  EXPECT_EQ(c->over[1].values[0], "[q_proj,v_proj]");  // as the shell leaves it
  EXPECT_EQ(c->over[2].name, "lr_scheduler");
  const auto several = read("tune run --nproc_per_node 4 full_finetune_distributed --config=my.yaml");
  ASSERT_TRUE(several) << several.error().message;
  EXPECT_EQ(several->launched.flags.gpus, 4);
  EXPECT_EQ(several->config, "my.yaml");
}

TEST(TorchtuneCommand, faults) {
  for (const char* text : {"tune", "tune ls", "tune run", "tune run lora_finetune_single_device", "tune run lora_finetune_single_device --config", "tune run lora_dpo_single_device --config a.yaml", "tune run my_recipe.py --config a.yaml",
                           "tune run lora_finetune_single_device --config a.yaml batch_size", "tune run lora_finetune_single_device --config a.yaml --batch-size=2"}) {
    const auto c = read(text);
    ASSERT_FALSE(c) << text;
    EXPECT_FALSE(c.error().hint.empty()) << text;
    EXPECT_FALSE(c.error().where.empty()) << text;
  }
}

}  // namespace
}  // namespace dryfit
