#!/usr/bin/env python3
"""Records every case of transformers_cases.py that is not there yet, then writes the goldens. `record.sh --transformers` sets up what it needs.

`record_transformers.py --raw DIR --golden DIR [--only TEXT] [--draw SEED,COUNT,KIND]`: one process for all. A raw file per case lies in --raw, so an interrupted run goes on
where it stopped; delete a raw file to record it again.
"""
import argparse
import importlib.metadata
import pathlib
import subprocess
import sys
import time
import traceback

import draw_transformers
import pack
import transformers_cases as cases


def runner_of(case):
    if case.parallel.startswith("fsdp1"):
        import fsdp_session
        return fsdp_session.Run(case)
    if case.parallel.startswith("zero"):
        import deepspeed_session  # answers for values that fake tensors have not, from then on
        return deepspeed_session.Run(case)
    import transformers_session
    return transformers_session.Run(case)


def record(wanted, raw, runner, alone=()):
    """alone: arguments of a process of its own that records one of them."""
    import hopper  # noqa: F401  (before anything asks torch.cuda)
    import torch

    tensor = torch.Tensor
    taken = (torch.where, torch.equal, torch.addmm, tensor.nonzero, tensor.item, tensor.__bool__, tensor.__index__, tensor.__getitem__)  # some cases answer these themselves
    for case in wanted:
        began = time.monotonic()
        changes = any(getattr(case, field, False) for field in ("liger", "cut", "kernels", "quantized", "by_transformers", "padded", "dpo", "grpo", "pairs")) or getattr(case, "attention", "").startswith("flash_attention") or getattr(case, "optimizer", "").startswith("bnb_")
        if changes and len(wanted) > 1:  # transformers' modules for good: a process of its own
            subprocess.run([sys.executable, sys.argv[0], "--raw", raw, "--golden", raw, "--only", f"={case.name()}", *alone], check=not alone)
            continue
        torch.where, torch.equal, torch.addmm, tensor.nonzero, tensor.item, tensor.__bool__, tensor.__index__, tensor.__getitem__ = taken
        try:
            run = runner(case)
            run.record()
        except Exception:
            if not alone:
                raise
            print(f"not recorded: {case.name()}\n{traceback.format_exc()}", file=sys.stderr, flush=True)  # of many that are drawn
            continue
        text = pack.line(pack.pack(case, torch.__version__.split("+")[0], run.tracker))
        (raw / f"{case.name()}.part").write_text(text, encoding="utf-8")
        (raw / f"{case.name()}.part").rename(raw / f"{case.name()}.json")
        print(f"{case.name()}  {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def write_goldens(raw, golden, files):
    for file, listed in files.items():
        print(f"{golden / file}: {pack.write_golden(golden / file, listed, raw)} of {len(listed)} recordings", file=sys.stderr)


def main(description, files, runner, draw=None):
    """files: the cases of each golden. draw: so many cases of a seed and a kind instead, which go into --raw/../drawn.jsonl."""
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    for name in ("raw", "golden"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--only", default="", help="record only cases whose name contains this (=NAME: is this); goldens stay as they are")
    if draw:
        parser.add_argument("--draw", default="", help="SEED,COUNT,KIND: cases that are drawn instead, which go into --raw/../drawn.jsonl")
    arguments = parser.parse_args()
    arguments.raw.mkdir(parents=True, exist_ok=True)
    drawn = getattr(arguments, "draw", "")
    if drawn:
        seed, count, kind = drawn.split(",")
        files = {"drawn.jsonl": draw(int(seed), int(count), kind)}
    version = importlib.metadata.version("torch").split("+")[0]
    everything = [case for listed in files.values() for case in listed if getattr(case, "torch", "2.9.1") == version]
    whole = arguments.only.startswith("=")
    chosen = [c for c in everything if (arguments.only == f"={c.name()}" if whole else arguments.only in c.name())]
    record([c for c in chosen if not (arguments.raw / f"{c.name()}.json").exists()], arguments.raw, runner, ("--draw", drawn) if drawn else ())
    if drawn:
        there = [arguments.raw / f"{case.name()}.json" for case in everything]
        (arguments.raw.parent / "drawn.jsonl").write_text("".join(f.read_text(encoding="utf-8") + "\n" for f in there if f.exists()), encoding="utf-8")
    elif not arguments.only:
        write_goldens(arguments.raw, arguments.golden, files)


if __name__ == "__main__":
    main(__doc__, {"transformers.jsonl": list(cases.seen()), "transformers_unseen.jsonl": list(cases.unseen()), "transformers_padded.jsonl": list(cases.padded()), "transformers_padded_unseen.jsonl": list(cases.padded_unseen()), "transformers_heads.jsonl": list(cases.heads()), "transformers_heads_unseen.jsonl": list(cases.heads_unseen()), "transformers_parallel.jsonl": [*cases.parallel(), *cases.trl_parallel()],
                   "transformers_parallel_unseen.jsonl": list(cases.parallel_unseen()),
                   "transformers_fsdp1.jsonl": list(cases.fsdp1()), "transformers_fsdp1_unseen.jsonl": list(cases.fsdp1_unseen()), "transformers_zero.jsonl": list(cases.zero()), "transformers_zero_unseen.jsonl": list(cases.zero_unseen()),
                   "transformers_trl.jsonl": list(cases.trl()), "transformers_trl_unseen.jsonl": list(cases.trl_unseen()), "transformers_dpo.jsonl": list(cases.dpo()), "transformers_dpo_unseen.jsonl": list(cases.dpo_unseen()), "transformers_grpo.jsonl": list(cases.grpo()), "transformers_grpo_unseen.jsonl": list(cases.grpo_unseen()), "transformers_dpo_parallel.jsonl": list(cases.dpo_parallel()), "transformers_dpo_parallel_unseen.jsonl": list(cases.dpo_parallel_unseen()),
                   "transformers_reward.jsonl": list(cases.reward()), "transformers_reward_unseen.jsonl": list(cases.reward_unseen()), "transformers_reward_parallel.jsonl": list(cases.reward_parallel()), "transformers_reward_parallel_unseen.jsonl": list(cases.reward_parallel_unseen()), "transformers_kto_parallel.jsonl": [c for c in cases.pairs_parallel() if c.pairs == "kto"], "transformers_kto_parallel_unseen.jsonl": [c for c in cases.pairs_parallel_unseen() if c.pairs == "kto"], "transformers_kto.jsonl": list(cases.kto()), "transformers_kto_unseen.jsonl": list(cases.kto_unseen()), "transformers_pairs_unseen.jsonl": list(cases.pairs_unseen()),
                   "transformers_compiled.jsonl": list(cases.compiled()),
                   "transformers_shared_adapters.jsonl": list(cases.shared_adapters()), "transformers_shared_adapters_unseen.jsonl": list(cases.shared_adapters_unseen()),
                   "transformers_four_bit.jsonl": list(cases.four_bit()), "transformers_four_bit_unseen.jsonl": list(cases.four_bit_unseen()),
                   "transformers_axolotl.jsonl": list(cases.axolotl()), "transformers_axolotl_unseen.jsonl": list(cases.axolotl_unseen()),
                   "transformers_drawn.jsonl": list(draw_transformers.kept(draw_transformers.SEEN)), "transformers_drawn_unseen.jsonl": list(draw_transformers.kept(draw_transformers.UNSEEN)),
                   "transformers_compiled_unseen.jsonl": list(cases.compiled_unseen()), "transformers_torch_2_11.jsonl": list(cases.compiled_torch_2_11()),
                   "transformers_torch_2_11_unseen.jsonl": list(cases.compiled_torch_2_11_unseen()),
                   "transformers_evaluation.jsonl": list(cases.evaluations()), "transformers_evaluation_unseen.jsonl": list(cases.evaluations_unseen())}, runner_of, draw_transformers.draw)
