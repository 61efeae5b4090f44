// Forward ops of the eager engine: what each allocates and what autograd saves. Sources: tools/autograd/derivatives.yaml,
// aten/src/ATen/native/{Linear,LinearAlgebra,Dropout,TensorShape}.cpp, autocast_mode.h (torch 2.9). N tokens, T length, h head size.
#include <algorithm>
#include <array>

#include "passes/eager.hpp"
#include "passes/efficient_attention.hpp"

namespace dryfit::eager {

namespace {

bool is_float(Dtype d) { return d == Dtype::fp32 || d == Dtype::bf16 || d == Dtype::fp16; }
bool is_half(Dtype d) { return d == Dtype::bf16 || d == Dtype::fp16; }

// Type promotion between tensors of at least one dimension.
Dtype promoted(Dtype a, Dtype b) {
  if (a == b) return a;
  if (!is_float(a)) return b;
  if (!is_float(b)) return a;
  return Dtype::fp32;
}

}  // namespace

// -- views

Tensor Tape::view(const Tensor& x, Dims to) {
  to.batched = x.dims().batched;
  const auto strided = viewed(x.dims(), to);
  Tensor out = view_of(x, strided ? *strided : eager::contiguous(to));
  return attach(std::move(out), record(Rule::view, {x}, node_role(x)));
}

Tensor Tape::view(const Tensor& x, std::initializer_list<std::int64_t> sizes) { return view(x, eager::dims(sizes, x.dims().batched)); }

Tensor Tape::transpose(const Tensor& x, int a, int b) {
  Tensor out = attach(view_of(x, swapped(x.dims(), a, b)), record(Rule::transpose, {x}, node_role(x)));
  if (value(out).node >= 0) node(value(out).node).detail = (a < 0 ? a + x.dims().rank : a) * 8 + (b < 0 ? b + x.dims().rank : b);
  return out;
}

Tensor Tape::expand(const Tensor& x, Dims to) {
  Tensor out = view_of(x, expanded(x.dims(), to));
  value(out).dims.batched = to.batched || x.dims().batched;  // what is one for all sequences is then there for each
  return attach(std::move(out), record(Rule::pass, {x}, node_role(x)));
}

Tensor Tape::slice(const Tensor& x, int dim, std::int64_t length, bool fixed) {
  Dims d = narrowed(x.dims(), dim, length);
  d.batched = d.batched && !fixed;
  return attach(view_of(x, d), record(Rule::slice, {x}, node_role(x)));
}

std::vector<Tensor> Tape::split(const Tensor& x, int dim, std::span<const std::int64_t> lengths) {
  const std::int32_t n = record(Rule::split, {x}, node_role(x));
  if (n >= 0) {
    node(n).detail = static_cast<std::int64_t>(cuts_.size());
    cuts_.push_back({dim < 0 ? dim + x.dims().rank : dim, {lengths.begin(), lengths.end()}});
  }
  std::vector<Tensor> out;
  for (std::size_t i = 0; i < lengths.size(); ++i) out.push_back(attach(view_of(x, narrowed(x.dims(), dim, lengths[i])), n, static_cast<int>(i)));
  return out;
}

Tensor Tape::detach(const Tensor& x) { return alias(x, x.dims()); }

const char* Tape::node_role(const Tensor& x) const { return p_.tensors[static_cast<std::size_t>(value(x).storage)].role; }

Tensor Tape::reshape(const Tensor& x, Dims to, const char* role) {
  if (viewed(x.dims(), to)) return view(x, to);
  return view(contiguous_copy(x, role), to);
}

// clone(memory_format=contiguous): the copy that reshape and contiguous() make.
Tensor Tape::contiguous_copy(const Tensor& x, const char* role) { return copy_result(x, eager::contiguous(x.dims()), role); }

Tensor Tape::copy_result(const Tensor& x, Dims d, const char* role) {
  Tensor out = empty(role, d, x.dtype());
  return attach(std::move(out), record(Rule::pass, {x}, role));
}

// repeat() along the batch, of one row: written into what is there. Its gradient is summed.
Tensor Tape::repeated(const Tensor& x, std::int64_t times, const char* role) {
  Dims d = x.dims();
  d.size[0] *= times;
  d.batched = true;
  return copy_result(x, eager::contiguous(d), role);
}

Tensor Tape::contiguous(const Tensor& x, const char* role) { return is_contiguous(x.dims()) ? x : contiguous_copy(x, role); }

Tensor Tape::clone(const Tensor& x, const char* role) { return copy_result(x, like(x.dims()), role); }

Tensor Tape::to(const Tensor& x, Dtype d, const char* role) {
  if (x.dtype() == d) return x;
  Tensor out = empty(role, like(x.dims()), d);
  return attach(std::move(out), record(Rule::pass, {x}, role));
}

// -- pointwise

Tensor Tape::pointwise(std::span<const Tensor> inputs, const char* role, std::optional<Dtype> out) {
  std::array<Dims, 4> shapes;
  std::optional<Dtype> dtype;  // tensors without dimensions have no say beside others
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    shapes[i] = inputs[i].dims();
    if (shapes[i].rank > 0) dtype = dtype ? promoted(*dtype, inputs[i].dtype()) : inputs[i].dtype();
  }
  return empty(role, pointwise_result(std::span(shapes).first(inputs.size())), out ? *out : dtype.value_or(inputs[0].dtype()));
}

