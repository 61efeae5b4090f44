// torchtune's forward pass and loss, op by op. See torchtune.hpp. B batch, T length, D width, H heads, K KV heads, h head size.
#include "passes/torchtune.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace dryfit::eager {

namespace {

// What changed in torchtune's code where memory shows it, by the date of the commit.
constexpr std::int32_t kDropsLogits = 20240728;    // #1235: before the backward pass
constexpr std::int32_t kShiftsLabels = 20240828;   // #1390: and no more the logits
constexpr std::int32_t kScalesGradients = 20241031; // #1917: at the step, by the number of targets

}  // namespace

// RMSNorm: F.rms_norm of fp32 rows and a 16-bit weight, which torch's fused kernel does not take; before it torchtune's own.
Tensor Torchtune::norm(const Tensor& given, const Tensor& w, const char* role) {
  if (r_.torchtune.date >= TorchtuneRun::kNormOfTorch && w.dtype() == Dtype::fp32) return t_.rms_norm(given, w, role);
  const Tensor x = t_.to(given, Dtype::fp32, role);
  Tensor scale;
  {
    Tensor mean;
    {
      const Tensor squares = t_.power(x, role);
      mean = t_.mean_last(squares, role);
    }
    const bool own = r_.torchtune.date < TorchtuneRun::kNormOfTorch;
    scale = t_.rsqrt(own ? t_.shift(mean, role) : mean, role);  // torch adds eps in place
  }
  Tensor normed = t_.mul(x, scale, role);
  if (r_.torchtune.date < TorchtuneRun::kNormOfTorch) return t_.mul(t_.to(normed, given.dtype(), role), w, role);
  normed = t_.mul(normed, w, role);
  return t_.to(normed, given.dtype(), role);
}

// NF4Tensor.get_original_weight: both halves of every byte as indices of 64 bits, their values, the scale of each block repeated, products, and both halves
// joined. Its names live until it returns.
Tensor Torchtune::dequantized(const Quantized& q, Dims shape, const char* role) {
  const std::int64_t half = shape.numel() / 2, blocks = shape.numel() / 64;
  const Dtype d = q.code.dtype();
  const auto made = [&](std::int64_t elements, Dtype dtype) { return t_.empty(role, dims({elements}, false), dtype, Category::workspace); };
  const auto indices = [&] {
    const Tensor bits = made(half, Dtype::uint8);
    return made(half, Dtype::int64);
  };
  const Tensor first = indices(), second = indices();
  const Tensor first_values = made(half, d), second_values = made(half, d);
  const Tensor scales = [&] {
    const Tensor unpacked = made(blocks, d);
    return made(blocks, d);
  }();
  const auto scaled = [&] {
    const Tensor repeated = made(half, d);
    return made(half, d);
  };
  const Tensor first_scaled = scaled(), second_scaled = scaled();
  return t_.view(made(2 * half, d), shape);
}

// LinearNF4: the weight is made for the product, and again for the gradient.
Tensor Torchtune::linear_nf4(const Linear& l, const Tensor& x, const char* role) {
  Tensor out;
  {
    const NoGrad off(t_);
    out = t_.linear(x, dequantized(l.packed, l.shape, role), role);
  }
  return t_.function(out, std::array{x}, std::array{l.packed.data}, role, [this, packed = l.packed, shape = l.shape, role](const Tensor& g, std::vector<Tensor>&) {
    const NoGrad off(t_);
    return std::vector{t_.matmul(g, dequantized(packed, shape, role), role)};
  });
}

