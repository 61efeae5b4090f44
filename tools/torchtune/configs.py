#!/usr/bin/env python3
"""Writes data/torchtune_configs.tsv: of the configurations that an installed torchtune ships, what moves memory, for the models that dryfit describes.

`configs.py > data/torchtune_configs.tsv`, with torchtune's Python. Only facts: names and values, none of the files' text.
"""
import importlib.metadata
import pathlib
import re

import torchtune
import yaml

FAMILIES = ("llama2", "llama3", "llama3_1", "llama3_2", "llama3_3", "mistral", "qwen2", "qwen2_5")
KEYS = ("device", "dtype", "compile", "batch_size", "gradient_accumulation_steps", "optimizer_in_bwd", "clip_grad_norm", "enable_activation_checkpointing", "enable_activation_offloading",
        "fsdp_cpu_offload", "fsdp_reshard_after_forward", "custom_sharded_layers", "tensor_parallel_dim", "data_parallel_shard_dim", "data_parallel_replicate_dim",
        "tokenizer.max_seq_len", "dataset.packed", "optimizer._component_", "optimizer.fused", "optimizer.foreach", "optimizer.momentum", "loss._component_", "loss.num_output_chunks",
        "model._component_", "model.lora_attn_modules", "model.apply_lora_to_mlp", "model.apply_lora_to_output", "model.lora_rank", "model.lora_dropout", "model.use_dora")
OTHER_RUNS = ("dpo", "ppo", "grpo", "KD", "qat", "eval", "reward", "generation")


def value_of(config, key):
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def written(value):
    return "[" + ",".join(value) + "]" if isinstance(value, list) else str(value).lower() if isinstance(value, bool) else str(value)


def main():
    folder = pathlib.Path(torchtune.__file__).parent.parent / "recipes" / "configs"
    print(f"# What moves memory in the configurations of torchtune {importlib.metadata.version('torchtune')}, by tools/torchtune/configs.py: name, then key=value words.")
    for path in sorted(folder.glob("*/*.yaml")):
        name = str(path.relative_to(folder))[:-5]
        if path.parent.name not in FAMILIES or any(re.search(rf"(^|[_/]){word}", name, re.IGNORECASE) for word in OTHER_RUNS):
            continue
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        words = [f"{key}={written(value)}" for key in KEYS if (value := value_of(config, key)) is not None]
        print(name, " ".join(words), sep="\t")


if __name__ == "__main__":
    main()
