"""What is recorded: one list that the goldens are made of, and one that is kept unseen.

Depths, batches and lengths are spread so that a size that scales wrongly, or a decision that flips with size (partition, split
reductions, fusion limits), shows in some recording. `seen()` is what the passes are fixed against; `unseen()` judges them.
"""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Case:
    """One recording. `kind`: compiled (one micro-step) · step (load, two optimizer steps) · validation · evaluation (eager, no_grad) ·
    sampling (`batch` samples after a prompt of `length`) · resume (from a checkpoint) · rl (rollouts, then an eager pass; rows of `length`)."""
    kind: str
    epoch: str
    commit: str
    depth: int
    batch: int
    length: int
    vocab: int = 32768
    window: str = "SSSL"
    fp8: bool = False
    attention: str = "fa3"  # or sdpa
    gpus: int = 1
    accumulation: int = 1
    tokens: int = 0         # new ones: sampling, rl
    dtype: str = "bf16"     # what nanochat computes in (NANOCHAT_DTYPE, since E5): bf16, fp32, fp16

    def name(self):
        parts = [self.kind, self.epoch, f"d{self.depth}", f"B{self.batch}", f"T{self.length}", f"V{self.vocab}"]
        parts += [self.window] if self.window != "SSSL" else []
        parts += ["fp8"] if self.fp8 else []
        parts += [self.dtype] if self.dtype != "bf16" else []
        parts += [self.attention] if self.attention != "fa3" else []
        parts += [f"W{self.gpus}"] if self.gpus > 1 else []
        parts += [f"A{self.accumulation}"] if self.accumulation > 1 else []
        parts += [f"N{self.tokens}"] if self.tokens > 0 else []
        return "-".join(parts)


# Epoch (as in `dryfit list versions`) and the commit recorded for it.
COMMITS = {
    "E1": "af82c3a",   # the speedruns of October 2025
    "E3": "b33e394",   # the end of 11 January: FlashAttention 3, windows, lambdas, Muon with a factored second moment
    "E3c": "6bb9240",  # Muon stacked by shape
    "E4g": "f41dd3c",  # value embeddings, autocast
    "E5": "1076f97",   # no autocast
    "E5b": "6ed7d1d",  # other windows, smaller gates
    "E6b": "47e983e",  # smear and backout
    "E7": "92d63d4",   # one optimizer class
}
OWN_FP8 = {"E4g": "bac5a35"}  # f41dd3c needs torchao for fp8; two weeks later nanochat had its own


def _case(kind, epoch, depth, batch, length, **rest):
    if epoch == "E1":
        rest = {"vocab": 65536, "window": "L", "attention": "sdpa", **rest}
    commit = OWN_FP8.get(epoch, COMMITS[epoch]) if rest.get("fp8") else COMMITS[epoch]
    return Case(kind=kind, epoch=epoch, commit=commit, depth=depth, batch=batch, length=length, **rest)


def _compiled():
    for epoch in ("E1", "E3", "E4g", "E5", "E6b", "E7"):
        for depth in (4, 12):
            for batch in (1, 8, 32):
                for length in (512, 2048):
                    yield _case("compiled", epoch, depth, batch, length)
    for epoch in ("E4g", "E5", "E7"):
        for depth, batch, length in ((4, 1, 512), (4, 8, 512), (4, 1, 2048), (4, 8, 2048), (4, 32, 2048), (12, 1, 2048), (12, 4, 2048), (12, 32, 2048)):
            yield _case("compiled", epoch, depth, batch, length, fp8=True)
    for epoch in ("E4g", "E7"):  # without FlashAttention 3: cards that are not Hopper
        for window in ("L", "SSSL"):
            for depth, batch, length in ((4, 8, 2048), (12, 1, 2048), (12, 8, 512)):
                yield _case("compiled", epoch, depth, batch, length, attention="sdpa", window=window)
    yield _case("compiled", "E7", 12, 4, 2048, attention="sdpa", fp8=True)
    for dtype in ("fp32", "fp16"):  # cards before Ampere, which have no bf16: fp32, or fp16 where that is asked for
        for epoch, depth, batch, length, window in (("E5", 4, 8, 2048, "L"), ("E7", 4, 8, 512, "L"), ("E7", 4, 2, 2048, "SSSL"), ("E7", 12, 1, 2048, "L"), ("E7", 12, 8, 512, "SSSL")):
            yield _case("compiled", epoch, depth, batch, length, attention="sdpa", dtype=dtype, window=window)
        yield _case("compiled", "E7", 12, 4, 1024, dtype=dtype, attention="sdpa")
    # published runs
    yield _case("compiled", "E1", 20, 32, 2048)
    yield _case("compiled", "E5", 24, 16, 2048)
    yield _case("compiled", "E4g", 24, 16, 2048, fp8=True)
    yield _case("compiled", "E7", 24, 16, 2048, fp8=True)
    yield _case("step", "E5", 24, 16, 2048, gpus=8, accumulation=2)


