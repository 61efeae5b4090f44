"""Will a training run fit, and what should I run? Predicted without a GPU.

>>> import dryfit
>>> dryfit.check(depth=26, device_batch_size=32, gpu="h100", gpus=8).verdict
'wont_fit'

The functions are the commands of the `dryfit` program, with its flags as keywords (underscores for dashes): `plan`, `check`, `explain`, `table`,
`doctor`. Each gives dataclasses (dryfit.types); `.json` is what `dryfit ... --json` prints, to the byte, and `print(...)` shows the program's screen.
Integers named bytes are bytes (GiB = 2**30); None is unknown, never 0. Wrong input raises `dryfit.Error`, whose hint says the way out.
"""
from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, TypeVar, Union

from dryfit import _capture, _engine
from dryfit._call import Error, Reply, call
from dryfit.types import Account, Answer, Diagnosis, Plan, Report, Table, build

__version__ = _engine.__version__
__all__ = ["Account", "Diagnosis", "Error", "Plan", "Reply", "Report", "Table", "call", "capture", "check", "doctor", "explain", "plan", "table"]

Flag = Union[str, int, float, bool, Sequence[Union[str, int]], None]  # True: a switch; False and None: left out; a list: joined by commas
A = TypeVar("A", bound=Answer)


def plan(*, gpu: str | None = None, gpus: int | None = None, depth: int | None = None, model: str | None = None, local: bool = True, **flags: Flag) -> Plan:
    """What should I run on this machine? nanochat's configurations that fit it, each with its command, and which one to take.

    gpu: "RTX 4090", "h100", ...; without it the GPUs of this machine. gpus: how many. depth: layers, or every depth that fits. model: a Hugging Face model
    instead, "llama-3.1-8b": the ways to train it (`.candidates`), and those that do not fit with what would make them (`.missed`).
    local: False looks at nothing of this machine. flags: those of `dryfit help plan`.
    """
    return _ask(Plan, "plan", dict(flags, gpu=gpu, gpus=gpus, depth=depth, model=model), local)


def check(command: str | None = None, *, gpu: str | None = None, gpus: int | None = None, depth: int | None = None, model: str | None = None,
          device_batch_size: int | None = None, max_seq_len: int | None = None, local: bool = True, **flags: Flag) -> Report:
    """Will exactly this run fit? `.verdict`: "fits", "tight" (the middle of the interval fits, its upper end does not), "wont_fit".

    command: a training command as typed ("torchrun --nproc_per_node=8 -m scripts.base_train --depth=26"); keywords win over it.
    depth: layers of nanochat's model; model: a Hugging Face model instead, "llama-3.2-1b". device_batch_size: sequences per GPU and micro-step, -1: the
    largest that fits. max_seq_len: tokens. gpu, gpus, local: as for plan(). flags: those of `dryfit help check`.
    """
    return _ask(Report, "check", dict(flags, gpu=gpu, gpus=gpus, depth=depth, model=model, device_batch_size=device_batch_size, max_seq_len=max_seq_len), local, command)


def explain(command: str | None = None, *, gpu: str | None = None, gpus: int | None = None, depth: int | None = None, model: str | None = None,
            device_batch_size: int | None = None, max_seq_len: int | None = None, timeline: bool = False, local: bool = True, **flags: Flag) -> Report:
    """Where does every GiB go, and when? As check(), and with timeline=True the bytes of each category after each event (`.timeline`)."""
    return _ask(Report, "explain", dict(flags, gpu=gpu, gpus=gpus, depth=depth, model=model, device_batch_size=device_batch_size, max_seq_len=max_seq_len, timeline=timeline), local, command)


def table(*, gpu: str | Sequence[str] | None = None, gpus: int | None = None, depths: Sequence[int] | None = None, local: bool = True, **flags: Flag) -> Table:
    """The largest device batch that fits, GPU by depth. gpu: some of the catalogue; depths: layers. flags: those of `dryfit help table`."""
    return _ask(Table, "table", dict(flags, gpu=gpu, gpus=gpus, depths=depths), local)


def doctor(file: str | os.PathLike[str] | None = None, *, text: str | None = None, live: bool = False, local: bool = True, **flags: Flag) -> Diagnosis | Account:
    """Why did it run out of memory (or why does the GPU idle), and what to change, in predicted bytes.

    file: a log, a traceback, or a CUDA memory snapshot (then the answer is an Account of it); text: the text itself; live: a job that runs here.
    flags: those of `dryfit help doctor`.
    """
    if (file is not None) + (text is not None) + live != 1:
        raise Error("bad_argument", "doctor() reads one thing", "give file, text or live=True", "file", 2)
    operands = [] if live else ["-" if file is None else os.fspath(file)]
    reply, request = _reply("doctor", dict(flags, live=live), local, operands=operands, input=text)
    return _typed(Account if "devices" in (data := json.loads(reply.json)) else Diagnosis, data, reply, request)


def capture(script: _capture.Script, *, gpu: str | None = None, gpus: int | None = None, steps: int = 3, timeline: bool = False, local: bool = True, **flags: Flag) -> Report:
    """The memory of any PyTorch training script, run as it is by your own torch on a GPU that is not there (docs/capture.md).

    script: "train.py", its words ["train.py", "--batch", "8"], or a function at the top of a file; it runs in a process of its own. gpu: which GPU it is
    shown; gpus: as one of how many; steps: optimizer steps to follow. timeline, local, flags: as for explain().
    """
    text = _capture.record(script, gpu=gpu, gpus=gpus, steps=steps, local=local)
    reply, request = _reply("explain" if timeline else "check", dict(flags, capture="-", gpu=gpu, **({"timeline": True} if timeline else {})), local, input=text)
    return _typed(Report, json.loads(reply.json), reply, request)


def _reply(command: str, flags: dict[str, Flag], local: bool, **more: Any) -> tuple[Reply, dict[str, Any]]:
    args = {name.replace("_", "-"): list(value) if isinstance(value, (tuple, range)) else value for name, value in flags.items() if value is not None}
    request = {"command": command, "args": args, "local": local, **{key: value for key, value in more.items() if value is not None}}
    reply = call(request)
    if reply.status not in (0, 1):
        error = json.loads(reply.json)["error"] if reply.json else {"code": "internal", "message": "memory ran out", "hint": "", "where": ""}
        raise Error(error["code"], error["message"], error["hint"], error["where"], reply.status)
    return reply, request


def _typed(kind: type[A], data: Any, reply: Reply, request: dict[str, Any]) -> A:
    return build(kind, data | {"json": reply.json, "request": request})


def _ask(kind: type[A], command: str, flags: dict[str, Flag], local: bool, paste: str | None = None) -> A:
    reply, request = _reply(command, flags, local, paste=paste)
    return _typed(kind, json.loads(reply.json), reply, request)
