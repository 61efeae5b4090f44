"""Inductor's wrappers, played instead of run: a call allocates, renames and drops exactly the buffers that the wrapper's lines say, as fake tensors,
and returns fake results. Autograd, saved tensors and gradients around it are PyTorch's own. tools/oracle uses it too.
"""
from __future__ import annotations

import math
import re

import torch
from torch.utils._python_dispatch import _disable_current_modes

from dryfit.tracing import bodies, wrapper


WORDS = {"__builtins__": {}, "torch": torch, "device": torch.device, "inf": math.inf, "nan": math.nan, "math": math, "max": max, "min": min, "int": int}  # of a wrapper's arguments


def _sizes(layout):
    return [n if isinstance(n, int) else int(n) if n.is_number else n for n in layout]


def _call_outputs(lowering):
    """For each op that allocates its own results: (index, dtype, shape, stride) of every tensor it makes."""
    made = {}
    for buffer in lowering.buffers:
        if type(buffer).__name__ == "ExternKernelAlloc" and getattr(buffer.layout, "size", None) is not None:  # itself its result: a grouped product
            made[buffer.get_name()] = [(0, buffer.layout.dtype, buffer.layout.device.type, _sizes(buffer.layout.size), _sizes(buffer.layout.stride))]
        for output in getattr(buffer, "outputs", None) or []:
            layout = getattr(output, "layout", None)
            if type(output).__name__ != "MultiOutput" or layout is None:
                continue
            index = output.indices[-1][1] if output.indices else 0
            made.setdefault(buffer.get_name(), []).append((index, layout.dtype, layout.device.type, _sizes(layout.size), _sizes(layout.stride)))
    return made


def _tensor(held):
    """A buffer, or the one result of an op. No local name may keep a buffer alive: hence a function."""
    return held[0] if isinstance(held, dict) else held


def _worked_out(step, env):
    """What a step's code says of the buffers and numbers that it names."""
    named = {name: _tensor(env[name]) for name in step.names if name in env}
    return eval(step.code, {**WORDS, "reinterpret_tensor": _view}, named)


def _expression(size):
    return size.node.expr if isinstance(size, torch.SymInt) else size


def _known(size, symbols):
    """A size of torch's own (an int, a sympy expression or a SymInt) where symbols stand for numbers."""
    if isinstance(size, int):
        return size
    expression = _expression(size)
    return int(expression.xreplace({s: symbols[s.name] for s in expression.free_symbols}))


def _makers(steps):
    """For each buffer the kernel that writes it first; for the result of an op the op."""
    makers = {}
    for step in steps:
        for name in step.names if step.kind == "run" else [step.name] if step.kind == "call" else []:
            makers.setdefault(name, re.sub(r"^torch\.ops\.|^extern_kernels\.|\.default$|_\d+$", "", step.source))
    return makers


