"""Writes tests/watch/recordings: made-up machines in the recording format of docs/watch.md, each showing one thing. No run is claimed."""
import json
import pathlib

FOLDER = pathlib.Path(__file__).resolve().parent / "recordings"
MIB = 1 << 20
H100 = {"name": "NVIDIA H100 80GB HBM3", "compute_major": 9, "compute_minor": 0, "total": 81559 * MIB, "reserved": 479 * MIB, "sm_clock_max": 1980, "memory_clock_max": 2619, "pcie_generation_max": 5, "pcie_width_max": 16, "power_limit": 700.0}
RTX = {"name": "NVIDIA GeForce RTX 4090", "compute_major": 8, "compute_minor": 9, "total": 24564 * MIB, "reserved": 480 * MIB, "sm_clock_max": 3105, "power_limit": 450.0}


def step(n, of, milliseconds, tokens, mfu):
    return f"step {n:05d}/{of:05d} ({100 * n / of:.2f}%) | loss: {10 / (1 + n / 50):.6f} | lrm: 1.00 | dt: {milliseconds:.2f}ms | tok/sec: {tokens:,} | bf16_mfu: {mfu:.2f} | epoch: 1 | total time: {n * milliseconds / 60000:.2f}m"


def header(depth, width, batch, world, total):
    return ["Vocab size: 32,768", f'"n_layer": {depth},', f'"n_embd": {width},', f"Tokens / micro-batch / rank: {batch} x 2048 = {batch * 2048:,}", f"Tokens / micro-batch: {batch * 2048 * world:,}",
            f"Total batch size {total:,} => gradient accumulation steps: {total // (batch * 2048 * world)}"]


def write(name, gpus, moments):
    first = {"dryfit_recording": 1, "dryfit": "0.1.0", "started_ms": 1795500000000, "source": "nvml", "gpus": [{"index": i, "uuid": f"GPU-{i}", **g} for i, g in enumerate(gpus)]}
    (FOLDER / f"{name}.jsonl").write_text("".join(json.dumps(j, separators=(",", ":")) + "\n" for j in [first, *moments]))


def eight():
    """A torchrun job on eight cards, from loading to steady steps; a stranger holds a little of GPU 5."""
    job = {"pid": 4100, "command": "torchrun --standalone --nproc_per_node=8 -m scripts.base_train -- --depth=24 --device-batch-size=16 --run=d24", "environment": ["WORLD_SIZE=8"]}
    ranks = list(range(4101, 4109))
    tree = [{"pid": 4100, "parent": 4000, "name": "torchrun", "resident": 320 * MIB, "cpu": 0.0}] + [{"pid": p, "parent": 4100, "name": "python3", "resident": 5200 * MIB, "cpu": 1.2} for p in ranks]
    moments = []
    for i in range(60):
        used = 600 + 5400 * min(i, 3) // 3 if i < 6 else 45000 + 400 * (i - 6) if i < 9 else 58700
        gpus = []
        for g, p in enumerate(ranks):
            others = 900 if g == 5 else 0
            own = used + (g % 3) * 2
            gpus.append({"used": (own + others) * MIB, "util": 0.0 if i < 6 else 0.98, "mem_util": 0.5, "power": 120.0 if i < 6 else 688.0 + g, "temp": 61.0, "sm_clock": 1755, "throttle": 4, "pcie_generation": 5, "pcie_width": 16,
                         "processes": [[p, own * MIB]] + ([[99, others * MIB]] if others else [])})
        m = {"t": i * 10.0, "gpus": gpus, "processes": tree}
        if i == 0:
            m["job"] = job
        if i == 2:
            m["log"] = header(24, 1536, 16, 8, 1048576)
        if i == 7:
            m["log"] = ["Step 00000 | Validation bpb: 3.250000", step(0, 2205, 31000, 33825, 1.1)]
        if i > 8:
            m["log"] = [step(n, 2205, 745.1, 1407234, 48.1) for n in range((i - 9) * 13 + 1, (i - 8) * 13 + 1)]
        moments.append(m)
    write("eight_h100", [H100] * 8, moments)


def leaking():
    """One card, steady steps, and 40 MiB more every ten seconds until it is nearly full."""
    moments = []
    for i in range(90):
        own = 15000 + 80 * max(0, i - 4) + (i % 3) * 4
        m = {"t": i * 10.0, "gpus": [{"used": own * MIB, "util": 0.95, "power": 431.0, "temp": 71.0, "sm_clock": 2500, "throttle": 0x20 if i > 80 else 0, "processes": [[77, own * MIB]]}], "processes": [{"pid": 77, "parent": 1, "name": "python", "resident": 4000 * MIB, "cpu": 1.0}]}
        if i == 0:
            m["job"] = {"pid": 77, "command": "python -m scripts.base_train --depth=12 --device-batch-size=16 --window-pattern=L --core-metric-every=-1", "environment": []}
            m["log"] = header(12, 768, 16, 1, 524288)
        if i > 2:
            m["log"] = [step(i - 3, 9000, 9800.0, 53498, 30.0)]
        moments.append(m)
    write("leak_4090", [RTX], moments)


