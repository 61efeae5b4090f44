// nanochat's model and run from its flags: shapes, parameters in nanochat's order, defaults by version, the rules that make a
// triple of batch, total and GPUs legal. Source: scripts/base_train.py and nanochat/gpt.py at the version's commit.
#include <algorithm>
#include <cmath>

#include "base/text.hpp"
#include "workload/nanochat_flags.hpp"
#include "workload/scripts.hpp"
#include "workload/rollouts.hpp"

namespace dryfit {

namespace {

constexpr std::int64_t kMaxDepth = 512, kMaxWidth = 1 << 17, kMaxVocab = 1 << 24, kMaxSeqLen = 1 << 22, kMaxBatch = 1 << 20, kMaxGpus = 65536;
constexpr std::int64_t kMaxTotal = std::int64_t{1} << 40;

std::unexpected<Error> out_of_range(std::string_view flag, std::int64_t value, std::int64_t low, std::int64_t high) {
  return fail("bad_value", std::string(flag) + " " + std::to_string(value) + " is out of range",
              "use a value from " + std::to_string(low) + " to " + std::to_string(high), std::string(flag));
}

constexpr const char* kInherited = "inherited from the base run, taken at its default";
bool inherits(const Workload& w) { return w.run.script == Script::chat_sft && w.model.version.sft == NanochatVersion::Sft::inherits; }

// What is being worked out: the workload so far, with helpers that read a flag or say its default.
struct Draft {
  const WorkloadFlags& flags;
  Workload workload;