// LoRALinear: linear(x) + (alpha / rank) * B(A(dropout(x))); nn.Linear without adapters.
Tensor Torchtune::project(const Linear& l, const Tensor& x, const char* role) {
  Tensor out = l.packed.data.defined() ? linear_nf4(l, x, role) : t_.linear(x, l.weight, role, l.bias);
  if (l.packed.data.defined() && l.bias.defined()) out = t_.add(out, l.bias, role);
  if (!l.a.defined()) return out;
  Tensor low = t_.linear(t_.dropout(x, r_.dropout ? r_.lora->dropout : 0, "lora.dropout"), l.a, "lora.A");
  low = t_.scale(t_.linear(low, l.b, "lora.B"), "lora.scaled");
  return t_.add(out, low, role);
}

// Rows of the table for these positions: the first T, or a copy where positions are given.
Tensor Torchtune::rotary_rows(const Block& b) {
  const Tensor& table = b.rotary.table;
  if (!positions_.defined()) return t_.slice(table, 0, T);
  return t_.gather(table, positions_, dims({B * T, table.dims().size[1]}, true), "rotary.rows");
}

// RotaryPositionalEmbeddings, Llama3ScaledRoPE: neighbours as pairs, in fp32. x: [B, T, n, h].
Tensor Torchtune::rotate_pairs(const Tensor& of_positions, const Tensor& x, const char* role) {
  const std::int64_t n = x.dims().size[2], half = x.dims().back() / 2, rows = positions_.defined() ? B : 1;
  const Tensor table = t_.view(of_positions, {rows, T, 1, half, 2});
  const Tensor pairs = t_.view(t_.to(x, Dtype::fp32, role), {B, T, n, half, 2});
  const auto of = [&](const Tensor& both, std::int64_t heads) {
    const Tensor one = t_.slice(both, -1, 1);
    return t_.view(one, {one.dims().size[0], T, heads, half});
  };
  const auto product = [&] {
    const Tensor number = of(pairs, n), factor = of(table, 1);
    return t_.mul(number, factor, role);
  };
  const auto column = [&](const Tensor& t) { return t_.view(t, {B, T, n, half, 1}); };
  Tensor turned;
  {
    Tensor first, second;
    {
      const Tensor a = product(), b = product();
      first = t_.sub(a, b, role);
    }
    {
      const Tensor a = product(), b = product();
      second = t_.add(a, b, role);
    }
    turned = t_.cat(std::array{column(first), column(second)}, -1, role);
  }
  turned = t_.view(turned, {B, T, n, 2 * half});
  return t_.to(turned, x.dtype(), role);
}

// Qwen2RotaryPositionalEmbeddings: halves, in x's dtype; the table's rows are cosines and then sines, cast in every call.
Tensor Torchtune::rotate_halves(const Tensor& of_positions, const Tensor& x, const char* role) {
  const std::int64_t h = x.dims().back(), rows = positions_.defined() ? B : 1;
  const Tensor table = t_.view(of_positions, {rows, T, 1, 2 * h});
  const Tensor cos = t_.to(t_.slice(table, -1, h), x.dtype(), role), sin = t_.to(t_.slice(table, -1, h), x.dtype(), role);
  const Tensor first = t_.slice(x, -1, h / 2), second = t_.slice(x, -1, h / 2);
  const Tensor rotated = t_.cat(std::array{t_.scale(second, role), first}, -1, role);
  const Tensor straight = t_.mul(x, cos, role), crossed = t_.mul(rotated, sin, role);
  return t_.add(straight, crossed, role);
}

Tensor Torchtune::rotate(const Block& b, const Tensor& x, const char* role) {
  const Tensor rows = rotary_rows(b);
  return a_.family == Family::qwen2 ? rotate_halves(rows, x, role) : rotate_pairs(rows, x, role);
}

// [B, K, T, h] -> [B, H, T, h], copied.
Tensor Torchtune::for_all_heads(const Tensor& x, const char* role) {
  const std::int64_t K = a_.kv_heads, group = a_.heads / K, h = a_.head_dim;
  if (group == 1) return x;
  const Tensor wide = t_.expand(t_.view(x, {B, K, 1, T, h}), dims({B, K, group, T, h}, true));
  return t_.reshape(wide, dims({B, a_.heads, T, h}, true), role);
}

