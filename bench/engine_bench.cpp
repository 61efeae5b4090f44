// The engine without process start: building a program, one more estimate from a built program, a full estimate, a plan.
#include <benchmark/benchmark.h>

#include "graph/nanochat.hpp"
#include "memory/timeline.hpp"
#include "passes/autograd.hpp"
#include "passes/compile.hpp"
#include "passes/partition.hpp"
#include "plan/plan.hpp"

namespace {

using namespace dryfit;

Workload workload(std::int64_t depth) {
  WorkloadFlags flags;
  flags.depth = depth;
  flags.device_batch_size = 8;
  return *make_nanochat_workload(flags);
}

void build_d32(benchmark::State& state) {
  const Workload w = workload(32);
  for (auto _ : state) benchmark::DoNotOptimize(build_program(w, {9, 0, 989}, true));
}
BENCHMARK(build_d32)->Unit(benchmark::kMillisecond);

// Where the time of a build goes, d20.
void stage_graph(benchmark::State& state) {
  const Workload w = workload(20);
  for (auto _ : state) benchmark::DoNotOptimize(nanochat_forward(w, Attention::flash));
}
BENCHMARK(stage_graph)->Unit(benchmark::kMicrosecond);

void stage_autograd(benchmark::State& state) {
  const Graph g = nanochat_forward(workload(20), Attention::flash);
  for (auto _ : state) benchmark::DoNotOptimize(differentiate(g));
}
BENCHMARK(stage_autograd)->Unit(benchmark::kMicrosecond);

void stage_partition(benchmark::State& state) {
  const JointGraph joint = differentiate(nanochat_forward(workload(20), Attention::flash));
  for (auto _ : state) benchmark::DoNotOptimize(min_cut_saved(joint));
}
BENCHMARK(stage_partition)->Unit(benchmark::kMicrosecond);

void stage_compile(benchmark::State& state) {
  const Graph g = nanochat_forward(workload(20), Attention::flash);
  for (auto _ : state) benchmark::DoNotOptimize(compile_step(g, true));
}
BENCHMARK(stage_compile)->Unit(benchmark::kMicrosecond);

void stage_program(benchmark::State& state) {
  const Workload w = workload(20);
  for (auto _ : state) benchmark::DoNotOptimize(build_program(w, {8, 9, 165}, true));
}
BENCHMARK(stage_program)->Unit(benchmark::kMicrosecond);

// The same step as seconds, d20: once a report.
void stage_speed(benchmark::State& state) {
  const Workload w = workload(20);
  const StepWork work = build_program(w, {8, 9, 165}, true).work;
  const GpuRates rates = *rates_of(*find_gpu("rtx 4090"));
  for (auto _ : state) benchmark::DoNotOptimize(time_step(work, rates, 1, w.run.grad_accum_steps, w.run.compute, true));
}
BENCHMARK(stage_speed)->Unit(benchmark::kMicrosecond);

void stage_envelope(benchmark::State& state) {
  const Program p = build_program(workload(20), {8, 9, 165}, true);
  for (auto _ : state) benchmark::DoNotOptimize(make_envelope(p));
}
BENCHMARK(stage_envelope)->Unit(benchmark::kMicrosecond);

void stage_timeline(benchmark::State& state) {
  const Program p = build_program(workload(20), {8, 9, 165}, true);
  for (auto _ : state) benchmark::DoNotOptimize(run_timeline(p));
}
BENCHMARK(stage_timeline)->Unit(benchmark::kMicrosecond);

void stage_allocator(benchmark::State& state) {
  const Program p = build_program(workload(20), {8, 9, 165}, true);
  for (auto _ : state) benchmark::DoNotOptimize(simulate_reserved(p, {}, std::nullopt));
  state.counters["events"] = static_cast<double>(p.events.size());
}
BENCHMARK(stage_allocator)->Unit(benchmark::kMicrosecond);

void estimate_from_built_program(benchmark::State& state) {
  const Envelope envelope = make_envelope(build_program(workload(26), {9, 0, 989}, true));
  std::int64_t batch = 1;
  for (auto _ : state) benchmark::DoNotOptimize(envelope.at(batch = batch % 64 + 1));
}
BENCHMARK(estimate_from_built_program)->Unit(benchmark::kMicrosecond);

void full_estimate_d26(benchmark::State& state) {
  const Workload w = workload(26);
  const Machine m = *machine_from_flags({"h100", 1, std::nullopt, std::nullopt});
  for (auto _ : state) benchmark::DoNotOptimize(estimate(w, m));
}
BENCHMARK(full_estimate_d26)->Unit(benchmark::kMillisecond);

void plan_one_machine(benchmark::State& state) {
  const Machine m = *machine_from_flags({"rtx 4090", 1, std::nullopt, std::nullopt});
  for (auto _ : state) benchmark::DoNotOptimize(plan({}, m));
}
BENCHMARK(plan_one_machine)->Unit(benchmark::kMillisecond);

}  // namespace
