// See operator_programs.hpp. Sources: Liger-Kernel b5672a1 (2024-09-03, "0.2.1") and 80f19ad (2026-06-16, "0.8.0"): benchmark/scripts, src/liger_kernel/ops. M, N rows; V vocabulary;
// D, H widths; B batch, T, S lengths.
#include "operator_programs.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <functional>
#include <vector>

#include "base/text.hpp"
#include "passes/eager.hpp"
#include "passes/liger.hpp"
#include "passes/megatron.hpp"
#include "passes/transformer.hpp"

namespace dryfit {

namespace eager {

// What transformers' modules do, by themselves: a model without layers, vocabulary or weights of its own.
struct OperatorsOf {
  OperatorsOf(Tape& t, std::int64_t width, Activation activation, bool liger) : tape(t) {
    a.width = width, a.activation = activation, a.final_norm = false, a.position = Position::none, a.tied_head = true;
    if (liger) r.liger = LigerParts::all();
    model.emplace(t, a, r, ForwardOptions{});
    model->tables_.clear(), model->weights_.clear(), model->outer_ = {};
  }

  Tensor rms_norm(const Tensor& x, const Tensor& w) { return model->normed(x, {w, Tensor()}, "norm", false); }
  Tensor rotated(const Tensor& x, const Tensor& cos, const Tensor& sin) { return model->rotate(x, cos, sin, "rot"); }
  void mlp_weights(std::int64_t ffn, Dtype d) {
    const auto linear = [&](const char* name, std::int64_t out, std::int64_t in) { block.linear[name].weight = tape.parameter(name, dims({out, in}, false), d, true); };
    linear("gate", ffn, a.width);
    linear("up", ffn, a.width);
    linear("down", a.width, ffn);
  }
  Tensor mlp(const Tensor& x) { return model->gated(block, block.mlp, "", x, {"mlp.gate", "mlp.up", "mlp.act", "mlp.product", "mlp.down"}); }

  Tape& tape;
  Architecture a;
  Training r;
  std::optional<Transformer> model;
  Transformer::Block block;
};

}  // namespace eager

namespace {

using namespace eager;
using Gradients = std::vector<Tensor>;
using Sizes = std::map<std::string, std::int64_t>;

constexpr std::array<const char*, 3> kCalls = {"first", "second", "third"};

// (target != ignore_index).sum().item(): booleans are widened to be summed.
void count_targets(Tape& t, const Tensor& targets) {
  const Tensor differs = t.empty("loss.mask", targets.dims(), Dtype::bool8), sum = t.empty("loss.count", dims({}, false), Dtype::int64);
  t.empty("loss.mask", targets.dims(), Dtype::int64);
}

// torch.sum(losses) / count
Tensor mean_of(Tape& t, const Tensor& losses) {
  const Tensor sum = t.sum(losses, 0, "loss");
  return t.scale(sum, "loss");
}

// Is the gradient 1? Beside it another number, and what they are compared in.
void compare_with_one(Tape& t, const Tensor& g) {
  const Tensor one = t.empty("loss", g.dims(), Dtype::fp32);
  t.empty("loss", g.dims(), Dtype::bool8);
}

// -- Liger-Kernel 0.2.1

// LigerCrossEntropyFunction: logits [N, V] become their own gradient in the forward pass.
Tensor cross_entropy_021(Tape& t, const Tensor& logits, const Tensor& targets) {
  Tensor loss;
  {
    const NoGrad inside(t);
    const Tensor losses = t.empty("loss.rows", targets.dims(), logits.dtype());
    count_targets(t, targets);
    loss = mean_of(t, losses);
  }
  return t.function(loss, std::array{logits}, std::array{t.detach(logits)}, "loss", [&t](const Tensor& g, std::vector<Tensor>& saved) {
    compare_with_one(t, g);
    return Gradients{saved[0]};
  });
}

// LigerFusedLinearCrossEntropyFunction. Unlike 0.8.4's (passes/liger.cpp): logits of a chunk are widened, narrowed and scaled into tensors of their own, named until
// the next chunk has its own; their product is copied into the gradient.
Tensor linear_cross_entropy_021(Tape& t, const Tensor& hidden, const Tensor& weight, const Tensor& targets) {
  const std::int64_t N = hidden.dims().size[0], H = hidden.dims().back(), V = weight.dims().size[0];
  Tensor loss, of_weight, of_hidden;
  {
    const NoGrad inside(t);
    const auto rows = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(ceil_div(N, ceil_div(V, H)))));
    of_weight = t.empty("lm_head", weight.dims(), weight.dtype(), Category::gradients);
    of_hidden = t.empty("logits.grad", hidden.dims(), hidden.dtype());
    const Tensor losses = t.empty("loss.rows", targets.dims(), Dtype::fp32);
    count_targets(t, targets);
    Tensor logits, scaled;
    for (std::int64_t begin = 0; begin < N; begin += rows) {
      const std::int64_t n = std::min(rows, N - begin);
      logits = t.matmul(t.slice(hidden, 0, n), t.transpose(weight, 0, 1), "logits");
      count_targets(t, t.slice(targets, 0, n));
      logits = t.to(logits, Dtype::fp32, "logits");
      logits = t.to(logits, hidden.dtype(), "logits");
      scaled = t.scale(logits, "logits");
      t.matmul(scaled, weight, "logits.grad");
    }
    loss = mean_of(t, losses);
  }
  return t.function(loss, std::array{hidden, weight}, std::array{of_hidden, of_weight}, "loss", [&t](const Tensor& g, std::vector<Tensor>& saved) {
    compare_with_one(t, g);
    return Gradients{saved[0], saved[1]};
  });
}

