"""The tracker of a whole script: what tracker.py follows, with the stream, the op, the module and the part of the run of each allocation.

Knows torch's modules, optimizers and autograd; nothing of scripts, files or GPUs.
"""
from __future__ import annotations

import contextlib
import threading
import weakref
from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils._pytree import tree_flatten, tree_map

from dryfit.tracing import bodies, inside
from dryfit.tracing.pretend import Stream
from dryfit.tracing.tracker import Event, Storage, Tracker, block

aten = torch.ops.aten
PRODUCTS = {aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.linear, aten.addmv, aten.mv, aten._scaled_mm, aten._addmm_activation, aten.dot}  # cuBLAS computes these
CONVOLUTIONS = {aten.convolution, aten.convolution_backward}
LT = {aten._scaled_mm, aten._addmm_activation}  # these cuBLASLt, and addmm with a bias; it keeps CUBLASLT_WORKSPACE_SIZE's default since torch 2.7
LT_WORKSPACE = 1 << 20 if inside.TORCH >= (2, 7) else 0
WRITES = {aten.add_, aten.sub_, aten.copy_, aten.addcdiv_, aten.mul_}  # by which scripts step without an optimizer
ALIKE = 2          # forward passes without gradients that run before others of the same shapes are taken as known
RECORDED = 2       # calls until a CUDA graph is recorded
POOL = 127         # the stream whose memory stands for the pool of CUDA graphs
MORE = 1 << 20     # bytes: alive beside one of them, more than beside the last, let it run again


def _plain(name):
    """A module's or parameter's name, without what torch.compile puts around it."""
    return name.replace("_orig_mod.", "").removesuffix("_orig_mod").rstrip(".")


def _plainly(named):
    return ((_plain(name), value) for name, value in named)


def _leaves(roots):
    """What autograd accumulates gradients into, behind these tensors: address of the storage -> tensor."""
    found, seen = {}, set()
    ahead = [node for root in roots if (node := root.grad_fn) is not None]
    while ahead:
        node = ahead.pop()
        if node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and leaf.device.type == "cuda":
            found[leaf.untyped_storage()._cdata] = leaf
        ahead += [following for following, _ in node.next_functions if following is not None]
    return found


@dataclass
class Kernel(Event):
    """Between births and deaths: a call of an operator that allocates inside, as `inside.said` has it, and its owner."""
    said: list


class Enough(BaseException):
    """As many optimizer steps as were asked for; leaves the script."""


