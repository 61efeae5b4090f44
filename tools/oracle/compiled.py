"""torch.compile without a GPU: real Dynamo, AOTAutograd and Inductor up to the generated wrapper, which is then played instead of run.

`Compiled(function, mode, tracker)` stands for `torch.compile(function)`. A call allocates, renames and drops exactly the buffers that the
wrapper's lines say, as fake tensors, and returns fake results; autograd, saved tensors and gradients are PyTorch's own.
"""
import contextlib

import torch
import torch._inductor.compile_fx as compile_fx
from torch._guards import TracingContext, tracing
from torch.utils._python_dispatch import _disable_current_modes

import hopper
import wrapper


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


def _call_outputs(lowering):
    """For each op that allocates its own results: (index, dtype, shape, stride) of every tensor it makes."""
    made = {}
    for buffer in lowering.buffers:
        for output in getattr(buffer, "outputs", None) or []:
            layout = getattr(output, "layout", None)
            if type(output).__name__ != "MultiOutput" or layout is None:
                continue
            index = output.indices[-1][1] if output.indices else 0
            shape, stride = ([int(n) for n in v] for v in (layout.size, layout.stride))
            made.setdefault(buffer.get_name(), []).append((index, layout.dtype, shape, stride))
    return made


def _tensor(held):
    """A buffer, or the one result of an op. No local name may keep a buffer alive: hence a function."""
    return held[0] if isinstance(held, dict) else held


class Half:
    """One generated wrapper: a forward, a backward or an inference graph. Called as the compiled function would be: with a list that it empties."""

    def __init__(self, graph, lowering, text, backward, fake_mode, tracker):
        self.text, self.backward, self.fake_mode, self.tracker = text, backward, fake_mode, tracker
        self.arguments, self.steps = wrapper.read(text)
        self.made = _call_outputs(lowering)
        output = next(n for n in graph.graph.nodes if n.op == "output")
        self.results = [n.meta["val"] if isinstance(n, torch.fx.Node) else None for n in output.args[0]]
        self._boxed_call = True

    def _empty(self, shape, stride, dtype, label):
        tensor = torch.empty_strided(shape, stride, dtype=dtype, device="cuda")
        self.tracker.born(tensor, label)
        return tensor

    def _drop(self, env, name):
        """`del name`: whatever storages die of it are noted at once."""
        held = env.pop(name, None)
        tensors = list(held.values()) if isinstance(held, dict) else [held]
        addresses = [t.untyped_storage()._cdata for t in tensors if t is not None and t.device.type == "cuda"]
        held = tensors = None
        for address in addresses:
            self.tracker.poll_one(address)

    def __call__(self, args):
        with _disable_current_modes(), self.fake_mode, torch.no_grad():
            return self._play(args)

    def _play(self, args):
        self.tracker.poll()  # what died since the last op, such as what a checkpoint ran again and nobody names
        env = dict(zip(self.arguments, args, strict=True))
        args.clear()
        for step in self.steps:
            match step.kind:
                case "alloc":
                    env[step.name] = self._empty(step.shape, step.stride, getattr(torch, step.dtype), step.name)
                case "alias":
                    env[step.name] = _tensor(env[step.source])
                case "free":
                    for name in step.names:
                        self._drop(env, name)
                case "call":
                    env[step.name] = {i: self._empty(shape, stride, dtype, f"{step.source} {i}")
                                      for i, dtype, shape, stride in self.made.get(step.name, [])}
                case "item":
                    env[step.name] = env[step.source][step.index]
                case "return":
                    return self._results(env, step.names)
        raise wrapper.UnknownLine("the wrapper does not return")

    def _results(self, env, names):
        kept = [None if name is None else env[name] for name in names]
        env.clear()
        self.tracker.poll()
        return [tensor if like is None or tensor is None else torch.as_strided(tensor, like.size(), like.stride(), like.storage_offset())
                for tensor, like in zip(kept, self.results, strict=True)]


class Compiled:
    """A function or module as torch.compile would run it. `halves`: the wrappers made so far, in order."""

    def __init__(self, function, fake_mode, tracker, context=contextlib.nullcontext, fullgraph=False):
        self.function, self.fake_mode, self.tracker, self.context, self.fullgraph = function, fake_mode, tracker, context, fullgraph
        self.halves, self._cache = [], {}

    def _key(self, args, kwargs):
        def one(a):
            return (tuple(a.shape), a.stride(), a.dtype, a.device, a.requires_grad) if isinstance(a, torch.Tensor) else a
        return (torch.is_grad_enabled(), *map(one, args), *((k, one(v)) for k, v in sorted(kwargs.items())))

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

    def _backend(self, graph, inputs):
        kept = [i if isinstance(i, torch.nn.Parameter) else self._stand_in(i) for i in inputs]
        with _disable_current_modes(), tracing(TracingContext(self.fake_mode)):
            return compile_fx.compile_fx(graph, kept, inner_compile=self._inner)

    def _inner(self, graph, inputs, **options):
        lowering, text = hopper.take_wrapper(lambda: compile_fx.compile_fx_inner(graph, inputs, **options))
        half = Half(graph, lowering, text, options.get("is_backward", False), self.fake_mode, self.tracker)
        self.halves.append(half)
        return half


class Broken(Compiled):
    """A function that Dynamo takes in several graphs: what lies between them runs as it stands, with nothing recorded of it."""

    def __init__(self, function, fake_mode, tracker):
        super().__init__(function, fake_mode, tracker)
        self._run = hopper.REAL_COMPILE(function, dynamic=False, backend=self._backend)

    def __call__(self, *args, **kwargs):
        with _disable_current_modes():
            return self._run(*args, **kwargs)
