"""What the functions give: the JSON documents of docs/schema as dataclasses. Sizes are bytes, durations seconds, None is unknown.

A field of the JSON that a class here does not know is left to `.json`: within schema_version 1 fields are only added.
"""
from __future__ import annotations

import dataclasses
import functools
import html
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, Optional

from dryfit._call import call

Verdict = Literal["fits", "tight", "wont_fit"]


@dataclass(frozen=True)
class Answer:
    """Common to all answers."""

    json: str = field(repr=False, compare=False)                          # what `dryfit ... --json` prints, to the byte; "": part of another answer
    request: Optional[dict[str, Any]] = field(repr=False, compare=False)  # what was asked; None: part of another answer

    def __str__(self) -> str:
        """The screen that the program prints."""
        return repr(self) if self.request is None else call({**self.request, "text": True}).json


def _chart(request: Optional[dict[str, Any]], command: str) -> Optional[str]:
    if request is None:
        return None
    args = {name: value for name, value in request["args"].items() if name != "timeline"}
    return call({**request, "command": command, "args": {**args, "svg": "-"}}).json


# ---- check and explain

@dataclass(frozen=True)
class ParamGroups:
    """Parameters by nanochat's groups: counts, not bytes."""

    wte: int
    value_embeds: int
    lm_head: int
    transformer_matrices: int
    scalars: int


@dataclass(frozen=True)
class Run:
    """Of a captured script what only the script knows is None."""

    script: Optional[str]
    device_batch_size: Optional[int]      # sequences per GPU and micro-step
    total_batch_size: Optional[int]       # tokens per optimizer step
    max_seq_len: Optional[int]            # tokens
    grad_accum_steps: int
    world_size: int                       # GPUs
    dtype: Optional[str]
    fp8: Optional[bool]
    compile: bool
    attention: Optional[str]
    torch: str
    weights_dtype: Optional[str] = None   # this and what follows: Hugging Face runs
    optimizer: Optional[str] = None
    recompute: Optional[str] = None
    shard: Optional[str] = None
    lora_rank: Optional[int] = None
    load_in_4bit: Optional[bool] = None
    training: Optional[str] = None  # "dpo", "kto-precomputed", "reward", "llamafactory-dpo", "grpo", ...; None: supervised


@dataclass(frozen=True)
class Workload:
    family: str                           # "nanochat", "transformers" or "captured"
    version: str
    depth: Optional[int]                  # layers
    params: int                           # count
    param_groups: Optional[ParamGroups]
    model: dict[str, Any]                 # shapes, by family
    run: Run


@dataclass(frozen=True)
class Machine:
    gpu: str
    gpus: int
    total_bytes: int                      # of one GPU
    usable_bytes: int                     # of one GPU: total less what the driver and others hold
    source: str                           # "flag", "nvml", "nvidia-smi", "sysfs", "recorded", "default"
    notes: list[str]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    bytes: int
    low: int                              # bytes
    high: int                             # bytes
    provenance: Literal["exact", "modelled", "calibrated", "unknown"]


@dataclass(frozen=True)
class Static:
    """What stays for the whole run, bytes."""

    weights: int
    gradients: int
    optimizer: int


@dataclass(frozen=True)
class Memory:
    """The ladder: usable = process + headroom."""

    allocated: Estimate                   # torch.cuda.max_memory_allocated()
    reserved: Estimate                    # torch.cuda.max_memory_reserved()
    process: Estimate                     # what nvidia-smi shows for the process
    static: Static
    headroom_bytes: int                   # negative: by how much it does not fit
    allocator: str


@dataclass(frozen=True)
class LiveTensor:
    name: str
    bytes: int
    shape: list[int]
    dtype: str
    category: str


@dataclass(frozen=True)
class Peak:
    phase: str
    micro_step: int
    event: str
    live: list[LiveTensor]                # the largest alive at that moment


@dataclass(frozen=True)
class Phase:
    name: str
    allocated_bytes: int
    reserved_bytes: int
    event: str
    provenance: str


@dataclass(frozen=True)
class Category:
    name: str
    at_peak_bytes: int


@dataclass(frozen=True)
class SecondsByKind:
    """Seconds of a step."""

    matmul: float
    attention: float
    elementwise: float
    optimizer: float
    communication: float
    waiting: float
    loading: float


@dataclass(frozen=True)
class Horizon:
    rule: str
    iterations: int                       # optimizer steps
    tokens: float
    seconds: float


@dataclass(frozen=True)
class Cost:
    usd: float                            # of all GPUs to the horizon
    usd_per_gpu_hour: float
    provider: str
    kind: str
    seen: Optional[str]                   # date


@dataclass(frozen=True)
class Speed:
    tokens_per_second: float              # of all GPUs
    step_seconds: float
    mfu: Optional[float]                  # 0 to 1, as nanochat logs it; of models by PaLM's arithmetic
    low: float                            # tokens per second, 95 %
    high: float
    provenance: str
    modelled_step_seconds: float
    modelled_seconds_by_kind: SecondsByKind
    horizon: Optional[Horizon]
    cost: Optional[Cost]
    usd_per_million_tokens: Optional[float]


