// A pasted command of Megatron-LM: what it means, what it cannot mean, and the command again.
#include <gtest/gtest.h>

#include "plan/launch.hpp"
#include "plan/megatron_command.hpp"

namespace dryfit {
namespace {

constexpr const char* kGpt = "torchrun --nproc_per_node 8 pretrain_gpt.py --num-layers 12 --hidden-size 512 --num-attention-heads 8 --micro-batch-size 4 --global-batch-size 32 --seq-length 1024 "
                             "--max-position-embeddings 1024 --merge-file merges.txt --bf16 --tensor-model-parallel-size 2 --data-path corpus";

Result<Workload> read(const std::string& text, std::vector<std::string>* unused = nullptr) {
  const auto words = shell_split(text);
  EXPECT_TRUE(words.has_value());
  const auto launch = parse_launch(*words);
  EXPECT_TRUE(launch.has_value()) << launch.error().message;
  EXPECT_TRUE(is_megatron_command(*launch));
  std::vector<std::string> ignored;
  auto w = make_megatron_workload(read_megatron_command(*launch).arguments, ignored);
  if (unused != nullptr) *unused = ignored;
  return w;
}

TEST(MegatronCommand, SaysWhatMegatronWouldRun) {
  std::vector<std::string> unused;
  const auto w = read("CUBLAS_WORKSPACE_CONFIG=:4096:8 " + std::string(kGpt) + " --use-distributed-optimizer --no-such-thing 3", &unused);
  ASSERT_TRUE(w.has_value()) << w.error().message;
  const Architecture& a = w->transformers->architecture;
  const Training& t = w->transformers->training;
  EXPECT_EQ(a.vocab, 50432);  // GPT-2's 50257, padded to 128 x 2
  EXPECT_EQ(a.ffn, 2048);
  EXPECT_EQ(a.residual_dropout, 0.1);
  EXPECT_TRUE(a.tied_head && a.qkv_bias && t.megatron.grads_in_fp32 && t.megatron.distributed_optimizer && t.megatron.bias_activation_fusion);
  EXPECT_EQ(t.grad_accum_steps, 2);
  EXPECT_EQ(w->run.total_batch_size, 32 * 1024);
  EXPECT_EQ(t.megatron.cublas_workspace, std::optional<std::int64_t>(4096 * 8 * 1024));
  EXPECT_EQ(unused, std::vector<std::string>{"--no-such-thing"});
  std::int64_t parameters = 0;
  for (const Parameter& p : w->model.parameters) parameters += p.count();
  EXPECT_EQ(parameters, 50432 * 512 + 1024 * 512 + 12 * (12 * 512 * 512 + 13 * 512) + 2 * 512);
}

TEST(MegatronCommand, LlamaLikeArguments) {
  const auto w = read("torchrun --nproc_per_node=8 pretrain_gpt.py --num-layers 32 --hidden-size 4096 --num-attention-heads 32 --group-query-attention --num-query-groups 8 --ffn-hidden-size 14336 --swiglu "
                      "--normalization RMSNorm --disable-bias-linear --untie-embeddings-and-output-weights --position-embedding-type rope --seq-length 8192 --max-position-embeddings 8192 --micro-batch-size 1 "
                      "--vocab-size 128256 --bf16 --attention-dropout 0 --hidden-dropout 0 --tensor-model-parallel-size 4 --sequence-parallel --recompute-activations");
  ASSERT_TRUE(w.has_value()) << w.error().message;
  const Architecture& a = w->transformers->architecture;
  const MegatronRun& m = w->transformers->training.megatron;
  EXPECT_TRUE(a.gated_mlp && !a.mlp_bias && !a.tied_head && a.kv_heads == 8 && a.position_rows == 0 && a.rotary_dims == 128 && a.norm == NormKind::rms_norm);
  EXPECT_TRUE(m.sequence_parallel && m.recompute_attention && m.recompute == MegatronRecompute::selective && m.bias_activation_fusion);
  EXPECT_EQ(w->model.param_count(), 8030261248 + 2 * 256 * 4096);  // Llama 3 8B, and two tables padded to 128 x 4 rows
}

TEST(MegatronCommand, TheCommandComesBack) {
  auto w = read(kGpt);
  ASSERT_TRUE(w.has_value());
  const std::vector<std::string> same = launch_command(*w);
  const auto again = read(shell_join(same));
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(launch_command(*again), same);
  EXPECT_EQ(again->run.total_batch_size, w->run.total_batch_size);
  w->run.device_batch_size = 2, w->run.grad_accum_steps = 4;
  const std::string half = shell_join(launch_command(*w));
  EXPECT_NE(half.find("--micro-batch-size 2"), std::string::npos);
  EXPECT_NE(half.find("--global-batch-size 32"), std::string::npos);
  EXPECT_NE(half.find("--data-path corpus"), std::string::npos);
}

TEST(MegatronCommand, WhatCannotBeIsSaidWithItsArgument) {
  struct Wrong { const char* more; const char* code; const char* where; };
  for (const Wrong& x : {Wrong{"--num-experts 8", "unsupported_training", "--num-experts"}, Wrong{"--fp8-format hybrid", "unsupported_training", "--fp8-format"}, Wrong{"--tensor-model-parallel-size 3", "bad_value", "--gpus"},
                         Wrong{"--num-layers x", "bad_number", "--num-layers"}, Wrong{"--micro-batch-size", "bad_value", "--micro-batch-size"}, Wrong{"--global-batch-size 31", "bad_value", "--global-batch-size"},
                         Wrong{"--pipeline-model-parallel-size 4 --num-layers 10", "bad_value", "--pipeline-model-parallel-size"}, Wrong{"--seq-length 2048", "bad_value", "--seq-length"},
                         Wrong{"--hidden-dropout 2", "bad_value", "--hidden-dropout"}, Wrong{"--normalization BatchNorm", "bad_value", "--normalization"}, Wrong{"--recompute-granularity full", "missing_value", "--recompute-method"},
                         Wrong{"--optimizer muon", "unsupported_training", "--optimizer"}, Wrong{"--tokenizer-type HuggingFaceTokenizer", "missing_value", "--vocab-size"}, Wrong{"--num-layers 99999999999999999999", "bad_number", "--num-layers"}}) {
    const auto w = read(std::string(kGpt) + " " + x.more);
    ASSERT_FALSE(w.has_value()) << x.more;
    EXPECT_EQ(w.error().code, x.code) << x.more << ": " << w.error().message;
    EXPECT_EQ(w.error().where, x.where) << x.more;
    EXPECT_FALSE(w.error().hint.empty());
  }
}

}  // namespace
}  // namespace dryfit
