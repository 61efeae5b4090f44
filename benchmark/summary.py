# Values to values: answers of rivals -> results.tsv -> the page docs/benchmark.md. Runs nothing and reads no clock; the page is a function of the TSV alone.
import json
import statistics

from rows import CARDS

COLUMNS = ["rival", "row", "table", "known", "kind", "features", "measured_mib", "predicted_mib", "seconds", "reason"]
# The figure a row is compared with: the one of its kind, else the nearest above it that a rival has, else the nearest below.
NEAREST = {"allocated": ("allocated", "reserved", "process"), "reserved": ("reserved", "process", "allocated"), "oom": ("process", "reserved", "allocated")}
FEATURES = ["nanochat", "fp8", "full", "LoRA", "adapters on the head", "LLaMA-Adapter", "4-bit weights", "autocast", "checkpointing", "DDP"]


def features_of(row):
    said = [(row["table"] == "nanochat", "nanochat"), (row["fp8"], "fp8"), (row["table"] != "nanochat" and row["method"] == "full", "full"), (row["method"] == "lora", "LoRA"), ("lm_head" in row["lora_targets"], "adapters on the head"),
            (row["method"].startswith("adapter"), "LLaMA-Adapter"), (row["quant"] != "none", "4-bit weights"), (row["mixed"], "autocast"), (row["recompute"], "checkpointing"), (row["parallel"] == "ddp", "DDP")]
    return ",".join(name for holds, name in said if holds)


def block(date, rival, rows, answers):
    """A rival's own note and its lines of results.tsv."""
    note = json.dumps({"name": rival.NAME, "date": date, "packages": rival.PACKAGES, "figure": rival.FIGURE, "settings": rival.SETTINGS})
    lines = []
    for row in rows:
        answer = answers[row["id"]]
        predicted = next((answer["figures"][k] for k in NEAREST[row["kind"]] if k in answer.get("figures", {})), None)
        seconds = answer.get("seconds")
        measured = row["measured_mib"] or CARDS[row["gpu"]]
        lines.append("\t".join([rival.NAME, row["id"], row["table"], "yes" if row["known"] else "no", row["kind"], features_of(row), f"{measured:.2f}",
                                "" if predicted is None else f"{predicted:.2f}", "" if seconds is None else f"{seconds:.4g}", " ".join(answer.get("reason", "").split())]))
    return note, lines


def results_tsv(facts, blocks):
    return "\n".join([f"# {json.dumps(facts)}", *(f"# {note}" for note, _ in blocks), "\t".join(COLUMNS), *(line for _, lines in blocks for line in lines)]) + "\n"


def parts(text):
    """A results.tsv as its blocks again, by the rival's name."""
    lines = text.splitlines()
    notes = {json.loads(line[2:])["name"]: line[2:] for line in lines[1:] if line.startswith("# ")}
    return {name: (note, [line for line in lines if line.startswith(name + "\t")]) for name, note in notes.items()}


def read(text):
    """facts, the rivals' own lines and the rows, of a results.tsv."""
    lines = text.splitlines()
    notes = [json.loads(line[2:]) for line in lines if line.startswith("# ")]
    table = [line.split("\t") for line in lines if not line.startswith("#")]
    rows = [dict(zip(table[0], fields, strict=True)) for fields in table[1:]]
    for row in rows:
        row["measured"] = float(row["measured_mib"])
        row["predicted"] = float(row["predicted_mib"]) if row["predicted_mib"] else None
    return notes[0], notes[1:], rows


def seconds_text(rows):
    times = [float(r["seconds"]) for r in rows if r["seconds"]]
    if not times:
        return "-"
    median = statistics.median(times)
    return "< 1 ms" if median < 0.001 else f"{median * 1000:.0f} ms" if median < 1 else f"{median:.1f} s"


def errors_line(name, rows):
    """One line: of these rows, what a rival covers and how far off it is. Rows without a measured figure do not count here."""
    rows = [r for r in rows if r["kind"] != "oom"]
    covered = [r for r in rows if r["predicted"] is not None]
    if not covered:
        return f"| {name} | 0 of {len(rows)} | - | - | - | - | - |"
    errors = [r["predicted"] / r["measured"] - 1 for r in covered]
    sizes = [abs(e) for e in errors]
    worst = max(errors, key=abs)
    below = sum(e < -0.005 for e in errors)
    return f"| {name} | {len(covered)} of {len(rows)} | {percent(statistics.median(sizes))} | {percent(statistics.mean(sizes))} | {'+' if worst >= 0 else '-'}{percent(abs(worst))} | {below} of {len(covered)} | {seconds_text(covered)} |"


def percent(share):
    return f"{share * 100:.2f} %" if share < 0.01 else f"{share * 100:.1f} %" if share < 1 else f"{share * 100:.0f} %"


def table(names, by_name, chosen):
    head = "| estimator | rows covered | median error | mean | largest | more than 0.5 % too low | time |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    return "\n".join([head, *(errors_line(name, [r for r in by_name[name] if chosen(r)]) for name in names)])


