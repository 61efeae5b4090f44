# The measured rows of data/measured, as plain values every rival's adapter reads: the model's config.json, its parameters, what is trained and how.
# Knows no rival and no formula. Flags are dryfit's own or a pasted litgpt or PEFT command, the few forms that the files use.
import csv
import hashlib
import json
import os
import pathlib
import re
import subprocess
import tempfile

TOP = pathlib.Path(__file__).resolve().parent.parent
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL_LINEAR = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]

# Families of transformers.csv whose words are read here; Megatron-LM's are not yet
FAMILIES = ("litgpt", "peft", "swift")
# adapters that no rival asks about, so their rows are left to docs/accuracy.md: DoRA, prompt tuning
NOT_ASKED = ("--dora", "--num_virtual_tokens")
# MiB of the cards on which runs went out of memory (data/gpus.csv): a rival whose figure is below calls such a run fitting
CARDS = {"a100-sxm4-40gb": 40960, "a10g": 23028}


class NotCovered(Exception):
    """A rival cannot express a row; the reason is its message."""


def require(row, methods=("full",), quants=("none",), targets=None, models=None, mixed=False):
    """Raises NotCovered unless a rival that speaks these words can express the row. Most know one GPU, AdamW and steps that are not compiled."""
    if row["table"] == "nanochat":
        raise NotCovered("nanochat's model, its Muon and its compiled step")
    if row["method"] not in methods:
        raise NotCovered({"full": "full fine-tuning", "lora": "LoRA"}.get(row["method"], "LLaMA-Adapter"))
    if row["quant"] not in quants:
        raise NotCovered("4-bit weights")
    if row["mixed"] and not mixed:
        raise NotCovered("autocast")
    if row["parallel"] != "none":
        raise NotCovered(row["parallel"].upper())
    if targets is not None and row["method"] == "lora" and row["lora_targets"] not in targets:
        raise NotCovered("adapters on the head" if "lm_head" in row["lora_targets"] else "these adapters")
    if models is not None and row["config"]["model_type"] not in models:
        raise NotCovered(f"model_type {row['config']['model_type']}")


def presets():
    found = {}
    for path in sorted((TOP / "data/models").glob("*.json")):
        for model in json.loads(path.read_text()):
            found[model["name"]] = model["config"]
    return found