def container():
    """The driver shows no processes, as in a container; no log."""
    moments = [{"t": float(i), "gpus": [{"used": 18000 * MIB, "util": 0.9, "power": 400.0, "processes": []}], "notes": ["the driver shows no processes (a container, or no permission): measured is the whole card"]} for i in range(5)]
    moments[0]["job"] = {"pid": 12, "command": "python train_my_own.py --lr 3", "environment": []}
    write("container_4090", [RTX], moments)


def lost():
    """The second of two cards falls off the bus."""
    moments = [{"t": float(i), "gpus": [{"used": 9000 * MIB, "util": 0.5}, {"lost": True} if i > 2 else {"used": 9000 * MIB, "util": 0.5}]} for i in range(6)]
    write("lost_gpu", [RTX] * 2, moments)


def hot():
    """Eight ranks in steady steps; the cooling of GPU 3 fails halfway, and all others wait for it within their kernels."""
    ranks = list(range(5101, 5109))
    tree = [{"pid": 5100, "parent": 1, "name": "torchrun", "cpu": 0.0}] + [{"pid": p, "parent": 5100, "name": "python3", "resident": 5200 * MIB, "cpu": 1.0} for p in ranks]
    moments = []
    for i in range(24):
        slow = i >= 8
        gpus = [{"used": 61500 * MIB, "util": 0.99, "mem_util": 0.5, "power": 385.0 if slow and g == 3 else 512.0 if slow else 690.0, "temp": 92.0 if slow and g == 3 else 62.0, "sm_clock": 1155 if slow and g == 3 else 1755, "throttle": 0x40 if slow and g == 3 else 4,
                 "pcie_generation": 5, "pcie_width": 16, "processes": [[p, 61500 * MIB]]} for g, p in enumerate(ranks)]
        m = {"t": i * 5.0, "gpus": gpus, "processes": tree}
        if i == 0:
            m["job"] = {"pid": 5100, "command": "torchrun --standalone --nproc_per_node=8 -m scripts.base_train -- --depth=24 --device-batch-size=16 --core-metric-every=-1", "environment": ["WORLD_SIZE=8"]}
            m["log"] = header(24, 1536, 16, 8, 1048576)
        m.setdefault("log", []).extend(step(i * 6 + n, 2205, 1062.0 if slow else 745.1, 987358 if slow else 1407234, 33.7 if slow else 48.1) for n in range(6))
        moments.append(m)
    write("hot_8xh100", [H100] * 8, moments)


def starved():
    """One card that waits for its data; the host waits too."""
    moments = []
    for i in range(14):
        m = {"t": i * 5.0, "gpus": [{"used": 15800 * MIB, "util": 0.34, "power": 190.0, "temp": 48.0, "sm_clock": 2520, "throttle": 0, "processes": [[81, 15800 * MIB]]}], "processes": [{"pid": 81, "parent": 1, "name": "python", "resident": 4000 * MIB, "cpu": 0.2}]}
        if i == 0:
            m["job"] = {"pid": 81, "command": "python -m scripts.base_train --depth=12 --device-batch-size=16 --window-pattern=L --core-metric-every=-1", "environment": []}
            m["log"] = header(12, 768, 16, 1, 524288)
        moments.append(m)
    write("starved_4090", [RTX], moments)


def shared():
    """Two cards in slots of four lanes, and on the first a process of somebody else."""
    card = {**RTX, "pcie_generation_max": 4, "pcie_width_max": 16}
    tree = [{"pid": 90, "parent": 1, "name": "torchrun", "cpu": 0.0}] + [{"pid": p, "parent": 90, "name": "python", "resident": 4000 * MIB, "cpu": 1.0} for p in (91, 92)]
    moments = []
    for i in range(6):
        gpus = [{"used": (14900 + (5200 if g == 0 else 0)) * MIB, "util": 0.97, "power": 390.0, "temp": 66.0, "sm_clock": 2600, "throttle": 4, "pcie_generation": 4, "pcie_width": 4, "processes": [[91 + g, 14900 * MIB]] + ([[7, 5200 * MIB]] if g == 0 else [])} for g in range(2)]
        m = {"t": i * 5.0, "gpus": gpus, "processes": tree}
        if i == 0:
            m["job"] = {"pid": 90, "command": "torchrun --standalone --nproc_per_node=2 -m scripts.base_train -- --depth=12 --device-batch-size=16 --window-pattern=L --core-metric-every=-1", "environment": ["WORLD_SIZE=2"]}
        moments.append(m)
    write("shared_2x4090", [card] * 2, moments)


def nobody():
    """A machine on which nothing trains."""
    write("nobody_4090", [RTX], [{"t": float(i), "gpus": [{"used": 300 * MIB, "util": 0.0, "power": 20.0, "temp": 31.0, "sm_clock": 210, "throttle": 1, "processes": []}], "notes": ["no training process here yet; --pid N names one"]} for i in range(3)])


FOLDER.mkdir(exist_ok=True)
for make in (eight, leaking, container, lost, hot, starved, shared, nobody):
    make()