Tensor Tape::add(const Tensor& a, const Tensor& b, const char* role) {
  Tensor out = pointwise(std::array{a, b}, role);
  return attach(std::move(out), record(Rule::pass, {a, b}, role));
}

Tensor Tape::sub(const Tensor& a, const Tensor& b, const char* role) {
  Tensor out = pointwise(std::array{a, b}, role);
  return attach(std::move(out), record(Rule::negate_second, {a, b}, role));
}

Tensor Tape::mul(const Tensor& a, const Tensor& b, const char* role) {
  const std::int32_t n = record(Rule::product, {a, b}, role);
  save_other(n, a, b);
  return attach(pointwise(std::array{a, b}, role), n);
}

// Of a product, each operand is saved when the other one wants a gradient; before the result is made, as autograd does.
void Tape::save_other(std::int32_t n, const Tensor& a, const Tensor& b) {
  if (n < 0) return;
  if (wants(n, 0)) save(n, b);
  if (wants(n, 1) || (linear_saves_input_ && in_linear_)) save(n, a);
}

Tensor Tape::scale(const Tensor& x, const char* role) {
  Tensor out = pointwise(std::array{x}, role);
  return attach(std::move(out), record(Rule::scale, {x}, role));
}

Tensor Tape::shift(const Tensor& x, const char* role) {
  Tensor out = pointwise(std::array{x}, role);
  return attach(std::move(out), record(Rule::pass, {x}, role));
}

Tensor Tape::unary(const Tensor& x, Keep keep, const char* role, std::optional<Dtype> dtype) {
  const std::int32_t n = record(Rule::scale, {x}, role);
  if (keep == Keep::input) save(n, x);
  Tensor out = empty(role, like(x.dims()), dtype.value_or(x.dtype()));
  if (keep == Keep::result) save(n, out);
  return attach(std::move(out), n);
}

Tensor Tape::softmax(const Tensor& x, const char* role, std::optional<Dtype> out) {
  const Dtype made = out.value_or(autocast_ && is_half(x.dtype()) ? Dtype::fp32 : x.dtype());
  return unary(x.dtype() == Dtype::bf16 ? to(x, made, role) : x, Keep::result, role, made);  // SoftMax.cpp: of 16-bit dtypes the kernel itself widens fp16 alone
}

// SoftMax.cu takes rows that lie one after the other.
Tensor Tape::log_softmax(const Tensor& given, const char* role) {
  const Tensor x = full_precision(given, role);
  const Tensor rows = contiguous_inside(x, "loss.rows");
  return unary(x, Keep::result, role);
}

Tensor Tape::add_in_place(const Tensor& a, const Tensor& b) { return attach(alias(a, a.dims()), record(Rule::pass, {a, b}, node_role(a))); }

Tensor Tape::leaf(const Tensor& x) {
  Tensor out = alias(x, x.dims());
  value(out).requires_grad = true;
  value(out).leaf = static_cast<std::int32_t>(leaves_.size());
  leaves_.emplace_back().storage = value(out).storage;
  return out;
}

Tensor Tape::power(const Tensor& given, const char* role) {
  const Tensor x = full_precision(given, role);
  const std::int32_t n = record(Rule::power, {x}, role);
  save(n, x);
  return attach(pointwise(std::array{x}, role), n);
}

