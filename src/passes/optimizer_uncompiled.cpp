// The optimizer's functions where torch.compile does nothing (TORCH_COMPILE_DISABLE=1): op by op, names living as long as Python's own do.
// Source: nanochat/{muon,adamw,optim}.py of the version. Of `count` matrices of m x n.
#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "passes/program_layout.hpp"

namespace dryfit {

using Optimizer = NanochatVersion::Optimizer;

namespace {

constexpr int kIterations = 5;  // ns_steps of every group

// A tensor that Python names or has on its stack: copies share it, the last one that goes lets it go.
struct Value {
  std::shared_ptr<const std::int32_t> tensor;
  Dtype dtype = Dtype::fp32;
  std::int64_t elements = 0;
};

}  // namespace

class ProgramLayout::OpByOp {
 public:
  OpByOp(ProgramLayout& layout, const char* role) : layout_(layout), role_(role), optimizer_(layout.m_.version.optimizer) {}

  // adamw_step_fused of a parameter, or of this rank's slice of it. E7 works on copies in fp32.
  void adamw(Dtype dtype, std::int64_t elements) {
    const bool casts = optimizer_ == Optimizer::muon_all_groups && dtype != Dtype::fp32;
    const Dtype working = casts ? Dtype::fp32 : dtype;
    std::vector<Value> copies;  // the parameter, both moments, the gradient
    while (casts && copies.size() < 4) copies.push_back(make(working, elements));
    make(working, elements);    // the gradient squared, which the second moment takes up
    Value corrected = make(working, elements);
    Value root = of(std::move(corrected));
    const Value denominator = of(std::move(root));
    make(working, elements);    // the update
  }

  // E1..E3b: a matrix' update, which stays for whoever called.
  std::int32_t update_of_matrix(std::int64_t m, std::int64_t n) {
    Value x = make(Dtype::bf16, m * n);
    orthogonalize(x, 1, m, n);
    if (optimizer_ == Optimizer::muon_per_param) {  // apply_variance_reduction
      std::vector<Value> names;
      const Value scale = variance(x, 1, std::max(m, n), names);
      x = of(x);
    }
    return kept_ = *x.tensor;
  }

  // muon_step_fused: what it names goes when it returns.
  void muon_step(std::int64_t count, std::int64_t m, std::int64_t n, bool in_fp32) {
    const bool newest = optimizer_ == Optimizer::muon_all_groups;
    const Value gradients{std::make_shared<const std::int32_t>(-1), Dtype::fp32, count * m * n};  // the caller's
    std::vector<Value> names;
    Value x = cast(gradients, in_fp32 ? Dtype::fp32 : Dtype::bf16);
    if (newest) {  // MuonEq: rows of one norm
      for (const std::int64_t elements : {count, count * m}) {
        Value norm = reduced(cast(x, Dtype::fp32), elements);
        names.push_back(of(std::move(norm)));
      }
      Value ratio = of(names.back());
      const Value factor = cast(std::move(ratio), x.dtype);
      x = of(x);
    }
    names.push_back({});
    names.push_back({});
    orthogonalize(x, count, m, n, &names[names.size() - 2], &names.back());
    Value g = x;
    if (newest) {  // Muon+: the norm of an orthogonal matrix
      g = cast(x, Dtype::fp32);
      Value norm = reduced(g, count);
      names.push_back(of(std::move(norm)));
      const Value ratio = of(names.back());
      g = of(g);
    }
    {
      const Value scale = variance(g, count, count * std::max(m, n), names);
      g = of(g);
    }
    Value products = make(Dtype::fp32, g.elements);
    const Value mask = cast(std::move(products), Dtype::bool8);
    Value step = of(g);
    Value decay = make(Dtype::fp32, g.elements);
    Value masked = of(std::move(decay));
    make(Dtype::fp32, g.elements);  // their sum, which the parameters are lessened by
  }

