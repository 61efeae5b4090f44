// A pasted command of Megatron-LM: what it means, what it cannot mean, and the command again.
#include <gtest/gtest.h>

#include <algorithm>

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
  EXPECT_EQ(t.workspaces.cublas, std::optional<std::int64_t>(4096 * 8 * 1024));
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

TEST(MegatronCommand, MixturesOfExperts) {
  const std::string command = "torchrun --nproc_per_node=8 pretrain_gpt.py --num-layers 4 --hidden-size 2048 --num-attention-heads 16 --ffn-hidden-size 8192 --swiglu --normalization RMSNorm --disable-bias-linear "
                              "--untie-embeddings-and-output-weights --position-embedding-type rope --seq-length 4096 --max-position-embeddings 4096 --micro-batch-size 1 --vocab-size 151936 --make-vocab-size-divisible-by 1 --bf16 "
                              "--tensor-model-parallel-size 2 --sequence-parallel --num-experts 64 --moe-router-topk 6 --moe-ffn-hidden-size 1024 --moe-layer-freq ([0]+[1]*3) --moe-shared-expert-intermediate-size 2048 "
                              "--expert-model-parallel-size 8 --expert-tensor-parallel-size 1 --moe-grouped-gemm --moe-token-dispatcher-type alltoall --moe-router-dtype fp32 --moe-router-score-function sigmoid "
                              "--moe-router-enable-expert-bias --moe-router-load-balancing-type aux_loss --moe-aux-loss-coeff 1e-3 --moe-permute-fusion --moe-token-drop-policy probs";
  std::vector<std::string> unused;
  const auto w = read(command, &unused);
  ASSERT_TRUE(w.has_value()) << w.error().message;
  const Architecture& a = w->transformers->architecture;
  const MegatronExperts& e = w->transformers->training.megatron.experts;
  ASSERT_TRUE(a.moe.has_value());
  EXPECT_EQ(a.moe->layers, (std::vector<bool>{false, true, true, true}));
  EXPECT_TRUE(a.moe->top_k == 6 && a.moe->expert_ffn == 1024 && a.moe->shared_ffn == 2048 && e.parallel == 8 && e.tensor == 1 && e.grouped && e.permute_fusion && e.expert_bias && e.balancing_losses == 1);
  EXPECT_TRUE(e.dispatcher == MegatronDispatcher::alltoall && e.router_dtype == Dtype::fp32 && e.score == MegatronScore::other && !e.sinkhorn);
  EXPECT_TRUE(unused.empty()) << unused.front();
  const std::int64_t D = 2048, attention = 4 * D * D + 2 * D, dense = 3 * D * 8192, sparse = 64 * 3 * D * 1024 + 64 * D + 3 * D * 2048;
  EXPECT_EQ(w->model.param_count(), 2 * 151936 * D + 4 * attention + dense + 3 * sparse + D);
  const auto said = std::ranges::find(w->assumptions, "experts", [](const auto& x) { return x.key; });
  EXPECT_NE(said, w->assumptions.end()) << "how rows are shared is not known";

  struct Wrong { const char* more; const char* code; const char* where; };
  for (const Wrong& x : {Wrong{"--expert-model-parallel-size 3", "bad_value", "--expert-model-parallel-size"}, Wrong{"--expert-model-parallel-size 16", "bad_value", "--expert-model-parallel-size"},
                         Wrong{"--num-experts 4096 --num-layers 4096 --expert-model-parallel-size 1 --moe-layer-freq 1", "bad_value", "--num-experts"}, Wrong{"--moe-layer-freq [1]*3", "bad_value", "--moe-layer-freq"}, Wrong{"--moe-router-topk 65", "bad_value", "--moe-router-topk"}, Wrong{"--moe-token-dispatcher-type flex", "bad_value", "--moe-token-dispatcher-type"},
                         Wrong{"--moe-pad-expert-input-to-capacity", "bad_value", "--moe-expert-capacity-factor"}, Wrong{"--moe-expert-capacity-factor x", "bad_number", "--moe-expert-capacity-factor"},
                         Wrong{"--moe-router-load-balancing-type quantile_balancing", "unsupported_training", "--moe-router-load-balancing-type"}, Wrong{"--overlap-moe-expert-parallel-comm", "unsupported_training", "--overlap-moe-expert-parallel-comm"},
                         Wrong{"--moe-token-dispatcher-type allgather --moe-shared-expert-overlap", "bad_value", "--moe-shared-expert-overlap"}}) {
    const auto wrong = read(command + " " + x.more);
    ASSERT_FALSE(wrong.has_value()) << x.more;
    EXPECT_EQ(wrong.error().code, x.code) << x.more << ": " << wrong.error().message;
    EXPECT_EQ(wrong.error().where, x.where) << x.more;
    EXPECT_FALSE(wrong.error().hint.empty());
  }
}

TEST(MegatronCommand, LatentAttention) {
  const std::string command = "torchrun --nproc_per_node=8 pretrain_gpt.py --num-layers 27 --hidden-size 2048 --num-attention-heads 16 --ffn-hidden-size 10944 --swiglu --normalization RMSNorm --disable-bias-linear "
                              "--untie-embeddings-and-output-weights --position-embedding-type rope --seq-length 4096 --max-position-embeddings 4096 --micro-batch-size 1 --vocab-size 102400 --make-vocab-size-divisible-by 1 --bf16 "
                              "--multi-latent-attention --kv-lora-rank 512 --qk-head-dim 128 --qk-pos-emb-head-dim 64 --v-head-dim 128 --qk-layernorm --rotary-scaling-factor 40 --num-experts 64 --moe-router-topk 6 "
                              "--moe-ffn-hidden-size 1408 --moe-layer-freq ([0]+[1]*26) --moe-shared-expert-intermediate-size 2816 --expert-model-parallel-size 8 --moe-grouped-gemm --moe-token-dispatcher-type alltoall";
  std::vector<std::string> unused;
  const auto w = read(command, &unused);
  ASSERT_TRUE(w.has_value()) << w.error().message;
  EXPECT_TRUE(unused.empty()) << unused.front();
  const MegatronRun& m = w->transformers->training.megatron;
  EXPECT_TRUE(m.yarn && m.rope_fusion);
  EXPECT_EQ(w->model.param_count(), 15706484224);  // DeepSeek-V2-Lite, whose model card says 15.7 B
  for (const char* more : {"--context-parallel-size 2", "--transformer-impl local", "--attention-backend flash"}) {
    const auto wrong = read(command + " " + more);
    ASSERT_FALSE(wrong.has_value()) << more;
    EXPECT_EQ(wrong.error().where, "--multi-latent-attention");
  }
  EXPECT_FALSE(read(command + " --rope-type rope").has_value());
  EXPECT_TRUE(read(command + " --rope-type rope --no-rope-fusion").has_value());
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
  for (const Wrong& x : {Wrong{"--num-experts 8", "bad_value", "--sequence-parallel"}, Wrong{"--num-experts 8 --sequence-parallel", "bad_value", "--no-bias-gelu-fusion"}, Wrong{"--expert-model-parallel-size 2", "bad_value", "--expert-model-parallel-size"}, Wrong{"--fp8-format hybrid", "unsupported_training", "--fp8-format"}, Wrong{"--tensor-model-parallel-size 3", "bad_value", "--gpus"},
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
