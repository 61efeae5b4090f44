#!/usr/bin/env python3
"""A trace of measure.py as tests/memory/replay_test.cpp reads it: python3 tools/measure/replayable.py FOLDER ID > tests/golden/traces/NAME.txt

Lines: `conf` the allocator's settings; `segment` address and bytes of what cudaMalloc gave; `+` bytes asked for; `-` the n-th `+` freed;
`phase` name, and what max_memory_allocated and max_memory_reserved printed at its end.
"""
import csv
import gzip
import json
import pathlib
import sys


def lines(row, result, trace):
    yield f"# {row['gpu']}, torch {row['torch']}, driver {row['driver']}, {row['date']}: {row['command']}"
    expandable = any(s["expandable"] for s in trace["segments"])
    yield "conf " + (row["alloc_conf"].replace(";", ",") or f"expandable_segments:{expandable}")
    ends = [begin for _, begin in trace["marks"][1:]] + [len(trace["events"])]
    numbers, count, phase = {}, 0, 0
    for i, (action, size, address, _stream, _frame) in enumerate(trace["events"]):
        while phase < len(ends) and i == ends[phase]:
            yield phase_line(result["phases"][phase])
            phase += 1
        if action == "segment_alloc":
            yield f"segment {address} {size}"
        elif action == "alloc":
            count += 1
            numbers[address] = count
            yield f"+ {size}"
        elif action == "free_completed":
            yield f"- {numbers.pop(address)}"
    yield phase_line(result["phases"][phase])


def phase_line(phase):
    return f"phase {phase['name']} {phase['allocated']} {phase['reserved']}"


def main():
    folder, wanted = pathlib.Path(sys.argv[1]), sys.argv[2]
    with open(folder / "rows.csv", newline="", encoding="utf-8") as source:
        row = next(r for r in csv.DictReader(source) if r["id"] == wanted)
    result = next(e for e in map(json.loads, (folder / "details.jsonl").read_text(encoding="utf-8").splitlines()) if e["id"] == wanted)
    with gzip.open(folder / "traces" / f"{wanted}.json.gz", "rt", encoding="utf-8") as source:
        trace = json.load(source)
    print("\n".join(lines(row, result, trace)))


if __name__ == "__main__":
    main()
