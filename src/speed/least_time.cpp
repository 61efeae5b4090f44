// See least_time.hpp.
#include "speed/least_time.hpp"

#include <algorithm>

#include "speed/step_time.hpp"

namespace dryfit {

namespace {

struct Sizes { double products, trained, all; };  // parameters: in matrix products a token meets; with gradients; in all

Sizes sizes_of(const Workload& w) {
  const Architecture& a = w.transformers->architecture;
  const std::int64_t all = w.model.param_count();
  std::int64_t products = active_of(a, all) - w.model.param_count(ParamGroup::wte);
  if (a.tied_head) products += a.vocab * a.width;
  return {static_cast<double>(products), w.transformers->training.lora ? 0.0 : static_cast<double>(all), static_cast<double>(all)};  // adapters are small
}

// Seconds of messages that nothing hides, of one optimizer step of `steps` micro-steps that take `micro` each.
double exposed(const Training& t, const Sizes& n, double link, double size, double micro, double steps) {
  const double ring = static_cast<double>(t.world_size - 1) / static_cast<double>(t.world_size) / link;
  const double weights = n.all * size * ring, gradients = n.trained * size * ring;
  const auto beyond = [](double messages, double work) { return std::max(0.0, messages - work); };
  switch (t.sharding) {
    case Sharding::none: return 0;
    case Sharding::ddp: return beyond(2 * n.trained * static_cast<double>(size_of(t.weights)) * ring, micro * 2 / 3);
    case Sharding::zero1: return n.trained > 0 ? gradients + weights : 0;
    case Sharding::zero2: return n.trained > 0 ? gradients * steps + weights : 0;
    case Sharding::zero3: return steps * beyond(2 * weights + gradients, micro);
    case Sharding::fsdp1:
    case Sharding::fsdp2: return (steps - 1) * beyond(2 * weights, micro) + beyond(2 * weights + gradients, micro);
    case Sharding::fsdp1_grad_op: return (steps - 1) * beyond(weights, micro) + beyond(weights + gradients, micro);
  }
  return 0;
}

}  // namespace

std::optional<double> least_seconds_per_token(const Workload& w, const GpuRates& rates, std::int64_t kernels) {
  const Training t = training_of(*w.transformers, w.run);
  const double rate = gemm_rate(rates, w.run.compute);
  if (t.framework == Framework::megatron || rate <= 0) return std::nullopt;
  if (t.world_size > 1 && (t.world_size > rates.link_gpus || rates.link <= 0)) return std::nullopt;
  const Sizes n = sizes_of(w);
  const Architecture& a = w.transformers->architecture;
  const double tokens = static_cast<double>(t.device_batch_size * t.seq_len), steps = static_cast<double>(t.grad_accum_steps);
  const double size = static_cast<double>(size_of(w.run.compute));
  // forward once; backward twice, or for the inputs alone where weights are frozen; blocks that run again once more
  const double passes = (t.lora ? 2 : 3) + (t.recompute == Recompute::full ? 1 : 0);
  const double scores = (a.causal ? 2.0 : 4.0) * static_cast<double>(t.seq_len * a.heads * a.head_dim * a.layers);  // q k and its product with v
  const double arithmetic = passes * (2 * n.products + scores) * tokens / rate, reading = passes * n.products * size / rates.bandwidth;
  const double micro = std::max({arithmetic, reading, static_cast<double>(kernels) * kEagerLaunch});
  const double messages = t.world_size > 1 ? exposed(t, n, rates.link, size, micro, steps) : 0;
  return (steps * micro + messages) / (steps * tokens);
}

}  // namespace dryfit
