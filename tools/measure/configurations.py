"""What to measure: configurations as values, and the list to run by default. Needs no torch.

Each configuration names the question it answers (`hypothesis`): rows are chosen in pairs that differ in one thing only.
"""
import dataclasses
import hashlib
import json


# Fields that came after rows had been measured, which had their defaults.
_LATER = ("script", "extra", "liger", "trl", "caches")


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
    attention: str = "auto"    # trainer: attn_implementation, auto: what transformers picks; nanochat: fa3 with the package given by --fa3
    compile: bool = True
    checkpointing: bool = False
    dtype: str = "bf16"        # trainer also: autocast (fp32 weights, --bf16) · fp16 (fp32 weights, --fp16) · fp32; nanochat: bf16 · fp16 · fp32
    optimizer: str = ""        # trainer: TrainingArguments.optim, "" its default
    lora: int = 0              # trainer: rank of adapters, 0 none
    quantized: str = ""        # trainer: nf4 · nf4-dq
    evaluate: bool = False     # nanochat, at the end: eager forward passes as CORE evaluation does
    validate: bool = False     # nanochat, before the first step: a batch without gradients
    trace: bool = False        # record every allocation of the process
    alloc_conf: str = ""       # PYTORCH_ALLOC_CONF and PYTORCH_CUDA_ALLOC_CONF; nanochat's script overwrites one of them
    cublas_workspace: str = ""  # CUBLAS_WORKSPACE_CONFIG
    steps: int = 6
    script: str = "base_train"  # nanochat: base_train · chat_sft, after one step of base_train that writes a checkpoint
    extra: tuple = ()          # nanochat: further arguments of the script; trainer: fields of TrainingArguments as NAME=VALUE
    liger: bool = False        # trainer: Liger's kernels
    trl: bool = False          # trainer: trl's SFTTrainer with its own defaults
    caches: str = ""           # of torch.compile: cold: a folder of its own · warm: one that the same run filled just before · "" the user's, which runs share
    gigabytes: int = 12        # what it may take, roughly: runs side by side wait for room

    def total_batch_size(self):
        return self.device_batch_size * self.max_seq_len * self.grad_accum_steps * self.gpus

    def key(self):
        """Stable over reordering of the list and over new fields: what the configuration is, not where it stands."""
        unsaid = {"hypothesis", "gigabytes"} | {f.name for f in dataclasses.fields(self) if f.name in _LATER and getattr(self, f.name) == f.default}
        text = json.dumps({k: v for k, v in dataclasses.asdict(self).items() if k not in unsaid}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def title(self):
        parts = [self.kind]
        if self.kind == "nanochat":
            parts += [self.script] if self.script != "base_train" else []
            parts += [self.nanochat, f"d{self.depth}", f"B{self.device_batch_size}", f"T{self.max_seq_len}"]
        if self.kind == "trainer":
            parts += [self.model, f"B{self.device_batch_size}", f"T{self.max_seq_len}", self.dtype]
            parts += [self.optimizer] if self.optimizer else []
            parts += [f"lora{self.lora}"] if self.lora else []
            parts += [self.quantized] if self.quantized else []
        flags = {f"A{self.grad_accum_steps}": self.grad_accum_steps > 1, f"W{self.gpus}": self.gpus > 1, self.window_pattern: self.window_pattern != "L",
                 "fp8": self.fp8, self.dtype: self.kind == "nanochat" and self.dtype != "bf16", self.attention: self.attention != "auto", "eager": not self.compile and self.kind == "nanochat", "compiled": self.compile and self.kind == "trainer", "checkpointing": self.checkpointing,
                 f"V{self.vocab_size}": self.kind == "nanochat" and self.vocab_size not in (32768, 65536), "liger": self.liger, "trl": self.trl, " ".join(self.extra): bool(self.extra),
                 "evaluate": self.evaluate, "validate": self.validate, self.caches: bool(self.caches), self.alloc_conf: bool(self.alloc_conf), self.cublas_workspace: bool(self.cublas_workspace)}
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


def _attention3_list():
    """nanochat as it runs where the package `kernels` is there."""
    base = _nanochat("FlashAttention 3: the plain step", 12, 8, attention="fa3", trace=True, validate=True, caches="cold")
    same = dataclasses.replace(base, trace=False, validate=False)
    return [
        base,
        dataclasses.replace(same, hypothesis="FlashAttention 3, windows: as published", window_pattern="SSSL"),
        dataclasses.replace(same, hypothesis="FlashAttention 3, windows and fp8: as published", window_pattern="SSSL", fp8=True),
        dataclasses.replace(same, hypothesis="FlashAttention 3: heads of 96, a width over 1024 that 64 does not divide", depth=11, extra=("--aspect-ratio=96", "--head-dim=96")),
        dataclasses.replace(same, hypothesis="FlashAttention 3, ordinary segments: reserved", alloc_conf="expandable_segments:False", window_pattern="SSSL"),
        dataclasses.replace(same, hypothesis="FlashAttention 3, evaluation", device_batch_size=1, evaluate=True),
        dataclasses.replace(same, hypothesis="FlashAttention 3, gradients alive", depth=20, window_pattern="SSSL", grad_accum_steps=2, gigabytes=30),
        *[dataclasses.replace(same, hypothesis="FlashAttention 3, other versions", nanochat=version, window_pattern="SSSL") for version in ("E3b", "E3c", "E4d", "E4h", "E5b", "E6", "E6b")],
        dataclasses.replace(same, hypothesis="FlashAttention 3, a head of 64", depth=8, extra=("--head-dim=64",)),
    ]


def _other_nanochat_list():
    """Versions, vocabularies, dtypes, scripts and hand-made changes that no run has shown."""
    def small(hypothesis, **rest):
        return Configuration(**{"kind": "nanochat", "hypothesis": hypothesis, "depth": 8, "device_batch_size": 8, "gigabytes": 8, **rest})
    reserved = _nanochat("reserved: where the segments come from", 12, 8, trace=True)
    return [
        dataclasses.replace(reserved, depth=24, device_batch_size=2, gigabytes=25),
        dataclasses.replace(reserved, alloc_conf="expandable_segments:False,max_split_size_mb:128"),
        dataclasses.replace(reserved, alloc_conf="expandable_segments:False,roundup_power2_divisions:4"),
        small("a script of its own: fine-tuning", script="chat_sft", validate=True, trace=True),
        small("a script of its own: fine-tuning", script="chat_sft", nanochat="E4h", device_batch_size=4),
        small("fine-tuning, gradients alive", script="chat_sft", depth=12, grad_accum_steps=2, gigabytes=12),
        *[small("a vocabulary that 64 does not divide", vocab_size=vocabulary, depth=depth) for vocabulary, depth in ((50257, 8), (10001, 6))],
        small("fp16 and its scaler", dtype="fp16"),
        small("fp16 and its scaler, gradients alive, odd vocabulary", dtype="fp16", vocab_size=50257, grad_accum_steps=2),
        small("fp32 compute, windows", dtype="fp32", window_pattern="SSSL", device_batch_size=4),
        small("recompute: each block", nanochat="E7gc", checkpointing=True), small("recompute: each block with its lambdas", nanochat="E7gc2", checkpointing=True),
        small("recompute: each block with its lambdas, gradients alive", nanochat="E7gc2", checkpointing=True, grad_accum_steps=2, depth=12),
        small("eager: fp8", compile=False, fp8=True), small("eager: fp16", compile=False, dtype="fp16", device_batch_size=4), small("eager: autocast", compile=False, nanochat="E4g", device_batch_size=4),
        *[small("other versions", nanochat=version, vocab_size=65536, depth=6) for version in ("E1b", "E1d", "E1e")],
        *[small("other versions", nanochat=version) for version in ("E2", "E2b", "E4", "E4b", "E4d", "E4e", "E4h", "E5b", "E6")],
        small("other versions, fp8", nanochat="E4h", fp8=True), small("other versions, fp8", nanochat="E6", fp8=True),
        small("heads of 64", extra=("--head-dim=64",)), small("a width of 96 a layer", extra=("--aspect-ratio=96",)), small("order of what is freed", depth=6, device_batch_size=16),
        _nanochat("many short rows", 4, 64, max_seq_len=512), _nanochat("few long rows", 6, 1, max_seq_len=16384), _nanochat("a length that no tile divides", 6, 7, max_seq_len=1000),
    ]


def _caches_list():
    """What timing kernels adds where torch.compile's caches know none, and where they know all."""
    base = _nanochat("caches", 12, 8, trace=True)
    ordinary = "expandable_segments:False"
    llama = _trainer("caches: one graph", "llama-3.2-1b", 2, compile=True, trace=True, gigabytes=18)
    configurations = [
        dataclasses.replace(base, alloc_conf=ordinary), dataclasses.replace(base, alloc_conf=f"{ordinary},max_split_size_mb:128"), dataclasses.replace(base, alloc_conf=f"{ordinary},roundup_power2_divisions:4"),
        dataclasses.replace(base, depth=24, device_batch_size=2, gigabytes=25), llama, dataclasses.replace(llama, lora=16), base,
        dataclasses.replace(base, alloc_conf=ordinary, fp8=True), dataclasses.replace(base, alloc_conf=ordinary, nanochat="E4h", grad_accum_steps=2), _trainer("caches: one graph", "gpt2", 4, dtype="autocast", compile=True, trace=True),
    ]
    return [dataclasses.replace(c, caches=caches) for c in configurations for caches in ("cold", "warm")]


def _other_trainer_list():
    """The compiler, traces of what was not exact, families, adapters, optimizers, fp16, Liger, SFTTrainer."""
    gpt2, llama = _trainer("", "gpt2", 4, dtype="autocast"), _trainer("", "llama-3.2-1b", 2, gigabytes=18)

    def of(base, hypothesis, **rest):
        return dataclasses.replace(base, hypothesis=hypothesis, **rest)
    nf4 = dict(lora=16, checkpointing=True, quantized="nf4", device_batch_size=4)
    large = dict(lora=16, checkpointing=True, gigabytes=30)
    return [
        of(gpt2, "traced: 2 MiB too many", trace=True), of(gpt2, "traced: gradients alive", trace=True, grad_accum_steps=2), of(gpt2, "traced: bf16 weights", trace=True, dtype="bf16"),
        of(gpt2, "traced: attention op by op", trace=True, attention="eager", device_batch_size=2),
        _trainer("traced: 3 MiB too many", "gemma-3-1b", 2, checkpointing=True, trace=True, gigabytes=18),
        of(gpt2, "one graph, other families", compile=True), of(llama, "one graph, recompute", compile=True, checkpointing=True, device_batch_size=4),
        of(llama, "one graph, adapters", compile=True, lora=16), _trainer("one graph, other families", "smollm2-135m", 4, dtype="autocast", compile=True),
        of(gpt2, "one graph, 8-bit states", compile=True, optimizer="adamw_bnb_8bit"), _trainer("one graph, other families", "pythia-160m", 4, compile=True),
        of(llama, "4-bit weights under autocast", dtype="autocast", gigabytes=10, **nf4), of(llama, "adapters under autocast", dtype="autocast", lora=16),
        of(llama, "4-bit weights without recompute", gigabytes=18, **{**nf4, "checkpointing": False, "device_batch_size": 2}),
        of(llama, "Liger", liger=True), of(llama, "Liger, recompute", liger=True, checkpointing=True, device_batch_size=8), _trainer("Liger", "qwen3-0.6b", 4, liger=True),
        of(llama, "SFTTrainer", trl=True), of(llama, "SFTTrainer, adapters", trl=True, lora=16, device_batch_size=4), of(llama, "SFTTrainer, 4-bit weights", trl=True, lora=16, quantized="nf4", device_batch_size=4),
        of(gpt2, "fp16 and its scaler", dtype="fp16"), of(llama, "fp16 and its scaler", dtype="fp16", device_batch_size=1, gigabytes=30),
        *[of(gpt2, "optimizers", optimizer=name) for name in ("lion_32bit", "ademamix", "ademamix_8bit", "rmsprop", "adagrad", "paged_lion_8bit")],
        of(llama, "optimizers", optimizer="adafactor"), of(gpt2, "noise on embeddings", extra=("neftune_noise_alpha=5",)), of(gpt2, "no clipping", extra=("max_grad_norm=0.0",)),
        of(gpt2, "smoothed labels", extra=("label_smoothing_factor=0.1",)),
        *[_trainer("other families", model, batch, length=length, dtype=dtype, checkpointing=again, gigabytes=gigabytes) for model, batch, length, dtype, again, gigabytes in (
            ("gemma-3-270m", 4, 1024, "autocast", False, 12), ("roberta-base", 16, 512, "autocast", False, 12), ("distilbert-base-uncased", 16, 512, "autocast", False, 10),
            ("gemma-2b", 1, 512, "bf16", False, 26), ("gemma-2-2b", 1, 512, "bf16", False, 28), ("qwen2-0.5b", 3, 777, "bf16", False, 12), ("distilgpt2", 8, 512, "autocast", False, 8),
            ("tinyllama-1.1b", 2, 1024, "bf16", True, 14), ("olmo-2-1b", 2, 512, "bf16", False, 18), ("pythia-1b", 2, 1024, "bf16", False, 16), ("smollm2-1.7b", 1, 512, "bf16", False, 20))],
        *[_trainer("other families, adapters", model, batch, length=length, **large) for model, batch, length in (
            ("starcoder2-3b", 4, 1024), ("granite-3.3-2b", 4, 1024), ("smollm3-3b", 4, 1024), ("phi-3-mini-4k", 4, 1024), ("qwen2.5-3b", 4, 1024), ("phi-2", 4, 1024), ("olmoe-1b-7b", 2, 1024))],
    ]


def default_list():
    """Cheap and telling ones first: a slice that ends early has still answered something."""
    probes = [Configuration(kind="probe", hypothesis="size of the context and of what each library loads"),
              Configuration(kind="probe", hypothesis="cuBLAS workspaces set by hand", cublas_workspace=":4096:2")]
    nanochat, trainer = _nanochat_list(), _trainer_list()
    many = [_nanochat("collectives' buffers", 12, 8, gpus=gpus) for gpus in (2, 8)]
    attention3, caches, others, trained = _attention3_list(), _caches_list(), _other_nanochat_list(), _other_trainer_list()
    return [*probes, *nanochat[:8], *trainer[:6], *nanochat[8:16], *trainer[6:], *nanochat[16:], *attention3[:7], *caches[:14], *attention3[7:], *others[:4], *trained[:14], *caches[14:], *others[4:], *trained[14:], *many]
