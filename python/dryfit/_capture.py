"""Starts the process that runs a training script on a GPU that is not there, and hands on what it recorded. Imports no torch."""
from __future__ import annotations

import inspect
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Union

from dryfit._call import Error, call

Script = Union[str, os.PathLike[str], Sequence[str], Callable[[], Any]]


LAUNCHERS = ("torch.distributed.run", "torch.distributed.launch")
SWITCHES = {"standalone", "no_python", "multi_gpu", "use_fsdp", "use_deepspeed", "use_env", "no_local_rank", "cpu", "debug", "quiet", "q"}  # flags of theirs without a value


# Programs that start their training in another process: the module that they start there, by the word after their name.
STARTED: dict[str, dict[str, list[str]]] = {
    "swift": {name: ["-m", f"swift.cli.{name}"] for name in ("sft", "pt", "rlhf")},
    "llamafactory-cli": {"train": ["-m", "llamafactory.launcher"]},
    "axolotl": {"train": ["-m", "axolotl.cli.train"]},
}
PROGRAMS = ("trl", "tune", "litgpt")  # these train in their own process, or start it as accelerate and torch do


class Target(NamedTuple):
    """What is run: words of a script, or a function's home and name; as one of how many GPUs; whether a launcher tells it its rank; and the installed program that starts it, with its words."""

    words: list[str]
    function: list[str] | None
    gpus: int | None
    launched: bool = False
    program: list[str] | None = None


def _pasted(words: list[str]) -> Target:
    """`train.py --x`, `-m package.module`, these behind python, torchrun, accelerate launch or deepspeed, and commands of programs that train (trl sft, swift sft, tune run, ...)."""
    given, words, gpus, machines = list(words), list(words), None, 1
    name = pathlib.Path(words[0]).name if words else ""
    if words[1:2] and words[1] in STARTED.get(name, {}):
        told = os.environ.get("NPROC_PER_NODE", "")  # by which ms-swift and LLaMA-Factory start torchrun
        return Target([*STARTED[name][words[1]], *words[2:]], None, int(told) if told.isdigit() else None, told.isdigit())
    if name in PROGRAMS and not os.path.isfile(words[0]):
        told = re.search(r" --(?:num[-_]processes|nproc[-_]per[-_]node)[= ](\d+)", " ".join(words))
        return Target(words, None, int(told[1]) if told else None, False, words)
    if words and pathlib.Path(words[0]).name.startswith("python"):
        words.pop(0)
        while words and words[0] in ("-u", "-B", "-O", "-s", "-E"):
            words.pop(0)
    if words[:1] == ["-m"] and words[1:2] and words[1] in LAUNCHERS:
        words[:2] = ["torchrun"]
    launcher = pathlib.Path(words[0]).name if words else ""
    if launcher in ("torchrun", "accelerate", "deepspeed"):
        del words[:2 if launcher == "accelerate" and words[1:2] == ["launch"] else 1]
        while words and words[0].startswith("-") and words[0] not in ("-m", "--module"):
            flag, _, value = words.pop(0).partition("=")
            if not value and flag.lstrip("-").replace("-", "_") not in SWITCHES and words and not words[0].startswith("-"):
                value = words.pop(0)
            name = flag.replace("-", "_")
            if name in ("__nproc_per_node", "__num_processes", "__num_gpus") and value.isdigit():
                gpus = int(value)
            elif name in ("__nnodes", "__num_nodes") and value.rpartition(":")[2].isdigit():
                machines = int(value.rpartition(":")[2])  # of 1:4 the most
        if words and words[0] == "--module":
            words[0] = "-m"
    launched = launcher in ("torchrun", "deepspeed")
    gpus = (gpus or 1) * machines if launched else gpus
    return Target(words, None, gpus, launched, given if launcher == "accelerate" else None)


def target_of(script: Script) -> Target:
    if callable(script):
        name, file = script.__qualname__, inspect.getsourcefile(script)
        if "<" in name or file is None or not os.path.exists(file):
            raise Error("bad_argument", f"{name} cannot be found again in another process", "give a function at the top of a file, or the script's name", "script", 2)
        return Target([file], [os.path.abspath(file), name], None)
    return _pasted([os.fspath(script)] if isinstance(script, (str, os.PathLike)) else [str(w) for w in script])


def _machine(gpu: str | None, local: bool) -> dict[str, Any]:
    """The GPU that the script is shown: name, capability, bytes."""
    def ask(request: dict[str, Any]) -> Any:
        reply = call({**request, "local": local})
        body = json.loads(reply.json)
        if reply.status not in (0, 1):
            raise Error(*(body["error"][k] for k in ("code", "message", "hint", "where")), reply.status)
        return body
    machine = ask({"command": "check", "args": {"depth": 4, "device-batch-size": 1, **({"gpu": gpu} if gpu else {})}})["machine"]
    found = [g for g in ask({"command": "list", "operands": ["gpus", machine["gpu"]]})["gpus"] if g["name"] == machine["gpu"]]
    capability = [int(n) for n in ((found[0]["compute_capability"] if found else None) or "9.0").split(".")]
    return {"gpu": machine["gpu"], "total_bytes": machine["total_bytes"], "capability": capability, "workspace": (32 << 20) if capability == [9, 0] else (8 << 20) + (128 << 10)}


def record(script: Script, *, gpu: str | None = None, gpus: int | None = None, steps: int = 3, local: bool = True) -> str:
    """Runs it until it has made its optimizer steps; gives the capture's text. What the script prints goes to standard error."""
    target = target_of(script)
    if not target.words:
        raise Error("missing_script", "there is no script to run", "python -m dryfit.capture -- train.py --its-flags", "script", 2)
    if target.words[0] == "-m" and len(target.words) < 2:
        raise Error("missing_script", "-m names no module", "python -m dryfit.capture -- -m package.train", "script", 2)
    if target.words[0] not in ("-m", *PROGRAMS) and not os.path.isfile(target.words[0]):
        raise Error("unreadable_file", f"there is no script '{target.words[0][:200]}'", "name a file, or a module: -m package.train", target.words[0][:200], 2)
    if not 1 <= steps <= 1000:
        raise Error("bad_value", f"--steps {steps} is not between 1 and 1000", "3 show the first step and two steady ones", "--steps", 2)
    world = gpus or target.gpus or 1
    if not 1 <= world <= 1 << 20:
        raise Error("bad_value", f"--gpus {world} is out of range", "how many GPUs train together", "--gpus", 2)
    with tempfile.TemporaryDirectory(prefix="dryfit-") as folder:
        settings = {**_machine(gpu, local), "gpus": world, "steps": steps, "told": bool(gpus or target.gpus), "launched": target.launched, "words": target.words, "program": target.program, "function": target.function,
                    "out": os.path.join(folder, "capture"), "error": os.path.join(folder, "error")}
        done = subprocess.run([sys.executable, "-m", "dryfit.tracing", json.dumps(settings)], stdout=sys.stderr.fileno(), check=False)
        try:
            if done.returncode == 0:
                return pathlib.Path(settings["out"]).read_text(encoding="utf-8")
            error = json.loads(pathlib.Path(settings["error"]).read_text(encoding="utf-8"))
        except OSError:
            error = {"code": "script_failed", "message": f"the script's process ended with status {done.returncode}", "hint": "what it printed stands above; memory of this machine may have run out", "where": target.words[0]}
        raise Error(error["code"], error["message"], error["hint"], error["where"], 2)
