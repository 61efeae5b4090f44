# ftuneai: formulas for full fine-tuning, LoRA and QLoRA, from a table of models and the Hub.
NAME = "ftuneai"
PACKAGES = ["ftuneai==0.4.1"]
TORCH = False
FIGURE = "total VRAM; without its CUDA overhead for rows measured as allocated bytes"
SETTINGS = "the Hub's config.json given to it and the true number of parameters; flash_attention, gradient_checkpointing as the row"

from rows import ALL_LINEAR, ATTENTION, require

TARGETS = [(["q_proj", "v_proj"], "attention"), (ATTENTION, "attention_all"), (ALL_LINEAR, "all_linear")]


def settings(row):
    require(row, ("full", "lora"), ("none", "nf4", "nf4-dq"), [t for t, _ in TARGETS])
    out = {"config": row["config"], "params": row["params"],
           "training": {"method": "full", "batch_size": row["batch"], "seq_length": row["seq"], "gradient_checkpointing": row["recompute"], "optimizer": "adamw", "flash_attention": True}}
    if row["method"] == "lora":
        quantized = row["quant"] != "none"
        out["training"] |= {"method": "qlora" if quantized else "lora", "quantization": "4bit" if quantized else "none", "lora_rank": row["lora_rank"],
                            "lora_target": next(word for t, word in TARGETS if t == row["lora_targets"])}
    return out


def estimate(s):
    from ftuneai import Estimator, hub

    hub.fetch_model_config = lambda _: s["config"]
    hub._estimate_param_count = lambda _: s["params"]
    memory = Estimator(model=f"row/{hash(str(s['config']))}", **s["training"]).estimate_memory()
    return {"allocated": (memory.total_gb - memory.overhead_gb) * 1024, "process": memory.total_gb * 1024}
