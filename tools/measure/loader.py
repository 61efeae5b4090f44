#!/usr/bin/env python3
"""What nanochat's data loader costs the host, piece by piece, in nanoseconds: where the figures of src/workload/data_loader.cpp come from.

usage: loader.py --text DIR      times the pieces on this CPU and prints them as JSON
       loader.py --documents     plays the best-fit loader on documents' lengths alone and prints a row a length

Pieces are timed as nanochat's loaders have them (nanochat/dataloader.py by version), in the Python that runs this; nanochat's own is 3.10. Text: whatever *.txt, *.md and *.rst
lie under DIR, cut into documents; a tokenizer of nanochat's default size is trained on it. Needs torch, tiktoken, rustbpe and pyarrow.
"""

import argparse
import collections
import io
import json
import math
import pathlib
import random
import statistics
import sys
import time

BUFFER, BATCH = 1000, 128   # documents that best fit looks through at least; documents a call of the tokenizer
CHARACTERS = 4700           # a document's
VOCABULARY = 32768
# Tokens a document: FineWeb-Edu's sample-100BT has 100 B in 97.3 M, ClimbMix 400 B in 553 M (their dataset cards).
MEANS = {"fineweb_edu": 1030, "climbmix": 723}
BEYOND = 0.229              # of FineWeb-Edu's tokens lie beyond a document's 2049th (nanochat's dev/LOG.md, 2026-01-13)


def nanoseconds(work, per, least=2.0):
    """The least of many timings: what the work takes where nothing disturbs it."""
    best, end = math.inf, time.perf_counter() + least
    while time.perf_counter() < end:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return round(best / per * 1e9, 1)


def documents(folder, most=40_000_000):
    text = ""
    for path in sorted(pathlib.Path(folder).rglob("*")):
        if path.suffix in (".txt", ".md", ".rst") and path.is_file() and len(text) < most:
            text += path.read_text(errors="replace")
    cut = [text[i:i + CHARACTERS] for i in range(0, len(text) - CHARACTERS, CHARACTERS)]
    if len(cut) < BUFFER:
        sys.exit(f"loader.py: {folder} holds {len(text)} characters of text; at least {BUFFER * CHARACTERS} are needed")
    random.Random(1).shuffle(cut)
    return cut


