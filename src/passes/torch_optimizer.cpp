// States and temporaries of optimizers. See torch_optimizer.hpp.
#include "passes/torch_optimizer.hpp"

#include <algorithm>

namespace dryfit::eager {

namespace {

constexpr std::int64_t kSmallest8Bit = 4096;  // bitsandbytes min_8bit_size: smaller tensors keep fp32 states
constexpr std::int64_t kBlock8Bit = 256;
constexpr std::int64_t kSmallestPaged = 100000;

// Launches of multi_tensor_apply over lists of tensors: 320 chunks of 65536 elements, or so many tensors (aten/src/ATen/native/cuda/MultiTensorApply.cuh).
std::int64_t foreach_launches(const std::vector<Trained>& parameters, std::size_t lists) {
  constexpr std::int64_t kChunk = 65536, kChunks = 320, kTensors[] = {110, 64, 48, 36, 30};
  std::int64_t chunks = 0;
  for (const Trained& p : parameters) chunks += ceil_div(p.parameter.dims().numel(), kChunk);
  return std::max(ceil_div(chunks, kChunks), ceil_div(static_cast<std::int64_t>(parameters.size()), kTensors[lists - 1]));
}

double bytes_of(const std::vector<Trained>& parameters) {
  double bytes = 0;
  for (const Trained& p : parameters) bytes += static_cast<double>(p.parameter.dims().numel() * size_of(p.parameter.dtype()));
  return bytes;
}

constexpr const char* kNumerator = "adagrad.numerator";

constexpr int kNewtonSchulzSteps = 5;  // torch.optim.Muon's ns_steps

// The smaller side of a matrix, and the other.
std::pair<std::int64_t, std::int64_t> sides(const Trained& p) {
  const Dims d = p.parameter.dims();
  return std::minmax(d.size[0], d.size[1]);
}

}  // namespace

Optimizer::Optimizer(Tape& tape, OptimizerKind kind, std::vector<Trained> parameters, double weight_decay) : t_(tape), kind_(kind), all_(std::move(parameters)), parameters_(all_), decays_(weight_decay > 0 && copies_to_decay(kind)) {
  if (kind_ == OptimizerKind::adagrad) {
    for (const Trained& p : parameters_) state_.push_back(like("adagrad.sum", p, p.parameter.dtype()));
  }
  if (kind_ != OptimizerKind::muon) return;
  kind_ = OptimizerKind::adamw;
  const auto of_muon = [](const Trained& p) { return p.layer >= 0 && p.parameter.dims().rank == 2; };
  std::ranges::copy_if(all_, std::back_inserter(matrices_), of_muon);
  std::erase_if(parameters_, of_muon);
}

// Traffic of one update, statement by statement of the sources above; what is written in terms of tensors of the parameter's size and dtype is read or
// written once. The counters of steps lie on the host: a call each to add, and two to read for the bias corrections.
void Optimizer::tell_update() {
  const auto n = static_cast<std::int64_t>(parameters_.size());
  const double bytes = bytes_of(parameters_);
  double elements = 0;
  for (const Trained& p : parameters_) elements += static_cast<double>(p.parameter.dims().numel());
  Work w;
  w.kind = WorkKind::optimizer;
  w.role = "optimizer.update";
  if (const auto theirs = of_bitsandbytes(kind_)) {  // states read and written
    w.fixed_bytes = 3 * bytes + 2 * theirs->moments * (theirs->in_8_bits ? 1 : 4) * elements, w.launches = n;
    return t_.tell(w);
  }
  switch (kind_) {
    case OptimizerKind::adamw:        // mul_, lerp_, mul_, addcmul_, sqrt, div_, add_, addcdiv_ over lists
      w.fixed_bytes = 21 * bytes, w.launches = 8 * foreach_launches(parameters_, 3), w.calls = 3 * n;
      break;
    case OptimizerKind::adamw_loop:   // the same, one parameter after the other
      w.fixed_bytes = 21 * bytes, w.launches = 8 * n, w.calls = 3 * n;
      break;
    case OptimizerKind::adamw_fused:  // p, g and both moments read; p and both moments written
      w.fixed_bytes = 7 * bytes, w.launches = foreach_launches(parameters_, 4) + ceil_div(n, 110);
      break;
    case OptimizerKind::lion:         // mul_ of p; clone, mul_, add_, sign_ of the update, added; mul_, add_ of the momentum
      w.fixed_bytes = 20 * bytes, w.launches = 8 * n;
      break;
    case OptimizerKind::sgd: w.fixed_bytes = 3 * bytes, w.launches = foreach_launches(parameters_, 2); break;
    case OptimizerKind::sgd_momentum:  // decay, momentum, update
      w.fixed_bytes = 11 * bytes, w.launches = 4 * foreach_launches(parameters_, 2);
      break;
    case OptimizerKind::rmsprop:      // mul_, addcmul_, sqrt, add_, addcdiv_
      w.fixed_bytes = 14 * bytes, w.launches = 5 * foreach_launches(parameters_, 3), w.calls = n;
      break;
    case OptimizerKind::adagrad:      // addcmul_, sqrt, add_, mul, addcdiv_
      w.fixed_bytes = 14 * bytes, w.launches = 5 * foreach_launches(parameters_, 3), w.calls = 2 * n;
      break;
    case OptimizerKind::adafactor:    // copies to 32 bits, square, two means, outer product, rms, scaling, decay, update and copy back
      w.fixed_bytes = 4 * bytes + 60 * elements, w.launches = 24 * n;
      break;
    default: break;
  }
  t_.tell(w);
}

Tensor Optimizer::make(const char* role, int layer, Dims d, Dtype dtype) {
  const Category before = t_.category();
  t_.category(Category::optimizer);
  t_.at(layer);
  Tensor made = t_.empty(role, d, dtype);
  t_.at(-1);
  t_.category(before);
  return made;
}

Tensor Optimizer::like(const char* role, const Trained& p, Dtype d) { return make(role, p.layer, eager::like(p.parameter.dims()), d); }

// bitsandbytes: of 8 bits one byte an element, a scale for every 256; tensors below 4096 elements stay in fp32, and Trainer.create_optimizer asks the
// same for embeddings. AdEMAMix keeps two of its three averages in one tensor.
void Optimizer::bitsandbytes_state(const Trained& p, const BitsandbytesOptimizer& theirs) {
  const std::int64_t n = p.parameter.dims().numel();
  const bool small = !theirs.in_8_bits || n < kSmallest8Bit || p.embedding;
  const bool paged = theirs.paged && n >= kSmallestPaged;
  const auto averages = [&](int i) { return theirs.moments - i == 3 ? 2 : 1; };
  const int tensors = std::min(theirs.moments, 2);
  const auto scales = [&] {
    for (int i = 0; !small && i < tensors; ++i) state_.push_back(make("adamw.absmax", p.layer, dims({averages(i) * ceil_div(n, kBlock8Bit)}, false), Dtype::fp32));
  };
  if (theirs.moments == 3) scales();
  for (int i = 0; !paged && i < tensors; ++i) {
    Dims shape = eager::like(p.parameter.dims());
    shape.size[0] *= averages(i);
    state_.push_back(make(i == 0 ? "adamw.exp_avg" : "adamw.exp_avg_sq", p.layer, shape, small ? Dtype::fp32 : Dtype::uint8));
  }
  if (theirs.moments != 3) scales();
}

void Optimizer::first_state() {
  if (begun_) return;
  begun_ = true;
  if (const auto theirs = of_bitsandbytes(kind_)) {
    for (int i = 0; theirs->in_8_bits && i < std::min(theirs->moments, 2); ++i) state_.push_back(make("adamw.qmap", -1, dims({256}, false), Dtype::fp32));
    for (const Trained& p : parameters_) bitsandbytes_state(p, *theirs);
    return;
  }
  for (const Trained& p : parameters_) {
    const Dtype d = p.parameter.dtype();
    switch (kind_) {
      case OptimizerKind::adamw:
      case OptimizerKind::adamw_fused:
      case OptimizerKind::adamw_loop:
        if (kind_ == OptimizerKind::adamw_fused) state_.push_back(make("adamw.step", p.layer, dims({}, false), Dtype::fp32));
        state_.push_back(like("adamw.exp_avg", p, d));
        state_.push_back(like("adamw.exp_avg_sq", p, d));
        break;
      case OptimizerKind::rmsprop: state_.push_back(like("rmsprop.square_avg", p, d)); break;
      case OptimizerKind::lion: state_.push_back(like("lion.exp_avg", p, d)); break;
      default: break;  // of SGD's momentum clones of the gradients, in step(); Adafactor's in each parameter's turn; Adagrad's and Muon's are there
    }
  }
}

// One norm a gradient, stacked, their norm, the coefficient: scalars of the gradients' dtype.
void Optimizer::clip() {
  const Category before = t_.category();
  t_.category(Category::optimizer);
  {
    std::vector<Tensor> norms;
    Dtype d = Dtype::fp32;
    for (const Trained& p : all_) {
      const Tensor g = t_.gradient(p.parameter);
      if (!g.defined()) continue;
      d = g.dtype();
      norms.push_back(t_.empty("clip.norm", dims({}, false), d));
    }
    const Tensor stacked = t_.empty("clip.norms", dims({static_cast<std::int64_t>(norms.size())}, false), d);
    const Tensor total = t_.empty("clip.total_norm", dims({}, false), d);
    norms.clear();
    const Tensor coefficient = t_.empty("clip.coefficient", dims({}, false), d);
  }
  t_.tell_traffic("clip", 3 * bytes_of(all_), 2 * foreach_launches(all_, 1) + 6);  // norms; gradients times the coefficient
  t_.category(before);
}

// One of each parameter at once, by torch's foreach functions.
void Optimizer::of_all(std::vector<Tensor>& held, const char* role) {
  for (const Trained& p : parameters_) held.push_back(like(role, p, p.parameter.dtype()));
}

// The same of a group of Trainer's: matrices, which decay into new tensors where the optimizer decays gradients; then everything else, with what the first made gone.
void Optimizer::by_groups(std::initializer_list<const char*> roles) {
  for (const bool matrices : {true, false}) {
    std::vector<Tensor> held;
    const auto of_group = [&](const char* role) {
      for (const Trained& p : parameters_) {
        if ((p.parameter.dims().rank >= 2) == matrices) held.push_back(like(role, p, p.parameter.dtype()));
      }
    };
    const bool decays = decays_ && matrices;
    if (decays) of_group("optimizer.decayed");
    for (const char* role : roles) {
      const bool in_decayed = decays && std::string_view(role) == kNumerator;
      if (!in_decayed) of_group(role);
    }
  }
}

// One parameter after the other; the last one's denominator keeps its name until the next is there.
void Optimizer::single_temporaries() {
  Tensor denominator;
  for (const Trained& p : parameters_) {
    const Tensor root = like("adamw.denominator", p, p.parameter.dtype());
    denominator = like("adamw.denominator", p, p.parameter.dtype());
  }
}

// transformers.optimization.Adafactor: fp32 copies of a 16-bit gradient and weight, the squared gradient, the outer product of the two factors,
// the update and its negative; names live on into the next parameter's turn.
void Optimizer::adafactor() {
  Tensor grad, weight, update;
  for (const Trained& p : parameters_) {
    const Dims d = eager::like(p.parameter.dims());
    const bool half = p.parameter.dtype() != Dtype::fp32;
    const auto temporary = [&] { return make("adafactor.update", p.layer, d, Dtype::fp32); };
    grad.reset();
    if (half) grad = make("adafactor.grad", p.layer, d, Dtype::fp32);
    if (!begun_) adafactor_state(p);
    weight.reset();
    if (half) weight = make("adafactor.weight", p.layer, d, Dtype::fp32);
    {
      const Tensor square = temporary();
      update = temporary();
    }
    update = temporary();  // row by column; of a vector the inverse root
    const Tensor negative = temporary();
  }
  begun_ = true;
}

void Optimizer::adafactor_state(const Trained& p) {
  const Dims shape = p.parameter.dims();
  if (shape.rank >= 2) {
    const auto state = [&](const char* role, std::int64_t size) {  // of each matrix, where several are stacked
      state_.push_back(make(role, p.layer, dims({shape.numel() / (shape.size[shape.rank - 1U] * shape.size[shape.rank - 2U]), size}, false), Dtype::fp32));
    };
    state("adafactor.row", shape.size[shape.rank - 2U]);
    state("adafactor.column", shape.back());
  } else {
    state_.push_back(make("adafactor.exp_avg_sq", p.layer, eager::like(shape), Dtype::fp32));
  }
  state_.push_back(make("adafactor.rms", p.layer, dims({}, false), Dtype::fp32));
}

void Optimizer::update() {
  if (kind_ == OptimizerKind::sgd_momentum) {
    // weight decay makes new gradients for all; momentum buffers are clones of the first ones
    std::vector<Tensor> held;
    of_all(held, "sgd.decayed");
    if (!begun_) {
      for (const Trained& p : parameters_) state_.push_back(like("sgd.momentum", p, p.parameter.dtype()));
    }
    begun_ = true;
    return;
  }
  if (kind_ == OptimizerKind::adafactor) return adafactor();
  first_state();
  std::vector<Tensor> held;
  switch (kind_) {
    case OptimizerKind::adamw: of_all(held, "adamw.denominator"); break;
    case OptimizerKind::sgd: by_groups({}); break;
    case OptimizerKind::rmsprop: by_groups({"rmsprop.denominator"}); break;
    case OptimizerKind::adagrad: by_groups({"adagrad.denominator", kNumerator}); break;  // the step's numerator as well, which is the decayed gradient where there is one
    case OptimizerKind::adamw_loop: single_temporaries(); break;
    case OptimizerKind::lion:
      for (const Trained& p : parameters_) const Tensor update = like("lion.update", p, p.parameter.dtype());
      break;
    default: break;
  }
}

// torch.optim.Muon, one matrix after the other: the gradient towards the momentum, in bf16, scaled by its norm; five times its Gram matrix, a polynomial of that, and the product with it. What
// a name held goes once its next value is there.
void Optimizer::muon() {
  if (!begun_) {
    for (const Trained& p : matrices_) state_.push_back(like("muon.momentum", p, p.parameter.dtype()));
  }
  Tensor update;
  for (const Trained& p : matrices_) {
    const auto [small, large] = sides(p);
    const auto matrix = [&, rows = small](const char* role, std::int64_t columns) { return make(role, p.layer, dims({rows, columns}, false), Dtype::bf16); };
    update = like("muon.update", p, p.parameter.dtype());
    Tensor orthogonal = p.parameter.dtype() == Dtype::bf16 ? update : like("muon.orthogonal", p, Dtype::bf16);
    {
      Tensor norm = make("muon.norm", p.layer, dims({}, false), Dtype::bf16);
      const Tensor at_least = make("muon.norm", p.layer, dims({}, false), Dtype::bf16);
      norm.reset();
    }
    Tensor gram, polynomial;
    for (int i = 0; i < kNewtonSchulzSteps; ++i) {
      gram = matrix("muon.gram", small);
      polynomial = matrix("muon.gram", small);
      orthogonal = matrix("muon.orthogonal", large);
    }
    gram.reset();
    polynomial.reset();
    update = std::move(orthogonal);
  }
}

// Momentum and gradient mixed, twice; the bf16 copy; the weight decayed and updated; and the products.
void Optimizer::tell_muon() {
  t_.tell_traffic("optimizer.update", 11 * bytes_of(matrices_), 8 * static_cast<std::int64_t>(matrices_.size()));
  for (const Trained& p : matrices_) {
    const auto [small, large] = sides(p);
    for (int i = 0; i < kNewtonSchulzSteps; ++i) {
      for (const auto [inner, columns] : {std::pair(large, small), std::pair(small, small), std::pair(small, large)}) {
        Work w;
        w.kind = WorkKind::optimizer;
        w.role = "muon.product";
        w.m = small, w.k = inner, w.n = columns;
        w.fixed_bytes = 2.0 * static_cast<double>(small * inner + inner * columns + small * columns);
        t_.tell(w);
      }
    }
  }
}

void Optimizer::step() {
  if (!matrices_.empty()) {
    muon();
    tell_muon();
  }
  update();
  tell_update();
}

void Optimizer::zero_grad() {
  for (const Trained& p : all_) t_.zero_grad(p.parameter);
}

std::int64_t Optimizer::state_bytes() const {
  std::int64_t sum = 0;
  for (const Tensor& t : state_) sum += t.dims().numel() * size_of(t.dtype());
  return sum;
}

}  // namespace dryfit::eager
