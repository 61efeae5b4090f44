"""nanochat of one commit, run under FakeTensorMode the way its own scripts/base_train.py runs it.

One commit per process: the package is called `nanochat` in all of them. Everything is nanochat's own code and PyTorch's; only kernels
do not run, and the data are empty tensors of the right shape. Segments are marked in the tracker.
"""
import ast
import contextlib
import functools
import gc
import importlib
import inspect
import os
import textwrap

import hopper  # noqa: F401  (before anything asks torch.cuda)

import torch
import torch.utils.checkpoint
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map

import attention3
import cases
import collectives
import sampler
import script_run
from compiled import Compiled
from dryfit.tracing.tracker import Tracker


class Run:
    """The state of one training process. `tracker` holds what was recorded."""

    def __init__(self, case):
        self.case = case
        self.fake_mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.tracker = Tracker()
        self.functions = []  # the optimizer's, compiled as they are met
        self._world()
        self.gpt = self._import()
        self.autocast = self._autocast()

    # -- what surrounds the model

    def _world(self):
        self.shelf = collectives.install(self.case.gpus) if self.case.gpus > 1 or self.case.torchrun else None

    def _import(self):
        """nanochat's modules, with torch.compile played and FlashAttention 3 standing in. The first import in the process decides."""
        if self.case.attention == "fa3":
            attention3.install()
        torch.compile = self._compile
        try:
            gpt = importlib.import_module("nanochat.gpt")
            if self.case.checkpoints and not hasattr(gpt, "_checkpoint"):
                self._with_checkpoints(gpt)
            for optional in ("nanochat.optim", "nanochat.muon", "nanochat.adamw"):
                with contextlib.suppress(ModuleNotFoundError):
                    importlib.import_module(optional)
        finally:
            torch.compile = hopper.REAL_COMPILE
        return gpt

    @staticmethod
    def _with_checkpoints(gpt):
        """GPT.forward anew, each turn of its loop over blocks a function in a checkpoint: what someone does who is out of memory. Around the block alone,
        lambdas outside, torch.compile would save no layer's input and compute the whole forward pass again at once."""
        tree = ast.parse(textwrap.dedent(inspect.getsource(gpt.GPT.forward)))
        function = tree.body[0]
        loop = next(n for n in function.body if isinstance(n, ast.For) and "transformer.h" in ast.unparse(n.iter))
        inside = [n for n in loop.body if not isinstance(n, ast.If)]  # a hidden state kept for later stays outside
        loop.body = ast.parse("def layer(x):\n    return x\nx = _checkpoint(layer, x)").body + [n for n in loop.body if isinstance(n, ast.If)]
        loop.body[0].body = inside + loop.body[0].body
        names = [n.id for n in ast.walk(loop.target) if isinstance(n, ast.Name)]
        loop.body[0].args.args += [ast.arg(n) for n in names]
        loop.body[0].args.defaults = [ast.Name(n, ast.Load()) for n in names]
        space = vars(gpt)
        space["_checkpoint"] = functools.partial(torch.utils.checkpoint.checkpoint, use_reentrant=False)
        exec(compile(ast.fix_missing_locations(tree), gpt.__file__, "exec"), space)
        gpt.GPT.forward = space.pop("forward")

    def _compile(self, function=None, **_options):
        """The decorator. Whole optimizer steps (E1's DistAdamW.step) stay eager: collectives with futures break the graph there."""
        if function is None:
            return self._compile
        if function.__name__ == "step" or not self.case.compile:
            return function
        compiled = Compiled(function, self.fake_mode, self.tracker)
        self.functions.append(compiled)

        @functools.wraps(function)
        def call(*args, **kwargs):
            if self.shelf and not compiled.knows(*args, **kwargs):
                self.shelf.wait()
            return compiled(*args, **kwargs)

        return call

    def _autocast(self):
        """bf16 autocast until nanochat deleted it (E5)."""
        if hasattr(self.gpt, "Linear") and "weight.to" in inspect.getsource(self.gpt.Linear):
            return contextlib.nullcontext
        return functools.partial(torch.amp.autocast, "cuda", dtype=torch.bfloat16)

    @contextlib.contextmanager
    def watched(self):
        with self.fake_mode, self.tracker:
            yield self.tracker

    # -- the model, as base_train builds it

    def build(self):
        case = self.case
        width, heads = self._width_and_heads()
        settings = dict(sequence_len=case.length, vocab_size=case.vocab, n_layer=case.depth, n_head=heads, n_kv_head=heads, n_embd=width)
        if "window_pattern" in inspect.signature(self.gpt.GPTConfig).parameters:
            settings["window_pattern"] = case.window
        self.settings = settings
        with torch.device("meta"):
            model = self.gpt.GPT(self.gpt.GPTConfig(**settings))
        model.to_empty(device="cuda")
        model.init_weights()
        if case.fp8:
            self._to_fp8(model)
        gc.collect()
        self.model = model
        self.compiled = Compiled(model, self.fake_mode, self.tracker, self.autocast) if case.compile else self._uncompiled(model)
        return model

    def _uncompiled(self, model):
        """What torch.compile returns where it is switched off, called as the script calls it."""
        def call(*args, **kwargs):
            with self.autocast():
                return model(*args, **kwargs)
        return call

    def _width_and_heads(self):
        """As base_train of this commit works them out: heads rounded up, heads that divide the width, or the width rounded up."""
        width, head_dim = self.case.depth * self.case.aspect, self.case.head_dim
        script = self._base_train()
        if "find_num_heads" in script:
            heads = cases.dividing_heads(width, head_dim)
        else:
            heads = max(1, -(-width // head_dim))
            width = heads * head_dim if "base_dim" in script else width
        return width, heads

    @staticmethod
    def _to_fp8(model):
        fp8 = importlib.import_module("nanochat.fp8")

        def wanted(module, _name):
            return (isinstance(module, torch.nn.Linear) and module.in_features % 16 == 0 and module.out_features % 16 == 0
                    and min(module.in_features, module.out_features) >= 128)

        fp8.convert_to_float8_training(model, config=fp8.Float8LinearConfig.from_recipe_name("tensorwise"), module_filter_fn=wanted)

    def optimizers(self):
        if hasattr(self.model, "setup_optimizer"):
            return [self.model.setup_optimizer()]
        return self.model.setup_optimizers()

    # -- data

    def loader(self):
        """Batches as nanochat's loader puts them on the GPU: views of one buffer since E4d, fresh tensors before."""
        batch, length = self.case.batch, self.case.length
        if "gpu_buffer" in self._loader_source():
            buffer = torch.empty(2 * batch * length, dtype=torch.long, device="cuda")
            inputs, targets = buffer[:batch * length].view(batch, length), buffer[batch * length:].view(batch, length)
            while True:
                yield inputs, targets
        while True:
            yield (torch.empty(batch, length, dtype=torch.int32, device="cuda"), torch.empty(batch, length, dtype=torch.int64, device="cuda"))

    def _loader_source(self):
        tree = os.path.dirname(self.gpt.__file__)
        with open(os.path.join(tree, "dataloader.py"), encoding="utf-8") as source:
            return source.read()

    def _base_train(self):
        tree = os.path.dirname(os.path.dirname(self.gpt.__file__))
        with open(os.path.join(tree, "scripts", "base_train.py"), encoding="utf-8") as source:
            return source.read()

    def clips_gradients(self):
        return "clip_grad_norm_" in self._base_train()

    def scaler(self):
        """fp16 has one (since E5)."""
        return torch.amp.GradScaler() if self.case.dtype == "fp16" else None

    def unscale(self, scaler, optimizer):
        """As base_train does it; whether a gradient is infinite, which GradScaler.step then reads from the GPU, has no answer here: none is."""
        scaler.unscale_(optimizer)
        if self.shelf:
            for found in scaler._found_inf_per_device(optimizer).values():
                torch.distributed.all_reduce(found, op=torch.distributed.ReduceOp.MAX)

    def prepare(self, *args, **kwargs):
        """Compiles before recording, so that nothing of tracing stands among the events."""
        if self.case.compile:
            self.compiled.prepare(*args, **kwargs)
        gc.collect()

    # -- what is recorded

    def compiled_step(self):
        """Forward and backward of one micro-step, without gradients from before."""
        with self.watched() as tracker:
            tracker.mark("load")
            self.build()
            x, y = next(self.loader())
            self.prepare(x, y)
            tracker.mark("forward")
            loss = self.compiled(x, y)
            tracker.mark("backward")
            loss.backward()
            tracker.mark("end")

    def optimizer_steps(self):
        """Load, then whole optimizer steps, as the training loop goes: two, and on several GPUs a third, which finds all that works of the one before hold."""
        with self.watched() as tracker:
            tracker.mark("load")
            model = self.build()
            optimizers = self.optimizers()
            scaler = self.scaler()
            batches = self.loader()
            x, y = next(batches)
            self.prepare(x, y)
            for step in ("first_step", *(["second_step"] if self.shelf else []), "train_step"):
                for micro in range(self.case.accumulation):
                    tracker.mark(f"{step} {micro + 1} forward")
                    loss = self.compiled(x, y)
                    train_loss = loss.detach()
                    loss = loss / self.case.accumulation
                    tracker.mark(f"{step} {micro + 1} backward")
                    (scaler.scale(loss) if scaler else loss).backward()
                    x, y = next(batches)
                if self.clips_gradients():
                    tracker.mark(f"{step} clip")
                    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                tracker.mark(f"{step} optimizer")
                if self.shelf:
                    self.shelf.wait()
                if scaler:
                    self.unscale(scaler, *optimizers)
                for optimizer in optimizers:
                    optimizer.step()
                if scaler:
                    scaler.update()
                tracker.mark(f"{step} zero_grad")
                model.zero_grad(set_to_none=True)
            tracker.mark("end")
            del train_loss

    def validation(self):
        """One batch of evaluate_bpb: the compiled model without gradients, loss of each token."""
        with self.watched() as tracker, torch.no_grad():
            tracker.mark("load")
            self.build()
            x, y = next(self.loader())
            self.prepare(x, y, loss_reduction="none")
            tracker.mark("validation")
            loss = self.compiled(x, y, loss_reduction="none")
            tracker.mark("end")
            del loss

    def evaluation(self):
        """CORE's forward_model on `batch` sequences of `length` tokens: eager, no gradients, logits handed out."""
        core_eval = importlib.import_module("nanochat.core_eval")
        with self.watched() as tracker:
            tracker.mark("load")
            model = self.build()
            ids = torch.empty(self.case.batch, self.case.length, dtype=torch.int64, device="cuda")
            tracker.mark("evaluation")
            with self.autocast():
                losses, predictions = core_eval.forward_model(model, ids)
                tracker.mark("results")
                del losses, predictions
            tracker.mark("end")

    def questions(self):
        """ChatCORE's multiple choice: two batches of `batch` questions of `length` tokens, with the model that is not compiled."""
        with self.watched() as tracker:
            tracker.mark("load")
            model = self.build()
            tracker.mark("questions")
            with torch.no_grad(), self.autocast():
                script_run.questions(model, self.case.vocab, self.case.batch, self.case.length)
            gc.collect()
            tracker.mark("end")

    def sampling(self):
        """Engine.generate_batch as base_train and chat_rl call it: a prompt of `length` tokens, `batch` samples of `tokens` new ones."""
        with self.watched() as tracker:
            tracker.mark("load")
            model = self.build()
            sampler.engine(model)
            tracker.mark("sampling")
            with self.autocast():
                sampler.generate(model, self.case.length, self.case.batch, self.case.tokens, temperature=1.0, top_k=50)
            gc.collect()
            tracker.mark("end")

    def resume(self):
        """A run that begins with a checkpoint: what base_train does between loading and its first batch."""
        with self.watched() as tracker:
            tracker.mark("before")
            stored = self._checkpoint()
            gc.collect()
            tracker.mark("load")
            model = self.build()
            tracker.mark("resume")
            model_data, *optimizer_data = [tree_map(self._read, part) for part in stored]
            model.load_state_dict(model_data, strict=True, assign=True)
            del model_data
            optimizers = self.optimizers()
            for optimizer, state in zip(optimizers, optimizer_data):
                optimizer.load_state_dict(state)
            del optimizer_data, state
            gc.collect()
            tracker.mark("end")

    def _checkpoint(self):
        """State dicts after one step, as shapes on the host: what lies on the disk."""
        model = self.build()
        optimizers = self.optimizers()
        for p in model.parameters():
            p.grad = torch.empty_like(p)
        for optimizer in optimizers:
            optimizer.step()
        on_disk = [tree_map(lambda t: t.to("meta") if isinstance(t, torch.Tensor) and t.device.type == "cuda" else t, s)
                   for s in (model.state_dict(), *[o.state_dict() for o in optimizers])]
        self.model = self.compiled = None
        return on_disk

    @staticmethod
    def _read(stored):
        """torch.load with map_location: each tensor is made on the GPU."""
        on_gpu = isinstance(stored, torch.Tensor) and stored.device.type == "meta"
        return torch.empty(stored.shape, dtype=stored.dtype, device="cuda") if on_gpu else stored

    def rl(self):
        """chat_rl: rollouts for a question, then two passes over rows of `length` tokens, not compiled; a fresh optimizer has nothing yet."""
        batch, length = self.case.batch, self.case.length
        with self.watched() as tracker:
            tracker.mark("load")
            model = self.build()
            sampler.engine(model)
            tracker.mark("rollout")
            with self.autocast():
                sampler.generate(model, length + 1 - self.case.tokens, batch, self.case.tokens, temperature=1.0, top_k=50)
            gc.collect()
            tracker.mark("rows")
            inputs = torch.empty(batch, length, dtype=torch.long, device="cuda")
            targets = torch.empty(batch, length, dtype=torch.long, device="cuda")
            advantages = torch.empty(batch, dtype=torch.float, device="cuda")
            for micro in range(2):
                tracker.mark(f"train_step {micro + 1} forward")
                with self.autocast():
                    logp = -model(inputs, targets, loss_reduction="none").view_as(inputs)
                objective = (logp * advantages.unsqueeze(-1)).sum()
                valid = (targets >= 0).sum().clamp(min=1)
                objective = objective / (valid * 4)
                loss = -objective
                tracker.mark(f"train_step {micro + 1} backward")
                loss.backward()
            tracker.mark("end")

    def eager(self):
        """base_train's loop where torch.compile does nothing: two micro-steps, the second of which finds gradients."""
        with self.watched() as tracker:
            tracker.mark("load")
            model = self.build()
            x, y = next(self.loader())
            for micro in range(2):
                tracker.mark(f"train_step {micro + 1} forward")
                with self.autocast():
                    loss = model(x, y)
                train_loss = loss.detach()
                loss = loss / 2
                tracker.mark(f"train_step {micro + 1} backward")
                loss.backward()
            tracker.mark("end")
            del train_loss

    def record(self):
        {"run": lambda: script_run.Script(self)(), "sampling": self.sampling, "resume": self.resume, "rl": self.rl, "eager": self.eager, "compiled": self.compiled_step, "step": self.optimizer_steps, "validation": self.validation, "evaluation": self.evaluation, "questions": self.questions}[self.case.kind]()