Tensor Tape::rsqrt(const Tensor& given, const char* role) {
  const Tensor x = full_precision(given, role);
  Tensor out = pointwise(std::array{x}, role);
  const std::int32_t n = record(Rule::rsqrt, {x}, role);
  save(n, out);
  return attach(std::move(out), n);
}

Tensor Tape::mean_last(const Tensor& x, const char* role) {
  Dims d = x.dims();
  d.size[d.rank - 1U] = 1;
  Tensor out = empty(role, eager::contiguous(d), x.dtype());
  return attach(std::move(out), record(Rule::mean, {x}, role));
}

Tensor Tape::masked(const Tensor& x, const Tensor& mask, const char* role) {
  const std::int32_t n = record(Rule::scale, {x}, role);
  save(n, mask);
  return attach(pointwise(std::array{x}, role), n);
}

// In place: what was there is gone, and the gradient is a new tensor all the same.
Tensor Tape::masked_in_place(const Tensor& x, const Tensor& mask) {
  const std::int32_t n = record(Rule::scale, {x}, node_role(x));
  save(n, mask);
  return attach(alias(x, x.dims()), n);
}

Tensor Tape::sum(const Tensor& x, int dim, const char* role, std::optional<Dtype> dtype) {
  Dims d = x.dims();
  for (int i = dim; i + 1 < d.rank; ++i) d.size[static_cast<std::size_t>(i)] = d.size[static_cast<std::size_t>(i) + 1];
  --d.rank;
  d.size[d.rank] = 0;
  Tensor out = summed(x, d, role, dtype);
  return attach(std::move(out), record(Rule::sum, {x}, role));
}

Tensor Tape::cat(std::span<const Tensor> parts, int dim, const char* role, std::optional<Dtype> dtype) {
  Dims d = parts[0].dims();
  const auto axis = static_cast<std::size_t>(dim < 0 ? dim + d.rank : dim);
  for (std::size_t i = 1; i < parts.size(); ++i) d.size[axis] += parts[i].dims().size[axis];
  Tensor out = empty(role, eager::contiguous(d), dtype.value_or(parts[0].dtype()));
  const std::int32_t n = record(Rule::cat, parts, role);
  return attach(std::move(out), n);
}

// -- products

// Autocast: inputs of products are cast; the copy of a parameter that trains is kept until the outermost context ends.
Tensor Tape::cast_input(const Tensor& x) {
  if (!autocast_ || !x.defined() || x.dtype() == *autocast_ || !is_float(x.dtype())) return x;
  const std::int32_t storage = value(x).storage;  // kept apart: making the copy may move all values
  const std::int32_t leaf = value(x).leaf;
  const bool cached = leaf >= 0 && !leaves_[static_cast<std::size_t>(leaf)].made && x.dtype() == Dtype::fp32;
  if (!cached) return to(x, *autocast_, node_role(x));
  for (const Cast& c : casts_) {
    if (c.storage == storage) return c.copy;
  }
  const Category before = category_;
  category_ = Category::weights;
  Tensor copy = to(x, *autocast_, node_role(x));
  category_ = before;
  casts_.push_back({storage, copy});
  return copy;
}

Tensor Tape::full_precision(const Tensor& x, const char* role) { return autocast_ && is_half(x.dtype()) ? to(x, Dtype::fp32, role) : x; }

Tensor Tape::mm(const Tensor& a, const Tensor& b, const char* role, const Tensor& bias) {
  const Dims da = a.dims(), db = b.dims();
  const std::int32_t n = record(Rule::matmul, {a, b, bias}, role);
  save_other(n, a, b);
  if (n >= 0 && bias.defined()) std::ranges::reverse(node(n).saved);  // addmm's go as they are named, mat1 and mat2; mm's are mat2 and self
  if (std::vector<Tensor> kept = kept_results(CheckpointForm::Op::product); !kept.empty()) return attach(std::move(kept[0]), n);
  Tensor out = empty(role, eager::dims({da.size[0], db.size[1]}, da.batched), a.dtype());
  multiplied();
  keep_results(CheckpointForm::Op::product, {out});
  if (n >= 0 && bias.defined()) node(n).detail = 1;
  if (bias.defined()) run_once(first_biased_[ready_ != nullptr ? 1 : 0]);
  return attach(std::move(out), n);
}