def _rest():
    for epoch in ("E1", "E3", "E3c", "E4g", "E7"):
        for gpus in (1, 8):
            yield _case("step", epoch, 4, 8, 2048, gpus=gpus)
            yield _case("step", epoch, 12, 1, 2048, gpus=gpus, accumulation=2)
    yield _case("step", "E7", 4, 8, 2048, fp8=True, accumulation=2)
    for epoch in ("E1", "E3", "E4g", "E5", "E7"):
        for depth, batch, length in ((4, 8, 2048), (12, 1, 2048), (12, 32, 512)):
            yield _case("validation", epoch, depth, batch, length)
        # CORE: as many sequences as answers, as long as the longest prompt
        for depth, batch, length in ((4, 1, 300), (4, 4, 1000), (12, 2, 2500), (12, 10, 100)):
            yield _case("evaluation", epoch, depth, batch, length)
    for depth, batch, length in ((4, 4, 1000), (12, 2, 2500)):
        yield _case("evaluation", "E7", depth, batch, length, attention="sdpa")
    for dtype in ("fp32", "fp16"):
        without = {"attention": "sdpa", "dtype": dtype}
        yield _case("step", "E7", 4, 8, 512, **without)
        yield _case("step", "E7", 4, 2, 1024, gpus=8, accumulation=2, **without)
        yield _case("step", "E6b", 4, 2, 1024, **without)
        yield _case("validation", "E7", 4, 8, 512, **without)
        yield _case("evaluation", "E7", 4, 4, 1000, **without)
        yield _case("sampling", "E7", 4, 8, 213, tokens=8, **without)
        yield _case("rl", "E7", 4, 8, 468, tokens=8, **without)


def _other_phases():
    for epoch in ("E1", "E3", "E4g", "E5", "E7"):
        yield _case("sampling", epoch, 4, 1, 16, tokens=16)
        yield _case("sampling", epoch, 4, 8, 213, tokens=32)
    yield _case("sampling", "E7", 4, 8, 700, tokens=8, attention="sdpa")
    for epoch in ("E3c", "E4g", "E7"):
        for gpus in (1, 8):
            yield _case("resume", epoch, 4, 8, 2048, gpus=gpus)
    for epoch in ("E1", "E4g", "E5", "E7"):
        yield _case("rl", epoch, 4, 8, 468, tokens=32)
    yield _case("rl", "E7", 12, 2, 300, tokens=8)


def seen():
    return [*_compiled(), *_rest(), *_other_phases()]


def unseen():
    return [
        _case("compiled", "E1", 6, 2, 1024), _case("compiled", "E1", 10, 16, 2048),
        _case("compiled", "E3", 8, 4, 1024), _case("compiled", "E4g", 8, 2, 2048), _case("compiled", "E4g", 16, 16, 1024),
        _case("compiled", "E5", 6, 64, 512), _case("compiled", "E5", 14, 2, 2048), _case("compiled", "E5b", 10, 4, 2048),
        _case("compiled", "E6b", 8, 16, 1024), _case("compiled", "E7", 6, 16, 2048), _case("compiled", "E7", 18, 2, 4096),
        _case("compiled", "E7", 8, 4, 2048, fp8=True), _case("compiled", "E7", 18, 8, 1024, fp8=True), _case("compiled", "E4g", 10, 2, 2048, fp8=True),
        _case("compiled", "E7", 8, 4, 1024, attention="sdpa"), _case("compiled", "E4g", 6, 16, 2048, attention="sdpa", window="L"),
        _case("step", "E1", 8, 2, 1024, gpus=4), _case("step", "E4g", 6, 4, 1024, gpus=2, accumulation=2), _case("step", "E7", 8, 2, 1024),
        _case("step", "E7", 10, 1, 1024, gpus=4), _case("validation", "E7", 8, 4, 1024), _case("validation", "E1", 6, 16, 2048),
        _case("evaluation", "E7", 8, 3, 777), _case("evaluation", "E1", 8, 5, 640), _case("evaluation", "E4g", 6, 2, 1500),
        _case("sampling", "E7", 6, 4, 100, tokens=8), _case("sampling", "E4g", 8, 16, 150, tokens=8), _case("sampling", "E1", 6, 2, 90, tokens=8),
        _case("resume", "E7", 6, 4, 1024, gpus=4), _case("rl", "E7", 8, 4, 350, tokens=8), _case("rl", "E5", 6, 16, 240, tokens=8),
        _case("rl", "E1", 6, 4, 256, tokens=8),
        _case("compiled", "E7", 8, 4, 1024, attention="sdpa", dtype="fp32"), _case("compiled", "E6b", 6, 16, 512, attention="sdpa", dtype="fp32", window="L"),
        _case("compiled", "E7", 8, 4, 1024, attention="sdpa", dtype="fp16"), _case("step", "E5", 6, 4, 512, attention="sdpa", dtype="fp32", accumulation=2),
        _case("step", "E5", 6, 4, 512, attention="sdpa", dtype="fp16", accumulation=2), _case("step", "E6b", 6, 4, 512, attention="sdpa", dtype="fp32", gpus=2),
        _case("step", "E7", 6, 4, 512, attention="sdpa", dtype="fp32", gpus=2), _case("validation", "E5", 6, 4, 512, attention="sdpa", dtype="fp32"),
        _case("evaluation", "E5", 8, 3, 777, attention="sdpa", dtype="fp32"), _case("evaluation", "E5", 8, 3, 777, attention="sdpa", dtype="fp16"),
    ]
