// See torchtune.hpp. Source: pytorch/torchtune v0.6.1: recipes/*_single_device.py, models/*/_model_builders.py, config/_utils.py (_merge_yaml_and_cli_args).
#include "workload/torchtune.hpp"

#include <algorithm>
#include <array>

#include "base/embedded.hpp"
#include "base/text.hpp"

namespace dryfit {

namespace {

constexpr std::int64_t kMostOfTorchtune = 1 << 22;

// torchtune's builders: its module, the shape that they build by the name it has here, rows of the rotary table, and whether with adapters every layer
// makes a table of its own.
struct TorchtuneBuilder { std::string_view module, name, preset; std::int64_t positions; bool layer_tables; };
constexpr std::array kTorchtuneBuilders = {
    TorchtuneBuilder{"llama2", "llama2_7b", "llama-2-7b", 4096, true}, TorchtuneBuilder{"llama2", "llama2_13b", "llama-2-13b", 4096, true}, TorchtuneBuilder{"llama2", "llama2_70b", "llama-2-70b", 4096, true},
    TorchtuneBuilder{"llama3", "llama3_8b", "llama-3-8b", 8192, true}, TorchtuneBuilder{"llama3", "llama3_70b", "llama-3-70b", 8192, true},
    TorchtuneBuilder{"llama3_1", "llama3_1_8b", "llama-3.1-8b", 131072, false}, TorchtuneBuilder{"llama3_1", "llama3_1_70b", "llama-3.1-70b", 131072, false}, TorchtuneBuilder{"llama3_1", "llama3_1_405b", "llama-3.1-405b", 131072, false},
    TorchtuneBuilder{"llama3_2", "llama3_2_1b", "llama-3.2-1b", 131072, false}, TorchtuneBuilder{"llama3_2", "llama3_2_3b", "llama-3.2-3b", 131072, false}, TorchtuneBuilder{"llama3_3", "llama3_3_70b", "llama-3.3-70b", 131072, false},
    TorchtuneBuilder{"mistral", "mistral_7b", "mistral-7b-v0.1", 32768, true},
    TorchtuneBuilder{"qwen2", "qwen2_0_5b", "qwen2-0.5b", 32768, true}, TorchtuneBuilder{"qwen2", "qwen2_1_5b", "qwen2-1.5b", 32768, true}, TorchtuneBuilder{"qwen2", "qwen2_7b", "qwen2-7b", 32768, true},
    TorchtuneBuilder{"qwen2_5", "qwen2_5_0_5b", "qwen2.5-0.5b", 32768, true}, TorchtuneBuilder{"qwen2_5", "qwen2_5_1_5b_base", "qwen2.5-1.5b", 131072, true}, TorchtuneBuilder{"qwen2_5", "qwen2_5_1_5b_instruct", "qwen2.5-1.5b", 32768, true},
    TorchtuneBuilder{"qwen2_5", "qwen2_5_3b", "qwen2.5-3b", 32768, true}, TorchtuneBuilder{"qwen2_5", "qwen2_5_7b_base", "qwen2.5-7b", 131072, true}, TorchtuneBuilder{"qwen2_5", "qwen2_5_7b_instruct", "qwen2.5-7b", 32768, true},
    TorchtuneBuilder{"qwen2_5", "qwen2_5_14b_base", "qwen2.5-14b", 131072, true}, TorchtuneBuilder{"qwen2_5", "qwen2_5_14b_instruct", "qwen2.5-14b", 32768, true},
    TorchtuneBuilder{"qwen2_5", "qwen2_5_32b_base", "qwen2.5-32b", 131072, true}, TorchtuneBuilder{"qwen2_5", "qwen2_5_32b_instruct", "qwen2.5-32b", 32768, true},
    TorchtuneBuilder{"qwen2_5", "qwen2_5_72b_base", "qwen2.5-72b", 131072, true}, TorchtuneBuilder{"qwen2_5", "qwen2_5_72b_instruct", "qwen2.5-72b", 32768, true}};

// Keys that move no memory on the GPU while training.
constexpr std::string_view kTorchtuneKeysWithoutMemory[] = {"output_dir", "seed", "shuffle", "checkpointer", "resume_from_checkpoint", "save_adapter_weights_only", "epochs", "max_steps_per_epoch", "lr_scheduler", "metric_logger", "log_every_n_steps", "log_peak_memory_stats",
                                               "log_level", "profiler", "low_cpu_ram", "cudnn_deterministic_mode", "collate_fn", "enable_async_checkpointing"};

constexpr std::string_view kAdaptedModules[] = {"q_proj", "k_proj", "v_proj", "output_proj"};

class TorchtuneReader {
 public:
  TorchtuneReader(const Document& config, std::string_view where, TorchtuneRecipe recipe, TransformersFlags& flags) : where_(where), recipe_(recipe), flags_(flags), f_(config, std::string(where)) {}

