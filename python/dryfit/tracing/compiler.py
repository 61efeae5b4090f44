"""torch.compile in a capture: the real Dynamo and AOTAutograd, Inductor up to its wrapper, which is played (played.py). What cannot be followed so
runs op by op, and `notes()` says why.
"""
from __future__ import annotations

import collections
import copy
import logging

import torch
from torch._guards import TracingContext
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes

from dryfit.tracing import bodies, known
from dryfit.tracing.values import caller

OURS = ("bodies", "compiler", "known", "mode", "played", "recorder", "tracker", "values")  # modules whose functions Dynamo leaves alone
TIMED = {"max_autotune": False, "max_autotune_gemm": False, "max_autotune_pointwise": False, "coordinate_descent_tuning": False, "cpp_wrapper": False}  # kernels chosen by timing them; other wrappers


class Compiler:
    """`played`: Inductor's graphs that were compiled and played; `loose`: those that ran op by op."""

    def __init__(self, gpu, fake_mode, tracker):
        self.gpu, self.fake_mode, self.tracker = gpu, fake_mode, tracker
        self.played = self.loose = 0
        self._real, self._ready, self._backends = torch.compile, None, {}
        self._reasons = collections.Counter()

    def install(self):
        torch.compile = self.compile

    def compile(self, model=None, *, fullgraph=False, dynamic=None, backend="inductor", mode=None, options=None, disable=False):
        """torch.compile."""
        if model is None:
            return lambda function: self.compile(function, fullgraph=fullgraph, dynamic=dynamic, backend=backend, mode=mode, options=options, disable=disable)
        if disable:
            return model
        if backend != "inductor":
            return self._op_by_op(model, f"backend={backend if isinstance(backend, str) else getattr(backend, '__name__', backend)!r}")
        if not self._prepare():
            return self._op_by_op(model, self._ready)
        config = dict(torch._TorchCompileInductorWrapper(mode, options, dynamic).config)  # refuses what torch refuses
        return self._real(model, fullgraph=fullgraph, dynamic=dynamic, backend=self._backends.setdefault(repr(sorted(config.items(), key=str)), Backend(self, config)))

    def _op_by_op(self, model, why):
        self.loose += 1
        self._reasons[f"torch.compile at {caller()} ran op by op: {why}"] += 1
        return model

    def _prepare(self):
        """Once: Inductor is made to believe in the GPU. Gives whether it does."""
        if self._ready is None:
            try:
                self._ready = self._hooks()
            except Exception as error:  # another torch, or one without Triton: what is replaced there is not there
                self._ready = f"torch {torch.__version__} has not what a capture replaces in Inductor ({type(error).__name__}: {str(error)[:100]})"
        return self._ready is True

    def _hooks(self):
        from dryfit.tracing import inductor
        from torch._dynamo import trace_rules
        from torch._dynamo.variables import nn_module
        inductor.answer(self.gpu)
        inductor.leave_products_unpadded()
        for name in OURS:
            trace_rules.add(f"dryfit.tracing.{name}")
        for function in (torch.tensor, torch.asarray, torch.as_tensor, torch.isfinite):
            torch._dynamo.allow_in_graph(function)
        torch._TorchCompileInductorWrapper, nn_module.unpatched_nn_module_call  # noqa: B018  (must be there)
        nn_module.unpatched_nn_module_call = torch.nn.Module.__call__  # modules' calls are watched; within a graph Dynamo goes on to their forward as ever
        torch._dynamo.eval_frame.skip_code(torch.nn.Module.__call__.__code__)
        self.tracker.leave_to_itself(torch._dynamo.disable)
        compile_without_modes()
        self._hear_dynamo()
        return True

    def _hear_dynamo(self):
        """Where Dynamo itself fails, over tensors without data, the function runs as it stands; an error of the script's own comes again then."""
        torch._dynamo.config.suppress_errors = True
        compiler = self

        class Heard(logging.Handler):
            def emit(self, record):
                if record.exc_info and record.exc_info[1] is not None and "WON'T CONVERT" in str(record.msg):
                    compiler.told(f"{str(record.msg).split()[2]}, which was to be compiled,", record.exc_info[1])
        logging.getLogger("torch._dynamo.convert_frame").addHandler(Heard(logging.WARNING))

    def told(self, what, error):
        self.loose += 1
        line = str(error).strip().splitlines()
        self._reasons[f"{what} ran op by op, as it could not be followed: {type(error).__name__}{': ' + line[0][:160] if line else ''}"] += 1

    def left_out(self, what):
        self._reasons.setdefault(what, 1)

    def how(self):
        """In a word: graphs, some of them loose; eager, all of them; none."""
        return "graphs" if self.played else "eager" if self.loose else "none"

    def notes(self):
        from dryfit.tracing import inductor
        found = [f"{what}{f' ({times} times)' if times > 1 else ''}" for what, times in self._reasons.most_common(20)]
        if inductor.untimed:
            sizes = ", ".join("x".join(map(str, one)) for one in sorted(inductor.untimed)[:4])
            found.append(f"products whose sizes are no multiples of what the GPU likes ({sizes}{', ...' if len(inductor.untimed) > 4 else ''}): Inductor times whether padding them pays; they were left as they are")
        return found


