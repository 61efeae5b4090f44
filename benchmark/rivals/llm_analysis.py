# llm-analysis: Megatron's formulas for full training, by layer.
NAME = "llm-analysis"
PACKAGES = ["llm-analysis==0.2.2", "setuptools<81"]
TORCH = False
FIGURE = "weights, gradients, optimizer state and activations per GPU"
SETTINGS = "shapes given; an H100 whatever the row's GPU, since it refuses what does not fit; flash attention; no fp32 master weights where the row has none (master_weights_dtype_bytes 2); gated MLP where the model has one; its activations with layer norms in the row's dtype"

from rows import require


def settings(row):
    require(row)
    config = row["config"]
    return {"gpu": "h100-sxm-80gb", "batch": row["batch"], "seq": row["seq"], "recompute": row["recompute"], "bytes": 2 if row["dtype"] == "bf16" else 4,
            "gated": config["model_type"] in ("llama", "mistral", "gemma", "gemma2", "phi3"),
            "model": {"name": row["model"], "num_layers": config["num_hidden_layers"], "n_head": config["num_attention_heads"], "hidden_dim": config["hidden_size"], "vocab_size": config["vocab_size"],
                      "max_seq_len": config.get("max_position_embeddings"), "num_key_value_heads": config.get("num_key_value_heads"), "ffn_embed_dim": config["intermediate_size"],
                      "expansion_ratio": config["intermediate_size"] / config["hidden_size"], "model_type": config["model_type"]}}


def estimate(s):
    from llm_analysis.analysis import ActivationRecomputation, DSZeRO, LLMAnalysis
    from llm_analysis.config import ModelConfig, ParallelismConfig, get_dtype_config_by_name, get_gpu_config_by_name

    analysis = LLMAnalysis(ModelConfig(**s["model"]), get_gpu_config_by_name(s["gpu"]), get_dtype_config_by_name("w16a16e16" if s["bytes"] == 2 else "w32a32e32"), ParallelismConfig(), flops_efficiency=0.5)
    out = analysis.training(batch_size_per_gpu=s["batch"], gradient_accumulation_steps=1, seq_len=s["seq"], total_num_tokens=1e9, ds_zero=DSZeRO(0), flash_attn=True,
                            activation_recomputation=ActivationRecomputation(4 if s["recompute"] else 0), layernorm_dtype_bytes=s["bytes"], master_weights_dtype_bytes=s["bytes"], mlp_gated_linear_units=s["gated"])
    parts = ("weight_memory_per_gpu", "gradient_memory_per_gpu", "optimizer_state_memory_per_gpu", "activation_memory_per_gpu", "activation_memory_embedding_output_per_gpu")
    return {"allocated": sum(out[p] for p in parts) / 2**20}