// LigerLayerNormFunction: each multiprocessor sums its rows' share of both weights' gradients.
Tensor layer_norm_021(Tape& t, const Tensor& x, const Tensor& w, const Tensor& b, int multiprocessors) {
  const Dims per_row = dims({x.dims().size[0]}, false);
  const Tensor y = t.empty("norm", x.dims(), x.dtype()), mean = t.empty("norm", per_row, x.dtype()), deviation = t.empty("norm", per_row, x.dtype());
  return t.function(y, std::array{x, w, b}, std::array{x, w, b, mean, deviation}, "norm", [&t, multiprocessors](const Tensor& g, std::vector<Tensor>& saved) {
    const Tensor dx = t.empty("norm", g.dims(), saved[0].dtype());
    const auto shares = [&] { return t.empty("norm", dims({multiprocessors, g.dims().back()}, false), saved[1].dtype()); };
    const Tensor of_weight = shares(), of_bias = shares();
    Tensor dw = t.sum(of_weight, 0, "norm");
    Tensor db = t.sum(of_bias, 0, "norm");
    return Gradients{dx, std::move(dw), std::move(db)};
  });
}

// LigerEmbeddingFunction, and what Inductor makes of nn.Embedding: rows are gathered, their gradients added onto zeros.
Tensor embedding_021(Tape& t, const Tensor& table, const Tensor& ids) {
  const Dims d = ids.dims();
  const Tensor out = t.empty("embedding", dims({d.size[0], d.size[1], table.dims().back()}, false), table.dtype());
  return t.function(out, std::array{table}, std::array{ids, table}, "embedding", [&t](const Tensor&, std::vector<Tensor>& saved) {
    return Gradients{t.empty("embedding", saved[1].dims(), saved[1].dtype(), Category::gradients)};
  });
}

// -- Liger-Kernel 0.8.0

