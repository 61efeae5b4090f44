// See model_source.hpp.
#include "cli/model_source.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "doctor/log_text.hpp"
#include "plan/argument_file.hpp"
#include "plan/axolotl_command.hpp"
#include "plan/launch.hpp"
#include "plan/litgpt_command.hpp"
#include "plan/llamafactory_command.hpp"
#include "plan/megatron_command.hpp"
#include "plan/torchtitan_command.hpp"
#include "plan/torchtune_command.hpp"
#include "plan/trainer_command.hpp"
#include "plan/trl_command.hpp"
#include "workload/axolotl.hpp"
#include "workload/llamafactory.hpp"
#include "workload/probe_document.hpp"
#include "workload/probe_presets.hpp"
#include "workload/torchtitan.hpp"
#include "workload/torchtune.hpp"

namespace dryfit::cli {

namespace {

constexpr std::size_t kMostConfig = 16 << 20;  // more is no configuration; document_from_json says so

ListedModel listed(const ModelPreset& p) { return {p.name, p.repository + ", " + p.date, p.model}; }

std::string shown_name(const std::string& path) { return path == "-" ? "standard input" : path; }

// What reads a file decides what it is: accelerate and the Trainer's scripts take all that does not end in .json as YAML.
using TextReader = Result<Document> (*)(std::string_view text, std::string_view name);
TextReader reader_of(const std::string& path) { return path.ends_with(".json") ? document_from_json : document_from_yaml; }

Result<Document> read_document(const std::string& path, const Env& env, TextReader reader = document_from_json) {
  if (path.starts_with("https://") || path.starts_with("http://")) return fail("unreadable_file", "'" + path.substr(0, 200) + "' is an address, and dryfit reads files alone", "download it and name the file", path);
  std::string text;
  const auto read = env.stream_file(path, [&](std::string_view chunk, const ReadProgress&) {
    text += chunk.substr(0, kMostConfig - std::min(kMostConfig, text.size()));
    return text.size() < kMostConfig;
  });
  if (!read) return std::unexpected(read.error());
  return reader(text, shown_name(path));
}

// The words of a pasted command, without stray continuations.
std::vector<std::string> pasted_words(const Options& options) {
  std::vector<std::string> out;
  for (const std::string& w : options.pasted) {
    if (w != "\\") out.push_back(w);
  }
  return out;
}

void tell(const std::string& name, const KeysTold& told, TransformersRequest& request) {
  std::string used;
  for (const std::string& key : told.used) used += (used.empty() ? "" : ", ") + printable(key, 60);
  if (!used.empty()) request.told.push_back("note: used of " + name + ": " + used);
  for (const std::string& value : told.assumed) request.told.push_back("using " + value);
  for (const std::string& key : told.unused) request.notes.push_back((name.empty() ? "" : name + ": ") + printable(key, 80));
}

Result<void> apply_document(const Document& document, const std::string& name, auto apply, TransformersFlags& flags, TransformersRequest& request) {
  KeysTold told;
  if (auto ok = apply(document, name, flags, told); !ok) return ok;
  tell(name, told, request);
  return {};
}

Result<void> apply_file(const std::string& path, TextReader reader, auto apply, const Env& env, TransformersRequest& request) {
  const auto document = read_document(path, env, reader);
  if (!document) return std::unexpected(document.error());
  return apply_document(*document, shown_name(path), apply, request.flags, request);
}

// The arguments in the file that a command names; none when it names none.
Result<std::vector<Argument>> filed_arguments(const LaunchLine& launch, bool nested, const Env& env) {
  const auto path = argument_file(launch);
  if (!path) return std::vector<Argument>();
  const auto document = read_document(*path, env, reader_of(*path));
  if (!document) return std::unexpected(document.error());
  return arguments_in(*document, shown_name(*path), nested);
}

// --deepspeed takes a file, or the configuration itself.
Result<void> apply_deepspeed_file(const std::string& path, const Env& env, TransformersRequest& request) {
  if (!path.starts_with("{")) return apply_file(path, document_from_json, apply_deepspeed, env, request);
  const auto document = document_from_json(path, "--deepspeed");
  if (!document) return std::unexpected(document.error());
  return apply_document(*document, "--deepspeed", apply_deepspeed, request.flags, request);
}

// What `accelerate config` wrote, which accelerate launch reads unless it is told another file (commands/config/config_args.py); empty where there is none.
std::string accelerate_default(const Env& env) {
  const auto set = [&](const char* name) { return env.variable(name).value_or(""); };
  const std::string home = set("HOME"), cache = set("XDG_CACHE_HOME"), hub = set("HF_HOME");
  if (hub.empty() && cache.empty() && home.empty()) return "";
  const std::string path = (!hub.empty() ? hub : (!cache.empty() ? cache : home + "/.cache") + "/huggingface") + "/accelerate/default_config.yaml";
  return env.stream_file(path, [](std::string_view, const ReadProgress&) { return false; }) ? path : "";
}

// What is set in `over` wins.
template <class Value>
void lay(std::optional<Value>& under, const std::optional<Value>& over) {
  if (over) under = over;
}
void lay(TransformersFlags& under, const TransformersFlags& over) {
  lay(under.transformers, over.transformers), lay(under.model, over.model), lay(under.device_batch_size, over.device_batch_size), lay(under.grad_accum_steps, over.grad_accum_steps), lay(under.max_seq_len, over.max_seq_len), lay(under.gpus, over.gpus), lay(under.total_batch_size, over.total_batch_size);
  lay(under.weights, over.weights), lay(under.mixed, over.mixed), lay(under.attention, over.attention), lay(under.recompute, over.recompute), lay(under.reentrant, over.reentrant);
  lay(under.compile, over.compile), lay(under.cold_caches, over.cold_caches), lay(under.use_cache, over.use_cache), lay(under.liger, over.liger), lay(under.liger_parts, over.liger_parts), lay(under.adapter_kernels, over.adapter_kernels), lay(under.packed, over.packed), lay(under.padded, over.padded), lay(under.ema, over.ema), lay(under.head, over.head), lay(under.preference, over.preference), lay(under.rollouts, over.rollouts), lay(under.task, over.task), lay(under.labels, over.labels), lay(under.saves_head, over.saves_head), lay(under.filled, over.filled), lay(under.sharding, over.sharding), lay(under.offload_optimizer, over.offload_optimizer), lay(under.offload_parameters, over.offload_parameters);
  lay(under.wrap_blocks, over.wrap_blocks), lay(under.reshard_after_forward, over.reshard_after_forward), lay(under.ddp_find_unused, over.ddp_find_unused);
  lay(under.max_grad_norm, over.max_grad_norm), lay(under.weight_decay, over.weight_decay), lay(under.lora, over.lora), lay(under.framework, over.framework), lay(under.max_steps, over.max_steps), lay(under.max_tokens, over.max_tokens), lay(under.zero, over.zero), lay(under.flat, over.flat);
  const bool theirs = under.zero && !under.zero->split_groups;  // an optimizer in DeepSpeed's file: --optim is then not asked
  if (!theirs) lay(under.optimizer, over.optimizer);
  lay(under.litgpt_script, over.litgpt_script), lay(under.torchtune, over.torchtune), lay(under.torchtitan, over.torchtitan), lay(under.described, over.described);
  if (!over.users.script.empty()) under.users = over.users;
  if (!over.workspaces.empty()) under.workspaces = over.workspaces;
  under.deepspeed = under.deepspeed || over.deepspeed;
  under.fsdp_unsaid = under.fsdp_unsaid || over.fsdp_unsaid;
  lay(under.quant_storage, over.quant_storage), lay(under.eval_batch_size, over.eval_batch_size), lay(under.eval_accumulation_steps, over.eval_accumulation_steps), lay(under.eval_samples, over.eval_samples), lay(under.eval_keeps, over.eval_keeps);
  under.evaluates = under.evaluates || over.evaluates, under.eval_on_start = under.eval_on_start || over.eval_on_start;
  under.quantized = under.quantized || over.quantized, under.double_quantized = under.double_quantized || over.double_quantized;
}

// A command's accelerate and DeepSpeed files, then what it says itself; deepspeed: a file that is named elsewhere.
Result<void> apply_launched(const LaunchLine& launch, const TrainerCommand& command, const Env& env, TransformersRequest& request, const std::optional<std::string>& deepspeed = {}) {
  const std::string accelerate = command.accelerate_file ? *command.accelerate_file : launch.launcher == "accelerate" ? accelerate_default(env) : "";
  if (const auto shipped = trl_accelerate_config(accelerate); !shipped.empty() && is_trl(launch)) {
    const std::string name = "TRL's " + accelerate + ".yaml";
    const auto document = document_from_yaml(shipped, name);
    if (!document) return std::unexpected(document.error());
    if (auto ok = apply_document(*document, name, apply_accelerate, request.flags, request); !ok) return ok;
  } else if (!accelerate.empty()) {
    if (auto ok = apply_file(accelerate, reader_of(accelerate), apply_accelerate, env, request); !ok) return ok;
  }
  const auto& file = deepspeed ? deepspeed : command.deepspeed_file ? command.deepspeed_file : request.flags.deepspeed_file;
  if (file) {
    if (auto ok = apply_deepspeed_file(*file, env, request); !ok) return ok;
  }
  lay(request.flags, command.flags);
  request.alloc_conf = command.alloc_conf;
  request.notes.insert(request.notes.end(), command.ignored.begin(), command.ignored.end());
  request.unclear = command.unclear;
  return {};
}

// axolotl's file stands over what its launcher says, and the command's own words over the file.
Result<void> apply_axolotl_command(const LaunchLine& launch, const Env& env, TransformersRequest& request) {
  const auto command = read_axolotl_command(launch);
  if (!command) return std::unexpected(command.error());
  auto document = read_document(command->file, env, document_from_yaml);
  if (!document) return std::unexpected(document.error());
  for (const Argument& a : command->over) {
    auto value = document_from_yaml(a.values[0], place_of(a));
    if (!value) return std::unexpected(value.error());
    if (document->kind == Document::Kind::map) document->at(a.name) = std::move(*value);
  }
  TransformersFlags flags;
  if (auto ok = apply_document(*document, shown_name(command->file), apply_axolotl, flags, request); !ok) return ok;
  if (auto ok = apply_launched(launch, command->launched, env, request, flags.deepspeed_file); !ok) return ok;
  lay(request.flags, flags);
  return {};
}

// LLaMA-Factory's file and the command's own words over it, or these alone; they stand over what the launcher says.
Result<void> apply_llamafactory_command(const LaunchLine& launch, const Env& env, const std::optional<std::int64_t>& gpus, TransformersRequest& request) {
  const auto command = read_llamafactory_command(launch, gpus);
  if (!command) return std::unexpected(command.error());
  Document arguments;
  arguments.kind = Document::Kind::map;
  if (!command->file.empty()) {
    auto read = read_document(command->file, env, reader_of(command->file));
    if (!read) return std::unexpected(read.error());
    arguments = std::move(*read);
  }
  for (const Argument& a : command->over) {
    auto value = document_from_yaml(a.values[0], place_of(a));
    if (!value) return std::unexpected(value.error());
    if (arguments.kind == Document::Kind::map) arguments.at(a.name) = std::move(*value);
  }
  TransformersFlags flags;
  if (auto ok = apply_document(arguments, command->file.empty() ? "LLaMA-Factory's command" : shown_name(command->file), apply_llamafactory, flags, request); !ok) return ok;
  if (auto ok = apply_launched(launch, command->launched, env, request, flags.deepspeed_file); !ok) return ok;
  if (request.flags.sharding == Sharding::fsdp2) flags.reentrant = false;  // its prepare_model_for_training
  lay(request.flags, flags);
  request.flags.users = UsersCommand{{"llamafactory"}, {}, {}};
  return {};
}

Result<void> set_torchtune_words(Document& config, std::span<const Argument> words) {
  for (const Argument& a : words) {
    auto value = document_from_yaml(a.values[0], a.name);
    if (!value) return std::unexpected(value.error());
    if (auto ok = set_torchtune_key(config, a.name, std::move(*value), a.name); !ok) return ok;
  }
  return {};
}

// The configuration that a command names: one that ships with torchtune by its name, or the user's file.
Result<Document> torchtune_document(const std::string& name, const Env& env, TransformersRequest& request) {
  const std::string_view shipped = torchtune_config(name);
  if (shipped.empty()) {
    const bool file = name.ends_with(".yaml") || name.ends_with(".yml");
    if (!file) return fail("bad_value", "no configuration of torchtune 0.6.1 that dryfit knows is called '" + printable(name, 80) + "'", did_you_mean(name, torchtune_config_names(), "copy it out and give the file: tune cp " + printable(name, 80) + " my.yaml"), "--config");
    return read_document(name, env, document_from_yaml);
  }
  request.told.push_back("using " + name + " as torchtune 0.6.1 ships it; of another version: tune cp " + name + " my.yaml");
  Document config;
  config.kind = Document::Kind::map;
  std::vector<Argument> words;
  for (const std::string_view word : split(shipped, ' ')) words.push_back({std::string(word.substr(0, word.find('='))), {std::string(word.substr(word.find('=') + 1))}, {}});
  if (auto ok = set_torchtune_words(config, words); !ok) return std::unexpected(ok.error());
  return config;
}

// The launcher's words, the configuration, and the command's own words over that.
Result<void> apply_torchtune_command(const LaunchLine& launch, const Env& env, TransformersRequest& request) {
  const auto command = read_torchtune_command(launch);
  if (!command) return std::unexpected(command.error());
  auto config = torchtune_document(command->config, env, request);
  if (!config) return std::unexpected(config.error());
  if (auto ok = set_torchtune_words(*config, command->over); !ok) return ok;
  const auto apply = [&](const Document& document, std::string_view where, TransformersFlags& flags, KeysTold& told) { return apply_torchtune(document, where, command->recipe, flags, told); };
  TransformersFlags flags;
  if (auto ok = apply_document(*config, shown_name(command->config), apply, flags, request); !ok) return ok;
  flags.torchtune->config = command->config;
  for (const Argument& a : command->over) flags.torchtune->config += "\n" + a.name + "=" + a.values[0];
  if (auto ok = apply_launched(launch, command->launched, env, request); !ok) return ok;
  lay(request.flags, flags);
  return {};
}

// The file that a command names: the user's, or where it is not here and torchtitan ships one of that name, what of that moves memory.
Result<Document> torchtitan_document(const std::string& path, const Env& env, TransformersRequest& request) {
  Document config;
  config.kind = Document::Kind::map;
  if (path.empty()) return config;
  auto read = read_document(path, env, document_from_toml);
  const std::string_view file = std::string_view(path).substr(path.rfind('/') + 1), shipped = torchtitan_config(file);
  if (read || shipped.empty() || read.error().code != "unreadable_file") return read;
  request.told.push_back("using " + std::string(file) + " as torchtitan 0.2.2 ships it, for it is not here; name your own file if it differs");
  for (const std::string_view word : split(shipped, ' ')) {
    const std::string_view key = word.substr(0, word.find('='));
    if (auto ok = set_torchtune_key(config, key, torchtitan_value(key, word.substr(key.size() + 1)), file); !ok) return std::unexpected(ok.error());
  }
  return config;
}

// The launcher's words, the file, and the command's own words over that.
Result<void> apply_torchtitan_command(const LaunchLine& launch, const Env& env, const std::optional<std::int64_t>& told_gpus, TransformersRequest& request) {
  auto command = read_torchtitan_command(launch);
  if (!command) return std::unexpected(command.error());
  auto config = torchtitan_document(command->config, env, request);
  if (!config) return std::unexpected(config.error());
  for (const TorchtitanCommand::Word& w : command->over) {
    if (auto ok = set_torchtune_key(*config, w.key, w.value, "--" + w.key); !ok) return ok;
  }
  const std::optional<std::int64_t> gpus = told_gpus ? told_gpus : launch.gpus;
  const auto apply = [&](const Document& document, std::string_view where, TransformersFlags& flags, KeysTold& told) { return apply_torchtitan(document, where, gpus, flags, told); };
  TransformersFlags flags;
  if (auto ok = apply_document(*config, command->config.empty() ? "torchtitan's command" : shown_name(command->config), apply, flags, request); !ok) return ok;
  flags.torchtitan->config = command->config;
  for (const TorchtitanCommand::Word& w : command->over) flags.torchtitan->config += "\n" + w.text;
  if (auto ok = apply_launched(launch, command->launched, env, request); !ok) return ok;
  lay(request.flags, flags);
  return {};
}

Result<void> apply_command(const LaunchLine& launch, const Env& env, const std::optional<std::int64_t>& gpus, TransformersRequest& request) {
  if (is_axolotl_command(launch)) return apply_axolotl_command(launch, env, request);
  if (is_torchtune_command(launch)) return apply_torchtune_command(launch, env, request);
  if (is_torchtitan_command(launch)) return apply_torchtitan_command(launch, env, gpus, request);
  if (launch.script == "llamafactory") return apply_llamafactory_command(launch, env, gpus, request);
  const bool litgpt = is_litgpt_command(launch);
  if (!litgpt && !is_trainer_command(launch)) return fail("unsupported_script", "'" + launch.script.substr(0, 60) + "' has none of the Trainer's arguments", "paste a command of a script around transformers' Trainer, of axolotl, LitGPT or Megatron-LM, or leave --model and --config out for nanochat", "pasted command");
  const auto filed = filed_arguments(launch, litgpt, env);
  if (!filed) return std::unexpected(filed.error());
  if (is_llamafactory_command(launch, *filed)) return apply_llamafactory_command(launch, env, gpus, request);
  const auto command = litgpt ? read_litgpt_command(launch, *filed) : read_trainer_command(launch, *filed);
  if (!command) return std::unexpected(command.error());
  tell(filed->empty() ? "" : filed->front().file, command->told, request);
  return apply_launched(launch, *command, env, request);
}

Result<void> yes_or_no(const Options& o, const std::string& flag, std::optional<bool>& field) {
  const auto text = o.get(flag);
  if (!text) return {};
  if (*text != "0" && *text != "1") return fail("bad_value", "--" + flag + " " + text->substr(0, 30) + " is neither 0 nor 1", "write --" + flag + " 1", "--" + flag);
  field = *text == "1";
  return {};
}

Result<void> own_flags(const Options& o, TransformersFlags& f) {
  struct Whole { const char* flag; std::optional<std::int64_t> TransformersFlags::*field; };
  for (const Whole& w : {Whole{"device-batch-size", &TransformersFlags::device_batch_size}, Whole{"grad-accum-steps", &TransformersFlags::grad_accum_steps}, Whole{"max-seq-len", &TransformersFlags::max_seq_len}, Whole{"gpus", &TransformersFlags::gpus}, Whole{"total-batch-size", &TransformersFlags::total_batch_size}, Whole{"max-steps", &TransformersFlags::max_steps}}) {
    const auto n = number_of(o, w.flag);
    if (!n) return std::unexpected(n.error());
    if (*n) f.*w.field = *n;
  }
  if (const auto text = o.get("max-tokens")) {
    const auto n = parse_count(*text, "--max-tokens");
    if (!n) return std::unexpected(n.error());
    f.max_tokens = *n;
  }
  if (o.has("max-steps") && o.has("max-tokens")) return fail("bad_value", "--max-steps and --max-tokens say the same", "give one of them", "--max-tokens");
  if (o.has("max-tokens")) f.max_steps.reset();  // a pasted command's
  if (o.has("max-steps")) f.max_tokens.reset();
  if (o.has("total-batch-size") && !o.has("grad-accum-steps")) f.grad_accum_steps.reset();  // a pasted command's follow
  const auto word = [&](const char* flag, auto& field, auto read) -> Result<void> {
    const auto text = o.get(flag);
    if (!text) return {};
    const auto value = read(*text, "--" + std::string(flag));
    if (!value) return std::unexpected(value.error());
    field = *value;
    return {};
  };
  if (auto ok = word("optimizer", f.optimizer, optimizer_of); !ok) return ok;
  if (auto ok = word("parallel", f.sharding, sharding_of); !ok) return ok;
  if (auto ok = word("framework", f.framework, framework_of); !ok) return ok;
  if (auto ok = word("dtype", f.weights, weights_dtype_of); !ok) return ok;
  if (auto ok = word("attention", f.attention, [](const std::string& text, const std::string& where) { return attention_code_of(text == "flash" ? "flash_attention_2" : text == "fa3" ? "flash_attention_3" : text, where); }); !ok) return ok;
  if (const auto text = o.get("mixed")) {
    if (*text != "bf16" && *text != "fp16" && *text != "none") return fail("bad_value", "--mixed " + text->substr(0, 30) + " is not known", "use bf16, fp16 or none", "--mixed");
    f.mixed = *text == "bf16" ? MixedPrecision::bf16 : *text == "fp16" ? MixedPrecision::fp16 : MixedPrecision::none;
  }
  if (const auto text = o.get("recompute")) {
    if (*text != "none" && *text != "full") return fail("bad_value", "--recompute " + text->substr(0, 30) + " is not known", "use none or full", "--recompute");
    f.recompute = *text == "full" ? Recompute::full : Recompute::none;
    if (f.torchtitan) f.torchtitan->selective = TorchtitanRun::Selective::none;
  }
  f.torch = o.get("torch"), f.transformers = o.get("transformers");
  if (auto ok = yes_or_no(o, "compile", f.compile); !ok) return ok;
  if (auto ok = yes_or_no(o, "cold-caches", f.cold_caches); !ok) return ok;
  const auto rank = number_of(o, "lora-rank");
  if (!rank) return std::unexpected(rank.error());
  if (*rank == 0) {
    f.lora.reset();
    f.all_weights = true;
  } else if (*rank) {
    if (!f.lora) f.lora.emplace();
    f.lora->rank = **rank;
  }
  f.quantized = f.quantized || o.has("load-in-4bit");
  if (o.has("dora")) {
    if (!f.lora || f.lora->rank == 0) return fail("bad_value", "--dora without LoRA", "add --lora-rank 16", "--dora");
    f.lora->dora = true;
  }
  if (auto ok = yes_or_no(o, "liger", f.liger); !ok) return ok;
  if (auto ok = yes_or_no(o, "padded", f.padded); !ok) return ok;
  if (o.has("no-cache")) f.use_cache = false;
  if (o.has("ema")) f.ema = true;
  if (const auto text = o.get("script")) {
    if (*text == "grpo") f.rollouts.emplace();
    else f.preference = preference_of(*text);
    if (!f.preference && !f.rollouts) return fail("bad_value", "--script " + text->substr(0, 30) + " is none of a Hugging Face model's", "TRL's dpo, kto, reward and grpo are, and dpo-precomputed and kto-precomputed (precompute_ref_log_probs); leave it out for supervised training", "--script");
    if (f.preference && f.preference->of_rewards()) f.task = HeadKind::sequences, f.labels = 1;
  }
  if (o.has("offload")) f.offload = true;
  for (const char* other : {"depth", "aspect-ratio", "head-dim", "window-pattern", "vocab-size", "nanochat", "fp8", "core-metric-every", "core-metric-max-per-task"}) {
    if (o.has(other)) return fail("bad_value", "--" + std::string(other) + " is nanochat's, and this is a Hugging Face model", "leave it out", "--" + std::string(other));
  }
  return {};
}

// Flags before the -- win over the command's arguments; those that name a model or another way to train have no place beside it. A device batch
// of -1 is left to the search.
Result<void> own_flags(const Options& o, MegatronArguments& a, TransformersFlags& flags) {
  if (const auto text = o.get("max-seq-len")) a.set("seq-length", *text);
  if (const auto text = o.get("device-batch-size")) {
    const auto n = parse_int(*text, "--device-batch-size");
    if (!n) return std::unexpected(n.error());
    flags.device_batch_size = *n;
    a.set("micro-batch-size", *n == -1 ? "1" : *text);
  }
  if (const auto text = o.get("gpus")) {
    const auto n = parse_int(*text, "--gpus");
    if (!n) return std::unexpected(n.error());
    a.gpus = *n;
  }
  for (const char* other : {"model", "config", "optimizer", "parallel", "framework", "dtype", "mixed", "attention", "recompute", "compile", "lora-rank", "load-in-4bit", "dora", "liger", "no-cache", "padded", "ema", "script", "offload", "grad-accum-steps", "depth", "nanochat", "vocab-size", "total-batch-size"}) {
    if (o.has(other)) return fail("bad_value", "--" + std::string(other) + " beside a command of Megatron-LM, whose arguments say it", "leave it out, and change the command's own arguments", "--" + std::string(other));
  }
  return {};
}

}  // namespace

Result<bool> asks_for_transformers(const Options& options) {
  if (options.has("model") || options.has("config")) return true;
  if (!options.has_pasted) return false;
  const auto launch = parse_launch(pasted_words(options));
  return launch && !program_of_models(*launch).empty();  // a faulty one is told by nanochat's reader
}

namespace {

// Trainer's --fsdp, once it is known which transformers reads it.
void settle_fsdp(TransformersRequest& request) {
  TransformersFlags& f = request.flags;
  if (!trainer_takes_fsdp2(f.transformers.value_or(std::string(kNewestTransformers))) || !f.sharding || !is_fsdp1(*f.sharding)) return;
  take_fsdp2(f);
  f.wrap_blocks = true;
  request.told.push_back("using FSDP 2 for --fsdp (since transformers 5.10 where fsdp_config says no version)");
}

}  // namespace

Result<TransformersRequest> transformers_request(const Options& options, const Env& env) {
  TransformersRequest request;
  if (options.has_pasted) {
    const auto launch = parse_launch(pasted_words(options));
    if (!launch) return std::unexpected(launch.error());
    if (!launch->unset_gpus.empty() && !options.has("gpus")) return std::unexpected(unset_variable(launch->unset_gpus, "--gpus"));
    if (is_megatron_command(*launch)) {
      MegatronCommand command = read_megatron_command(*launch);
      request.alloc_conf = std::move(command.alloc_conf);
      request.notes = std::move(command.ignored);
      if (auto ok = own_flags(options, command.arguments, request.flags); !ok) return std::unexpected(ok.error());
      std::vector<std::string> unused;
      auto w = make_megatron_workload(command.arguments, unused);
      if (!w) return std::unexpected(w.error());
      if (!unused.empty()) w->warnings.push_back("arguments that are not read: " + first_ten(unused, 62));
      request.flags.gpus = w->run.world_size;
      request.megatron = std::move(*w);
      return request;
    }
    const auto gpus = number_of(options, "gpus");
    if (!gpus) return std::unexpected(gpus.error());
    if (auto ok = apply_command(*launch, env, *gpus, request); !ok) return std::unexpected(ok.error());
  }
  if (auto ok = own_flags(options, request.flags); !ok) return std::unexpected(ok.error());
  if (request.flags.fsdp_unsaid && !options.has("parallel")) settle_fsdp(request);
  for (const UnclearArgument& a : request.unclear) {
    const std::string option(option_for(a.about));
    if (option.empty() || !options.has(option)) return std::unexpected(unclear_error(a));
    request.notes.push_back(a.place + ", in whose place --" + option + " is taken");
  }
  if (options.has("model")) request.flags.model = options.get("model");
  request.config = options.get("config");
  if (options.has("model") && request.config) return fail("bad_value", "--model and --config both name a model", "give one of them", "--config");
  return request;
}

Result<HfModel> transformers_model(const TransformersRequest& request, const Env& env) {
  if (request.flags.described && !request.config && !request.flags.model) return architecture_from(*request.flags.described, "torchtitan's debugmodel");
  if (!request.config && !request.flags.model) return fail("missing_value", "the pasted command names no model", "add --model NAME or --config FILE before the --", "--model");
  const std::string name = request.flags.model.value_or("");
  const bool folder = name.starts_with("/") || name.starts_with("./") || name.starts_with("../") || name.starts_with("~");
  const auto model = request.config ? model_from_file(*request.config, env) : name.ends_with(".json") ? model_from_file(name, env) : folder ? model_from_file(name + "/config.json", env) : model_from_name(name);
  if (!model) return std::unexpected(model.error());
  return model->model;
}

Result<Workload> transformers_workload(const TransformersRequest& request, const Env& env) {
  if (request.megatron) return *request.megatron;
  const auto model = transformers_model(request, env);
  if (!model) return std::unexpected(model.error());
  return make_transformers_workload(*model, request.flags);
}

Result<ListedModel> model_from_file(const std::string& path, const Env& env) {
  const auto document = read_document(path, env);
  if (!document) return std::unexpected(document.error());
  const std::string name = shown_name(path);
  auto model = architecture_from(*document, name);
  if (!model) return std::unexpected(model.error());
  model->architecture.name = path == "-" ? model->architecture.model_type : path;
  return ListedModel{std::string(model->architecture.model_type), name, std::move(*model)};
}

Result<ListedModel> model_from_name(std::string_view name) {
  const auto found = find_preset(name);
  if (!found) return std::unexpected(found.error());
  ListedModel out = listed(*found->preset);
  if (name.find('/') != std::string_view::npos) out.model.architecture.repository = trim(name);
  if (found->variant) out.model.architecture.notes.push_back(std::string(name) + " is taken to have the shape of " + found->preset->repository);
  return out;
}

Result<std::string> list_models(std::string_view what, const Env& env, bool json) {
  if (what == "-" || what.ends_with(".json")) {
    const auto model = model_from_file(std::string(what), env);
    if (!model) return std::unexpected(model.error());
    return json ? presets_json({&*model, 1}) : model_text(*model);
  }
  if (!what.empty()) {
    if (const auto one = model_from_name(what)) return json ? presets_json({&*one, 1}) : model_text(*one);
  }
  std::vector<ListedModel> some;
  const std::string part = to_lower(what);
  for (const ModelPreset& p : model_presets()) {
    if (p.name.find(part) != std::string::npos || p.model.architecture.model_type.find(part) != std::string::npos) some.push_back(listed(p));
  }
  if (some.empty()) return std::unexpected(model_from_name(what).error());
  return json ? presets_json(some) : presets_text(some);
}

}  // namespace dryfit::cli
