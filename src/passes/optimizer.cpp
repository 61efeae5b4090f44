// Optimizer state by version and world size: nanochat/{adamw,muon,optim}.py, torch.optim.AdamW. See optimizer.hpp.
#include "passes/optimizer.hpp"

#include <algorithm>
#include <map>

namespace dryfit {

using Optimizer = NanochatVersion::Optimizer;

namespace {

bool is_matrix(const Parameter& p) { return p.group == ParamGroup::transformer_matrices; }

void adamw_state(const Parameter& p, const Model& model, const Run& run, std::vector<StateTensor>& out) {
  const std::int64_t n = adamw_elements(p, model, run.world_size);
  out.push_back({n, p.dtype, "adamw.exp_avg"});
  out.push_back({n, p.dtype, "adamw.exp_avg_sq"});
  if (counts_on_gpu(model, run)) {
    out.push_back({1, is_distributed(model, run) ? Dtype::int64 : Dtype::fp32, "adamw.step"});
  }
}

}  // namespace

bool is_replicated(const Parameter& parameter, const Model& model) {
  constexpr std::int64_t kSmall = 1024;
  return !updates_each_matrix(model.version.optimizer) && parameter.count() < kSmall;
}

std::int64_t adamw_elements(const Parameter& parameter, const Model& model, std::int64_t world_size) {
  return world_size == 1 || is_replicated(parameter, model) ? parameter.count() : std::max<std::int64_t>(1, parameter.count() / world_size);
}

std::vector<MuonGroup> muon_groups(const Model& model) {
  std::map<std::pair<std::int64_t, std::int64_t>, std::int64_t> counts;  // sorted by shape, as nanochat sorts them
  for (const Parameter& p : model.parameters) {
    if (is_matrix(p)) ++counts[{p.shape[0], p.shape[1]}];
  }
  std::vector<MuonGroup> groups;
  for (const auto& [dims, count] : counts) groups.push_back({dims.first, dims.second, count});
  return groups;
}

std::vector<std::size_t> adamw_parameters(const Model& model) {
  std::vector<std::size_t> order;
  for (ParamGroup group : {ParamGroup::lm_head, ParamGroup::wte, ParamGroup::value_embeds, ParamGroup::scalars}) {
    for (std::size_t i = 0; i < model.parameters.size(); ++i) {
      if (model.parameters[i].group == group) order.push_back(i);
    }
  }
  return order;
}

std::vector<StateTensor> optimizer_state(const Model& model, const Run& run) {
  const std::int64_t world = run.world_size;
  std::vector<StateTensor> state;
  for (std::size_t i : adamw_parameters(model)) adamw_state(model.parameters[i], model, run, state);
  for (const MuonGroup& g : muon_groups(model)) {
    const std::int64_t owned = ceil_div(g.count, world);
    const std::int64_t second = std::max(g.rows, g.cols);  // the factored second moment: one value per row, or per column when wider
    switch (model.version.optimizer) {
      case Optimizer::torch_adamw_muon:
      case Optimizer::muon_per_param:
        if (is_distributed(model, run)) state.push_back({g.elements(), Dtype::fp32, "muon.zero_buffer"});
        for (std::int64_t i = 0; i < owned; ++i) {
          state.push_back({g.elements(), Dtype::fp32, "muon.momentum"});
          if (model.version.optimizer == Optimizer::muon_per_param) state.push_back({second, Dtype::bf16, "muon.second_moment"});  // like the update
        }
        break;
      case Optimizer::muon_stacked_by_group:
      case Optimizer::muon_all_groups:
        state.push_back({owned * g.elements(), Dtype::fp32, "muon.momentum"});
        state.push_back({owned * second, Dtype::fp32, "muon.second_moment"});
        break;
    }
  }
  return state;
}

}  // namespace dryfit
