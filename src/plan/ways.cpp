// See ways.hpp.
#include "plan/ways.hpp"

#include <algorithm>
#include <iterator>

namespace dryfit {

namespace {

// DeepSpeed's "auto": buckets and thresholds by the model's width. Its own defaults are a GiB and more, whatever the model.
void buckets_by_width(Way& way) {
  TransformersFlags& f = way.flags;
  if (!f.sharding || !is_zero(*f.sharding) || f.zero) return;
  f.zero.emplace();
  f.auto_reduce_bucket = f.auto_prefetch_bucket = f.auto_persistence = true;
  way.assumptions.push_back({"zero_optimization", "auto", "buckets and thresholds by the model's width, as Trainer resolves them"});
}

// Whose script or recipe says what trains.
bool has_own_loop(const TransformersFlags& f) { return f.framework == Framework::litgpt || f.framework == Framework::torchtune || f.framework == Framework::torchtitan; }

std::vector<std::optional<Sharding>> shardings_of(const TransformersFlags& f, const Machine& machine, bool own_loop, Method method) {
  if (f.sharding || machine.gpus == 1 || f.framework == Framework::torchtune || f.framework == Framework::torchtitan) return {f.sharding};
  if (own_loop) return {Sharding::fsdp1, Sharding::ddp};
  // FSDP2 first has all 4-bit weights on every GPU; FSDP1, loaded on the host, has not
  if (method == Method::qlora) return {Sharding::ddp, Sharding::fsdp1, Sharding::fsdp2, Sharding::zero1, Sharding::zero2};
  // of a reference model FSDP2 has one unit alone (TRL's prepare_fsdp)
  if (f.preference && f.preference->trainer == Preference::Trainer::reward) return {Sharding::ddp, Sharding::zero1, Sharding::zero2};
  if (f.preference && f.preference->trainer != Preference::Trainer::dpo) return {Sharding::ddp};
  const bool reference = f.preference && f.preference->asks_reference() && method == Method::full;
  return {Sharding::ddp, reference ? Sharding::fsdp1 : Sharding::fsdp2, Sharding::zero1, Sharding::zero2, Sharding::zero3};
}

}  // namespace

std::vector<Method> methods_of(const TransformersFlags& f) {
  if (has_own_loop(f)) return {f.quantized ? Method::qlora : f.lora ? Method::lora : Method::full};  // its script says what trains
  if (f.quantized) return {Method::qlora};
  if (f.lora) return {Method::lora, Method::qlora};
  if (f.all_weights) return {Method::full};
  return {Method::full, Method::lora, Method::qlora};
}

std::vector<Way> ways_of(const TransformersFlags& given, Method method, const Machine& machine) {
  Way way{method, given, given.device_batch_size.value_or(-1) != -1, {}};
  const bool own_loop = has_own_loop(given);
  TransformersFlags& f = way.flags;
  f.gpus = machine.gpus;
  if (!way.fixed_batch) f.device_batch_size = least_device_batch(f.rollouts, machine.gpus, f.grad_accum_steps.value_or(1));
  if (!own_loop && method != Method::full) {
    if (!f.lora) f.lora.emplace().rank = kUsualRank;
    f.quantized = method == Method::qlora;
  }
  std::vector<std::optional<Recompute>> recompute{Recompute::none, Recompute::full};
  if (f.recompute || own_loop) recompute = {f.recompute};
  std::vector<Way> out;
  for (const auto& again : recompute) {
    for (const auto& sharding : shardings_of(given, machine, own_loop, method)) {
      out.push_back(way);
      out.back().flags.recompute = again;
      out.back().flags.sharding = sharding;
      buckets_by_width(out.back());
    }
  }
  return out;
}

std::vector<Way> ways_on_host(const TransformersFlags& given, Method method, const Machine& machine) {
  std::vector<Way> out;
  if (has_own_loop(given) || given.offload || given.offload_optimizer.value_or(false)) return out;
  std::vector<Sharding> shardings{Sharding::zero2, Sharding::zero3};
  if (machine.gpus > 1) shardings = method == Method::qlora ? std::vector{Sharding::fsdp1} : std::vector{Sharding::zero2, given.preference ? Sharding::fsdp1 : Sharding::fsdp2, Sharding::zero3};
  else if (method == Method::qlora) shardings = {Sharding::zero2};
  if (given.sharding) shardings = {*given.sharding};
  for (const Sharding sharding : shardings) {
    TransformersFlags flags = given;
    flags.sharding = sharding;
    flags.offload = true;
    std::ranges::move(ways_of(flags, method, machine), std::back_inserter(out));
  }
  return out;
}

Result<Workload> workload_of(const HfModel& model, const Way& way, const Machine& machine) {
  TransformersFlags flags = way.flags;
  std::vector<Assumption> assumptions = way.assumptions;
  const bool loads_fp32 = flags.weights.value_or(model.architecture.dtype.value_or(Dtype::fp32)) == Dtype::fp32;
  if (!flags.mixed && !has_own_loop(flags)) {
    const int major = machine.gpu.compute_major;
    if (major >= 8) flags.mixed = MixedPrecision::bf16;
    else if (major == 7 && loads_fp32) flags.mixed = MixedPrecision::fp16;  // its gradient scaler refuses weights of 16 bits
    if (flags.mixed) assumptions.push_back({"mixed", major >= 8 ? "bf16" : "fp16", "autocast to what this GPU's tensor cores take; --mixed none for none"});
  }
  auto workload = make_transformers_workload(model, flags);
  if (workload) workload->assumptions.insert(workload->assumptions.end(), assumptions.begin(), assumptions.end());
  return workload;
}

}  // namespace dryfit
