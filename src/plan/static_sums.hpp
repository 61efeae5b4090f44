// What lives through a run, asked once for runs that share it: what alone does not fit needs no program.
#pragma once

#include <deque>
#include <utility>

#include "passes/program.hpp"
#include "workload/workload.hpp"

namespace dryfit {

class StaticSums {
 public:
  const StaticBytes& of(const Workload& w) {
    const Training& t = w.transformers->training;
    for (const auto& [known, fixed] : known_) {
      if (known.sharding == t.sharding && known.world_size == t.world_size && known.mixed == t.mixed && known.weights == t.weights && known.lora.has_value() == t.lora.has_value() && known.quantized == t.quantized) return fixed;
    }
    return known_.emplace_back(t, static_bytes(w)).second;
  }

 private:
  std::deque<std::pair<Training, StaticBytes>> known_;
};

// Of a run's tensors that live through it, what is there at one moment: each gradient that a step takes in backward goes before the next one comes.
inline Bytes least_bytes(const Workload& w, const StaticBytes& fixed) { return fixed.weights + fixed.optimizer + (w.transformers->training.torchtune.optimizer_in_backward ? Bytes(0) : fixed.gradients); }

}  // namespace dryfit