  Result<void> read(KeysTold& told) {
    if (f_.error()) return std::unexpected(*f_.error());
    for (std::string_view key : kTorchtuneKeysWithoutMemory) f_.used(key);
    tune_.recipe = recipe_;
    flags_.framework = Framework::torchtune;
    flags_.reentrant = false;
    for (const auto step : {&TorchtuneReader::shards, &TorchtuneReader::compiled, &TorchtuneReader::precision, &TorchtuneReader::model, &TorchtuneReader::data, &TorchtuneReader::batch, &TorchtuneReader::optimizer, &TorchtuneReader::loss, &TorchtuneReader::checkpoints}) {
      if (auto ok = (this->*step)(told); !ok) return ok;
      if (f_.error()) return std::unexpected(*f_.error());
    }
    flags_.torchtune = tune_;
    f_.tell(told);
    return {};
  }

 private:

  // A section's component, "torch.optim.AdamW", without its modules.
  static std::string last_of(const std::string& path) { return path.substr(path.rfind('.') + 1); }

  Result<void> compiled(KeysTold&) {
    const Document* compile = f_.find("compile");
    if (compile == nullptr || (compile->kind == Document::Kind::boolean && !compile->flag)) return {};
    if (compile->kind != Document::Kind::boolean) f_.fault("compile", "is " + shown(*compile), "true and false are torchtune 0.6's");
    flags_.compile = true;
    return {};
  }

  Result<void> precision(KeysTold&) {
    const std::string device = f_.text("device").value_or("cuda");
    if (!device.starts_with("cuda")) f_.fault("device", "is \"" + device.substr(0, 20) + "\"", "dryfit is about NVIDIA GPUs: device: cuda");
    const std::string word = f_.text("dtype").value_or("bf16");
    if (word != "bf16" && word != "fp32") f_.fault("dtype", "is \"" + word.substr(0, 20) + "\"", "the recipes take bf16 and fp32");
    flags_.weights = word == "fp32" ? Dtype::fp32 : Dtype::bf16;
    return {};
  }

  Result<void> model(KeysTold& told) {
    const Document* section = f_.map("model");
    if (section == nullptr) return fail("bad_config", f_.place("model") + " is missing", "name torchtune's builder: model: {_component_: torchtune.models.llama3_2.llama3_2_3b}", f_.place("model"));
    Fields m(*section, std::string(where_), "model.");
    const std::string component = m.text("_component_").value_or("");
    std::string name = last_of(component);
    const bool quantized = name.starts_with("qlora_"), adapts = quantized || name.starts_with("lora_");
    if (adapts) name.erase(0, quantized ? 6 : 5);
    const auto builder = std::ranges::find(kTorchtuneBuilders, name, &TorchtuneBuilder::name);
    if (builder == kTorchtuneBuilders.end()) {
      std::vector<std::string_view> known;
      for (const TorchtuneBuilder& b : kTorchtuneBuilders) known.push_back(b.name);
      return fail("bad_config", f_.place("model._component_") + " is \"" + component.substr(0, 80) + "\", a model dryfit does not describe", did_you_mean(name, known, "Llama 2, 3, 3.1, 3.2 and 3.3, Mistral 7B, Qwen 2 and 2.5 are, by torchtune's builders"), f_.place("model._component_"));
    }
    const bool wants_adapters = recipe_ == TorchtuneRecipe::lora_single_device || recipe_ == TorchtuneRecipe::lora_distributed;
    const std::string where = several() ? "_distributed" : "_single_device";
    if (adapts != wants_adapters) return fail("bad_config", f_.place("model._component_") + " is " + component.substr(0, 80) + (adapts ? ", whose adapters the recipe " : ", which has no adapters, and the recipe ") + std::string(name_of(recipe_)) + (adapts ? " does not know" : " trains them"), (adapts ? "use lora_finetune" + where : "use full_finetune" + where + ", or a builder that begins with lora_"), f_.place("model._component_"));
    flags_.model = std::string(builder->preset);
    tune_.positions = builder->positions;
    tune_.layer_tables = adapts && builder->layer_tables;
    if (adapts) {
      flags_.quantized = quantized || m.yes("quantize_base").value_or(false);
      if (auto ok = adapters(m); !ok) return ok;
    }
    m.tell(told);
    if (m.error()) return std::unexpected(*m.error());
    return {};
  }

