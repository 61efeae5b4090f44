// The engine without process start: building a program, one more estimate from a built program, a full estimate, a plan.
#include <benchmark/benchmark.h>

#include "memory/timeline.hpp"
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
