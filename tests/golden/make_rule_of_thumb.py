"""Writes rule_of_thumb.tsv by running the seed document's own calculator. Usage: make_rule_of_thumb.py SEED.md > rule_of_thumb.tsv"""
import re
import sys

text = open(sys.argv[1]).read()
block = re.search(r"```python\n(def calculate_config.*?)\n# Examples", text, re.S).group(1)
space = {}
exec(block, space)  # the seed is the project's own document
for gpu in ["8", "16", "24", "40", "80", "1", "0", "2", "4.5", "6", "10", "12", "23.65", "24.0", "48", "79.2", "141", "192", "1e3", "-5", "0.1"]:
    for depth in [0, 1, 4, 8, 12, 16, 20, 24, 26, 32, 48, 100, -3]:
        for seq in [0, 256, 512, 1024, 2048, 8192]:
            value = int(gpu) if re.fullmatch(r"-?\d+", gpu) else float(gpu)
            try:
                row = space["calculate_config"](value, depth=depth, seq_len=seq)
                out = [str(row[k]) for k in ("gpu_memory", "depth", "model_params", "model_memory", "optimizer_memory", "available_for_activations", "recommended_batch_size", "safe_batch_size")]
            except Exception as error:  # what Python raises is part of the truth
                out = [f"{type(error).__name__}: {error}"]
            print("\t".join([gpu, str(depth), str(seq), *out]))