class Recorder(Tracker):
    """Where a script stands: `phase` (load, first_step, train_step, validation), the part of it, the micro-step."""

    def __init__(self, steps, workspace):
        super().__init__()
        self.wanted, self.workspace = steps, workspace  # workspace: bytes that cuBLAS gets for each thread
        self.parameters = 0
        self.convolved = False               # cuDNN computed a convolution
        self._confirmed = set()              # allocations that parameters, buffers and gradients were found in
        self.steps = self.micro = self.last_micro = 0  # micro: backward passes of this step so far
        self.stepped = False                 # an optimizer stepped since the last forward
        self.training = False                # a forward for training was seen
        self.more = []                       # by storage: [stream, op, owner, category, whether it has its lasting name]
        self.skipped = 0
        self._stack, self._names, self._tops = [], {}, []
        self._owner_of = {}                  # autograd's number of a node -> module of the forward
        self._workspaces = {}                # of threads that have used cuBLAS, and cuBLASLt: their storages
        self._replayed = False               # what is made lies in a CUDA graph's memory already
        self._main = threading.get_ident()
        self._seen = {}                      # (module, shapes) without gradients -> times, outputs, bytes alive before
        self._by_hand = {}                   # what a backward pass gives gradients to, before an optimizer was seen: address of the storage -> tensor
        self._trained = {}                   # parameters that optimizers have: id -> elements
        self._now = None
        self._fused = None                   # owner of what an optimizer makes
        self.reset_at = 0                    # event from which max_memory_allocated counts, once a script resets it
        self.stage("load", "weights")

    # -- parts of the run

    def stage(self, phase, part, micro=0):
        if self._now == (phase, part, micro):
            return
        self._now = (phase, part, micro)
        self.mark(self._now)

    def _phase(self):
        return "first_step" if self.steps == 0 else "train_step"

    def _next_step(self):
        """What optimizers did since the last forward was one step."""
        if not self.stepped:
            return
        self.stepped, self.last_micro, self.micro, self._by_hand = False, self.micro, 0, {}
        self.steps += 1
        if self.steps >= self.wanted:
            self.poll()
            raise Enough

    def forward_begins(self, module):
        if torch.is_grad_enabled() and module.training:
            self.training_begins()
        elif not torch.is_grad_enabled():
            self.stage("validation", "forward")

    def training_begins(self):
        self._next_step()
        self.training = True
        self.stage(self._phase(), "forward", self.micro + 1)

    def backward_begins(self, roots=()):
        self._next_step()
        self.training = True
        if not self._trained:
            self._by_hand = _leaves(roots)
        self.name_parameters(self._by_hand.values())
        self.micro += 1
        self.stage(self._phase(), "backward", self.micro)

    def backward_ends(self):
        self.stage(self._phase(), "after backward", self.micro)

    def _written(self, tensor):
        """Where no optimizer is: a script that writes into its parameters after a backward pass steps by itself."""
        if self._now[1] == "after backward" and tensor.untyped_storage()._cdata in self._by_hand:
            self.name_parameters(self._by_hand.values())
            self.parameters = max(self.parameters, sum(p.numel() for p in self._by_hand.values()))
            self.stepped = True
            self.stage(self._phase(), "optimizer")

    def optimizer_begins(self, optimizer):
        self._by_hand = {}
        trained = [p for g in optimizer.param_groups for p in g["params"]]
        self.name_parameters(trained)
        self._trained.update({id(p): p.numel() for p in trained})
        self.parameters = max(self.parameters, sum(self._trained.values()))  # of modules that no call was seen of, within a compiled function
        self.training = True
        self.stage(self._phase(), "optimizer")

    def optimizer_ends(self, optimizer):
        names = self._parameter_names()
        for parameter, state in list(optimizer.state.items()):
            if not isinstance(state, dict):
                continue
            for key, value in state.items():
                if isinstance(value, torch.Tensor):
                    self._is(value, "optimizer", f"{names.get(id(parameter), '')}.{key}".lstrip("."))
        self.stepped = True
        self.stage(self._phase(), "after the optimizer")

    # -- modules

    def call(self, run, module, args, kwargs):
        """A module's call: `run` is torch's own."""
        if self._stack:
            self._stack.append(self._name(module))
            try:
                return run(module, *args, **kwargs)
            finally:
                self._stack.pop()
        self._name_all(module)
        backward = torch._C._current_autograd_node() is not None  # a checkpoint runs its block once more
        if not backward:
            self.forward_begins(module)
            known = self._known(module, args, kwargs)
            if known is not None:
                return known
        beside = self.live
        self._stack.append(self._name(module))
        try:
            result = run(module, *args, **kwargs)
        finally:
            self._stack.pop()
        if not backward:
            self._remember(module, args, kwargs, result, beside)
        return result

    def _key(self, module, args, kwargs):
        if torch.is_grad_enabled():
            return None
        leaves = tree_flatten((args, kwargs))[0]
        return (id(module), torch.is_autocast_enabled(), *[(tuple(a.shape), a.dtype, a.device.type) if isinstance(a, torch.Tensor) else type(a) if not isinstance(a, (int, bool, str)) else a for a in leaves])

    def _known(self, module, args, kwargs):
        """A forward pass without gradients that ran before with the same shapes, beside as much, allocates the same again: only its results are made."""
        key = self._key(module, args, kwargs)
        times, like, held = self._seen.get(key, (0, None, 0))
        if key is None or times < ALIKE or like is None or self.live > held + MORE:
            return None
        self.skipped += 1
        return tree_map(lambda made: made() if callable(made) else made, like)

    def _remember(self, module, args, kwargs, result, beside):
        """beside: bytes that were alive before it."""
        key = self._key(module, args, kwargs)
        if key is None:
            return
        leaves = tree_flatten(result)[0]
        plain = all(isinstance(x, (torch.Tensor, int, float, bool, str, type(None))) for x in leaves)

        def recipe(value):
            if not isinstance(value, torch.Tensor):
                return value
            shape, stride, dtype, device = tuple(value.shape), value.stride(), value.dtype, value.device
            return lambda: torch.empty_strided(shape, stride, dtype=dtype, device=device)
        self._seen[key] = (self._seen.get(key, (0, None, 0))[0] + 1, tree_map(recipe, result) if plain else None, beside)

    def _name_all(self, top):
        known = self._names.get(id(top))
        if known is not None and known[0]() is top:
            return
        self._tops.append(weakref.ref(top))
        for name, module in top.named_modules():
            self._names[id(module)] = (weakref.ref(module), _plain(name))

    def _name(self, module):
        known = self._names.get(id(module))
        if known is not None and known[0]() is module:
            return known[1]
        return f"{self._stack[-1]}.{type(module).__name__}" if self._stack and self._stack[-1] else type(module).__name__

    def _parameter_names(self):
        return {id(p): name for top in self._tops if top() is not None for name, p in _plainly(top().named_parameters(remove_duplicate=False))}

    def name_parameters(self, more=()):
        """What is alive and belongs to a parameter: itself, its gradient; buffers."""
        tops = [top() for top in self._tops if top() is not None]
        self.parameters = max(self.parameters, sum({id(p): p.numel() for top in tops for p in top.parameters()}.values()))  # a model may be gone when the script ends
        for top in tops:
            for name, parameter in _plainly(top.named_parameters()):
                self._is(parameter, "weights", name)
                if parameter.grad is not None:
                    self._is(parameter.grad, "gradients", f"{name}.grad")
            for name, buffer in _plainly(top.named_buffers()):
                self._is(buffer, "weights", name)
        for parameter in more:
            self._is(parameter, "weights", None)
            if parameter.grad is not None:
                self._is(parameter.grad, "gradients", None)

    def settle(self):
        """What was made while loading and never turned out to be a model's: the first batch."""
        for index, entry in enumerate(self.more):
            if entry[3] == "weights" and index not in self._confirmed:
                entry[3] = "workspace"

    def _is(self, tensor, category, name):
        tensor = getattr(tensor, "_local_tensor", tensor)
        if tensor.device.type != "cuda":
            return
        known = self._alive.get(tensor.untyped_storage()._cdata)
        if known is None or known[0].expired() or known[1] is None:
            return
        entry = self.more[known[1]]
        self._confirmed.add(known[1])
        if entry[4]:
            return
        entry[3] = category
        if name is not None:
            entry[1], entry[2], entry[4] = "", name, True

    # -- allocations

    def _owner(self, module=None):
        """module: within a compiled graph, as Dynamo names it: L['self'].blocks.0.mlp."""
        node = torch._C._current_autograd_node() if not self._stack else None
        outer = self._stack[-1] if self._stack else self._owner_of.get(node._sequence_nr(), "") if node is not None else ""
        inner = module.partition("].")[2].replace("_modules['", "").replace("']", "") if module else ""
        return f"{outer}.{inner}".strip(".")

    def _storage(self, storage, dtype, shape, size, label, module=None):
        if self._replayed or (inside.on_host(label, shape) and Stream.current != POOL):
            return self.ignore(storage)
        super()._storage(storage, dtype, shape, size, label, module)
        part = self._now[1]
        category = "workspace" if part in ("optimizer", "after backward", "after the optimizer") else "activations"
        if self._now[0] == "load" and self._stack == []:
            category = "weights"  # until settle()
        self.more.append([Stream.current, label.removesuffix(".default"), self._owner(module), category, False])

    def leave_to_itself(self, disable):
        """disable: torch._dynamo's, so that what is noted between the graphs of a compiled function is not compiled with it."""
        for name in ("backward_begins", "backward_ends", "forward_begins", "optimizer_begins", "optimizer_ends", "_known", "_name", "_name_all", "_remember"):
            setattr(self, name, disable(getattr(self, name)))
        Recorder.__torch_dispatch__ = disable(Recorder.__torch_dispatch__)

    def plays(self, half):
        """A graph that is not within a module's call, as where a function is compiled, begins a forward pass too."""
        if half.kind != "forward":
            return
        if self._stack:
            self._owner_of[torch.autograd._get_sequence_nr() - 1] = self._stack[-1]  # its node is made already
        elif torch._C._current_autograd_node() is None and self._now[1] != "optimizer":
            self.training_begins()

    @contextlib.contextmanager
    def within(self):
        """What a compiled graph calls that runs op by op is part of the module around it."""
        self._stack.append(self._stack[-1] if self._stack else "")
        try:
            yield
        finally:
            self._stack.pop()

    def ran(self, kernel, first):
        if kernel.startswith("extern_kernels."):
            self._multiply(getattr(aten, kernel.partition(".")[2], None), first)
            self.convolved |= kernel == "extern_kernels.convolution"

    @contextlib.contextmanager
    def graph(self, call):
        """torch runs a CUDA graph once before it records it, both in a pool of memory that graphs have for themselves and without the workspaces
        that cuBLAS had before; from the third call on it is replayed, and nothing is allocated."""
        outside, self._replayed = (Stream.current, self._replayed), call > RECORDED
        Stream.current = POOL
        if not self._replayed:
            self._return_workspaces()
        try:
            yield
        finally:
            if not self._replayed:
                self._return_workspaces()
            Stream.current, self._replayed = outside

    def _return_workspaces(self):
        for index in self._workspaces.values():
            self.live -= block(self.storages[index].bytes)
            self.events.append(Event(False, index, self.live))
        self._workspaces.clear()

    def body(self, operator):
        return bodies.named(operator)

    def _multiply(self, packet, first):
        """A product's workspace, the first time that a thread needs one. first: what it adds to, of addmm."""
        if packet in LT or (packet is aten.addmm and first.dim() == 1):
            self._take("cublaslt_workspace", LT_WORKSPACE)
        elif packet in PRODUCTS:
            self._take("cublas_workspace", self.workspace)

    def _take(self, name, size):
        thread = (name, threading.get_ident() == self._main)
        if thread in self._workspaces or size == 0 or self._replayed:
            return
        self._workspaces[thread] = len(self.storages)
        self.storages.append(Storage("uint8", (size,), size, name))
        self.more.append([Stream.current if Stream.current == POOL else 0, name, "", "workspace", True])
        self.live += block(size)
        self.peak = max(self.peak, self.live)
        self.events.append(Event(True, len(self.storages) - 1, self.live))

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if self._stack and torch.is_grad_enabled():
            self._owner_of[torch.autograd._get_sequence_nr() - 1] = self._stack[-1]
        packet = getattr(function, "overloadpacket", None)
        if packet in PRODUCTS and args[0].device.type == "cuda":
            self._multiply(packet, args[0])
        self.convolved |= packet in CONVOLUTIONS and args[0].device.type == "cuda"
        if self._by_hand and packet in WRITES and args[0].device.type == "cuda":
            self._written(args[0])
        body = bodies.of(function)
        if body is not None and any(isinstance(a, torch.Tensor) and a.device.type == "cuda" for a in tree_flatten((args, kwargs))[0]):
            with bodies.under([*_get_current_dispatch_mode_stack(), self]):
                made = bodies.run(str(function), body, args, kwargs or {})
            if made is not NotImplemented:
                return made
        result = super().__torch_dispatch__(function, types, args, kwargs)
        if packet in inside.KERNELS:
            self._inside(packet, args, kwargs)
        return result

    def called(self, operator, module, arguments):
        packet = inside.packet(operator)
        if packet is not None:
            self._inside(packet, *arguments(), module)

    def _inside(self, packet, args, kwargs, module=None):
        """A kernel has run, and let go what it allocated beside its results, which are there."""
        said = None if self._replayed else inside.said(packet, args, kwargs)
        if said is not None:
            self.events.append(Kernel(False, -1, self.live, [said[0], Stream.current, *said[1:], self._owner(module)]))
