// Peaks, envelopes and the allocator on real programs: independent computations of one number agree.
#include "memory/timeline.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <set>

namespace dryfit {
namespace {

Workload make(std::int64_t depth, std::int64_t batch) {
  WorkloadFlags f;
  f.depth = depth;
  f.device_batch_size = batch;
  f.total_batch_size = batch * 2048 * 4;
  return *make_nanochat_workload(f);
}

TEST(Envelope, answersEveryBatchLikeAFreshProgram) {
  const Envelope envelope = make_envelope(build_program(make(6, 8), {9, 0, 989}, true));
  for (std::int64_t batch : {1, 2, 4, 16, 32, 64}) {
    const Bytes fresh = run_timeline(build_program(make(6, batch), {9, 0, 989}, true)).peak;
    EXPECT_NEAR(envelope.at(batch).mib(), fresh.mib(), 0.005 * fresh.mib()) << batch;  // decisions may flip with the batch, a little
  }
  EXPECT_LE(envelope.lines.size(), 12U);
}

TEST(Envelope, isTheMaximumOfItsPoints) {
  const Program p = build_program(make(4, 4), {9, 0, 989}, true);
  const Envelope envelope = make_envelope(p);
  EXPECT_TRUE(rc::check("brute force over events", [&] {
    const auto batch = *rc::gen::inRange<std::int64_t>(1, 2000);
    std::int64_t live = 0, peak = 0;
    for (const Event& e : p.events) {
      const TensorInfo& t = p.tensors[static_cast<std::size_t>(e.tensor)];
      const std::int64_t bytes = t.batched ? t.bytes / p.device_batch * batch : block_bytes(t.bytes);
      live += e.kind == Event::Kind::alloc ? bytes : -bytes;
      peak = std::max(peak, live);
    }
    RC_ASSERT(envelope.at(batch) == Bytes(peak));
  }));
}

TEST(Timeline, peakIsTheSumOfWhatIsAlive) {
  const Program p = build_program(make(6, 8), {9, 0, 989}, true);
  const Timeline t = run_timeline(p);
  std::int64_t sum = 0;
  for (std::int32_t i : live_tensors(p, t.peak_event)) sum += block_bytes(p.tensors[static_cast<std::size_t>(i)].bytes);
  EXPECT_EQ(Bytes(sum), t.peak);
}

// A block that is handed over keeps the half MiB that it has too much; freed and asked for anew, the tensor would get the one that fits better.
TEST(Reserved, whatTakesOverABlockKeepsIt) {
  const auto peak = [](bool takes_over) {
    Program p;
    const auto tensor = [&](double mib) {
      TensorInfo t;
      t.role = "t";
      t.bytes = static_cast<std::int64_t>(mib * (1 << 20));
      p.tensors.push_back(t);
      return static_cast<std::int32_t>(p.tensors.size()) - 1;
    };
    const auto alloc = [&](std::int32_t t, std::int32_t from = -1) { p.events.push_back({Event::Kind::alloc, t, t, from}); };
    const auto free = [&](std::int32_t t) { p.events.push_back({Event::Kind::free, t, t}); };
    p.segments.push_back({0, "first_step", "forward", 1, Provenance::exact});
    const std::int32_t room = tensor(40), a = tensor(39.5), large = tensor(80), left = tensor(40.5), b = tensor(39.5), small = tensor(0.5);
    alloc(room), free(room), alloc(a);             // a gets all of room's 40 MiB
    alloc(large), free(large), alloc(left);        // 39.5 MiB are left of large's 80
    free(a), alloc(b, takes_over ? a : -1);
    p.segments.push_back({static_cast<std::int32_t>(p.events.size()), "train_step", "forward", 1, Provenance::exact});
    alloc(small);
    const ReservedResult r = simulate_reserved(p, AllocatorConfig(), std::nullopt);
    return r.by_phase.at(1).allocated.mib();
  };
  EXPECT_DOUBLE_EQ(peak(true), 40 + 40.5 + 0.5);
  EXPECT_DOUBLE_EQ(peak(false), 39.5 + 40.5 + 0.5);
}

TEST(Reserved, allocatorNeverCountsLessThanTheTensors) {
  const Program p = build_program(make(6, 8), {9, 0, 989}, true);
  const Bytes peak = run_timeline(p).peak;
  for (const char* conf : {"", "expandable_segments:True", "max_split_size_mb:200", "roundup_power2_divisions:4"}) {
    const ReservedResult r = simulate_reserved(p, *parse_alloc_conf(conf), std::nullopt);
    EXPECT_GE(r.peak.allocated, peak) << conf;
    EXPECT_GE(r.peak.reserved, r.peak.allocated) << conf;
    // expandable segments split every block to the byte; ordinary ones leave up to 1 MiB in it, and count it
    if (std::string_view(conf).starts_with("expandable")) {
      EXPECT_EQ(r.peak.allocated, peak);
    }
    EXPECT_FALSE(r.out_of_memory);
    EXPECT_TRUE(simulate_reserved(p, *parse_alloc_conf(conf), peak - mib(64)).out_of_memory) << conf;
  }
}

Workload on_gpus(std::int64_t gpus, std::int64_t batch = 8) {
  WorkloadFlags f;
  f.depth = 6;
  f.gpus = gpus;
  f.device_batch_size = batch;
  f.total_batch_size = batch * 2048 * gpus;
  return *make_nanochat_workload(f);
}

// Steps written down one after the other and steps that are played again are the same steps.
TEST(Reserved, steadyStepsPlayedAgainAreThoseLaidOutAgain) {
  Program p = build_program(on_gpus(8), {9, 0, 989}, false);
  ASSERT_TRUE(p.steady);
  EXPECT_FALSE(p.steady->handed.empty());
  const Steady steady = *p.steady;
  p.events.resize(static_cast<std::size_t>(steady.last_event));
  while (p.segments.back().first_event >= steady.last_event) p.segments.pop_back();
  Program longer = p;
  longer.steady.reset();
  std::set<Bytes> peaks;
  for (int rounds : {0, 1, 2, 7, 30}) {
    const std::int32_t length = steady.last_event - steady.first_event;
    while (longer.events.size() < p.events.size() + static_cast<std::size_t>(rounds * length)) ASSERT_TRUE(repeat_events(longer, static_cast<std::int32_t>(longer.events.size()) - length));
    for (const char* conf : {"", "expandable_segments:True"}) {
      const ReservedResult played = simulate_reserved(p, *parse_alloc_conf(conf), std::nullopt, {}, rounds * steady.steps), laid_out = simulate_reserved(longer, *parse_alloc_conf(conf), std::nullopt);
      EXPECT_EQ(played.peak.allocated, laid_out.peak.allocated) << rounds << conf;
      EXPECT_EQ(played.peak.reserved, laid_out.peak.reserved) << rounds << conf;
      if (*conf == 0) peaks.insert(played.peak.allocated);
      else EXPECT_EQ(played.peak.allocated, run_timeline(p).peak);
    }
  }
  EXPECT_GT(peaks.size(), 1U);  // what collectives hold lies elsewhere in each step: more steps find more remainders
}

// On one GPU no collective holds anything: a step is like the one before, to the address, in every version and script, so none is played again.
TEST(Reserved, stepsOfOneGpuAreAlike) {
  int checked = 0;
  for (const NanochatVersion& version : nanochat_versions()) {
    for (const char* script : {"base_train", "mid_train", "chat_sft", "chat_rl"}) {
      for (const bool compile : {true, false}) {
        WorkloadFlags f;
        f.nanochat = version.epoch;
        f.script = script;
        f.depth = 4;
        f.device_batch_size = 4;
        f.compile = compile;
        f.phases = "load,rollout,first_step,train_step";  // nothing after the steps
        const auto w = make_nanochat_workload(f);
        if (!w || !meets(*w, RunPhase::first_step)) continue;  // of others the step laid out is the first to run
        Program p = build_program(*w, {9, 0, 989}, w->run.grad_accum_steps > 1);
        EXPECT_FALSE(p.steady);
        const auto step = std::ranges::find_if(p.segments, [](const Segment& s) { return std::string_view(s.phase) == "train_step"; });
        ASSERT_TRUE(step != p.segments.end());
        const auto stretch = steady_stretch(p, step->first_event, 1);
        ASSERT_TRUE(stretch && stretch->handed.empty()) << version.epoch << " " << script << compile;
        const Bytes once = simulate_reserved(p, {}, std::nullopt).peak.allocated;
        for (int round = 0; round < 5; ++round) ASSERT_TRUE(repeat_events(p, static_cast<std::int32_t>(p.events.size()) - (stretch->last_event - stretch->first_event)));
        EXPECT_EQ(simulate_reserved(p, {}, std::nullopt).peak.allocated, once) << version.epoch << " " << script << compile;
        ++checked;
      }
    }
  }
  EXPECT_GE(checked, 80);
}

// Validation leaves nothing of what works held: the steps after it begin as the run's first did.
TEST(Reserved, stepsAfterAnEvaluationArePlayedToo) {
  Program p = build_program(on_gpus(8), {9, 0, 989}, false);
  ASSERT_EQ(p.steady->between, 250);
  const ReservedResult before = simulate_reserved(p, {}, std::nullopt, {}, 250), whole = simulate_reserved(p, {}, std::nullopt, {}, 5000);
  EXPECT_GE(whole.peak.allocated, before.peak.allocated);
  ASSERT_EQ(whole.by_phase.size(), before.by_phase.size());
  EXPECT_EQ(whole.by_phase.size(), run_timeline(p).phases.size());
}

TEST(AllocConf, badSettingsAreErrors) {
  for (const char* bad : {"expandable_segments", "expandable_segments:yes", "max_split_size_mb:1", "nonsense:3", "roundup_power2_divisions:3", "backend:cudaMallocAsync"}) {
    const auto r = parse_alloc_conf(bad);
    ASSERT_FALSE(r) << bad;
    EXPECT_FALSE(r.error().hint.empty());
  }
  const auto r = parse_alloc_conf("expandable_segments:True, roundup_power2_divisions:[256:1,512:2,1024:4,>:8]");
  ASSERT_TRUE(r);
  EXPECT_EQ(r->roundup_power2_divisions, (std::vector<std::int64_t>{1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 8, 8, 8, 8, 8, 8}));
}

}  // namespace
}  // namespace dryfit