class Half:
    """One generated wrapper; `kind`: forward, backward or inference. Called as the compiled function would be: with a list that it empties.

    tracker.born(tensor, label, buffer's module) hears of every buffer, tracker.plays(half) of each call, tracker.ran(kernel, its first argument) of each kernel.
    """

    def __init__(self, graph, lowering, text, kind, fake_mode, tracker):
        self.text, self.kind, self.fake_mode, self.tracker = text, kind, fake_mode, tracker
        self.arguments, self.steps = wrapper.read(text)
        self.made = _call_outputs(lowering)
        self.makers, self.modules = _makers(self.steps), self._modules_of(lowering)
        output = next(n for n in graph.graph.nodes if n.op == "output")
        self.results = [n.meta["val"] if isinstance(n, torch.fx.Node) else None for n in output.args[0]]
        self._check_symbols()
        self.graphed, self.calls = False, 0  # whether it becomes a CUDA graph
        self._boxed_call = True

    def _check_symbols(self):
        """Sizes that the wrapper does not say are known from what it does say."""
        sizes = [n for outputs in self.made.values() for output in outputs for n in (*output[3], *output[4])]
        sizes += [n for like in self.results if isinstance(like, torch.Tensor) for n in (*like.size(), *like.stride(), like.storage_offset())]
        told = {s.name for s in self.steps if s.kind in ("alias", "number", "item")}
        for size in sizes:
            missing = [] if isinstance(size, int) else [s.name for s in _expression(size).free_symbols if s.name not in told]
            if missing:
                raise wrapper.UnknownLine(f"the size {missing[0]} is not told")

    def _modules_of(self, lowering):
        """For each buffer the module that the first op in it belongs to, as Dynamo names it."""
        found = {}
        for buffer in lowering.buffers:
            for node in sorted(getattr(buffer, "origins", None) or (), key=lambda n: n.name):
                stack = node.meta.get("fwd_nn_module_stack" if self.kind == "backward" else "nn_module_stack") or node.meta.get("nn_module_stack")
                if stack:
                    found.setdefault(buffer.get_name(), list(stack.values())[-1][0])
        return found

    def _empty(self, name, label, shape, stride, dtype, device="cuda"):
        tensor = torch.empty_strided(shape, stride, dtype=dtype, device=device)
        self.tracker.born(tensor, label, self.modules.get(name, ""))
        return tensor

    def _drop(self, env, name):
        """`del name`: whatever storages die of it are noted at once."""
        held = env.pop(name, None)
        tensors = list(held.values()) if isinstance(held, dict) else [held]
        addresses = [t.untyped_storage()._cdata for t in tensors if isinstance(t, torch.Tensor) and t.device.type == "cuda"]
        held = tensors = None
        for address in addresses:
            self.tracker.poll_one(address)

    def __call__(self, args):
        self.tracker.plays(self)
        with _disable_current_modes() as modes, self.fake_mode, torch.no_grad():
            self.modes = modes[::-1]
            if not self.graphed:
                return self._play(args)
            self.calls += 1
            with self.tracker.graph(self.calls):
                return self._play(args)

    def _play(self, args):
        self.tracker.poll()  # what died since the last op, such as what a checkpoint ran again and nobody names
        env = dict(zip(self.arguments, args, strict=True))
        args.clear()
        symbols = {}
        for step in self.steps:
            match step.kind:
                case "alloc":
                    shape, stride = ([wrapper.number(n, symbols) for n in sizes] for sizes in (step.shape, step.stride))
                    env[step.name] = self._empty(step.name, self.makers.get(step.name, step.name), shape, stride, getattr(torch, step.dtype), step.device)
                case "alias":
                    env[step.name] = _tensor(env[step.source]) if step.code is None else _worked_out(step, env)
                    if isinstance(env[step.name], int):
                        symbols[step.name] = env[step.name]
                case "number":
                    env[step.name] = symbols[step.name] = wrapper.number(step.code, symbols)
                case "free":
                    for name in step.names:
                        self._drop(env, name)
                case "run":
                    self.tracker.ran(step.source, env.get(step.names[0]) if step.names else None)
                    self._body(step, env)
                case "call":
                    env[step.name] = self._body(step, env) or {index: self._empty(step.name, f"{self.makers[step.name]} {index}", [_known(n, symbols) for n in shape], [_known(n, symbols) for n in stride], dtype, device)
                                      for index, dtype, device, shape, stride in self.made.get(step.name, [])}
                    if step.code is not None:
                        self.tracker.called(step.source, self.modules.get(step.name, ""), lambda: _worked_out(step, env))
                case "size":
                    env[step.name] = dict(enumerate(map(int, getattr(_tensor(env[step.source]), step.code)())))
                case "item":
                    env[step.name] = env[step.source][step.index]
                    if isinstance(env[step.name], int):
                        symbols[step.name] = env[step.name]
                case "return":
                    return self._results(env, step.names, symbols)
        raise wrapper.UnknownLine("the wrapper does not return")

    def _body(self, step, env):
        """The outputs of an operator whose code runs, by index; nothing of any other."""
        body = self.tracker.body(step.source) if step.code is not None else None
        if body is None:
            return None
        given, named = _worked_out(step, env)
        with bodies.under(self.modes), torch.no_grad():
            made = bodies.run(self.makers.get(step.name, step.source), body, given, named)
        return made is not NotImplemented and dict(enumerate(made if isinstance(made, (list, tuple)) else [made]))

    def _results(self, env, names, symbols):
        kept = [None if name is None else _tensor(env[name]) if isinstance(name, str) else wrapper.number(name, symbols) for name in names]
        env.clear()
        self.tracker.poll()
        return [_like(tensor, like, symbols) for tensor, like in zip(kept, self.results, strict=True)]


def _view(tensor, size, stride, offset=0):
    with torch._C._AutoDispatchBelowADInplaceOrView():
        return torch.as_strided(tensor, size, stride, offset)


def _like(tensor, like, symbols):
    """The result as the graph means it, on the buffer's storage; autograd knows of no view."""
    if not isinstance(like, torch.Tensor) or not isinstance(tensor, torch.Tensor):
        return tensor
    size, stride = ([_known(n, symbols) for n in sizes] for sizes in (like.size(), like.stride()))
    return _view(tensor, size, stride, _known(like.storage_offset(), symbols))
