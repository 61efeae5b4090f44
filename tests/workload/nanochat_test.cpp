// Parameter counts, weights and totals against figures published by nanochat or derived by hand; the rules of legal batches.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "workload/workload.hpp"

namespace dryfit {
namespace {

Result<Workload> make(std::int64_t depth, const char* version = "E7", std::int64_t vocab = 32768) {
  WorkloadFlags f;
  f.depth = depth;
  f.nanochat = version;
  f.vocab_size = vocab;
  f.device_batch_size = -1;
  return make_nanochat_workload(f);
}

Bytes weights(const Workload& w) {
  Bytes sum;
  for (const Parameter& p : w.model.parameters) sum += p.bytes();
  return sum;
}

TEST(Nanochat, LegalBatchesAreNamedFromTheNearest) {
  WorkloadFlags f;
  f.depth = 20;
  for (const auto& [batch, named] : {std::pair{3, "--device-batch-size 16, 8, 4, 2, 1"}, std::pair{24, "--device-batch-size 64, 32, 16, 8, 4"}, std::pair{1000, "--device-batch-size 512, 256, 128, 64, 32"}}) {
    f.device_batch_size = batch;
    const auto w = make_nanochat_workload(f);
    ASSERT_FALSE(w);
    EXPECT_NE(w.error().hint.find(named), std::string::npos) << w.error().hint;
  }
}

TEST(Parameters, countsOfTheNewestVersion) {  // nanochat's own print, by depth
  const std::pair<std::int64_t, std::int64_t> published[] = {{4, 36'700'242}, {8, 125'829'354}, {12, 286'261'730}, {16, 536'871'738}, {18, 701'891'594}, {20, 896'533'746},
                                                             {24, 1'384'122'122}, {26, 1'681'786'938}, {28, 2'018'511'234}, {32, 2'818'575'450}};
  for (const auto& [depth, count] : published) EXPECT_EQ(make(depth)->model.param_count(), count) << depth;
}

TEST(Parameters, countsOfOlderVersions) {
  EXPECT_EQ(make(20, "E1", 65536)->model.param_count(), 560'988'160);
  EXPECT_EQ(make(32, "E1", 65536)->model.param_count(), 1'879'048'192);
  EXPECT_EQ(make(22, "E2")->model.param_count(), 615'645'184);
  EXPECT_EQ(make(24, "E4g")->model.param_count(), 1'384'124'976);
  EXPECT_EQ(make(16, "E4g")->model.param_count(), 536'872'992);
}

TEST(Parameters, weightsInBytes) {
  // d20 E1: 20 layers of 12 x 1280^2 in fp32, lm_head fp32, wte bf16: 4*393216000 + 4*83886080 + 2*83886080
  EXPECT_EQ(weights(*make(20, "E1", 65536)), Bytes(4LL * 393'216'000 + 6LL * 83'886'080));
  // d24 E7: matrices 12*24*1536^2 and 12 gates of 12 x 12 in fp32, lm_head fp32, wte and 12 tables bf16, scalars 2*24 + 26
  EXPECT_EQ(weights(*make(24)), Bytes(4LL * (679'477'248 + 12 * 144) + 4LL * 50'331'648 + 2LL * 13 * 50'331'648 + 4LL * (48 + 26)));
}

TEST(Parameters, everyVersionBuilds) {
  for (const NanochatVersion& v : nanochat_versions()) {
    for (std::int64_t depth : {1, 2, 3, 12, 20}) EXPECT_TRUE(make(depth, v.epoch.c_str(), v.default_vocab)) << v.epoch << " d" << depth;
  }
}

TEST(Rules, whatNanochatItselfWouldStopAt) {
  EXPECT_EQ(make(3, "E1", 65536)->model.heads, 2);   // 192 / 128, rounded up
  EXPECT_EQ(make(15, "E1", 65536)->model.heads, 8);
  EXPECT_NE(make(5, "E1", 65536).error().message.find("3 heads"), std::string::npos);  // 320 is not three times anything
  EXPECT_EQ(make(5, "E2")->model.heads, 2);          // from then on those that divide the width
  WorkloadFlags f;
  f.depth = 6, f.nanochat = "E1", f.aspect_ratio = 48;
  EXPECT_EQ(make_nanochat_workload(f).error().where, "--aspect-ratio");
  f.aspect_ratio = 64;                               // what it is anyway
  EXPECT_TRUE(make_nanochat_workload(f));
  f.nanochat = "E7", f.fp8 = true, f.max_seq_len = 1000, f.device_batch_size = 3, f.total_batch_size = 6000;
  EXPECT_EQ(make_nanochat_workload(f).error().where, "--fp8");  // products over 3000 tokens
  f.device_batch_size = 2, f.total_batch_size = 4000;
  const auto two = make_nanochat_workload(f);
  ASSERT_TRUE(two);
  EXPECT_EQ(legal_device_batches(*two), (std::vector<std::int64_t>{4, 2}));  // one sequence is no multiple of 16 either
}

TEST(Totals, followNanochatsRule) {
  for (std::int64_t depth : {4, 6, 8}) EXPECT_EQ(make(depth)->run.total_batch_size, 1 << 18) << depth;
  for (std::int64_t depth : {10, 12, 14, 16}) EXPECT_EQ(make(depth)->run.total_batch_size, 1 << 19) << depth;
  for (std::int64_t depth : {18, 20, 24, 26, 30}) EXPECT_EQ(make(depth)->run.total_batch_size, 1 << 20) << depth;
  EXPECT_EQ(make(32)->run.total_batch_size, 1 << 21);
  EXPECT_EQ(make(20, "E1")->run.total_batch_size, 524288);
}

TEST(Rules, illegalTriplesNameTheLegalOnes) {
  WorkloadFlags f;
  f.depth = 8;
  f.gpus = 8;
  const auto r = make_nanochat_workload(f);  // 32 x 2048 x 8 = 2^19 > 2^18
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, "illegal_batch");
  EXPECT_NE(r.error().hint.find("524288"), std::string::npos);
  EXPECT_NE(r.error().hint.find("--device-batch-size 16"), std::string::npos);
  f.device_batch_size = 16;
  EXPECT_EQ(make_nanochat_workload(f)->run.grad_accum_steps, 1);
  f.gpus = 3;
  EXPECT_EQ(make_nanochat_workload(f).error().code, "illegal_gpus");
}

TEST(Rules, windowsByVersion) {
  EXPECT_EQ(make(4, "E4g")->model.windows, (std::vector<std::int64_t>{1024, 1024, 1024, 2048}));
  EXPECT_EQ(make(4, "E5b")->model.windows[0], 768);
  EXPECT_EQ(make(4, "E7")->model.windows[0], 512);
  EXPECT_EQ(make(6, "E7")->model.windows, (std::vector<std::int64_t>{512, 512, 512, 2048, 512, 2048}));  // the last layer is always long
}

TEST(Versions, areFoundByEpochCommitAndDate) {
  EXPECT_EQ(find_nanochat_version("e5b")->epoch, "E5b");
  EXPECT_EQ(find_nanochat_version("1076f97")->epoch, "E5");
  EXPECT_EQ(find_nanochat_version("2026-03-05")->epoch, "E5");
  EXPECT_EQ(find_nanochat_version("newest")->epoch, "E7");
  for (const char* bad : {"", "E99", "2025-01-01", "zzzz", "123"}) EXPECT_FALSE(find_nanochat_version(bad)) << bad;
}

TEST(Rules, badValuesAreRefused) {
  for (std::int64_t depth : {0LL, -3LL, 1LL << 40}) EXPECT_FALSE(make(depth));
  WorkloadFlags f;
  f.depth = 4;
  f.window_pattern = "SXL";
  EXPECT_FALSE(make_nanochat_workload(f));
  f.window_pattern.reset();
  f.dtype = "int8";
  EXPECT_FALSE(make_nanochat_workload(f));
}

// nanochat/common.py, _detect_compute_dtype.
TEST(Rules, computesInFp32WhereTheGpuHasNoBf16) {
  WorkloadFlags f;
  f.depth = 4;
  const auto compute = [&](const char* version, int major) {
    f.nanochat = version;
    f.compute_major = major;
    return make_nanochat_workload(f)->run.compute;
  };
  for (const char* version : {"E5", "E6", "newest"}) {
    EXPECT_EQ(compute(version, 7), Dtype::fp32) << version;
    EXPECT_EQ(compute(version, 8), Dtype::bf16) << version;
    EXPECT_EQ(compute(version, 0), Dtype::bf16) << version;
  }
  for (const char* version : {"E1", "E3", "E4g"}) EXPECT_EQ(compute(version, 7), Dtype::bf16) << version;  // autocast
  f.fp8 = true;
  f.nanochat = "newest";
  const auto refused = make_nanochat_workload(f);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().where, "--fp8");
  f.fp8 = false;
  f.dtype = "bf16";
  EXPECT_EQ(compute("newest", 7), Dtype::bf16);
}

TEST(Rules, batchesHoldTheTotal) {
  EXPECT_TRUE(rc::check("any legal device batch keeps the tokens of a step", [] {
    const auto w = make(*rc::gen::inRange<std::int64_t>(1, 40));
    for (std::int64_t batch : legal_device_batches(*w)) {
      const auto v = with_device_batch(*w, batch);
      RC_ASSERT(v.has_value());
      RC_ASSERT(v->run.device_batch_size * v->run.max_seq_len * v->run.world_size * v->run.grad_accum_steps == w->run.total_batch_size);
    }
  }));
}

}  // namespace
}  // namespace dryfit
