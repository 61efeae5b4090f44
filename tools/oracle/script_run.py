"""nanochat's mid_train, chat_sft and chat_rl as they are: the script of a commit is executed from its first line on, until it has made its steps.

Nothing of its order is told here. What the script asks from outside is answered (files, texts, a tokenizer, ranks), calls that mark where a part begins are
put between its statements, and what it asks the GPU for is some number, as fake tensors have none.
"""
import ast
import contextlib
import gc
import importlib
import os
import pathlib
import sys
import types

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_map

import sampler
from compiled import Compiled

PROMPT = 213  # tokens of chat_rl's longest question with what stands around it
VALIDATIONS = 3  # batches: that the second finds what the first left is to be seen


class _Enough(BaseException):
    """The script has made its steps."""


class CompiledModel(Compiled):
    """What torch.compile returns of a module: its attributes are the module's."""

    def __getattr__(self, name):
        return getattr(self.function, name)


class _Tokenizer(sampler._Tokenizer):
    def __init__(self, vocab, conversation, prompt=PROMPT):
        self.vocab, self.conversation, self.prompt = vocab, conversation, prompt

    def get_vocab_size(self):
        return self.vocab

    def encode(self, _text):
        return [sampler.SOME_TOKEN]

    def render_conversation(self, _conversation):
        half = self.conversation // 2
        return [sampler.SOME_TOKEN] * self.conversation, [0] * half + [1] * (self.conversation - half)

    def render_for_completion(self, _conversation):
        return [sampler.SOME_TOKEN] * self.prompt


class _Task:
    """Texts enough for every script; all are alike."""
    eval_type = "categorical"

    def __init__(self, *_args, **_kwargs):
        pass

    def __len__(self):
        return 1 << 20

    def __getitem__(self, _index):
        return {"letters": ["A", "B", "C", "D"]}

    def reward(self, *_args):
        return 0.0

    def evaluate(self, *_args):
        return 0


def _module(name, **members):
    module = types.ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module
    return module


def _statement(text):
    return ast.parse(text).body


class _Asked(ast.NodeTransformer):
    """torch.compile asks the recorder, and nothing is pinned: there is no driver to do it."""

    def visit_Call(self, call):
        self.generic_visit(call)
        call.keywords = [k for k in call.keywords if k.arg != "pin_memory"]
        if ast.unparse(call.func) == "torch.compile":
            call.func = ast.Name("_compile", ast.Load())
        return call


def _marked(tree):
    """The script with a call of _at before, and where a part ends after, what makes a part."""
    def of(statements):
        out = []
        for s in statements:
            text = ast.unparse(s)
            simple = not isinstance(s, (ast.For, ast.While, ast.If, ast.FunctionDef))
            before = after = ""
            if simple and "= load_model(" in text:
                before = "_at('load')"
            elif simple and "model(x, y)" in text:
                before = "_at('forward', model, x, y)"
            elif simple and "model(train_inputs, train_targets)" in text:
                before = "_at('forward')"
            elif simple and "model(inputs, targets, loss_reduction='none')" in text:
                before = "_at('forward')"
            elif simple and "val_targets = next(val_" in text:
                before = "_at('validation')"
            elif simple and "evaluate_bpb(" in text:
                before, after = "_at('validation', model, x, y)", "_at('between')"
            elif simple and "next(batch_iterator)" in text:
                before, after = "_at('rollout')", "_at('rows')"
            elif isinstance(s, ast.Expr) and ".backward()" in text:
                before = "_at('backward')"
            elif isinstance(s, ast.Expr) and "zero_grad(" in text:
                after = "_at('between')"
            elif isinstance(s, ast.For) and ast.unparse(s.iter) in ("range(grad_accum_steps)", "range(examples_per_rank)"):
                after = "_at('optimizer')"
            if not before and not isinstance(s, ast.FunctionDef):
                for body in ("body", "orelse"):
                    if getattr(s, body, None) and isinstance(getattr(s, body), list):
                        setattr(s, body, of(getattr(s, body)))
            out += [*_statement(before), s, *_statement(after)]
        return out
    tree.body = of(_Asked().visit(tree).body)
    return ast.fix_missing_locations(tree)


def surround(tokenizer):
    """The modules of a nanochat that read texts, with this tokenizer and texts that are all alike."""
    _module("nanochat.tokenizer", get_tokenizer=lambda: tokenizer, get_token_bytes=lambda device="cpu": torch.empty(tokenizer.vocab, dtype=torch.int32, device=device))
    _module("wandb")
    _module("tasks", __path__=[])
    for name in ("common", "arc", "customjson", "gsm8k", "humaneval", "mmlu", "smoltalk", "spellingbee"):
        _module(f"tasks.{name}", __getattr__=lambda _name: _Task)


def answer_numbers(holds=True):
    """Of a tensor without values a count is 1, every other number 0, and conditions hold, or do not. Where the sampler answers already, it does."""
    item, truth = torch.Tensor.item, torch.Tensor.__bool__
    if item.__name__ == "item":
        torch.Tensor.item = lambda t: int(t.dtype == torch.int64) if isinstance(t, FakeTensor) else item(t)
    torch.Tensor.__bool__ = lambda t: holds if isinstance(t, FakeTensor) else truth(t)


