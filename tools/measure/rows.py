"""The table of measured rows: appended to, never rewritten; a row that is there is not measured again. Needs no torch.

Columns that data/measured/nanochat.csv has carry the same names, so that `dryfit-accuracy` reads both. Fields hold no commas.
"""
import csv
import datetime
import json
import pathlib

COLUMNS = ["id", "nanochat", "gpu", "gpus", "depth", "vocab_size", "max_seq_len", "device_batch_size", "total_batch_size", "fp8", "window_pattern", "torch",
           "allocated_mib", "rounding_mib", "stock", "source", "notes", "outcome", "kind", "model", "attention", "compile", "dtype", "checkpointing",
           "alloc_conf", "cublas_workspace", "reserved_mib", "process_mib", "process_source", "device_mib", "context_mib", "step_ms", "tokens_per_second",
           "driver", "cuda", "gpu_memory_mib", "date", "command"]


def _mib(value):
    return "" if value is None else f"{value / 2**20:.2f}"


def make_row(configuration, result, machine, command, today=None):
    """result: what a job wrote (see job.Meter.result), or {"outcome": ..., "notes": ...}."""
    step = result.get("step_seconds")
    row = {
        "id": f"M{configuration.key()}", "nanochat": result.get("nanochat", configuration.nanochat) if configuration.kind == "nanochat" else "",
        "gpu": machine["gpu"], "gpus": configuration.gpus, "depth": configuration.depth or "", "vocab_size": configuration.vocab_size,
        "max_seq_len": configuration.max_seq_len, "device_batch_size": configuration.device_batch_size,
        "total_batch_size": configuration.total_batch_size(), "fp8": "yes" if configuration.fp8 else "no", "window_pattern": configuration.window_pattern,
        "torch": machine["torch"], "allocated_mib": _mib(result.get("allocated")), "rounding_mib": "0.01", "stock": "yes", "source": "tools/measure",
        "notes": f"{configuration.hypothesis}{'; ' + result['notes'] if result.get('notes') else ''}", "outcome": result["outcome"],
        "kind": configuration.kind, "model": configuration.model, "attention": result.get("attention", configuration.attention),
        "compile": "yes" if configuration.compile else "no", "dtype": configuration.dtype, "checkpointing": "yes" if configuration.checkpointing else "no",
        "alloc_conf": configuration.alloc_conf, "cublas_workspace": configuration.cublas_workspace, "reserved_mib": _mib(result.get("reserved")),
        "process_mib": _mib(result.get("process")), "process_source": result.get("process_source", ""), "device_mib": _mib(result.get("device")),
        "context_mib": _mib(result.get("context")), "step_ms": "" if step is None else f"{step * 1000:.1f}",
        "tokens_per_second": "" if not step else f"{configuration.total_batch_size() / step:.0f}", "driver": machine["driver"], "cuda": machine["cuda"],
        "gpu_memory_mib": machine["gpu_memory_mib"], "date": (today or datetime.date.today()).isoformat(), "command": command,
    }
    return {name: str(value).replace(",", ";").replace("\n", " ").replace('"', "'") for name, value in row.items()}


class Table:
    """rows.csv, and details.jsonl beside it: phases, stages, snapshot summary of each row."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.csv = self.folder / "rows.csv"
        self.details = self.folder / "details.jsonl"

    def rows(self):
        if not self.csv.exists():
            return []
        with open(self.csv, newline="", encoding="utf-8") as source:
            return list(csv.DictReader(source))

    def has(self, configuration, machine):
        """Measured already on this GPU with this torch, with an outcome that stands."""
        return any(r["id"] == f"M{configuration.key()}" and r["gpu"] == machine["gpu"] and r["torch"] == machine["torch"] and r["outcome"] in ("ok", "oom")
                   for r in self.rows())

    def append(self, row, result):
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = not self.csv.exists()
        with open(self.csv, "a", newline="", encoding="utf-8") as sink:
            writer = csv.DictWriter(sink, COLUMNS)
            if fresh:
                writer.writeheader()
            writer.writerow(row)
        with open(self.details, "a", encoding="utf-8") as sink:
            sink.write(json.dumps({"id": row["id"], "gpu": row["gpu"], "torch": row["torch"], **result}) + "\n")
