// The engine without process start: building a program, one more estimate from a built program, a full estimate, a plan.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <thread>

#include "cli/parallel.hpp"
#include "graph/nanochat.hpp"
#include "memory/timeline.hpp"
#include "passes/autograd.hpp"
#include "passes/compile.hpp"
#include "passes/partition.hpp"
#include "plan/rent.hpp"
#include "plan/transformers_plan.hpp"
#include "workload/probe_presets.hpp"

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

// nanochat on 8 GPUs: the steps between validations, twice 250 of them
void stage_every_step(benchmark::State& state) {
  WorkloadFlags f;
  f.depth = 24, f.gpus = 8, f.device_batch_size = 16;
  const Program p = build_program(*make_nanochat_workload(f), {9, 0, 989}, true);
  for (auto _ : state) benchmark::DoNotOptimize(simulate_reserved(p, {}, std::nullopt, {}, 5000));
}
BENCHMARK(stage_every_step)->Unit(benchmark::kMillisecond);

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

// Hugging Face models on one thread: every way that is searched, from a model to the chosen run; without prices, which are asked only where full
// fine-tuning does not fit.
void plan_model(benchmark::State& state, const char* model, const char* gpu, std::int64_t gpus) {
  const HfModel& shipped = find_preset(model)->preset->model;
  const Machine m = *machine_from_flags({gpu, gpus, std::nullopt, std::nullopt});
  std::size_t ways = 0;
  for (auto _ : state) ways = plan_transformers(shipped, {}, m)->candidates.size();
  state.counters["ways"] = static_cast<double>(ways);
}
BENCHMARK_CAPTURE(plan_model, gpt2_4090, "gpt2", "rtx 4090", 1)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(plan_model, llama_8b_4090, "llama-3.1-8b", "rtx 4090", 1)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(plan_model, llama_8b_8xh100, "llama-3.1-8b", "h100", 8)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(plan_model, llama_70b_64xh100, "llama-3.1-70b", "h100", 64)->Unit(benchmark::kMillisecond);

// plan --offers on one thread: the same on every machine there is to rent.
void offers_of_model(benchmark::State& state, const char* model) {
  const HfModel& shipped = find_preset(model)->preset->model;
  TransformersFlags flags;
  flags.max_tokens = 1'000'000'000;
  std::size_t found = 0;
  for (auto _ : state) found = offers_transformers(shipped, flags, {})->size();
  state.counters["offers"] = static_cast<double>(found);
}
BENCHMARK_CAPTURE(offers_of_model, gpt2, "gpt2")->Unit(benchmark::kMillisecond);

// The same as the command goes over it, on up to eight threads: the wall's time.
void plan_model_on_threads(benchmark::State& state, const char* model, const char* gpu, std::int64_t gpus) {
  const HfModel& shipped = find_preset(model)->preset->model;
  const Machine m = *machine_from_flags({gpu, gpus, std::nullopt, std::nullopt});
  const unsigned threads = std::clamp(std::thread::hardware_concurrency(), 1U, 8U);
  EstimateOptions options;
  options.loop = [threads](std::size_t count, const std::function<bool(std::size_t)>& call) { for_each_until(count, threads, call); };
  for (auto _ : state) benchmark::DoNotOptimize(plan_transformers(shipped, {}, m, options));
  state.counters["threads"] = static_cast<double>(threads);
}
BENCHMARK_CAPTURE(plan_model_on_threads, llama_70b_64xh100, "llama-3.1-70b", "h100", 64)->Unit(benchmark::kMillisecond)->UseRealTime();

// Where that goes: one way laid out; run through the allocator.
Workload model_run(Sharding sharding) {
  TransformersFlags f;
  f.gpus = 8, f.device_batch_size = 1, f.sharding = sharding, f.mixed = MixedPrecision::bf16;
  return *make_transformers_workload(find_preset("llama-3.1-8b")->preset->model, f);
}
void build_model(benchmark::State& state, Sharding sharding) {
  const Workload w = model_run(sharding);
  for (auto _ : state) benchmark::DoNotOptimize(program_for(w, {9, 0, 989}, false));
}
void simulate_model(benchmark::State& state, Sharding sharding) {
  const Program p = *program_for(model_run(sharding), {9, 0, 989}, false);
  for (auto _ : state) benchmark::DoNotOptimize(simulate_reserved(p, {}, std::nullopt));
  state.counters["events"] = static_cast<double>(p.events.size());
}
void static_bytes_of_model(benchmark::State& state, Sharding sharding) {
  const Workload w = model_run(sharding);
  for (auto _ : state) benchmark::DoNotOptimize(static_bytes(w));
}
BENCHMARK_CAPTURE(build_model, fsdp2, Sharding::fsdp2)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(build_model, zero3, Sharding::zero3)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(build_model, ddp, Sharding::ddp)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(simulate_model, fsdp2, Sharding::fsdp2)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(simulate_model, zero3, Sharding::zero3)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(static_bytes_of_model, zero3, Sharding::zero3)->Unit(benchmark::kMillisecond);

}  // namespace