  Result<void> adapters(Fields& m) {
    if (m.yes("use_dora").value_or(false)) return f_.not_laid_out("model.use_dora", "DoRA", "LoRA is laid out");
    Lora lora;
    lora.upcast_rest = false;
    lora.rank = m.whole("lora_rank", 1, 65536).value_or(8);
    m.used("lora_alpha");
    lora.dropout = m.real("lora_dropout", 0, 1).value_or(0);
    for (std::string& module : m.texts("lora_attn_modules", 16)) {
      if (std::ranges::find(kAdaptedModules, module) == std::end(kAdaptedModules)) m.fault("lora_attn_modules", "holds \"" + module.substr(0, 40) + "\"", "torchtune adapts q_proj, k_proj, v_proj and output_proj");
      lora.targets.push_back(module == "output_proj" ? "o_proj" : std::move(module));
    }
    if (m.yes("apply_lora_to_mlp").value_or(false)) lora.targets.emplace_back("mlp");
    if (m.yes("apply_lora_to_output").value_or(false)) lora.targets.emplace_back("lm_head");
    if (lora.targets.empty() && !m.error()) m.fault("lora_attn_modules", "names nothing to adapt", "lora_attn_modules: ['q_proj', 'v_proj']");
    flags_.lora = lora;
    return {};
  }

  // Rows are as long as their longest text, at most the tokenizer's length; packed rows are all of that length.
  Result<void> data(KeysTold& told) {
    if (const Document* section = f_.map("tokenizer")) {
      Fields t(*section, std::string(where_), "tokenizer.");
      const auto length = t.whole("max_seq_len", 1, kMostOfTorchtune);
      if (length) flags_.max_seq_len = *length;
      for (const Document::Field& one : section->fields) t.used(one.first == "max_seq_len" ? "_component_" : one.first);
      t.tell(told);
      if (t.error()) return std::unexpected(*t.error());
    }
    const Document* section = f_.find("dataset");
    if (section == nullptr || section->kind != Document::Kind::map) {
      f_.used("dataset");
      return {};
    }
    Fields d(*section, std::string(where_), "dataset.");
    const bool packed = d.yes("packed").value_or(false);
    for (const Document::Field& one : section->fields) d.used(one.first == "packed" ? "_component_" : one.first);
    d.tell(told);
    if (d.error()) return std::unexpected(*d.error());
    if (packed) tune_.packing = TorchtuneRun::Packing::flex;
    if (packed && !flags_.max_seq_len) told.assumed.push_back("tokenizer.max_seq_len: packing needs one, and the file has none; --max-seq-len N says it");
    return {};
  }