// [B, H, T, h] of each.
Tensor Torchtune::attend(const Tensor& q, const Tensor& k, const Tensor& v) {
  if (r_.torchtune.packing == TorchtuneRun::Packing::mask) {
    // SDPA makes zeros and minus infinity of the booleans for every call
    const Tensor bias = t_.empty("attn.mask", dims({B, 1, T, T}, true), q.dtype());
    return t_.attention(Attention::efficient, q, k, v, bias, 0, "attn.out");
  }
  // flex attention's kernels keep and make what the memory-efficient ones do: one log-sum-exp a row, row sums of the gradient
  const bool flex = r_.torchtune.packing == TorchtuneRun::Packing::flex;
  return t_.attention(flex ? Attention::efficient : o_.attention, q, k, v, {}, 0, "attn.out");
}

// MultiHeadAttention.
Tensor Torchtune::attention(const Block& b, const Tensor& x) {
  const std::int64_t H = a_.heads, K = a_.kv_heads, h = a_.head_dim;
  Tensor q = project(b.q, x, "attn.q"), k, v;
  if (r_.torchtune.date < TorchtuneRun::kTurnsKeysFirst) {
    const auto all = [&](const Tensor& t, const char* role) {
      return t_.reshape(t_.expand(t_.view(t, {B, T, K, 1, h}), dims({B, T, K, H / K, h}, true)), dims({B, T, H, h}, true), role);
    };
    k = project(b.k, x, "attn.k");
    v = project(b.v, x, "attn.v");
    q = t_.view(q, {B, T, H, h});
    k = all(k, "attn.k");
    v = all(v, "attn.v");
    q = rotate(b, q, "attn.q_rot");
    k = rotate(b, k, "attn.k_rot");
    q = t_.transpose(q, 1, 2);
    k = t_.transpose(k, 1, 2);
    v = t_.transpose(v, 1, 2);
  } else {
    q = t_.view(q, {B, T, H, h});
    q = t_.transpose(rotate(b, q, "attn.q_rot"), 1, 2);
    k = project(b.k, x, "attn.k");
    v = project(b.v, x, "attn.v");
    k = t_.view(k, {B, T, K, h});
    v = t_.view(v, {B, T, K, h});
    k = t_.transpose(rotate(b, k, "attn.k_rot"), 1, 2);
    v = t_.transpose(v, 1, 2);
    k = for_all_heads(k, "attn.k");
    v = for_all_heads(v, "attn.v");
  }
  Tensor out = attend(q, k, v);
  out = t_.reshape(t_.contiguous(t_.transpose(out, 1, 2), "attn.out"), dims({B, T, H * h}, true), "attn.out");
  return project(b.o, out, "attn.o");
}

Tensor Torchtune::mlp(const Block& b, const Tensor& x) {
  Tensor h = t_.unary(project(b.gate, x, "mlp.gate"), Tape::Keep::input, "mlp.act");
  h = t_.mul(h, project(b.up, x, "mlp.up"), "mlp.product");
  return project(b.down, h, "mlp.down");
}

void Torchtune::name(std::vector<Tensor>& inputs, std::initializer_list<const Linear*> linears) const {
  for (const Linear* l : linears) {
    for (const Tensor* t : {&l->weight, &l->packed.data, &l->bias, &l->a, &l->b}) {
      if (t->defined()) inputs.push_back(*t);
    }
  }
}

std::vector<Tensor> Torchtune::compiled_part(TorchtunePart part, bool first, std::span<const Tensor> inputs) {
  std::unique_ptr<CompiledFunction>& f = compiled_[{part, first}];
  if (!f) f = std::make_unique<CompiledFunction>(t_, torchtune_block(a_, r_, o_.attention, o_.multiprocessors, part, first), static_cast<std::int64_t>(inputs.size()));
  return (*f)(inputs);
}

