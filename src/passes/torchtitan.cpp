// torchtitan's forward pass and loss, op by op. See torchtitan.hpp. B batch, T length, D width, F MLP width, V vocabulary, H heads, K KV heads, h head size.
#include "passes/torchtitan.hpp"

#include <array>

#include "graph/torchtune.hpp"

namespace dryfit::eager {

Torchtitan::Torchtitan(Tape& tape, const Architecture& architecture, const Training& training, ForwardOptions options) : t_(tape), a_(architecture), r_(training), o_(options) {
  B = r_.device_batch_size;
  T = r_.seq_len;
  load();
}

Tensor Torchtitan::make(const char* role, std::initializer_list<std::int64_t> sizes) {
  const Dims d = dims(sizes, false);
  Tensor t = o_.shards > 1 ? t_.hollow_parameter(role, d, d.elements_in(o_.shards), r_.weights, true) : t_.parameter(role, d, r_.weights, true);
  weights_.push_back({t, role, layer_, true});
  return t;
}

void Torchtitan::load() {
  const Category before = t_.category();
  t_.category(Category::weights);
  const std::int64_t D = a_.width, F = a_.ffn, V = a_.vocab, h = a_.head_dim, H = a_.heads * h, K = a_.kv_heads * h;
  table_ = make("wte", {V, D});
  for (layer_ = 0; layer_ < a_.layers; ++layer_) {
    t_.at(layer_);
    Block b;
    b.q = make("attn.q", {H, D});
    b.k = make("attn.k", {K, D});
    b.v = make("attn.v", {K, D});
    b.o = make("attn.o", {D, H});
    b.gate = make("mlp.gate", {F, D});
    b.down = make("mlp.down", {D, F});
    b.up = make("mlp.up", {F, D});
    b.norm1 = make("norm1", {D});
    b.norm2 = make("norm2", {D});
    blocks_.push_back(std::move(b));
  }
  t_.at(-1);
  layer_ = -1;
  final_ = make("final", {D});
  head_ = make("lm_head", {V, D});
  // complex numbers, h / 2 a row: to_empty's, and what precompute_freqs_cis makes in their place
  const auto made = [&](std::int64_t width) { return t_.empty("rotary.angles", dims({T, width}, false), Dtype::fp32); };
  const Tensor empty_table = made(h);
  const auto for_each_angle = [&] { return t_.empty("rotary.angles", dims({h / 2}, false), Dtype::fp32); };
  const Tensor lengths = for_each_angle(), factors = for_each_angle(), smoothed = for_each_angle(), between = for_each_angle();
  const Tensor positions = t_.empty("rotary.angles", dims({T}, false), Dtype::int64), angles = made(h / 2), ones = made(h / 2);
  angles_ = t_.empty("rotary.table", dims({1, T, 1, h}, false), Dtype::fp32);
  t_.category(before);
}

// apply_rotary_emb's product: of complex numbers, so that the gradient's factor is a copy, conjugated.
Tensor Torchtitan::turned(const Tensor& x, const char* role) {
  Tensor out;
  {
    const NoGrad off(t_);
    out = t_.mul(x, angles_, role);
  }
  return t_.function(out, std::array{x}, std::array{angles_}, role, [this, role](const Tensor& g, std::vector<Tensor>&) {
    const NoGrad off(t_);
    const Tensor conjugated = t_.empty("rotary.table", angles_.dims(), Dtype::fp32);
    return std::vector{t_.mul(g, conjugated, role)};
  });
}

// repeat_kv: [B, T, K, h] -> [B, T, H, h], copied.
Tensor Torchtitan::for_all_heads(const Tensor& x, const char* role) {
  const std::int64_t K = a_.kv_heads, group = a_.heads / K, h = a_.head_dim;
  if (group == 1 || r_.torchtitan.date >= TorchtitanRun::kSharesKeys) return x;
  const Tensor wide = t_.expand(t_.view(x, {B, T, K, 1, h}), dims({B, T, K, group, h}, true));
  return t_.reshape(wide, dims({B, T, a_.heads, h}, true), role);
}

Tensor Torchtitan::attention(const Block& b, const Tensor& x) {
  const std::int64_t H = a_.heads, K = a_.kv_heads, h = a_.head_dim;
  Tensor q = t_.linear(x, b.q, "attn.q"), k = t_.linear(x, b.k, "attn.k"), v = t_.linear(x, b.v, "attn.v");
  q = t_.view(q, {B, T, H, h});
  k = t_.view(k, {B, T, K, h});
  v = t_.view(v, {B, T, K, h});
  {
    const Tensor q32 = t_.to(q, Dtype::fp32, "attn.q_rot"), k32 = t_.to(k, Dtype::fp32, "attn.k_rot");
    const Tensor q_turned = turned(q32, "attn.q_rot"), k_turned = turned(k32, "attn.k_rot");
    Tensor q_out = t_.to(q_turned, q.dtype(), "attn.q_rot"), k_out = t_.to(k_turned, k.dtype(), "attn.k_rot");
    q = std::move(q_out);
    k = std::move(k_out);
  }
  k = for_all_heads(k, "attn.k");
  v = for_all_heads(v, "attn.v");
  q = t_.transpose(q, 1, 2);
  k = t_.transpose(k, 1, 2);
  v = t_.transpose(v, 1, 2);
  Tensor out = t_.attention(o_.attention, q, k, v, {}, 0, "attn.out");
  out = t_.view(t_.contiguous(t_.transpose(out, 1, 2), "attn.out"), {B, T, H * h});
  return t_.linear(out, b.o, "attn.o");
}

Tensor Torchtitan::mlp(const Block& b, const Tensor& x) {
  Tensor h = t_.unary(t_.linear(x, b.gate, "mlp.gate"), Tape::Keep::input, "mlp.act");
  h = t_.mul(h, t_.linear(x, b.up, "mlp.up"), "mlp.product");
  return t_.linear(h, b.down, "mlp.down");
}

// TransformerBlock.
Tensor Torchtitan::block(int layer, const Tensor& x) {
  t_.at(layer);
  const Block& b = blocks_[static_cast<std::size_t>(layer)];
  const auto attended = [&] {
    const Tensor normed = t_.rms_norm(x, b.norm1, "attn.norm");
    return attention(b, normed);
  };
  const Tensor h = t_.add(x, attended(), "x_mid");
  const auto fed = [&] {
    const Tensor normed = t_.rms_norm(h, b.norm2, "mlp.norm");
    return mlp(b, normed);
  };
  Tensor out = t_.add(h, fed(), "x");
  t_.at(-1);
  return out;
}

TitanCheckpoint Torchtitan::checkpoint_of(int layer) const {
  const TorchtitanRun& titan = r_.torchtitan;
  using Selective = TorchtitanRun::Selective;
  if (r_.recompute == Recompute::full) return TitanCheckpoint::all;
  if (titan.selective == Selective::ops) return TitanCheckpoint::but_ops;
  return titan.selective == Selective::layers && (titan.every == 0 || (layer + 1) % titan.every == 0) ? TitanCheckpoint::all : TitanCheckpoint::none;
}

// apply_compile: each block by itself, all of one kind by one piece of code.
Tensor Torchtitan::compiled_block(int layer, const Tensor& x, TitanCheckpoint checkpoint) {
  const Block& b = blocks_[static_cast<std::size_t>(layer)];
  const std::array inputs{x, b.q, b.k, b.v, b.o, b.gate, b.down, b.up, b.norm1, b.norm2, angles_};
  std::unique_ptr<CompiledFunction>& f = compiled_[static_cast<std::size_t>(checkpoint)];
  if (!f) f = std::make_unique<CompiledFunction>(t_, torchtitan_block(a_, r_, o_.attention, checkpoint, o_.multiprocessors), static_cast<std::int64_t>(inputs.size()));
  t_.at(layer);
  Tensor out = (*f)(inputs)[0];
  t_.at(-1);
  return out;
}

// apply_ac, and fully_shard around the checkpoint's module.
Tensor Torchtitan::unit(int layer, const Tensor& x) {
  const Tensor given = enter(layer, x);
  const TitanCheckpoint checkpoint = checkpoint_of(layer);
  if (compiles(r_.torchtitan.compile_blocks)) return leave(layer, compiled_block(layer, given, checkpoint));
  if (checkpoint == TitanCheckpoint::none) return leave(layer, block(layer, given));
  CheckpointForm form{.reentrant = false, .early_stop = r_.torchtitan.early_stop};
  // _custom_policy: what attention makes, and every second product
  if (checkpoint == TitanCheckpoint::but_ops) form.keeps = [](CheckpointForm::Op op, int count) { return op == CheckpointForm::Op::attention || count % 2 == 1; };
  return leave(layer, t_.checkpoint([this, layer](const Tensor& in) { return block(layer, in); }, given, std::move(form)));
}

Tensor Torchtitan::model() {
  const bool wraps = r_.torchtitan.wraps_ends();
  enter(UnitHooks::kModel, {});
  const Tensor& ids = ids_.back();
  if (wraps) enter(UnitHooks::kEmbedding, ids);
  Tensor x = t_.embedding(table_, ids, "wte");
  if (wraps) x = leave(UnitHooks::kEmbedding, x);
  for (int layer = 0; layer < static_cast<int>(a_.layers); ++layer) x = unit(layer, x);
  x = t_.rms_norm(wraps ? enter(UnitHooks::kTail, x) : x, final_, "norm");
  const Category before = t_.category();
  t_.category(Category::logits);
  Tensor logits = t_.linear(x, head_, "logits");
  if (wraps) logits = leave(UnitHooks::kTail, logits);
  logits = leave(UnitHooks::kModel, logits);
  t_.category(before);
  return logits;
}

void Torchtitan::load_batch() {
  const Dims d = dims({B, T}, true);
  if (!counted_.defined()) {
    counted_ = t_.empty("loss.count", dims({}, false), Dtype::int64);
    if (r_.world_size == 1) all_counted_ = t_.empty("loss.count", dims({}, false), Dtype::fp32);  // of several it is read to the host
  }
  labels_.reset();  // the loop's name means those on the host by then
  ids_.push_back(t_.empty("batch.ids", d, Dtype::int64));
  labels_ = t_.empty("batch.labels", d, Dtype::int64);
}

Tensor Torchtitan::loss() {
  const Tensor logits = model();  // "pred", until the loss is there
  const Category before = t_.category();
  t_.category(Category::logits);
  Tensor loss = [&] {
    const Tensor rows = t_.view(logits, {B * T, a_.vocab}), labels = t_.view(labels_, {B * T});
    if (!compiles(r_.torchtitan.compile_loss)) return t_.cross_entropy(t_.to(rows, Dtype::fp32, "logits"), labels, "loss.log_probs");
    if (!compiled_loss_) compiled_loss_ = std::make_unique<CompiledFunction>(t_, torchtune_loss(B * T, a_.vocab, logits.dtype(), false), 0);
    return (*compiled_loss_)(std::array{rows, labels})[0];
  }();
  loss = t_.scale(loss, "loss");
  t_.category(before);
  losses_.push_back(t_.detach(loss));
  return loss;
}

void Torchtitan::end_step() {
  ids_.clear();
  losses_.clear();
  labels_.reset();
  counted_.reset();
  all_counted_.reset();
}

}  // namespace dryfit::eager
