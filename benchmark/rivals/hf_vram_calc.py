# hf-vram-calc: factors of the weights for training and LoRA; neither batch nor length moves them.
NAME = "hf-vram-calc"
PACKAGES = ["hf-vram-calc==1.0.9"]
TORCH = True
BESIDE = ["rich==14.1.0"]
FIGURE = "training or LoRA memory"
SETTINGS = "the true number of parameters; dtype of the weights (int4 for 4 bits); rank of the adapters"

from rows import require


def settings(row):
    require(row, ("full", "lora"), ("none", "nf4", "nf4-dq"))
    return {"params": row["params"], "dtype": row["dtype"] if row["quant"] == "none" else "int4", "method": row["method"], "lora_rank": row["lora_rank"]}


def estimate(s):
    from hf_vram_calc.calculator import VRAMCalculator
    from hf_vram_calc.config import ConfigManager

    calculator = VRAMCalculator(ConfigManager())
    weights = calculator.calculate_model_memory(s["params"], s["dtype"])
    total = calculator.calculate_training_memory(weights) if s["method"] == "full" else calculator.calculate_lora_memory(weights, s["params"], s["lora_rank"])
    return {"process": total * 1024}
