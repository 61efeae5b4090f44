// Lines as nanochat prints them, of several ages; any other text leaves no trace.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include "workload/nanochat_log.hpp"

namespace dryfit {
namespace {

LogReader read(std::initializer_list<const char*> lines) {
  LogReader reader;
  for (const char* l : lines) reader.line(l);
  return reader;
}

TEST(NanochatLog, stepLinesOfEveryAge) {
  const auto newest = parse_step_line("step 00812/02205 (36.83%) | loss: 2.912345 | lrm: 1.00 | dt: 745.12ms | tok/sec: 1,407,234 | bf16_mfu: 48.12 | epoch: 1 pq: 3 rg: 4 | total time: 9.98m | eta: 17.3m");
  ASSERT_TRUE(newest);
  EXPECT_EQ(newest->step, 812);
  EXPECT_EQ(newest->of, 2205);
  EXPECT_DOUBLE_EQ(*newest->seconds, 0.74512);
  EXPECT_DOUBLE_EQ(*newest->tokens_per_second, 1407234);
  EXPECT_NEAR(*newest->mfu, 0.4812, 1e-12);
  EXPECT_NEAR(*newest->eta_seconds, 17.3 * 60, 1e-9);
  const auto first = parse_step_line("step 00000/21400 (0.00%) | loss: 11.090355 | lrm: 1.00 | dt: 23156.74ms | tok/sec: 22,641 | mfu: 0.98 | total time: 0.00m");
  ASSERT_TRUE(first);
  EXPECT_EQ(first->of, 21400);
  EXPECT_NEAR(*first->mfu, 0.0098, 1e-12);
  EXPECT_FALSE(first->eta_seconds);
  const auto tuned = parse_step_line("step 00001 (0.10%) | loss: 1.2 | lrm: 1.00 | dt: 500.00ms | tok/sec: 1,000 | mfu: 40.00 | epoch: 1 | total time: 0.00m");
  ASSERT_TRUE(tuned);
  EXPECT_FALSE(tuned->of);
  for (const char* other : {"", "step", "step x | loss: 3", "Step 00010 | Validation bpb: 0.9", "steps 12 | loss: 1", "the next step is to lower the loss"}) EXPECT_FALSE(parse_step_line(other)) << other;
}

TEST(NanochatLog, headerGivesTheRunsFlags) {
  const LogReader reader = read({"GPU: NVIDIA H100 80GB HBM3 | Peak FLOPS (BF16): 9.89e+14", "COMPUTE_DTYPE: torch.bfloat16 (auto-detected: CUDA SM 90 (bf16 supported))",
                                 "\xE2\x9C\x93 Using Flash Attention 3: efficient, new and awesome.", "Vocab size: 32,768", "Model config:", "{", "  \"sequence_len\": 2048,", "  \"vocab_size\": 32768,",
                                 "  \"n_layer\": 24,", "  \"n_head\": 12,", "  \"n_kv_head\": 12,", "  \"n_embd\": 1536,", "  \"window_pattern\": \"SSSL\"", "}", "\xE2\x9C\x93 FP8 training enabled (tensorwise scaling) - converted 146/146 linear layers, skipped 12 (too small)",
                                 "Tokens / micro-batch / rank: 16 x 2048 = 32,768", "Tokens / micro-batch: 262,144", "Total batch size 1,048,576 => gradient accumulation steps: 4"});
  EXPECT_EQ(reader.current().phase(), LogPhase::first_step);
  const auto flags = flags_of(reader.current());
  ASSERT_TRUE(flags);
  EXPECT_EQ(flags->depth, 24);
  EXPECT_EQ(flags->gpus, 8);
  EXPECT_EQ(flags->total_batch_size, 1048576);
  EXPECT_EQ(flags->fp8, true);
  EXPECT_FALSE(flags->aspect_ratio);
  const auto workload = make_nanochat_workload(*flags);
  ASSERT_TRUE(workload) << workload.error().message;
  EXPECT_EQ(workload->run.grad_accum_steps, 4);
  EXPECT_EQ(workload->model.width, 1536);
}

TEST(NanochatLog, runsOfOneLogAreToldApart) {
  LogReader reader = read({"Vocab size: 65,536", "num_layers: 20", "model_dim: 1280", "num_heads: 10", "Tokens / micro-batch / rank: 32 x 2048 = 65,536", "Tokens / micro-batch: 524,288"});
  for (int i = 0; i < 30; ++i) reader.line("step " + std::to_string(i) + "/30 (1%) | loss: 3 | dt: 400.0ms | tok/sec: 1,000,000 | mfu: 50.0 | total time: 0.0m");
  reader.line("Step 00030 | Validation bpb: 0.8123");
  reader.line("Step 00030 | CORE metric: 0.2219");
  reader.line("Peak memory usage: 75422.02MiB");
  reader.line("Total training time: 171.05m");
  EXPECT_EQ(reader.current().phase(), LogPhase::ended);
  reader.line("Vocab size: 65,536");
  reader.line("step 00000 (0.1%) | loss: 1.5 | dt: 100.0ms | tok/sec: 10 | mfu: 1.0");
  const auto runs = reader.runs();
  ASSERT_EQ(runs.size(), 2U);
  EXPECT_EQ(runs[0].peak_allocated, Bytes(static_cast<std::int64_t>(75422.02 * 1048576 + 0.5)));
  EXPECT_EQ(runs[0].median_rate(), 1e6);
  EXPECT_EQ(runs[0].rates.size(), 20U);
  EXPECT_EQ(runs[0].depth, 20);
  EXPECT_FALSE(runs[0].fine_tuning);
  EXPECT_TRUE(runs[1].fine_tuning);
  EXPECT_EQ(runs[1].phase(), LogPhase::training);
  EXPECT_FALSE(runs[1].median_rate());
}

TEST(NanochatLog, aRestartBeginsANewRun) {
  LogReader reader = read({"step 5/10 (1%) | loss: 1 | dt: 1.0ms", "step 6/10 (1%) | loss: 1 | dt: 1.0ms", "step 0/10 (1%) | loss: 1 | dt: 1.0ms"});
  EXPECT_EQ(reader.runs().size(), 2U);
}

RC_GTEST_PROP(NanochatLog, anyLinesStayBounded, (const std::vector<std::string>& lines)) {
  static const char* const kPieces[] = {"step ", "00001/00002", "| loss: ", "| dt: ", "Vocab size: ", "Peak memory usage: ", "99999999999999999999", "-1", "nan", "MiB", "Tokens / micro-batch / rank: ", " x ", "Tokens / micro-batch: "};
  LogReader reader;
  for (const std::string& l : lines) {
    reader.line(l);
    std::string made;
    for (unsigned char c : l) made += kPieces[c % std::size(kPieces)];
    reader.line(made);
  }
  RC_ASSERT(reader.runs().size() <= LogReader::kMostRuns + 1);
  for (const LogRun& r : reader.runs()) {
    RC_ASSERT(!r.peak_allocated || *r.peak_allocated > Bytes(0));
    if (const auto flags = flags_of(r)) make_nanochat_workload(*flags);  // a workload or an error, never a crash
  }
}

}  // namespace
}  // namespace dryfit
