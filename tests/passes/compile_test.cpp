// The passes against PyTorch's own recordings: what is alive at the end of forward, the peak, what is left after backward.
#include "passes/compile.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "graph/nanochat.hpp"
#include "memory/timeline.hpp"
#include "passes/optimizer.hpp"
#include "passes/partition.hpp"
#include "passes/program.hpp"

namespace dryfit {
namespace {

Workload make(const std::string& version, std::int64_t depth, std::int64_t batch, std::int64_t vocab, std::int64_t gpus = 1, bool fp8 = false, std::int64_t length = 2048) {
  WorkloadFlags f;
  f.nanochat = version;
  f.depth = depth;
  f.vocab_size = vocab;
  f.device_batch_size = batch;
  f.gpus = gpus;
  f.fp8 = fp8;
  f.max_seq_len = length;
  f.total_batch_size = batch * length * gpus;
  return *make_nanochat_workload(f);
}

struct Ends { double forward = 0, peak = 0, backward = 0; };

// Plays both halves; every buffer must be made before it dies and die once.
Ends play(const CompiledStep& step) {
  std::vector<int> alive(step.joint.graph.nodes.size(), 0);
  std::int64_t live = 0, peak = 0;
  const auto run = [&](const std::vector<BufferStep>& steps) {
    for (const BufferStep& s : steps) {
      const std::int64_t bytes = block_bytes(step.joint.graph.nodes[static_cast<std::size_t>(s.node)].bytes());
      int& count = alive[static_cast<std::size_t>(s.node)];
      count += s.alloc ? 1 : -1;
      EXPECT_TRUE(count == 0 || count == 1) << step.joint.graph.name_of(s.node);
      live += s.alloc ? bytes : -bytes;
      peak = std::max(peak, live);
    }
  };
  Ends ends;
  run(step.forward);
  ends.forward = Bytes(live).mib();
  run(step.backward);
  ends.peak = Bytes(peak).mib();
  ends.backward = Bytes(live).mib();
  return ends;
}

// Calls check(truth, mine, line) for every recorded row of a file; returns how many there were.
template <class Check>
int for_recordings(const char* file, Check check, bool fp8 = false) {
  std::ifstream in(std::string(DRYFIT_SOURCE_DIR "/tests/golden/oracle/") + file);
  std::string line;
  int rows = 0;
  while (std::getline(in, line)) {
    if (line.empty() || line[0] == '#' || line.starts_with("epoch")) continue;
    std::istringstream fields(line);
    std::string epoch;
    std::int64_t depth = 0, batch = 0, vocab = 0;
    Ends truth;
    std::int64_t length = 2048;
    fields >> epoch >> depth >> batch >> vocab >> truth.forward >> truth.peak >> truth.backward;
    if (!(fields >> length)) length = 2048;
    const Workload w = make(epoch, depth, batch, vocab, 1, fp8, length);
    check(truth, play(compile_step(nanochat_forward(w, w.model.version.flash_attention3 ? Attention::fa3 : Attention::flash), true)), line);
    ++rows;
  }
  return rows;
}

TEST(Compile, reproducesTheRecordings) {
  // the recording counts the loss's scalars in blocks of 512 bytes that live a moment longer: 4 KiB
  const int rows = for_recordings("peaks.tsv", [](const Ends& truth, const Ends& mine, const std::string& line) {
    EXPECT_NEAR(mine.forward, truth.forward, 0.004) << line;
    EXPECT_NEAR(mine.peak, truth.peak, 0.004) << line;
    EXPECT_NEAR(mine.backward, truth.backward, 0.004) << line;
  });
  EXPECT_GE(rows, 8);
}

TEST(Compile, reproducesTheRecordingsInFp8) {
  const int rows = for_recordings("fp8_peaks.tsv", [](const Ends& truth, const Ends& mine, const std::string& line) {
    EXPECT_NEAR(mine.forward, truth.forward, 0.002) << line;
    EXPECT_NEAR(mine.peak, truth.peak, 0.002) << line;
    EXPECT_NEAR(mine.backward, truth.backward, 0.002) << line;
  }, true);
  EXPECT_GE(rows, 6);
}

TEST(Compile, isNearWhereGradientsMakeThePeak) {
  const int rows = for_recordings("late_peaks.tsv", [](const Ends& truth, const Ends& mine, const std::string& line) {
    EXPECT_NEAR(mine.forward, truth.forward, 0.004) << line;
    // what is seen today; reuse order in backward is the open part, and errs upwards for short sequences
    EXPECT_GE(mine.peak, 0.9875 * truth.peak) << line;
    EXPECT_LE(mine.peak, (line.ends_with("\t512") ? 1.035 : 1.0125) * truth.peak) << line;
    EXPECT_NEAR(mine.backward, truth.backward, 0.004) << line;
  });
  EXPECT_GE(rows, 4);
}

TEST(Partition, savesThirtySixBytesPerTokenAndChannel) {
  // E1, one middle layer, bytes per token: normed inputs 2+2, rotated q and k 2+2, normed q, k and v 2+2+2, attention 2, residuals
  // 2+2, pre-activation 8, its square 8 = 36 D; row statistics 4 each for two norms and 4 H for q and k; log-sums 4 H; weights 2 each
  const Workload w = make("E1", 4, 8, 65536);
  const JointGraph joint = differentiate(nanochat_forward(w, Attention::flash));
  std::int64_t bytes = 0;
  for (NodeId v : min_cut_saved(joint)) {
    const Node& n = joint.graph.nodes[static_cast<std::size_t>(v)];
    if (n.layer == 1 && n.kind != Kind::input) bytes += n.bytes();
  }
  const std::int64_t D = 256, H = 2, tokens = 8 * 2048;
  EXPECT_EQ(bytes, tokens * (36 * D + 4 * 2 + 4 * H * 2 + 4 * H) + 2 * 12 * D * D + 16 + 8);
}

TEST(Compile, everyVersionAndAttentionBalances) {
  for (const char* version : {"E1", "E1d", "E2", "E3", "E3c", "E4", "E4g", "E5", "E5b", "E6", "E7"}) {
    for (Attention a : {Attention::fa3, Attention::flash, Attention::efficient, Attention::math}) {
      for (bool compile : {true, false}) play(compile_step(nanochat_forward(make(version, 3, 2, 32768), a), compile));
    }
  }
  play(compile_step(nanochat_forward(make("E7", 4, 2, 32768, 1, true), Attention::fa3), true));
}

TEST(Program, everythingThatIsMadeOnceMoreWasFreed) {
  for (std::int64_t gpus : {1, 2, 8}) {
    for (const char* version : {"E1", "E3", "E4g", "E7"}) {
      const Program p = build_program(make(version, 4, 2, 32768, gpus), {9, 0, 989}, true);
      std::vector<int> alive(p.tensors.size(), 0);
      for (const Event& e : p.events) {
        int& count = alive[static_cast<std::size_t>(e.tensor)];
        count += e.kind == Event::Kind::alloc ? 1 : -1;
        ASSERT_TRUE(count == 0 || count == 1) << version << " " << gpus << " " << p.tensors[static_cast<std::size_t>(e.tensor)].name();
      }
    }
  }
}

TEST(Program, publishedPeaksOfEightGpuRuns) {  // stock speedruns, printed by nanochat itself
  Workload d20 = make("E1", 20, 32, 65536, 8), d8 = make("E1", 8, 32, 65536, 8);
  EXPECT_NEAR(run_timeline(build_program(d20, {9, 0, 989}, false)).peak.mib(), 75422.02, 0.02);
  EXPECT_NEAR(run_timeline(build_program(d8, {9, 0, 989}, false)).peak.mib(), 19176.26, 0.02);
}

TEST(Optimizer, stateInBytes) {
  // d12, 8 GPUs, E7: 48 square matrices in chunks of 6, MLP groups of 12 in chunks of 2 (padded to 16), gates of 6 in chunks of 1
  const Workload w = make("E7", 12, 2, 32768, 8);
  const std::int64_t D = 768, second_square = D, second_mlp = 4 * D;
  std::int64_t expected = 4 * (6 * D * D + 6 * second_square) + 2 * 4 * (2 * 4 * D * D + 2 * second_mlp) + 4 * (1 * 6 * 12 + 1 * 12);
  const std::int64_t table = 32768 * D;
  expected += 2 * 4 * table / 8 + 2 * 2 * table / 8 + 6 * 2 * 2 * table / 8;  // lm_head fp32, wte and six value embeddings bf16
  expected += 2 * 4 * (12 + 12 + 1 + 1 + 24);                                 // scalars, whole on every rank
  EXPECT_EQ(static_bytes(w).optimizer, Bytes(expected));
}

}  // namespace
}  // namespace dryfit