  Result<std::int64_t> value(const std::optional<std::int64_t>& given, std::string_view flag, std::string_view key, std::int64_t fallback,
                             std::int64_t low, std::int64_t high, const char* source = "nanochat default") {
    if (!given) {
      workload.assumptions.push_back({std::string(key), std::to_string(fallback), source});
      return fallback;
    }
    if (*given < low || *given > high) return out_of_range(flag, *given, low, high);
    return *given;
  }
};

// E2 to E4: the head count nearest to width/head_dim that divides the width (Python's round: halves to even).
std::int64_t dividing_heads(std::int64_t width, std::int64_t head_dim) {
  const std::int64_t ideal = std::max<std::int64_t>(1, std::llrint(static_cast<double>(width) / static_cast<double>(head_dim)));
  for (std::int64_t offset = 0; offset < width; ++offset) {
    for (std::int64_t candidate : {ideal + offset, ideal - offset}) {
      if (candidate > 0 && width % candidate == 0) return candidate;
    }
  }
  return 1;
}

Result<void> set_shapes(Draft& draft) {
  Model& m = draft.workload.model;
  const NanochatVersion& version = m.version;
  for (const auto& [given, flag] : {std::pair{draft.flags.head_dim.value_or(128) != 128, "--head-dim"}, std::pair{draft.flags.aspect_ratio.value_or(64) != 64, "--aspect-ratio"}}) {
    if (given && !version.shape_flags) return fail("bad_value", "nanochat " + version.epoch + " has no " + flag, "leave it out, or use --nanochat E2 or later", flag);
  }
  const auto head_dim = draft.value(draft.flags.head_dim, "--head-dim", "head_dim", 128, 8, 512);
  if (!head_dim) return std::unexpected(head_dim.error());
  if (*head_dim % 8 != 0) return fail("bad_value", "--head-dim " + std::to_string(*head_dim) + " is not a multiple of 8", "use 64, 96 or 128", "--head-dim");
  const auto aspect = draft.value(draft.flags.aspect_ratio, "--aspect-ratio", "aspect_ratio", 64, 1, 4096);
  if (!aspect) return std::unexpected(aspect.error());
  m.aspect_ratio = *aspect;
  const std::int64_t base = m.depth * m.aspect_ratio;
  m.width = version.model_dim_rounded_up ? round_up(base, *head_dim) : base;
  m.heads = version.shape_flags && !version.model_dim_rounded_up ? dividing_heads(m.width, *head_dim) : ceil_div(m.width, *head_dim);
  if (m.width % m.heads != 0) {
    return fail("bad_value", "nanochat " + version.epoch + " gives a width of " + std::to_string(m.width) + " " + std::to_string(m.heads) + " heads, which do not divide it",
                "use an even --depth, or --nanochat E2 or later", "--depth");
  }
  if (m.width > kMaxWidth) {
    return fail("bad_value", "depth x aspect ratio gives a model width of " + std::to_string(m.width), "use a width up to " + std::to_string(kMaxWidth), "--depth");
  }
  m.kv_heads = m.heads;
  m.head_dim = m.width / m.heads;
  m.ffn = 4 * m.width;
  const auto vocab = draft.value(draft.flags.vocab_size, "--vocab-size", "vocab_size", version.default_vocab, 2, kMaxVocab);
  if (!vocab) return std::unexpected(vocab.error());
  m.vocab = *vocab;
  m.padded_vocab = round_up(m.vocab, version.vocab_multiple);
  return {};
}

Result<void> set_windows(Draft& draft) {
  Model& m = draft.workload.model;
  const std::int64_t T = m.sequence_len;
  const std::string pattern = draft.flags.window_pattern.value_or(m.version.default_window_pattern);
  if (!draft.flags.window_pattern) draft.workload.assumptions.push_back({"window_pattern", pattern, "nanochat default"});
  if (draft.flags.window_pattern && !m.version.window) {
    return fail("bad_value", "nanochat " + m.version.epoch + " has no --window-pattern", "leave it out, or use --nanochat E3b or later", "--window-pattern");
  }
  if (pattern.empty() || pattern.size() > 256 || pattern.find_first_not_of("SLsl") != std::string::npos) {
    return fail("bad_value", "--window-pattern '" + pattern.substr(0, 40) + "' has other letters than S and L", "use L, SSSL or the like", "--window-pattern");
  }
  std::int64_t shorter = T / 2;
  if (m.version.short_window == NanochatVersion::ShortWindow::third128) shorter = round_up(ceil_div(T, 3), 128);
  if (m.version.short_window == NanochatVersion::ShortWindow::quarter128) shorter = round_up(ceil_div(T, 4), 128);
  for (char c : pattern) m.window_pattern += c == 's' || c == 'S' ? 'S' : 'L';
  for (std::int64_t layer = 0; layer < m.depth; ++layer) {
    const bool is_long = m.window_pattern[static_cast<std::size_t>(layer) % m.window_pattern.size()] == 'L' || layer + 1 == m.depth;
    m.windows.push_back(is_long ? T : shorter);
  }
  return {};
}

bool has_value_embedding(const Model& m, std::int64_t layer) { return m.version.value_embeds && layer % 2 == (m.depth - 1) % 2; }

void set_parameters(Workload& workload) {
  Model& m = workload.model;
  const Dtype compute = workload.run.compute;
  const Dtype matrix = Dtype::fp32;
  const Dtype embedding = compute == Dtype::bf16 || m.version.autocast ? Dtype::bf16 : Dtype::fp32;  // fp16 keeps fp32 embeddings for its scaler
  const std::int64_t D = m.width, V = m.padded_vocab, KD = m.kv_heads * m.head_dim;
  const auto add = [&](std::string name, std::vector<std::int64_t> dims, Dtype d, ParamGroup group, std::int64_t layer = -1) {
    m.parameters.push_back({std::move(name), std::move(dims), d, group, static_cast<int>(layer)});
  };
  if (m.version.lambdas) {
    add("resid_lambdas", {m.depth}, Dtype::fp32, ParamGroup::scalars);
    add("x0_lambdas", {m.depth}, Dtype::fp32, ParamGroup::scalars);
  }
  if (m.version.smear_backout) {
    add("smear_lambda", {1}, Dtype::fp32, ParamGroup::scalars);
    add("backout_lambda", {1}, Dtype::fp32, ParamGroup::scalars);
  }
  add("transformer.wte.weight", {V, D}, embedding, ParamGroup::wte);
  for (std::int64_t layer = 0; layer < m.depth; ++layer) {
    const std::string h = "transformer.h." + std::to_string(layer) + ".";
    add(h + "attn.c_q.weight", {D, D}, matrix, ParamGroup::transformer_matrices, layer);
    add(h + "attn.c_k.weight", {KD, D}, matrix, ParamGroup::transformer_matrices, layer);
    add(h + "attn.c_v.weight", {KD, D}, matrix, ParamGroup::transformer_matrices, layer);
    add(h + "attn.c_proj.weight", {D, D}, matrix, ParamGroup::transformer_matrices, layer);
    if (has_value_embedding(m, layer)) {
      add(h + "attn.ve_gate.weight", {m.kv_heads, m.version.ve_gate_channels}, matrix, ParamGroup::transformer_matrices, layer);
    }
    add(h + "mlp.c_fc.weight", {m.ffn, D}, matrix, ParamGroup::transformer_matrices, layer);
    add(h + "mlp.c_proj.weight", {D, m.ffn}, matrix, ParamGroup::transformer_matrices, layer);
  }
  add("lm_head.weight", {V, D}, matrix, ParamGroup::lm_head);
  if (m.version.smear_backout) add("smear_gate.weight", {1, 24}, matrix, ParamGroup::scalars);
  for (std::int64_t layer = 0; layer < m.depth; ++layer) {
    if (has_value_embedding(m, layer)) {
      add("value_embeds." + std::to_string(layer) + ".weight", {V, KD}, embedding, ParamGroup::value_embeds, layer);
    }
  }
}

// E4g: 2^round(log2(2^19 * (scaling / scaling of d12)^0.383)); scaling = transformer matrices + lm_head. The data ratio cancels.
Result<std::int64_t> automatic_total(const Workload& workload) {
  Workload reference;
  reference.model = workload.model;
  reference.run = workload.run;
  Model& r = reference.model;
  r.parameters.clear();
  r.windows.clear();
  r.depth = 12;
  r.width = round_up(12 * r.aspect_ratio, r.head_dim);
  r.heads = r.kv_heads = r.width / r.head_dim;
  r.ffn = 4 * r.width;
  set_parameters(reference);
  const auto scaling = [](const Model& m) {
    return static_cast<double>(m.param_count(ParamGroup::transformer_matrices) + m.param_count(ParamGroup::lm_head));
  };
  const double predicted = 524288.0 * std::pow(scaling(workload.model) / scaling(r), 0.383);
  return std::int64_t{1} << std::llrint(std::log2(predicted));
}

// Of values that fall, those nearest the wanted one.
std::string nearest(const std::vector<std::int64_t>& values, std::int64_t wanted) {
  constexpr std::ptrdiff_t kMost = 5;
  const auto below = std::ranges::find_if(values, [&](std::int64_t v) { return v <= wanted; }) - values.begin();
  const auto first = std::clamp<std::ptrdiff_t>(below - kMost / 2, 0, std::max<std::ptrdiff_t>(0, std::ssize(values) - kMost));
  std::string out;
  for (auto i = first; i < std::min(first + kMost, std::ssize(values)); ++i) out += (i > first ? ", " : "") + std::to_string(values[static_cast<std::size_t>(i)]);
  return out;
}

std::string gpus_text(std::int64_t gpus) { return std::to_string(gpus) + (gpus == 1 ? " GPU" : " GPUs"); }

// A weight's gradient in fp8 sums over the micro-batch's tokens, and those products take multiples of 16 (aten/src/ATen/native/cuda/Blas.cpp, _scaled_mm).
bool multiplies_in_fp8(const Run& run, std::int64_t batch) { return !run.fp8 || batch * run.max_seq_len % 16 == 0; }

// chat_rl samples a whole device batch at a time.
bool samples_divide(const Run& run, std::int64_t batch) { return run.script != Script::chat_rl || run.num_samples % batch == 0; }

// Scripts whose rows are as long as they come count rows, not tokens.
std::unexpected<Error> illegal_rows(const Workload& w, std::int64_t batch) {
  const auto legal = legal_device_batches(w);
  const bool samples = !samples_divide(w.run, batch);
  const std::string what = samples ? "--num-samples " + std::to_string(w.run.num_samples) + " is not a multiple of --device-batch-size " + std::to_string(batch)
                                   : std::to_string(rows_per_step(w.run)) + " rows a step are not a multiple of --device-batch-size " + std::to_string(batch) + " x " + gpus_text(w.run.world_size);
  return fail("illegal_batch", what, legal.empty() ? "use fewer GPUs" : "use --device-batch-size " + nearest(legal, batch), "--device-batch-size");
}

std::unexpected<Error> illegal_batch(const Workload& w, std::int64_t batch) {
  if (trains_on_rows(w)) return illegal_rows(w, batch);
  const std::int64_t unit = batch * w.run.max_seq_len * w.run.world_size;
  const std::int64_t below = w.run.total_batch_size / unit * unit;
  std::string hint = "use --total-batch-size ";
  if (below > 0) hint += std::to_string(below) + " (accum " + std::to_string(below / unit) + ") or ";
  hint += std::to_string(below + unit) + " (accum " + std::to_string(below / unit + 1) + ")";
  const auto legal = legal_device_batches(w);
  hint += legal.empty() ? "; no device batch divides this total on " + gpus_text(w.run.world_size)
                        : ", or --device-batch-size " + nearest(legal, batch);
  return fail("illegal_batch",
              "--total-batch-size " + std::to_string(w.run.total_batch_size) + " is not a multiple of " + std::to_string(batch) + " x " +
                  std::to_string(w.run.max_seq_len) + " x " + std::to_string(w.run.world_size) + " = " + std::to_string(unit) + " tokens",
              hint, "--device-batch-size");
}

Result<void> set_run(Draft& draft) {
  const WorkloadFlags& flags = draft.flags;
  Run& run = draft.workload.run;
  const NanochatVersion& version = draft.workload.model.version;
  if (const auto ok = set_script(flags, draft.workload); !ok) return ok;
  const auto T = draft.value(flags.max_seq_len, "--max-seq-len", "max_seq_len", 2048, 2, kMaxSeqLen, inherits(draft.workload) ? kInherited : "nanochat default");
  if (!T) return std::unexpected(T.error());
  draft.workload.model.sequence_len = *T;
  run.max_seq_len = *T;
  if (trains_on_rows(draft.workload)) {
    run.max_seq_len = std::min(row_tokens(draft.workload), 10 * *T);
    if (run.script == Script::chat_rl && !flags.max_new_tokens) {
      draft.workload.assumptions.push_back({"max_new_tokens", std::to_string(run.max_new_tokens), "nanochat default; rows of " + std::to_string(run.max_seq_len) + " tokens with GSM8K's longest prompt"});
    }
  }
  if (flags.gpus && (*flags.gpus < 1 || *flags.gpus > kMaxGpus)) return out_of_range("--gpus", *flags.gpus, 1, kMaxGpus);
  run.world_size = flags.gpus.value_or(1);
  run.torchrun = run.world_size > 1 || flags.torchrun.value_or(false);
  if (flags.device_batch_size == -1) {
    run.device_batch_size = 1;
  } else {
    const ScriptDefault fallback = default_device_batch(draft.workload);
    const auto B = draft.value(flags.device_batch_size, "--device-batch-size", "device_batch_size", fallback.value, 1, kMaxBatch, fallback.source);
    if (!B) return std::unexpected(B.error());
    run.device_batch_size = *B;
  }
  run.compute_major = flags.compute_major;
  const Dtype usual = usual_compute(version, run.compute_major);
  run.compute = usual;
  if (flags.dtype) {
    const std::string d = to_lower(*flags.dtype);
    if (d == "bf16" || d == "bfloat16") run.compute = Dtype::bf16;
    else if (d == "fp16" || d == "float16") run.compute = Dtype::fp16;
    else if (d == "fp32" || d == "float32") run.compute = Dtype::fp32;
    else return fail("bad_value", "--dtype '" + d.substr(0, 40) + "' is not known", "use bf16, fp16 or fp32", "--dtype");
    if (version.autocast && run.compute != Dtype::bf16) {
      return fail("bad_value", "nanochat " + version.epoch + " always trains in bf16 autocast", "leave --dtype out, or use --nanochat E5 or later", "--dtype");
    }
  } else {
    draft.workload.assumptions.push_back({"dtype", std::string(name_of(usual)), version.autocast ? "nanochat's autocast" : usual == Dtype::fp32 ? run.compute_major == kNoCuda ? "nanochat default where there is no CUDA" : "nanochat default on GPUs below compute capability 8.0" : "nanochat default on GPUs of compute capability 8.0 and newer"});
  }
  run.fp8 = flags.fp8.value_or(false);
  if (run.fp8 && !version.fp8_available) return fail("bad_value", "nanochat " + version.epoch + " has no --fp8", "use --nanochat E4f or later", "--fp8");
  if (run.fp8 && !flags.dtype && usual == Dtype::fp32) return fail("bad_value", "--fp8 needs bf16, and nanochat computes in fp32 on GPUs below compute capability 8.0", "leave --fp8 out: it needs a GPU of compute capability 8.9 or newer", "--fp8");
  if (run.fp8 && run.compute != Dtype::bf16) return fail("bad_value", "--fp8 needs --dtype bf16", "leave one of the two out", "--fp8");
  if (run.fp8 && run.script != Script::base_train) return fail("bad_value", std::string(name_of(run.script)) + " has no --fp8", "leave it out: what was trained in fp8 is fine-tuned in bf16", "--fp8");
  run.compile = flags.compile.value_or(true) && !trains_eagerly(draft.workload);
  run.optimizer_compiled = flags.compile.value_or(true);
  run.cold_caches = flags.cold_caches.value_or(true);
  run.core_metric_every = flags.core_metric_every.value_or(run.core_metric_every);
  run.core_metric_max_per_task = flags.core_metric_max_per_task.value_or(run.core_metric_max_per_task);
  run.torch = flags.torch.value_or(version.torch);
  auto workspaces = product_workspaces(flags.workspaces, run.torch);
  if (!workspaces) return std::unexpected(workspaces.error());
  run.workspaces = std::move(*workspaces);
  static constexpr std::string_view kAttention[] = {"automatic", "fa3", "flash", "efficient", "math"};
  std::string wanted = to_lower(flags.attention.value_or("automatic"));
  if (wanted == "sdpa") wanted = "flash";  // which asks for SDPA: it chooses
  const auto found = std::ranges::find(kAttention, wanted);
  if (found == std::end(kAttention)) {
    return fail("bad_value", "--attention '" + wanted.substr(0, 40) + "' is not known", did_you_mean(wanted, kAttention, "use fa3, sdpa, efficient or math"), "--attention");
  }
  run.attention = static_cast<Attention>(found - std::begin(kAttention));
  return {};
}

Result<void> set_total(Draft& draft) {
  Workload& w = draft.workload;
  const NanochatVersion& version = w.model.version;
  if (trains_on_rows(w)) {
    w.run.total_batch_size = rows_per_step(w.run) * w.run.max_seq_len;
    if (w.run.script == Script::chat_rl && w.run.examples_per_step % w.run.world_size != 0) {
      return fail("illegal_gpus", "--examples-per-step " + std::to_string(w.run.examples_per_step) + " cannot be shared by " + std::to_string(w.run.world_size) + " GPUs", "use a multiple of the number of GPUs", "--examples-per-step");
    }
    return {};
  }
  const bool own_total = w.run.script == Script::mid_train || (w.run.script == Script::chat_sft && !inherits(w));
  const std::int64_t given = draft.flags.total_batch_size.value_or(own_total ? 524288 : version.default_total_batch);
  if (given == -1) {
    if (draft.flags.total_batch_size && !version.auto_total_batch) {
      return fail("bad_value", "nanochat " + version.epoch + " cannot work out --total-batch-size", "give it in tokens: 524288 is its default", "--total-batch-size");
    }
    w.run.total_batch_size = *automatic_total(w);
    w.assumptions.push_back({"total_batch_size", std::to_string(w.run.total_batch_size), inherits(w) ? "inherited from the base run, taken from nanochat's rule" : "nanochat's rule from the parameter count"});
  } else {
    if (given < 1 || given > kMaxTotal) return out_of_range("--total-batch-size", given, 1, kMaxTotal);
    w.run.total_batch_size = given;
    if (!draft.flags.total_batch_size) w.assumptions.push_back({"total_batch_size", std::to_string(given), inherits(w) ? kInherited : "nanochat default"});
  }
  return {};
}

}  // namespace

std::string_view name_of(ParamGroup group) {
  switch (group) {
    case ParamGroup::wte: return "wte";
    case ParamGroup::value_embeds: return "value_embeds";
    case ParamGroup::lm_head: return "lm_head";
    case ParamGroup::transformer_matrices: return "transformer_matrices";
    case ParamGroup::scalars: return "scalars";
  }
  return "";
}

std::string_view name_of(Attention attention) {
  switch (attention) {
    case Attention::automatic: return "automatic";
    case Attention::fa3: return "fa3";
    case Attention::flash: return "flash";
    case Attention::efficient: return "efficient";
    case Attention::cudnn: return "cudnn";
    case Attention::math: return "math";
  }
  return "";
}

std::int64_t Parameter::count() const {
  std::int64_t n = 1;
  for (std::int64_t d : shape) n *= d;
  return n;
}
Bytes Parameter::bytes() const { return Bytes(count()) * size_of(dtype); }

std::int64_t Model::param_count() const {
  std::int64_t n = 0;
  for (const Parameter& p : parameters) n += p.count();
  return n;
}
std::int64_t Model::param_count(ParamGroup group) const {
  std::int64_t n = 0;
  for (const Parameter& p : parameters) n += p.group == group ? p.count() : 0;
  return n;
}

std::vector<std::int64_t> legal_device_batches(const Workload& workload) {
  std::vector<std::int64_t> out;
  const std::int64_t per_sequence = workload.run.max_seq_len * workload.run.world_size * rows_of_sample(workload);
  if (workload.transformers) {
    constexpr std::int64_t kMostSearched = 4096;
    const auto& total = workload.transformers->total_batch_size;
    const auto& preference = workload.transformers->training.preference;
    const std::int64_t least = preference && preference->of_others() ? 2 : 1;  // KTO's other answers are those of its batch
    for (std::int64_t batch = kMostSearched; batch >= least; --batch) {
      if (total && *total % (batch * per_sequence) != 0) continue;
      const auto& rollouts = workload.transformers->training.rollouts;
      if (!rollouts || writes_whole_prompts(*rollouts, batch, workload.run.world_size, total ? *total / (batch * per_sequence) : workload.run.grad_accum_steps)) out.push_back(batch);
    }
    if (out.empty()) out.push_back(1);
    return out;
  }
  for (std::int64_t batch = 512; batch >= 1; batch /= 2) {
    if (workload.run.total_batch_size % (batch * per_sequence) == 0 && samples_divide(workload.run, batch) && multiplies_in_fp8(workload.run, batch)) out.push_back(batch);
  }
  return out;
}

Result<Workload> with_device_batch(const Workload& workload, std::int64_t device_batch_size) {
  Workload w = workload;
  if (device_batch_size < 1 || device_batch_size > kMaxBatch) return out_of_range("--device-batch-size", device_batch_size, 1, kMaxBatch);
  const std::int64_t tokens = device_batch_size * rows_of_sample(w) * w.run.max_seq_len * w.run.world_size;
  if (w.transformers && !w.transformers->total_batch_size) {
    w.run.device_batch_size = device_batch_size;
    w.run.total_batch_size = tokens * w.run.grad_accum_steps;
    return w;
  }
  if (!multiplies_in_fp8(w.run, device_batch_size)) {
    return fail("bad_value", "--fp8 with " + std::to_string(device_batch_size) + " x " + std::to_string(w.run.max_seq_len) + " = " + std::to_string(device_batch_size * w.run.max_seq_len) + " tokens at a time: its products take multiples of 16",
                "use a --max-seq-len that is a multiple of 16, or leave --fp8 out", "--fp8");
  }
  if (w.run.total_batch_size % tokens != 0 || !samples_divide(w.run, device_batch_size)) return illegal_batch(w, device_batch_size);
  w.run.device_batch_size = device_batch_size;
  w.run.grad_accum_steps = w.run.total_batch_size / tokens;
  return w;
}

Dtype usual_compute(const NanochatVersion& version, int compute_major) {
  return !version.autocast && compute_major > 0 && compute_major < 8 ? Dtype::fp32 : Dtype::bf16;
}

namespace {

void warn_of_left_out(Workload& w) {
  std::vector<std::string> flags;
  for (const std::string& word : w.left_out) {
    if (word.starts_with("--") || flags.empty()) flags.push_back(word);
    else flags.back() += " " + word;
  }
  if (!flags.empty()) w.warnings.push_back("left out, as nanochat has no such flag: " + first_ten(flags, 60) + "; what " + (flags.size() == 1 ? "it changes" : "they change") + " is not laid out");
}

std::string shown(const NanochatVersion& v) { return v.epoch + " (" + v.date + ")"; }

// The newest version that has a pasted command's flags, where that is another than what would be taken; says why.
void take_version_of_command(const WorkloadFlags& flags, Workload& w, NanochatVersion& version) {
  const VersionByFlags by = version_by_flags(flags);
  if (by.version != nullptr && by.as_written && by.version->epoch == version.epoch) return;
  if (by.version != nullptr) version = *by.version;
  if (by.version == nullptr || !by.as_written) {
    w.warnings.push_back("no nanochat has all of the command's flags as they are written (" + by.reason + "): laid out is " + shown(version) + "; --nanochat chooses another");
    return;
  }
  WorkloadFlags anywhere = flags;
  anywhere.compute_major = 0;
  const bool for_gpu = version_by_flags(anywhere).version != by.version;
  w.warnings.push_back("laid out is nanochat " + shown(version) + ", the newest that has all of the command's flags" + (for_gpu ? " and trains on this GPU" : "") + ": " + by.reason + "; --nanochat chooses another");
}

// The version that is asked for; where none is the newest that has what is asked for.
Result<NanochatVersion> version_of(const WorkloadFlags& flags, Workload& w) {
  if (flags.nanochat) return find_nanochat_version(*flags.nanochat);
  const std::string script = to_lower(flags.script.value_or(""));
  const bool rows = script == "chat_sft" && flags.examples_per_step;
  auto version = find_nanochat_version("newest");
  if (script == "mid_train" || rows) {
    for (const NanochatVersion& v : nanochat_versions()) {
      if (v.sft == NanochatVersion::Sft::rows) version = v;
    }
  }
  const std::string usual = version->epoch;
  if (!flags.written.empty()) take_version_of_command(flags, w, *version);
  w.assumptions.push_back({"nanochat", shown(*version), version->epoch != usual ? "the newest that has the command's flags" : script == "mid_train" ? "the newest with mid_train" : rows ? "the newest whose chat_sft takes --target-examples-per-step" : "the newest known"});
  return version;
}

}  // namespace

Result<Workload> make_nanochat_workload(const WorkloadFlags& flags) {
  Draft draft{flags, {}};
  Workload& w = draft.workload;
  w.passthrough = flags.passthrough;
  w.left_out = flags.left_out;
  warn_of_left_out(w);
  const auto version = version_of(flags, w);
  if (!version) return std::unexpected(version.error());
  w.model.version = *version;
  const bool of_base = flags.script && to_lower(*flags.script) != "base_train";
  const auto depth = draft.value(flags.depth, "--depth", "depth", 20, 1, kMaxDepth, of_base ? "not told by this script: give the base run's --depth" : "nanochat default");
  if (!depth) return std::unexpected(depth.error());
  w.model.depth = *depth;
  for (auto step : {set_run, set_shapes, set_windows}) {
    if (const auto ok = step(draft); !ok) return std::unexpected(ok.error());
  }
  set_parameters(w);
  if (const auto ok = set_total(draft); !ok) return std::unexpected(ok.error());
  if (w.run.world_size > 1 && w.model.padded_vocab % w.run.world_size != 0) {
    return fail("illegal_gpus", "the padded vocabulary of " + std::to_string(w.model.padded_vocab) + " rows cannot be sharded over " + std::to_string(w.run.world_size) + " GPUs",
                "use 1, 2, 4, 8, 16, 32 or 64 GPUs", "--gpus");
  }
  if (flags.device_batch_size == -1) {
    const std::int64_t tokens = w.run.max_seq_len * w.run.world_size;
    w.run.grad_accum_steps = std::max<std::int64_t>(1, w.run.total_batch_size / tokens);
    return w.run.total_batch_size % tokens == 0 ? Result<Workload>(w) : Result<Workload>(illegal_batch(w, 1));
  }
  return with_device_batch(w, w.run.device_batch_size);
}

}  // namespace dryfit
