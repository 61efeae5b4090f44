// See torchtitan.hpp. Source: pytorch/torchtitan v0.2.2: config/job_config.py, models/llama3/__init__.py, train.py, distributed/{parallel_dims,
// activation_checkpoint}.py, components/optimizer.py.
#include "workload/torchtitan.hpp"

#include <algorithm>
#include <array>

#include "base/embedded.hpp"
#include "base/text.hpp"

namespace dryfit {

namespace {

constexpr std::int64_t kMostOfTorchtitan = 1 << 22;

// llama3_args, by the shapes' names here; debugmodel is in no catalogue.
struct TitanFlavor { std::string_view name, preset; };
constexpr std::array kTitanFlavors = {TitanFlavor{"debugmodel", ""}, TitanFlavor{"8B", "llama-3.1-8b"}, TitanFlavor{"70B", "llama-3.1-70b"}, TitanFlavor{"405B", "llama-3.1-405b"}};

// Sections that move no memory on the GPU while training.
constexpr std::string_view kTitanSectionsWithoutMemory[] = {"job", "profiling", "metrics", "lr_scheduler", "checkpoint", "comm", "debug"};

// A section, empty where the file has none; what its keys tell is told with it.
class TitanSection {
 public:
  TitanSection(Fields& all, std::string_view where, std::string_view name) : section_(all.map(name)), fields_(section_ == nullptr ? empty_ : *section_, std::string(where), std::string(name) + ".") {}
  TitanSection(const TitanSection&) = delete;
  TitanSection& operator=(const TitanSection&) = delete;
  Fields* operator->() { return &fields_; }
  Fields& fields() { return fields_; }
  bool holds(std::string_view key) const { return section_ != nullptr && section_->find(key) != nullptr; }

 private:
  const Document* section_;
  Document empty_ = [] {
    Document d;
    d.kind = Document::Kind::map;
    return d;
  }();
  Fields fields_;
};

Document debugmodel() {
  Document d;
  d.kind = Document::Kind::map;
  const auto word = [](std::string_view text) {
    Document out;
    out.kind = Document::Kind::text, out.text = std::string(text);
    return out;
  };
  const auto number = [](std::int64_t n) {
    Document out;
    out.kind = Document::Kind::whole, out.whole = n, out.real = static_cast<double>(n);
    return out;
  };
  d.at("model_type") = word("llama");
  Document& owners = d.at("architectures");
  owners.kind = Document::Kind::list;
  owners.items.push_back(word("LlamaForCausalLM"));
  for (const auto& [key, value] : {std::pair{"hidden_size", 256}, std::pair{"intermediate_size", 768}, std::pair{"num_hidden_layers", 6}, std::pair{"num_attention_heads", 16}, std::pair{"num_key_value_heads", 16}, std::pair{"vocab_size", 2048}, std::pair{"max_position_embeddings", 131072}}) d.at(key) = number(value);
  return d;
}

class TorchtitanReader {
 public:
  TorchtitanReader(const Document& config, std::string_view where, std::optional<std::int64_t> gpus, TransformersFlags& flags) : where_(where), gpus_(gpus), flags_(flags), f_(config, std::string(where)) {}

  Result<void> read(KeysTold& told) {
    if (f_.error()) return std::unexpected(*f_.error());
    for (std::string_view section : kTitanSectionsWithoutMemory) f_.used(section);
    f_.used("quantize");  // its converters are asked for by model.converters
    flags_.framework = Framework::torchtitan;
    flags_.reentrant = false;
    for (const auto step : {&TorchtitanReader::model, &TorchtitanReader::training, &TorchtitanReader::parallelism, &TorchtitanReader::checkpoints, &TorchtitanReader::compiled, &TorchtitanReader::optimizer, &TorchtitanReader::others}) {
      if (auto ok = (this->*step)(told); !ok) return ok;
      if (f_.error()) return std::unexpected(*f_.error());
    }
    flags_.torchtitan = titan_;
    f_.tell(told);
    return {};
  }