Tensor Tape::bmm(const Tensor& a, const Tensor& b, const char* role) {
  const Dims da = a.dims(), db = b.dims();
  const std::int32_t n = record(Rule::matmul, {a, b, Tensor()}, role);
  save_other(n, a, b);
  Tensor out = empty(role, eager::dims({da.size[0], da.size[1], db.size[2]}, da.batched), a.dtype());
  multiplied();
  return attach(std::move(out), n);
}

// at::matmul: n x 2 folds the left side into rows, by a copy where it must and the right side wants a gradient, else by repeating that (should_fold,
// aten/src/ATen/native/LinearAlgebra.cpp; where gradients are off a checkpoint of the newer form has them on); 4 x 4 joins the first two dimensions, copying where they cannot be joined.
Tensor Tape::matmul(const Tensor& given_a, const Tensor& given_b, const char* role) {
  const Tensor b = cast_input(given_b), a = cast_input(given_a);  // autocast's wrapper casts its last argument first
  const Dims da = a.dims(), db = b.dims();
  if (da.rank == 2) return mm(a, b, role);
  if (db.rank == 2) {
    Dims out = da;
    out.size[da.rank - 1U] = db.size[1];
    const Dims folded = eager::dims({da.numel() / da.back(), da.back()}, da.batched);
    if (da.rank == 3 && grad_ && !b.requires_grad() && !viewed(da, folded)) return bmm(a, expand(view(b, {1, db.size[0], db.size[1]}), eager::dims({da.size[0], db.size[0], db.size[1]}, da.batched)), role);
    const Tensor rows = reshape(a, folded, role);
    return view(mm(rows, b, role), out);
  }
  if (da.rank == 3) return bmm(a, b, role);
  const std::int64_t count = da.size[0] * da.size[1];
  const Tensor x = reshape(a, eager::dims({count, da.size[2], da.size[3]}, da.batched), role);
  const Tensor y = reshape(b, eager::dims({count, db.size[2], db.size[3]}, db.batched), role);
  return view(bmm(x, y, role), {da.size[0], da.size[1], da.size[2], db.size[3]});
}

// at::linear: a bias makes it addmm on the flattened input; without one it is matmul with the transposed weight.
Tensor Tape::linear(const Tensor& given, const Tensor& weight, const char* role, const Tensor& given_bias) {
  const Tensor bias = cast_input(given_bias), w = cast_input(weight), x = cast_input(given);  // autocast's wrapper casts its last argument first
  in_linear_ = true;
  Tensor y = linear_product(x, w, role, bias);
  in_linear_ = false;
  return y;
}

Tensor Tape::linear_product(const Tensor& x, const Tensor& w, const char* role, const Tensor& bias) {
  const Dims d = x.dims();
  if (!bias.defined()) return matmul(x, transpose(w, 0, 1), role);
  Dims out = d;
  out.size[d.rank - 1U] = w.dims().size[0];
  if (!is_contiguous(d) && d.rank != 2) return add(matmul(x, transpose(w, 0, 1), role), bias, role);
  const Tensor rows = d.rank == 2 ? x : view(x, {d.numel() / d.back(), d.back()});
  const Tensor y = mm(rows, transpose(w, 0, 1), role, bias);
  return d.rank == 2 ? y : view(y, out);
}

Tensor Tape::conv1d(const Tensor& rows, const Tensor& w, const Tensor& bias, const char* role) {
  const Tensor second = cast_input(w), first = cast_input(rows), added = cast_input(bias);  // addmm(bias, rows, w), the last argument first
  return mm(first, second, role, added);
}

Tensor Tape::convolution(const Tensor& given, const Tensor& weight, Dims out, const char* role) {
  const Tensor x = cast_input(given), w = cast_input(weight);
  const std::int32_t n = record(Rule::matmul, {x, w, Tensor()}, role);
  save_other(n, x, w);
  return attach(empty(role, eager::contiguous(out), x.dtype()), n);
}

// -- rows

Tensor Tape::index_copy(const Tensor& into, const Tensor& index, const Tensor& rows) {
  const std::int32_t n = record(Rule::index_add, {into, rows}, node_role(into));
  save(n, index);
  if (n >= 0 && wants(n, 1)) save(n, rows);  // for its sizes
  return attach(empty(node_role(into), like(into.dims()), into.dtype()), n);
}

