"""Sums up a memory snapshot of PyTorch's allocator: the peak within a recorded stretch and, by size, what is alive there. Needs no torch.

Format: torch.cuda.memory._snapshot(), described in torch/cuda/_memory_viz.py.
"""
import collections


def blocks(snapshot):
    """Address -> bytes of every block in use."""
    alive = {}
    for segment in snapshot["segments"]:
        address = segment["address"]
        for block in segment["blocks"]:
            if block["state"].startswith("active_a"):
                alive[block.get("address", address)] = block["size"]
            address += block["size"]
    return alive


def summary(before, trace, segments):
    """before: address -> bytes alive at the start; trace: the allocator's events; segments: sizes held at the end."""
    changes = [e for e in trace if e["action"] in ("alloc", "free_completed")]
    rounded = lambda size: -(-size // 512) * 512  # noqa: E731  (the trace holds what was asked for)

    def replay(entries):
        alive, live, peak, peak_at = dict(before), sum(before.values()), sum(before.values()), 0
        for at, entry in enumerate(entries, 1):
            if entry["action"] == "alloc":
                alive[entry["addr"]] = rounded(entry["size"])
                live += alive[entry["addr"]]
            else:
                live -= alive.pop(entry["addr"], 0)
            if live > peak:
                peak, peak_at = live, at
        return alive, peak, peak_at

    _, peak, peak_at = replay(changes)
    alive, _, _ = replay(changes[:peak_at])

    def counted(sizes, most):
        count = collections.Counter(sizes)
        return [{"bytes": b, "count": n} for b, n in sorted(count.items(), key=lambda item: -item[0] * item[1])[:most]]

    return {"start": sum(before.values()), "peak": peak, "peak_event": peak_at, "events": len(changes), "live_at_peak": counted(alive.values(), 40),
            "segments": counted(segments, 20)}
