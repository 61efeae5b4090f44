// See megatron_command.hpp.
#include "plan/megatron_command.hpp"

#include <algorithm>

#include "base/text.hpp"

namespace dryfit {

namespace {

// Arguments whose values a search or a lever moves.
struct Written { std::string name, value; };
std::vector<Written> moved(const Workload& workload) {
  const Training t = training_of(*workload.transformers, workload.run);
  const MegatronRun& m = t.megatron;
  return {{"micro-batch-size", std::to_string(t.device_batch_size)}, {"seq-length", std::to_string(t.seq_len)},
          {"global-batch-size", std::to_string(t.device_batch_size * t.grad_accum_steps * (t.world_size / m.model_parallel()))}};
}

}  // namespace

bool is_megatron_command(const LaunchLine& launch) {
  const auto has = [&](std::string_view name) { return std::ranges::any_of(launch.arguments, [&](const std::string& w) { return w.starts_with("--") && dashed(w.substr(2, std::min(w.find('='), w.size()) - 2)) == name; }); };
  const std::string_view script = std::string_view(launch.script).substr(launch.script.rfind('/') + 1);
  return script.starts_with("pretrain_gpt") || (has("num-attention-heads") && has("hidden-size") && has("num-layers"));
}

MegatronCommand read_megatron_command(const LaunchLine& launch) {
  MegatronCommand out;
  out.ignored = launch.ignored;
  out.arguments.gpus = launch.gpus;
  for (const auto& [key, value] : launch.environment) {
    if (sets_allocator(key)) out.alloc_conf = value;
    else if (sizes_workspaces(key)) out.arguments.workspaces.emplace_back(key, value);
    else if (key != "CUDA_VISIBLE_DEVICES" && key != "CUDA_DEVICE_MAX_CONNECTIONS" && key != "NCCL_ALGO" && key != "NVTE_ALLOW_NONDETERMINISTIC_ALGO") out.ignored.push_back(key);
  }
  for (Argument& a : arguments_of(launch, out.ignored)) out.arguments.given.emplace_back(std::move(a.name), std::move(a.values));
  return out;
}

std::vector<std::string> megatron_command(const Workload& workload) {
  std::vector<std::string> out{"torchrun", "--nproc_per_node=" + std::to_string(std::min<std::int64_t>(workload.run.world_size, 8)), "pretrain_gpt.py"};
  if (workload.run.world_size > 8) out.insert(out.begin() + 1, "--nnodes=" + std::to_string(ceil_div(workload.run.world_size, 8)));
  std::vector<Written> left = moved(workload);
  const auto& given = workload.passthrough;
  for (std::size_t i = 0; i < given.size(); ++i) {
    out.push_back(given[i]);
    const auto known = std::ranges::find_if(left, [&](const Written& w) { return given[i] == "--" + w.name; });
    if (known == left.end()) continue;
    out.push_back(known->value);
    while (i + 1 < given.size() && !given[i + 1].starts_with("--")) ++i;
    left.erase(known);
  }
  for (const Written& w : left) out.insert(out.end(), {"--" + w.name, w.value});
  const Training& t = workload.transformers->training;
  if (t.recompute == Recompute::full && std::ranges::find(given, "--recompute-granularity") == given.end()) {
    for (const char* w : {"--recompute-granularity", "full", "--recompute-method", "uniform", "--recompute-num-layers", "1"}) out.emplace_back(w);
  }
  return out;
}

}  // namespace dryfit