Tensor Tape::index_put(const Tensor& into, const Tensor& index, const Tensor& rows) {
  const std::int32_t n = record(Rule::index_add, {into, rows}, node_role(into));
  save(n, index);
  return attach(alias(into, into.dims()), n);
}

Tensor Tape::index_add(const Tensor& into, const Tensor& index, const Tensor& rows) {
  const std::int32_t n = record(Rule::index_add, {into, rows}, node_role(into));
  save(n, index);
  if (n >= 0 && wants(n, 1)) save(n, rows);  // for its sizes
  return attach(alias(into, into.dims()), n);
}

Tensor Tape::embedding(const Tensor& table, const Tensor& ids, const char* role) {
  Dims d = ids.dims();
  d.size[d.rank++] = table.dims().size[1];
  Tensor out = empty(role, eager::contiguous(d), table.dtype());
  const std::int32_t n = record(Rule::embedding, {table}, role);
  save(n, ids);
  return attach(std::move(out), n);
}

Tensor Tape::gather(const Tensor& x, const Tensor& index, Dims out_dims, const char* role) {
  const std::int32_t n = record(Rule::gather, {x}, role);
  save(n, index);
  return attach(empty(role, out_dims, x.dtype()), n);
}

Tensor Tape::index(const Tensor& x, const Tensor& index, Dims out_dims, const char* role, const Tensor& second) {
  Tensor out = gather(x, index, out_dims, role);
  const std::int32_t n = value(out).node;
  if (n >= 0) node(n).detail = 1;
  if (second.defined()) save(n, second);
  return out;
}

Tensor Tape::in_graph(const Tensor& made, const Tensor& x, Dtype d) {
  const std::int32_t n = record(Rule::pass, {x}, node_role(made));
  Tensor out = alias(made, made.dims());
  value(out).dtype = d;
  return attach(std::move(out), n);
}

Tensor Tape::dropout(const Tensor& x, double p, const char* role, std::optional<Dtype> made) {
  if (p <= 0 || !training_) return x;
  const Tensor mask = empty(role, like(x.dims()), Dtype::bool8);
  Tensor out = empty(role, like(x.dims()), made.value_or(x.dtype()));
  value(out).dtype = x.dtype();
  const std::int32_t n = record(Rule::scale, {x}, role);
  save(n, mask);
  return attach(std::move(out), n);
}

// -- norms

// A copy that an op makes for itself where its input is not contiguous: autograd keeps what it was given.
Tensor Tape::contiguous_inside(const Tensor& x, const char* role) { return is_contiguous(x.dims()) ? Tensor() : scratch(role, eager::contiguous(x.dims()), x.dtype()); }

Tensor Tape::layer_norm(const Tensor& given, const Tensor& w, const Tensor& b, const char* role) {
  const Tensor x = full_precision(given, role);
  const Tensor weight = w.defined() ? full_precision(w, role) : w, bias = b.defined() ? full_precision(b, role) : b;
  const Tensor rows = contiguous_inside(x, role);
  Dims row = x.dims();
  row.size[row.rank - 1U] = 1;
  row = eager::contiguous(row);
  Tensor out = empty(role, eager::contiguous(x.dims()), x.dtype());
  const Tensor mean = empty(role, row, Dtype::fp32), rstd = empty(role, row, Dtype::fp32);
  const std::int32_t n = record(Rule::layer_norm, {x, weight, bias}, role);
  for (const Tensor* t : std::initializer_list<const Tensor*>{&x, &mean, &rstd, &weight, &bias}) {
    if (t->defined()) save(n, *t);
  }
  return attach(std::move(out), n);
}

Tensor Tape::rms_norm(const Tensor& x, const Tensor& w, const char* role) {
  Dims row = x.dims();
  row.size[row.rank - 1U] = 1;
  Tensor out = empty(role, eager::contiguous(x.dims()), x.dtype());
  const Tensor rstd = empty(role, eager::contiguous(row), Dtype::fp32);
  const std::int32_t n = record(Rule::rms_norm, {x, w}, role);
  for (const Tensor* t : std::initializer_list<const Tensor*>{&x, &rstd, &w}) {
    if (t->defined()) save(n, *t);
  }
  return attach(std::move(out), n);
}

// -- attention and loss

// constant_pad_nd
Tensor Tape::padded(const Tensor& x, std::int64_t multiple, const char* role) {
  Dims d = x.dims();
  d.size[d.rank - 1U] = round_up(d.back(), multiple);
  Tensor out = empty(role, eager::contiguous(d), x.dtype());
  return attach(std::move(out), record(Rule::pad, {x}, role));
}

