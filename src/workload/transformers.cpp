// See transformers.hpp. Source: transformers 5.24 training_args.py; DeepSpeed 0.18 runtime/config.py and zero/config.py; accelerate 1.12 utils/dataclasses.py.
#include "workload/transformers.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/text.hpp"
#include "workload/class_heads.hpp"

namespace dryfit {

namespace {

constexpr std::int64_t kMostBatch = 1 << 20, kMostLength = 1 << 22, kMostGpus = 65536, kMostTotal = std::int64_t{1} << 40;
constexpr std::int64_t kUsualLength = 2048;
constexpr std::string_view kDefault = "transformers' default";

std::unexpected<Error> out_of_range(std::string_view flag, std::int64_t value, std::int64_t high) {
  return fail("bad_value", std::string(flag) + " " + std::to_string(value) + " is out of range", "use a value from 1 to " + std::to_string(high), std::string(flag));
}

struct TrainingDraft {
  TrainingPlan plan;

  void assume(std::string key, std::string value, std::string_view source) { plan.assumptions.push_back({std::move(key), std::move(value), std::string(source)}); }
  Result<std::int64_t> whole(const std::optional<std::int64_t>& given, std::string_view flag, std::string key, std::int64_t fallback, std::int64_t high, std::string_view source) {
    if (given && (*given < 1 || *given > high)) return out_of_range(flag, *given, high);
    if (!given) assume(std::move(key), std::to_string(fallback), source);
    return given.value_or(fallback);
  }
};

// A strategy for several GPUs and their number must agree; DDP with one process is none.
Result<void> several_gpus(Training& t) {
  if (t.sharding == Sharding::ddp && t.world_size == 1) t.sharding = Sharding::none;
  if (t.sharding == Sharding::none && t.world_size > 1) return fail("bad_value", "--parallel none and --gpus " + std::to_string(t.world_size) + " do not agree", "use --parallel ddp, fsdp1, fsdp2, zero2 or zero3, or --gpus 1", "--parallel");
  if (t.framework == Framework::torchtune && t.sharding != Sharding::none && t.world_size == 1) return fail("bad_value", "the recipe " + std::string(name_of(t.torchtune.recipe)) + " shards over several GPUs, and this run has one", "say how many: tune run --nproc_per_node 8, or --gpus 8; or take the recipe of a single device", "tune run");
  if ((t.sharding == Sharding::fsdp2 || is_fsdp1(t.sharding)) && t.world_size == 1) return fail("bad_value", "--parallel " + std::string(name_of(t.sharding)) + " shards over several GPUs, and this run has one", "add --gpus N, from 2 on", "--parallel");
  return {};
}

// The micro-steps that make up the total asked for.
Result<std::int64_t> accumulation(const TransformersFlags& f, const Training& t) {
  constexpr std::string_view kFlag = "--total-batch-size";
  const std::int64_t total = *f.total_batch_size, each = t.rows() / t.device_batch_size * t.seq_len * t.world_size, micro = each * t.device_batch_size;  // at most 2^20 * 2^22 * 2^16
  if (f.grad_accum_steps) return fail("bad_value", "--total-batch-size and --grad-accum-steps say the same", "give one of them", std::string(kFlag));
  if (total < 1 || total > kMostTotal) return out_of_range(kFlag, total, kMostTotal);
  if (total % micro == 0) return total / micro;
  const std::string below = total > each ? std::to_string(total / each * each) + " or " : "";
  const std::string products = (t.device_batch_size > 1 ? std::to_string(t.device_batch_size) + " x " : "") + std::to_string(t.seq_len) + " x " + std::to_string(t.world_size);
  return fail("illegal_batch", "--total-batch-size " + std::to_string(total) + " is not a multiple of " + products + " = " + std::to_string(micro) + " tokens",
              total % each == 0 ? "use a --device-batch-size that divides " + std::to_string(total / each) + " sequences" : "use --total-batch-size " + below + std::to_string((total / each + 1) * each), std::string(kFlag));
}

// Autocast keeps the weights as loaded. DeepSpeed converts the model to its 16-bit type and keeps fp32 masters; 16-bit weights without bf16 or fp16 it
// refuses (passes/zero_partition.hpp, without ZeRO passes/whole_states.hpp).
void set_precision(TrainingDraft& d, const HfModel& model, const TransformersFlags& f) {
  Training& t = d.plan.training;
  t.mixed = f.mixed.value_or(MixedPrecision::none);
  t.weights = f.weights ? *f.weights : model.architecture.dtype.value_or(Dtype::fp32);
  if (!f.weights) d.assume("dtype", std::string(name_of(t.weights)), model.architecture.dtype ? "of the model's config.json; transformers 4 loads in fp32 unless told" : kDefault);
  if (!is_deepspeed(t.sharding) || t.mixed != MixedPrecision::none || t.weights == Dtype::fp32) return;
  t.mixed = t.weights == Dtype::fp16 ? MixedPrecision::fp16 : MixedPrecision::bf16;
  d.assume("mixed", t.weights == Dtype::fp16 ? "fp16" : "bf16", "DeepSpeed trains 16-bit weights with it alone");
}

// "auto" or nothing leaves a value to the Trainer's arguments.
bool left_open(Fields& f, std::string_view key) {
  const Document* v = f.find(key);
  return v == nullptr || (v->kind == Document::Kind::text && v->text == "auto");
}

// A count of elements, as people write it: 500000000 or 5e8. Thresholds may be as large as sys.maxsize, buffers not.
constexpr std::int64_t kMostElements = INT64_MAX, kMostBuffer = 1'000'000'000'000;
void elements(Fields& f, std::string_view key, std::int64_t& out, std::int64_t most = kMostElements) {
  const Document* v = f.find(key);
  if (v == nullptr) return;
  constexpr double kMostReal = 9e18;
  const bool real = v->kind == Document::Kind::real && v->real >= 0 && v->real <= kMostReal && std::floor(v->real) == v->real;
  if (!real && !(v->kind == Document::Kind::whole && v->whole >= 0)) return f.fault(key, "is " + shown(*v) + ", which is no count of elements", "write a whole number such as 500000000 or 5e8");
  const std::int64_t n = real ? static_cast<std::int64_t>(v->real) : v->whole;
  if (n > most) return f.fault(key, "is " + shown(*v) + ", more than any buffer holds", "use at most " + std::to_string(most));
  out = n;
}

void zero_fields(Fields& g, TransformersFlags& flags) {
  ZeroConfig& z = flags.zero.emplace();
  const auto open = [&](std::string_view key, std::int64_t& out, bool& is_auto, std::int64_t most = kMostElements) {
    const Document* v = g.find(key);
    is_auto = v != nullptr && v->kind == Document::Kind::text && v->text == "auto";
    if (!is_auto) elements(g, key, out, most);
  };
  open("reduce_bucket_size", z.reduce_bucket_size, flags.auto_reduce_bucket, kMostBuffer);
  open("stage3_prefetch_bucket_size", z.prefetch_bucket_size, flags.auto_prefetch_bucket);
  open("stage3_param_persistence_threshold", z.param_persistence_threshold, flags.auto_persistence);
  elements(g, "stage3_model_persistence_threshold", z.model_persistence_threshold);
  elements(g, "stage3_max_live_parameters", z.max_live_parameters);
  elements(g, "stage3_max_reuse_distance", z.max_reuse_distance);
  elements(g, "sub_group_size", z.sub_group_size);
  z.overlap_comm = g.yes("overlap_comm");
  z.contiguous_gradients = g.yes("contiguous_gradients").value_or(true);
  z.reduce_scatter = g.yes("reduce_scatter").value_or(true);
  z.round_robin_gradients = g.yes("round_robin_gradients").value_or(false);
}

// HfTrainerDeepSpeedConfig.trainer_config_finalize
ZeroConfig resolved_zero(const TransformersFlags& f, const Architecture& a) {
  ZeroConfig z = f.zero.value_or(ZeroConfig());
  const std::int64_t square = a.width * a.width;
  if (f.auto_reduce_bucket) z.reduce_bucket_size = square;
  if (f.auto_prefetch_bucket) z.prefetch_bucket_size = static_cast<std::int64_t>(0.9 * static_cast<double>(square));
  if (f.auto_persistence) z.param_persistence_threshold = 10 * a.width;
  return z;
}

bool on_host(Fields& zero, std::string_view key, std::string_view where, const std::string& prefix, KeysTold& told) {
  const Document* offload = zero.map(key);
  if (offload == nullptr) return false;
  Fields f(*offload, std::string(where), prefix + std::string(key) + ".");
  const std::string device = f.text("device").value_or("none");
  for (const char* tuning : {"pin_memory", "buffer_count", "buffer_size", "max_in_cpu", "fast_init", "nvme_path", "pipeline_read", "pipeline_write"}) f.used(tuning);
  if (const auto ratio = f.real("ratio", 0, 1); ratio && *ratio < 1) f.left("ratio");
  f.tell(told);
  return device != "none";
}

// What beside LoRA's matrices is described.
Result<void> adapters(const Training& t, const Architecture& a) {
  if (!t.lora) return {};
  const Lora& l = *t.lora;
  if (l.virtual_tokens < 0 || l.virtual_tokens > kMostLength) return out_of_range("--num_virtual_tokens", l.virtual_tokens, kMostLength);
  if (t.adapter_kernels.any() && t.sharding == Sharding::zero3) return fail("unsupported_training", "axolotl's LoRA kernels under ZeRO-3, which gathers weights around the layers they replace, are not laid out", "set lora_mlp_kernel, lora_qkv_kernel and lora_o_kernel to false", "lora_qkv_kernel");
  const bool plain = !l.dora && l.virtual_tokens == 0 && l.saved_modules.empty();
  if (!plain && t.framework != Framework::transformers) return fail("bad_value", "DoRA, prompt tuning and modules to save are peft's, and LitGPT has none of them", "leave them out", "");
  if (l.virtual_tokens > 0 && (a.encoder || a.position == Position::learned)) return fail("unsupported_training", "prompt tuning of " + a.model_type + " is not laid out yet", "it is of models with rotary positions", "--num_virtual_tokens");
  if (!plain && gathers_weights(t.sharding)) return fail("unsupported_training", "DoRA, prompt tuning and modules to save under " + std::string(name_of(t.sharding)) + " are not laid out yet", "use --parallel ddp or zero2", "--parallel");
  for (const std::string& module : l.saved_modules) {
    Lora one;
    one.saved_modules = {module};
    const bool known = std::ranges::any_of(parameters_of(a), [&](const Parameter& p) { return p.layer < 0 && one.saves(std::string_view(p.name).substr(0, p.name.rfind('.'))); });
    if (a.tied_head) return fail("unsupported_training", "modules to save of " + a.model_type + ", whose head is its embedding, are not laid out yet", "leave them out", "lora_modules_to_save");
    if (known) continue;
    return fail("bad_value", "no module to save of " + a.model_type + " outside its layers is called " + module.substr(0, 60), "lm_head and the embedding are such modules", "lora_modules_to_save");
  }
  return {};
}

// Which loss is taken, and what of the model Liger-Kernel replaces. Its own loss is where no other is.
void loss_and_liger(Training& t, const Architecture& a, const TransformersFlags& f) {
  const bool known = has_liger_kernels(a);
  if (known) t.liger = f.liger ? (*f.liger ? LigerParts::all() : LigerParts()) : f.liger_parts.value_or(LigerParts());
  t.head = f.head.value_or(f.liger.value_or(false) && !a.classifies() ? HeadLoss::liger : HeadLoss::logits);
  const bool trl = t.framework == Framework::transformers && a.causal;
  if (t.head == HeadLoss::trl && !trl) t.head = f.liger.value_or(false) ? HeadLoss::liger : HeadLoss::logits;
  if (t.head == HeadLoss::liger && (!known || f.liger == false)) t.head = HeadLoss::logits;
  if (t.rollouts) t.head = HeadLoss::trl, t.dropout = t.rollouts->drops_out;
  if (!t.preference) return;
  t.head = t.preference->in_tiles() ? HeadLoss::trl : HeadLoss::logits;
  t.dropout = t.preference->trainer == Preference::Trainer::factory_rm;  // elsewhere disable_dropout
  if (t.preference->trainer == Preference::Trainer::factory_dpo && !t.preference->reference) t.preference->reference = a.dtype;
}

// What is known to fill rows up to the longest of a batch: TRL's programs, unless they say that they pack, and scripts that train heads of classes.
bool fills_rows(const TransformersFlags& f) { return f.head == HeadLoss::trl || f.preference || f.rollouts || f.filled; }

// Adapters and 4-bit weights under FSDP as Trainer has them. FSDP takes 4-bit weights for weights of what they are packed into.
Result<void> shared_adapters(TrainingDraft& d, const TransformersFlags& f) {
  Training& t = d.plan.training;
  const bool fsdp1 = is_fsdp1(t.sharding);
  if (!t.lora || t.framework != Framework::transformers || (!fsdp1 && t.sharding != Sharding::fsdp2)) return {};
  t.flat.adapters_apart = fsdp1;
  if (fsdp1) t.wrap_blocks = true;  // peft's fsdp_auto_wrap_policy, which Trainer sets
  if (fsdp1 && t.adapter_kernels.any()) return fail("unsupported_training", "axolotl's LoRA kernels under FSDP1, which gathers adapters where their modules are called, are not laid out", "set lora_mlp_kernel, lora_qkv_kernel and lora_o_kernel to false", "lora_qkv_kernel");
  if (fsdp1 && t.lora->biases != Lora::Biases::none) return fail("unsupported_training", "biases that train beside adapters under FSDP1 are not laid out yet", "leave them out, or use --parallel fsdp2", "--lora_bias");
  if (!t.quantized) return {};
  const std::string dtype(name_of(t.weights)), word = t.weights == Dtype::fp16 ? "float16" : "bfloat16";
  if (t.weights == Dtype::fp32) return fail("bad_value", "4-bit weights under FSDP beside a model in fp32: they are shared out as weights of its dtype, 16 bits wide", "load the model in bf16: --dtype bf16", "--dtype");
  if (f.quant_storage && *f.quant_storage != t.weights) {
    const std::string why = fsdp1 ? "which FSDP1 refuses beside a model in " + dtype + ": a unit's weights have one dtype" : "which accelerate leaves out of FSDP2: every GPU has them whole";
    return fail("bad_value", "4-bit weights packed into " + std::string(name_of(*f.quant_storage)) + ", " + why, "set bnb_4bit_quant_storage to the model's dtype: --bnb_4bit_quant_storage " + word, "--bnb_4bit_quant_storage");
  }
  if (!f.quant_storage) d.assume("bnb_4bit_quant_storage", word, "FSDP shares 4-bit weights out only in the model's dtype; bitsandbytes' default is uint8");
  t.lora->upcast_rest = false;  // norms in fp32 would be of another dtype than their unit
  return {};
}

// What cut_cross_entropy's patches and kernels take.
Result<void> cut_loss(const Training& t, const Architecture& a) {
  if (t.head != HeadLoss::cut) return {};
  const auto refuse = [](std::string what, std::string hint) { return fail("unsupported_training", "cut_cross_entropy " + std::move(what), std::move(hint), "cut_cross_entropy"); };
  constexpr std::array kOther = {Family::gpt2, Family::gpt_neox, Family::granite, Family::starcoder2, Family::gpt_oss};
  if (t.framework != Framework::transformers || !a.causal || std::ranges::find(kOther, a.family) != kOther.end()) return refuse("of " + a.model_type + (t.framework == Framework::transformers ? "" : " in " + std::string(name_of(t.framework))) + " is not laid out", "it is of causal models of transformers whose head is lm_head");
  if (t.sharding == Sharding::zero3) return refuse("under ZeRO-3, where the head's weight is gathered outside its module, is not laid out yet", "use zero2, or leave it out");
  const bool narrow = t.weights != Dtype::fp32 || (t.mixed != MixedPrecision::none && (is_deepspeed(t.sharding) || gathers_weights(t.sharding)));
  if (!narrow) return refuse("takes a head in 16 bits, and this one is in fp32", "load the model in bf16 (--dtype bf16)");
  return {};
}

// Trainer's evaluation loop: TrainingArguments' own batch where the user says none.
Result<void> evaluation(TrainingDraft& d, const TransformersFlags& f) {
  Training& t = d.plan.training;
  EvaluationRun& e = t.evaluation.emplace();
  const auto rows = d.whole(f.eval_batch_size, "--per_device_eval_batch_size", "per_device_eval_batch_size", e.batch_size, kMostBatch, kDefault);
  if (!rows) return std::unexpected(rows.error());
  e.batch_size = *rows;
  e.accumulation = f.eval_accumulation_steps;
  if (e.accumulation && (*e.accumulation < 1 || *e.accumulation > kMostBatch)) return out_of_range("--eval_accumulation_steps", *e.accumulation, kMostBatch);
  e.keeps = f.eval_keeps.value_or(EvaluationRun::Keeps::loss);
  e.on_start = f.eval_on_start;
  const std::int64_t together = e.batch_size * t.world_size;
  if (f.eval_samples) e.batches = std::max<std::int64_t>(1, (*f.eval_samples + together - 1) / together);
  return {};
}

}  // namespace

// MODEL_TYPE_TO_APPLY_LIGER_FN of liger-kernel 0.8.4.
bool groups_experts(const Architecture& a, const Training& r) {
  static constexpr std::array<std::string_view, 8> kAttention = {"q_proj", "k_proj", "v_proj", "o_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"};
  const auto of_attention = [](const std::string& target) { return std::ranges::find(kAttention, target) != kAttention.end(); };
  return a.moe && r.framework == Framework::transformers && r.is_transformers_5() && !r.compile && !r.liger.gated &&
         !r.adapter_kernels.any() && (!r.lora || std::ranges::all_of(r.lora->targets, of_attention));
}

bool has_liger_kernels(const Architecture& a) {
  constexpr std::array kKnown = {Family::llama, Family::mistral, Family::mixtral, Family::qwen2, Family::qwen3, Family::qwen3_moe, Family::gemma, Family::gemma2, Family::gemma3, Family::phi3, Family::olmo2, Family::olmo3, Family::smollm3, Family::deepseek_v3};
  return std::ranges::find(kKnown, a.family) != kKnown.end();
}

Result<TrainingPlan> make_training(const HfModel& model, const TransformersFlags& f) {
  TrainingDraft d;
  Training& t = d.plan.training;
  const Architecture& a = model.architecture;
  const auto B = d.whole(f.device_batch_size, "--device-batch-size", "device_batch_size", 8, kMostBatch, kDefault);
  if (!B) return std::unexpected(B.error());
  const auto T = d.whole(f.max_seq_len, "--max-seq-len", "max_seq_len", f.rollouts ? usual_row(*f.rollouts) : std::min(a.max_positions, kUsualLength), kMostLength, f.rollouts ? usual_row_note(*f.rollouts) : a.max_positions < kUsualLength ? "all positions the model has" : "a usual length; the model has " + std::to_string(a.max_positions) + " positions");
  if (!T) return std::unexpected(T.error());
  if (a.position == Position::learned && *T > a.max_positions) {
    return fail("bad_value", "--max-seq-len " + std::to_string(*T) + " is more than the " + std::to_string(a.max_positions) + " positions the model has learned", "use at most " + std::to_string(a.max_positions), "--max-seq-len");
  }
  const auto W = d.whole(f.gpus, "--gpus", "gpus", 1, kMostGpus, "one GPU");
  if (!W) return std::unexpected(W.error());
  if (f.grad_accum_steps && (*f.grad_accum_steps < 1 || *f.grad_accum_steps > kMostBatch)) return out_of_range("--gradient-accumulation-steps", *f.grad_accum_steps, kMostBatch);
  t.preference = f.preference;
  if (auto ok = put_rollouts(f.rollouts, t, *T); !ok) return std::unexpected(ok.error());
  t.device_batch_size = *B, t.seq_len = *T, t.world_size = *W, t.grad_accum_steps = f.grad_accum_steps.value_or(1);
  if (f.total_batch_size) {
    const auto steps = accumulation(f, t);
    if (!steps) return std::unexpected(steps.error());
    t.grad_accum_steps = *steps;
  }
  t.torch = f.torch.value_or(t.torch);
  auto workspaces = product_workspaces(f.workspaces, t.torch);
  if (!workspaces) return std::unexpected(workspaces.error());
  t.workspaces = std::move(*workspaces);
  t.framework = f.framework.value_or(Framework::transformers);
  const bool litgpt = t.framework == Framework::litgpt, torchtune = t.framework == Framework::torchtune, torchtitan = t.framework == Framework::torchtitan;
  if (torchtune) t.torchtune = f.torchtune.value_or(TorchtuneRun());
  if (torchtitan) t.torchtitan = f.torchtitan.value_or(TorchtitanRun());
  t.sharding = f.sharding.value_or(t.world_size == 1 ? Sharding::none : litgpt ? Sharding::fsdp1 : torchtitan ? Sharding::fsdp2 : Sharding::ddp);
  set_precision(d, model, f);
  const bool no_sdpa = a.family == Family::gemma2 || a.sinks;  // a soft-cap and sinks are not in SDPA: transformers refuses it and takes eager attention
  if (a.sinks && f.attention.value_or(AttentionCode::eager) != AttentionCode::eager) return fail("unsupported_training", "gpt-oss with another attention than eager is not laid out yet: its sinks are in no kernel of torch", "use --attention eager, transformers' default for it", "--attention");
  if (no_sdpa && f.attention == AttentionCode::sdpa) return fail("bad_value", "--attention sdpa: transformers' Gemma 2 has none, for its soft-capped scores", "use --attention eager or flash_attention_2", "--attention");
  if (f.attention == AttentionCode::flash_attention_3 && a.attention_dropout > 0) return fail("bad_value", "--attention flash_attention_3: it has no dropout, and the model's config.json asks for some; transformers stops", "set attention_dropout to 0, or use --attention flash_attention_2", "--attention");
  t.attention = f.attention.value_or(no_sdpa ? AttentionCode::eager : AttentionCode::sdpa);
  t.compile = f.compile.value_or(false);
  t.cold_caches = f.cold_caches.value_or(true);
  t.ema = f.ema.value_or(false);
  if (t.ema && (t.framework != Framework::transformers || f.quantized || (t.sharding != Sharding::none && t.sharding != Sharding::ddp))) {
    return fail("unsupported_training", "a moving average of the weights " + std::string(f.quantized ? "beside 4-bit ones" : t.framework != Framework::transformers ? "in " + std::string(name_of(t.framework)) : "under " + std::string(name_of(t.sharding))) + " is not laid out yet", "leave --ema out, or use --parallel ddp with whole weights", "--ema");
  }
  t.packed = f.packed.value_or(false) && t.framework == Framework::transformers;
  t.padded = f.padded.value_or(fills_rows(f)) && !t.packed && t.framework == Framework::transformers;
  t.filled = t.padded && f.filled.value_or(false);
  loss_and_liger(t, a, f);
  constexpr std::array kOwnPatches = {Family::granite, Family::gpt_oss};  // another loss, or no MLP
  if (f.liger.value_or(false) && std::ranges::find(kOwnPatches, a.family) != kOwnPatches.end()) return fail("unsupported_training", "Liger-Kernel's parts of " + a.model_type + " are not laid out yet", "leave --liger out", "--liger");
  if (t.liger.any() && (litgpt || torchtune || torchtitan)) return fail("bad_value", "--liger beside " + std::string(litgpt ? "LitGPT" : torchtune ? "torchtune" : "torchtitan") + ", which has no use of Liger-Kernel", "leave it out", "--liger");
  if (t.head == HeadLoss::liger && t.sharding == Sharding::zero3) return fail("unsupported_training", "Liger-Kernel's loss under ZeRO-3, where the head's weight is gathered outside its module, is not laid out yet", "use --parallel zero2 or fsdp2, or leave --liger out", "--liger");
  if (litgpt && f.lora && f.litgpt_script.value_or(LitgptScript::lora) != LitgptScript::lora) return fail("bad_value", "--lora-rank beside litgpt " + std::string(name_of(*f.litgpt_script)) + ", which has no such adapters", "leave one of them out", "--lora-rank");
  if (litgpt) t.litgpt.script = f.litgpt_script.value_or(f.lora ? LitgptScript::lora : LitgptScript::pretrain);
  const bool pretrains = !litgpt || t.litgpt.script == LitgptScript::pretrain;
  if (f.quantized && !f.lora && !litgpt) return fail("bad_value", "--load-in-4bit without adapters: 4-bit weights cannot be trained", "add --lora-rank 16", "--load-in-4bit");
  t.quantized = f.quantized, t.double_quantized = f.double_quantized;
  t.optimizer = f.optimizer.value_or(pretrains ? OptimizerKind::adamw_fused : t.quantized ? OptimizerKind::paged_adamw : OptimizerKind::adamw);
  if (!f.optimizer) d.assume("optimizer", std::string(name_of(t.optimizer)), litgpt ? "LitGPT's default" : kDefault);
  const bool checkpoints = litgpt && is_fsdp1(t.sharding) && !pretrains;  // FSDPStrategy(activation_checkpointing_policy={Block})
  t.recompute = f.recompute.value_or(checkpoints ? Recompute::full : Recompute::none);
  if (!f.recompute && checkpoints) d.assume("recompute", "full", "LitGPT's finetuning scripts on several GPUs");
  t.reentrant = f.reentrant.value_or(false);
  if (f.lora && t.sharding == Sharding::zero3 && t.recompute == Recompute::full && t.framework == Framework::transformers && (!f.reentrant || f.head == HeadLoss::trl)) {
    t.reentrant = true;
    if (!f.reentrant.value_or(false)) d.assume("gradient_checkpointing_kwargs", "{\"use_reentrant\": true}", "as TRL sets it: beside adapters ZeRO-3 takes no other form");
  }
  t.transformers = f.transformers.value_or(std::string(kNewestTransformers));
  if (!version_from(t.transformers, 4, 0)) return fail("bad_value", "--transformers '" + t.transformers.substr(0, 20) + "' is no version from 4.0 on", "such as " + std::string(kNewestTransformers) + " or 4.57.1: what pip show transformers says", "--transformers");
  if (!f.transformers && t.framework == Framework::transformers) d.assume("transformers", t.transformers, "the newest known");
  // since 5 Trainer sets what its argument says, which is False where nobody does
  t.use_cache = t.framework == Framework::transformers && f.use_cache.value_or(!t.is_transformers_5() && a.use_cache) && a.causal && f.head != HeadLoss::trl && !f.preference && !f.rollouts;  // TRL asks for none
  t.holds_batches = t.framework == Framework::transformers;
  t.converts_outputs = t.framework == Framework::transformers && t.mixed != MixedPrecision::none && t.sharding != Sharding::fsdp2 && !is_deepspeed(t.sharding);
  if (!f.sharding && t.world_size > 1) d.assume("parallel", std::string(name_of(t.sharding)), litgpt ? "LitGPT's scripts on several GPUs" : torchtitan ? "parallelism.data_parallel_shard_degree = -1: over all GPUs" : "torch.distributed without FSDP or ZeRO");
  if (auto ok = several_gpus(t); !ok) return std::unexpected(ok.error());
  t.zero = resolved_zero(f, a);
  const bool to_trainer = f.auto_reduce_bucket || f.auto_prefetch_bucket || f.auto_persistence;
  if (t.preference && to_trainer) t.preference->zero = f.zero;  // DPOTrainer makes its engine first, for which DeepSpeed reads "auto" as its default
  t.flat = f.flat.value_or(FlatShardConfig());
  t.ddp_find_unused = f.ddp_find_unused;
  t.wrap_blocks = f.wrap_blocks.value_or(true), t.reshard_after_forward = f.reshard_after_forward.value_or(true);
  t.offload_optimizer = f.offload_optimizer.value_or(f.offload);
  t.offload_parameters = f.offload_parameters.value_or(f.offload && gathers_weights(t.sharding));
  t.holds_outputs = litgpt;  // its loops name the logits
  t.max_grad_norm = f.max_grad_norm.value_or(pretrains ? 1.0 : 0.0);
  if (!(t.max_grad_norm >= 0 && t.max_grad_norm <= 1e9)) return fail("bad_value", "--max_grad_norm is out of range", "use 0 for no clipping, or a number up to 1e9", "--max_grad_norm");
  t.weight_decay = f.weight_decay.value_or(0);
  if (!(t.weight_decay >= 0 && t.weight_decay <= 1e9)) return fail("bad_value", "--weight_decay is out of range", "use 0 or a number up to 1e9", "--weight_decay");
  if (f.evaluates && t.framework == Framework::transformers) {
    if (auto ok = evaluation(d, f); !ok) return std::unexpected(ok.error());
  }
  t.max_steps = f.max_steps, t.max_tokens = f.max_tokens;
  constexpr std::int64_t kMostSteps = 1'000'000'000'000, kMostTokens = 1'000'000'000'000'000'000;
  if (t.max_steps && (*t.max_steps < 1 || *t.max_steps > kMostSteps)) return out_of_range("--max-steps", *t.max_steps, kMostSteps);
  if (t.max_tokens && (*t.max_tokens < 1 || *t.max_tokens > kMostTokens)) return out_of_range(t.framework == Framework::litgpt ? "train.max_tokens" : "--max-tokens", *t.max_tokens, kMostTokens);
  t.lora = f.lora;
  if (t.lora && t.lora->virtual_tokens == 0 && (t.lora->rank < 1 || t.lora->rank > 65536)) return out_of_range("--lora-rank", t.lora->rank, 65536);
  if (t.lora && a.classifies() && f.saves_head.value_or(true)) save_class_head(*t.lora, a);
  t.adapter_kernels = f.adapter_kernels.value_or(AdapterKernels());
  if (auto ok = adapters(t, a); !ok) return std::unexpected(ok.error());
  if (auto ok = shared_adapters(d, f); !ok) return std::unexpected(ok.error());
  if (auto ok = cut_loss(t, a); !ok) return std::unexpected(ok.error());
  if (litgpt && t.lora && t.lora->dropout == 0) t.lora->dropout = 0.05;
  return std::move(d.plan);
}

Training training_of(const TransformersRun& transformers, const Run& run) {
  Training t = transformers.training;
  t.device_batch_size = run.device_batch_size, t.seq_len = run.max_seq_len;
  t.world_size = run.world_size, t.grad_accum_steps = run.grad_accum_steps;
  if (t.rollouts) t.rollouts->resolve(t.device_batch_size, t.world_size, t.grad_accum_steps);
  return t;
}

namespace {

// bytes, in the unit that shows more than a tenth of it
std::string in_gib_or_mib(double bytes) {
  const bool gib = bytes >= 0.05 * (1 << 30);
  return tenths(bytes / (gib ? 1 << 30 : 1 << 20)) + (gib ? " GiB" : " MiB");
}

// What an evaluation takes that is not laid out, where that is more than a training step's; and of one that is, what it keeps where nobody says how many batches there are. Trainer makes all logits, Liger-Kernel or not, of as many rows as it is
// given, casts them to fp32 and takes their log-probabilities (ForCausalLMLoss). TRL's come from tiles there too.
std::optional<std::string> evaluation_warning(const Architecture& a, const Training& t) {
  if (!t.evaluation) return std::nullopt;
  const EvaluationRun& e = *t.evaluation;
  if (t.preference) {
    if (e.batch_size <= t.device_batch_size) return std::nullopt;
    return "the script evaluates, which is not laid out of preferences: " + std::string(t.preference->rows() == 2 ? "pairs" : "answers") + " are taken " + std::to_string(e.batch_size) + " at a time, more than the " + std::to_string(t.device_batch_size) + " of training";
  }
  const double logits = static_cast<double>(outputs_of(a, e.batch_size, t.seq_len));
  if (t.lays_out_evaluation()) {
    const bool all = e.keeps == EvaluationRun::Keeps::logits;
    if (e.keeps == EvaluationRun::Keeps::loss || a.head == HeadKind::sequences || e.batches || e.accumulation || t.head == HeadLoss::trl) return std::nullopt;
    const double each = static_cast<double>(t.world_size) * (all ? logits * (t.mixed != MixedPrecision::none ? 4.0 : static_cast<double>(size_of(t.weights))) : static_cast<double>(16 * e.batch_size * t.seq_len));
    return std::string("metrics are computed when an evaluation ends: until then ") + (all ? "logits" : "predictions") + (a.head == HeadKind::answers ? "" : " and labels") + " of every batch stay on the GPU, " + (each < 0.1 * (1 << 20) ? "less than 0.1 MiB" : in_gib_or_mib(each)) + " a batch, of which two are laid out; --max_eval_samples says how many there are, --eval_accumulation_steps moves them to the host";
  }
  if (!a.causal || a.classifies() || t.head == HeadLoss::trl || (e.batch_size <= t.device_batch_size && t.head == HeadLoss::logits)) return std::nullopt;
  const bool casts = t.mixed != MixedPrecision::none || t.weights != Dtype::fp32;
  return "the script evaluates, which " + std::string(t.compile ? "compiled" : "under " + std::string(name_of(t.sharding))) + " is not laid out: rows as long as those of training are taken " + std::to_string(e.batch_size) + " at a time, whose logits take " + in_gib_or_mib(logits * (casts ? 10.0 : 8.0)) + " beside weights and optimizer";
}

}  // namespace

Result<Workload> make_transformers_workload(const HfModel& given, const TransformersFlags& flags) {
  const auto built = model_of_run(given, flags);
  if (!built) return std::unexpected(built.error());
  const HfModel& model = *built;
  const auto plan = make_training(model, flags);
  if (!plan) return std::unexpected(plan.error());
  const Architecture& a = model.architecture;
  const Training& t = plan->training;
  if (t.sharding == Sharding::zero0 && !t.zero.split_groups && t.optimizer == OptimizerKind::adamw_fused && t.mixed != MixedPrecision::none) {
    return fail("unsupported_training", "DeepSpeed's own FusedAdam without ZeRO (stage 0), which joins all weights, is not laid out yet", "leave `optimizer` out of its file: Trainer then brings torch's; or use stage 1", "optimizer");
  }
  const bool fsdp = is_fsdp1(t.sharding) || t.sharding == Sharding::fsdp2;
  if ((t.offload_optimizer || t.offload_parameters) && !is_zero(t.sharding) && !fsdp) return fail("bad_value", "what is kept on the host has to be shared out", "add --parallel fsdp2 or zero3", "");
  if (fsdp && t.offload_optimizer != t.offload_parameters) return fail("bad_value", "FSDP keeps weights, gradients and the optimizer on the host, or none of them", "say fsdp_offload_params, or leave offload_optimizer and offload_param out", "");
  if (t.offload_parameters && fsdp && t.framework != Framework::transformers && t.framework != Framework::torchtune) return fail("unsupported_training", "keeping FSDP's states on the host is not laid out yet in " + std::string(name_of(t.framework)), "leave it out; the rest of the run is", "");
  if (t.quantized && is_fsdp1(t.sharding) && t.framework == Framework::litgpt) return fail("bad_value", "4-bit weights under FSDP1, which LitGPT refuses", "use one GPU, or --parallel ddp", "--parallel");
  if (t.offload_parameters && t.sharding != Sharding::zero3 && !fsdp) return fail("bad_value", "offload_param needs ZeRO stage 3", "use stage 3, or offload_optimizer alone", "zero_optimization.offload_param");
  Workload w;
  w.transformers = TransformersRun{a, t, flags.total_batch_size, flags.users, flags.padded || fills_rows(flags) || flags.users.cuts_one_text()};
  w.transformers->users.says_dtype = flags.weights || flags.users.script.empty() || flags.users.by_file();
  Model& m = w.model;
  m.version = NanochatVersion();
  m.depth = a.layers, m.width = a.width, m.heads = a.heads, m.kv_heads = a.kv_heads, m.head_dim = a.head_dim, m.ffn = a.ffn;
  m.vocab = m.padded_vocab = a.vocab;
  for (std::int64_t window : a.windows) m.windows.push_back(window == 0 ? t.seq_len : std::min(window, t.seq_len));
  m.parameters = parameters_of(a);
  for (Parameter& p : m.parameters) p.dtype = t.weights;
  Run& run = w.run;
  run.device_batch_size = t.device_batch_size, run.max_seq_len = t.seq_len, run.world_size = t.world_size, run.grad_accum_steps = t.grad_accum_steps;
  run.total_batch_size = t.rows() * t.seq_len * t.world_size * t.grad_accum_steps;
  run.compute = half_of(t.mixed).value_or(t.weights);
  run.compile = t.compile;
  run.torch = t.torch;
  run.core_metric_every = -1;
  w.assumptions = model.assumptions;
  w.assumptions.insert(w.assumptions.end(), plan->assumptions.begin(), plan->assumptions.end());
  w.warnings = a.notes;
  if (flags.head == HeadLoss::trl && t.head != HeadLoss::trl) w.warnings.push_back("TRL's head, which makes the logits in tiles, is not laid out under " + std::string(name_of(t.sharding)) + ": all logits are counted, more than there will be");
  if (t.rollouts) w.warnings.push_back(rollout_note(t));
  if (t.preference && t.preference->in_tiles()) w.warnings.push_back("prompts are taken to be of one token, so that logits are made of every token of " + std::string(t.preference->rows() == 2 ? "both answers" : "every answer") + ", filled up to --max-seq-len");
  if (t.preference && t.preference->of_rewards() && t.lora && a.classifies() && t.lora->saved_modules.empty()) w.warnings.push_back("the head of rewards is new and does not train: peft's task is CAUSAL_LM; --lora_task_type SEQ_CLS trains it in full");
  if (t.has_reference_model() && t.sharding == Sharding::fsdp2 && t.world_size > 1) {
    const double gathered = static_cast<double>(m.param_count()) * static_cast<double>(size_of(half_of(t.mixed).value_or(t.weights)));
    w.warnings.push_back("TRL calls fully_shard once on the reference model, not on its blocks: its forward pass gathers all of it at once, twice " + in_gib_or_mib(gathered) + "; with --parallel fsdp1 (fsdp_version: 1) or zero3 it is gathered block by block");
  }
  if (t.preference && t.preference->precomputed && t.sharding == Sharding::zero3) w.warnings.push_back("TRL computes the reference's log-probabilities by a DeepSpeed engine that stays around the model: its hooks let weights go earlier than is laid out here (2 % less in the one run that was recorded)");
  if (auto text = evaluation_warning(a, t)) w.warnings.push_back(std::move(*text));
  if (t.liger.any() && a.classifies()) w.warnings.push_back("Liger-Kernel puts its loss of words into whatever model Trainer hands it, and " + a.class_name + " stops there: laid out is --liger_kernel_config '{\"fused_linear_cross_entropy\": false}', the rest of its kernels");
  if (flags.liger.value_or(false) && !t.liger.any()) w.warnings.push_back("Liger-Kernel replaces nothing of " + a.model_type + ": the run is as without it");
  if (t.offload_optimizer || t.offload_parameters) w.warnings.push_back("the speed leaves out what goes to the host and back, and the optimizer's step there");
  if (t.framework == Framework::transformers && !has_word_in_trainer(t.optimizer)) w.warnings.push_back("--optimizer " + std::string(name_of(t.optimizer)) + " is no word of --optim: " + (t.optimizer == OptimizerKind::muon ? "make torch.optim.Muon of the matrices of blocks and AdamW of all else" : "make it") + " in your script, and hand it to Trainer as optimizers=(...)");
  if (t.ema) w.warnings.push_back("--ema is no argument of a script's: torch.optim.swa_utils.AveragedModel with get_ema_multi_avg_fn, updated after each step");
  if (t.framework == Framework::transformers && a.moe && t.is_transformers_5() && !groups_experts(a, t)) {
    w.warnings.push_back("the experts are laid out as transformers 4 runs them, one after another; 5 sorts the tokens and runs grouped products, which is not laid out with adapters of other matrices than attention's, or with kernels of Liger's or axolotl's in their place: 7 % less to 1 % more where both were compared");
    if (t.quantized) w.warnings.push_back("bitsandbytes leaves the experts in 16 bits since transformers 5, where they are no nn.Linear, and peft raises them to fp32; by --transformers 4.57.1 they are in 4 bits");
  }
  if (!t.is_transformers_5() && a.use_cache && !flags.use_cache.value_or(true)) w.warnings.push_back("--no-cache is no argument of a script's: set model.config.use_cache = False before it trains");
  if (is_zero(t.sharding) && !flags.zero) w.warnings.push_back("zero_optimization has DeepSpeed's defaults, such as a reduce_bucket_size of " + std::to_string(t.zero.reduce_bucket_size) + "; paste a command with --deepspeed FILE for others");
  if (!model.unused.empty()) w.warnings.push_back("fields of config.json that are not read: " + first_ten(model.unused, 60));
  return w;
}

Result<void> apply_deepspeed(const Document& config, std::string_view where, TransformersFlags& flags, KeysTold& told) {
  flags.deepspeed = true;
  Fields f(config, std::string(where));
  // never moves memory on the GPU while training
  for (const char* key : {"steps_per_print", "wall_clock_breakdown", "scheduler", "tensorboard", "wandb", "csv_monitor", "dump_state", "zero_allow_untested_optimizer", "train_batch_size"}) f.used(key);
  if (!left_open(f, "train_micro_batch_size_per_gpu")) flags.device_batch_size = f.whole("train_micro_batch_size_per_gpu", 1, kMostBatch);
  if (!left_open(f, "gradient_accumulation_steps")) flags.grad_accum_steps = f.whole("gradient_accumulation_steps", 1, kMostBatch);
  if (!left_open(f, "gradient_clipping")) flags.max_grad_norm = f.real("gradient_clipping", 0, 1e9);
  for (const auto& [key, kind] : {std::pair{"bf16", MixedPrecision::bf16}, std::pair{"fp16", MixedPrecision::fp16}}) {
    const Document* section = f.map(key);
    if (section == nullptr) continue;
    Fields g(*section, std::string(where), std::string(key) + ".");
    if (!left_open(g, "enabled") && g.yes("enabled").value_or(false)) flags.mixed = kind;
    for (const char* k : {"loss_scale", "loss_scale_window", "initial_scale_power", "hysteresis", "min_loss_scale", "consecutive_hysteresis"}) g.used(k);
    g.tell(told);
    if (g.error()) return std::unexpected(*g.error());
  }
  if (const Document* optimizer = f.map("optimizer")) {
    Fields g(*optimizer, std::string(where), "optimizer.");
    g.used("params");
    const auto type = g.text("type");
    flags.zero.emplace().split_groups = false;  // transformers hands it all parameters in one group
    if (type && *type != "auto" && !flags.optimizer) {
      // its own FusedAdam, which as torch's fused AdamW makes nothing but moments; torch's, one tensor after the other at once, when asked for
      const std::string word = to_lower(*type);
      const Document* params = optimizer->find("params");
      const Document* torch_adam = params == nullptr ? nullptr : params->find("torch_adam");
      const bool fused = torch_adam == nullptr || torch_adam->kind != Document::Kind::boolean || !torch_adam->flag;
      const bool adam = word == "adam" || word == "adamw";
      const auto kind = optimizer_of(adam ? (fused ? "adamw_torch_fused" : "adamw") : word, std::string(where) + ": optimizer.type");
      if (!kind) return std::unexpected(kind.error());
      flags.optimizer = *kind;
    }
    g.tell(told);
    if (g.error()) return std::unexpected(*g.error());
  }
  if (const Document* zero = f.map("zero_optimization")) {
    Fields g(*zero, std::string(where), "zero_optimization.");
    flags.sharding = zero_stage(g.whole("stage", 0, 3).value_or(0));
    const bool split = !flags.zero || flags.zero->split_groups;
    zero_fields(g, flags);
    flags.zero->split_groups = split;
    // gathers in place, whole groups at once (all_gather_into_tensor); the rest is about files and messages
    for (const char* k : {"allgather_partitions", "allgather_bucket_size", "use_multi_rank_bucket_allreduce", "load_from_fp32_weights", "stage3_gather_fp16_weights_on_model_save", "log_trace_cache_warnings"}) g.used(k);
    flags.offload_optimizer = on_host(g, "offload_optimizer", where, "zero_optimization.", told);
    flags.offload_parameters = on_host(g, "offload_param", where, "zero_optimization.", told);
    for (const char* k : {"stage3_gather_16bit_weights_on_model_save", "ignore_unused_parameters"}) g.used(k);
    g.tell(told);
    if (g.error()) return std::unexpected(*g.error());
  } else {
    flags.sharding = Sharding::zero0;
  }
  f.tell(told);
  if (f.error()) return std::unexpected(*f.error());
  return {};
}

namespace {

// A word; without quotes YAML reads no and NO as false.
std::string word_or_no(Fields& f, std::string_view key) {
  const Document* v = f.find(key);
  if (v == nullptr || (v->kind == Document::Kind::boolean && !v->flag)) return "no";
  return f.text(key).value_or("no");
}

// launch.py puts the section's prefix before the keys that lack it.
Document with_prefix(Document section, std::string_view prefix) {
  for (auto& [key, value] : section.fields) {
    if (!key.starts_with(prefix)) key.insert(0, prefix);
  }
  return section;
}

// accelerate's fields for FullyShardedDataParallel; what is not said of prefetching is none.
Result<void> flat_fields(Fields& g, FlatShardConfig& flat, std::string_view where) {
  const auto prefetch = backward_prefetch_of(g.text("fsdp_backward_prefetch").value_or("NO_PREFETCH"), std::string(where) + ": fsdp_config.fsdp_backward_prefetch");
  if (!prefetch) return std::unexpected(prefetch.error());
  flat.backward_prefetch = *prefetch;
  flat.forward_prefetch = g.yes("fsdp_forward_prefetch").value_or(false);
  flat.original_parameters = g.yes("fsdp_use_orig_params").value_or(true);
  flat.loads_on_host = g.yes("fsdp_cpu_ram_efficient_loading").value_or(true);
  return {};
}

}  // namespace

Result<void> apply_fsdp(const Document& section, std::string_view where, TransformersFlags& flags, KeysTold& told) {
  const Document full = with_prefix(section, "fsdp_");
  Fields g(full, std::string(where), "fsdp_config.");
  const Document* strategy = g.find("fsdp_sharding_strategy");
  std::string name = strategy == nullptr ? "FULL_SHARD" : strategy->kind == Document::Kind::whole ? (strategy->whole == 2 ? "SHARD_GRAD_OP" : strategy->whole == 1 ? "FULL_SHARD" : std::to_string(strategy->whole)) : strategy->text;
  const Document* reshards = g.find("fsdp_reshard_after_forward");
  const bool named = reshards != nullptr && reshards->kind == Document::Kind::text;  // version 1's newer word for the strategy
  if (named && strategy == nullptr) name = reshards->text;
  const bool again = named || g.yes("fsdp_reshard_after_forward").value_or(true);
  if (name != "FULL_SHARD" && name != "SHARD_GRAD_OP") return fail("bad_config", "fsdp_sharding_strategy is " + name.substr(0, 40) + ", which dryfit does not describe", "FULL_SHARD and SHARD_GRAD_OP are described", std::string(where) + ": fsdp_config.fsdp_sharding_strategy");
  if (g.whole("fsdp_version", 1, 2).value_or(1) == 2) {
    flags.sharding = Sharding::fsdp2;
    flags.reshard_after_forward = name == "FULL_SHARD" && again;
  } else {
    flags.sharding = name == "FULL_SHARD" && again ? Sharding::fsdp1 : Sharding::fsdp1_grad_op;
    if (const auto ok = flat_fields(g, flags.flat.emplace(), where); !ok) return std::unexpected(ok.error());
  }
  const std::string policy = g.text("fsdp_auto_wrap_policy").value_or("NO_WRAP");
  flags.wrap_blocks = policy != "NO_WRAP";
  if (policy != "NO_WRAP" && policy != "TRANSFORMER_BASED_WRAP") g.left("fsdp_auto_wrap_policy");  // by size is laid out by blocks
  flags.offload_parameters = flags.offload_optimizer = g.yes("fsdp_offload_params").value_or(false);
  if (g.yes("fsdp_activation_checkpointing").value_or(false)) flags.recompute = Recompute::full;
  for (const char* k : {"fsdp_state_dict_type", "fsdp_cpu_ram_efficient_loading", "fsdp_sync_module_states", "fsdp_transformer_layer_cls_to_wrap", "fsdp_use_orig_params", "fsdp_backward_prefetch", "fsdp_forward_prefetch"}) g.used(k);
  g.tell(told);
  if (g.error()) return std::unexpected(*g.error());
  return {};
}

Result<void> apply_accelerate(const Document& config, std::string_view where, TransformersFlags& flags, KeysTold& told) {
  Fields f(config, std::string(where));
  for (const char* key : {"compute_environment", "debug", "machine_rank", "main_training_function", "num_machines", "rdzv_backend", "same_network", "tpu_env", "tpu_use_cluster", "tpu_use_sudo", "tpu_name", "tpu_zone", "use_cpu", "main_process_ip",
                          "main_process_port", "gpu_ids", "enable_cpu_affinity", "downcast_bf16", "command_file", "commands"}) f.used(key);
  if (const auto n = f.whole("num_processes", 1, kMostGpus)) flags.gpus = n;
  if (const std::string word = word_or_no(f, "mixed_precision"); word != "no") {
    if (word != "bf16" && word != "fp16") return fail("bad_config", "mixed_precision is \"" + word.substr(0, 40) + "\", which dryfit does not describe", "no, bf16 and fp16 are described", std::string(where) + ": mixed_precision");
    flags.mixed = word == "bf16" ? MixedPrecision::bf16 : MixedPrecision::fp16;
  }
  const std::string kind = word_or_no(f, "distributed_type");
  if (kind != "no" && kind != "NO" && kind != "MULTI_GPU" && kind != "FSDP" && kind != "DEEPSPEED") {
    return fail("bad_config", "distributed_type is \"" + kind.substr(0, 40) + "\", which dryfit does not describe", "NO, MULTI_GPU, FSDP and DEEPSPEED are described", std::string(where) + ": distributed_type");
  }
  if (kind == "MULTI_GPU") flags.sharding = Sharding::ddp;
  if (to_lower(kind) == "no" && config.find("distributed_type") != nullptr) flags.gpus = 1;  // the simple launcher starts one process, whatever num_processes says
  if (const Document* parallel = config.find("parallelism_config"); parallel != nullptr) {
    for (const auto& [key, value] : parallel->fields) {
      if (value.whole > 1 && (key.ends_with("tp_size") || key.ends_with("cp_size") || key.ends_with("sp_size") || key.ends_with("dp_replicate_size"))) {
        return fail("unsupported_training", std::string(where) + ": parallelism_config." + key + " asks for tensor, context or replicated parallelism, not laid out yet", "weights shared out over all GPUs are: leave it out, or set it to 1", std::string(where) + ": parallelism_config." + key);
      }
    }
  }
  for (const char* key : {"dynamo_config", "fp8_config", "ipex_config", "megatron_lm_config", "mpirun_config", "parallelism_config"}) {
    if (const Document* section = config.find(key); section != nullptr && section->fields.empty()) f.used(key);
  }
  if (to_lower(word_or_no(f, "dynamo_backend")) != "no") f.left("dynamo_backend");
  if (const Document* fsdp = f.map("fsdp_config"); fsdp != nullptr && kind == "FSDP") {
    if (const auto ok = apply_fsdp(*fsdp, where, flags, told); !ok) return ok;
  }
  if (const Document* section = f.map("deepspeed_config"); section != nullptr && kind == "DEEPSPEED") {
    flags.deepspeed = true;
    Fields g(*section, std::string(where), "deepspeed_config.");
    flags.sharding = zero_stage(g.whole("zero_stage", 0, 3).value_or(2));
    flags.offload_optimizer = g.text("offload_optimizer_device").value_or("none") != "none";
    flags.offload_parameters = g.text("offload_param_device").value_or("none") != "none";
    if (const auto n = g.whole("gradient_accumulation_steps", 1, kMostBatch)) flags.grad_accum_steps = n;
    if (const auto x = g.real("gradient_clipping", 0, 1e9)) flags.max_grad_norm = x;
    if (auto file = g.text("deepspeed_config_file")) flags.deepspeed_file = std::move(*file);
    for (const char* k : {"zero3_init_flag", "zero3_save_16bit_model", "deepspeed_multinode_launcher"}) g.used(k);
    g.tell(told);
    if (g.error()) return std::unexpected(*g.error());
  }
  f.tell(told);
  if (f.error()) return std::unexpected(*f.error());
  return {};
}

}  // namespace dryfit
