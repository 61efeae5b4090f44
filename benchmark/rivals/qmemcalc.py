# qmemcalc: a formula for LoRA and QLoRA; its number of parameters is 4 x width^2 x layers.
NAME = "qmemcalc"
PACKAGES = ["qmemcalc==0.1.1"]
TORCH = True
FIGURE = "total memory; without its 10 % of buffers for rows measured as allocated bytes"
SETTINGS = "the model's config.json in a folder; full fine-tuning as its num_trainable_params with the true number; rank of the adapters, whose places it does not ask for"

from rows import require


def settings(row):
    require(row, ("full", "lora"), ("none", "nf4", "nf4-dq"))
    out = {"batch_size": row["batch"], "seq_len": row["seq"], "precision": row["dtype"], "quantization": "none" if row["quant"] == "none" else "4bit", "optimizer": "adamw", "gradient_checkpointing": row["recompute"]}
    return {"config": row["config"], "training": out | ({"lora_r": row["lora_rank"]} if row["method"] == "lora" else {"num_trainable_params": row["params"]})}


def estimate(s):
    import os

    from qmemcalc import estimate_memory
    from rows import hub_file

    out = estimate_memory(os.path.dirname(hub_file(s["config"])), **s["training"])
    return {"allocated": (out["total_MB"] - out["buffers_MB"]) * 1e6 / 2**20, "process": out["total_MB"] * 1e6 / 2**20}