 private:
  Result<void> done(TitanSection& s, KeysTold& told) const {
    s->tell(told);
    if (s->error()) return std::unexpected(*s->error());
    return {};
  }
  // A word of a few.
  static std::string one_of(TitanSection& s, std::string_view key, std::string_view fallback, std::initializer_list<std::string_view> words) {
    std::string word = s->text(key).value_or(std::string(fallback));
    if (std::ranges::find(words, word) != words.end()) return word;
    std::string all;
    for (std::string_view w : words) all += (all.empty() ? "" : ", ") + std::string(w);
    s->fault(key, "is \"" + word.substr(0, 40) + "\"", "torchtitan's are " + all);
    return std::string(fallback);
  }

  Result<void> model(KeysTold& told) {
    TitanSection s(f_, where_, "model");
    const std::string name = s->text("name").value_or("llama3"), flavor = s->text("flavor").value_or("debugmodel");
    for (const char* key : {"hf_assets_path", "tokenizer_path", "print_after_conversion"}) s->used(key);
    const std::vector<std::string> converters = s->texts("converters", 16);
    if (auto ok = done(s, told); !ok) return ok;
    if (name != "llama3") return f_.not_laid_out("model.name", "\"" + name.substr(0, 40) + "\"", "torchtitan's llama3 is laid out; other models can be captured: python -m dryfit.capture (docs/capture.md)");
    const auto known = std::ranges::find(kTitanFlavors, flavor, &TitanFlavor::name);
    if (known == kTitanFlavors.end()) {
      if (flavor.find("flex") != std::string::npos || flavor.find("varlen") != std::string::npos) return f_.not_laid_out("model.flavor", "\"" + flavor.substr(0, 40) + "\"", "SDPA's flavors are: debugmodel, 8B, 70B, 405B");
      std::vector<std::string_view> names;
      for (const TitanFlavor& one : kTitanFlavors) names.push_back(one.name);
      return fail("bad_config", f_.place("model.flavor") + " is \"" + flavor.substr(0, 40) + "\", no flavor of torchtitan's llama3", did_you_mean(flavor, names, "debugmodel, 8B, 70B and 405B are"), f_.place("model.flavor"));
    }
    if (!converters.empty()) return f_.not_laid_out("model.converters", "\"" + converters[0].substr(0, 40) + "\"", "leave it out; the rest of the run is: model.converters = []");
    if (known->preset.empty()) flags_.described = debugmodel();
    else flags_.model = std::string(known->preset);
    return {};
  }

  Result<void> training(KeysTold& told) {
    TitanSection s(f_, where_, "training");
    for (const char* key : {"dataset", "dataset_path", "steps", "gc_freq", "gc_debug", "dataloader", "mixed_precision_reduce"}) s->used(key);
    flags_.device_batch_size = s->whole("local_batch_size", 1, kMostOfTorchtitan).value_or(8);
    flags_.max_seq_len = s->whole("seq_len", 1, kMostOfTorchtitan).value_or(2048);
    flags_.max_grad_norm = s->real("max_norm", 0, 1e9).value_or(1.0);
    if (!s.holds("max_norm") && !s->error()) told.assumed.emplace_back("training.max_norm 1.0, torchtitan's default");
    global_batch_ = s->whole("global_batch_size", -1, kMostOfTorchtitan).value_or(-1);
    flags_.max_steps = s->whole("steps", 1, 1'000'000'000'000).value_or(10000);
    flags_.weights = one_of(s, "dtype", "float32", {"float32", "bfloat16"}) == "float32" ? Dtype::fp32 : Dtype::bf16;
    const bool narrow = one_of(s, "mixed_precision_param", "bfloat16", {"bfloat16", "float32"}) == "bfloat16";
    const bool host = s->yes("enable_cpu_offload").value_or(false);
    if (auto ok = done(s, told); !ok) return ok;
    if (host) return f_.not_laid_out("training.enable_cpu_offload", "weights and states on the host", "training.enable_cpu_offload = false is");
    if (!narrow) return f_.not_laid_out("training.mixed_precision_param", "products in fp32, whose attention SDPA has no fast kernel for", "training.mixed_precision_param = \"bfloat16\" is");
    flags_.mixed = *flags_.weights == Dtype::fp32 ? MixedPrecision::bf16 : MixedPrecision::none;
    return {};
  }

