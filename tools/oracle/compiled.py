"""torch.compile without a GPU: real Dynamo, AOTAutograd and Inductor up to the generated wrapper, which is then played instead of run (`played.py`).

`Compiled(function, mode, tracker)` stands for `torch.compile(function)`: compiled for a call's shapes before anything is recorded.
"""
import contextlib

import torch
import torch._inductor.compile_fx as compile_fx
from torch._dynamo import trace_rules
from torch._functorch._aot_autograd.utils import make_boxed_func
from torch._guards import TracingContext, tracing
from torch.utils._python_dispatch import _disable_current_modes

import hopper
from dryfit.tracing import inductor
from dryfit.tracing.compiler import OURS, as_traced, compile_without_modes
from dryfit.tracing.played import Half


class _Captured(BaseException):
    """Leaves Dynamo once it has handed over its graph."""


def _capture(function, args, kwargs, fullgraph):
    """Dynamo's graph of one call, and the tensors it takes as inputs. fullgraph: it must be all of the function."""
    taken = []

    def backend(graph, inputs):
        taken.append((graph, list(inputs)))
        raise _Captured

    torch._dynamo.reset()
    try:
        torch.compile(function, dynamic=False, backend=backend, fullgraph=fullgraph)(*args, **kwargs)
    except _Captured:
        pass
    return taken[0]


class Compiled:
    """A function or module as torch.compile would run it. `halves`: the wrappers made so far, in order."""

    def __init__(self, function, fake_mode, tracker, context=contextlib.nullcontext, fullgraph=False):
        self.function, self.fake_mode, self.tracker, self.context, self.fullgraph = function, fake_mode, tracker, context, fullgraph
        self.halves, self._cache = [], {}

    def _key(self, args, kwargs):
        def one(a):
            return (tuple(a.shape), a.stride(), a.dtype, a.device, a.requires_grad) if isinstance(a, torch.Tensor) else a
        return (torch.is_grad_enabled(), *map(one, args), *((k, one(v)) for k, v in sorted(kwargs.items())))

    def knows(self, *args, **kwargs):
        """Whether there is code for arguments of these shapes already."""
        return self._key(args, kwargs) in self._cache

    def forget(self):
        """As before its first call."""
        self._cache.clear()

    def prepare(self, *args, **kwargs):
        """Compiles for arguments of these shapes, unless that is done."""
        key = self._key(args, kwargs)
        if key not in self._cache:
            with _disable_current_modes():
                self._cache[key] = self._compile(args, kwargs)
        return self._cache[key]

    def __call__(self, *args, **kwargs):
        function, inputs, places = self.prepare(*args, **kwargs)
        given = [*args, *(v for _, v in sorted(kwargs.items()))]
        with self.context():
            result = function(*[given[place] if place is not None else kept for kept, place in zip(inputs, places)])
        if isinstance(result, (list, tuple)):
            return result[0] if len(result) == 1 else (tuple(result) if result else None)
        return result

    def _stand_in(self, value):
        """Compiling keeps its example inputs; the caller's own tensors must not live on in them."""
        if not isinstance(value, torch.Tensor):
            return value
        with self.fake_mode:
            return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device=value.device, requires_grad=value.requires_grad)

    def _compile(self, args, kwargs):
        args, kwargs = [self._stand_in(a) for a in args], {k: self._stand_in(v) for k, v in kwargs.items()}
        with self.context():
            graph, inputs = _capture(self.function, args, kwargs, self.fullgraph)
        given = [*args, *(v for _, v in sorted(kwargs.items()))]
        places = [next((i for i, g in enumerate(given) if g is tensor), None) for tensor in inputs]
        with self.context(), tracing(TracingContext(self.fake_mode)):
            function = compile_fx.compile_fx(graph, inputs, inner_compile=self._inner)
        # arguments are looked up at each call: keep only what the function holds itself (parameters, buffers)
        return function, [None if place is not None else tensor for tensor, place in zip(inputs, places)], places

    def _inner(self, graph, inputs, **options):
        if not any(node.op.startswith("call") for node in graph.graph.nodes):
            return make_boxed_func(graph.forward)  # it hands its inputs on; Inductor writes nothing for it
        lowering, text = inductor.take_wrapper(lambda: compile_fx.compile_fx_inner(graph, inputs, **options))
        half = Half(graph, lowering, text, "backward" if options.get("is_backward") else "forward", self.fake_mode, self.tracker)
        self.halves.append(half)
        return half


class Broken(Compiled):
    """A function that Dynamo takes in several graphs. What lies between them runs op by op, and is recorded."""

    _followed = False

    def __init__(self, function, fake_mode, tracker):
        super().__init__(function, fake_mode, tracker)
        if not Broken._followed:
            compile_without_modes()
            for name in ("compiled", "routed"):
                trace_rules.add(name)
            for name in OURS:
                trace_rules.add(f"dryfit.tracing.{name}")
            Broken._followed = True
        torch._dynamo.reset()
        self._run = hopper.REAL_COMPILE(function, backend=self._backend)

    def __call__(self, *args, **kwargs):
        return self._run(*args, **kwargs)

    def _backend(self, graph, inputs):
        return compile_fx.compile_fx(graph, as_traced(graph, inputs), inner_compile=self._inner_without_modes)

    def _inner_without_modes(self, graph, inputs, **options):
        with _disable_current_modes():
            return self._inner(graph, inputs, **options)
