"""Runs drawn blindly: nobody chose them, and whoever has the seed draws them again. record.sh --draw SEED records them, docs/oracle.md tells how they are compared.

Everything nanochat's own flags can say is drawn, within what its version can run: widths and heads that it asserts, fp8 and dtypes that it has, vocabularies
that its optimizer can divide among GPUs.
"""
import random

import cases

SHAPES = {
    # kind: depths, batches, lengths
    "wide": (range(2, 17), (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32), (256, 384, 512, 640, 1000, 1024, 1152, 1536, 1920, 2048)),
    "extreme": ((1, 1, 2, 3, 20, 24), (1, 1, 2, 7, 64, 128), (64, 96, 127, 192, 333, 1023, 2047, 4096, 8192)),
}
VOCABULARIES = {"wide": (32768, 32768, 65536, 50304, 50257, 32000, 10001), "extreme": (256, 1000, 8191, 32768, 151936)}
KINDS = ("compiled",) * 5 + ("step",) * 6 + ("validation", "sampling", "resume", "rl")
EPOCHS = list(cases.COMMITS)


# Drawn since; what a seed drew before stays what it draws.
BATCHES, LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16), (256, 384, 512, 640, 1000, 1024, 1536, 2048)


def _since(epoch, first):
    return EPOCHS.index(epoch) >= EPOCHS.index(first)


def _one(pick, shapes):
    depths, batches, lengths = SHAPES[shapes]
    epoch, kind = pick.choice(EPOCHS), pick.choice(KINDS)
    rest = {"vocab": pick.choice(VOCABULARIES[shapes]), "attention": "sdpa", "window": "L"}
    if _since(epoch, "E2"):
        rest["head_dim"] = pick.choice((128, 128, 128, 64, 64, 96))
        rest["aspect"] = pick.choice((64, 64, 64, 32, 48, 80, 96))
    if _since(epoch, "E3"):
        rest["attention"] = pick.choice(("fa3", "fa3", "sdpa"))
        rest["window"] = pick.choice(("SSSL", "L", "SL", "SSL", "S")) if _since(epoch, "E3b") else "SSSL"
    if kind in ("compiled", "step") and (epoch in cases.OWN_FP8 or _since(epoch, "E4h")):
        rest["fp8"] = pick.random() < 0.4
    if kind in ("compiled", "step") and _since(epoch, "E5") and not rest["fp8"] and rest["attention"] == "sdpa" and pick.random() < 0.4:
        rest["dtype"] = "fp32" if kind == "step" or pick.random() < 0.5 else "fp16"  # steps in fp16 ask for values: whether something overflowed
    if kind == "step":
        rest.update(gpus=pick.choice((1, 1, 2, 4, 8)), accumulation=pick.choice((1, 1, 2, 3)))
    if kind == "resume":
        rest.update(gpus=pick.choice((1, 2, 8)))
    if kind in ("sampling", "rl"):
        rest.update(tokens=pick.choice((1, 5, 8, 17)))
    return cases.case(kind, epoch, pick.choice(depths), pick.choice(batches), pick.choice(lengths), **rest)


def _model(pick, epoch, dtypes):
    """What every kind draws of the model and of what it computes in."""
    rest = {"vocab": pick.choice(VOCABULARIES["wide"]), "attention": "sdpa", "window": "L"}
    if _since(epoch, "E2"):
        rest.update(head_dim=pick.choice((128, 128, 64, 96)), aspect=pick.choice((64, 64, 32, 48, 96)))
    if _since(epoch, "E3"):
        rest.update(attention=pick.choice(("fa3", "fa3", "sdpa")), window=pick.choice(("SSSL", "L", "SL")) if _since(epoch, "E3b") else "SSSL")
    if dtypes and _since(epoch, "E5") and rest["attention"] == "sdpa" and pick.random() < 0.6:
        rest["dtype"] = pick.choice(("fp32", "fp16"))
    return rest


def _script(pick):
    """mid_train, chat_sft, chat_rl: of chat_sft's rows the longest, of chat_rl's its longest question."""
    epoch = pick.choice(EPOCHS)
    script = pick.choice(("chat_sft", "chat_sft", "chat_rl") if _since(epoch, "E4e") else ("mid_train", "chat_sft", "chat_rl"))
    rest = {**_model(pick, epoch, True), "script": script, "gpus": pick.choice((1, 1, 2, 8)), "accumulation": pick.choice((1, 1, 2, 3)), "compile": pick.random() < 0.75}
    rows = script == "chat_rl" or (script == "chat_sft" and not _since(epoch, "E4e"))
    if script == "chat_rl":
        rest["tokens"] = pick.choice((5, 16, 43))
    return cases.case("run", epoch, pick.choice(range(2, 11)), pick.choice(BATCHES[:6]), 2048 if rows else pick.choice(LENGTHS), **rest)


def _uncompiled(pick):
    """base_train under TORCH_COMPILE_DISABLE=1."""
    epoch = pick.choice(EPOCHS)
    rest = {**_model(pick, epoch, True), "gpus": pick.choice((1, 1, 2, 4, 8)), "accumulation": pick.choice((1, 1, 2)), "compile": False}
    if "dtype" not in rest and (epoch in cases.OWN_FP8 or _since(epoch, "E4h")):
        rest["fp8"] = pick.random() < 0.4
    return cases.case("step", epoch, pick.choice(range(2, 13)), pick.choice(BATCHES), pick.choice(LENGTHS), **rest)


def _phase(pick):
    """Validation, CORE, sampling, ChatCORE's questions."""
    epoch, kind = pick.choice(EPOCHS), pick.choice(("validation", "evaluation", "sampling", "questions"))
    tokens = pick.choice((1, 2, 8, 17)) if kind == "sampling" else 0
    return cases.case(kind, epoch, pick.choice(range(2, 13)), pick.choice(BATCHES), pick.choice((*LENGTHS, 77, 213, 333, 1023)), tokens=tokens, **_model(pick, epoch, True))


OTHERS = {"scripts": _script, "uncompiled": _uncompiled, "phases": _phase}


def _runs(case):
    """Whether nanochat itself would get through."""
    width = case.depth * case.aspect
    heads = max(1, -(-width // case.head_dim))
    if _since(case.epoch, "E4b"):
        width = heads * case.head_dim
    elif _since(case.epoch, "E2"):
        heads = cases.dividing_heads(width, case.head_dim)
    padded = -(-case.vocab // 64) * 64 if _since(case.epoch, "E1e") else case.vocab
    return (width % (8 * heads) == 0 and padded % case.gpus == 0
            and (case.attention == "fa3" or not _since(case.epoch, "E3") or _since(case.epoch, "E4"))  # between them FlashAttention 3 is imported by name
            and not (case.fp8 and case.batch * case.length % 16)  # _scaled_mm's multiples
            and (case.kind != "resume" or _since(case.epoch, "E1e")) and (case.kind != "rl" or 16 % case.batch == 0)
            and case.length > case.tokens + 1)


def draw(seed, count, shapes="wide"):
    pick, drawn = random.Random(seed), []
    while len(drawn) < count:
        case = OTHERS[shapes](pick) if shapes in OTHERS else _one(pick, shapes)
        if _runs(case) and case not in drawn:
            drawn.append(case)
    return drawn
