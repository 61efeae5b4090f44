"""The goldens' format: one JSON object a line, one line a recording, identical stretches of events written once.

An event is an integer: +i makes a storage of row i-1 of `tensors`, -i drops one of that row. A list [n, ...] repeats its events n
times. Needs no torch. docs/oracle.md describes the fields.
"""
import json

LONGEST = 700  # events in a stretch that may repeat: two layers of the largest recorded graph


def fold(tokens):
    """Writes immediate repetitions once: [1,2,3,2,3,2,3,4] -> [1,[3,2,3],4]. Greedy: the stretch that saves most, at each place."""
    folded, i = [], 0
    while i < len(tokens):
        best = (0, 0, 0)  # saved, period, times
        for period in range(1, min(LONGEST, (len(tokens) - i) // 2) + 1):
            if tokens[i] != tokens[i + period]:
                continue
            times = 1
            while tokens[i + times * period:i + (times + 1) * period] == tokens[i:i + period]:
                times += 1
            saved = (times - 1) * period - 1
            if times > 1 and saved > best[0]:
                best = (saved, period, times)
        saved, period, times = best
        if saved > 0:
            folded.append([times, *fold(tokens[i:i + period])])
            i += period * times
        else:
            folded.append(tokens[i])
            i += 1
    return folded


def unfold(folded):
    tokens = []
    for item in folded:
        if isinstance(item, list):
            tokens.extend(unfold(item[1:]) * item[0])
        else:
            tokens.append(item)
    return tokens


def pack(case, torch_version, tracker):
    """A recording as a dict. Storages from before the first segment of interest are counted in `baseline`, not listed."""
    rows, table = {}, []

    def row(storage):
        key = (storage.dtype, storage.shape, storage.bytes)
        if key not in rows:
            rows[key] = len(table) + 1
            table.append([storage.dtype, list(storage.shape), storage.bytes])
        return rows[key]

    segments = []
    for name, events in tracker.segments():
        if name == "end":
            continue
        tokens = [row(tracker.storages[e.storage]) * (1 if e.birth else -1) for e in events]
        peak = max(range(len(events)), key=lambda i: (events[i].live, -i), default=-1)
        segments.append({"name": name, "end": events[-1].live if events else None, "peak": events[peak].live if events else None,
                         "peak_event": peak, "count": len(events), "events": fold(tokens)})
    if case.kind in ("transformers", "torchtune", "torchtitan"):
        return {"name": case.name(), "torch": torch_version, **case.header(), "tensors": table, "segments": segments}
    usual = {"new_tokens": 0, "dtype": "bf16", "checkpoints": False, "head_dim": 128, "aspect_ratio": 64, "script": "base_train", "compile": True, "torchrun": False}  # left out
    extra = {"new_tokens": case.tokens, "dtype": case.dtype, "checkpoints": case.checkpoints, "head_dim": case.head_dim, "aspect_ratio": case.aspect,
             "script": case.script, "compile": case.compile, "torchrun": case.torchrun}
    extra = {key: value for key, value in extra.items() if value != usual[key]}
    return {"name": case.name(), "kind": case.kind, "nanochat": case.epoch, "commit": case.commit, "torch": torch_version,
            "depth": case.depth, "device_batch_size": case.batch, "max_seq_len": case.length, "vocab_size": case.vocab,
            "window_pattern": case.window, "fp8": case.fp8, "attention": case.attention, "gpus": case.gpus,
            "grad_accum_steps": case.accumulation, **extra, "tensors": table, "segments": segments}


def line(packed):
    return json.dumps(packed, separators=(",", ":"))


def write_golden(path, cases, raw):
    """What was recorded to the folder `raw`; where a case was not, the line that is there stays. Returns how many there are."""
    old = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    lines = {json.loads(one)["name"]: one for one in old}
    recorded = {case.name(): raw / f"{case.name()}.json" for case in cases}
    lines |= {name: file.read_text(encoding="utf-8") for name, file in recorded.items() if file.exists()}
    kept = [lines[name] for name in recorded if name in lines]
    path.write_text("".join(one + "\n" for one in kept), encoding="utf-8")
    return len(kept)
