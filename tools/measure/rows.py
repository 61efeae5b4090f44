"""The table of measured rows: appended to, never rewritten; a row that is there is not measured again. Needs no torch.

Columns that data/measured/nanochat.csv has carry the same names, so that `dryfit-accuracy` reads both. Fields hold no commas.
"""
import csv
import datetime
import json
import pathlib
import shutil

COLUMNS = ["id", "nanochat", "gpu", "gpus", "depth", "vocab_size", "max_seq_len", "device_batch_size", "total_batch_size", "fp8", "window_pattern", "torch",
           "allocated_mib", "rounding_mib", "stock", "source", "notes", "outcome", "kind", "model", "attention", "compile", "dtype", "checkpointing",
           "optimizer", "lora", "quantized", "alloc_conf", "cublas_workspace", "reserved_mib", "process_mib", "process_source", "device_mib", "context_mib", "step_ms", "tokens_per_second",
           "driver", "cuda", "gpu_memory_mib", "date", "command", "flags"]

GPUS = {"NVIDIA H100 80GB HBM3": "h100", "NVIDIA H200": "h200"}


def _mib(value):
    return "" if value is None else f"{value / 2**20:.2f}"


def flags(configuration, result, machine):
    """What dryfit is asked about a run that ended well, as a user would: a pasted command, or flags. Semicolons stand for commas. "" for what it cannot be asked."""
    c = configuration
    if result["outcome"] != "ok" or c.kind == "probe" or c.evaluate or c.cublas_workspace or (c.kind == "nanochat" and c.checkpointing):
        return ""
    words = ["--gpu", GPUS.get(machine["gpu"], machine["gpu"].removeprefix("NVIDIA ").lower().replace(" ", "-")), "--torch", machine["torch"]]
    words += ["--alloc-conf", c.alloc_conf.replace(",", ";")] if c.alloc_conf else []
    if c.kind == "nanochat":
        words += ["--nanochat", c.nanochat, "--vocab-size", str(c.vocab_size), "--attention", "fa3" if result.get("attention") == "fa3" else "flash"] + (["--depth", str(c.depth), "--window-pattern", c.window_pattern] if c.script == "chat_sft" else [])
        words += [] if c.compile else ["--compile", "0"]
        words += ["--dtype", c.dtype] if c.dtype != "bf16" else []
        if c.script == "base_train" and not any("core-metric-every" in a for a in result["script_arguments"]):  # the first version's cannot be switched off
            words += ["--phases", "load;validation;first_step;train_step;sampling"]
        return " ".join([*words, "--", "python", "-m", f"scripts.{c.script}", *result["script_arguments"]])
    words += ["--transformers", result["transformers"]] if "transformers" in result else []
    words += ["--config" if c.model.endswith(".json") else "--model", c.model]
    adapters = ["--use_peft", "True", "--lora_r", str(c.lora), "--lora_dropout", "0.05"] if c.lora else []
    adapters += ["--load_in_4bit", "True"] if c.quantized else []
    adapters += ["--use_bnb_nested_quant", "True"] if c.quantized == "nf4-dq" else []
    batch = ["--per_device_train_batch_size", str(c.device_batch_size)]
    if c.trl:
        length = ["--max_length", str(c.max_seq_len), "--dtype", "bfloat16" if c.dtype == "bf16" else "float32"]
        return " ".join([*words, "--padded", "0", "--", "trl", "sft", *batch, *length, *adapters])
    words += ["--device-batch-size", str(c.device_batch_size), "--max-seq-len", str(c.max_seq_len),
              "--dtype", "bf16" if c.dtype == "bf16" or c.quantized else "fp32"]
    words += ["--grad-accum-steps", str(c.grad_accum_steps)] if c.grad_accum_steps > 1 else []
    words += ["--mixed", {"autocast": "bf16", "fp16": "fp16"}[c.dtype]] if c.dtype in ("autocast", "fp16") else []
    words += ["--liger", "1"] if c.liger else []
    words += ["--recompute", "full"] if c.checkpointing else []
    words += ["--compile", "1"] if c.compile else []
    words += ["--optimizer", c.optimizer] if c.optimizer else []
    words += ["--attention", "eager"] if c.attention == "eager" else []
    pasted = [*adapters, *(word for text in c.extra for word in ("--" + text).split("="))]
    return " ".join([*words, *(["--", "python", "sft.py", *batch, *pasted] if pasted else [])])


