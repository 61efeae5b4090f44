"""Every shipped preset and every switch (tests/golden/models/variants.json), built by transformers' own classes on the meta device: names and shapes of its parameters, in order.

    python3 tools/models/check_counts.py            compare with tests/golden/models/parameters.tsv
    python3 tools/models/check_counts.py --update   write it: review the diff

tests/workload/presets_test.cpp compares parameters_of() with the same file. Needs tools/models/requirements.txt; downloads nothing.
"""
import difflib
import json
import pathlib
import re
import sys

import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2]
VARIANTS = ROOT / "tests" / "golden" / "models" / "variants.json"
GOLDEN = ROOT / "tests" / "golden" / "models" / "parameters.tsv"
LAYER = re.compile(r"^(.*?\.)(\d+)(\..*)$")


def build(config):
    """The class that the preset describes, without data: the one that it names, else decoders with their language-model head, encoders with the masked one."""
    values = dict(config)
    kind = values.pop("model_type")
    if kind == "gemma3":  # the text model of a file that also has a vision tower
        values = dict(values["text_config"])
        kind = values.pop("model_type")
    named = values.pop("architectures", None)
    made = transformers.AutoConfig.for_model(kind, **values)
    if named:
        with torch.device("meta"):
            return getattr(transformers, named[0])(made)
    auto = transformers.AutoModelForMaskedLM if "bert" in kind else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        return auto.from_config(made)


def folded(parameters):
    """(name, shape) in order; a run of equal layers becomes one, its number written {first-last}."""
    runs = []  # [before, first, last, [(after, shape)]]; before is None outside the layers
    for name, shape in parameters:
        match = LAYER.match(name)
        if match is None:
            runs.append([None, 0, 0, [(name, shape)]])
        elif runs and runs[-1][0] == match[1] and runs[-1][1] == int(match[2]):
            runs[-1][3].append((match[3], shape))
        else:
            runs.append([match[1], int(match[2]), int(match[2]), [(match[3], shape)]])
    merged = []
    for run in runs:
        if run[0] is not None and merged and merged[-1][0] == run[0] and merged[-1][2] + 1 == run[1] and merged[-1][3] == run[3]:
            merged[-1][2] = run[2]
        else:
            merged.append(run)
    for before, first, last, tensors in merged:
        for after, shape in tensors:
            yield (after if before is None else f"{before}{{{first}-{last}}}{after}", shape)


def lines():
    yield "model\tparameter\tshape\n"
    for path in [*sorted((ROOT / "data" / "models").glob("*.json")), VARIANTS]:
        for preset in json.loads(path.read_text()):
            parameters = [(name, "x".join(map(str, p.shape))) for name, p in build(preset["config"]).named_parameters()]
            for name, shape in folded(parameters):
                yield f"{preset['name']}\t{name}\t{shape}\n"
            print(preset["name"], file=sys.stderr, flush=True)


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    now = list(lines())
    if "--update" in sys.argv:
        GOLDEN.write_text("".join(now))
        sys.exit(0)
    difference = list(difflib.unified_diff(GOLDEN.read_text().splitlines(True), now, str(GOLDEN.relative_to(ROOT)), f"transformers {transformers.__version__}"))
    sys.stdout.writelines(difference)
    sys.exit(1 if difference else 0)
