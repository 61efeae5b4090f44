# gpu-estimator: a formula of the number of parameters, batch and length.
NAME = "gpu-estimator"
PACKAGES = ["gpu-estimator==0.2.0"]
TORCH = True
BESIDE = ["click==8.3.0"]
FIGURE = "total memory; without its 20 % overhead for rows measured as allocated bytes"
SETTINGS = "the true number of parameters; precision, optimizer and checkpointing as the row"

from rows import require


def settings(row):
    require(row)
    return {"model_params": row["params"], "batch_size": row["batch"], "sequence_length": row["seq"], "precision": row["dtype"], "optimizer": "adamw", "gradient_checkpointing": row["recompute"]}


def estimate(s):
    from gpu_estimator.estimator import GPUEstimator

    total = GPUEstimator().estimate(**s).total_memory_gb * 1024
    return {"allocated": total / 1.2, "process": total}
