// nanochat's optimizers as tensors: state that stays, temporaries of one step, and what un-waited NCCL works keep alive.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "workload/workload.hpp"

namespace dryfit {

// Muon's unit of work: all matrices of one shape, in the order the optimizer visits them.
struct MuonGroup {
  std::int64_t rows, cols, count;   // count matrices of rows x cols, fp32
  std::int64_t elements() const { return rows * cols; }
};
std::vector<MuonGroup> muon_groups(const Model& model);
// Parameters that AdamW updates, in nanochat's group order (indices into model.parameters).
std::vector<std::size_t> adamw_parameters(const Model& model);

// Whether matrices are updated one by one, in an optimizer of their own (E1..E3b), and not stacked by shape.
constexpr bool updates_each_matrix(NanochatVersion::Optimizer o) { return o == NanochatVersion::Optimizer::torch_adamw_muon || o == NanochatVersion::Optimizer::muon_per_param; }
// E3c..E4b: AdamW and Muon are optimizers apart, whose steps are one function each.
inline bool stand_apart(const Model& model) { return model.version.optimizer == NanochatVersion::Optimizer::muon_stacked_by_group && model.version.date < std::string_view("2026-01-29"); }
// Whether the distributed optimizers run: on several GPUs, and until E7 on one that torchrun started (nanochat/gpt.py asks for a process group, not for its size).
inline bool is_distributed(const Model& model, const Run& run) { return run.world_size > 1 || (run.torchrun && model.version.optimizer != NanochatVersion::Optimizer::muon_all_groups); }
inline bool is_distributed_alone(const Model& model, const Run& run) { return run.world_size == 1 && is_distributed(model, run); }
// Whether AdamW counts its steps on the GPU: torch's fused one does, which one GPU has until E4d, and nanochat's own until E4.
inline bool counts_on_gpu(const Model& model, const Run& run) {
  return updates_each_matrix(model.version.optimizer) || (stand_apart(model) && (!is_distributed(model, run) || model.version.epoch == "E3c"));
}
// Whether a parameter is too small for its AdamW state to be shared out among GPUs: each has all of it, and its gradient is summed up whole.
bool is_replicated(const Parameter& parameter, const Model& model);
// Numbers of a parameter that one rank's AdamW updates: its slice.
std::int64_t adamw_elements(const Parameter& parameter, const Model& model, std::int64_t world_size);

struct StateTensor { std::int64_t elements; Dtype dtype; const char* role; };
// Optimizer state of one rank after its first step.
std::vector<StateTensor> optimizer_state(const Model& model, const Run& run);

}  // namespace dryfit
