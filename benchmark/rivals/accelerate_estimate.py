# accelerate's `accelerate estimate-memory`: weights, gradients and Adam's moments. It says itself that activations are not in it.
NAME = "accelerate estimate-memory"
PACKAGES = ["accelerate==1.15.0"]
TORCH = True
FIGURE = "\"peak vRAM\" of training with Adam, at the step with the most of it; no activations"
SETTINGS = "the model's config.json on the meta device, as its command builds it; its column of the dtype (float16 for bf16)"

from rows import require


def settings(row):
    require(row)
    return {"config": row["config"], "dtype": row["dtype"]}


def estimate(s):
    from accelerate import init_empty_weights
    from accelerate.commands.estimate import estimate_training_usage
    from accelerate.utils import calculate_maximum_sizes
    from transformers import AutoConfig, AutoModelForCausalLM

    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**s["config"]))
    total, _ = calculate_maximum_sizes(model)
    stages = estimate_training_usage(total * 4 // model.dtype.itemsize, {"bf16": "float16", "fp32": "float32"}[s["dtype"]])  # takes the size in fp32, as its command does
    return {"process": max(stages.values()) / 2**20}