def compile_without_modes():
    """Dynamo leaves modes while it compiles, but for DistributedDataParallel's buckets. What it will compare a host tensor with when the function is called again is as it is under the modes."""
    from torch._dynamo.backends.distributed import DDPOptimizer
    from torch._dynamo.convert_frame import CatchErrorsWrapper
    from torch._dynamo.guards import CheckFunctionManager
    convert, split, guard, left = CatchErrorsWrapper.__call__, DDPOptimizer.compile_fn, CheckFunctionManager.__init__, []

    def without_modes(self, *frame):
        with _disable_current_modes() as modes:
            left.append(modes[::-1])
            try:
                return convert(self, *frame)
            finally:
                left.pop()

    def guarded(self, *args, **options):
        with bodies.under(left[-1] if left else []):
            guard(self, *args, **options)
    CatchErrorsWrapper.__call__ = without_modes
    CheckFunctionManager.__init__ = guarded
    DDPOptimizer.compile_fn = lambda self, graph, inputs: split(self, graph, as_traced(graph, inputs))


class Backend:
    """Inductor, for Dynamo. config: what torch.compile's mode and options say."""

    __name__ = "inductor"

    def __init__(self, compiler, config):
        self.compiler = compiler
        if any(config.get(key) for key in TIMED if key.startswith("max_autotune")):
            compiler.left_out("torch.compile chooses among kernels by timing them: its usual ones stood in")
        self.graphed = bool(config.get("triton.cudagraphs"))
        if self.graphed:
            compiler.left_out("CUDA graphs are recorded at their second call, in a pool of their own, and allocate nothing later: taken so of all that torch.compile was to make one")
        self.config = {key: value for key, value in config.items() if not key.startswith("triton.cudagraph")} | TIMED

    def __call__(self, graph, inputs):
        import torch._inductor.compile_fx as compile_fx
        spare = torch.fx.GraphModule(graph, copy.deepcopy(graph.graph))
        examples = as_traced(graph, inputs)
        if not any(_on_gpu(n.meta.get("example_value")) for n in graph.graph.nodes) and not any(map(_on_gpu, examples)):
            return spare.forward  # of the host: it runs
        try:
            return compile_fx.compile_fx(graph, examples, inner_compile=self._inner, config_patches={**self.config, "triton.cudagraphs": False})
        except Exception as error:
            self.compiler.told("a compiled function", error)
            return Loose(spare, "forward", self.compiler.tracker).unboxed

    def _inner(self, graph, inputs, **options):
        import torch._inductor.compile_fx as compile_fx
        from dryfit.tracing import inductor
        from dryfit.tracing.played import Half
        spare = torch.fx.GraphModule(graph, copy.deepcopy(graph.graph))
        kind = "backward" if options.get("is_backward") else "inference" if options.get("is_inference") else "forward"
        if not any(node.op.startswith("call") for node in graph.graph.nodes):
            return Loose(spare, kind, self.compiler.tracker)  # it hands its inputs on; Inductor writes nothing for it
        try:
            with _disable_current_modes():
                lowering, text = inductor.take_wrapper(lambda: compile_fx.compile_fx_inner(graph, inputs, **options))
                half = Half(graph, lowering, text, kind, self.compiler.fake_mode, self.compiler.tracker)
                half.graphed = self.graphed
        except Exception as error:
            self.compiler.told(f"the {'backward' if kind == 'backward' else 'forward'} of a compiled function", error)
            return Loose(spare, kind, self.compiler.tracker)
        self.compiler.played += 1
        return _forgetting(half, spare)


class Loose:
    """A graph that runs op by op; called as a half is."""

    def __init__(self, graph, kind, tracker):
        self.graph, self.kind, self.tracker = graph, kind, tracker
        self._boxed_call = True

    def __call__(self, args):
        given = list(args)
        args.clear()
        return self.unboxed(*given)

    def unboxed(self, *args):
        self.tracker.plays(self)
        with self.tracker.within():
            return self.graph.forward(*args)


def _on_gpu(value):
    values = value if isinstance(value, (list, tuple)) else [value]
    return any(isinstance(v, torch.Tensor) and v.device.type == "cuda" for v in values)


def as_traced(graph, inputs):
    """What Dynamo traced with in place of a graph's inputs: its own fake tensors, which know its symbols. Its new mode is for inputs that are real."""
    context = TracingContext.get()
    examples = [given if not isinstance(given, torch.Tensor) or getattr(given, "fake_mode", None) is context.fake_mode else node.meta.get("example_value", given)
                for node, given in zip((n for n in graph.graph.nodes if n.op == "placeholder"), inputs, strict=True)]
    context.fake_mode = next((e.fake_mode for e in examples if isinstance(e, FakeTensor)), context.fake_mode)
    return examples


def _forgetting(half, graph):
    """The half, after which values of what it writes into are no longer known."""
    places = {node: i for i, node in enumerate(n for n in graph.graph.nodes if n.op == "placeholder")}
    written = [places[n.args[0]] for n in graph.graph.nodes if n.target is torch.ops.aten.copy_.default and n.args[0] in places]
    if not written:
        return half

    def play(args):
        for i in written:
            known.lose(args[i])
        return half(args)
    play._boxed_call = True
    return play
