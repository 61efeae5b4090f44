// axolotl's LoRA kernels: one autograd function for q, k and v, one for the output, one for a gated MLP, in place of peft's layers; adapters are cast to
// what computes, and products add onto what is there. See transformer.hpp. Source: axolotl 0.19, kernels/{lora,quantize,swiglu}.py, monkeypatch/lora_kernels.py.
#include <array>

#include "passes/transformer.hpp"

namespace dryfit::eager {

bool Transformer::all_adapted(std::initializer_list<const Linear*> linears) {
  return std::ranges::all_of(linears, [](const Linear* l) { return l->lora.has_value(); });
}

// dequantize: [out, in], as it is or made whole.
Tensor Transformer::kernel_weight(const Linear& l) {
  if (!l.packed.defined()) return l.weight;
  const Tensor whole = t_.empty("quant.weight", l.shape, r_.weights, Category::workspace);
  if (r_.double_quantized) t_.empty("quant.scales", dims({ceil_div(l.shape.numel(), 64)}, false), Dtype::fp32, Category::workspace);
  return whole;
}

namespace {

Tensor as_rows(Tape& t, const Tensor& x) { return t.view(x, {x.dims().numel() / x.dims().back(), x.dims().back()}); }
Tensor turned(Tape& t, const Tensor& x) { return t.transpose(x, 0, 1); }

}  // namespace

// matmul_lora: X W, then X A B onto it. dropped: what adapters get, where it is not x.
Tensor Transformer::kernel_product(const Linear& l, const Tensor& x, const Tensor& dropped, const char* role) {
  const Tensor rows = as_rows(t_, x);
  const Tensor out = [&] {
    const Tensor whole = kernel_weight(l);
    return t_.mm(rows, turned(t_, whole), role);
  }();
  const Tensor a = t_.to(l.lora->a, x.dtype(), "lora.A");
  const Tensor b = t_.to(l.lora->b, x.dtype(), "lora.B");
  {
    const Tensor given = dropped.defined() ? as_rows(t_, dropped) : rows;
    const Tensor low = t_.mm(given, turned(t_, a), "lora.A");
    t_.multiply(low, turned(t_, b), "lora.B");
  }
  Dims d = x.dims();
  d.size[d.rank - 1U] = l.shape.size[0];
  return t_.view(out, contiguous(d));
}

// Of an adapter's matrices [r, in] and [out, r], as the transposes that products write; low: g B, [N, r].
Transformer::AdapterGradients Transformer::kernel_gradients(const Tensor& a, const Tensor& b, const Tensor& rows, const Tensor& g) {
  AdapterGradients out;
  const std::int64_t r = a.dims().size[0];
  out.low = t_.mm(g, b, "lora.low");
  const Category before = t_.category();
  t_.category(Category::gradients);
  const Tensor of_a = t_.empty("lora.A", dims({a.dims().size[1], r}, false), a.dtype()), of_b = t_.empty("lora.B", dims({r, b.dims().size[0]}, false), b.dtype());
  t_.category(before);
  t_.multiply(turned(t_, rows), out.low, "lora.A");
  {
    const Tensor low = t_.mm(a, turned(t_, rows), "lora.low");
    t_.multiply(low, g, "lora.B");
  }
  out.a = turned(t_, of_a), out.b = turned(t_, of_b);
  return out;
}

// The sum of g W over projections that share their input.
Tensor Transformer::kernel_input_gradient(std::span<const Linear* const> linears, std::span<const Tensor> g, const char* role) {
  Tensor sum;
  for (std::size_t i = 0; i < linears.size(); ++i) {
    const Tensor whole = kernel_weight(*linears[i]);
    if (sum.defined()) t_.multiply(g[i], whole, role);
    else sum = t_.mm(g[i], whole, role);
  }
  return sum;
}

// LoRA_QKV, LoRA_O: projections of one input.
std::vector<Tensor> Transformer::kernel_projections(std::span<const Linear* const> linears, const Tensor& x, const char* role) {
  const double p = r_.dropout ? r_.lora->dropout : 0;
  const bool alone = linears.size() == 1;
  const Tensor dropped = p > 0 ? t_.dropout(x, p, "lora.dropout") : Tensor();
  std::vector<Tensor> outs, inputs{x}, saved{x, dropped.defined() ? dropped : x};
  if (dropped.defined()) inputs.push_back(dropped);
  {
    const NoGrad inside(t_);
    for (const Linear* l : linears) outs.push_back(kernel_product(*l, x, dropped, role));
    for (const Linear* l : linears) {
      inputs.insert(inputs.end(), {l->lora->a, l->lora->b});
      saved.push_back(t_.to(l->lora->a, x.dtype(), "lora.A"));
      saved.push_back(t_.to(l->lora->b, x.dtype(), "lora.B"));
    }
  }
  const std::vector<const Linear*> kept(linears.begin(), linears.end());
  return t_.function(outs, inputs, saved, role, [this, kept, role, alone, drops = dropped.defined(), d = x.dims()](std::span<const Tensor> given, std::vector<Tensor>& held) {
    std::vector<Tensor> g, low, of_adapters;
    for (const Tensor& one : given) g.push_back(as_rows(t_, t_.contiguous(one, role)));
    const Tensor rows = as_rows(t_, held[1]);
    for (std::size_t i = 0; i < kept.size(); ++i) {
      AdapterGradients made = kernel_gradients(held[2 + 2 * i], held[3 + 2 * i], rows, g[i]);
      low.push_back(made.low);
      of_adapters.insert(of_adapters.end(), {made.a, made.b});
    }
    const Tensor dx = kernel_input_gradient(kept, g, role);
    Tensor of_dropped;
    if (drops && alone) of_dropped = t_.scale(t_.mm(low[0], held[2], "lora.x"), "lora.x");
    else if (drops) of_dropped = t_.empty("lora.x", rows.dims(), rows.dtype());
    for (std::size_t i = 0; i < kept.size() && !(drops && alone); ++i) t_.multiply(low[i], held[2 + 2 * i], "lora.x");
    std::vector<Tensor> out{t_.view(dx, contiguous(d))};
    if (drops) out.push_back(t_.view(of_dropped, contiguous(d)));
    out.insert(out.end(), of_adapters.begin(), of_adapters.end());
    return out;
  });
}

// LoRA_MLP: gate and up are overwritten by their gradients, the gradient of the product by the product.
Tensor Transformer::kernel_mlp(const Linear& gate, const Linear& up, const Linear& down, const Tensor& x, const GatedRoles& roles) {
  const double p = r_.dropout ? r_.lora->dropout : 0;
  const Tensor dropped = p > 0 ? t_.dropout(x, p, "lora.dropout") : Tensor();
  Tensor out;
  std::vector<Tensor> inputs{x}, saved{x, dropped.defined() ? dropped : x};
  if (dropped.defined()) inputs.push_back(dropped);
  {
    const NoGrad inside(t_);
    const Tensor of_gate = kernel_product(gate, x, dropped, roles.gate), of_up = kernel_product(up, x, dropped, roles.up);
    const Tensor product = t_.empty(roles.product, of_gate.dims(), of_gate.dtype());
    out = kernel_product(down, product, {}, roles.down);
    saved.insert(saved.end(), {of_gate, of_up});
    for (const Linear* l : {&gate, &up, &down}) {
      inputs.insert(inputs.end(), {l->lora->a, l->lora->b});
      saved.push_back(t_.to(l->lora->a, x.dtype(), "lora.A"));
      saved.push_back(t_.to(l->lora->b, x.dtype(), "lora.B"));
    }
  }
  return t_.function(out, inputs, saved, "mlp", [this, &gate, &up, &down, roles, wanted = x.requires_grad(), drops = dropped.defined(), d = x.dims()](const Tensor& given, std::vector<Tensor>& held) {
    const Tensor g = as_rows(t_, t_.contiguous(given, roles.down)), rows = as_rows(t_, held[1]), of_gate = as_rows(t_, held[2]), of_up = as_rows(t_, held[3]);
    const Tensor product = [&] {
      const Tensor made = kernel_input_gradient(std::array{&down}, std::array{g}, roles.product);
      const Tensor low = t_.mm(g, held[9], "lora.low");
      t_.multiply(low, held[8], "lora.x");
      return made;
    }();
    t_.tell_traffic(roles.product, 3.0 * static_cast<double>(product.dims().numel() * size_of(product.dtype())));
    const AdapterGradients of_down = kernel_gradients(held[8], held[9], product, g);
    const AdapterGradients of_ups = kernel_gradients(held[6], held[7], rows, of_up);
    const AdapterGradients of_gates = kernel_gradients(held[4], held[5], rows, of_gate);
    Tensor dx, of_dropped;
    if (wanted) {
      dx = kernel_input_gradient(std::array{&up, &gate}, std::array{of_up, of_gate}, roles.up);
      if (drops) of_dropped = t_.view(t_.empty("lora.x", rows.dims(), rows.dtype()), contiguous(d));
      t_.multiply(of_ups.low, held[6], "lora.x"), t_.multiply(of_gates.low, held[4], "lora.x");
      dx = t_.view(dx, contiguous(d));
    }
    std::vector<Tensor> of_inputs{dx};
    if (drops) of_inputs.push_back(of_dropped);
    of_inputs.insert(of_inputs.end(), {of_gates.a, of_gates.b, of_ups.a, of_ups.b, of_down.a, of_down.b});
    return of_inputs;
  });
}

}  // namespace dryfit::eager
