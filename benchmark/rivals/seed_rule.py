# The rule of thumb that dryfit began from (`dryfit rule-of-thumb`): it names the batch of a GPU; here the smallest GPU for which it names at least the row's batch.
NAME = "seed's rule of thumb"
PACKAGES = []
TORCH = False
FIGURE = "memory of the GPU; without its 1 GB of overhead for rows measured as allocated bytes"
SETTINGS = "depth and length of the row; its recommended, not its safe batch"

from rows import NotCovered


def settings(row):
    if row["table"] != "nanochat":
        raise NotCovered("nanochat's models alone")
    if row["fp8"]:
        raise NotCovered("fp8")
    if "--aspect-ratio" in row["flags"]:
        raise NotCovered("another aspect ratio")
    if "--phases" in row["flags"]:
        raise NotCovered("a run without training steps")
    return {"depth": row["depth"], "seq": row["seq"], "batch": row["batch"]}


def estimate(s):
    import json
    import os
    import subprocess
    import time

    def batch(gigabytes):
        run = subprocess.run([os.environ["DRYFIT"], "rule-of-thumb", "--json", "--gpu-memory-gb", f"{gigabytes:.2f}", "--depth", str(s["depth"]), "--seq-len", str(s["seq"])], capture_output=True, text=True)
        seed = json.loads(run.stdout)["seed"] if run.returncode == 0 else None
        return seed["recommended_batch_size"] if seed and not seed["available_for_activations"].startswith(("-", "0.0")) else 0  # with nothing left it names batches too

    start = time.perf_counter()
    batch(80)
    seconds = time.perf_counter() - start
    low, high = 1, 50000  # hundredths of a GB
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if batch(middle / 100) >= s["batch"] else (middle + 1, high)
    return {"allocated": (low / 100 - 1) * 1e9 / 2**20, "process": low / 100 * 1e9 / 2**20, "seconds": seconds}