def tokenizer_of(texts):
    import rustbpe
    import tiktoken
    words = r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"""  # nanochat's
    trained = rustbpe.Tokenizer()
    trained.train_from_iterator(iter(texts), VOCABULARY, pattern=words)
    ranks = {bytes(piece): rank for piece, rank in trained.get_mergeable_ranks()}
    return tiktoken.Encoding("loader", pat_str=words, mergeable_ranks=ranks, special_tokens={})


def text_pieces(texts):
    import pyarrow
    import pyarrow.parquet
    encoding, texts = tokenizer_of(texts), texts[:BUFFER]
    tokens = sum(len(t) for t in encoding.encode_ordinary_batch(texts, num_threads=1))
    out = {"characters_a_token": round(sum(map(len, texts)) / tokens, 2)}
    for threads in (1, 2, 4):
        out[f"encode_a_token_by_{threads}"] = nanoseconds(lambda n=threads: encoding.encode_ordinary_batch(texts, num_threads=n), tokens, 4)
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), file, compression="zstd", compression_level=3, use_dictionary=False)
    out["read_a_token"] = nanoseconds(lambda: pyarrow.parquet.ParquetFile(file).read_row_group(0).column("text").to_pylist(), tokens)
    return out


def loader_pieces():
    import torch
    rng = random.Random(1)
    some = [rng.randrange(VOCABULARY) for _ in range(65536)]
    scratch = torch.empty(len(some), dtype=torch.int64)
    rows = torch.empty((8, 2049), dtype=torch.long)
    docs = [[0] * rng.randrange(1, 4000) for _ in range(BUFFER + BATCH // 2)]

    def assign():
        queue = collections.deque(some)
        for i in range(len(some)):
            scratch[i] = queue.popleft()

    def pop():
        queue = collections.deque(some)
        torch.tensor([queue.popleft() for _ in range(len(some))], dtype=torch.int64)

    def look(remaining=0):
        best_idx, best_len = -1, 0
        for i, doc in enumerate(docs):
            doc_len = len(doc)
            if doc_len <= remaining and doc_len > best_len:
                best_idx, best_len = i, doc_len
        return best_idx

    def place():
        rows[3, 100:101] = torch.tensor([1], dtype=torch.long)

    return {
        "assign_a_token": nanoseconds(assign, len(some)),
        "pop_a_token": nanoseconds(pop, len(some)),
        "pack_a_token": nanoseconds(lambda: torch.tensor(some, dtype=torch.long), len(some)),
        "look_at_a_document": nanoseconds(look, len(docs)),
        "compare_a_document": nanoseconds(lambda: min(range(len(docs)), key=lambda i: len(docs[i])), len(docs)),
        "place_a_document": nanoseconds(place, 1),
    }


def spread_of(mean, beyond, limit=2049):
    """Sigma of the lognormal distribution of lengths of which this part of the tokens lies beyond a limit."""
    normal = statistics.NormalDist()
    low, high = 0.1, 3.0
    for _ in range(60):
        sigma = (low + high) / 2
        above = (math.log(mean) + sigma * sigma / 2 - math.log(limit)) / sigma
        part = normal.cdf(above) - limit / mean * normal.cdf(above - sigma)
        low, high = (sigma, high) if part < beyond else (low, sigma)
    return low


def best_fit(mean, sigma, length, rows=4000, before=4000):
    """Of a row: tokens made for it, documents put into it, and how often its last one is cut, once the buffer is as it stays."""
    rng, mu = random.Random(1), math.log(mean) - sigma * sigma / 2
    buffer, made, placed, cut = [], 0, 0, 0
    for row in range(before + rows):
        if row == before:
            made = placed = cut = 0
        left = length + 1
        while left > 0:
            while len(buffer) < BUFFER:
                lengths = [max(1, round(rng.lognormvariate(mu, sigma))) + 1 for _ in range(BATCH)]
                made += sum(lengths)
                buffer += lengths
            placed += 1
            fitting = max((l for l in buffer if l <= left), default=0)
            if fitting == 0:
                cut += 1
            buffer.remove(fitting or min(buffer))
            left -= fitting or left
    return made / rows, placed / rows, cut / rows


def greedy_waste(mean, sigma, length, rows=40000):
    """The part of the tokens that is cut off where each row takes documents as they come: dev/LOG.md measured 39.4 % at 2048."""
    rng, mu, made = random.Random(1), math.log(mean) - sigma * sigma / 2, 0
    for _ in range(rows):
        left = length + 1
        while left > 0:
            tokens = max(1, round(rng.lognormvariate(mu, sigma))) + 1
            made += tokens
            left -= tokens
    return 1 - rows * (length + 1) / made


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--text", metavar="DIR")
    what.add_argument("--documents", action="store_true")
    args = parser.parse_args()
    if args.text:
        print(json.dumps({"python": sys.version.split()[0], **loader_pieces(), **text_pieces(documents(args.text))}, indent=1))
        return
    sigma = spread_of(MEANS["fineweb_edu"], BEYOND)
    print(f"sigma {sigma:.3f}; cut off without a search at 2048: {greedy_waste(MEANS['fineweb_edu'], sigma, 2048):.3f}")
    for name, mean in MEANS.items():
        for length in (128, 256, 512, 1024, 2048, 4096, 8192, 16384):
            print(name, length, *(f"{x:.2f}" for x in best_fit(mean, sigma, length, rows=max(500, min(4000, 4000 * 2048 // length)))), flush=True)


if __name__ == "__main__":
    main()
