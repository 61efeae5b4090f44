// See whole_states.hpp.
#include "passes/whole_states.hpp"

#include "passes/zero_partition.hpp"

namespace dryfit::eager {

namespace {
constexpr std::int64_t kReduceBucket = 500'000'000;  // MEMORY_OPT_ALLREDUCE_SIZE: a bucket is summed once it holds more elements
}  // namespace

// The copies are made before the states, which a step with gradients of zeros brings about.
WholeStates::WholeStates(Tape& tape, std::vector<Trained> parameters, const Training& training)
    : t_(tape), r_(training), parameters_(std::move(parameters)), groups_(optimizer_groups(parameters_, training.zero.split_groups)), masters_(parameters_.size()) {
  for (const auto& members : groups_) {
    std::vector<Trained> trained;
    for (const std::size_t i : members) {
      trained.push_back(parameters_[i]);
      if (!copies()) continue;
      const Tensor clone = t_.buffer("deepspeed.clone", parameters_[i].parameter.dims().numel(), r_.weights, Category::optimizer);
      masters_[i] = t_.leaf(t_.view(wide(i, "deepspeed.fp32_weights", Category::optimizer), parameters_[i].parameter.dims()));
      trained.back().parameter = masters_[i];
    }
    optimizers_.push_back(std::make_unique<Optimizer>(t_, r_.optimizer, std::move(trained), r_.weight_decay));
  }
  if (!copies()) return;
  std::vector<Tensor> zeros;  // initialize_optimizer_states
  for (const Trained& p : parameters_) zeros.push_back(t_.buffer("deepspeed.first_gradients", p.parameter.dims().numel(), r_.weights, Category::gradients));
  for (std::size_t i = 0; i < parameters_.size(); ++i) zeros.push_back(wide(i, "deepspeed.first_gradients", Category::gradients));
  for (auto& optimizer : optimizers_) optimizer->step();
}

Tensor WholeStates::wide(std::size_t i, const char* role, Category category) {
  t_.at(parameters_[i].layer);
  Tensor out = t_.buffer(role, parameters_[i].parameter.dims().numel(), Dtype::fp32, category);
  t_.at(-1);
  return out;
}

// Gradients joined, summed, and copied back where they were.
void WholeStates::after_backward(bool boundary) {
  if (!boundary) return;
  std::int64_t elements = 0;
  int members = 0;
  const auto reduce = [&] {
    Tensor flat;
    if (members > 1) flat = t_.buffer("deepspeed.reduce_bucket", elements, r_.weights, Category::communication);
    if (r_.world_size > 1 && members > 0) t_.send("deepspeed.all_reduce", 2.0 * static_cast<double>(elements * size_of(r_.weights)), Work::Beside::nothing);
    elements = 0, members = 0;
  };
  for (const Trained& p : parameters_) {
    elements += p.parameter.dims().numel();
    ++members;
    if (elements > kReduceBucket) reduce();
  }
  reduce();
}

// Each gradient in fp32 for a look for infinities, and again for its norm; then all of them. What bf16 gradients hold stays: the engine leaves them to an optimizer that is not asked.
void WholeStates::step() {
  std::vector<Tensor> gradients;
  if (copies()) {
    for (std::size_t i = 0; i < parameters_.size(); ++i) wide(i, "deepspeed.fp32_gradient", Category::gradients);
    for (const auto& members : groups_) {
      for (const std::size_t i : members) wide(i, "deepspeed.fp32_gradient", Category::gradients);
      for (const std::size_t i : members) gradients.push_back(wide(i, "deepspeed.fp32_gradient", Category::gradients));
    }
  } else if (r_.max_grad_norm > 0) {
    std::vector<Tensor> norms;
    for (std::size_t i = 0; i < parameters_.size(); ++i) norms.push_back(t_.buffer("clip.norm", 1, Dtype::fp32, Category::optimizer));
  }
  for (auto& optimizer : optimizers_) optimizer->step();
  gradients.clear();
  if (r_.weights == Dtype::bf16) return;
  for (const Trained& p : parameters_) t_.zero_grad(p.parameter);
}

std::int64_t WholeStates::state_bytes() const {
  std::int64_t sum = 0;
  for (const auto& optimizer : optimizers_) sum += optimizer->state_bytes();
  for (const Tensor& m : masters_) sum += m.defined() ? m.dims().numel() * size_of(Dtype::fp32) : 0;
  return sum;
}

std::int64_t WholeStates::gradient_bytes() const {
  std::int64_t sum = 0;
  for (const Trained& p : parameters_) sum += p.parameter.dims().numel() * size_of(r_.weights);
  return sum;
}

}  // namespace dryfit::eager