// training/_compile.py: each block by itself, all by one piece of code, or two where only x of the others wants a gradient. Flex attention is compiled by
// itself; the block around it is in parts.
Tensor Torchtune::compiled_block(int layer, const Tensor& x) {
  const Block& b = blocks_[static_cast<std::size_t>(layer)];
  const bool first = layer == 0 && r_.lora, whole = r_.torchtune.packing != TorchtuneRun::Packing::flex;
  std::vector<Tensor> inputs{x, b.norm1};
  if (!whole) inputs = compiled_part(TorchtunePart::norm, first, inputs);
  name(inputs, {&b.q, &b.k, &b.v});
  inputs.push_back(b.rotary.table);
  if (!whole) {
    inputs = compiled_part(TorchtunePart::heads, first, inputs);
    for (Tensor& t : inputs) t = t_.transpose(t, 1, 2);
    t_.at(layer);
    inputs = {t_.view(t_.transpose(attend(inputs[0], inputs[1], inputs[2]), 1, 2), {B, T, a_.heads * a_.head_dim})};
  }
  name(inputs, {&b.o});
  if (!whole) {
    inputs = compiled_part(TorchtunePart::output, first, inputs);
    inputs.insert(inputs.begin(), x);
  }
  inputs.push_back(b.norm2);
  name(inputs, {&b.gate, &b.down, &b.up});
  return compiled_part(whole ? TorchtunePart::whole : TorchtunePart::rest, first, inputs)[0];
}

Tensor Torchtune::compiled_loss(const Tensor& logits, const Tensor& labels, bool mean) {
  std::unique_ptr<CompiledFunction>& f = losses_[logits.dims().size[0]];
  if (!f) f = std::make_unique<CompiledFunction>(t_, torchtune_loss(logits.dims().size[0], a_.vocab, logits.dtype(), mean), 0);
  return (*f)(std::array{logits, labels})[0];
}

// TransformerSelfAttentionLayer.
Tensor Torchtune::block(int layer, const Tensor& x) {
  t_.at(layer);
  if (r_.compile) {
    Tensor out = compiled_block(layer, x);
    t_.at(-1);
    return out;
  }
  const Block& b = blocks_[static_cast<std::size_t>(layer)];
  Tensor h = norm(x, b.norm1, "attn.norm");
  const Tensor attended = attention(b, h);
  h = t_.add(attended, x, "x_mid");
  const Tensor fed = [&] {
    const Tensor normed = norm(h, b.norm2, "mlp.norm");
    return mlp(b, normed);
  }();
  Tensor out = t_.add(h, fed, "x");
  t_.at(-1);
  return out;
}

std::vector<std::int64_t> Torchtune::chunk_lengths() const {
  const std::int64_t chunks = r_.torchtune.output_chunks, each = ceil_div(T, chunks);
  std::vector<std::int64_t> lengths(static_cast<std::size_t>(T / each), each);
  if (T % each != 0) lengths.push_back(T % each);
  return lengths;
}

// Around the checkpoint, if it is one: fully_shard is given what is in the list of layers.
Tensor Torchtune::unit(int layer, const Tensor& x) {
  const Tensor given = enter(layer, x);
  return leave(layer, r_.recompute == Recompute::full ? t_.checkpoint([this, layer](const Tensor& in) { return block(layer, in); }, given, false) : block(layer, given));
}

Tensor Torchtune::embedded() {
  if (!r_.torchtune.embedding_apart) return t_.embedding(table_, ids_, "wte");
  enter(UnitHooks::kEmbedding, {});
  return leave(UnitHooks::kEmbedding, t_.embedding(table_, ids_, "wte"));
}

Tensor Torchtune::head(const Tensor& x) {
  if (!r_.torchtune.head_apart || a_.tied_head) return project(head_, x, "logits");
  const Tensor given = enter(UnitHooks::kTail, x);
  return leave(UnitHooks::kTail, project(head_, given, "logits"));
}