@dataclass(frozen=True)
class Alternative:
    """What one change would do."""

    change: dict[str, str]                # flags and their values
    allocated_bytes: Optional[int]
    process_bytes: Optional[int]
    verdict: Optional[Verdict]
    step_time_ratio: Optional[float]      # of the time of a step now
    identical_training: bool
    needs_code_change: bool
    note: str


@dataclass(frozen=True)
class Assumption:
    key: str
    value: str
    source: str


@dataclass(frozen=True)
class Point:
    event: int
    phase: str
    part: str
    micro_step: int
    op: str
    allocated_bytes: int
    by_category: list[int]                # bytes, in the order of Timeline.categories


@dataclass(frozen=True)
class Timeline:
    categories: list[str]
    points: list[Point]


@dataclass(frozen=True)
class Job:
    """What emit=... writes: a launcher's job."""

    kind: str                             # "torchrun", "slurm", "kubernetes", "trainjob", "skypilot", "ray"
    file: str                             # the name it goes by
    text: str


@dataclass(frozen=True)
class Report(Answer):
    """One run on one machine. In a notebook it shows as its chart."""

    dryfit: str                           # version
    verdict: Verdict
    workload: Workload
    machine: Machine
    memory: Memory
    peak: Peak
    phases: list[Phase]
    categories: list[Category]
    speed: Optional[Speed]                # None: the GPU's rates are not known
    alternatives: list[Alternative]
    command: str                          # to start it
    assumptions: list[Assumption]
    warnings: list[str]
    timeline: Optional[Timeline] = None   # explain(timeline=True)
    job: Optional[Job] = None             # check(emit=...)

    @property
    def fits(self) -> bool:
        """The verdict is "fits" or "tight": exit status 0 of `dryfit check`."""
        return self.verdict != "wont_fit"

    def svg(self) -> Optional[str]:
        """Memory over the run as an SVG picture; None for an entry of a plan: explain(report.command) has one."""
        return _chart(self.request, "explain")

    def _repr_html_(self) -> Optional[str]:
        return self.svg()


# ---- plan and table

@dataclass(frozen=True)
class Candidate:
    """One way to train a Hugging Face model, at the largest device batch that fits; where none does, at the smallest."""

    method: str                           # full, lora, qlora
    recompute: str                        # none, full
    shard: str
    device_batch_size: Optional[int]      # None: none fits
    grad_accum_steps: int
    verdict: Verdict
    allocated_bytes: int
    process_bytes: int
    headroom_bytes: int
    least_seconds_per_token: Optional[float]  # no implementation of the same kernels is faster
    tokens_per_second: Optional[float]    # predicted, of all GPUs; ways are compared by it
    command: str
    plan: Optional[int]                   # index into Plan.plans, which holds the chosen one


@dataclass(frozen=True)
class Rent:
    """The cheapest machine by the hour on which a method fits."""

    gpu: str
    gpus: int
    provider: str
    kind: str
    usd_per_gpu_hour: float
    usd_per_hour: float
    seen: Optional[str]
    source: str
    recompute: str
    shard: str
    device_batch_size: int
    process_bytes: int


@dataclass(frozen=True)
class Missed:
    """A method that trains more than the chosen one and does not fit."""

    method: str
    change: Optional[Alternative]         # one argument that would make it fit
    rent: Optional[Rent]


@dataclass(frozen=True)
class Plan(Answer):
    plans: list[Report]
    chosen: Optional[int]                 # index into plans; None: nothing fits
    why: str
    closest: Optional[Report] = None      # where nothing fits: the least that was asked for; alternatives say what would change it
    job: Optional[Job] = None             # asked for by emit
    candidates: list[Candidate] = field(default_factory=list)  # this and what follows: Hugging Face models
    missed: list[Missed] = field(default_factory=list)
    check: Optional[str] = None           # the command line that asks about the chosen run

    @property
    def best(self) -> Optional[Report]:
        return None if self.chosen is None else self.plans[self.chosen]

    def _repr_html_(self) -> str:
        rows = [[f"d{p.workload.depth}", f"{p.workload.params / 1e6:,.0f} M", str(p.workload.run.device_batch_size), str(p.workload.run.grad_accum_steps), gib(p.memory.process.bytes), gib(p.memory.headroom_bytes),
                 f"{p.speed.tokens_per_second:,.0f}" if p.speed else "", p.command] for p in self.plans]
        return _html(["", "params", "device batch", "accumulation", "peak", "headroom", "tok/s", "command"], rows, self.chosen) + f"<p>{html.escape(self.why)}</p>"


@dataclass(frozen=True)
class Cell:
    gpu: str
    usable_bytes: int
    depth: int                            # layers
    device_batch_size: Optional[int]      # the largest that fits; None: not even one
    allocated_bytes: Optional[int]
    method: Optional[str] = None          # this and what follows: Hugging Face models
    recompute: Optional[str] = None
    shard: Optional[str] = None
    tokens_per_second: Optional[float] = None  # all GPUs together; None: their rates are not known

    @property
    def column(self) -> str:
        return f"d{self.depth}" if self.method is None else self.method + ("+r" if self.recompute == "full" else "")