  Result<void> batch(KeysTold&) {
    flags_.device_batch_size = f_.needed("batch_size", 1, kMostOfTorchtune);
    flags_.grad_accum_steps = f_.whole("gradient_accumulation_steps", 1, kMostOfTorchtune).value_or(1);
    tune_.optimizer_in_backward = f_.yes("optimizer_in_bwd").value_or(false);
    const Document* clip = f_.find("clip_grad_norm");  // 'inf' only logs the norm, which takes the same
    const bool logs = clip != nullptr && clip->kind == Document::Kind::text;
    flags_.max_grad_norm = clip == nullptr ? 0.0 : logs ? 1.0 : f_.real("clip_grad_norm", 0, 1e9).value_or(0);
    if (logs && clip->text != "inf") f_.fault("clip_grad_norm", "is " + shown(*clip), "null, a number and 'inf' are torchtune's");
    if (!tune_.optimizer_in_backward) return {};
    if (flags_.lora) return fail("bad_config", f_.place("optimizer_in_bwd") + ": the recipes of adapters have none", "leave it out", f_.place("optimizer_in_bwd"));
    if (*flags_.grad_accum_steps > 1 || clip != nullptr) return fail("bad_config", f_.place("optimizer_in_bwd") + " beside " + (clip != nullptr ? "clip_grad_norm" : "gradient_accumulation_steps") + ", which torchtune refuses", "set gradient_accumulation_steps=1 and clip_grad_norm=null, or optimizer_in_bwd=False", f_.place("optimizer_in_bwd"));
    return {};
  }

  Result<void> optimizer(KeysTold& told) {
    const Document* section = f_.map("optimizer");
    if (section == nullptr) return fail("bad_config", f_.place("optimizer") + " is missing", "optimizer: {_component_: torch.optim.AdamW, fused: True}", f_.place("optimizer"));
    Fields o(*section, std::string(where_), "optimizer.");
    for (const char* key : {"lr", "weight_decay", "betas", "eps", "beta1", "beta2"}) o.used(key);
    const std::string component = o.text("_component_").value_or("");
    const bool torch = component.starts_with("torch.optim."), bnb = component.starts_with("bitsandbytes.");
    const std::string name = last_of(component);
    const bool fused = o.yes("fused").value_or(false), foreach_ = o.yes("foreach").value_or(true);
    const double momentum = o.real("momentum", 0, 1).value_or(0);
    if (torch && (name == "AdamW" || name == "Adam")) flags_.optimizer = fused ? OptimizerKind::adamw_fused : foreach_ ? OptimizerKind::adamw : OptimizerKind::adamw_loop;
    else if (torch && name == "SGD") flags_.optimizer = momentum > 0 ? OptimizerKind::sgd_momentum : OptimizerKind::sgd;
    else if (bnb && (name == "AdamW8bit" || name == "Adam8bit")) flags_.optimizer = OptimizerKind::adamw_8bit;
    else if (bnb && (name == "PagedAdamW8bit" || name == "PagedAdam8bit")) flags_.optimizer = OptimizerKind::paged_adamw_8bit;
    else if (bnb && (name == "PagedAdamW" || name == "PagedAdamW32bit" || name == "PagedAdam")) flags_.optimizer = OptimizerKind::paged_adamw;
    else return f_.not_laid_out("optimizer._component_", "\"" + component.substr(0, 60) + "\"", "torch.optim.AdamW and SGD, bitsandbytes.optim.AdamW8bit, PagedAdamW and PagedAdamW8bit are laid out");
    if (copies_to_decay(*flags_.optimizer)) flags_.weight_decay = o.real("weight_decay", 0, 1e9);
    o.tell(told);
    if (o.error()) return std::unexpected(*o.error());
    return {};
  }

  Result<void> loss(KeysTold& told) {
    const Document* section = f_.map("loss");
    if (section == nullptr) return fail("bad_config", f_.place("loss") + " is missing", "loss: {_component_: torchtune.modules.loss.CEWithChunkedOutputLoss}", f_.place("loss"));
    Fields l(*section, std::string(where_), "loss.");
    l.used("ignore_index");
    const std::string component = l.text("_component_").value_or(""), name = last_of(component);
    const auto chunks = l.whole("num_output_chunks", 1, 65536);
    if (name == "CEWithChunkedOutputLoss") tune_.output_chunks = chunks.value_or(8);
    else if (component == "torch.nn.CrossEntropyLoss") tune_.output_chunks = 0;
    else return f_.not_laid_out("loss._component_", "\"" + component.substr(0, 60) + "\"", "torchtune.modules.loss.CEWithChunkedOutputLoss and torch.nn.CrossEntropyLoss are laid out");
    l.tell(told);
    if (l.error()) return std::unexpected(*l.error());
    return {};
  }

