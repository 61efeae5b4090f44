# torch-kitsune: traces a model on the meta device and counts the outputs of its modules; formulas for LoRA and QLoRA.
NAME = "torch-kitsune"
PACKAGES = ["torch-kitsune==0.7.0"]
TORCH = True
FIGURE = "peak; without its 15 % overhead for rows measured as allocated bytes"
SETTINGS = "the causal language model of config.json on the meta device in the row's dtype (fp32 for QLoRA, as its formula takes it); lora targets as the row"

from rows import ALL_LINEAR, ATTENTION, require


def settings(row):
    require(row, ("full", "lora"), ("none", "nf4", "nf4-dq"), [["q_proj", "v_proj"], ["q_proj", "k_proj", "v_proj"], ["gate_proj", "up_proj", "down_proj"], ATTENTION, ALL_LINEAR], ("llama", "mistral", "phi", "gemma", "gemma2"))
    if row["recompute"]:
        from rows import NotCovered

        raise NotCovered("gradient checkpointing")
    return {"config": row["config"], "batch": row["batch"], "seq": row["seq"], "dtype": row["dtype"], "rank": row["lora_rank"], "targets": row["lora_targets"], "quantized": row["quant"] != "none"}


def estimate(s):
    import torch
    from kitsune.predict import predict_memory
    from kitsune.predict.lora_estimator import LoRAConfig, estimate_lora_memory
    from transformers import AutoConfig, AutoModelForCausalLM

    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[s["dtype"]]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**s["config"]), dtype=torch.float32 if s["quantized"] else dtype)
    if s["rank"]:
        out = estimate_lora_memory(model, (s["seq"],), s["batch"], dtype, LoRAConfig(rank=s["rank"], target_modules=tuple(s["targets"]), use_qlora=s["quantized"]))
    else:
        out = predict_memory(model, (s["seq"],), s["batch"], dtype, "adamw", True)
    return {"allocated": (out.total_bytes - out.overhead_bytes) / 2**20, "process": out.total_bytes / 2**20}
