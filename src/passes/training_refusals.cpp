// What runs of a framework are not laid out yet, each with the nearest that is. See training_program.hpp.
#include <algorithm>
#include <array>

#include "graph/torchtune.hpp"
#include "graph/transformers.hpp"
#include "passes/pair_losses.hpp"
#include "passes/preference.hpp"
#include "passes/rollouts.hpp"
#include "passes/training_program.hpp"
#include "passes/transformer.hpp"

namespace dryfit {

namespace {

// Every refusal has one of these: what is not written down yet, and the nearest thing that is.
std::unexpected<Error> unsupported(std::string what, std::string hint = "leave it out; the rest of the run is") {
  return fail("unsupported_training", std::move(what) + " is not laid out yet", std::move(hint));
}

// A decoder with rotary positions and norms before its branches: what LitGPT's and torchtune's one model class is.
bool is_plain_decoder(const Architecture& a) {
  constexpr std::array kOthers = {Family::smollm3, Family::granite, Family::seed_oss, Family::arcee, Family::starcoder2};  // which those have not
  return a.causal && !a.conv1d && !a.moe && !a.latent && a.position == Position::rotary && a.qk_norm == QkNorm::none && (a.norm_placement == NormPlacement::pre || a.norm_placement == NormPlacement::sandwich) && std::ranges::find(kOthers, a.family) == kOthers.end();
}

Result<void> litgpt_is_described(const Architecture& a, const Training& r) {
  if (!is_plain_decoder(a)) return unsupported("this architecture (" + a.model_type + ") in LitGPT");
  if (r.sharding != Sharding::none && r.sharding != Sharding::ddp && !is_fsdp1(r.sharding)) return unsupported("LitGPT under " + std::string(name_of(r.sharding)), "use --parallel fsdp1, which its scripts take on several GPUs");
  if (r.recompute != Recompute::none && !is_fsdp1(r.sharding)) return unsupported("LitGPT with checkpointing on one GPU");
  if (r.compile) return unsupported("torch.compile of LitGPT's models");
  return {};
}

Result<void> torchtune_is_described(const Architecture& a, const Training& r) {
  const bool family = a.family == Family::llama || a.family == Family::mistral || a.family == Family::qwen2;
  const bool built = is_plain_decoder(a) && a.norm == NormKind::rms_norm && a.norm_placement == NormPlacement::pre && !a.parallel_residual && a.gated_mlp;
  if (!family || !built) return unsupported("this architecture (" + a.model_type + ") in torchtune");
  const bool several = r.torchtune.recipe == TorchtuneRecipe::full_distributed || r.torchtune.recipe == TorchtuneRecipe::lora_distributed;
  if (r.sharding != (several ? Sharding::fsdp2 : Sharding::none)) return fail("bad_value", "the recipe " + std::string(name_of(r.torchtune.recipe)) + (several ? " without fully_shard" : " on several GPUs"), several ? "leave --parallel out" : "its likes of _distributed take several", "tune run");
  if (several && r.quantized) return unsupported("4-bit weights under torchtune's fully_shard", "leave quantize_base out, or take the recipe of a single device");
  if (several && r.compile && r.recompute == Recompute::none) return unsupported("torch.compile under torchtune's fully_shard without checkpoints, whose hooks then lie inside what is compiled,", "compile=False is laid out, or enable_activation_checkpointing=True");
  if (a.tied_head && r.lora && std::ranges::find(r.lora->targets, "lm_head") != r.lora->targets.end()) {
    return fail("bad_value", "adapters on a head that is the embedding, which torchtune refuses", "set model.apply_lora_to_output=False", "model.apply_lora_to_output");
  }
  if (r.quantized && (a.width % 256 != 0 || a.ffn % 64 != 0 || a.qkv_bias)) return unsupported("NF4 weights of this shape");
  if (r.compile && !has_torchtune_graph(a, r)) return unsupported("torch.compile of this run of torchtune", "compile=False is laid out; compiled are Llama and Mistral in bf16");
  return {};
}

Result<void> torchtitan_is_described(const Architecture& a, const Training& r) {
  if (a.family != Family::llama || !is_plain_decoder(a) || a.norm != NormKind::rms_norm || a.tied_head || a.qkv_bias || a.out_bias) return unsupported("this architecture (" + a.model_type + ") in torchtitan", "its llama3 is laid out");
  if (r.sharding != Sharding::none && r.sharding != Sharding::fsdp2) return unsupported("torchtitan under " + std::string(name_of(r.sharding)), "parallelism.data_parallel_shard_degree = -1 is laid out");
  if (r.mixed != MixedPrecision::bf16 && r.weights != Dtype::bf16) return unsupported("torchtitan's attention in fp32", "training.mixed_precision_param = \"bfloat16\" is laid out");
  return {};
}

Result<void> compiled_is_described(const Architecture& a, const Training& r) {
  const auto with = [](std::string what, std::string hint) { return unsupported("torch.compile with " + std::move(what), std::move(hint)); };
  if (a.moe) {
    if (!has_mixture_graph(a)) return unsupported("torch.compile of " + a.model_type + "'s mixtures of experts", "it is of Mixtral's and Qwen 3's without a loss of their routers; without it the run is");
    // DynamicCache's layers are told apart: Dynamo compiles every block anew, and gives up at the ninth
    if (r.is_transformers_5()) return with("a mixture of experts in transformers 5, whose grouped experts are another graph,", "leave torch.compile out, or say --transformers 4.57.1 where that is what runs");
    if (r.use_cache) return with("a mixture of experts and use_cache, with which every block is compiled anew until Dynamo gives up,", "set model.config.use_cache = False in your script, and say --no-cache");
    if (r.recompute != Recompute::none) return with("a mixture of experts and gradient checkpointing", "leave one of them out");
    const auto of_attention = [](const std::string& target) { return target == "q_proj" || target == "k_proj" || target == "v_proj" || target == "o_proj"; };
    if (r.lora && !std::ranges::all_of(r.lora->targets, of_attention)) return with("a mixture of experts and adapters of other products than attention's", "set target_modules to some of q_proj, k_proj, v_proj, o_proj");
    if (r.quantized) return with("a mixture of experts in 4 bits", "leave torch.compile out");
  } else if (!has_graph(a)) return unsupported("torch.compile of " + a.model_type, "it is of GPT-2, GPT-NeoX with gelu, Llama, Mistral, Qwen 2 and Qwen 3; without it the run is");
  if (r.attention != AttentionCode::sdpa) return with("another attention than sdpa", "use --attention sdpa");
  // transformers warns that checkpoints leave the cache out, in every block; Dynamo ends its graph there
  if (r.recompute != Recompute::none && r.use_cache) return with("gradient checkpointing and use_cache, whose warning breaks the graph in every block,", "set model.config.use_cache = False in your script, and say --no-cache");
  if (r.quantized && a.conv1d) return with("4-bit weights of " + a.model_type, "leave torch.compile out");
  if (a.family == Family::gpt2 && r.recompute != Recompute::none) return with("gradient checkpointing of GPT-2, whose dropout is drawn a second time,", "leave one of them out");
  if (r.lora && r.recompute != Recompute::none) return with("adapters and gradient checkpointing, whose inputs are told to want gradients, which breaks the graph,", "leave one of them out");
  if (r.lora && (r.lora->rank == 0 || r.lora->dora || r.lora->biases != Lora::Biases::none || !r.lora->saved_modules.empty())) return with("other adapters than LoRA's two matrices", "leave torch.compile out");
  if (r.liger.any() || r.head != HeadLoss::logits) return with("a loss in parts", "leave torch.compile out");
  if (r.packed) return with("packed rows", "leave torch.compile or packing out");
  if (r.adapter_kernels.any()) return with("axolotl's LoRA kernels", "set lora_mlp_kernel, lora_qkv_kernel and lora_o_kernel to false");
  if (r.sharding != Sharding::none) return with("several GPUs", "leave torch.compile out, or ask for one GPU");
  return {};
}

// How the model's weights are shared out.
Result<void> sharding_is_described(const Architecture& a, const Training& r) {
  if (a.encoder && (r.sharding == Sharding::fsdp2 || is_fsdp1(r.sharding))) return unsupported("FSDP of an encoder, whose embeddings are a unit too,", "use --parallel ddp");
  if (r.sharding != Sharding::zero3) return {};
  // of the newer form torch raises CheckpointError: frozen weights have no size when a block runs again
  if (r.lora && r.recompute == Recompute::full && !r.reentrant) return unsupported("adapters, checkpoints of the newer form and ZeRO-3 together", "set use_reentrant in gradient_checkpointing_kwargs, as TRL does, or use --parallel zero2");
  // bitsandbytes' products name every weight they were given, whole, until the graph goes at the end of the step
  if (r.quantized) return unsupported("4-bit weights under ZeRO-3", "use --parallel fsdp1, which shares them out, or zero2");
  if (a.shared_parallel_norm && r.recompute == Recompute::full) return unsupported("checkpoints under ZeRO-3 of " + a.model_type + ", whose branches share a norm,", "use --parallel zero2");
  if (eager::is_leaf_mixture(a) && r.recompute == Recompute::full && r.reentrant && r.lora) return unsupported("adapters and checkpoints of the older form under ZeRO-3 of " + a.model_type, "use --parallel zero2 or fsdp2");
  if (a.encoder || a.norm_placement == NormPlacement::post) return unsupported("ZeRO-3 of this architecture (" + a.model_type + ")", "use --parallel zero2");
  return {};
}

Result<void> is_described(const Architecture& a, const Training& r) {
  if (r.preference) {
    if (auto ok = r.preference->trainer == Preference::Trainer::dpo ? eager::preference_is_described(a, r) : eager::pairs_are_described(a, r); !ok) return ok;
  }
  if (r.rollouts) {
    if (auto ok = eager::rollouts_are_described(a, r); !ok) return ok;
  }
  if (a.classifies()) {
    if (auto ok = eager::classes_are_described(a, r); !ok) return ok;
  }
  if (r.optimizer == OptimizerKind::muon && r.sharding != Sharding::none && r.sharding != Sharding::ddp) return unsupported("Muon under " + std::string(name_of(r.sharding)) + ", which has to gather each matrix,", "use --parallel ddp, or another optimizer");
  if (r.optimizer == OptimizerKind::muon && r.framework != Framework::transformers) return unsupported("Muon in " + std::string(name_of(r.framework)), "use another optimizer");
  if (r.ema && r.lora) return unsupported("EMA of a model with adapters, of which most is frozen,", "average the adapters alone in your script, and leave --ema out");
  if (r.framework == Framework::litgpt) {
    if (auto ok = litgpt_is_described(a, r); !ok) return ok;
  } else if (r.framework == Framework::torchtune) {
    if (auto ok = torchtune_is_described(a, r); !ok) return ok;
  } else if (r.framework == Framework::torchtitan) {
    if (auto ok = torchtitan_is_described(a, r); !ok) return ok;
  } else if (r.compile) {
    if (auto ok = compiled_is_described(a, r); !ok) return ok;
  }
  return sharding_is_described(a, r);
}

}  // namespace

Result<void> is_laid_out(const Architecture& a, const Training& r, const Target& target) {
  if (auto ok = is_described(a, r); !ok) return ok;
  if (r.attention == AttentionCode::flash_attention_3 && target.compute_major != 9) return fail("bad_value", "flash_attention_3 on a GPU of compute capability " + std::to_string(target.compute_major) + "." + std::to_string(target.compute_minor) + ": its kernels are Hopper's", "use --attention flash_attention_2 or sdpa, or an H100, H200 or GH200", "--attention");
  if (r.framework == Framework::torchtitan && target.compute_major < 8) return unsupported("torchtitan's attention on GPUs older than compute capability 8.0", "use an A100, an H100 or newer");
  return {};
}

}  // namespace dryfit
