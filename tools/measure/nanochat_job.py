"""nanochat's own scripts/base_train.py, whole and unmodified, on random text, measured. See job.py for how it is run.

The checkout's folder comes in NANOCHAT_DIR. Its data folder is made here: two files of text, a table of token lengths. Stood in for are the tokenizer,
the checkpoint's writing, the questions of the CORE evaluation (passes of chosen lengths instead), and packages that it imports and does not need here.
"""
import os
import pathlib
import random
import re
import runpy
import sys
import tempfile
import types

CHECKOUT = pathlib.Path(os.environ.get("NANOCHAT_DIR", ".")).resolve()
SCRIPT = CHECKOUT / "scripts" / "base_train.py"


def set_as_the_script_does():
    """The allocator's settings, which it writes before it imports torch: here torch is there first."""
    if SCRIPT.exists():
        os.environ.update(re.findall(r'^os\.environ\["(PYTORCH_\w+)"\] = "(.*)"', SCRIPT.read_text(encoding="utf-8"), re.MULTILINE))


set_as_the_script_does()

import torch  # noqa: E402

import job  # noqa: E402

EVALUATIONS = ((1, 256), (4, 512), (4, 1024), (4, 2048))  # sequences, tokens


class Tokenizer:
    """Four characters a token, tokens at random."""

    def __init__(self, vocab_size):
        self.vocab_size, self.random = vocab_size, random.Random(1)

    def get_vocab_size(self):
        return self.vocab_size

    def get_bos_token_id(self):
        return 0

    def encode_special(self, _text):
        return 1

    def encode(self, text, prepend=None, append=None, num_threads=None):
        if isinstance(text, list):
            return [self.encode(t, prepend, append) for t in text]
        tokens = [self.random.randrange(2, self.vocab_size) for _ in range(max(1, len(text) // 4))]
        return ([0] if prepend is not None else []) + tokens + ([0] if append is not None else [])

    __call__ = encode

    def decode(self, tokens):
        return " ".join(map(str, tokens))


def flags(configuration):
    """The script's arguments, with dashes; -1 switches off."""
    c = configuration
    out = {"depth": c.depth, "device-batch-size": c.device_batch_size, "max-seq-len": c.max_seq_len, "total-batch-size": c.total_batch_size(), "num-iterations": c.steps,
           "eval-every": 1000 if c.validate else -1, "eval-tokens": 2 * c.device_batch_size * c.max_seq_len * c.gpus, "core-metric-every": 1000 if c.evaluate else -1,
           "sample-every": 1000 if c.validate else -1, "window-pattern": c.window_pattern}
    return out | ({"fp8": True} if c.fp8 else {})


def arguments(configuration, script):
    """As the script of that version takes them: one with dashes, or the first one's, which has no windows and switches nothing off."""
    given = flags(configuration)
    if "argparse" not in script:
        del given["window-pattern"]
        given = {name.replace("-", "_"): 1000 if value == -1 else value for name, value in given.items()}
    elif "--device-batch-size" not in script:
        given = {name.replace("-", "_"): value for name, value in given.items()}
    return ["--" + name if value is True else f"--{name}={value}" for name, value in given.items()]


def make_data(folder, vocab_size):
    import pyarrow
    import pyarrow.parquet
    source = random.Random(2)
    for name in ("base_data", "base_data_climbmix"):
        (folder / name).mkdir()
        for shard in range(2):
            texts = ["x" * source.randrange(400, 16000) for _ in range(2000)]
            pyarrow.parquet.write_table(pyarrow.table({"text": texts}), folder / name / f"shard_{shard:05d}.parquet", row_group_size=500)
    (folder / "tokenizer").mkdir()
    torch.save(torch.full((vocab_size,), 4, dtype=torch.int32), folder / "tokenizer" / "token_bytes.pt")


def stand_in(configuration, meter):
    """What the script imports and this process has not, and where phases begin."""
    for name in ("wandb", "rustbpe"):
        sys.modules.setdefault(name, types.ModuleType(name))
    import nanochat.checkpoint_manager
    import nanochat.core_eval
    import nanochat.loss_eval
    import nanochat.tokenizer
    tokenizer = Tokenizer(configuration.vocab_size)
    nanochat.tokenizer.get_tokenizer = lambda: tokenizer
    nanochat.checkpoint_manager.save_checkpoint = lambda *_args, **_kwargs: None
    import scripts.base_eval

    def evaluate(model, *_args, **_kwargs):
        meter.next("")
        for rows, length in EVALUATIONS if configuration.evaluate else ():
            ids = torch.randint(0, configuration.vocab_size, (rows, length), device=meter.device)
            nanochat.core_eval.forward_model(model, ids)
            del ids
            meter.next(f"evaluation {rows} x {length}")
        return {"core_metric": 0.0, "centered_results": {}}

    for name in ("evaluate_core", "evaluate_model"):
        if hasattr(scripts.base_eval, name):
            setattr(scripts.base_eval, name, evaluate)

    real_bpb = nanochat.loss_eval.evaluate_bpb

    def evaluate_bpb(*args, **kwargs):
        meter.next("")
        found = real_bpb(*args, **kwargs)
        meter.next("validation")
        return found

    nanochat.loss_eval.evaluate_bpb = evaluate_bpb
    real_compile, real_zero = torch.compile, torch.nn.Module.zero_grad

    def compile_model(*args, **kwargs):
        if args and isinstance(args[0], torch.nn.Module):
            meter.next("load")
        return real_compile(*args, **kwargs)

    def zero_grad(model, *args, **kwargs):
        real_zero(model, *args, **kwargs)
        meter.step_ended()

    torch.compile, torch.nn.Module.zero_grad = compile_model, zero_grad


def run(configuration, meter):
    os.chdir(CHECKOUT)
    sys.path.insert(0, str(CHECKOUT))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NANOCHAT_BASE_DIR"] = folder
        make_data(pathlib.Path(folder), configuration.vocab_size)
        stand_in(configuration, meter)
        sys.argv = ["base_train", *arguments(configuration, SCRIPT.read_text(encoding="utf-8"))]
        meter.extra["script_arguments"] = sys.argv[1:]
        meter.begin()
        if meter.on_gpu:
            torch.empty(1, device="cuda")
        meter.stage("context")
        found = runpy.run_module("scripts.base_train", run_name="__main__")
        meter.next("end")
        meter.extra["alloc_conf"] = {name: value for name, value in os.environ.items() if name.startswith("PYTORCH_")}
        meter.extra["attention"] = "fa3" if found.get("using_fa3", found.get("HAS_FA3")) else "sdpa"


if __name__ == "__main__":
    sys.exit(job.main(run))