Tensor Tape::attention(Attention kind, const Tensor& given_q, const Tensor& given_k, const Tensor& given_v, const Tensor& mask, double dropout, const char* role, const Tensor& ends) {
  const Tensor v = cast_input(given_v), k = cast_input(given_k), q = cast_input(given_q);
  const Dims d = q.dims();
  const std::int64_t B = d.size[0], H = d.size[1], T = d.size[2];
  if (kind == Attention::flash && d.back() % 8 != 0) {  // attention.cpp, pad_last_dim and post_process_flash_output
    const Tensor q_padded = padded(q, 8, "attn.q_padded"), k_padded = padded(k, 8, "attn.k_padded"), v_padded = padded(v, 8, "attn.v_padded");
    return slice(attention(kind, q_padded, k_padded, v_padded, mask, dropout, role), -1, d.back());
  }
  Tensor out, lse, seed, offset;
  const std::vector<Tensor> kept = kept_results(CheckpointForm::Op::attention);
  if (kept.empty()) {
    // kernels write [B, T, H, h of values]; what they return is its transpose
    Dims written = swapped(d, 1, 2);
    const bool own = kind == Attention::efficient || kind == Attention::fa3;  // one like q elsewhere
    written.size[3] = v.dims().back();
    if (own) written = eager::contiguous(written);
    out = empty(role, swapped(like(written), 1, 2), q.dtype());
    const std::int64_t rows = kind == Attention::efficient ? round_up(T, 32) : T;
    const bool asks = kind == Attention::efficient || kind == Attention::cudnn;  // should_compute_logsumexp
    if (!(asks && evaluates_)) lse = empty("attn.lse", eager::dims({B, H, rows}, d.batched), Dtype::fp32);
    if (kind == Attention::fa3) const Tensor turns = scratch("attn.semaphore", eager::dims({1 + 4 * round_up(sequences_, 4)}, false), Dtype::int32);  // of its scheduler
    if (kind == Attention::efficient) {
      const std::int64_t sums = efficient_sums({B, H, T, k.dims().size[2], d.back(), v.dims().back(), q.dtype()});
      if (sums > 0) const Tensor accumulated = scratch("attn.out_sums", eager::dims({B, sums / B}, d.batched), Dtype::uint8);
    }
    if (kind == Attention::flash || kind == Attention::cudnn || (kind == Attention::efficient && !options_.host_seeds)) {
      seed = kind == Attention::flash ? empty("attn.seed", eager::dims({2}, false), Dtype::int64) : empty("attn.seed", eager::dims({}, false), Dtype::int64);
      offset = empty("attn.offset", eager::dims({}, false), Dtype::int64);
    }
    keep_results(CheckpointForm::Op::attention, {out, lse, seed, offset});
  } else {
    out = kept[0], lse = kept[1], seed = kept[2], offset = kept[3];
  }
  const std::int32_t n = record(Rule::attention, {q, k, v}, role);
  for (const Tensor* t : std::initializer_list<const Tensor*>{&mask, &k, &q, &v, &lse, &out, &offset, &seed, &ends}) {  // let go in this order: of the alphabet, inputs before results
    if (t->defined()) save(n, *t);
  }
  if (n >= 0) node(n).detail = static_cast<std::int64_t>(kind) * 4 + (mask.defined() ? 1 : 0) + (dropout > 0 ? 2 : 0);
  if (kept.empty()) tell_attention(kind, mask.defined(), std::array{described(q), described(k), described(v)}, role, false);
  else asked_.open = false;
  return attach(std::move(out), n);
}

// log_softmax keeps its result, nll_loss the same tensor: log-probabilities, targets and a scalar are saved.
Tensor Tape::cross_entropy(const Tensor& logits, const Tensor& targets, const char* role, bool mean) {
  const Tensor log_probs = unary(logits, Keep::result, role);
  const Tensor up = full_precision(log_probs, role);
  Tensor loss = empty("loss", mean ? eager::dims({}, false) : targets.dims(), up.dtype());
  const Tensor weight = empty("loss.total_weight", eager::dims({}, false), up.dtype());
  const std::int32_t n = record(Rule::nll, {up}, role);
  for (const Tensor* t : std::initializer_list<const Tensor*>{&up, &targets, &weight}) save(n, *t);
  return attach(std::move(loss), n);
}