// TransformerDecoder: logits of each chunk as the head makes them, or of everything in fp32.
std::vector<Tensor> Torchtune::model() {
  enter(UnitHooks::kModel, {});
  t_.offload(r_.torchtune.offload_activations);
  Tensor x = embedded();
  for (int layer = 0; layer < static_cast<int>(a_.layers); ++layer) x = unit(layer, x);
  const Tensor normed = norm(x, final_, "norm");
  t_.offload(false);  // what the head saves stays
  const Category before = t_.category();
  t_.category(Category::logits);
  std::vector<Tensor> logits;
  if (r_.torchtune.output_chunks > 0) {
    for (const Tensor& chunk : t_.split(normed, 1, chunk_lengths())) logits.push_back(head(chunk));
  } else {
    logits.push_back(t_.to(head(normed), Dtype::fp32, "logits"));
  }
  for (Tensor& part : logits) part = leave(UnitHooks::kModel, part);
  t_.category(before);
  return logits;
}

// Before the labels were shifted: all logits but the last row's, copied, and the loss over [B, V, T-1], which log_softmax reads as a contiguous copy.
Tensor Torchtune::loss_of_shifted_logits(Tensor logits) {
  const std::int64_t V = a_.vocab;
  logits = t_.contiguous(t_.slice(logits, 1, T - 1), "logits");
  const Tensor targets = t_.empty("loss.targets", dims({B, T - 1}, true), Dtype::int64);
  const Tensor columns = t_.transpose(logits, 1, 2);
  if (r_.torchtune.date < kDropsLogits) logits_ = logits;
  logits.reset();
  const Tensor rows = t_.contiguous(columns, "loss.logits");
  const Tensor loss = t_.cross_entropy(t_.view(rows, {B, V, 1, T - 1}), targets, "loss.log_probs");
  return loss;
}

// CEWithChunkedOutputLoss: each chunk in fp32 on its own, a sum of all over the number of targets; or nn.CrossEntropyLoss. The recipe names the logits.
Tensor Torchtune::loss_of(std::vector<Tensor> logits) {
  const std::int64_t V = a_.vocab;
  if (r_.torchtune.output_chunks == 0) {
    const Tensor rows = t_.view(logits[0], {B * T, V}), labels = t_.view(labels_, {B * T});
    return r_.compile ? compiled_loss(rows, labels, true) : t_.cross_entropy(rows, labels, "loss.log_probs");
  }
  const Tensor counted = targets_that_count();
  std::vector<Tensor> targets;
  for (const Tensor& part : t_.split(labels_, 1, chunk_lengths())) targets.push_back(t_.reshape(part, dims({part.dims().numel()}, true), "loss.targets"));
  Tensor sum;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const Tensor rows = t_.view(logits[i], {targets[i].dims().numel(), V});
    const Tensor loss = r_.compile ? compiled_loss(rows, targets[i], false) : t_.cross_entropy(t_.to(rows, Dtype::fp32, "logits"), targets[i], "loss.log_probs");
    sum = sum.defined() ? t_.add_in_place(sum, loss) : t_.shift(loss, "loss");
  }
  return t_.mul(sum, counted, "loss");
}

// (labels != ignore_index).sum()
Tensor Torchtune::targets_that_count() {
  const Tensor counted = t_.empty("loss.counted", dims({B, T}, true), Dtype::bool8);
  return t_.empty("loss.count", dims({}, false), Dtype::int64);
}

