#!/usr/bin/env python3
"""Measures training runs on the GPU of this machine, each in a process of its own, and appends rows to a table. Resumes; works in slices.

  python3 tools/measure/measure.py --nanochat E7=PATH_TO_CHECKOUT --out data/measured/own      run what is not measured yet
  python3 tools/measure/measure.py --list                                                      what would be run
  python3 tools/measure/measure.py --dry-run --nanochat E7=PATH                                print the commands, run nothing
  --minutes N   stop starting runs after N minutes (default 10): call it again to go on     --only TEXT   titles or hypotheses that contain it
  --fa3 FOLDER  where a module `kernels` hands out FlashAttention 3, for nanochat's runs with it
  --parallel N  N runs at a time on one GPU as long as there is room, for memory alone: their times, and the device's bytes, say nothing and are left out

Downloads nothing: random weights, synthetic tokens. Trainer's rows run where `transformers` can be imported.
"""
import argparse
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import configurations
import gpu
import rows

HERE = pathlib.Path(__file__).resolve().parent
FA3 = "fa3"    # among the checkouts: FlashAttention 3's folder
LONGEST = 420  # seconds one run may take: compiling d26 takes two minutes


@dataclasses.dataclass
class Done:
    """How a run ended. result: what the job wrote, or None; trace: the file of its allocations, or None."""
    status: int
    result: dict | None
    timed_out: bool = False
    trace: str | None = None


class ProcessRunner:
    """Runs a job for real. folder: where the job scripts lie."""

    def __init__(self, folder=HERE):
        self.folder = pathlib.Path(folder)

    def command(self, configuration, checkouts, result_file, used_before):
        job = [str(self.folder / f"{configuration.kind}_job.py"), json.dumps(dataclasses.asdict(configuration)), str(result_file), str(used_before)]
        environment = {"PYTORCH_ALLOC_CONF": configuration.alloc_conf, "PYTORCH_CUDA_ALLOC_CONF": configuration.alloc_conf,
                       "CUBLAS_WORKSPACE_CONFIG": configuration.cublas_workspace, "NANOCHAT_DIR": checkouts.get(configuration.nanochat, "")}
        if configuration.kind == "nanochat":
            environment["TORCHDYNAMO_DISABLE"] = "" if configuration.compile else "1"
            environment["NANOCHAT_DTYPE"] = {"fp32": "float32", "fp16": "float16"}.get(configuration.dtype, "")
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, (checkouts.get(FA3) if configuration.attention == "fa3" else "", os.environ.get("PYTHONPATH", ""))))
        environment = {k: v for k, v in environment.items() if v}
        launcher = [sys.executable]
        if configuration.gpus > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={configuration.gpus}"]
        return environment, launcher + job

    def run(self, configuration, checkouts, limit):
        with tempfile.TemporaryDirectory() as folder:
            result_file = pathlib.Path(folder) / "result.json"
            used = gpu.device_used()
            environment, command = self.command(configuration, checkouts, result_file, "unknown" if used is None else used)
            if configuration.caches:
                environment["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/caches"
            ends = time.monotonic() + limit
            for _ in range(2 if configuration.caches == "warm" else 1):
                child = subprocess.Popen(command, env={**os.environ, **environment}, start_new_session=True, stdout=sys.stderr)
                try:
                    status, timed_out = child.wait(timeout=max(1, ends - time.monotonic())), False
                except subprocess.TimeoutExpired:
                    os.killpg(child.pid, signal.SIGKILL)  # the whole group: torchrun has children
                    status, timed_out = child.wait(), True
            result = json.loads(result_file.read_text(encoding="utf-8")) if result_file.exists() else None
            trace = pathlib.Path(str(result_file) + ".trace.json.gz")
            kept = None
            if trace.exists():
                kept = tempfile.mktemp(suffix=".json.gz")
                shutil.move(trace, kept)
            return Done(status, result, timed_out, kept)

    def machine(self):
        """GPU, driver and torch versions; None without a GPU."""
        found = gpu.describe()
        if found is None:
            return None
        asked = "import torch; print(torch.__version__.split('+')[0], torch.version.cuda, *torch.cuda.get_device_capability())"
        torch_version, cuda, major, minor = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout.split()
        return {**found, "torch": torch_version, "cuda": cuda, "capability": (int(major), int(minor)), "transformers": _importable("transformers")}


def _importable(name):
    return subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, check=False).returncode == 0


def impossible(configuration, machine, checkouts):
    """Why this machine cannot run it, or None."""
    if configuration.kind == "nanochat" and configuration.nanochat not in checkouts:
        return "no nanochat checkout given (--nanochat LABEL=PATH)"
    if configuration.kind == "nanochat" and configuration.attention == "fa3" and FA3 not in checkouts:
        return "no FlashAttention 3 given (--fa3 FOLDER)"
    if configuration.kind == "trainer" and not machine["transformers"]:
        return "transformers cannot be imported"
    if configuration.gpus > machine["count"]:
        return f"needs {configuration.gpus} GPUs"
    if configuration.fp8 and machine["capability"] < (8, 9):
        return "fp8 needs compute capability 8.9"
    return None


def concrete(listed, checkouts):
    """`newest` becomes the last checkout given."""
    labels = [label for label in checkouts if label != FA3]
    return [dataclasses.replace(c, nanochat=labels[-1]) if labels and c.kind == "nanochat" and c.nanochat == "newest" else c for c in listed]


