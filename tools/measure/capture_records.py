#!/usr/bin/env python3
"""Captures the records of modded-nanogpt that data/measured/captured.csv names, and writes what was captured beside what their logs say.

  git clone https://github.com/KellerJordan/modded-nanogpt
  python3 tools/measure/capture_records.py --repository modded-nanogpt --work DIR [--only mngpt-009] [--again]

Each log holds the script that made it. It runs through `python -m dryfit.capture` (docs/capture.md; needs the package and a torch with Triton in this
Python) as rank 0 of the run's GPUs. What is not the record's: tokens are made up, FlashAttention 3 is a stand-in (stand_ins), `nvidia-smi` prints
nothing, and validation comes after two steps in place of hundreds, so that the optimizer's state stands beside it after three. DIR keeps scripts,
captures and what was printed. A row that has its figures is left alone, unless --again.
"""
import argparse
import csv
import datetime
import json
import os
import pathlib
import random
import re
import struct
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TABLE = HERE.parent.parent / "data" / "measured" / "captured.csv"
BEGIN = 50256  # the token before each document


def script_of(log):
    """The files that a log begins with: name -> text; nothing where it holds none."""
    code = re.split(r"^={50,}$", log, maxsplit=1, flags=re.M)
    if len(code) < 2:
        return {}
    main, *more = re.split(r"^-{40}\n# (triton_kernels\.py)\n-{40}$", code[0], flags=re.M)
    files = {"record.py": re.sub(r"(\bval_loss_every *(?:: *int *)?= *)\d+", r"\g<1>2", main)}
    return files | dict(zip(more[::2], more[1::2]))


def make_tokens(path, count, seed):
    """A file of the records' form: documents of 200 to 1000 tokens."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    chance = random.Random(seed)
    words = struct.pack("<65536H", *chance.choices(range(50000), k=65536))
    tokens = bytearray(struct.pack("<256i", 20240520, 1, count, *[0] * 253))
    while len(tokens) < 1024 + 2 * count:
        length = chance.randint(200, 1000)
        at = 2 * chance.randrange(65536 - length)
        tokens += struct.pack("<H", BEGIN) + words[at:at + 2 * (length - 1)]
    path.write_bytes(tokens[:1024 + 2 * count])


def prepare(work):
    data = work / "data" / "fineweb10B"
    for shard in (1, 2, 3):
        make_tokens(data / f"fineweb_train_{shard:06}.bin", 12_000_000, shard)
    make_tokens(data / "fineweb_val_000000.bin", 10_485_760 + 1024, 0)
    silent = work / "bin" / "nvidia-smi"
    silent.parent.mkdir(exist_ok=True)
    silent.write_text("#!/bin/sh\n", encoding="ascii")
    silent.chmod(0o755)


def capture(files, row, work):
    """The report of dryfit explain, or why there is none."""
    folder = work / row["id"]
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    paths = os.pathsep.join([str(HERE / "stand_ins"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PATH": f"{work / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": paths, "DATA_PATH": str(work)}
    command = [sys.executable, "-m", "dryfit.capture", "--gpu", row["gpu"], "--steps", row["steps"], "--out", str(folder / "run.capture"), "--explain", "--json", "--", "torchrun", f"--nproc_per_node={row['gpus']}", str(folder / "record.py")]
    with open(folder / "printed.txt", "w", encoding="utf-8") as printed:
        done = subprocess.run(command, cwd=work, env=environment, stdout=subprocess.PIPE, stderr=printed, text=True, check=False)
    report = json.loads(done.stdout) if done.stdout else {"error": {"message": "it printed no report"}}
    (folder / "report.json").write_text(done.stdout, encoding="utf-8")
    if "error" in report:
        return None, report["error"]["message"]
    stopped = [w for w in report["warnings"] if "the script stopped" in w]
    return (None, stopped[0]) if stopped else (report, "")


def mib(size):
    return f"{size / 2**20:.2f}"


def fill(row, report, file):
    """The columns that a capture writes. file: its lines."""
    torch = next(line.split("\t")[1].strip() for line in file if line.startswith("torch\t"))
    row.update(captured_mib=mib(report["memory"]["allocated"]["bytes"]), captured_reserved_mib=mib(report["memory"]["reserved"]["bytes"]), phase=report["peak"]["phase"],
               captured_torch=torch, captured_with=report["dryfit"], captured_on=datetime.date.today().isoformat(), refused="")


def read_table():
    with open(TABLE, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_row(row):
    """Others may have written theirs meanwhile."""
    rows = [row if other["id"] == row["id"] else other for other in read_table()]
    with open(TABLE, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, row, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", required=True, type=pathlib.Path, help="a clone of modded-nanogpt, bare or not")
    parser.add_argument("--work", required=True, type=pathlib.Path, help="a folder for scripts, tokens and captures")
    parser.add_argument("--only", default="", help="ids that contain this")
    parser.add_argument("--again", action="store_true", help="also rows that have their figures")
    given = parser.parse_args()
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    prepare(work)
    for row in read_table():
        if given.only not in row["id"] or (row["captured_mib"] and not given.again):
            continue
        place = row["source"].partition(":")[2]
        log = subprocess.run(["git", "-C", str(given.repository), "show", f"HEAD:{place}"], capture_output=True, check=True).stdout.decode("utf-8", "replace")
        report, why = capture(script_of(log), row, work)
        if report is None:
            row["refused"] = why.replace(",", ";")[:200]
        else:
            with open(work / row["id"] / "run.capture", encoding="utf-8") as file:
                fill(row, report, file)
        print(row["id"], row["allocated_mib"], row["captured_mib"] or row["refused"], flush=True)
        write_row(row)


if __name__ == "__main__":
    main()