  // ParallelDims.__post_init__, and the trainer's micro-steps.
  Result<void> parallelism(KeysTold& told) {
    TitanSection s(f_, where_, "parallelism");
    for (const auto& [key, what] : {std::pair{"tensor_parallel_degree", "tensor parallelism"}, std::pair{"pipeline_parallel_degree", "pipeline parallelism"}, std::pair{"context_parallel_degree", "context parallelism"}, std::pair{"expert_parallel_degree", "expert parallelism"}}) {
      if (s->whole(key, 1, 65536).value_or(1) > 1) return f_.not_laid_out(std::string("parallelism.") + key, what, std::string("parallelism.") + key + " = 1 is laid out: weights shared out over all GPUs (FSDP2)");
    }
    const std::int64_t replicas = s->whole("data_parallel_replicate_degree", 1, 65536).value_or(1), shards = s->whole("data_parallel_shard_degree", -1, 65536).value_or(-1);
    const std::string reshard = one_of(s, "fsdp_reshard_after_forward", "default", {"default", "always", "never"});
    for (const char* key : {"disable_loss_parallel", "enable_async_tensor_parallel", "pipeline_parallel_schedule", "pipeline_parallel_schedule_csv", "pipeline_parallel_microbatch_size", "pipeline_parallel_first_stage_less_layers", "pipeline_parallel_last_stage_less_layers", "pipeline_parallel_layers_per_stage", "module_fqns_per_model_part",
                            "pipeline_parallel_expert_parallel_overlap", "context_parallel_rotate_method", "context_parallel_load_balancer", "expert_tensor_parallel_degree", "expert_parallel_comm_backend"}) s->used(key);
    if (auto ok = done(s, told); !ok) return ok;
    if (replicas > 1) return f_.not_laid_out("parallelism.data_parallel_replicate_degree", "replicas", "data_parallel_replicate_degree = 1 and data_parallel_shard_degree = -1 are laid out: FSDP2 over all GPUs");
    if (shards == 0 || (shards > 0 && gpus_ && shards != *gpus_)) return fail("bad_config", f_.place("parallelism.data_parallel_shard_degree") + " is " + std::to_string(shards) + ", and the run has " + (gpus_ ? std::to_string(*gpus_) : "more") + " GPUs, which torchtitan refuses", "-1 means all GPUs", f_.place("parallelism.data_parallel_shard_degree"));
    if (shards > 0 && !gpus_) flags_.gpus = shards;
    flags_.reshard_after_forward = reshard != "never";
    titan_.reshards_head = reshard == "always";
    if (global_batch_ <= 0) {
      flags_.grad_accum_steps = 1;
      return {};
    }
    const std::int64_t micro = *flags_.device_batch_size * gpus_.value_or(flags_.gpus.value_or(1));
    if (global_batch_ % micro != 0) return fail("bad_config", f_.place("training.global_batch_size") + " is " + std::to_string(global_batch_) + ", no multiple of local_batch_size x GPUs = " + std::to_string(micro) + ", which torchtitan refuses", "-1 means one micro-step", f_.place("training.global_batch_size"));
    flags_.grad_accum_steps = global_batch_ / micro;
    return {};
  }

  Result<void> checkpoints(KeysTold& told) {
    TitanSection s(f_, where_, "activation_checkpoint");
    for (const char* key : {"preserve_rng_state", "determinism_check", "debug", "memory_budget", "visualize_memory_budget_pareto"}) s->used(key);
    const std::string mode = one_of(s, "mode", "selective", {"none", "selective", "full", "memory_budget"});
    const std::string option = s->text("selective_ac_option").value_or("2");
    titan_.early_stop = s->yes("early_stop").value_or(false);
    const std::vector<std::string> forced = s.holds("per_op_sac_force_recompute_mm_shapes_by_fqns") ? s->texts("per_op_sac_force_recompute_mm_shapes_by_fqns", 64) : std::vector<std::string>();
    if (!s.holds("mode") && !s->error()) told.assumed.emplace_back("activation_checkpoint.mode \"selective\" and selective_ac_option \"" + option.substr(0, 20) + "\", torchtitan's default" + (s.holds("selective_ac_option") ? "" : ": every second block runs again"));
    if (auto ok = done(s, told); !ok) return ok;
    flags_.recompute = mode == "full" ? Recompute::full : Recompute::none;
    if (mode == "memory_budget") return f_.not_laid_out("activation_checkpoint.mode", "a memory budget of the compiler's", "\"none\", \"selective\" and \"full\" are");
    if (mode != "selective") return {};
    using Selective = TorchtitanRun::Selective;
    titan_.selective = option == "op" ? Selective::ops : Selective::layers;
    if (titan_.selective == Selective::ops) {
      if (std::ranges::any_of(forced, [](const std::string& name) { return name != "moe.router.gate"; })) return f_.not_laid_out("activation_checkpoint.per_op_sac_force_recompute_mm_shapes_by_fqns", "products of some shapes to run again", "leave it out; every second product is kept");
      return {};
    }
    const auto every = parse_int(option, f_.place("activation_checkpoint.selective_ac_option"));
    if (!every || *every < 0 || *every > 65536) return fail("bad_config", f_.place("activation_checkpoint.selective_ac_option") + " is \"" + option.substr(0, 40) + "\"", "\"op\", or a number such as \"2\": every second block runs again", f_.place("activation_checkpoint.selective_ac_option"));
    titan_.every = *every;
    return {};
  }