// LigerVocabParallelCEFunction on one GPU: logits [S, B, V] to a loss of each row.
Tensor vocab_parallel_cross_entropy_080(Tape& t, const Tensor& logits, const Tensor& target) {
  const Dims d = logits.dims(), per_row = dims({d.size[0], d.size[1]}, false), flat = dims({per_row.numel()}, false);
  const auto numbers = [&](const char* role) { return t.empty(role, flat, Dtype::fp32); };
  Tensor out, exponentials, sums;
  {
    const NoGrad inside(t);
    const Tensor most = t.to(t.empty("loss.max", per_row, logits.dtype()), Dtype::fp32, "loss.max");
    exponentials = t.empty("logits", dims({flat.numel(), d.back()}, false), Dtype::fp32);
    const Tensor predicted = numbers("loss.predicted");
    sums = numbers("loss.sum");
    const Tensor loss = t.sub(t.scale(sums, "loss.sum"), predicted, "loss");
    const Tensor ignored = t.empty("loss.mask", flat, Dtype::bool8), zeros = numbers("loss");
    out = numbers("loss");
  }
  const Tensor lost = t.function(out, std::array{logits}, std::array{exponentials, sums, target}, "logits", [&t, d, dtype = logits.dtype()](const Tensor& g, std::vector<Tensor>& saved) {
    const Tensor wide = t.contiguous(g, "loss");
    const Tensor narrow = t.to(saved[0], dtype, "logits");
    return Gradients{t.view(narrow, d)};
  });
  return t.view(lost, {d.size[0], d.size[1]});
}

// -- the scripts

struct Script {
  explicit Script(const Target& on, const Sizes& given, bool retains = false)
      : target(on), sizes(given), t(1, {.gpu = {on.multiprocessors, threads_of_multiprocessor(on.compute_major, on.compute_minor)}, .retain_graph = retains}) {
    t.segment("load", "");
    for (const bool inside : {false, true}) t.on_first_product(inside, [this] { workspace(); });
  }
  void workspace() { there.push_back(t.buffer("cublas_workspace", cublas_workspace_bytes(target), Dtype::uint8, Category::workspace)); }

  std::int64_t of(const char* name) const { return sizes.at(name); }
  Tensor trained(const char* role, std::initializer_list<std::int64_t> d, Dtype dtype) { return there.emplace_back(t.parameter(role, dims(d, false), dtype, true)); }
  Tensor given(const char* role, std::initializer_list<std::int64_t> d, Dtype dtype) { return there.emplace_back(t.empty(role, dims(d, false), dtype)); }

  OperatorProgram measure(OperatorCode code, const std::function<void()>& call) {
    int n = 0;
    for (const char* name : kCalls) {
      t.segment(name, "", ++n);
      call();
    }
    return {t.take(), code};
  }

  // y.backward(torch.randn_like(y)), of what `forward` returns
  OperatorProgram measure_with_gradient(OperatorCode code, const std::function<Tensor()>& forward) {
    return measure(code, [&] {
      const Tensor y = forward();
      const Tensor dy = t.empty("gradient", like(y.dims()), y.dtype());
      t.backward(y, dy);
    });
  }

  Target target;
  const Sizes& sizes;
  Tape t;                     // outlives every tensor
  std::vector<Tensor> there;  // throughout
};

constexpr OperatorCode whose(bool liger) { return liger ? OperatorCode::report : OperatorCode::models; }

OperatorProgram cross_entropy(bool liger, const Sizes& sizes, const Target& target) {
  Script s(target, sizes);
  const std::int64_t N = s.of("B") * s.of("T");
  const Tensor logits = s.trained("logits", {N, s.of("V")}, Dtype::fp32), targets = s.given("loss.targets", {N}, Dtype::int64);
  return s.measure(whose(liger), [&] { s.t.backward(liger ? cross_entropy_021(s.t, logits, targets) : s.t.cross_entropy(logits, targets, "loss.log_probs")); });
}

OperatorProgram linear_cross_entropy(bool liger, const Sizes& sizes, const Target& target) {
  Script s(target, sizes);
  const std::int64_t N = s.of("BT"), H = s.of("H"), V = s.of("V");
  const Tensor torch_weight = s.trained("lm_head", {V, H}, Dtype::bf16), liger_weight = s.trained("lm_head", {V, H}, Dtype::bf16);
  const Tensor x = s.trained("x", {N, H}, Dtype::bf16), targets = s.given("loss.targets", {N}, Dtype::int64);
  if (liger) s.workspace();  // autograd's thread has its own since the speed of nn.Linear's gradients was measured
  return s.measure(whose(liger), [&] {
    const Tensor loss = [&] {
      if (liger) return linear_cross_entropy_021(s.t, x, liger_weight, targets);
      const Tensor logits = s.t.linear(x, torch_weight, "logits");
      return s.t.cross_entropy(logits, targets, "loss.log_probs");
    }();
    s.t.backward(loss);
  });
}