// padded_collate_packed: create_block_mask is given all of the mask, and leaves whose block has what; the texts' numbers stay with the function that it is given.
std::vector<Tensor> Torchtune::block_mask() {
  const std::int64_t blocks = ceil_div(T, 128);
  Tensor texts = t_.empty("batch.texts", dims({B, T}, true), Dtype::int64);
  std::vector<Tensor> kept;
  {
    const auto mask = [&](std::initializer_list<std::int64_t> sizes, bool batched) { return t_.empty("batch.mask", dims(sizes, batched), Dtype::bool8); };
    const Tensor both = [&] {
      const auto indices = [&](std::int64_t count, bool batched) { return t_.empty("batch.indices", dims({count}, batched), Dtype::int64); };
      const Tensor of_row = indices(B, true), of_head = indices(1, false), of_query = indices(T, false), of_key = indices(T, false);
      const Tensor causal = mask({T, T}, false), same = mask({B, T, T}, true);
      return mask({B, T, T}, true);
    }();
    const Tensor padded = mask({B, 128 * blocks, 128 * blocks}, true);
    for (int i = 0; i < 4; ++i) {  // numbers and indices: in part and in full, by queries and by keys
      for (const std::int64_t each : {blocks, blocks * blocks}) kept.push_back(t_.empty("batch.blocks", dims({B, each}, true), Dtype::int32));
    }
  }
  texts_ = std::move(texts);
  return kept;
}

void Torchtune::load_batch() {
  B = r_.device_batch_size;
  T = r_.seq_len;
  std::vector<Tensor> blocks;
  if (r_.torchtune.packing == TorchtuneRun::Packing::flex) blocks = block_mask();
  for (Tensor* old : {&ids_, &labels_, &positions_}) old->reset();  // the loop's name means the batch on the host by then
  mask_ = std::move(blocks);
  const Dims d = dims({B, T}, true);
  ids_ = t_.empty("batch.ids", d, Dtype::int64);
  labels_ = t_.empty("batch.labels", d, Dtype::int64);
  if (r_.torchtune.packing != TorchtuneRun::Packing::none) positions_ = t_.empty("batch.positions", d, Dtype::int64);
  if (r_.torchtune.packing == TorchtuneRun::Packing::mask) mask_ = {t_.empty("batch.mask", dims({B, T, T}, true), Dtype::bool8)};
  counted_ = targets_that_count();
  last_labels_.reset();
  if (!all_counted_.defined()) all_counted_ = t_.empty("loss.count", dims({}, false), Dtype::int64);  // 0 and it; others are added in place
}

Tensor Torchtune::loss() {
  std::vector<Tensor> logits = model();
  logits_.reset();  // what the name held until now
  const Category before = t_.category();
  t_.category(Category::logits);
  const bool shifts_logits = r_.torchtune.date < kShiftsLabels;
  if (!shifts_logits) labels_ = t_.empty("loss.targets", dims({B, T}, true), Dtype::int64);  // shifted by one
  Tensor loss = shifts_logits ? loss_of_shifted_logits(std::exchange(logits[0], Tensor())) : loss_of(std::move(logits));
  if (r_.sharding != Sharding::none) last_labels_ = labels_;
  labels_.reset();
  t_.category(before);
  loss = t_.mul(loss, counted_, "loss");
  running_ = running_.defined() ? t_.add_in_place(running_, loss) : t_.shift(loss, "loss");
  return loss;
}

void Torchtune::scale_gradients() {
  if (r_.torchtune.date < kScalesGradients) return;
  std::int64_t bytes = 0, count = 0;
  for (const Transformer::Weight& w : weights_) {
    if (w.trains) bytes += w.tensor.dims().numel() * size_of(w.tensor.dtype()), ++count;
  }
  const Tensor factor = t_.empty("scale_grads", dims({}, false), Dtype::fp32);
  t_.tell_traffic("scale_grads", 2 * static_cast<double>(bytes), count);
}

// What is logged keeps its name until the next step's.
void Torchtune::log() {
  logged_[0] = t_.empty("loss.logged", dims({}, false), Dtype::fp32);
  logged_[1] = t_.empty("loss.logged", dims({}, false), Dtype::fp32);  // tokens per second
  running_.reset();
  all_counted_.reset();
}

}  // namespace dryfit::eager