 private:
  Value make(Dtype dtype, std::int64_t elements) {
    const std::int32_t t = layout_.temporary(role_, dtype, elements);
    layout_.alloc(t);
    const auto let_go = [this](const std::int32_t* gone) {
      if (*gone != kept_) layout_.free(*gone);
      delete gone;
    };
    return {std::shared_ptr<const std::int32_t>(new std::int32_t(t), let_go), dtype, elements};
  }
  // A result of the operand; which goes, if nobody names it, once that is there.
  Value reduced(Value operand, Dtype dtype, std::int64_t elements) {
    Value result = make(dtype, elements);
    operand.tensor.reset();
    return result;
  }
  Value reduced(Value operand, std::int64_t elements) {
    const Dtype dtype = operand.dtype;
    return reduced(std::move(operand), dtype, elements);
  }
  Value of(Value operand) {
    const std::int64_t elements = operand.elements;
    return reduced(std::move(operand), elements);
  }
  // .to(dtype): itself where it is of that dtype.
  Value cast(Value operand, Dtype dtype) {
    if (operand.dtype == dtype) return operand;
    const std::int64_t elements = operand.elements;
    return reduced(std::move(operand), dtype, elements);
  }
  Value sum(Value left, Value right) {
    Value result = make(left.dtype, left.elements);
    left.tensor.reset();
    right.tensor.reset();
    return result;
  }

  // X / norm, then five times A = X X^T (the smaller way round), B = b A + c A A, X = a X + B X. a, b: for who goes on naming them.
  void orthogonalize(Value& x, std::int64_t count, std::int64_t m, std::int64_t n, Value* a_of_caller = nullptr, Value* b_of_caller = nullptr) {
    {
      Value norm = reduced(x, count);
      Value more = of(std::move(norm));
      const Value divisor = of(std::move(more));
      x = of(x);
    }
    Value own_a, own_b;
    Value& a = a_of_caller != nullptr ? *a_of_caller : own_a;
    Value& b = b_of_caller != nullptr ? *b_of_caller : own_b;
    for (int i = 0; i < kIterations; ++i) {
      a = make(x.dtype, count * std::min(m, n) * std::min(m, n));
      Value linear = of(a);
      Value first = of(a);
      Value squared = of(std::move(first));
      b = sum(std::move(linear), std::move(squared));
      Value kept = of(x);
      Value turned = of(x);
      x = sum(std::move(kept), std::move(turned));
    }
  }

  // NorMuon's variance reduction: a number for each of `rows` (of columns, where it is wide) that the update is to be multiplied with. names: what its function goes on naming.
  Value variance(const Value& g, std::int64_t count, std::int64_t rows, std::vector<Value>& names) {
    const auto named = [&](Value v) {
      names.push_back(v);
      return v;
    };
    Value wide = cast(g, Dtype::fp32);
    Value squares = of(std::move(wide));
    const Value mean = named(reduced(std::move(squares), rows));
    Value total = reduced(mean, count);
    const Value norm_squared = named(of(std::move(total)));
    const Value norm = named(of(norm_squared));
    const Dtype state = optimizer_ == Optimizer::muon_per_param ? Dtype::bf16 : Dtype::fp32;  // the second moment's
    cast(mean, state);
    Value clamped = make(state, rows);
    const Value step = named(of(std::move(clamped)));
    Value times = of(mean);
    Value wide_step = cast(step, Dtype::fp32);
    Value squared_step = of(std::move(wide_step));
    const Value scaled = named(sum(std::move(times), std::move(squared_step)));
    Value new_total = reduced(scaled, count);
    const Value new_norm = named(of(std::move(new_total)));
    Value least = of(new_norm);
    Value ratio = of(std::move(least));
    const Value scale = named(reduced(std::move(ratio), rows));
    return cast(scale, g.dtype);
  }

  ProgramLayout& layout_;
  const char* role_;
  Optimizer optimizer_;
  std::int32_t kept_ = -1;
};

void ProgramLayout::adamw_op_by_op(const Parameter& parameter) { OpByOp(*this, "adamw.temporary").adamw(parameter.dtype, adamw_elements(parameter, m_, run_.world_size)); }

std::int32_t ProgramLayout::orthogonalize_op_by_op(std::int64_t count, std::int64_t m, std::int64_t n, bool in_fp32) {
  OpByOp ops(*this, "muon.temporary");
  if (updates_each_matrix(m_.version.optimizer)) return ops.update_of_matrix(m, n);
  ops.muon_step(count, m, n, in_fp32);
  return -1;
}

}  // namespace dryfit
