#!/usr/bin/env python3
"""Measures training runs on the GPU of this machine, each in a process of its own, and appends rows to a table. Resumes; works in slices.

  python3 tools/measure/measure.py --nanochat E7=PATH_TO_CHECKOUT --out data/measured/own      run what is not measured yet
  python3 tools/measure/measure.py --list                                                      what would be run
  python3 tools/measure/measure.py --dry-run --nanochat E7=PATH                                print the commands, run nothing
  --minutes N   stop starting runs after N minutes (default 10): call it again to go on     --only TEXT   titles or hypotheses that contain it

Downloads nothing: random weights, synthetic tokens. Transformers rows run where `transformers` can be imported.
"""
import argparse
import dataclasses
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import tempfile
import time

import configurations
import gpu
import rows

HERE = pathlib.Path(__file__).resolve().parent
LONGEST = 420  # seconds one run may take: compiling d26 takes two minutes


@dataclasses.dataclass
class Done:
    """How a run ended. result: what the job wrote, or None."""
    status: int
    result: dict | None
    timed_out: bool = False


class ProcessRunner:
    """Runs a job for real. folder: where the job scripts lie."""

    def __init__(self, folder=HERE):
        self.folder = pathlib.Path(folder)

    def command(self, configuration, checkouts, result_file, used_before):
        job = [str(self.folder / f"{configuration.kind}_job.py"), json.dumps(dataclasses.asdict(configuration)), str(result_file), str(used_before)]
        environment = {"PYTORCH_ALLOC_CONF": configuration.alloc_conf, "PYTORCH_CUDA_ALLOC_CONF": configuration.alloc_conf,
                       "CUBLAS_WORKSPACE_CONFIG": configuration.cublas_workspace, "NANOCHAT_DIR": checkouts.get(configuration.nanochat, "")}
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
            child = subprocess.Popen(command, env={**os.environ, **environment}, start_new_session=True, stdout=sys.stderr)
            try:
                status, timed_out = child.wait(timeout=limit), False
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)  # the whole group: torchrun has children
                status, timed_out = child.wait(), True
            result = json.loads(result_file.read_text(encoding="utf-8")) if result_file.exists() else None
            return Done(status, result, timed_out)

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
    if configuration.kind == "transformers" and not machine["transformers"]:
        return "transformers cannot be imported"
    if configuration.gpus > machine["count"]:
        return f"needs {configuration.gpus} GPUs"
    if configuration.fp8 and machine["capability"] < (8, 9):
        return "fp8 needs compute capability 8.9"
    return None


def concrete(listed, checkouts):
    """`newest` becomes the last checkout given; with several, the others measure the first nanochat configurations too."""
    labels = list(checkouts)
    out = []
    for configuration in listed:
        if configuration.kind != "nanochat" or not labels:
            out.append(configuration)
            continue
        out += [dataclasses.replace(configuration, nanochat=label) for label in reversed(labels) if label == labels[-1] or configuration.hypothesis in ("the plain step", "published run")]
    return out


def measure(listed, machine, checkouts, table, runner, minutes, clock=time.monotonic, say=lambda text: print(text, file=sys.stderr, flush=True)):
    """Runs what is not in the table yet until the slice is used up. Returns (measured, left)."""
    ends = clock() + 60 * minutes
    measured, left = 0, []
    for configuration in listed:
        why = impossible(configuration, machine, checkouts)
        if why:
            say(f"skipped: {configuration.title()}: {why}")
            continue
        if table.has(configuration, machine):
            continue
        remaining = ends - clock()
        if left or remaining < 60:
            left.append(configuration)
            continue
        say(f"running: {configuration.title()} ({configuration.hypothesis})")
        done = runner.run(configuration, checkouts, min(LONGEST, remaining))
        if done.timed_out and remaining < LONGEST:
            left.append(configuration)  # the slice was too short, not the run too long
            continue
        result = done.result or {"outcome": "timeout" if done.timed_out else "error", "notes": f"exit status {done.status} and no result"}
        environment, command = runner.command(configuration, checkouts, "RESULT", "BEFORE")
        line = " ".join([f"{k}={shlex.quote(v)}" for k, v in environment.items() if k != "NANOCHAT_DIR"] + [configuration.kind + "_job.py", configuration.title()])
        row = rows.make_row(configuration, result, machine, line)
        table.append(row, result)
        measured += 1
        say(f"  {row['outcome']}: allocated {row['allocated_mib'] or '-'} MiB, reserved {row['reserved_mib'] or '-'}, process {row['process_mib'] or '-'}, {row['step_ms'] or '-'} ms a step")
    return measured, left


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanochat", action="append", default=[], metavar="LABEL=PATH", help="a checkout; the label goes into the rows: E7")
    parser.add_argument("--out", default="build/measured", help="folder of rows.csv and details.jsonl (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--only", default="")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args(argv)
    checkouts = {}
    for given in arguments.nanochat:
        label, _, path = given.partition("=")
        if not path or not (pathlib.Path(path) / "nanochat" / "gpt.py").exists():
            parser.error(f"--nanochat '{given}': expected LABEL=PATH with nanochat/gpt.py in PATH, such as E7=../nanochat")
        checkouts[label] = str(pathlib.Path(path).resolve())
    return arguments, checkouts


def main(argv=None, runner=None):
    arguments, checkouts = parse(argv)
    runner = runner or ProcessRunner()
    listed = [c for c in concrete(configurations.default_list(), checkouts) if arguments.only in c.title() or arguments.only in c.hypothesis]
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
    measured, left = measure(listed, machine, checkouts, table, runner, arguments.minutes)
    print(f"{measured} measured, {len(left)} left{': call again' if left else ''}; {table.csv}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
