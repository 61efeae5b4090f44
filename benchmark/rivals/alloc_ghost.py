# alloc: "ghost scan" of a model by its number of parameters and width, full training.
NAME = "alloc ghost"
PACKAGES = ["alloc==0.0.16"]
TORCH = False
FIGURE = "total VRAM; without its 10 % buffer for rows measured as allocated bytes"
SETTINGS = "the true number of parameters, width, batch and length; AdamW"

from rows import require


def settings(row):
    require(row)
    return {"param_count": row["params"], "dtype": row["dtype"], "batch_size": row["batch"], "seq_length": row["seq"], "hidden_dim": row["config"]["hidden_size"], "optimizer_type": "AdamW"}


def estimate(s):
    from alloc.ghost import ghost

    report = ghost(**s)
    return {"allocated": (report.total_gb - report.buffer_gb) * 1024, "process": report.total_gb * 1024}