OperatorProgram gated_mlp(Activation activation, bool liger, const Sizes& sizes, const Target& target) {
  Script s(target, sizes, true);
  const std::int64_t D = s.of("D");
  const Tensor x = s.trained("x", {s.of("B"), s.of("T"), D}, Dtype::bf16);
  OperatorsOf operators(s.t, D, activation, liger);
  operators.mlp_weights(s.of("F"), Dtype::bf16);
  return s.measure_with_gradient(OperatorCode::models, [&] { return operators.mlp(x); });
}

// Modules of both providers are there, and the gradient that every call is given, over which Liger's RMSNorm writes.
OperatorProgram norm(bool layer_norm, bool liger, const Sizes& sizes, const Target& target) {
  Script s(target, sizes, true);
  const std::int64_t M = s.of("M"), D = s.of("D");
  const Dtype d = layer_norm ? Dtype::fp32 : Dtype::bf16;
  std::array<std::pair<Tensor, Tensor>, 2> modules;
  for (auto& [w, b] : modules) {
    w = s.trained("norm", {D}, Dtype::fp32);
    if (layer_norm) b = s.trained("norm", {D}, Dtype::fp32);
  }
  const auto& [w, b] = modules[0];
  const Tensor x = s.trained("x", {M, D}, d), dy = s.given("gradient", {M, D}, d);
  OperatorsOf operators(s.t, D, Activation::silu, false);
  const auto forward = [&] {
    if (layer_norm) return liger ? layer_norm_021(s.t, x, w, b, target.multiprocessors) : s.t.layer_norm(x, w, b, "norm");
    return liger ? liger_rms_norm(s.t, x, w, true, M, "norm") : operators.rms_norm(x, w);
  };
  return s.measure(whose(liger && layer_norm), [&] {
    const Tensor y = forward();
    s.t.backward(y, dy);
  });
}

// torch.autograd.grad of both outputs at once. The tables were made by a product before.
OperatorProgram rope(bool liger, const Sizes& sizes, const Target& target) {
  Script s(target, sizes, true);
  const std::int64_t T = s.of("T"), H = s.of("heads"), K = s.of("kv_heads"), h = s.of("D") / H;
  const auto turned = [&](const char* role, std::int64_t heads) { return s.there.emplace_back(s.t.transpose(s.given(role, {1, T, heads, h}, Dtype::bf16), 1, 2)); };
  s.given("rotary.inv_freq", {h / 2}, Dtype::fp32);
  const Tensor q = s.t.leaf(turned("q", H)), k = s.t.leaf(turned("k", K)), dq = turned("dq", H), dk = turned("dk", K);
  s.given("positions", {1, T}, Dtype::int64);
  s.t.multiplied();
  const Tensor cos = s.given("rotary.cos", {1, T, h}, Dtype::bf16), sin = s.given("rotary.sin", {1, T, h}, Dtype::bf16);
  OperatorsOf operators(s.t, s.of("D"), Activation::silu, false);
  return s.measure(OperatorCode::models, [&] {
    Tensor q_out, k_out;
    if (liger) {
      std::tie(q_out, k_out) = liger_rotate(s.t, q, k, cos, sin);
    } else {
      const Tensor cosines = s.t.view(cos, {1, 1, T, h}), sines = s.t.view(sin, {1, 1, T, h});
      q_out = operators.rotated(q, cosines, sines);
      k_out = operators.rotated(k, cosines, sines);
    }
    const Tensor both = s.t.function(s.t.detach(dq), std::array{q_out, k_out}, {}, "rot", [&](const Tensor&, std::vector<Tensor>&) { return Gradients{dq, dk}; });
    s.t.backward(both, dq);
    s.t.zero_grad(q);
    s.t.zero_grad(k);
  });
}

