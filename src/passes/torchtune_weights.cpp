// Parameters and buffers of a torchtune model, as its builders make them on the GPU. See torchtune.hpp. D width, F MLP width, V vocabulary.
#include "passes/torchtune.hpp"

#include <algorithm>

namespace dryfit::eager {

namespace {

constexpr std::int64_t kQuantizedAtOnce = 1 << 20;  // torchao's CHUNK_SIZE, elements
constexpr std::int32_t kMakesEachLayer = 20240912;  // #1554, other models than Llama 3.1 with #2282: before, one was made and copied for all, with its table

}  // namespace

Torchtune::Torchtune(Tape& tape, const Architecture& architecture, const Training& training, ForwardOptions options)
    : t_(tape), a_(architecture), r_(training), o_(options) {
  own_tables_ = r_.torchtune.layer_tables || r_.torchtune.date < kMakesEachLayer;
  load();
}

Tensor Torchtune::make(const char* role, std::initializer_list<std::int64_t> sizes, bool trains) {
  const Dims d = dims(sizes, false);
  Tensor t = o_.shards > 1 ? t_.hollow_parameter(role, d, d.elements_in(o_.shards), r_.weights, trains) : t_.parameter(role, d, r_.weights, trains);
  weights_.push_back({t, role, layer_, trains});
  return t;
}

Torchtune::Linear Torchtune::linear(const char* role, const char* module, std::int64_t in, std::int64_t out, bool bias) {
  Linear l;
  l.shape = dims({out, in}, false);
  if (r_.quantized && layer_ >= 0) l.packed = quantized(role, l.shape);
  else l.weight = make(role, {out, in}, !r_.lora);
  if (bias) l.bias = make(role, {out}, !r_.lora);
  if (!torchtune_adapts(r_, module)) return l;
  l.a = make("lora.A", {r_.lora->rank, in}, true);
  l.b = make("lora.B", {out, r_.lora->rank}, true);
  return l;
}

// What NF4Tensor.from_tensor makes beside the weight: it divided by its scales, a byte for each element, and the distance to every one of 16 values.
// Parts after the first are as large, one after the other.
void Torchtune::quantizing(std::int64_t elements) {
  const auto made = [&](std::int64_t count, Dtype d) { return t_.empty("nf4.quantizing", dims({count}, false), d, Category::workspace); };
  const Tensor scales = made(elements / 64, r_.weights), scaled = made(elements, r_.weights), codes = made(elements, Dtype::uint8);
  {
    const std::int64_t part = std::min(elements, kQuantizedAtOnce);
    const Tensor distances = [&] {
      const Tensor differences = made(16 * part, r_.weights);
      return made(16 * part, r_.weights);
    }();
    const Tensor least = made(part, r_.weights), nearest = made(part, Dtype::int64);
  }
  const Tensor shifted = made(elements / 2, Dtype::uint8);
}

// to_nf4 of a weight that was made on the GPU, which goes.
Torchtune::Quantized Torchtune::quantized(const char* role, Dims shape) {
  const std::int64_t n = shape.numel();
  Quantized q;
  const Tensor whole = t_.empty(role, shape, r_.weights);
  const auto kept = [&](const char* name, std::int64_t count, Dtype d) {
    frozen_bytes_ += count * size_of(d);
    return t_.empty(name, dims({count}, false), d);
  };
  q.code = kept("quant.code", 16, r_.weights);
  q.mean = kept("quant.mean", 1, r_.weights);
  q.scales = kept("quant.scales", n / 64, Dtype::uint8);
  q.factors = kept("quant.factors", ceil_div(n, 64 * 256), r_.weights);
  quantizing(n);
  q.data = kept(role, n / 2, Dtype::uint8);
  return q;
}

// load_state_dict: a quantized weight gets its values through a whole one, which is quantized anew.
void Torchtune::read_checkpoint() {
  t_.segment("load", "checkpoint");
  for (const Block& b : blocks_) {
    for (const Linear* l : {&b.q, &b.k, &b.v, &b.o, &b.gate, &b.down, &b.up}) {
      if (!l->packed.data.defined()) continue;
      const Tensor whole = t_.empty("nf4.quantizing", l->shape, r_.weights, Category::workspace);
      quantizing(l->shape.numel());
      const Tensor again = t_.empty("nf4.quantizing", dims({l->shape.numel() / 2}, false), Dtype::uint8, Category::workspace);
    }
  }
}

// What the recipes for several GPUs allocate first, adapters; then as the checkpoint is read: the embedding, layers, the norm, the head.
std::vector<Transformer::Weight> Torchtune::loading_order() const {
  std::vector<Transformer::Weight> out = weights_;
  std::ranges::stable_sort(out, {}, [](const Transformer::Weight& w) {
    const std::string_view role = w.role;
    return role.starts_with("lora.") ? -1 : w.layer >= 0 ? 1 : role == "wte" ? 0 : role == "norm" ? 2 : 3;
  });
  return out;
}

// fp32: cosine and sine of each pair; Qwen's rows are whole heads of both.
Torchtune::Rotary Torchtune::rotary_table() {
  Rotary r;
  const std::int64_t rows = r_.torchtune.positions > 0 ? r_.torchtune.positions : a_.max_positions, h = a_.head_dim;
  r.theta = t_.empty("rotary.theta", dims({h / 2}, false), Dtype::fp32);
  const auto part = [&](std::int64_t width) { return t_.empty("rotary.angles", dims({rows, width}, false), Dtype::fp32); };
  Tensor angles = part(h / 2);
  if (a_.family == Family::qwen2) {
    const Tensor twice = part(h), cos = part(h), sin = part(h);
    r.table = t_.empty("rotary.table", dims({rows, 2 * h}, false), Dtype::fp32);
  } else {
    const Tensor cos = part(h / 2), sin = part(h / 2);
    r.table = t_.empty("rotary.table", dims({rows, h}, false), Dtype::fp32);
  }
  return r;
}

void Torchtune::load() {
  const Category before = t_.category();
  t_.category(Category::weights);
  const std::int64_t D = a_.width, F = a_.ffn, V = a_.vocab, h = a_.head_dim, H = a_.heads * h, K = a_.kv_heads * h;
  Rotary shared;
  if (!own_tables_) shared = rotary_table();
  const bool full = !r_.lora;
  const auto made = [&] {
    Block b;
    b.rotary = own_tables_ ? rotary_table() : shared;
    b.q = linear("attn.q", "q_proj", D, H, a_.qkv_bias);
    b.k = linear("attn.k", "k_proj", D, K, a_.qkv_bias);
    b.v = linear("attn.v", "v_proj", D, K, a_.qkv_bias);
    b.o = linear("attn.o", "o_proj", H, D, a_.out_bias);
    b.gate = linear("mlp.gate", "mlp", D, F, false);
    b.down = linear("mlp.down", "mlp", F, D, false);
    b.up = linear("mlp.up", "mlp", D, F, false);
    b.norm1 = make("norm1", {D}, full);
    b.norm2 = make("norm2", {D}, full);
    return b;
  };
  Block copied;
  if (r_.torchtune.date < kMakesEachLayer) {
    const std::int64_t frozen = frozen_bytes_;
    layer_ = 0;
    copied = made();
    weights_.clear();
    frozen_bytes_ = frozen;
  }
  for (layer_ = 0; layer_ < a_.layers; ++layer_) {
    t_.at(layer_);
    blocks_.push_back(made());
  }
  t_.at(-1);
  layer_ = -1;
  table_ = make("wte", {V, D}, full);
  if (a_.tied_head) head_.weight = table_;
  else head_ = linear("lm_head", "lm_head", D, V, false);
  final_ = make("norm", {D}, full);
  ignored_ = t_.empty("loss.ignored", dims({r_.device_batch_size, 1}, true), Dtype::int64);
  copied = {};
  if (r_.quantized) read_checkpoint();
  t_.category(before);
}

}  // namespace dryfit::eager