def hub_file(config):
    """A config.json in a folder of its own, as the Hub would serve it: for rivals that fetch one and this machine cannot."""
    text = json.dumps(config, sort_keys=True)
    folder = pathlib.Path(tempfile.gettempdir()) / f"dryfit-benchmark-{os.getuid()}" / hashlib.sha256(text.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(text)
    return str(folder / "config.json")


def flag(words, *names):
    """The value after one of `names` (the last wins), else None."""
    value = None
    for i, word in enumerate(words):
        if word.lstrip("-").replace("-", "_") in names and word.startswith("--"):
            value = words[i + 1]
    return value


def lora_targets(words):
    """Which products have adapters: PEFT's list, or LitGPT's switches (query and value unless said otherwise)."""
    if "--lora_target_modules" in words:
        start = words.index("--lora_target_modules") + 1
        return [w for w in words[start:] if w.endswith("_proj")]
    targets = ["q_proj", "v_proj"]
    if flag(words, "lora_key") == "true":
        targets.insert(1, "k_proj")
    if flag(words, "lora_projection") == "true":
        targets.append("o_proj")
    if flag(words, "lora_mlp") == "true":
        targets += ["gate_proj", "up_proj", "down_proj"]
    if flag(words, "lora_head") == "true":
        targets.append("lm_head")
    return targets


def method_of(words):
    script = next((w for w in words if re.fullmatch(r"finetune_\w+|pretrain", w)), "")
    if script.startswith("finetune_adapter"):
        return script.removeprefix("finetune_")
    if script == "finetune_lora" or flag(words, "lora_rank", "lora_r"):
        return "lora"
    return "full"


def transformers_row(fields, configs, count):
    words = fields["flags"].split()
    name, file = flag(words, "model"), flag(words, "config")
    config = json.loads((TOP / file).read_text()) if file else configs[name]
    precision = flag(words, "precision")
    method = method_of(words)
    return {
        "id": fields["id"], "table": "transformers", "family": fields["family"], "kind": fields["kind"], "phase": fields["phase"], "loop": fields["loop"], "flags": fields["flags"],
        "measured_mib": float(fields["measured_mib"]) if fields["measured_mib"] else None, "known": fields["known"] == "yes",
        "gpu": fields["gpu"], "gpus": int(flag(words, "gpus") or 1), "parallel": flag(words, "parallel") or "none",
        "model": name or pathlib.Path(file).stem, "config": config, "params": count(file or name),
        "batch": int(flag(words, "device_batch_size", "train.micro_batch_size", "per_device_train_batch_size")),
        "seq": int(flag(words, "max_seq_len", "train.max_seq_length")),
        "method": method, "lora_rank": int(flag(words, "lora_rank", "lora_r") or 8) if method == "lora" else None,
        "lora_targets": lora_targets(words) if method == "lora" else [],
        "quant": (flag(words, "quantize") or "none").removeprefix("bnb."),
        "dtype": "bf16" if precision == "bf16-true" else flag(words, "dtype"), "mixed": flag(words, "mixed"),
        "optimizer": "adamw", "recompute": flag(words, "recompute") == "full", "compile": False, "fp8": False,
    }


def nanochat_row(fields):
    return {
        "id": fields["id"], "table": "nanochat", "family": "nanochat", "kind": "allocated", "phase": "", "loop": "", "flags": nanochat_flags(fields),
        "measured_mib": float(fields["allocated_mib"]), "known": fields["stock"] == "yes", "gpu": fields["gpu"], "gpus": int(fields["gpus"]), "parallel": "nanochat",
        "model": "nanochat", "config": None, "params": None, "depth": int(fields["depth"]), "batch": int(fields["device_batch_size"]), "seq": int(fields["max_seq_len"]),
        "method": "full", "lora_rank": None, "lora_targets": [], "quant": "none", "dtype": "bf16", "mixed": None,
        "optimizer": "muon+adamw", "recompute": False, "compile": True, "fp8": fields["fp8"] == "yes",
    }


def nanochat_flags(fields):
    """dryfit's flags of a row of nanochat.csv."""
    words = []
    for name in ("nanochat", "depth", "vocab_size", "max_seq_len", "device_batch_size", "total_batch_size", "window_pattern", "torch", "attention", "alloc_conf", "core_metric_every", "aspect_ratio", "head_dim", "resume_from_step", "phases"):
        if fields[name]:
            words.append(f"--{name.replace('_', '-')}={fields[name].replace(' ', ',')}")
    if fields["fp8"] == "yes":
        words.append("--fp8")
    if fields["torchrun"] == "yes":
        words.append("--torchrun=1")
    words.append(f"--gpus={fields['gpus']}")
    return " ".join(words)


def read_rows(dryfit):
    """Every row of both files. dryfit: the binary, asked for the number of parameters of a model (equal to transformers', docs/models.md)."""
    counts = {}

    def count(model):
        if model not in counts:
            out = subprocess.run([dryfit, "list", "models", model, "--json"], capture_output=True, text=True, check=True, cwd=TOP)
            counts[model] = json.loads(out.stdout)["presets"][0]["params"]
        return counts[model]

    configs = presets()
    with open(TOP / "data/measured/nanochat.csv") as file:
        rows = [nanochat_row(f) for f in csv.DictReader(file)]
    with open(TOP / "data/measured/transformers.csv") as file:
        rows += [transformers_row(f, configs, count) for f in csv.DictReader(file) if f["family"] in FAMILIES and not any(word in f["flags"] for word in NOT_ASKED)]
    return rows