def feature_table(names, by_name):
    lines = ["| estimator | " + " | ".join(FEATURES) + " |", "| --- |" + " ---: |" * len(FEATURES)]
    for name in names:
        cells = []
        for feature in FEATURES:
            having = [r for r in by_name[name] if feature in r["features"].split(",") and r["kind"] != "oom"]
            cells.append(f"{sum(r['predicted'] is not None for r in having)}/{len(having)}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def failed_runs(names, by_name):
    lines = ["| estimator | runs that went out of memory | of these called fitting |", "| --- | ---: | ---: |"]
    for name in names:
        rows = [r for r in by_name[name] if r["kind"] == "oom"]
        covered = [r for r in rows if r["predicted"] is not None]
        lines.append(f"| {name} | {len(covered)} of {len(rows)} | {sum(r['predicted'] <= r['measured'] for r in covered) if covered else '-'} |")
    return "\n".join(lines)


def same_rows(names, by_name):
    """Each rival against dryfit on the rows that both cover: nobody gains by leaving hard rows out."""
    ours = {r["row"]: r for r in by_name[names[0]]}
    lines = ["| estimator | rows | its median error | dryfit's | its mean | dryfit's | nearer than dryfit |", "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for name in names[1:]:
        both = [(abs(r["predicted"] / r["measured"] - 1), abs(ours[r["row"]]["predicted"] / r["measured"] - 1)) for r in by_name[name] if r["kind"] != "oom" and r["predicted"] is not None and ours[r["row"]]["predicted"] is not None]
        if both:
            theirs, mine = zip(*both, strict=True)
            lines.append(f"| {name} | {len(both)} | {percent(statistics.median(theirs))} | {percent(statistics.median(mine))} | {percent(statistics.mean(theirs))} | {percent(statistics.mean(mine))} | {sum(t < m for t, m in both)} of {len(both)} |")
    return "\n".join(lines)


def page(text):
    facts, rivals, rows = read(text)
    names = [r["name"] for r in rivals]
    by_name = {name: [r for r in rows if r["rival"] == name] for name in names}
    reasons = {}
    for r in rows:
        if r["predicted"] is None:
            reasons.setdefault(r["rival"], {}).setdefault(r["reason"], []).append(r["row"])
    why = "\n".join(f"- {name}: " + "; ".join(f"{reason} ({len(ids)})" for reason, ids in sorted(reasons.get(name, {}).items(), key=lambda item: -len(item[1]))) for name in names if name in reasons)
    settings = "\n".join(f"- **{r['name']}** ({', '.join(r['packages']) or 'this repository'}; {r['date']}): {r['figure']}. {r['settings']}." for r in rivals)
    return PAGE.format(facts=facts, known=table(names, by_name, known) + unasked(names, by_name, known), everything=table(names, by_name, lambda r: True) + unasked(names, by_name, lambda r: True), features=feature_table(names, by_name),
                       failed=failed_runs(names, by_name), same=same_rows(names, by_name), why=why, settings=settings)


UNASKED = ("time limit", "not asked yet")


def unasked(names, by_name, chosen):
    """A sentence on estimators that could have covered more, had they been given the time."""
    left = {name: sum(r["reason"].startswith(UNASKED) for r in by_name[name] if chosen(r) and r["kind"] != "oom") for name in names}
    said = [f"{name} ({count} rows)" for name, count in left.items() if count]
    return f"\n\nNot asked about all that they can express, for their time: {', '.join(said)}." if said else ""


def known(row):
    return row["known"] == "yes"


def known_table(text):
    """The block of README.md: the fully known rows."""
    facts, rivals, rows = read(text)
    names = [r["name"] for r in rivals]
    by_name = {name: [r for r in rows if r["rival"] == name] for name in names}
    return table(names, by_name, known) + unasked(names, by_name, known)


PAGE = """# Estimators on measured runs

Generated by `./benchmark/run.sh`, each estimator on the date beside it under Settings: the estimators found on PyPI that have a word for training, and dryfit {facts[dryfit]}, on every row of
`data/measured/nanochat.csv` and of LitGPT, PEFT and ms-swift in `data/measured/transformers.csv` (Megatron-LM's rows are not asked about yet). Each rival ran in an environment of its own (Python {facts[python]}; with torch: {facts[torch]}), on a machine
of {facts[cores]} slow cores that others used too, without a GPU. Every figure stands in `benchmark/results.tsv`.

A row that a rival cannot express is not covered; it is never an error. Error is predicted / measured - 1. A row is compared with the figure that the rival means by its kind
(allocated or reserved bytes); one that gives the memory of a process or a card is taken without the overhead that it names, where it names one. Time is of one estimate in a
process that has its libraries loaded; dryfit's is of a whole process.

## Runs whose configuration is fully known

{known}

"dryfit" is what a user types; "told the loop" also knows what no flag says: which of LitGPT's versions ran and in which phase the figure was read. The rows were known to
dryfit's authors, as public figures are; no constant is fitted to them (docs/accuracy.md says what each one showed). fitcheck-llm and canifinetune are calibrated on runs of their own.

## On the rows that both cover

Each against "dryfit" on the rows for which both give a figure, all rows:

{same}

## All measured runs

With those that leave something unknown (docs/accuracy.md says what), where nobody can be exact:

{everything}

## Runs that went out of memory

Called fitting: the figure for the process is no more than the card has.

{failed}

## Coverage of features

Measured rows with the feature for which there is a figure:

{features}

## Why rows are not covered

{why}

## Settings

Chosen in the rival's favour, as its adapter in `benchmark/rivals` says:

{settings}

## Left out

Packages that estimate inference alone: hf-mem 0.5.6, llm-mem 0.1.1, llm-mem-planner 0.2.2, vramcalc 0.1.2, cfit 0.1.0.post1. gpu-fit-llm 0.1.0: its wheel holds no module. DeepSpeed's
`estimate_zero2/3_model_states_mem_needs`: states under ZeRO alone, and no measured row ran under ZeRO. blink-gpu 0.2.0 and torch-preflight 0.5.0: not tried. Pages of the web
without a package. No npm package that estimates training was found.

## Again

    ./benchmark/run.sh                 all of it: some GB of packages, about an hour on two cores; half an hour at most for one estimator
    ./benchmark/run.sh fitcheck ftune  those anew; the lines of the others stay

Another rival: a file in `benchmark/rivals` with its pins, what its figure means, `settings(row)` and `estimate(settings)`, and its name in `RIVALS` of `benchmark/run.py`.
"""
