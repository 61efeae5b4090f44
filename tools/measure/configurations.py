"""What to measure: configurations as values, and the list to run by default. Needs no torch.

Each configuration names the question it answers (`hypothesis`): rows are chosen in pairs that differ in one thing only.
"""
import dataclasses
import hashlib
import json


@dataclasses.dataclass(frozen=True)
class Configuration:
    """One run in a process of its own. `kind`: probe (no model: context and libraries) · nanochat · transformers."""
    kind: str
    hypothesis: str
    model: str = ""            # transformers: a name in transformers_job.MODELS
    nanochat: str = "newest"   # label of a checkout given with --nanochat
    depth: int = 0
    vocab_size: int = 32768
    max_seq_len: int = 2048
    device_batch_size: int = 1
    grad_accum_steps: int = 1
    gpus: int = 1
    window_pattern: str = "L"
    fp8: bool = False
    attention: str = "auto"    # auto: what nanochat or transformers picks · sdpa
    compile: bool = True
    checkpointing: bool = False
    dtype: str = "bf16"
    evaluate: bool = False     # then: eager forward passes as CORE evaluation does
    validate: bool = False     # then: a batch without gradients
    snapshot: bool = False     # record one more step's allocations and summarise them
    alloc_conf: str = ""       # PYTORCH_ALLOC_CONF
    cublas_workspace: str = ""  # CUBLAS_WORKSPACE_CONFIG
    steps: int = 4

    def total_batch_size(self):
        return self.device_batch_size * self.max_seq_len * self.grad_accum_steps * self.gpus

    def key(self):
        """Stable over reordering of the list: what the configuration is, not where it stands."""
        text = json.dumps({k: v for k, v in dataclasses.asdict(self).items() if k != "hypothesis"}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def title(self):
        parts = [self.kind]
        if self.kind == "nanochat":
            parts += [self.nanochat, f"d{self.depth}", f"B{self.device_batch_size}", f"T{self.max_seq_len}"]
        if self.kind == "transformers":
            parts += [self.model, f"B{self.device_batch_size}", f"T{self.max_seq_len}", self.dtype]
        flags = {f"A{self.grad_accum_steps}": self.grad_accum_steps > 1, f"W{self.gpus}": self.gpus > 1, self.window_pattern: self.window_pattern != "L",
                 "fp8": self.fp8, self.dtype: self.kind == "nanochat" and self.dtype != "bf16", self.attention: self.attention != "auto", "eager": not self.compile and self.kind != "probe", "checkpointing": self.checkpointing,
                 "evaluate": self.evaluate, self.alloc_conf: bool(self.alloc_conf), self.cublas_workspace: bool(self.cublas_workspace)}
        return " ".join(parts + [text for text, said in flags.items() if said])


def _nanochat(hypothesis, depth, batch, **rest):
    return Configuration(kind="nanochat", hypothesis=hypothesis, depth=depth, device_batch_size=batch, **rest)


def _transformers(hypothesis, model, batch, length, **rest):
    return Configuration(kind="transformers", hypothesis=hypothesis, model=model, device_batch_size=batch, max_seq_len=length, **rest)


def default_list():
    """Cheap and telling ones first: a slice that ends early has still answered something."""
    base = _nanochat("the plain step", 12, 16, snapshot=True, validate=True)
    several = [
        Configuration(kind="probe", hypothesis="size of the context and of what each library loads"),
        Configuration(kind="probe", hypothesis="cuBLAS workspaces set by hand", cublas_workspace=":4096:2"),
        _nanochat("smallest: constants show", 4, 1, snapshot=True),
        _nanochat("smallest: constants show", 4, 8),
        base,
        # one change from `base` each
        dataclasses.replace(base, hypothesis="cuBLAS workspaces: base minus this = their size", cublas_workspace=":16:8", snapshot=False),
        dataclasses.replace(base, hypothesis="segments grow: reserved", alloc_conf="expandable_segments:True", snapshot=False),
        dataclasses.replace(base, hypothesis="large blocks are not split: reserved", alloc_conf="max_split_size_mb:128", snapshot=False),
        dataclasses.replace(base, hypothesis="sizes rounded: reserved", alloc_conf="roundup_power2_divisions:4", snapshot=False),
        dataclasses.replace(base, hypothesis="gradients alive in forward", grad_accum_steps=2),
        dataclasses.replace(base, hypothesis="windows", window_pattern="SSSL"),
        dataclasses.replace(base, hypothesis="attention: SDPA against what was picked", attention="sdpa"),
        dataclasses.replace(base, hypothesis="windows by SDPA: masks", window_pattern="SSSL", attention="sdpa"),
        dataclasses.replace(base, hypothesis="eager: nothing fused", compile=False, device_batch_size=4),
        dataclasses.replace(base, hypothesis="compiled beside it", device_batch_size=4, snapshot=False),
        dataclasses.replace(base, hypothesis="fp8: what is saved, gradient of the logits", fp8=True),
        dataclasses.replace(base, hypothesis="fp8 with gradients alive", fp8=True, grad_accum_steps=2, snapshot=False),
        dataclasses.replace(base, hypothesis="evaluation can set the maximum", device_batch_size=1, evaluate=True),
        dataclasses.replace(base, hypothesis="fp32 compute, as on cards before Ampere", dtype="fp32", device_batch_size=2),
    ]
    ladder = [_nanochat("scaling with depth and batch", depth, batch, window_pattern="SSSL")
              for depth, batch in ((4, 64), (8, 8), (8, 32), (12, 1), (12, 32), (16, 16), (20, 8), (20, 16), (24, 8), (24, 16), (26, 8))]
    ladder += [_nanochat("scaling with length", 12, 8, max_seq_len=length) for length in (512, 1024, 4096)]
    ladder += [_nanochat("published run", 24, 16, window_pattern="SSSL", fp8=True, snapshot=True), _nanochat("published run", 24, 16, window_pattern="SSSL", grad_accum_steps=2)]
    family = []
    for model in ("gpt2", "llama-160m", "qwen-500m"):
        family += [_transformers("plain eager training", model, 4, 1024, compile=False, snapshot=True),
                   _transformers("twice the batch: what is per token", model, 8, 1024, compile=False),
                   _transformers("recompute", model, 8, 1024, compile=False, checkpointing=True),
                   _transformers("compiled", model, 4, 1024),
                   _transformers("fp32 weights under autocast", model, 4, 1024, compile=False, dtype="autocast")]
    many = [_nanochat("collectives' buffers", 12, 16, gpus=gpus) for gpus in (2, 8)]
    return [*several, *ladder, *family, *many]