def questions(model, vocab, batch, prompt):
    """ChatCORE's multiple choice: chat_eval's own loop over two batches of questions that are all of `prompt` tokens."""
    tokenizer = _Tokenizer(vocab, prompt, prompt)
    surround(tokenizer)
    answer_numbers()
    chat_eval = importlib.import_module("scripts.chat_eval")
    item = torch.Tensor.__getitem__

    def by_tensors(tensor, index):
        """An index that is a list becomes a tensor where no mode sees it."""
        if isinstance(index, tuple):
            index = tuple(torch.empty(len(i), dtype=torch.int64, device=tensor.device) if isinstance(i, list) else i for i in index)
        return item(tensor, index)

    torch.Tensor.__getitem__ = by_tensors
    try:
        with contextlib.redirect_stdout(sys.stderr):
            chat_eval.run_categorical_eval(_Task(), tokenizer, model, batch, max_problems=2 * batch)
    finally:
        torch.Tensor.__getitem__ = item


class Script:
    """One run of a script. `run` is the session that holds the case, the tracker and the fake mode."""

    def __init__(self, run):
        self.run, self.case, self.tracker = run, run.case, run.tracker
        self.tree = pathlib.Path(run.gpt.__file__).parents[1]
        self.source = (self.tree / "scripts" / f"{self.case.script}.py").read_text(encoding="utf-8")
        self.rows = "collate_and_yield" in self.source
        self.steps, self.micro = 0, 0
        self.names = ["first_step", *(["second_step"] if run.shelf else []), "train_step"]

    # -- what the script finds around it

    def _flags(self):
        case = self.case
        flags = {"device_batch_size": case.batch, "eval_tokens": VALIDATIONS * case.batch * case.length * case.gpus, "eval_steps": VALIDATIONS,
                 "max_seq_len": case.length, "total_batch_size": case.batch * case.length * case.gpus * case.accumulation,
                 "target_examples_per_step": case.batch * case.gpus * case.accumulation, "examples_per_step": case.gpus,
                 "num_samples": case.batch * case.accumulation, "max_new_tokens": case.tokens, "eval_examples": 0}
        settings, written = self.source.split("config_keys = ")[0] if "config_keys = " in self.source else "", []
        for name, value in flags.items():
            dashed = name.replace("_", "-")
            if f'"--{dashed}"' in self.source:
                written.append(f"--{dashed}={value}")
            elif f'"--{name}"' in self.source or f"\n{name} = " in settings:
                written.append(f"--{name}={value}")
        return written

    def _surroundings(self):
        case = self.case
        conversation = case.length if self.rows else max(2, 2 * case.length // 3)
        tokenizer = _Tokenizer(case.vocab, conversation)
        surround(tokenizer)
        common = importlib.import_module("nanochat.common")
        common.compute_init = lambda *_args: (case.gpus > 1 or case.torchrun, 0, 0, case.gpus, torch.device("cuda"))
        common.get_base_dir = lambda: "."
        manager = importlib.import_module("nanochat.checkpoint_manager")
        phases = {"mid_train": "train", "chat_sft": "train", "chat_rl": "eval"}
        manager.load_checkpoint = lambda *_args, **_kwargs: (tree_map(self.run._read, self.stored[0]), None, {"model_config": dict(self.settings)})
        manager.load_model = lambda _source, device, **_rest: manager.build_model(".", 0, device, phases[case.script])
        manager.load_optimizer_state = lambda *_args, **_kwargs: tree_map(self.run._read, self.stored[1])
        importlib.import_module("nanochat.loss_eval")
        if case.script == "chat_rl":
            sampler.engine(None)
        answer_numbers(case.script == "chat_sft")  # there some targets are masked

    def _compile(self, model, **_options):
        return CompiledModel(model, self.run.fake_mode, self.tracker, self.run.autocast) if self.case.compile else model

    # -- where it stands

    def at(self, part, *batch):
        model = batch[0] if batch else None
        if part == "forward":
            self.micro += 1
            if isinstance(model, Compiled):
                model.prepare(*batch[1:])
        if part == "validation" and isinstance(model, Compiled):
            with torch.no_grad():
                model.prepare(*batch[1:], loss_reduction="none")
        del batch
        gc.collect()
        step = self.names[min(self.steps, len(self.names) - 1)]
        if part in ("forward", "backward"):
            self.tracker.mark(f"{step} {self.micro} {part}")
        elif part == "optimizer":
            self.tracker.mark(f"{step} optimizer")
            if self.run.shelf:
                self.run.shelf.wait()
        else:
            self.tracker.mark(part)
        if part == "between" and self.micro > 0:
            self.steps, self.micro = self.steps + 1, 0
            if self.steps == len(self.names):
                raise _Enough

    def __call__(self):
        code = compile(_marked(ast.parse(self.source)), f"scripts/{self.case.script}.py", "exec")
        with self.run.watched() as tracker:
            tracker.mark("before")
            self.stored, self.settings = self.run._checkpoint(), self.run.settings
            if self.run.shelf:
                self.run.shelf.clear()
            for function in self.run.functions:
                function.forget()
            gc.collect()
        self._surroundings()
        with self._in_tree(), self.run.watched() as tracker:
            space = {"__name__": "__main__", "_at": self.at, "_compile": self._compile}
            with contextlib.suppress(_Enough), contextlib.redirect_stdout(sys.stderr):
                exec(code, space)
            tracker.mark("end")

    @contextlib.contextmanager
    def _in_tree(self):
        before, arguments = os.getcwd(), sys.argv
        os.chdir(self.tree)
        sys.argv = [f"scripts/{self.case.script}.py", *self._flags()]
        try:
            yield
        finally:
            os.chdir(before)
            sys.argv = arguments
