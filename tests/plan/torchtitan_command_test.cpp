// torchtitan's command line: torchrun and run_train.sh, the file and the words over it, and what later versions write.
#include <gtest/gtest.h>

#include <algorithm>

#include "plan/launch.hpp"
#include "plan/torchtitan_command.hpp"

namespace dryfit {
namespace {

Result<TorchtitanCommand> read(std::string_view text) {
  const auto words = shell_split(text);
  const auto launch = parse_launch(*words);
  if (!launch) return std::unexpected(launch.error());
  EXPECT_TRUE(is_torchtitan_command(*launch)) << text;
  return read_torchtitan_command(*launch);
}

TEST(TorchtitanCommand, itsWords) {
  const auto c = read("PYTORCH_ALLOC_CONF=expandable_segments:True torchrun --nproc_per_node 8 --rdzv_backend c10d -m torchtitan.train --job.config_file ./llama3_8b.toml --training.local-batch-size 1 --activation_checkpoint.selective_ac_option=2 --compile.no-enable --compile.components model,loss --optimizer.lr 3e-4");
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_EQ(c->config, "./llama3_8b.toml");
  EXPECT_EQ(c->launched.flags.gpus, 8);
  EXPECT_EQ(c->launched.alloc_conf, "expandable_segments:True");
  ASSERT_EQ(c->over.size(), 5u);
  EXPECT_EQ(c->over[0].key, "training.local_batch_size");
  EXPECT_EQ(c->over[0].value.whole, 1);
  EXPECT_EQ(c->over[1].value.kind, Document::Kind::text);  // "2" is a word
  EXPECT_EQ(c->over[2].key, "compile.enable");
  EXPECT_FALSE(c->over[2].value.flag);
  EXPECT_EQ(c->over[2].text, "--compile.no_enable");
  EXPECT_EQ(c->over[3].value.items.size(), 2u);
  EXPECT_DOUBLE_EQ(c->over[4].value.real, 3e-4);
}

TEST(TorchtitanCommand, itsScript) {
  const auto c = read("NGPU=4 CONFIG_FILE=\"my.toml\" LOG_RANK=0 ./run_train.sh --training.steps 10");
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_EQ(c->config, "my.toml");
  EXPECT_EQ(c->launched.flags.gpus, 4);
  EXPECT_EQ(c->launched.alloc_conf, "expandable_segments:True");
  EXPECT_TRUE(c->launched.ignored.empty());
  const auto usual = read("bash ./run_train.sh");
  ASSERT_TRUE(usual) << usual.error().message;
  EXPECT_EQ(usual->launched.flags.gpus, 8);
  EXPECT_TRUE(usual->config.ends_with("debug_model.toml"));
}

TEST(TorchtitanCommand, faults) {
  for (const char* text : {"torchrun --nproc_per_node 8 -m torchtitan.train --module llama3 --config llama3_8b", "MODULE=llama3 CONFIG=llama3_8b ./run_train.sh", "NGPU=none ./run_train.sh", "torchrun -m torchtitan.train --job.config_file", "torchrun -m torchtitan.train --seq_len 4",
                           "torchrun -m torchtitan.train --compile.components model loss"}) {
    const auto c = read(text);
    ASSERT_FALSE(c) << text;
    EXPECT_FALSE(c.error().hint.empty()) << text;
    EXPECT_FALSE(c.error().where.empty()) << text;
  }
}

}  // namespace
}  // namespace dryfit
