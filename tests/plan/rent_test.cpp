// What to rent for a Hugging Face model: each machine's answer is plan's own, nothing marked is beaten, what was given is held.
#include "plan/rent.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "memory/timeline.hpp"
#include "passes/program.hpp"
#include "plan/static_sums.hpp"
#include "plan/ways.hpp"
#include "workload/probe_presets.hpp"

namespace dryfit {
namespace {

const HfModel& preset(const char* name) { return find_preset(name)->preset->model; }
Machine machine(const std::string& gpu, std::int64_t gpus) { return *machine_from_flags({gpu, gpus, std::nullopt, std::nullopt}); }

constexpr std::string_view kPrices =
    "gpu,provider,gpus,usd_per_gpu_hour,kind\n"
    "RTX 3060 12GB,a,1,0.15\nRTX 4090,b,1,0.40\nRTX 4090,c,1,0.60\nA100 80GB PCIe,d,2,1.40\nH100 80GB HBM3,e,8,2.40\nH100 80GB HBM3,f,1,2.90\nAbacus,g,1,0.01\n";

std::vector<Offer> offers_of(const char* model, const TransformersFlags& flags, std::string_view csv = kPrices) {
  static std::vector<Price> prices;
  prices = *read_prices(csv, "test");
  EstimateOptions options;
  options.prices = &prices;
  auto found = offers_transformers(preset(model), flags, options);
  EXPECT_TRUE(found) << found.error().message;
  return found ? *found : std::vector<Offer>();
}

double usd(const Offer& o) {
  const auto& s = *o.report.speed;
  return s.horizon_usd(o.report.machine.gpus).value_or(*s.usd_per_million_tokens(o.report.machine.gpus));
}
double seconds(const Offer& o) { return o.report.speed->horizon_seconds().value_or(1 / o.report.speed->tokens_per_second); }
Method method(const Offer& o) { return method_of(o.report.workload.transformers->training); }

// Checkpoints, which need least, are refused of some compiled runs: a machine is found without them.
TEST(CheapestMachine, isFoundForWhatCannotCheckpoint) {
  const std::vector<Price> prices = *read_prices(kPrices, "test");
  EstimateOptions options;
  options.prices = &prices;
  TransformersFlags f;
  f.compile = true, f.mixed = MixedPrecision::bf16, f.max_seq_len = 1024;
  for (const Method way : {Method::full, Method::lora}) {
    if (way == Method::lora) f.lora.emplace().rank = 16;
    const auto rent = cheapest_machine(preset("llama-3.2-1b"), f, way, options);
    ASSERT_TRUE(rent);
    EXPECT_EQ(rent->report.workload.transformers->training.recompute, Recompute::none);
  }
}

// torchtune's optimizer in backward has one gradient at a time: the sum with all of them may be more than a machine that it fits has.
TEST(CheapestMachine, isFoundWhereGradientsAreNeverThereTogether) {
  TransformersFlags f;
  f.framework = Framework::torchtune, f.weights = Dtype::bf16, f.optimizer = OptimizerKind::adamw_fused, f.recompute = Recompute::full, f.max_seq_len = 128, f.device_batch_size = 1, f.gpus = 1;
  f.torchtune.emplace().optimizer_in_backward = true;
  const HfModel& model = preset("llama-3.2-3b");
  const Machine small = machine("rtx 4090", 1);
  const StaticBytes fixed = static_bytes(*make_transformers_workload(model, f));
  ASSERT_GT(fixed.weights + fixed.gradients + fixed.optimizer, small.usable());
  ASSERT_EQ(estimate(*make_transformers_workload(model, f), small)->verdict, Verdict::fits);
  const BestWays best = best_ways(model, f, std::array{small}, {});
  ASSERT_TRUE(best.of.front());
  EXPECT_TRUE(best.of.front()->fits);
  const std::vector<Price> prices = *read_prices("gpu,provider,gpus,usd_per_gpu_hour,kind\nRTX 4090,a,1,0.40\nA100 80GB PCIe,b,1,1.40\n", "test");
  EstimateOptions options;
  options.prices = &prices;
  const auto rent = cheapest_machine(model, f, Method::full, options);
  ASSERT_TRUE(rent);
  EXPECT_EQ(rent->price.provider, "a");
}

// No sum that rules a way out is more than what the way allocates.
TEST(StaticSums, leaveOutNothingThatFits) {
  TransformersFlags tune;
  tune.framework = Framework::torchtune, tune.weights = Dtype::bf16, tune.optimizer = OptimizerKind::adamw_8bit, tune.gpus = 1;
  TransformersFlags in_backward = tune, script, host;
  host.offload_optimizer = host.offload_parameters = true;
  in_backward.torchtune.emplace().optimizer_in_backward = true;
  script.framework = Framework::litgpt;
  for (TransformersFlags f : {TransformersFlags(), host, script, tune, in_backward}) {
    f.max_seq_len = 64;
    for (const Machine& m : {machine("h100", 1), machine("rtx 3090", 4)}) {
      if (f.gpus && m.gpus > 1) continue;
      StaticSums sums;
      for (const Method method : methods_of(f)) {
        for (const Way& way : ways_of(f, method, m)) {
          const auto w = workload_of(preset("llama-3.2-1b"), way, m);
          const auto program = w ? program_for(*w, target_of(m), false) : std::unexpected(w.error());
          if (!program) continue;
          EXPECT_LE(least_bytes(*w, sums.of(*w)), run_timeline(*program).peak) << name_of(method) << " " << name_of(w->transformers->training.sharding) << " " << name_of(w->transformers->training.framework);
        }
      }
    }
  }
}

TEST(OffersOfModels, eachIsWhatPlanChoosesThere) {
  TransformersFlags flags;
  flags.max_seq_len = 512, flags.max_tokens = 100'000'000;
  const auto offers = offers_of("gpt2", flags);
  ASSERT_GE(offers.size(), 6U);
  std::set<std::string> gpus;
  for (const Offer& o : offers) {
    const Machine& m = o.report.machine;
    gpus.insert(m.gpu.name);
    const auto plan = plan_transformers(preset("gpt2"), flags, machine(m.gpu.name, m.gpus));
    ASSERT_TRUE(plan && plan->chosen) << m.gpu.name;
    const Candidate& there = plan->candidates[*plan->chosen];
    EXPECT_EQ(o.report.command, there.report.command) << m.gpus << " x " << m.gpu.name;
    EXPECT_EQ(o.report.process.bytes, there.report.process.bytes);
    EXPECT_DOUBLE_EQ(o.report.speed->tokens_per_second, there.report.speed->tokens_per_second);
    EXPECT_EQ(method(o), there.method);
    EXPECT_EQ(m.gpus % o.price.gpus, 0) << "instances are rented whole";
    EXPECT_EQ(o.report.speed->price->provider, o.price.provider);
    EXPECT_NEAR(usd(o), *o.report.speed->horizon_seconds() / 3600 * o.price.usd_per_gpu_hour * static_cast<double>(m.gpus), 1e-9 * usd(o));
    EXPECT_GE(o.report.speed->horizon->tokens, 1e8);
    EXPECT_LT(o.report.speed->horizon->tokens, 1e8 + static_cast<double>(o.report.workload.run.total_batch_size));
  }
  EXPECT_EQ(gpus.size(), 4U);  // what nobody knows is left out
}

TEST(OffersOfModels, whatIsMarkedIsNotBeatenByItsMethod) {
  TransformersFlags flags;
  flags.max_seq_len = 1024, flags.weights = Dtype::fp32;
  const auto offers = offers_of("llama-3.2-1b", flags);
  ASSERT_FALSE(offers.empty());
  std::set<Method> methods;
  for (std::size_t i = 0; i < offers.size(); ++i) {
    const Offer& o = offers[i];
    methods.insert(method(o));
    if (i > 0) EXPECT_LE(method(offers[i - 1]), method(o));
    if (i > 0 && method(offers[i - 1]) == method(o)) EXPECT_LE(seconds(offers[i - 1]), seconds(o));
    const bool beaten = std::ranges::any_of(offers, [&](const Offer& other) { return method(other) == method(o) && seconds(other) <= seconds(o) && usd(other) <= usd(o) && (seconds(other) < seconds(o) || usd(other) < usd(o)); });
    EXPECT_EQ(o.best, !beaten) << o.report.machine.gpus << " x " << o.price.gpu;
    if (o.best) continue;
    for (const Offer& other : offers) {
      if (other.price == o.price && method(other) == method(o)) EXPECT_GE(usd(other), usd(o)) << "of one price the cheapest, and what is marked";
    }
  }
  EXPECT_GE(methods.size(), 2U);  // the small card trains adapters
}

TEST(OffersOfModels, whatIsGivenIsHeld) {
  TransformersFlags flags;
  flags.max_seq_len = 256, flags.gpus = 2, flags.recompute = Recompute::full, flags.sharding = Sharding::zero2, flags.total_batch_size = 256 * 64, flags.max_steps = 10;
  flags.lora.emplace().rank = 4;
  const auto offers = offers_of("qwen2.5-0.5b", flags);
  ASSERT_FALSE(offers.empty());
  for (const Offer& o : offers) {
    const Training& t = o.report.workload.transformers->training;
    EXPECT_EQ(o.report.machine.gpus, 2);
    EXPECT_NE(o.price.provider, "e");  // eight in one instance
    EXPECT_EQ(t.recompute, Recompute::full);
    EXPECT_EQ(t.sharding, Sharding::zero2);
    EXPECT_EQ(t.lora->rank, 4);
    EXPECT_EQ(o.report.workload.run.total_batch_size, 256 * 64);
    EXPECT_EQ(o.report.speed->horizon->iterations, 10);
  }
}

// What machines share is the same program, to the event, on each of them.
TEST(OffersOfModels, whatIsSharedIsLaidOutAlike) {
  TransformersFlags flags;
  flags.max_seq_len = 128, flags.device_batch_size = 2, flags.weights = Dtype::bf16, flags.mixed = MixedPrecision::bf16;
  std::vector<Machine> machines;
  for (const Price& p : known_prices()) {
    auto m = machine_from_flags({p.gpu, 1, std::nullopt, std::nullopt});
    if (m && std::ranges::none_of(machines, [&](const Machine& other) { return other.gpu.name == m->gpu.name; })) machines.push_back(*m);
  }
  ASSERT_GT(machines.size(), 20U);
  for (const auto& [liger, torch] : {std::pair{false, "2.9.1"}, std::pair{true, "2.9.1"}, std::pair{false, "2.11.0"}}) {
    flags.liger = liger, flags.torch = torch;
    const auto w = make_transformers_workload(preset("qwen2.5-0.5b"), flags);
    ASSERT_TRUE(w);
    std::vector<Program> programs;
    for (const Machine& m : machines) programs.push_back(*program_for(*w, target_of(m), false));
    int alike = 0;
    for (std::size_t a = 0; a < machines.size(); ++a) {
      for (std::size_t b = 0; b < a; ++b) {
        const Program &x = programs[a], &y = programs[b];
        const auto same_tensor = [](const TensorInfo& p, const TensorInfo& q) { return p.bytes == q.bytes && p.fixed == q.fixed && p.batched == q.batched && p.name() == q.name() && p.stream == q.stream; };
        const auto same_event = [](const Event& p, const Event& q) { return p.kind == q.kind && p.tensor == q.tensor && p.op == q.op && p.from == q.from; };
        const auto same_work = [](const Work& p, const Work& q) { return p.kind == q.kind && p.bytes() == q.bytes() && p.flops() == q.flops() && p.launches == q.launches && p.attention == q.attention; };
        const bool same = std::ranges::equal(x.tensors, y.tensors, same_tensor) && std::ranges::equal(x.events, y.events, same_event) &&
                          std::ranges::equal(x.work.laid_out, y.work.laid_out, [&](const auto& p, const auto& q) { return std::ranges::equal(p, q, same_work); });
        const bool told = laid_out_alike(target_of(machines[a]), target_of(machines[b]), liger, torch);
        alike += told ? 1 : 0;
        if (told) EXPECT_TRUE(same) << machines[a].gpu.name << ", " << machines[b].gpu.name;
        else EXPECT_FALSE(same && !liger) << machines[a].gpu.name << ", " << machines[b].gpu.name << " could share";
      }
    }
    EXPECT_GT(alike, liger ? 0 : 100);
  }
}

TEST(OffersOfModels, theHorizonIsTheSameTokensEverywhere) {
  TransformersFlags flags;
  flags.max_seq_len = 256, flags.max_steps = 10;
  const auto asked = [&] { return offers_transformers(preset("smollm2-135m"), flags, {}); };
  EXPECT_EQ(asked().error().where, "--max-steps");
  flags.gpus = 1, flags.device_batch_size = 4;
  const auto found = asked();
  ASSERT_TRUE(found) << found.error().message;
  for (const Offer& o : *found) EXPECT_EQ(o.report.speed->horizon->tokens, 10 * 4 * 256);
}

TEST(OffersOfModels, whatEveryMachineRefusesIsAnError) {
  TransformersFlags flags;
  flags.max_seq_len = 5000;
  EXPECT_EQ(offers_transformers(preset("gpt2"), flags, {}).error().where, "--max-seq-len");
  flags.max_seq_len = 256, flags.total_batch_size = 256 * 3;  // three sequences are one GPU's
  const auto some = offers_transformers(preset("gpt2"), flags, {});
  ASSERT_TRUE(some) << some.error().message;
  for (const Offer& o : *some) EXPECT_EQ(o.report.machine.gpus, 1);
  TransformersFlags large;
  large.all_weights = true, large.optimizer = OptimizerKind::adamw_loop, large.weights = Dtype::fp32;
  EXPECT_TRUE(offers_of("llama-3.1-8b", large, "gpu,gpus,usd_per_gpu_hour\nRTX 3060 12GB,1,0.15\n").empty());  // nothing fits: no error
}

}  // namespace
}  // namespace dryfit
