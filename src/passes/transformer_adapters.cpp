// What peft adds to a transformer's forward pass: LoRA's and DoRA's products, a prompt's embeddings. See transformer.hpp.
#include <array>
#include <utility>

#include "passes/transformer.hpp"

namespace dryfit::eager {

// One of an adapter's two matrices: a module of its own. leaf: its unit, if it is one; in_memory: what x is, if not what the graph has.
Tensor Transformer::low_rank(const Tensor& weight, const Tensor& x, const char* role, int leaf, std::optional<Dtype> in_memory) {
  const Tensor given = into(&weight, {weight}, x);
  if (leaf == 0) return out_of(&weight, t_.linear(given, weight, role));
  Tensor inside = enter(leaf, given);
  if (in_memory) inside = t_.in_graph(inside, inside, *in_memory);
  return out_of(&weight, leave(leaf, t_.linear(inside, weight, role)));
}

// "_cast_input_dtype" to what the module names, then dropout. Where FSDP1 has gathered a matrix by the time its block runs again, that is narrower than it
// was in the graph: backward goes the old way. x: what was cast goes by its name.
Tensor Transformer::into_adapter(const Linear& l, Tensor& x, bool casts, std::optional<Dtype>& in_memory) {
  const double p = r_.dropout ? r_.lora->dropout : 0;
  const UnitHooks::Named dtype = l.lora->leaf > 0 ? hooks_.dtype(l.lora->leaf) : UnitHooks::Named{o_.adapters, o_.adapters};
  if (!casts || dtype.now == dtype.in_graph) {
    if (casts) x = t_.to(x, dtype.now, "lora.x");
    return drop(&l.lora->dropout, x, p, "lora.dropout");
  }
  const Tensor given = std::exchange(x, [&] {
    const NoGrad inside(t_);
    return t_.to(x, dtype.now, "lora.x");
  }());
  in_memory = dtype.now;
  return t_.dropout(t_.in_graph(x, given, dtype.in_graph), p, "lora.dropout", in_memory);
}

// What peft adds to a product. Beside 4-bit weights (tuners/lora/bnb.py) it copies the product first, and leaves casts to autocast where that is on.
Tensor Transformer::adapted(Tensor result, const Linear& l, const Tensor& x, const char* role) {
  const Dtype dtype = result.dtype();
  const bool four_bit = l.packed.defined(), casts = !four_bit || !t_.autocast();
  if (four_bit) result = t_.clone(result, role);
  if (modules_.takes && casts) modules_.takes(&l.lora->self, l.lora->a);  // for its dtype
  const int leaf = l.lora->leaf;
  Tensor given = x;
  std::optional<Dtype> in_memory;
  Tensor delta = into_adapter(l, given, casts, in_memory);
  delta = low_rank(l.lora->a, delta, "lora.A", leaf, in_memory);
  delta = low_rank(l.lora->b, delta, "lora.B", leaf > 0 ? leaf + 1 : 0);
  delta = t_.scale(delta, "lora.scaled");
  if (four_bit && casts) delta = t_.to(delta, dtype, "lora.scaled");
  result = t_.add(result, delta, role);
  delta.reset();
  return four_bit ? result : t_.to(result, dtype, role);
}

// dequantize_module_weight: [out, in].
Tensor Transformer::whole_weight(const Linear& l) {
  if (!l.packed.defined()) return l.conv1d ? t_.transpose(l.weight, 0, 1) : l.weight;
  Tensor scales;
  if (r_.double_quantized) scales = t_.empty("quant.scales", dims({ceil_div(l.shape.numel(), 64)}, false), Dtype::fp32, Category::workspace);
  return t_.empty("dora.weight", l.shape, r_.weights);
}

// DoraLinearLayer.forward: (m / |W + sBA| - 1) Wx + m / |W + sBA| sBAx, of which |W + sBA| is a constant. base: Wx, where it is there.
Tensor Transformer::decomposed(const Linear& l, const Tensor& x, Tensor base) {
  Tensor product = [&] {
    const Tensor eye = t_.empty("dora.eye", dims({l.shape.size[1], l.shape.size[1]}, false), o_.adapters);
    const Tensor low = low_rank(l.lora->a, eye, "lora.A");
    return t_.transpose(low_rank(l.lora->b, low, "lora.B"), 0, 1);
  }();
  product = t_.to(product, x.dtype(), "dora.BA");
  const Tensor weight = t_.to(whole_weight(l), x.dtype(), "dora.weight");
  const Tensor length = [&] {
    const Tensor both = t_.add(weight, t_.scale(t_.detach(product), "dora.BA"), "dora.sum");
    return t_.empty("dora.norm", dims({l.shape.size[0]}, false), x.dtype());
  }();
  const Tensor ratio = t_.view(t_.mul(l.lora->magnitude, length, "dora.ratio"), {1, l.shape.size[0]});
  Tensor low = low_rank(l.lora->a, x, "lora.A");
  low = low_rank(l.lora->b, low, "lora.B");
  if (!base.defined()) base = t_.linear(x, weight, "dora.base");
  else if (l.bias.defined()) base = t_.sub(base, l.bias, "dora.base");
  const Tensor first = t_.mul(t_.shift(ratio, "dora.ratio"), base, "dora.first");
  Tensor second = t_.mul(ratio, low, "dora.second");
  second = t_.scale(second, "dora.second");
  return t_.add(first, second, "dora.extra");
}

// What DoRA adds to a product, of its input after dropout; then Wx is computed once more (peft, tuners/lora/{variants,dora}.py).
Tensor Transformer::adapted_dora(const Tensor& result, const Linear& l, const Tensor& x, const char* role) {
  const Tensor cast = t_.to(x, o_.adapters, "lora.x");
  const bool drops = r_.dropout && r_.lora->dropout > 0;
  const Tensor in = drops ? drop(&l.lora->dropout, cast, r_.lora->dropout, "lora.dropout") : cast;
  const Tensor extra = decomposed(l, in, drops ? Tensor() : result);
  return t_.to(t_.add(result, extra, role), result.dtype(), role);
}

// PeftModelForCausalLM.forward with prompt tuning: ones before the mask, which makes it fp32, labels that do not count, embeddings of its own.
Transformer::Batch Transformer::prompted(const Batch& batch) {
  const std::int64_t P = r_.lora->virtual_tokens;
  const auto joined = [&](const Tensor& rows, Dtype d) {
    const Tensor before = t_.empty("prompt.batch", dims({B, P}, true), d);
    return t_.cat(std::array{before, rows}, 1, "prompt.batch", d);
  };
  Batch out;
  out.mask = joined(batch.mask, Dtype::fp32);
  const Tensor given = lookup("wte", batch.ids);
  out.labels = joined(batch.labels, Dtype::int64);
  const Tensor prompts = [&] {
    const Tensor ids = t_.empty("prompt.ids", dims({B, P}, true), Dtype::int64);  // of which only one row is asked for
    const Tensor one = t_.embedding(prompt_, t_.slice(ids, 0, 1, true), "prompt");
    return t_.to(t_.repeated(one, B, "prompt.x"), given.dtype(), "prompt.x");
  }();
  out.embeddings = t_.cat(std::array{prompts, given}, 1, "x_embed");
  T += P;
  N = B * T;
  return out;
}

}  // namespace dryfit::eager
