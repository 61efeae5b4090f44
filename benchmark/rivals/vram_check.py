# vram-check: twice the weights for every sample of the batch, whatever the length.
NAME = "vram-check"
PACKAGES = ["vram-check==0.1.1"]
TORCH = False
FIGURE = "total VRAM of training"
SETTINGS = "the true number of parameters; dtype, optimizer, batch and length as the row"

from rows import require


def settings(row):
    require(row)
    return {"num_params": row["params"], "batch_size": row["batch"], "dtype": row["dtype"], "optimizer": "adamw", "training": True, "seq_len": row["seq"]}


def estimate(s):
    from vram_check.estimator import estimate as run

    return {"allocated": run(**s).total_bytes / 2**20}