@dataclass(frozen=True)
class Table(Answer):
    rows: list[Cell]

    def _repr_html_(self) -> str:
        columns = dict.fromkeys(c.column for c in sorted(self.rows, key=lambda c: c.depth))
        batches = {(c.gpu, c.column): str(c.device_batch_size or "–") for c in self.rows}
        names = dict.fromkeys(c.gpu for c in self.rows)
        return _html(["GPU", *columns], [[name, *(batches.get((name, c), "") for c in columns)] for name in names])


# ---- doctor

@dataclass(frozen=True)
class Source:
    name: str
    bytes: int
    lines: int
    encoding: str


@dataclass(frozen=True)
class Moment:
    phase: str
    part: str
    source: Optional[str]                 # "traceback", "log" or "prediction"
    steps_done: int


@dataclass(frozen=True)
class Holder:
    name: str
    bytes: Optional[int]
    note: Optional[str]


@dataclass(frozen=True)
class Match:
    """A tensor of the predicted run whose size is the one that was asked for."""

    name: str
    shape: list[int]
    dtype: str
    bytes: int
    category: str
    phase: str
    part: str
    micro_step: int
    event: str
    allocated_before_bytes: int
    reachable: bool


@dataclass(frozen=True)
class Cause:
    name: str
    confidence: Literal["certain", "likely", "possible"]
    summary: str
    evidence: list[str]
    also: list[str]                       # what adds to it
    not_: list[str]                       # what it is not, and why: `not` in the JSON


@dataclass(frozen=True)
class Fix:
    change: str
    saving_bytes: Optional[int]
    process_bytes: Optional[int]          # after it
    verdict: Optional[Verdict]            # after it
    step_time_ratio: Optional[float]
    speed: Optional[str]
    identical_training: Optional[bool]
    needs_code_change: bool
    command: Optional[str]
    note: Optional[str]


@dataclass(frozen=True)
class Failure:
    line: int
    quote: str
    rank: Optional[int]
    message: dict[str, Any]               # the message's own numbers, bytes
    moment: Moment
    asked: Optional[dict[str, Any]]       # shape and dtype of what was asked for
    holders: list[Holder]                 # of the card's memory at that moment
    matches: list[Match]
    cause: Cause
    fixes: list[Fix]                      # best first
    ladder: list[Fix]                     # step by step: batch, length, depth, leaks
    others: list[dict[str, Any]]          # further failures of the log
    frames: list[dict[str, Any]]          # of the traceback


@dataclass(frozen=True)
class Diagnosis(Answer):
    """Of a log, a traceback or a message."""

    dryfit: str
    source: Source
    finding: Literal["failure", "healthy", "nothing"]
    failure: Optional[Failure]
    underuse: Optional[dict[str, Any]]    # why the GPU idles
    live: Optional[dict[str, Any]]
    run: dict[str, Any]                   # what the log says of the run
    workload: Optional[dict[str, Any]]
    machine: Optional[dict[str, Any]]
    prediction: Optional[dict[str, Any]]
    notes: list[str]


@dataclass(frozen=True)
class Account(Answer):
    """Of a CUDA memory snapshot: who holds the peak, what grows, how the pool is cut up. In a notebook it shows as its chart."""

    dryfit: str
    source: dict[str, Any]
    finding: str
    alloc_conf: Any
    devices: list[dict[str, Any]]
    comparison: Optional[dict[str, Any]]  # with the predicted run, where its flags were given
    notes: list[str]

    def svg(self) -> Optional[str]:
        """The snapshot's chart."""
        return _chart(self.request, "doctor")

    def _repr_html_(self) -> Optional[str]:
        return self.svg()


# ---- helpers

def gib(size: int) -> str:
    """Bytes as people read them: "17.4 GiB"."""
    return f"{size / 2**30:,.1f} GiB"


def _html(head: list[str], rows: list[list[str]], marked: Optional[int] = None) -> str:
    line = lambda tag, cells: "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)  # noqa: E731
    body = "".join(f"<tr{' style=font-weight:bold' if i == marked else ''}>{line('td', cells)}</tr>" for i, cells in enumerate(rows))
    return f"<table><thead><tr>{line('th', head)}</tr></thead><tbody>{body}</tbody></table>"


@functools.cache
def _fields(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind)}


def key_of(name: str) -> str:
    """A field's name in the JSON, which may be one of Python's own words."""
    return name.removesuffix("_")


def build(kind: Any, value: Any) -> Any:
    """A JSON value as the type `kind`: dataclasses by their fields, what they do not know left out."""
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        known = {name: build(hint, value[key_of(name)]) for name, hint in _fields(kind).items() if key_of(name) in value}
        if issubclass(kind, Answer):
            known = {"json": "", "request": None} | known
        return kind(**known)
    if typing.get_origin(kind) is list:
        return [build(typing.get_args(kind)[0], item) for item in value]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return None if value is None else build(typing.get_args(kind)[0], value)
    return value
