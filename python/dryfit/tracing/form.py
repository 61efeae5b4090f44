"""A recorder's events as the text that `dryfit check --capture` reads. The form is described in docs/capture.md; the reader is src/capture."""
from __future__ import annotations

VERSION = 1


def _clean(text):
    return "".join("?" if c < " " or c == "\x7f" else c for c in str(text))[:2000]


def facts(**known):
    """The head: one fact a line; a list is that many lines of one key."""
    lines = [f"dryfit-capture {VERSION}"]
    for key, value in known.items():
        for one in value if isinstance(value, list) else [value]:
            lines.append(f"{key}\t{_clean(one)}")
    return "\n".join(lines) + "\n"


def events(recorder):
    """Segments, allocations, frees and kernels that allocate inside, in order."""
    marks, at, out = recorder.marks, 0, []
    for i, event in enumerate(recorder.events):
        while at < len(marks) and marks[at][1] <= i:
            phase, part, micro = marks[at][0]
            out.append(f"segment\t{phase}\t{part}\t{micro}\n")
            at += 1
        if event.storage < 0:
            out.append("kernel\t" + "\t".join(map(_clean, event.said)) + "\n")
            continue
        if not event.birth:
            out.append(f"-\t{event.storage}\n")  # every birth is a new storage, so its index counts the allocations
            continue
        storage = recorder.storages[event.storage]
        stream, op, owner, category, _ = recorder.more[event.storage]
        shape = "x".join(str(int(n)) for n in storage.shape) or "-"
        out.append(f"+\t{storage.bytes}\t{stream}\t{category}\t{storage.dtype}\t{shape}\t{_clean(op)}\t{_clean(owner)}\n")
    out.append("end\n")
    return "".join(out)


def text(recorder, **known):
    recorder.poll()
    return facts(**known) + events(recorder)
