// nanochat's optimizers as tensors: state that stays, temporaries of one step, and what un-waited NCCL works keep alive.
#pragma once

#include <cstdint>
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

struct StateTensor { std::int64_t elements; Dtype dtype; const char* role; };
// Optimizer state of one rank after its first step.
std::vector<StateTensor> optimizer_state(const Model& model, std::int64_t world_size);

}  // namespace dryfit