  bool several() const { return recipe_ == TorchtuneRecipe::full_distributed || recipe_ == TorchtuneRecipe::lora_distributed; }

  // fully_shard of the recipes for several GPUs.
  Result<void> shards(KeysTold&) {
    if (!several()) return {};
    flags_.sharding = Sharding::fsdp2;
    flags_.reshard_after_forward = f_.yes("fsdp_reshard_after_forward").value_or(true);
    if (f_.yes("fsdp_cpu_offload").value_or(false)) flags_.offload_parameters = flags_.offload_optimizer = true;
    if (f_.whole("tensor_parallel_dim", 1, 4096).value_or(1) > 1) return f_.not_laid_out("tensor_parallel_dim", "tensor parallelism", "tensor_parallel_dim=1 is laid out");
    f_.used("tensor_parallel_plan");
    const Document* selective = f_.find("ac_mode");
    if (selective != nullptr && selective->kind != Document::Kind::null) return f_.not_laid_out("ac_mode", "selective checkpoints", "enable_activation_checkpointing is laid out");
    for (const std::string& module : f_.texts("custom_sharded_layers", 16)) {
      if (module == "tok_embeddings") tune_.embedding_apart = true;
      else if (module == "output") tune_.head_apart = true;
      else return f_.not_laid_out("custom_sharded_layers", "a unit for \"" + module.substr(0, 40) + "\"", "tok_embeddings and output are laid out, beside the layers");
    }
    return {};
  }

  Result<void> checkpoints(KeysTold&) {
    const bool again = f_.yes("enable_activation_checkpointing").value_or(false);
    flags_.recompute = again ? Recompute::full : Recompute::none;
    tune_.offload_activations = f_.yes("enable_activation_offloading").value_or(false);
    if (tune_.offload_activations && !again) return fail("bad_config", f_.place("enable_activation_offloading") + " without enable_activation_checkpointing, which torchtune refuses", "set enable_activation_checkpointing=True", f_.place("enable_activation_offloading"));
    return {};
  }

  std::string_view where_;
  TorchtuneRecipe recipe_;
  TransformersFlags& flags_;
  Fields f_;
  TorchtuneRun tune_;
};

}  // namespace

Result<void> set_torchtune_key(Document& config, std::string_view key, Document value, std::string_view where) {
  Document* at = &config;
  for (;;) {
    if (at->kind == Document::Kind::null) at->kind = Document::Kind::map;
    if (at->kind != Document::Kind::map) return fail("bad_value", std::string(where) + " sets a part of what is no section of the configuration", "sections are dotted: optimizer.fused=True", std::string(where));
    const std::size_t dot = key.find('.');
    Document& next = at->at(key.substr(0, dot));
    if (dot == std::string_view::npos) {
      // a component's name stands for the section's
      if (next.kind == Document::Kind::map && value.kind == Document::Kind::text) next.at("_component_") = std::move(value);
      else next = std::move(value);
      return {};
    }
    at = &next;
    key.remove_prefix(dot + 1);
  }
}

std::string_view torchtune_config(std::string_view name) {
  for (const std::string_view line : split(embedded_torchtune_configs_tsv, '\n')) {
    if (line.size() > name.size() && line.starts_with(name) && line[name.size()] == '\t') return line.substr(name.size() + 1);
  }
  return {};
}

std::vector<std::string_view> torchtune_config_names() {
  std::vector<std::string_view> names;
  for (const std::string_view line : split(embedded_torchtune_configs_tsv, '\n')) {
    if (!line.empty() && !line.starts_with("#")) names.push_back(line.substr(0, line.find('\t')));
  }
  return names;
}

Result<void> apply_torchtune(const Document& config, std::string_view where, TorchtuneRecipe recipe, TransformersFlags& flags, KeysTold& told) { return TorchtuneReader(config, where, recipe, flags).read(told); }

}  // namespace dryfit
