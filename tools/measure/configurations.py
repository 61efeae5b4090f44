"""What to measure: configurations as values, and the list to run by default. Needs no torch.

Each configuration names the question it answers (`hypothesis`): rows are chosen in pairs that differ in one thing only.
"""
import dataclasses
import hashlib
import json


@dataclasses.dataclass(frozen=True)
class Configuration:
    """One run in a process of its own. `kind`: probe (no model: context and libraries) · nanochat · trainer (transformers' Trainer)."""
    kind: str
    hypothesis: str
    model: str = ""            # trainer: a name in data/models, or a config.json below the repository
    nanochat: str = "newest"   # label of a checkout given with --nanochat
    depth: int = 0
    vocab_size: int = 32768
    max_seq_len: int = 2048
    device_batch_size: int = 1
    grad_accum_steps: int = 1
    gpus: int = 1
    window_pattern: str = "L"
    fp8: bool = False
    attention: str = "auto"    # trainer: attn_implementation, auto: what transformers picks
    compile: bool = True
    checkpointing: bool = False
    dtype: str = "bf16"        # trainer also: autocast (fp32 weights, --bf16) · fp32; nanochat: bf16 · fp32
    optimizer: str = ""        # trainer: TrainingArguments.optim, "" its default
    lora: int = 0              # trainer: rank of adapters, 0 none
    quantized: str = ""        # trainer: nf4 · nf4-dq
    evaluate: bool = False     # nanochat, at the end: eager forward passes as CORE evaluation does
    validate: bool = False     # nanochat, before the first step: a batch without gradients
    trace: bool = False        # record every allocation of the process
    alloc_conf: str = ""       # PYTORCH_ALLOC_CONF and PYTORCH_CUDA_ALLOC_CONF; nanochat's script overwrites one of them
    cublas_workspace: str = ""  # CUBLAS_WORKSPACE_CONFIG
    steps: int = 6

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
        if self.kind == "trainer":
            parts += [self.model, f"B{self.device_batch_size}", f"T{self.max_seq_len}", self.dtype]
            parts += [self.optimizer] if self.optimizer else []
            parts += [f"lora{self.lora}"] if self.lora else []
            parts += [self.quantized] if self.quantized else []
        flags = {f"A{self.grad_accum_steps}": self.grad_accum_steps > 1, f"W{self.gpus}": self.gpus > 1, self.window_pattern: self.window_pattern != "L",
                 "fp8": self.fp8, self.dtype: self.kind == "nanochat" and self.dtype != "bf16", self.attention: self.attention != "auto", "eager": not self.compile and self.kind == "nanochat", "compiled": self.compile and self.kind == "trainer", "checkpointing": self.checkpointing,
                 "evaluate": self.evaluate, "validate": self.validate, self.alloc_conf: bool(self.alloc_conf), self.cublas_workspace: bool(self.cublas_workspace)}
        return " ".join(parts + [text for text, said in flags.items() if said])


def _nanochat(hypothesis, depth, batch, **rest):
    return Configuration(kind="nanochat", hypothesis=hypothesis, depth=depth, device_batch_size=batch, **rest)


def _trainer(hypothesis, model, batch, length=1024, **rest):
    return Configuration(kind="trainer", hypothesis=hypothesis, model=model, device_batch_size=batch, max_seq_len=length, vocab_size=0, **{"compile": False, **rest})


def _nanochat_list():
    """One change from `base` each, then other sizes, then other versions."""
    base = _nanochat("the plain step", 12, 8, trace=True, validate=True)
    same = dataclasses.replace(base, trace=False, validate=False)
    return [
        base,
        _nanochat("smallest: constants show", 4, 1, trace=True),
        dataclasses.replace(same, hypothesis="fp8: what is saved, gradient of the logits", fp8=True, trace=True),
        dataclasses.replace(same, hypothesis="gradients alive in forward", grad_accum_steps=2),
        dataclasses.replace(same, hypothesis="windows by SDPA: masks", window_pattern="SSSL"),
        dataclasses.replace(base, hypothesis="ordinary segments, as torch 2.9 has them: reserved", alloc_conf="expandable_segments:False"),
        dataclasses.replace(same, hypothesis="ordinary segments, gradients alive", alloc_conf="expandable_segments:False", grad_accum_steps=2),
        dataclasses.replace(same, hypothesis="cuBLAS workspaces: base minus this = their size", cublas_workspace=":16:8"),
        dataclasses.replace(same, hypothesis="eager: nothing fused", compile=False, device_batch_size=4),
        dataclasses.replace(same, hypothesis="evaluation can set the maximum", device_batch_size=1, evaluate=True),
        dataclasses.replace(same, hypothesis="fp8 with gradients alive", fp8=True, grad_accum_steps=2),
        _nanochat("the first version", 8, 8, nanochat="E1", vocab_size=65536, trace=True),
        _nanochat("autocast", 12, 8, nanochat="E4g"),
        _nanochat("explicit casts", 12, 8, nanochat="E5"),
        dataclasses.replace(same, hypothesis="large blocks are not split: reserved", alloc_conf="expandable_segments:False,max_split_size_mb:128"),
        dataclasses.replace(same, hypothesis="sizes rounded: reserved", alloc_conf="expandable_segments:False,roundup_power2_divisions:4"),
        _nanochat("scaling with depth and batch", 8, 2),
        _nanochat("scaling with depth and batch", 4, 8),
        _nanochat("scaling with depth and batch", 20, 4, grad_accum_steps=2),
        _nanochat("scaling with depth and batch", 16, 8),
        _nanochat("scaling with length", 12, 32, max_seq_len=512),
        _nanochat("scaling with length", 12, 4, max_seq_len=4096),
        _nanochat("fp32 compute, as on cards before Ampere", 8, 4, dtype="fp32"),
        _nanochat("the first version, gradients alive", 12, 4, nanochat="E1", vocab_size=65536, grad_accum_steps=2),
        _nanochat("scaling with depth and batch", 24, 2),
        _nanochat("smear and backout, two optimizer classes", 12, 8, nanochat="E6b"),
    ]


