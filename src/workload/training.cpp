// Words of transformers' arguments to the values of training.hpp, and back.
#include <algorithm>
#include <array>

#include "base/text.hpp"
#include "workload/transformers.hpp"

namespace dryfit {

namespace {

template <class Value>
struct Word { std::string_view text; Value value; };

// The first word of a value is the one it is printed with.
constexpr std::array kOptimizers = {
    Word{"adamw_torch", OptimizerKind::adamw}, Word{"adamw_torch_fused", OptimizerKind::adamw_fused}, Word{"adamw_8bit", OptimizerKind::adamw_8bit}, Word{"adamw_bnb_8bit", OptimizerKind::adamw_8bit},
    Word{"paged_adamw_8bit", OptimizerKind::paged_adamw_8bit}, Word{"paged_adamw_32bit", OptimizerKind::paged_adamw}, Word{"paged_adamw", OptimizerKind::paged_adamw}, Word{"adafactor", OptimizerKind::adafactor},
    Word{"sgd", OptimizerKind::sgd}, Word{"sgd_momentum", OptimizerKind::sgd_momentum}, Word{"lion_32bit", OptimizerKind::lion_32bit}, Word{"lion_8bit", OptimizerKind::lion_8bit},
    Word{"paged_lion_32bit", OptimizerKind::paged_lion}, Word{"paged_lion_8bit", OptimizerKind::paged_lion_8bit}, Word{"ademamix", OptimizerKind::ademamix}, Word{"ademamix_8bit", OptimizerKind::ademamix_8bit},
    Word{"paged_ademamix_32bit", OptimizerKind::paged_ademamix}, Word{"paged_ademamix_8bit", OptimizerKind::paged_ademamix_8bit}, Word{"rmsprop", OptimizerKind::rmsprop}, Word{"rmsprop_bnb", OptimizerKind::rmsprop_bnb},
    Word{"rmsprop_bnb_32bit", OptimizerKind::rmsprop_bnb}, Word{"rmsprop_bnb_8bit", OptimizerKind::rmsprop_bnb_8bit}, Word{"adagrad", OptimizerKind::adagrad},
    Word{"adamw_loop", OptimizerKind::adamw_loop}, Word{"muon", OptimizerKind::muon}, Word{"adamw", OptimizerKind::adamw}, Word{"adamw_hf", OptimizerKind::adamw}, Word{"lion", OptimizerKind::lion_32bit}, Word{"lion_pytorch", OptimizerKind::lion}};

constexpr std::array kShardings = {Word{"none", Sharding::none}, Word{"ddp", Sharding::ddp}, Word{"zero0", Sharding::zero0}, Word{"zero1", Sharding::zero1}, Word{"zero2", Sharding::zero2},
                                   Word{"zero3", Sharding::zero3}, Word{"fsdp1", Sharding::fsdp1}, Word{"fsdp", Sharding::fsdp1}, Word{"fsdp1-grad-op", Sharding::fsdp1_grad_op}, Word{"fsdp-grad-op", Sharding::fsdp1_grad_op},
                                   Word{"fsdp2", Sharding::fsdp2}};

constexpr std::array kDtypes = {Word{"float32", Dtype::fp32}, Word{"fp32", Dtype::fp32}, Word{"bfloat16", Dtype::bf16}, Word{"bf16", Dtype::bf16}, Word{"float16", Dtype::fp16}, Word{"fp16", Dtype::fp16}, Word{"half", Dtype::fp16}};

constexpr std::array kFrameworks = {Word{"transformers", Framework::transformers}, Word{"litgpt", Framework::litgpt}, Word{"megatron", Framework::megatron}, Word{"torchtune", Framework::torchtune}, Word{"torchtitan", Framework::torchtitan}};

constexpr std::array kTorchtuneRecipes = {Word{"full_finetune_single_device", TorchtuneRecipe::full_single_device}, Word{"lora_finetune_single_device", TorchtuneRecipe::lora_single_device},
                                          Word{"full_finetune_distributed", TorchtuneRecipe::full_distributed}, Word{"lora_finetune_distributed", TorchtuneRecipe::lora_distributed}};
constexpr std::array kLitgptScripts = {Word{"pretrain", LitgptScript::pretrain}, Word{"finetune_full", LitgptScript::full}, Word{"finetune_lora", LitgptScript::lora}, Word{"finetune_adapter", LitgptScript::adapter},
                                       Word{"finetune_adapter_v2", LitgptScript::adapter_v2}, Word{"finetune", LitgptScript::lora}};

constexpr std::array kPrefetch = {Word{"NO_PREFETCH", FlatShardConfig::Prefetch::none}, Word{"BACKWARD_PRE", FlatShardConfig::Prefetch::pre}, Word{"BACKWARD_POST", FlatShardConfig::Prefetch::post}};

constexpr std::array kAttention = {Word{"eager", AttentionCode::eager}, Word{"sdpa", AttentionCode::sdpa}, Word{"flash_attention_2", AttentionCode::flash_attention_2}, Word{"flash_attention_3", AttentionCode::flash_attention_3}};

template <class Words>
auto value_of(const Words& words, std::string_view text, std::string_view where, std::string_view what) -> Result<decltype(words[0].value)> {
  for (const auto& w : words) {
    if (w.text == text) return w.value;
  }
  std::vector<std::string_view> known;
  std::string all;
  for (const auto& w : words) {
    known.push_back(w.text);
    all += (all.empty() ? "" : ", ") + std::string(w.text);
  }
  return fail("bad_value", std::string(where) + " " + std::string(text.substr(0, 40)) + " is no " + std::string(what) + " dryfit describes", did_you_mean(text, known, "described are: " + all), std::string(where));
}

template <class Words, class Value>
std::string_view text_of(const Words& words, Value value) {
  return std::ranges::find_if(words, [&](const auto& w) { return w.value == value; })->text;
}

}  // namespace

std::string_view name_of(const Preference& p) {
  using Loss = Preference::Loss;
  switch (p.trainer) {
    case Preference::Trainer::dpo: return p.precomputed ? "dpo-precomputed" : "dpo";
    case Preference::Trainer::kto: return p.loss == Loss::unpaired ? (p.precomputed ? "kto-unpaired-precomputed" : "kto-unpaired") : p.precomputed ? "kto-precomputed" : "kto";
    case Preference::Trainer::reward: return "reward";
    case Preference::Trainer::factory_rm: return "llamafactory-rm";
    case Preference::Trainer::factory_dpo: return p.loss == Loss::orpo ? "llamafactory-orpo" : p.loss == Loss::simpo ? "llamafactory-simpo" : "llamafactory-dpo";
  }
  return "";
}
std::optional<Preference> preference_of(std::string_view name) {
  using Trainer = Preference::Trainer;
  for (const Trainer trainer : {Trainer::dpo, Trainer::kto, Trainer::reward}) {
    for (const auto loss : {Preference::Loss::compared, Preference::Loss::unpaired}) {
      for (const bool precomputed : {false, true}) {
        Preference one{precomputed, {}, trainer, loss};
        if (name_of(one) == name) return one;
      }
    }
  }
  return std::nullopt;
}
std::string_view name_of(AttentionCode code) { return text_of(kAttention, code); }

std::string_view name_of(OptimizerKind kind) { return text_of(kOptimizers, kind); }
std::string_view name_of(Framework framework) { return text_of(kFrameworks, framework); }
std::string_view name_of(TorchtuneRecipe recipe) { return text_of(kTorchtuneRecipes, recipe); }
std::string_view name_of(LitgptScript script) { return text_of(kLitgptScripts, script); }
std::string_view name_of(Sharding sharding) { return text_of(kShardings, sharding); }

Result<OptimizerKind> optimizer_of(std::string_view text, std::string_view where) { return value_of(kOptimizers, text, where, "optimizer"); }
Result<FlatShardConfig::Prefetch> backward_prefetch_of(std::string_view text, std::string_view where) {
  std::string upper(text);
  std::ranges::transform(upper, upper.begin(), [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; });
  return value_of(kPrefetch, upper, where, "way to prefetch");
}
Result<AttentionCode> attention_code_of(std::string_view text, std::string_view where) { return value_of(kAttention, text, where, "attention"); }
Result<Framework> framework_of(std::string_view text, std::string_view where) {
  auto out = value_of(kFrameworks, text, where, "framework");
  if (out && *out == Framework::megatron) return fail("bad_value", std::string(where) + " megatron: a run of Megatron-LM is described by its command", "paste it: dryfit check --gpu h100 -- torchrun pretrain_gpt.py ...", std::string(where));
  if (out && *out == Framework::torchtune) return fail("bad_value", std::string(where) + " torchtune: a run of torchtune is described by its recipe and configuration", "paste its command: dryfit check --gpu h100 -- tune run lora_finetune_single_device --config my.yaml", std::string(where));
  if (out && *out == Framework::torchtitan) return fail("bad_value", std::string(where) + " torchtitan: a run of torchtitan is described by its configuration", "paste its command: dryfit check --gpu h100 -- torchrun --nproc_per_node=8 -m torchtitan.train --job.config_file my.toml", std::string(where));
  return out;
}
Result<TorchtuneRecipe> torchtune_recipe_of(std::string_view text, std::string_view where) { return value_of(kTorchtuneRecipes, text, where, "recipe of torchtune"); }
Result<LitgptScript> litgpt_script_of(std::string_view text, std::string_view where) { return value_of(kLitgptScripts, text, where, "script of LitGPT"); }
Result<Sharding> sharding_of(std::string_view text, std::string_view where) { return value_of(kShardings, text, where, "way to use several GPUs"); }
Result<Dtype> weights_dtype_of(std::string_view text, std::string_view where) { return value_of(kDtypes, text.starts_with("torch.") ? text.substr(6) : text, where, "dtype"); }

bool Lora::saves(std::string_view module) const {
  for (std::string_view around = module; !around.empty(); around = around.substr(0, around.rfind('.') == std::string_view::npos ? 0 : around.rfind('.'))) {
    if (std::ranges::any_of(saved_modules, [&](const std::string& wanted) { return around.ends_with(wanted); })) return true;
  }
  return false;
}
bool trainer_takes_fsdp2(std::string_view transformers) { return version_from(transformers, 5, 10); }
bool Training::is_transformers_5() const { return version_from(transformers, 5, 0); }
bool Training::lays_out_evaluation() const {
  return evaluation && !preference && !rollouts && framework == Framework::transformers && !compile && !gathers_weights(sharding);
}
// The script's file or module, without its folders and its ending.
static std::string_view script_name(const UsersCommand& users) {
  if (users.script.empty()) return {};
  std::string_view name = users.script.back();
  if (name.ends_with(".py")) name.remove_suffix(3);
  return name.substr(name.find_last_of("/.") + 1);
}

bool UsersCommand::cuts_one_text() const {
  constexpr std::array<std::string_view, 4> kCut = {"run_clm", "run_clm_no_trainer", "run_mlm", "run_mlm_no_trainer"};
  return std::ranges::find(kCut, script_name(*this)) != kCut.end();
}

Dtype Training::stored() const { return quantized && lora && lora->upcast_rest ? Dtype::fp32 : weights; }

}  // namespace dryfit
