"""All that PyTorch's allocator did in one process, small enough to keep: gzipped JSON made of a memory snapshot. Needs no torch.

Format read: torch.cuda.memory._snapshot() with its history (torch/cuda/_memory_viz.py). Written: `events`, each [action, bytes, address, stream,
frame]; `frames`, the innermost calls of each place once; `marks`, the first event of each phase; `segments` at the end; `code`, what torch.compile wrote.
"""
import bisect
import gzip
import json
import os

INNERMOST = 5


def _place(frames):
    return " < ".join(f"{f['filename']}:{f['line']} {f['name']}" for f in frames[:INNERMOST])


def compact(snapshot, phases):
    events, places, times, written = [], {}, [], {}
    for entry in snapshot["device_traces"][0]:
        frames = entry.get("frames") or []
        place = places.setdefault(_place(frames), len(places))
        for frame in frames[:INNERMOST]:
            if "torchinductor" in frame["filename"] and frame["filename"].endswith(".py"):
                written[frame["filename"]] = ""
        events.append([entry["action"], entry.get("size", 0), entry.get("addr", 0), entry.get("stream", 0), place])
        times.append(entry.get("time_us", 0))
    for path in written:
        if os.path.exists(path):
            with open(path, encoding="utf-8") as source:
                written[path] = source.read()
    marks = [[p["name"], bisect.bisect_left(times, int(p["began"] * 1e6))] for p in phases]
    segments = [{"address": s["address"], "total_size": s["total_size"], "stream": s["stream"], "type": s["segment_type"], "expandable": s.get("is_expandable", False),
                 "blocks": [[b["size"], b["state"]] for b in s["blocks"]]} for s in snapshot["segments"]]
    return {"events": events, "frames": list(places), "marks": marks, "segments": segments, "code": written}


def write(snapshot, phases, path):
    with gzip.open(path + ".part", "wt", encoding="utf-8") as sink:
        json.dump(compact(snapshot, phases), sink)
    os.replace(path + ".part", path)
