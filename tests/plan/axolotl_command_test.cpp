// axolotl's commands: which file, which launcher, what stands over the file.
#include <gtest/gtest.h>

#include "plan/axolotl_command.hpp"
#include "plan/launch.hpp"

namespace dryfit {
namespace {

Result<AxolotlCommand> read(std::string_view text) {
  const auto launch = parse_launch(*shell_split(text));
  if (!launch) return std::unexpected(launch.error());
  EXPECT_TRUE(is_axolotl_command(*launch)) << text;
  return read_axolotl_command(*launch);
}

TEST(AxolotlCommand, startsByItsProgramOrALauncher) {
  struct Case { const char* text; std::optional<std::int64_t> gpus; };
  for (const Case& c : {Case{"axolotl train config.yml", std::nullopt}, Case{"axolotl train config.yml --num-processes 4", 4}, Case{"axolotl train config.yml --launcher torchrun -- --nproc_per_node=2 --nnodes 2 | tee log", 4},
                        Case{"CUDA_VISIBLE_DEVICES=0,1 axolotl train config.yml", 2}, Case{"axolotl train config.yml --launcher=python", 1}, Case{"axolotl train config.yml -- --num_processes 8 --config_file a.yaml", 8},
                        Case{"accelerate launch --num_processes 8 -m axolotl.cli.train config.yml", 8}, Case{"python -m axolotl.cli.train config.yml", 1}, Case{"torchrun --nproc_per_node 3 -m axolotl.cli.train config.yml", 3}}) {
    const auto read_ = read(c.text);
    ASSERT_TRUE(read_) << c.text << read_.error().message;
    EXPECT_EQ(read_->file, "config.yml") << c.text;
    EXPECT_EQ(read_->launched.flags.gpus, c.gpus) << c.text;
    EXPECT_TRUE(read_->over.empty()) << c.text;
  }
  EXPECT_EQ(read("axolotl train config.yml -- --num_processes 8 --config_file a.yaml")->launched.accelerate_file, "a.yaml");
}

TEST(AxolotlCommand, itsWordsStandOverTheFile) {
  const auto c = read("PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True axolotl train config.yml --micro-batch-size 4 --sequence_len=2048 --no-sample-packing --gradient-checkpointing");
  ASSERT_TRUE(c);
  ASSERT_EQ(c->over.size(), 4u);
  const char* const names[] = {"micro_batch_size", "sequence_len", "sample_packing", "gradient_checkpointing"};
  const char* const values[] = {"4", "2048", "false", "true"};
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(c->over[i].name, names[i]);
    EXPECT_EQ(c->over[i].values, std::vector<std::string>{values[i]});
  }
  EXPECT_EQ(c->launched.alloc_conf, "expandable_segments:True");
}

TEST(AxolotlCommand, refusesWhatDoesNotTrain) {
  for (const char* text : {"axolotl", "axolotl preprocess config.yml", "axolotl train", "axolotl train --micro-batch-size=2", "axolotl train config.yml --launcher ray", "axolotl train config.yml --launcher", "python -m axolotl.cli.train"}) {
    const auto launch = parse_launch(*shell_split(text));
    const auto command = launch ? read_axolotl_command(*launch) : Result<AxolotlCommand>(std::unexpected(launch.error()));
    ASSERT_FALSE(command) << text;
    EXPECT_EQ(command.error().code, "bad_command") << text;
    EXPECT_FALSE(command.error().hint.empty()) << text;
  }
}

}  // namespace
}  // namespace dryfit
