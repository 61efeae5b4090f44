// The ways to run one training of a Hugging Face model that a search goes over: what the user left open, spelled out. Knows no bytes.
#pragma once

#include "plan/transformers_plan.hpp"

namespace dryfit {

// One of them: flags as a user could have given them. Without a fixed batch its device batch is 1, for the search to change.
struct Way {
  Method method = Method::full;
  TransformersFlags flags;
  bool fixed_batch = false;
  std::vector<Assumption> assumptions;  // what was chosen here and not searched: precision, bucket sizes
};

// In the order of what changes the training least.
std::vector<Method> methods_of(const TransformersFlags& flags);

// Without recomputation before with; ddp, fsdp2, zero1, zero2, zero3: communication grows. Of LitGPT what its scripts can do.
std::vector<Way> ways_of(const TransformersFlags& flags, Method method, const Machine& machine);

// The same with gradients, optimizer states and where they are gathered weights on the host; those that keep least on the GPU last. Of transformers' own loop.
std::vector<Way> ways_on_host(const TransformersFlags& flags, Method method, const Machine& machine);

// Precision that is open is autocast to 16 bits where the GPU's tensor cores take them.
Result<Workload> workload_of(const HfModel& model, const Way& way, const Machine& machine);

}  // namespace dryfit