// What a selective checkpoint kept of the op that comes now, when its block runs again; then nothing of it is computed.
std::vector<Tensor> Tape::kept_results(CheckpointForm::Op op) {
  if (selecting_ == nullptr) return {};
  Selection& s = *selecting_;
  const auto kind = static_cast<std::size_t>(op);
  s.now = s.keeps(op, ++s.counts[kind]);
  if (!s.again || !s.now) return {};
  std::vector<Tensor> out = std::move(s.kept[kind].front());
  s.kept[kind].pop_front();
  asked_.open = false;
  return out;
}

void Tape::keep_results(CheckpointForm::Op op, std::initializer_list<Tensor> results) {
  if (selecting_ == nullptr || selecting_->again || !selecting_->now) return;
  std::vector<Tensor>& kept = selecting_->kept[static_cast<std::size_t>(op)].emplace_back();
  for (const Tensor& t : results) kept.push_back(t.defined() ? alias(t, t.dims()) : Tensor());
}

Tensor Tape::checkpoint(std::function<Tensor(const Tensor&)> block, const Tensor& x, CheckpointForm form) {
  if (!grad_ || (form.reentrant && !x.requires_grad())) return block(x);
  Saved leaving;
  if (offloads_) {  // before the block runs, after the empty tensor for whose sake there is a node
    ++packed_;
    keep_storage(value(x).storage);
    leaving = packed({value(x).dims, value(x).storage, value(x).dtype});
  }
  std::shared_ptr<Selection> selection;
  if (form.keeps) selection = std::make_shared<Selection>(Selection{.keeps = std::move(form.keeps), .kept = {}});
  grad_ = false;
  unrecorded_ = false;
  Selection* const outer = std::exchange(selecting_, selection.get());
  Tensor out = block(x);
  selecting_ = outer;
  grad_ = true;
  // the newer form runs again for what trains inside, too, whatever it is given
  if (!x.requires_grad() && !unrecorded_ && !offloads_) return out;
  const std::int32_t n = record(Rule::checkpoint, std::array{x}, node_role(x), true);
  if (offloads_) node(n).saved.push_back(leaving);
  else save(n, x);
  if (n >= 0) {
    node(n).autocast = autocast_;
    node(n).call = static_cast<std::int32_t>(blocks_.size());
    node(n).detail = form.reentrant ? 1 : 0;
    blocks_.push_back({std::move(block), form.early_stop, std::move(selection), std::move(form.gives)});
  }
  return attach(alias(out, out.dims()), n);
}

Tensor Tape::function(const Tensor& out, std::span<const Tensor> inputs, std::span<const Tensor> kept, const char* role, Backward backward) {
  return function(std::array{out}, inputs, kept, role, [backward = std::move(backward)](std::span<const Tensor> g, std::vector<Tensor>& saved) { return backward(g[0], saved); })[0];
}

std::vector<Tensor> Tape::function(std::span<const Tensor> outs, std::span<const Tensor> inputs, std::span<const Tensor> kept, const char* role, BackwardOfAll backward) {
  std::vector<Tensor> made(outs.begin(), outs.end());
  const std::int32_t n = record(Rule::function, inputs, role);
  if (n < 0) return made;
  for (const Tensor& t : kept) {
    if (t.defined()) save(n, t);
  }
  node(n).call = static_cast<std::int32_t>(functions_.size());
  node(n).detail = static_cast<std::int64_t>(outs.size());
  functions_.push_back(std::move(backward));
  for (std::size_t i = 0; i < outs.size(); ++i) made[i] = attach(alias(outs[i], outs[i].dims()), n, static_cast<int>(i));
  return made;
}

Tensor Tape::graph_only(const Tensor& x) {
  Value v = value(x);
  v.storage = -1;
  return wrap(v);
}

Tensor Tape::hook(const Tensor& x, std::function<void()> call) {
  const std::int32_t n = record(Rule::hook, {x}, node_role(x));
  if (n >= 0) {
    node(n).call = static_cast<std::int32_t>(hooks_.size());
    hooks_.push_back(std::move(call));
  }
  return attach(alias(x, x.dims()), n);
}

Tensor Tape::scratch(const char* role, Dims d, Dtype dtype) { return empty(role, d, dtype, Category::workspace); }

}  // namespace dryfit::eager
