// transformers' model types: what the configuration class of each that is described has where a file is silent, and those that are known and not described.
// Source: transformers 5.24, models/<family>/configuration_<family>.py.
#pragma once

#include <array>
#include <string_view>

#include "workload/architecture.hpp"

namespace dryfit {

// A model_type, and what its configuration class has where the file is silent. 0: derived (kv_heads = heads, head_dim = D/H, ffn = 4 D).
struct FamilySpec {
  std::string_view type;
  Family family;
  std::string_view class_name;
  std::int64_t vocab, width, layers, heads, kv_heads, head_dim, ffn, positions;
  std::string_view eps_key;
  double eps;
  std::string_view activation_key, activation;
  bool tied;
};

inline constexpr std::array kSpecs = {
    FamilySpec{"gpt2", Family::gpt2, "GPT2LMHeadModel", 50257, 768, 12, 12, 0, 0, 0, 1024, "layer_norm_epsilon", 1e-5, "activation_function", "gelu_new", true},
    FamilySpec{"gpt_neox", Family::gpt_neox, "GPTNeoXForCausalLM", 50432, 6144, 44, 64, 0, 0, 24576, 2048, "layer_norm_eps", 1e-5, "hidden_act", "gelu", false},
    FamilySpec{"llama", Family::llama, "LlamaForCausalLM", 32000, 4096, 32, 32, 0, 0, 11008, 2048, "rms_norm_eps", 1e-6, "hidden_act", "silu", false},
    FamilySpec{"mistral", Family::mistral, "MistralForCausalLM", 32000, 4096, 32, 32, 8, 0, 14336, 131072, "rms_norm_eps", 1e-6, "hidden_act", "silu", false},
    FamilySpec{"mixtral", Family::mixtral, "MixtralForCausalLM", 32000, 4096, 32, 32, 8, 0, 14336, 131072, "rms_norm_eps", 1e-5, "hidden_act", "silu", false},
    FamilySpec{"qwen2", Family::qwen2, "Qwen2ForCausalLM", 151936, 4096, 32, 32, 32, 0, 22016, 32768, "rms_norm_eps", 1e-6, "hidden_act", "silu", false},
    FamilySpec{"qwen3", Family::qwen3, "Qwen3ForCausalLM", 151936, 4096, 32, 32, 32, 128, 22016, 32768, "rms_norm_eps", 1e-6, "hidden_act", "silu", false},
    FamilySpec{"qwen2_moe", Family::qwen2_moe, "Qwen2MoeForCausalLM", 151936, 2048, 24, 16, 16, 0, 5632, 32768, "rms_norm_eps", 1e-6, "hidden_act", "silu", false},
    FamilySpec{"qwen3_moe", Family::qwen3_moe, "Qwen3MoeForCausalLM", 151936, 2048, 24, 32, 4, 0, 6144, 32768, "rms_norm_eps", 1e-6, "hidden_act", "silu", false},
    FamilySpec{"gemma", Family::gemma, "GemmaForCausalLM", 256000, 3072, 28, 16, 16, 256, 24576, 8192, "rms_norm_eps", 1e-6, "hidden_act", "gelu_pytorch_tanh", true},
    FamilySpec{"gemma2", Family::gemma2, "Gemma2ForCausalLM", 256000, 2304, 26, 8, 4, 256, 9216, 8192, "rms_norm_eps", 1e-6, "hidden_activation", "gelu_pytorch_tanh", true},
    FamilySpec{"gemma3_text", Family::gemma3, "Gemma3ForCausalLM", 262208, 2304, 26, 8, 4, 256, 9216, 131072, "rms_norm_eps", 1e-6, "hidden_activation", "gelu_pytorch_tanh", true},
    FamilySpec{"phi", Family::phi, "PhiForCausalLM", 51200, 2048, 24, 32, 0, 0, 8192, 2048, "layer_norm_eps", 1e-5, "hidden_act", "gelu_new", false},
    FamilySpec{"phi3", Family::phi3, "Phi3ForCausalLM", 32064, 3072, 32, 32, 0, 0, 8192, 4096, "rms_norm_eps", 1e-5, "hidden_act", "silu", false},
    FamilySpec{"olmo", Family::olmo, "OlmoForCausalLM", 50304, 4096, 32, 32, 0, 0, 11008, 2048, "", 1e-5, "hidden_act", "silu", false},
    FamilySpec{"olmo2", Family::olmo2, "Olmo2ForCausalLM", 50304, 4096, 32, 32, 0, 0, 11008, 2048, "rms_norm_eps", 1e-5, "hidden_act", "silu", false},
    FamilySpec{"olmo3", Family::olmo3, "Olmo3ForCausalLM", 50304, 4096, 32, 32, 0, 0, 11008, 2048, "rms_norm_eps", 1e-5, "hidden_act", "silu", false},
    FamilySpec{"smollm3", Family::smollm3, "SmolLM3ForCausalLM", 128256, 2048, 36, 16, 4, 0, 11008, 32768, "rms_norm_eps", 1e-6, "hidden_act", "silu", true},
    FamilySpec{"granite", Family::granite, "GraniteForCausalLM", 32000, 4096, 32, 32, 0, 0, 11008, 2048, "rms_norm_eps", 1e-6, "hidden_act", "silu", false},
    FamilySpec{"seed_oss", Family::seed_oss, "SeedOssForCausalLM", 155136, 4096, 64, 80, 8, 128, 27648, 524288, "rms_norm_eps", 1e-6, "hidden_act", "silu", false},
    FamilySpec{"arcee", Family::arcee, "ArceeForCausalLM", 32000, 2560, 32, 32, 0, 0, 18432, 4096, "rms_norm_eps", 1e-5, "hidden_act", "relu2", false},
    FamilySpec{"starcoder2", Family::starcoder2, "Starcoder2ForCausalLM", 49152, 3072, 30, 24, 2, 0, 12288, 4096, "norm_epsilon", 1e-5, "hidden_act", "gelu_pytorch_tanh", true},
    FamilySpec{"exaone4", Family::exaone4, "Exaone4ForCausalLM", 102400, 4096, 32, 32, 32, 0, 16384, 2048, "rms_norm_eps", 1e-5, "hidden_act", "silu", false},
    FamilySpec{"gpt_oss", Family::gpt_oss, "GptOssForCausalLM", 201088, 2880, 36, 64, 8, 64, 2880, 131072, "rms_norm_eps", 1e-5, "hidden_act", "silu", false},
    FamilySpec{"olmoe", Family::olmoe, "OlmoeForCausalLM", 50304, 2048, 16, 16, 0, 0, 2048, 4096, "rms_norm_eps", 1e-5, "hidden_act", "silu", false},
    FamilySpec{"deepseek_v2", Family::deepseek_v2, "DeepseekV2ForCausalLM", 102400, 4096, 32, 32, 0, 0, 11008, 2048, "rms_norm_eps", 1e-6, "hidden_act", "silu", false},
    FamilySpec{"deepseek_v3", Family::deepseek_v3, "DeepseekV3ForCausalLM", 129280, 7168, 61, 128, 128, 0, 18432, 4096, "rms_norm_eps", 1e-6, "hidden_act", "silu", false},
    FamilySpec{"bert", Family::bert, "BertForMaskedLM", 30522, 768, 12, 12, 0, 0, 3072, 512, "layer_norm_eps", 1e-12, "hidden_act", "gelu", true},
    FamilySpec{"roberta", Family::roberta, "RobertaForMaskedLM", 50265, 768, 12, 12, 0, 0, 3072, 512, "layer_norm_eps", 1e-12, "hidden_act", "gelu", true},
    FamilySpec{"distilbert", Family::distilbert, "DistilBertForMaskedLM", 30522, 768, 6, 12, 0, 0, 3072, 512, "", 1e-12, "activation", "gelu", true},
    // the same modelling code under another name
    FamilySpec{"xlm-roberta", Family::roberta, "XLMRobertaForMaskedLM", 30522, 768, 12, 12, 0, 0, 3072, 512, "layer_norm_eps", 1e-12, "hidden_act", "gelu", true},
    FamilySpec{"camembert", Family::roberta, "CamembertForMaskedLM", 30522, 768, 12, 12, 0, 0, 3072, 512, "layer_norm_eps", 1e-12, "hidden_act", "gelu", true},
};

// Known by name, and what a description of them would need.
struct Missing { std::string_view type, what, nearest; };
inline constexpr std::array kMissing = {
    Missing{"mamba", "state-space layers (selective scan)", ""}, Missing{"mamba2", "state-space layers (selective scan)", ""}, Missing{"falcon_mamba", "state-space layers (selective scan)", ""},
    Missing{"jamba", "state-space layers between attention layers", "mixtral"}, Missing{"bamba", "state-space layers between attention layers", "llama"}, Missing{"zamba2", "state-space layers with shared attention blocks", "llama"},
    Missing{"rwkv", "recurrent layers", ""}, Missing{"recurrent_gemma", "recurrent layers between attention layers", "gemma2"}, Missing{"granitemoehybrid", "state-space layers between attention layers", "llama"},
    Missing{"gemma4", "layers that share keys and values, inputs by layer, an optional mixture, and vision and audio towers", "gemma3"}, Missing{"gemma4_text", "layers that share keys and values, inputs by layer and an optional mixture", "gemma3_text"},
    Missing{"qwen3_5_moe", "gated delta-net layers between attention layers", "qwen3_moe"}, Missing{"kimi_linear", "delta attention layers between latent ones", "deepseek_v3"}, Missing{"lfm2", "short convolutions between attention layers", "qwen3"},
    Missing{"deepseek_v4", "compressed keys and values beside a window", "deepseek_v3"}, Missing{"mistral4", "latent attention with scaled queries and a mixture", "deepseek_v3"}, Missing{"dots1", "Qwen 3's attention in a DeepSeek-V3 mixture", "deepseek_v3"},
    Missing{"ministral3", "queries that are scaled by their position", "mistral"}, Missing{"ernie4_5", "interleaved rotary positions in fp32", "llama"}, Missing{"hunyuan_v1_dense", "queries and keys that are normed after they are turned", "qwen3"},
    Missing{"apertus", "an activation with parameters of its own (xIELU)", "arcee"}, Missing{"helium", "interleaved rotary positions", "llama"}, Missing{"nemotron", "layer norms of 1 + weight", "arcee"}, Missing{"nanochat", "nanochat's own blocks as transformers writes them; nanochat itself is laid out by its --depth", "llama"},
    Missing{"qwen3_next", "gated delta-net layers between attention layers", "qwen3_moe"}, Missing{"qwen3_5", "gated delta-net layers between attention layers", "qwen3"},
    Missing{"t5", "an encoder and a decoder with cross-attention and relative position biases", ""}, Missing{"mt5", "an encoder and a decoder with cross-attention and relative position biases", ""},
    Missing{"bart", "an encoder and a decoder with cross-attention", "roberta"}, Missing{"mbart", "an encoder and a decoder with cross-attention", "roberta"}, Missing{"whisper", "an audio encoder and a decoder with cross-attention", ""},
    Missing{"llama4", "chunked attention, an interleaved mixture and a vision tower", "mixtral"}, Missing{"llama4_text", "chunked attention and an interleaved mixture", "mixtral"},
    Missing{"gemma3n", "per-layer embeddings, activation sparsity and audio and vision towers", "gemma3_text"}, Missing{"falcon", "multi-query projections fused per group and ALiBi", "gpt_neox"}, Missing{"bloom", "ALiBi position biases", "gpt2"}, Missing{"mpt", "ALiBi position biases", "gpt2"},
    Missing{"opt", "positions offset by two and projections around the embeddings", "gpt2"}, Missing{"gptj", "interleaved rotary positions beside one shared norm, without biases in attention", "phi"}, Missing{"gpt_neo", "local attention layers with unscaled products", "gpt2"},
    Missing{"gpt_bigcode", "one key and value head in a fused projection", "gpt2"}, Missing{"cohere", "parallel branches with layer norms without bias and scaled logits", "llama"}, Missing{"cohere2", "parallel branches with layer norms without bias and windows", "llama"},
    Missing{"granitemoe", "multipliers and a mixture with fused expert inputs", "mixtral"}, Missing{"phimoe", "sparse-mixer routing and layer norms", "mixtral"}, Missing{"phi4_multimodal", "vision and audio towers with adapters", "phi3"},
    Missing{"stablelm", "layer norms and partly rotated heads around a gated MLP", "llama"}, Missing{"glm", "post norms and interleaved rotary positions", "llama"}, Missing{"glm4", "sandwich norms and interleaved rotary positions", "gemma2"}, Missing{"glm4_moe", "partly rotated heads in a DeepSeek-V3 mixture without MLA", "deepseek_v3"},
    Missing{"dbrx", "fused experts with clipped projections", "mixtral"}, Missing{"deepseek_v32", "sparse attention with an indexer", "deepseek_v3"}, Missing{"kimi_k2", "a modelling file of its own", "deepseek_v3"}, Missing{"minimax", "lightning attention layers", "mixtral"},
    Missing{"modernbert", "windows, rotary positions and unpadded batches in an encoder", "bert"}, Missing{"albert", "layers that share one set of weights", "bert"}, Missing{"electra", "a generator beside a discriminator", "bert"}, Missing{"deberta", "disentangled attention", "bert"}, Missing{"deberta-v2", "disentangled attention", "bert"}, Missing{"mpnet", "relative position biases", "bert"}, Missing{"longformer", "global and windowed attention in one layer", "roberta"}, Missing{"nomic_bert", "a modelling file of its own", "bert"},
    Missing{"llava", "a vision tower", "llama"}, Missing{"mllama", "a vision tower with cross-attention", "llama"}, Missing{"mistral3", "a vision tower", "mistral"}, Missing{"pixtral", "a vision tower", "mistral"}, Missing{"qwen2_vl", "a vision tower", "qwen2"}, Missing{"qwen2_5_vl", "a vision tower", "qwen2"}, Missing{"qwen3_vl", "a vision tower", "qwen3"}, Missing{"idefics3", "a vision tower", "llama"}, Missing{"paligemma", "a vision tower", "gemma"}, Missing{"clip", "two towers", "bert"}, Missing{"siglip", "two towers", "bert"}, Missing{"vit", "patches of images for tokens", "bert"},
};

// Fields that never move memory while training, or that say nothing of the model itself.
inline constexpr std::array<std::string_view, 75> kHarmless = {
    "_name_or_path", "_commit_hash", "transformers_version", "_attn_implementation_autoset", "initializer_range", "initializer_factor", "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "cls_token_id",
    "mask_token_id", "unk_token_id", "decoder_start_token_id", "rope_theta", "rope_scaling", "rope_local_base_freq", "rotary_emb_base", "rope_parameters", "original_max_position_embeddings", "rope_interleave", "pretraining_tp",
    "router_aux_loss_coef", "aux_loss_alpha", "seq_aux", "routed_scaling_factor", "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout", "n_ctx", "task_specific_params",
    "id2label", "label2id", "problem_type", "finetuning_task", "gradient_checkpointing", "classifier_dropout", "seq_classif_dropout", "qa_dropout", "directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
    "pooler_size_per_head", "pooler_type", "tie_weights_", "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "max_length", "do_sample", "temperature", "top_p", "min_length", "num_beams", "return_dict", "output_attentions", "output_hidden_states",
    "torchscript", "use_bfloat16", "is_encoder_decoder", "chunk_size_feed_forward", "resid_pdrop_", "attn_implementation", "_attn_implementation", "cache_implementation", "embd_layer", "ep_size", "num_labels", "max_window_layers", "unsloth_fixed", "unsloth_version", "generation_config", "output_past"};

}  // namespace dryfit
