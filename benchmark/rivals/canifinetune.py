# canifinetune: formulas for full fine-tuning, LoRA and QLoRA with Trainer and PEFT, with the logits' share of its own; calibrated on an RTX 4080.
NAME = "canifinetune"
PACKAGES = ["canifinetune==0.4.1"]
TORCH = False
FIGURE = "reserved bytes (\"process torch peak reserved\") without its safety margin; without its CUDA overhead too for rows measured as allocated bytes"
SETTINGS = "shapes and number of parameters given by its override; optimizer adamw_torch; sdpa; its target scope where that names the row's products"

from rows import ALL_LINEAR, ATTENTION, require

SCOPES = [(["q_proj", "v_proj"], "conservative"), (ATTENTION, "attention"), (ALL_LINEAR, "all_linear")]
FAMILIES = {"llama": "llama", "mistral": "mistral", "phi": "phi", "gemma": "gemma", "gemma2": "gemma"}
VRAM = {"a100-sxm4-40gb": 40, "a100-sxm4-80gb": 80, "a10g": 22.5, "l40s": 45}  # GiB


def settings(row):
    require(row, ("full", "lora"), ("none", "nf4", "nf4-dq"), [t for t, _ in SCOPES], FAMILIES)
    config = row["config"]
    quantized = {"none": "none", "nf4": "nf4", "nf4-dq": "nf4_double_quant"}[row["quant"]]
    return {"model_id": row["model"], "method": "full" if row["method"] == "full" else "lora" if row["quant"] == "none" else "qlora", "quantization": quantized,
            "seq_len": row["seq"], "micro_batch_size": row["batch"], "base_dtype": row["dtype"], "optimizer": "adamw_torch", "gradient_checkpointing": row["recompute"],
            "lora_rank": row["lora_rank"] or 8, "lora_target_scope": next((word for t, word in SCOPES if t == row["lora_targets"]), "attention"),
            "attention_implementation": "sdpa", "gpu_vram_gb": VRAM[row["gpu"]], "use_network": False,
            "override": {"family": FAMILIES[config["model_type"]], "total_params": row["params"], "num_key_value_heads": config.get("num_key_value_heads") or config["num_attention_heads"],
                         "tie_word_embeddings": config.get("tie_word_embeddings", config["model_type"].startswith("gemma")),
                         **{k: config[k] for k in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")}}}


def estimate(s):
    from canifinetune.estimator.memory import EstimateRequest, estimate as run

    m = run(EstimateRequest(**s)).memory
    reserved = m.total_estimated_gb - m.safety_margin_gb
    return {"allocated": (reserved - m.cuda_overhead_gb) * 1024, "reserved": reserved * 1024}
