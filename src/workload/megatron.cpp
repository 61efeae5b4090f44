// See megatron.hpp. Source: megatron/core/pipeline_parallel/schedules.py get_pp_rank_microbatches, get_schedule_table;
// transformer/transformer_block.py get_num_layers_to_build; aten/src/ATen/cuda/CublasHandlePool.cpp parseChosenWorkspaceSize.
#include "workload/megatron.hpp"

#include <algorithm>

#include "base/text.hpp"

namespace dryfit {

LayerRange layers_of(const MegatronRun& run, std::int64_t layers, std::int64_t stage, std::int64_t chunk) {
  const std::int64_t count = layers / (run.pipeline * run.virtual_stages);
  return {(stage + chunk * run.pipeline) * count, count};
}

std::int64_t warmup_passes(const MegatronRun& run, std::int64_t micro_batches, std::int64_t stage) {
  if (run.pipeline == 1) return 0;
  const std::int64_t behind = run.pipeline - stage - 1;
  const std::int64_t warmup = run.virtual_stages == 1 ? behind : 2 * behind + (run.virtual_stages - 1) * run.group();
  return std::min(warmup, micro_batches * run.virtual_stages);
}

std::vector<Pass> schedule_of(const MegatronRun& run, std::int64_t micro_batches) {
  std::vector<Pass> out;
  const std::int64_t group = run.group();
  for (std::int64_t first = 0; first < micro_batches; first += group) {
    for (std::int64_t chunk = 0; chunk < run.virtual_stages; ++chunk) {
      for (std::int64_t m = first; m < std::min(first + group, micro_batches); ++m) out.push_back({m, chunk});
    }
  }
  return out;
}

Result<std::int64_t> cublas_workspace_of(const std::string& text, const std::string& where) {
  const auto bad = [&] { return fail("bad_value", where + "=" + text.substr(0, 40) + " is not a list of :SIZE:COUNT", "write :4096:8, which is eight workspaces of 4096 KiB", where); };
  std::int64_t total = 0, size = 0;
  const auto parts = split(text, ':');
  if (parts.size() < 3 || parts.size() % 2 == 0 || !parts[0].empty() || parts.size() > 33) return bad();
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const auto n = parse_int(std::string(parts[i]), where);
    if (!n || *n < 0 || *n > (1 << 20)) return bad();
    if (i % 2 == 1) size = *n;
    else total += size * *n * 1024;
  }
  return total;
}

}  // namespace dryfit