def _trainer_list():
    gpt2 = _trainer("the plain step", "gpt2", 4, dtype="autocast")
    llama = _trainer("the plain step", "llama-3.2-1b", 2)
    nf4 = dict(lora=16, checkpointing=True)
    return [
        gpt2, dataclasses.replace(llama, trace=True),
        dataclasses.replace(gpt2, hypothesis="fp32", dtype="fp32"),
        dataclasses.replace(gpt2, hypothesis="bf16 weights", dtype="bf16"),
        dataclasses.replace(gpt2, hypothesis="8-bit states", optimizer="adamw_bnb_8bit", trace=True),
        dataclasses.replace(llama, hypothesis="4-bit weights", quantized="nf4", device_batch_size=4, trace=True, **nf4),
        dataclasses.replace(llama, hypothesis="4-bit weights and scales", quantized="nf4-dq", device_batch_size=4, **nf4),
        dataclasses.replace(llama, hypothesis="adapters", lora=16),
        dataclasses.replace(llama, hypothesis="adapters, recompute", lora=16, checkpointing=True, device_batch_size=8),
        dataclasses.replace(llama, hypothesis="recompute", checkpointing=True, device_batch_size=8),
        dataclasses.replace(llama, hypothesis="fp32 weights under autocast", dtype="autocast", device_batch_size=1),
        dataclasses.replace(gpt2, hypothesis="recompute", checkpointing=True, device_batch_size=16),
        dataclasses.replace(gpt2, hypothesis="gradients alive in forward", grad_accum_steps=2),
        dataclasses.replace(gpt2, hypothesis="attention op by op", attention="eager", device_batch_size=2),
        *[dataclasses.replace(gpt2, hypothesis="optimizers", optimizer=name) for name in ("adamw_torch", "adafactor", "sgd", "paged_adamw_8bit", "lion_8bit", "paged_adamw_32bit")],
        dataclasses.replace(llama, hypothesis="8-bit states", optimizer="adamw_bnb_8bit"),
        *[_trainer("other families", model, batch, length=512 if model.startswith("bert") else 1024, dtype=dtype, checkpointing=again) for model, batch, dtype, again in (
            ("qwen2.5-0.5b", 4, "autocast", True), ("qwen3-0.6b", 2, "bf16", False), ("pythia-410m", 4, "autocast", False), ("gemma-3-1b", 2, "bf16", True),
            ("phi-1.5", 2, "bf16", False), ("olmo-1b", 2, "bf16", False), ("bert-base-uncased", 16, "autocast", False), ("smollm2-360m", 4, "bf16", False))],
        dataclasses.replace(llama, hypothesis="one graph: zeros for what is returned, a mask, copied keys", compile=True, trace=True),
        dataclasses.replace(llama, hypothesis="one graph under autocast", compile=True, dtype="autocast", device_batch_size=1),
        _trainer("one graph, other families", "qwen2.5-0.5b", 4, dtype="autocast", compile=True),
        _trainer("one graph, other families", "qwen3-0.6b", 2, compile=True),
        dataclasses.replace(llama, hypothesis="segments grow: reserved", alloc_conf="expandable_segments:True"),
    ]


def default_list():
    """Cheap and telling ones first: a slice that ends early has still answered something."""
    probes = [Configuration(kind="probe", hypothesis="size of the context and of what each library loads"),
              Configuration(kind="probe", hypothesis="cuBLAS workspaces set by hand", cublas_workspace=":4096:2")]
    nanochat, trainer = _nanochat_list(), _trainer_list()
    many = [_nanochat("collectives' buffers", 12, 8, gpus=gpus) for gpus in (2, 8)]
    return [*probes, *nanochat[:8], *trainer[:6], *nanochat[8:16], *trainer[6:], *nanochat[16:], *many]