def make_row(configuration, result, machine, command, today=None):
    """result: what a job wrote (see job.Meter.result), or {"outcome": ..., "notes": ...}."""
    step = result.get("step_seconds")
    row = {
        "id": f"M{configuration.key()}", "nanochat": result.get("nanochat", configuration.nanochat) if configuration.kind == "nanochat" else "",
        "gpu": machine["gpu"], "gpus": configuration.gpus, "depth": configuration.depth or "", "vocab_size": configuration.vocab_size or "",
        "max_seq_len": configuration.max_seq_len, "device_batch_size": configuration.device_batch_size,
        "total_batch_size": configuration.total_batch_size(), "fp8": "yes" if configuration.fp8 else "no", "window_pattern": configuration.window_pattern,
        "torch": machine["torch"], "allocated_mib": _mib(result.get("allocated")), "rounding_mib": "0.01", "stock": "yes", "source": "tools/measure",
        "notes": f"{configuration.hypothesis}{'; ' + result['notes'] if result.get('notes') else ''}", "outcome": result["outcome"],
        "kind": configuration.kind, "model": configuration.model, "attention": result.get("attention", configuration.attention),
        "compile": "yes" if configuration.compile else "no", "dtype": configuration.dtype, "checkpointing": "yes" if configuration.checkpointing else "no",
        "optimizer": configuration.optimizer, "lora": configuration.lora or "", "quantized": configuration.quantized,
        "alloc_conf": configuration.alloc_conf, "cublas_workspace": configuration.cublas_workspace, "reserved_mib": _mib(result.get("reserved")),
        "process_mib": _mib(result.get("process")), "process_source": result.get("process_source", ""), "device_mib": _mib(result.get("device")),
        "context_mib": _mib(result.get("context")), "step_ms": "" if step is None else f"{step * 1000:.1f}",
        "tokens_per_second": "" if not step else f"{configuration.total_batch_size() / step:.0f}", "driver": machine["driver"], "cuda": machine["cuda"],
        "gpu_memory_mib": machine["gpu_memory_mib"], "date": (today or datetime.date.today()).isoformat(), "command": command, "flags": flags(configuration, result, machine),
    }
    return {name: str(value).replace(",", ";").replace("\n", " ").replace('"', "'") for name, value in row.items()}


class Table:
    """rows.csv, and beside it details.jsonl: phases and stages of each row; traces/ID.json.gz: every allocation of those that asked for it."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.csv = self.folder / "rows.csv"
        self.details = self.folder / "details.jsonl"
        self.traces = self.folder / "traces"

    def rows(self):
        if not self.csv.exists():
            return []
        with open(self.csv, newline="", encoding="utf-8") as source:
            return list(csv.DictReader(source))

    def has(self, configuration, machine):
        """Measured already on this GPU with this torch, with an outcome that stands."""
        return any(r["id"] == f"M{configuration.key()}" and r["gpu"] == machine["gpu"] and r["torch"] == machine["torch"] and r["outcome"] in ("ok", "oom")
                   for r in self.rows())

    def append(self, row, result, trace=None):
        """trace: a file that moves here, or None."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if trace:
            self.traces.mkdir(exist_ok=True)
            shutil.move(trace, self.traces / f"{row['id']}.json.gz")
        fresh = not self.csv.exists()
        with open(self.csv, "a", newline="", encoding="utf-8") as sink:
            writer = csv.DictWriter(sink, COLUMNS, lineterminator="\n")
            if fresh:
                writer.writeheader()
            writer.writerow(row)
        with open(self.details, "a", encoding="utf-8") as sink:
            sink.write(json.dumps({"id": row["id"], "gpu": row["gpu"], "torch": row["torch"], **result}) + "\n")
