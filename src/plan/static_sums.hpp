// What weights, gradients and states take, asked once for runs that share it: what alone does not fit needs no program.
#pragma once

#include <utility>
#include <vector>

#include "passes/program.hpp"
#include "workload/workload.hpp"

namespace dryfit {

class StaticSums {
 public:
  Bytes of(const Workload& w) {
    const Training& t = w.transformers->training;
    for (const auto& [known, sum] : known_) {
      if (known.sharding == t.sharding && known.world_size == t.world_size && known.mixed == t.mixed && known.weights == t.weights && known.lora.has_value() == t.lora.has_value() && known.quantized == t.quantized) return sum;
    }
    const StaticBytes s = static_bytes(w);
    known_.emplace_back(t, s.weights + s.gradients + s.optimizer);
    return known_.back().second;
  }

 private:
  std::vector<std::pair<Training, Bytes>> known_;
};

}  // namespace dryfit
