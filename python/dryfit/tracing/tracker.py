"""Follows every storage on the (fake) GPU: when it is born, how large it is, when its last reference goes.

The truth about lifetimes is Python's and C++'s own reference counting, watched through weak references to storages. Needs torch;
knows nothing of models. tools/oracle's recordings are made with it, and python -m dryfit.capture's.
"""
import contextlib
from dataclasses import dataclass

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_flatten


def block(size):
    """What PyTorch's caching allocator counts for a request (c10/cuda/CUDACachingAllocator.cpp)."""
    return (size + 511) // 512 * 512


@dataclass
class Storage:
    dtype: str
    shape: tuple
    bytes: int
    label: str


@dataclass
class Event:
    birth: bool
    storage: int  # index into Tracker.storages
    live: int     # bytes alive afterwards, in blocks


class Tracker(TorchDispatchMode):
    """Active as a mode it sees every eager op; compiled functions report their buffers through `born` and `poll`."""

    def __init__(self):
        super().__init__()
        self.storages, self.events, self.marks = [], [], []
        self.live = self.peak = 0
        self._alive = {}  # address of the storage -> (weak reference, index)
        self._shrunk = {}  # the same of storages resized to nothing, with their dtype

    supports_higher_order_operators = True

    @classmethod
    def is_infra_mode(cls):
        """Dynamo leaves functions alone that run under modes it does not know; it may go on under this one."""
        return True

    def mark(self, name):
        """What follows belongs to the segment `name`."""
        self.poll()
        self.marks.append((name, len(self.events)))

    @contextlib.contextmanager
    def unseen(self):
        """Nothing is noted of what is born within and dies before its end."""
        self.poll()
        before, peak = len(self.events), self.peak
        yield
        self.poll()
        del self.events[before:]
        self.peak = peak

    def adopt(self, tensors, label):
        """Storages that exist already, such as parameters."""
        for tensor in tensors:
            self.born(tensor, label)

    def plays(self, half):
        """A compiled graph is about to run."""

    def ran(self, kernel, first):
        """A compiled graph has come to this kernel, whose first argument is this."""

    def graph(self, call):
        """The context of a CUDA graph's call, the first being 1."""
        return contextlib.nullcontext()

    def called(self, operator, module, arguments):
        """A compiled graph has called this operator of that module, and its results are there; arguments() gives the positional ones and the named."""

    def body(self, operator):
        """The code of an operator that a compiled graph calls, where it is to run; None: only its results are made."""
        return None

    def born(self, tensor, label, module=None):
        tensor = getattr(tensor, "_local_tensor", tensor)  # of a DTensor this rank's part
        if not isinstance(tensor, torch.Tensor) or tensor.device.type != "cuda":
            return
        if is_traceable_wrapper_subclass(tensor):  # torchao's NF4Tensor: it has what it wraps, and no memory of its own
            for name in tensor.__tensor_flatten__()[0]:
                self.born(getattr(tensor, name), label, module)
            return
        storage = tensor.untyped_storage()
        if storage.nbytes() == 0:
            return
        known = self._alive.get(storage._cdata)
        if known and not known[0].expired():
            return
        if known:
            self._dead(storage._cdata)
        self._storage(storage, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), storage.nbytes(), label, module)

    def _storage(self, storage, dtype, shape, size, label, module=None):
        self.storages.append(Storage(dtype, shape, size, label))
        self._alive[storage._cdata] = (StorageWeakRef(storage), len(self.storages) - 1)
        self.live += block(size)
        self.peak = max(self.peak, self.live)
        self.events.append(Event(True, len(self.storages) - 1, self.live))

    def ignore(self, storage):
        """It takes no memory of its own."""
        self._alive[storage._cdata] = (StorageWeakRef(storage), None)

    def _dead(self, address):
        _, index = self._alive.pop(address)
        if index is None:
            return
        self.live -= block(self.storages[index].bytes)
        self.events.append(Event(False, index, self.live))

    def poll(self):
        """Notes every storage that has died since."""
        expired = torch.UntypedStorage._expired
        for address in [a for a, (reference, _) in self._alive.items() if expired(reference.cdata)]:
            self._dead(address)

    def poll_one(self, address):
        known = self._alive.get(address)
        if known and known[0].expired():
            self._dead(address)

    def resized(self, storage, size):
        """A storage that keeps its identity and changes its size: what FSDP does to free and to bring back."""
        known = self._alive.get(storage._cdata)
        if known and known[1] is None:
            return
        if known and not known[0].expired() and self.storages[known[1]].bytes != size:
            kind = self.storages[known[1]].dtype
            self._dead(storage._cdata)
            self._shrunk[storage._cdata] = (StorageWeakRef(storage), kind)
        elif known:
            return
        before = self._shrunk.get(storage._cdata)
        if size > 0 and before and not before[0].expired():
            self._storage(storage, before[1], (size // getattr(torch, before[1]).itemsize,), size, "resize")

    def __enter__(self):
        resize, tracker = torch.UntypedStorage.resize_, self

        def resize_(storage, size):
            tracker.poll()
            result = resize(storage, size)
            tracker.resized(storage, size)
            return result

        self._resize, torch.UntypedStorage.resize_ = resize, resize_
        return super().__enter__()

    def __exit__(self, *error):
        torch.UntypedStorage.resize_ = self._resize
        return super().__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.poll()
        result = function(*args, **(kwargs or {}))
        for value in tree_flatten(result)[0]:
            self.born(value, str(function))
        return result

    def segments(self):
        """(name, events) in order."""
        self.poll()
        ends = [start for _, start in self.marks[1:]] + [len(self.events)]
        return [(name, self.events[start:end]) for (name, start), end in zip(self.marks, ends)]
