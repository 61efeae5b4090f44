// The other way round: the command that says a workload, in the Trainer's own arguments. See trainer_command.hpp.
#include <algorithm>

#include "base/text.hpp"
#include "plan/llamafactory_command.hpp"
#include "plan/trainer_command.hpp"
#include "plan/trl_command.hpp"

namespace dryfit {

namespace {

// A DeepSpeed configuration in one line, which --deepspeed takes as it takes a file; what is DeepSpeed's default is left out.
std::string zero_json(const Training& t) {
  const ZeroConfig& z = t.zero;
  const ZeroConfig usual;
  std::string fields = "\"stage\": " + std::string(1, name_of(t.sharding).back());
  const auto add = [&](const char* key, const std::string& value) { fields += ", \"" + std::string(key) + "\": " + value; };
  const auto count = [&](const char* key, std::int64_t value, std::int64_t standard) { if (value != standard) add(key, std::to_string(value)); };
  const auto flag = [&](const char* key, bool value, bool standard) { if (value != standard) add(key, value ? "true" : "false"); };
  // "auto" where another engine reads it as DeepSpeed's default (Preference::zero)
  const ZeroConfig& elsewhere = t.preference && t.preference->zero ? *t.preference->zero : z;
  const auto open = [&](const char* key, std::int64_t ZeroConfig::*field) {
    if (elsewhere.*field != z.*field) add(key, "\"auto\"");
    else count(key, z.*field, usual.*field);
  };
  open("reduce_bucket_size", &ZeroConfig::reduce_bucket_size);
  if (z.overlap_comm) add("overlap_comm", *z.overlap_comm ? "true" : "false");
  flag("contiguous_gradients", z.contiguous_gradients, true);
  flag("reduce_scatter", z.reduce_scatter, true);
  flag("round_robin_gradients", z.round_robin_gradients, false);
  count("sub_group_size", z.sub_group_size, usual.sub_group_size);
  open("stage3_prefetch_bucket_size", &ZeroConfig::prefetch_bucket_size);
  open("stage3_param_persistence_threshold", &ZeroConfig::param_persistence_threshold);
  count("stage3_model_persistence_threshold", z.model_persistence_threshold, usual.model_persistence_threshold);
  count("stage3_max_live_parameters", z.max_live_parameters, usual.max_live_parameters);
  count("stage3_max_reuse_distance", z.max_reuse_distance, usual.max_reuse_distance);
  if (t.offload_optimizer) add("offload_optimizer", "{\"device\": \"cpu\"}");
  if (t.offload_parameters) add("offload_param", "{\"device\": \"cpu\"}");
  return "{\"train_micro_batch_size_per_gpu\": \"auto\", \"gradient_accumulation_steps\": \"auto\", \"gradient_clipping\": \"auto\", \"bf16\": {\"enabled\": \"auto\"}, "
         "\"fp16\": {\"enabled\": \"auto\"}, \"zero_optimization\": {" + fields + "}}";
}

// TrainingArguments.fsdp_config in one line; nothing when all is as it is there.
std::string flat_json(const FlatShardConfig& flat, bool quantized, bool says_version) {
  std::string fields;
  const auto add = [&](const char* field) { fields += (fields.empty() ? "" : ", ") + std::string(field); };
  if (says_version) add("\"version\": 1");
  if (flat.backward_prefetch == FlatShardConfig::Prefetch::pre) add("\"backward_prefetch\": \"backward_pre\"");
  if (flat.backward_prefetch == FlatShardConfig::Prefetch::post) add("\"backward_prefetch\": \"backward_post\"");
  if (flat.forward_prefetch) add("\"forward_prefetch\": true");
  if (!flat.original_parameters) add("\"use_orig_params\": false");
  if (quantized && flat.loads_on_host) add("\"cpu_ram_efficient_loading\": true");
  return fields.empty() ? fields : "{" + fields + "}";
}

std::vector<std::string> arguments_of(const Workload& workload) {
  const Architecture& a = workload.transformers->architecture;
  const Training t = training_of(*workload.transformers, workload.run);
  const UsersCommand& users = workload.transformers->users;
  const bool trl = trl_trainer(t) != TrlTrainer::none || users.is(module_of(TrlTrainer::sft));
  std::vector<std::string> out;
  const auto add = [&](std::string name, std::string text) {
    const auto as_users = std::ranges::find(users.spelled, name, &std::pair<std::string, std::string>::first);
    out.push_back("--" + (as_users != users.spelled.end() ? as_users->second : name));
    out.push_back(std::move(text));
  };
  if (!a.given_to_scripts().empty()) add("model_name_or_path", a.given_to_scripts());
  if (users.says_dtype) add("dtype", std::string(torch_name_of(t.weights)));
  add("per_device_train_batch_size", std::to_string(t.device_batch_size));
  add("gradient_accumulation_steps", std::to_string(t.grad_accum_steps));
  if (t.rollouts) add("max_completion_length", std::to_string(t.rollouts->completion));
  else add("max_length", std::to_string(t.seq_len));
  if (t.mixed != MixedPrecision::none) add(t.mixed == MixedPrecision::bf16 ? "bf16" : "fp16", "True");
  else if (trl) add("bf16", "False");  // TRL's default is True
  if (has_word_in_trainer(t.optimizer)) add("optim", std::string(name_of(t.optimizer)));
  if (t.attention != AttentionCode::sdpa) add("attn_implementation", std::string(name_of(t.attention)));
  if (t.recompute == Recompute::full) {
    add("gradient_checkpointing", "True");
    if (t.reentrant) add("gradient_checkpointing_kwargs", "{\"use_reentrant\": true}");
  } else if (trl) {
    add("gradient_checkpointing", "False");
  }
  if (t.compile) add("torch_compile", "True");
  if (t.preference && t.preference->precomputed) add("precompute_ref_log_probs", "True");
  if (t.liger.any()) add("use_liger_kernel", "True");
  if (t.liger.any() && a.classifies()) add("liger_kernel_config", "{\"fused_linear_cross_entropy\": false}");
  if (t.max_steps) add("max_steps", std::to_string(*t.max_steps));
  else if (t.max_tokens) add("max_steps", std::to_string(std::max<std::int64_t>(1, ceil_div(*t.max_tokens, t.rows() * t.seq_len * t.grad_accum_steps * t.world_size))));
  if (t.max_grad_norm != 1.0) add("max_grad_norm", flag_text(t.max_grad_norm));
  const char* offload = t.offload_parameters ? " offload" : "";
  if (is_fsdp1(t.sharding)) {
    add("fsdp", std::string(t.sharding == Sharding::fsdp1 ? "full_shard" : "shard_grad_op") + (t.wrap_blocks ? " auto_wrap" : "") + offload);
    if (const std::string config = flat_json(t.flat, t.quantized, trainer_takes_fsdp2(t.transformers)); !config.empty()) add("fsdp_config", config);
  }
  if (t.sharding == Sharding::fsdp2) {
    add("fsdp", std::string("full_shard auto_wrap") + offload);
    add("fsdp_config", t.reshard_after_forward ? "{\"version\": 2}" : "{\"version\": 2, \"reshard_after_forward\": false}");
  }
  if (is_deepspeed(t.sharding)) add("deepspeed", zero_json(t));
  if (t.sharding == Sharding::ddp && t.ddp_find_unused) add("ddp_find_unused_parameters", *t.ddp_find_unused ? "True" : "False");
  if (!t.lora) return out;
  add("use_peft", "True");
  if (t.lora->virtual_tokens > 0) {
    add("num_virtual_tokens", std::to_string(t.lora->virtual_tokens));
    return out;
  }
  add("lora_r", std::to_string(t.lora->rank));
  if (!t.lora->targets.empty()) {
    out.push_back("--lora_target_modules");
    out.insert(out.end(), t.lora->targets.begin(), t.lora->targets.end());
  }
  if (!t.lora->saved_modules.empty()) {
    out.push_back("--lora_modules_to_save");
    out.insert(out.end(), t.lora->saved_modules.begin(), t.lora->saved_modules.end());
  }
  if (t.lora->biases != Lora::Biases::none) add("lora_bias", t.lora->biases == Lora::Biases::all ? "all" : "lora_only");
  if (t.lora->dora) add("use_dora", "True");
  if (t.quantized) add("load_in_4bit", "True");
  if (t.double_quantized) add("use_bnb_nested_quant", "True");
  if (t.quantized && (is_fsdp1(t.sharding) || t.sharding == Sharding::fsdp2)) add("bnb_4bit_quant_storage", t.weights == Dtype::fp16 ? "float16" : "bfloat16");
  return out;
}

}  // namespace

std::string flag_text(double x) {
  std::string out = std::to_string(x);
  while (out.ends_with('0')) out.pop_back();
  return out + (out.ends_with('.') ? "0" : "");
}

std::vector<std::string> trainer_command(const Workload& workload) {
  if (const auto& p = workload.transformers->training.preference; p && p->of_factory()) return llamafactory_written(workload);
  constexpr std::int64_t kNode = 8;
  const std::int64_t gpus = workload.run.world_size;
  std::vector<std::string> out{"python"};
  if (gpus > 1) {
    const bool nodes = gpus > kNode && gpus % kNode == 0;
    out = {"torchrun", nodes ? "--nnodes=" + std::to_string(gpus / kNode) : "--standalone", "--nproc_per_node=" + std::to_string(nodes ? kNode : gpus)};
  }
  const UsersCommand& users = workload.transformers->users;
  if (const TrlTrainer trl = trl_trainer(workload.transformers->training); trl != TrlTrainer::none) out.insert(out.end(), {"-m", std::string(module_of(trl))});
  else if (has_unnamed_script(*workload.transformers)) out.emplace_back("train.py");
  else out.insert(out.end(), users.script.begin(), users.script.end());
  for (std::string& word : arguments_of(workload)) out.push_back(std::move(word));
  out.insert(out.end(), users.kept.begin(), users.kept.end());
  return out;
}

}  // namespace dryfit