OperatorProgram embedding(std::string_view provider, const Sizes& sizes, const Target& target) {
  Script s(target, sizes);
  const std::int64_t V = s.of("V"), D = s.of("D");
  const Tensor torch_table = s.trained("embedding", {V, D}, Dtype::fp32), liger_table = s.trained("embedding", {V, D}, Dtype::fp32);
  const Tensor ids = s.given("ids", {s.of("B"), s.of("T")}, Dtype::int64);
  const bool torch = provider == "huggingface";
  return s.measure_with_gradient(whose(!torch), [&] { return torch ? s.t.embedding(torch_table, ids, "embedding") : embedding_021(s.t, provider == "liger" ? liger_table : torch_table, ids); });
}

OperatorProgram megatron_cross_entropy(std::string_view provider, const Sizes& sizes, const Target& target) {
  Script s(target, sizes);
  const std::int64_t S = s.of("S"), B = s.of("B");
  const Tensor logits = s.trained("logits", {S, B, s.of("V")}, Dtype::bf16), targets = s.given("loss.targets", {S, B}, Dtype::int64);
  const bool liger = provider == "liger";
  return s.measure(whose(liger), [&] {
    s.t.zero_grad(logits);
    const Tensor y = liger ? vocab_parallel_cross_entropy_080(s.t, logits, targets) : vocab_parallel_cross_entropy(s.t, logits, provider == "megatron-fused");
    const Tensor sum = s.t.sum(s.t.view(y, {S * B}), 0, "loss");
    s.t.backward(sum);
  });
}

}  // namespace

Result<OperatorProgram> operator_program(std::string_view operation, std::string_view provider, const Sizes& sizes, const Target& target) {
  struct Operation { std::string_view name, providers; std::vector<const char*> sizes; };
  static const std::array<Operation, 9> kOperations = {{
      {"cross_entropy", "liger huggingface", {"B", "T", "V"}},
      {"embedding", "liger huggingface torch_compile", {"B", "T", "V", "D"}},
      {"fused_linear_cross_entropy", "liger huggingface", {"BT", "H", "V"}},
      {"geglu", "liger huggingface", {"B", "T", "D", "F"}},
      {"layer_norm", "liger huggingface", {"M", "D"}},
      {"megatron_cross_entropy", "liger megatron-fused megatron-unfused", {"S", "B", "V"}},
      {"rms_norm", "liger huggingface", {"M", "D"}},
      {"rope", "liger huggingface", {"T", "D", "heads", "kv_heads"}},
      {"swiglu", "liger huggingface", {"B", "T", "D", "F"}},
  }};
  const auto known = std::ranges::find(kOperations, operation, &Operation::name);
  if (known == kOperations.end()) return fail("bad_row", "no operator " + std::string(operation), "see operator_program", "operator");
  const auto providers = split(known->providers, ' ');
  if (std::ranges::find(providers, provider) == providers.end()) return fail("bad_row", "no " + std::string(operation) + " of " + std::string(provider), "it is of " + std::string(known->providers), "provider");
  for (const char* name : known->sizes) {
    if (!sizes.contains(name)) return fail("bad_row", std::string(operation) + " without " + name, "its size in NAME=NUMBER", "sizes");
  }
  const bool liger = provider == "liger";
  if (operation == "cross_entropy") return cross_entropy(liger, sizes, target);
  if (operation == "embedding") return embedding(provider, sizes, target);
  if (operation == "fused_linear_cross_entropy") return linear_cross_entropy(liger, sizes, target);
  if (operation == "geglu") return gated_mlp(Activation::gelu_tanh, liger, sizes, target);
  if (operation == "layer_norm") return norm(true, liger, sizes, target);
  if (operation == "megatron_cross_entropy") return megatron_cross_entropy(provider, sizes, target);
  if (operation == "rms_norm") return norm(false, liger, sizes, target);
  if (operation == "rope") return rope(liger, sizes, target);
  return gated_mlp(Activation::silu, liger, sizes, target);
}

}  // namespace dryfit