  Result<void> compiled(KeysTold& told) {
    TitanSection s(f_, where_, "compile");
    const bool on = s->yes("enable").value_or(false);
    std::vector<std::string> components{"model", "loss"};
    if (s.holds("components")) components = s->texts("components", 16);
    const std::string backend = s->text("backend").value_or("inductor");
    if (auto ok = done(s, told); !ok) return ok;
    if (!on) return {};
    if (backend != "inductor") return f_.not_laid_out("compile.backend", "\"" + backend.substr(0, 40) + "\"", "\"inductor\" is torchtitan's default");
    for (const std::string& one : components) {
      if (one != "model" && one != "loss") return fail("bad_config", f_.place("compile.components") + " holds \"" + one.substr(0, 40) + "\"", "model and loss are torchtitan's", f_.place("compile.components"));
      (one == "model" ? titan_.compile_blocks : titan_.compile_loss) = true;
    }
    flags_.compile = titan_.compile_blocks || titan_.compile_loss;
    return {};
  }

  Result<void> optimizer(KeysTold& told) {
    TitanSection s(f_, where_, "optimizer");
    for (const char* key : {"lr", "beta1", "beta2", "eps", "weight_decay"}) s->used(key);
    one_of(s, "name", "AdamW", {"AdamW", "Adam"});
    const std::string way = one_of(s, "implementation", "fused", {"fused", "foreach", "for-loop"});
    flags_.optimizer = way == "fused" ? OptimizerKind::adamw_fused : way == "foreach" ? OptimizerKind::adamw : OptimizerKind::adamw_loop;
    const bool inside = s->yes("early_step_in_backward").value_or(false);
    if (auto ok = done(s, told); !ok) return ok;
    if (inside) return f_.not_laid_out("optimizer.early_step_in_backward", "a step for each parameter in backward", "early_step_in_backward = false is");
    return {};
  }

  // Validation runs without gradients, on batches of its own.
  Result<void> others(KeysTold& told) {
    {
      TitanSection s(f_, where_, "validation");
      for (const char* key : {"dataset", "dataset_path", "freq", "steps", "local_batch_size", "seq_len", "dataloader"}) s->used(key);
      if (s->yes("enable").value_or(false)) s->left("enable");
      if (auto ok = done(s, told); !ok) return ok;
    }
    TitanSection s(f_, where_, "fault_tolerance");
    if (s->yes("enable").value_or(false)) return f_.not_laid_out("fault_tolerance.enable", "torchft", "fault_tolerance.enable = false is");
    return {};
  }

  std::string_view where_;
  std::optional<std::int64_t> gpus_;
  TransformersFlags& flags_;
  Fields f_;
  TorchtitanRun titan_;
  std::int64_t global_batch_ = -1;
};

}  // namespace

std::string_view torchtitan_config(std::string_view file) {
  for (const std::string_view line : split(embedded_torchtitan_configs_tsv, '\n')) {
    if (!file.empty() && line.size() > file.size() && line.starts_with(file) && line[file.size()] == '\t') return line.substr(file.size() + 1);
  }
  return {};
}

Result<void> apply_torchtitan(const Document& config, std::string_view where, std::optional<std::int64_t> gpus, TransformersFlags& flags, KeysTold& told) { return TorchtitanReader(config, where, gpus, flags).read(told); }

}  // namespace dryfit
