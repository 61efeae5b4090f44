// See model_source.hpp.
#include "cli/model_source.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "plan/launch.hpp"
#include "plan/litgpt_command.hpp"
#include "plan/megatron_command.hpp"
#include "plan/trainer_command.hpp"
#include "workload/probe_document.hpp"
#include "workload/probe_presets.hpp"

namespace dryfit::cli {

namespace {

constexpr std::size_t kMostConfig = 16 << 20;  // more is no configuration; document_from_json says so

ListedModel listed(const ModelPreset& p) { return {p.name, p.repository + ", " + p.date, p.model}; }

std::string shown_name(const std::string& path) { return path == "-" ? "standard input" : path; }

Result<Document> read_document(const std::string& path, const Env& env) {
  std::string text;
  const auto read = env.stream_file(path, [&](std::string_view chunk, const ReadProgress&) {
    text += chunk.substr(0, kMostConfig - std::min(kMostConfig, text.size()));
    return text.size() < kMostConfig;
  });
  if (!read) return std::unexpected(read.error());
  return document_from_json(text, shown_name(path));
}

// The words of a pasted command; one quoted string is a whole command line.
Result<std::vector<std::string>> pasted_words(const Options& options) {
  if (options.pasted.size() == 1) return shell_split(options.pasted[0]);
  std::vector<std::string> out;
  for (const std::string& w : options.pasted) {
    if (w != "\\") out.push_back(w);
  }
  return out;
}

Result<void> apply_file(const std::string& path, auto apply, const Env& env, TransformersRequest& request) {
  const bool text = path.starts_with("{");  // --deepspeed takes the configuration itself, too
  if (path.ends_with(".yaml") || path.ends_with(".yml")) return fail("unsupported_file", "'" + path.substr(0, 80) + "' is YAML, which this dryfit does not read", "say it in flags: --mixed bf16, --parallel fsdp2, --gpus 8; or give the same as JSON", path);
  const auto document = text ? document_from_json(path, "--deepspeed") : read_document(path, env);
  if (!document) return std::unexpected(document.error());
  const std::string name = text ? "--deepspeed" : shown_name(path);
  std::vector<std::string> unused;
  if (auto ok = apply(*document, name, request.flags, unused); !ok) return ok;
  for (const std::string& key : unused) request.notes.push_back((text ? name : path) + ": " + key);
  return {};
}

// What is set in `over` wins.
template <class Value>
void lay(std::optional<Value>& under, const std::optional<Value>& over) {
  if (over) under = over;
}
void lay(TransformersFlags& under, const TransformersFlags& over) {
  lay(under.model, over.model), lay(under.device_batch_size, over.device_batch_size), lay(under.grad_accum_steps, over.grad_accum_steps), lay(under.max_seq_len, over.max_seq_len), lay(under.gpus, over.gpus), lay(under.total_batch_size, over.total_batch_size);
  lay(under.weights, over.weights), lay(under.mixed, over.mixed), lay(under.attention, over.attention), lay(under.recompute, over.recompute), lay(under.reentrant, over.reentrant);
  lay(under.compile, over.compile), lay(under.sharding, over.sharding), lay(under.offload_optimizer, over.offload_optimizer), lay(under.offload_parameters, over.offload_parameters);
  lay(under.wrap_blocks, over.wrap_blocks), lay(under.reshard_after_forward, over.reshard_after_forward), lay(under.ddp_find_unused, over.ddp_find_unused);
  lay(under.max_grad_norm, over.max_grad_norm), lay(under.lora, over.lora), lay(under.framework, over.framework), lay(under.zero, over.zero);
  const bool theirs = under.zero && !under.zero->split_groups;  // an optimizer in DeepSpeed's file: --optim is then not asked
  if (!theirs) lay(under.optimizer, over.optimizer);
  lay(under.litgpt_script, over.litgpt_script);
  under.deepspeed = under.deepspeed || over.deepspeed;
  under.quantized = under.quantized || over.quantized, under.double_quantized = under.double_quantized || over.double_quantized;
}

Result<void> own_flags(const Options& o, TransformersFlags& f) {
  struct Whole { const char* flag; std::optional<std::int64_t> TransformersFlags::*field; };
  for (const Whole& w : {Whole{"device-batch-size", &TransformersFlags::device_batch_size}, Whole{"grad-accum-steps", &TransformersFlags::grad_accum_steps}, Whole{"max-seq-len", &TransformersFlags::max_seq_len}, Whole{"gpus", &TransformersFlags::gpus}, Whole{"total-batch-size", &TransformersFlags::total_batch_size}}) {
    const auto n = number_of(o, w.flag);
    if (!n) return std::unexpected(n.error());
    if (*n) f.*w.field = *n;
  }
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
  if (auto ok = word("attention", f.attention, [](const std::string& text, const std::string& where) { return attention_code_of(text == "flash" ? "flash_attention_2" : text, where); }); !ok) return ok;
  if (const auto text = o.get("mixed")) {
    if (*text != "bf16" && *text != "fp16" && *text != "none") return fail("bad_value", "--mixed " + text->substr(0, 30) + " is not known", "use bf16, fp16 or none", "--mixed");
    f.mixed = *text == "bf16" ? MixedPrecision::bf16 : *text == "fp16" ? MixedPrecision::fp16 : MixedPrecision::none;
  }
  if (const auto text = o.get("recompute")) {
    if (*text != "none" && *text != "full") return fail("bad_value", "--recompute " + text->substr(0, 30) + " is not known", "use none or full", "--recompute");
    f.recompute = *text == "full" ? Recompute::full : Recompute::none;
  }
  f.torch = o.get("torch");
  if (const auto text = o.get("compile")) {
    if (*text != "0" && *text != "1") return fail("bad_value", "--compile " + text->substr(0, 30) + " is neither 0 nor 1", "write --compile 0", "--compile");
    f.compile = *text == "1";
  }
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
  for (const char* other : {"model", "config", "optimizer", "parallel", "framework", "dtype", "mixed", "attention", "recompute", "compile", "lora-rank", "load-in-4bit", "grad-accum-steps", "depth", "nanochat", "vocab-size", "total-batch-size"}) {
    if (o.has(other)) return fail("bad_value", "--" + std::string(other) + " beside a command of Megatron-LM, whose arguments say it", "leave it out, and change the command's own arguments", "--" + std::string(other));
  }
  return {};
}

}  // namespace

Result<bool> asks_for_transformers(const Options& options) {
  if (options.has("model") || options.has("config")) return true;
  if (!options.has_pasted) return false;
  const auto words = pasted_words(options);
  if (!words) return std::unexpected(words.error());
  const auto launch = parse_launch(*words);
  return launch && (is_trainer_command(*launch) || is_litgpt_command(*launch) || is_megatron_command(*launch));  // a faulty one is told by nanochat's reader
}

Result<TransformersRequest> transformers_request(const Options& options, const Env& env) {
  TransformersRequest request;
  if (options.has_pasted) {
    const auto words = pasted_words(options);
    if (!words) return std::unexpected(words.error());
    const auto launch = parse_launch(*words);
    if (!launch) return std::unexpected(launch.error());
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
    const bool litgpt = is_litgpt_command(*launch);
    if (!litgpt && !is_trainer_command(*launch)) return fail("unsupported_script", "'" + launch->script.substr(0, 60) + "' has none of the Trainer's arguments", "paste a command of a script around transformers' Trainer, of LitGPT or of Megatron-LM, or leave --model and --config out for nanochat", "pasted command");
    const auto command = litgpt ? read_litgpt_command(*launch) : read_trainer_command(*launch);
    if (!command) return std::unexpected(command.error());
    if (command->accelerate_file) {
      if (auto ok = apply_file(*command->accelerate_file, apply_accelerate, env, request); !ok) return std::unexpected(ok.error());
    }
    if (command->deepspeed_file) {
      if (auto ok = apply_file(*command->deepspeed_file, apply_deepspeed, env, request); !ok) return std::unexpected(ok.error());
    }
    lay(request.flags, command->flags);
    request.alloc_conf = command->alloc_conf;
    request.notes.insert(request.notes.end(), command->ignored.begin(), command->ignored.end());
  }
  if (auto ok = own_flags(options, request.flags); !ok) return std::unexpected(ok.error());
  if (options.has("model")) request.flags.model = options.get("model");
  request.config = options.get("config");
  if (options.has("model") && request.config) return fail("bad_value", "--model and --config both name a model", "give one of them", "--config");
  return request;
}

Result<HfModel> transformers_model(const TransformersRequest& request, const Env& env) {
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
