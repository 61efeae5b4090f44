// CORE evaluation against recordings of the eager model, and what decides whether and how large it is.
#include "passes/evaluation.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <sstream>

#include "memory/timeline.hpp"

namespace dryfit {
namespace {

Workload make(const std::string& version, std::int64_t depth, std::int64_t vocab, std::int64_t core_every = 2000) {
  WorkloadFlags f;
  f.nanochat = version;
  f.depth = depth;
  f.vocab_size = vocab;
  f.device_batch_size = 1;
  f.total_batch_size = 2048;
  f.core_metric_every = core_every;
  return *make_nanochat_workload(f);
}

TEST(Evaluation, PeaksAsRecorded) {
  std::ifstream in(DRYFIT_SOURCE_DIR "/tests/golden/oracle/evaluation.tsv");
  std::string line, epoch;
  int rows = 0;
  while (std::getline(in, line)) {
    std::istringstream fields(line);
    std::int64_t depth = 0, sequences = 0, length = 0, vocab = 0;
    double peak = 0;
    if (!(fields >> epoch >> depth >> sequences >> length >> vocab >> peak)) continue;
    const EagerForward forward = core_forward(make(epoch, depth, vocab), epoch == "E1" ? Attention::flash : Attention::fa3, sequences, length);
    std::int64_t before = 0;  // the recording starts with these in place
    for (const TensorInfo& t : forward.tensors) {
      const bool cast = std::strcmp(t.role, "core.weight_cast") == 0 && (epoch == "E1" || epoch == "E4g");
      if (cast || std::strcmp(t.role, "core.input_ids") == 0) before += block_bytes(t.bytes);
    }
    // 8 KiB: attention's random state and row counters, which are left out
    EXPECT_NEAR((peak_of(forward) - Bytes(before)).mib(), peak, 0.008) << line;
    ++rows;
  }
  EXPECT_GE(rows, 7);
}

TEST(Evaluation, LetsGoOfEverything) {
  for (const char* version : {"E1", "E1d", "E3", "E4g", "E5", "E7"}) {
    const EagerForward f = core_forward(make(version, 6, 32768), Attention::efficient, 4, 333);
    std::vector<int> alive(f.tensors.size(), 0);
    for (const Event& e : f.events) {
      alive[static_cast<std::size_t>(e.tensor)] += e.kind == Event::Kind::alloc ? 1 : -1;
      ASSERT_GE(alive[static_cast<std::size_t>(e.tensor)], 0);
    }
    for (std::size_t i = 0; i < alive.size(); ++i) EXPECT_EQ(alive[i], 0) << f.tensors[i].name();
  }
}

TEST(Evaluation, FlagSwitchesItOff) {
  EXPECT_TRUE(meets(make("E7", 6, 32768), RunPhase::core_evaluation));
  EXPECT_FALSE(meets(make("E7", 6, 32768, -1), RunPhase::core_evaluation));
  EXPECT_TRUE(meets(make("E1", 6, 32768, -1), RunPhase::core_evaluation));  // its last step evaluates all the same
  const Program with = build_program(make("E7", 6, 32768), {}, false), without = build_program(make("E7", 6, 32768, -1), {}, false);
  const auto has_core = [](const Program& p) { return std::ranges::any_of(p.segments, [](const Segment& s) { return std::strcmp(s.phase, "core_evaluation") == 0; }); };
  EXPECT_TRUE(has_core(with));
  EXPECT_FALSE(has_core(without));
}

TEST(Evaluation, PromptsGrowWithTheTaskAndShrinkWithRanks) {
  dryfit::Run run;
  const CorePrompts one = core_prompts(run);
  EXPECT_EQ(one.choices, 4);
  EXPECT_LT(one.low, one.middle);
  EXPECT_LT(one.middle, one.high);
  run.world_size = 8;
  const CorePrompts eight = core_prompts(run);
  EXPECT_LE(eight.middle, one.middle);
  EXPECT_EQ(eight.high, one.high);  // some rank meets the longest
  run.core_metric_max_per_task = -1;
  EXPECT_GT(core_prompts(run).middle, eight.middle);
}

}  // namespace
}  // namespace dryfit
