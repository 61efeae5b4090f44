# ml-memguard: a formula for LoRA, QLoRA and full fine-tuning, first made for Apple's MLX.
NAME = "ml-memguard"
PACKAGES = ["ml-memguard==0.5.0"]
TORCH = False
FIGURE = "total memory; without its overhead for rows measured as allocated bytes"
SETTINGS = "shapes and number of parameters given; adapters in every layer, as many projections as the row has; flash attention"

from rows import ALL_LINEAR, ATTENTION, require


def settings(row):
    require(row, ("full", "lora"), ("none", "nf4", "nf4-dq"), [["q_proj", "v_proj"], ["q_proj", "k_proj", "v_proj"], ["gate_proj", "up_proj", "down_proj"], ATTENTION, ALL_LINEAR])
    config = row["config"]
    quantized = row["quant"] != "none"
    return {"model": {"params": row["params"], "hidden_dim": config["hidden_size"], "num_heads": config["num_attention_heads"], "num_kv_heads": config.get("num_key_value_heads"),
                      "num_layers": config["num_hidden_layers"], "intermediate_dim": config.get("intermediate_size"), "bits": 4 if quantized else 16},
            "method": "full" if row["method"] == "full" else "qlora" if quantized else "lora",
            "train": {"batch_size": row["batch"], "seq_length": row["seq"], "lora_rank": row["lora_rank"] or 8, "lora_layers": config["num_hidden_layers"], "lora_targets": len(row["lora_targets"]) or 4,
                      "optimizer": "adamw", "grad_checkpoint": row["recompute"], "qlora_double_quant": row["quant"] == "nf4-dq", "flash_attention": True}}


def estimate(s):
    from memory_guard.estimator import FinetuneMethod, ModelSpec, TrainSpec, estimate_training_memory

    method = {"full": FinetuneMethod.FULL, "lora": FinetuneMethod.LORA, "qlora": FinetuneMethod.QLORA}[s["method"]]
    out = estimate_training_memory(ModelSpec(**s["model"]), TrainSpec(method=method, **s["train"]))
    return {"allocated": out.total_mb - out.overhead_mb, "process": out.total_mb}
