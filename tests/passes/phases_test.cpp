// Every script's run as events: nothing dies twice or lives twice, and each phase holds what it must.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "memory/timeline.hpp"
#include "passes/evaluation.hpp"
#include "passes/optimizer.hpp"
#include "passes/program.hpp"
#include "passes/sampling.hpp"

namespace dryfit {
namespace {

Workload make(const char* version, const char* script, std::int64_t gpus = 1) {
  WorkloadFlags f;
  f.nanochat = version;
  f.script = script;
  f.depth = 4;
  f.gpus = gpus;
  f.max_seq_len = 512;
  if (std::string_view(script) != "chat_rl") f.device_batch_size = 4;
  const auto w = make_nanochat_workload(f);
  EXPECT_TRUE(w) << version << " " << script << ": " << w.error().message;
  return w ? *w : Workload();
}

Bytes phase(const Timeline& t, std::string_view name) {
  const auto found = std::ranges::find(t.phases, name, &PhasePeak::phase);
  return found == t.phases.end() ? Bytes(-1) : found->allocated;
}

TEST(Phases, AreBalancedForEveryScript) {
  for (const auto& [version, script] : {std::pair{"E1", "base_train"}, std::pair{"E7", "base_train"}, std::pair{"E1", "mid_train"}, std::pair{"E4d", "mid_train"}, std::pair{"E1", "chat_sft"},
                                        std::pair{"E4e", "chat_sft"}, std::pair{"E7", "chat_sft"}, std::pair{"E1", "chat_rl"}, std::pair{"E4h", "chat_rl"}, std::pair{"E7", "chat_rl"}}) {
    for (std::int64_t gpus : {1, 8}) {
      const Workload w = make(version, script, gpus);
      const Program p = build_program(w, {9, 0, 989}, w.run.grad_accum_steps > 1);
      std::vector<int> alive(p.tensors.size(), 0);
      for (const Event& e : p.events) {
        int& n = alive[static_cast<std::size_t>(e.tensor)];
        n += e.kind == Event::Kind::alloc ? 1 : -1;
        ASSERT_TRUE(n == 0 || n == 1) << version << " " << script << " " << p.tensors[static_cast<std::size_t>(e.tensor)].name();
      }
      for (std::size_t s = 1; s < p.segments.size(); ++s) ASSERT_LE(p.segments[s - 1].first_event, p.segments[s].first_event);
      const Timeline t = run_timeline(p);
      for (const PhasePeak& one : t.phases) EXPECT_LE(one.allocated, t.peak);
      EXPECT_EQ(std::ranges::max(t.phases, {}, &PhasePeak::allocated).allocated, t.peak);
      const auto simulated = simulate_reserved(p, {}, std::nullopt);
      EXPECT_EQ(simulated.by_phase.size(), t.phases.size());
      for (int i = 0; i < kPhases; ++i) EXPECT_EQ(phase(t, name_of(static_cast<RunPhase>(i))) >= Bytes(0), meets(w, static_cast<RunPhase>(i))) << version << " " << script << " " << name_of(static_cast<RunPhase>(i));
    }
  }
}

// What un-waited collectives hold into the second step is what came after the compiler's last stop: the last shape's gathered matrices. From the third step on it is all of them.
TEST(Phases, compilingTheOptimizerLetsCollectivesGo) {
  const Workload w = make("E7", "base_train", 8);
  const Program p = build_program(w, {9, 0, 0}, w.run.grad_accum_steps > 1);  // steps longer than the watchdog's period
  std::vector<std::map<std::string, std::int64_t>> held;  // as each train_step begins: bytes by role
  for (const Segment& s : p.segments) {
    if (std::string_view(s.phase) != "train_step" || std::string_view(s.part) != "forward" || s.micro_step != 1) continue;
    held.emplace_back();
    for (std::int32_t t : live_tensors(p, s.first_event - 1)) {
      const TensorInfo& info = p.tensors[static_cast<std::size_t>(t)];
      if (info.category == Category::communication) held.back()[info.role] += info.bytes;
    }
  }
  ASSERT_EQ(held.size(), 2U);
  const MuonGroup last = muon_groups(w.model).back();
  const std::int64_t chunk = ceil_div(last.count, 8) * last.elements() * 4;
  EXPECT_EQ(held[0], (std::map<std::string, std::int64_t>{{"muon.stacked_grads", 8 * chunk}, {"muon.updated_params", chunk}}));
  EXPECT_GT(held[1].size(), held[0].size());
  EXPECT_GT(held[1].at("muon.stacked_grads"), 8 * chunk);
  EXPECT_TRUE(held[1].contains("adamw.grad_slice"));
}

TEST(Phases, CheckpointsStandBesideAModelAtFirst) {
  const Workload base = make("E7", "base_train"), sft = make("E7", "chat_sft");
  const Bytes weights = static_bytes(base).weights;
  const Timeline alone = run_timeline(build_program(base, {9, 0, 0}, true));
  EXPECT_LT(phase(alone, "load"), weights + weights);
  EXPECT_GE(phase(run_timeline(build_program(sft, {9, 0, 0}, true)), "load"), weights + weights);
  Workload resumed = base;
  resumed.run.resume_from_step = 100;
  resumed.run.cold_caches = false;  // its first step has all states, and would have what timing kernels takes beside them
  const Timeline t = run_timeline(build_program(resumed, {9, 0, 0}, true));
  EXPECT_GE(phase(t, "resume"), weights + weights + static_bytes(base).optimizer);
  EXPECT_EQ(phase(t, "first_step"), Bytes(-1));
  EXPECT_EQ(phase(t, "train_step"), phase(alone, "train_step"));
  EXPECT_GT(phase(t, "validation"), Bytes(0));
}

// nanochat leaves fp8 to evaluate (base_train.py, disable_fp8): the compiled forward pass is that of a bf16 run, and before E6b every Linear that stands in
// for one in fp8 makes a weight of its own first.
TEST(Phases, Fp8RunsAreEvaluatedInBf16) {
  // bytes above what was there, and how many Linears came and went, in the first validation
  struct Validation { std::int64_t peak = 0, linears = 0; };
  const auto first_validation = [](const char* version, bool fp8) {
    Workload w = make(version, "base_train");
    w.run.fp8 = fp8;
    const Program p = build_program(w, {9, 0, 989}, false);
    Validation v;
    std::int64_t live = 0;
    bool inside = false;
    for (std::size_t i = 0; i < p.events.size(); ++i) {
      const Segment& s = p.segment_of(static_cast<std::int32_t>(i));
      if (inside && std::string_view(s.phase) != "validation") break;
      inside = std::string_view(s.phase) == "validation";
      const Event& e = p.events[i];
      const TensorInfo& t = p.tensors[static_cast<std::size_t>(e.tensor)];
      if (!inside) continue;
      live += e.kind == Event::Kind::alloc ? block_bytes(t.bytes) : -block_bytes(t.bytes);
      v.peak = std::max(v.peak, live);
      v.linears += e.kind == Event::Kind::alloc && std::string_view(t.role) == "linear.weight" ? 1 : 0;
    }
    return v;
  };
  for (const char* version : {"E4g", "E6b", "E7"}) {
    EXPECT_GT(first_validation(version, false).peak, 0) << version;
    EXPECT_EQ(first_validation(version, true).peak, first_validation(version, false).peak) << version;
  }
  constexpr std::int64_t kLinears = 4 * 6 + 1;  // of four blocks six each, and the head; gates are too small for fp8
  EXPECT_EQ(first_validation("E4f", true).linears, kLinears);
  EXPECT_EQ(first_validation("E6", true).linears, kLinears);
  EXPECT_EQ(first_validation("E6b", true).linears, 0);
  EXPECT_EQ(first_validation("E6", false).linears, 0);
}

TEST(Phases, NothingIsMadeForACheckpoint) {
  const Workload w = make("E7", "base_train");
  const Program p = build_program(w, {9, 0, 0}, true);
  const Timeline t = run_timeline(p);
  EXPECT_EQ(t.phases.back().phase, "checkpoint");
  EXPECT_EQ(t.phases.back().event, kNothing);
  EXPECT_EQ(t.phases.back().allocated, Bytes(t.live.back()));
}

TEST(Phases, SamplingGrowsWithTheCacheAndLetsGo) {
  const Workload w = make("E7", "chat_rl");
  const auto peak = [&](Generation g) { return peak_of(generate(w, Attention::fa3, g)); };
  const Bytes few = peak({200, 32, 1000}), many = peak({200, 64, 1000});  // with fewer samples the prompt is the peak
  const std::int64_t per_row = 2 * w.model.depth * 1200 * w.model.width * 2;  // keys and values of all layers in bf16
  EXPECT_GE((many - few).count, 32 * per_row);
  for (const char* version : {"E1", "E3", "E4g", "E5", "E6", "E7"}) {
    const EagerForward f = generate(make(version, "base_train"), Attention::efficient, kBaseTrainSample);
    std::int64_t live = 0;
    for (const Event& e : f.events) live += (e.kind == Event::Kind::alloc ? 1 : -1) * f.tensors[static_cast<std::size_t>(e.tensor)].bytes;
    EXPECT_EQ(live, 0) << version;
  }
}

TEST(Phases, ChatQuestionsGrowWithTheDeviceBatch) {
  const Workload w = make("E7", "chat_sft");
  const EagerForward two = chat_forward(w, Attention::fa3, 2, 500), four = chat_forward(w, Attention::fa3, 4, 500);
  EXPECT_GE(peak_of(four).count - peak_of(two).count, 2 * 500 * w.model.vocab * 12);
  EXPECT_TRUE(std::ranges::any_of(four.tensors, &TensorInfo::batched));
}

// scripts/chat_eval.py goes on naming a batch's logits while the next batch runs: at the peak five tensors as large as they, of which the soft-cap makes three.
TEST(Phases, ChatQuestionsMeetTheLogitsOfThoseBefore) {
  const Workload w = make("E7", "chat_sft");
  const EagerForward f = chat_forward(w, Attention::fa3, 4, 500);
  std::int64_t logits = 0, most = 0;
  for (const Event& e : f.events) {
    const TensorInfo& t = f.tensors[static_cast<std::size_t>(e.tensor)];
    if (t.category != Category::logits || t.dtype != Dtype::fp32) continue;
    logits += e.kind == Event::Kind::alloc ? 1 : -1;
    most = std::max(most, logits);
  }
  EXPECT_EQ(most, 4);  // the last batch's, this one's in fp32, and two of the soft-cap's
  EXPECT_EQ(logits, 0);
}

// chat_sft evaluates at its last step whatever --eval-every says, and only there where it says -1 (scripts/chat_sft.py): as measured, the batch of a validation is not there while it trains then.
TEST(Phases, TheLastStepIsEvaluatedThoughTheFirstIsNot) {
  const auto validations_before_training = [](std::int64_t every) {
    WorkloadFlags f;
    f.script = "chat_sft", f.depth = 4, f.max_seq_len = 512, f.device_batch_size = 4, f.eval_every = every;
    const Program p = build_program(*make_nanochat_workload(f), {9, 0, 0}, false);
    const auto is = [](const char* phase) { return [phase](const Segment& s) { return std::string_view(s.phase) == phase; }; };
    const auto training = std::ranges::find_if(p.segments, is("train_step"));
    EXPECT_TRUE(std::any_of(training, p.segments.end(), is("validation")));
    return std::count_if(p.segments.begin(), training, is("validation"));
  };
  EXPECT_EQ(validations_before_training(200), 1);
  EXPECT_EQ(validations_before_training(-1), 0);
}

// TORCH_COMPILE_DISABLE=1 leaves the optimizer's functions uncompiled too, also of scripts that compile no model; nothing stops between two collectives then.
TEST(Phases, UncompiledOptimizersNameWhatPythonNames) {
  const auto optimizer_rise = [](const char* version, const char* script, bool compile) {
    WorkloadFlags f;
    f.nanochat = version, f.script = script, f.depth = 4, f.max_seq_len = 512, f.compile = compile;
    f.device_batch_size = std::string_view(script) == "chat_rl" ? 8 : 4;
    const Program p = build_program(*make_nanochat_workload(f), {9, 0, 0}, true);
    std::int64_t live = 0, start = 0, most = 0;
    for (std::size_t i = 0; i < p.events.size(); ++i) {
      const Segment& s = p.segment_of(static_cast<std::int32_t>(i));
      const bool inside = std::string_view(s.phase) == "train_step" && std::string_view(s.part) == "optimizer";
      if (!inside) start = live;
      live += (p.events[i].kind == Event::Kind::alloc ? 1 : -1) * block_bytes(p.tensors[static_cast<std::size_t>(p.events[i].tensor)].bytes);
      if (inside) most = std::max(most, live - start);
    }
    return most;
  };
  for (const char* version : {"E1", "E3", "E3c", "E4d", "E6b", "E7"}) EXPECT_GT(optimizer_rise(version, "base_train", false), optimizer_rise(version, "base_train", true)) << version;
  const auto held_by_first_step = [](const char* version, bool compile) {
    WorkloadFlags f;
    f.nanochat = version, f.depth = 4, f.gpus = 8, f.max_seq_len = 512, f.device_batch_size = 4, f.compile = compile;
    const Program p = build_program(*make_nanochat_workload(f), {9, 0, 0}, true);
    const auto second = std::ranges::find_if(p.segments, [](const Segment& one) { return std::string_view(one.phase) == "train_step"; });
    std::int64_t bytes = 0;
    for (std::int32_t t : live_tensors(p, second->first_event - 1)) bytes += p.tensors[static_cast<std::size_t>(t)].category == Category::communication ? p.tensors[static_cast<std::size_t>(t)].bytes : 0;
    return bytes;
  };
  for (const char* version : {"E1", "E4", "E7"}) EXPECT_GT(held_by_first_step(version, false), held_by_first_step(version, true)) << version;
  EXPECT_GT(optimizer_rise("E7", "chat_rl", false), optimizer_rise("E7", "chat_rl", true));
}

}  // namespace
}  // namespace dryfit
