# The benchmark: installs each rival into an environment of its own, asks every rival about every measured row, writes benchmark/results.tsv and docs/benchmark.md.
# Usage: run.py DRYFIT [RIVAL ...]   (with names: those are asked anew; the lines of the others stay as benchmark/results.tsv has them, each with its date)
import datetime
import importlib
import json
import os
import pathlib
import platform
import subprocess
import sys

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parent
sys.path.insert(0, str(HERE))

import summary  # noqa: E402
from rows import NotCovered, read_rows  # noqa: E402

BUILD = TOP / "build/benchmark"
LIMIT = 1800  # seconds for one rival over all rows
TORCH = ["torch==2.9.1", "transformers==4.57.1", "accelerate==1.15.0", "peft==0.21.2", "litgpt==0.5.13"]
# In the order of the tables.
RIVALS = ["dryfit_check", "dryfit_told", "mem_tracker", "fitcheck", "canifinetune", "ftune", "memguard", "kitsune", "qmemcalc", "hf_vram_calc", "llm_analysis", "gpu_estimator", "alloc_ghost", "accelerate_estimate", "vram_check", "seed_rule"]


def pip(environment, words):
    subprocess.run([str(environment / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", *words], check=True)


def python_of(rival):
    """The interpreter for a rival: its packages in an environment of its own, over the one that holds torch where it needs that."""
    if not rival.PACKAGES:
        return sys.executable
    if not rival.TORCH:
        return environment(rival.__name__.split(".")[-1], rival.PACKAGES)
    base = environment("torch", TORCH)
    if set(rival.PACKAGES) <= set(TORCH):
        return base
    own = environment(rival.__name__.split(".")[-1], ["--no-deps", *rival.PACKAGES, *getattr(rival, "BESIDE", [])])
    site = subprocess.run([base, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True, check=True).stdout.strip()
    mine = subprocess.run([own, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True, check=True).stdout.strip()
    (pathlib.Path(mine) / "torch-below.pth").write_text(site + "\n")
    return own


def environment(name, words):
    place = BUILD / name
    stamp = place / "installed"
    if not stamp.exists() or stamp.read_text() != " ".join(words):
        print(f"installing {' '.join(w for w in words if not w.startswith('-'))}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        pip(place, words)
        stamp.write_text(" ".join(words))
    return str(place / "bin/python")


def ask(name, rival, rows, dryfit):
    """What a rival answers about every row: {id: {"figures": MiB by kind, "seconds"} or {"reason"}}."""
    print(f"asking {rival.NAME}", file=sys.stderr)
    answers, asked = {}, []
    for row in rows:
        try:
            asked.append((row["id"], rival.settings(row)))
        except NotCovered as error:
            answers[row["id"]] = {"reason": str(error)}
    folder = BUILD / "answers"
    folder.mkdir(parents=True, exist_ok=True)
    settings, results = folder / f"{name}.json", folder / f"{name}.jsonl"
    settings.write_text(json.dumps(asked))
    env = dict(os.environ, DRYFIT=dryfit, DRYFIT_TOP=str(TOP), HF_HUB_OFFLINE="1", PYTHONDONTWRITEBYTECODE="1")
    with open(folder / f"{name}.log", "w") as log:
        try:
            subprocess.run([python_of(rival), str(HERE / "worker.py"), name, str(settings), str(results)], env=env, stdout=log, stderr=log, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            print(f"{name}: over its time limit", file=sys.stderr)
    for line in results.read_text().splitlines():
        answer = json.loads(line)
        answers[answer.pop("id")] = answer
    return {row["id"]: answers.get(row["id"], {"reason": "time limit"}) for row in rows}


def main():
    dryfit = os.path.abspath(sys.argv[1])
    anew = sys.argv[2:] or RIVALS
    unknown = [name for name in anew if name not in RIVALS]
    if unknown:
        sys.exit(f"error: no rival {unknown[0]}\nhint:  {' '.join(RIVALS)}")
    rows = read_rows(dryfit)
    version = subprocess.run([dryfit, "version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    facts = {"dryfit": version, "python": platform.python_version(), "torch": " ".join(TORCH), "cores": os.cpu_count()}
    recorded = HERE / "results.tsv"
    before = summary.parts(recorded.read_text()) if recorded.exists() else {}
    blocks = []
    for name in RIVALS:
        rival = importlib.import_module("rivals." + name)
        if name not in anew and rival.NAME in before:
            blocks.append(before[rival.NAME])
        else:
            blocks.append(summary.block(datetime.date.today().isoformat(), rival, rows, ask(name, rival, rows, dryfit)))
    text = summary.results_tsv(facts, blocks)
    recorded.write_text(text)
    (TOP / "docs/benchmark.md").write_text(summary.page(text))
    readme = TOP / "README.md"
    begin, end = "<!-- begin: benchmark -->\n", "<!-- end: benchmark -->"
    head, _, rest = readme.read_text().partition(begin)
    readme.write_text(head + begin + summary.known_table(text) + "\n" + end + rest.partition(end)[2])


if __name__ == "__main__":
    main()