class Room:
    """Gigabytes of one GPU that runs side by side share. One that wants more than there is waits until it is alone."""

    def __init__(self, gigabytes):
        self.gigabytes, self.taken, self.change = gigabytes, 0, threading.Condition()

    @contextlib.contextmanager
    def of(self, wanted):
        with self.change:
            self.change.wait_for(lambda: self.taken == 0 or self.taken + wanted <= self.gigabytes)
            self.taken += wanted
        try:
            yield
        finally:
            with self.change:
                self.taken -= wanted
                self.change.notify_all()


# What a run cannot say of itself while others use the card.
SHARED = ("step_seconds", "device")


def measure(listed, machine, checkouts, table, runner, minutes, clock=time.monotonic, say=lambda text: print(text, file=sys.stderr, flush=True), parallel=1):
    """Runs what is not in the table yet until the slice is used up, `parallel` at a time. Returns (measured, left)."""
    ends = clock() + 60 * minutes
    measured, left, lock = [], [], threading.Lock()
    room = Room(int(machine["gpu_memory_mib"]) // 1024 - 3)

    def one(configuration):
        with room.of(configuration.gigabytes):
            run(configuration)

    def run(configuration):
        remaining = ends - clock()
        if (left and parallel == 1) or remaining < 60:
            left.append(configuration)
            return
        say(f"running: {configuration.title()} ({configuration.hypothesis})")
        done = runner.run(configuration, checkouts, min(LONGEST, remaining))
        result = done.result or {"outcome": "timeout" if done.timed_out else "error", "notes": f"exit status {done.status} and no result"}
        # cut off by the slice, or out of memory that others held: no result
        if (done.timed_out and remaining < LONGEST) or (parallel > 1 and result["outcome"] == "oom"):
            left.append(configuration)
            return
        if parallel > 1:
            result = {**result, **dict.fromkeys(SHARED)}
        environment, command = runner.command(configuration, checkouts, "RESULT", "BEFORE")
        words = [f"{k}={shlex.quote(v)}" for k, v in environment.items() if k not in ("NANOCHAT_DIR", "PYTHONPATH")]
        words += [f"python -m scripts.{configuration.script}", *result["script_arguments"]] if "script_arguments" in result else [f"{configuration.kind}_job.py", configuration.title()]
        row = rows.make_row(configuration, result, machine, " ".join(words))
        with lock:
            table.append(row, result, done.trace)
            measured.append(row)
        say(f"  {configuration.title()}: {row['outcome']}: allocated {row['allocated_mib'] or '-'} MiB, reserved {row['reserved_mib'] or '-'}, process {row['process_mib'] or '-'}, {row['step_ms'] or '-'} ms a step")

    wanted = []
    for configuration in listed:
        why = impossible(configuration, machine, checkouts)
        if why:
            say(f"skipped: {configuration.title()}: {why}")
        elif not table.has(configuration, machine):
            wanted.append(configuration)
    with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
        for _ in pool.map(one, wanted):
            pass
    return len(measured), left


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanochat", action="append", default=[], metavar="LABEL=PATH", help="a checkout; the label goes into the rows: E7")
    parser.add_argument("--fa3", default="", metavar="FOLDER")
    parser.add_argument("--out", default="build/measured", help="folder of rows.csv and details.jsonl (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--only", default="")
    parser.add_argument("--smoke", action="store_true", help="one quick run of each kind: is everything there?")
    parser.add_argument("--parallel", type=int, default=1, metavar="N")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args(argv)
    checkouts = {}
    for given in arguments.nanochat:
        label, _, path = given.partition("=")
        if not path or not (pathlib.Path(path) / "nanochat" / "gpt.py").exists():
            parser.error(f"--nanochat '{given}': expected LABEL=PATH with nanochat/gpt.py in PATH, such as E7=../nanochat")
        checkouts[label] = str(pathlib.Path(path).resolve())
    if arguments.fa3:
        if not (pathlib.Path(arguments.fa3) / "kernels.py").exists():
            parser.error(f"--fa3 '{arguments.fa3}': expected a folder with kernels.py in it, whose get_kernel(NAME).flash_attn_interface is FlashAttention 3's")
        checkouts[FA3] = str(pathlib.Path(arguments.fa3).resolve())
    return arguments, checkouts


def main(argv=None, runner=None):
    arguments, checkouts = parse(argv)
    runner = runner or ProcessRunner()
    listed = [c for c in concrete(configurations.default_list(), checkouts) if arguments.only in c.title() or arguments.only in c.hypothesis]
    if arguments.smoke:
        listed = [next(c for c in listed if c.kind == kind and c.depth in (0, 4)) for kind in ("probe", "nanochat", "trainer")]
    if arguments.list:
        for configuration in listed:
            print(f"{configuration.title():60} {configuration.hypothesis}")
        return 0
    if arguments.dry_run:
        for configuration in listed:
            environment, command = runner.command(configuration, checkouts, "RESULT", "BEFORE")
            print(" ".join([f"{k}={shlex.quote(v)}" for k, v in environment.items()] + [shlex.quote(c) for c in command]))
        return 0
    machine = runner.machine()
    if machine is None:
        print("measure: no NVIDIA GPU here: nvidia-smi does not answer. --list and --dry-run work without one.", file=sys.stderr)
        return 2
    table = rows.Table(arguments.out)
    measured, left = measure(listed, machine, checkouts, table, runner, arguments.minutes, parallel=max(1, arguments.parallel))
    print(f"{measured} measured, {len(left)} left{': call again' if left else ''}; {table.csv}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
