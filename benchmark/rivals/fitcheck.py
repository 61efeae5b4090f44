# fitcheck-llm: formulas for LoRA, QLoRA and full fine-tuning of Llama-shaped models, calibrated on one Tesla T4.
NAME = "fitcheck-llm"
PACKAGES = ["fitcheck-llm==0.3.1"]
TORCH = False
FIGURE = "peak VRAM of the process; its tensors alone (all but overhead) for rows measured as allocated bytes, without its CUDA context for reserved ones"
SETTINGS = "the Hub's answers (config.json, number of parameters) given to it; --flash-attn; fp32 AdamW states unless trained in bf16, then bf16; the row's GPU where it has it"

from rows import ALL_LINEAR, ATTENTION, require

GPUS = {"a100-sxm4-40gb": "a100-40", "a100-sxm4-80gb": "a100-80", "a10g": "a10", "l40s": "l40s"}


def settings(row):
    require(row, ("full", "lora"), ("none", "nf4", "nf4-dq"), [["q_proj", "v_proj"], ["q_proj", "k_proj", "v_proj"], ["gate_proj", "up_proj", "down_proj"], ATTENTION, ALL_LINEAR])
    return {"model": row["model"], "config": row["config"], "params": row["params"], "gpu": GPUS[row["gpu"]],
            "training": {"precision": row["dtype"], "quantization": "none" if row["quant"] == "none" else "nf4", "double_quant": row["quant"] == "nf4-dq",
                         "optimizer": "adamw", "optimizer_dtype": row["dtype"], "batch_size": row["batch"], "seq_len": row["seq"], "lora_rank": row["lora_rank"],
                         "lora_targets": row["lora_targets"] or ["q_proj"], "grad_checkpoint": row["recompute"], "flash_attn": True}}


def estimate(s):
    from fitcheck import config_parser
    from fitcheck.estimator import TrainingConfig, estimate as run
    from fitcheck.gpu_db import get_gpu
    from fitcheck.overhead_db import DEFAULT_OVERHEAD_PROFILE
    from rows import NotCovered, hub_file

    config_parser.hf_hub_download = lambda **_: hub_file(s["config"])
    config_parser._reported_param_count = lambda *_: s["params"]
    try:
        model = config_parser.fetch_model_config(s["model"])
    except config_parser.UnsupportedModelError as error:
        raise NotCovered("its shape: " + str(error).split(" - ")[0]) from error
    report = run(model, TrainingConfig(**s["training"]), get_gpu(s["gpu"]))
    return {"allocated": report.total_mib - report.overhead_mib, "reserved": report.total_mib - DEFAULT_OVERHEAD_PROFILE.base_context_mib, "process": report.total_mib}
