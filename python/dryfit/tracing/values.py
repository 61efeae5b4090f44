"""Answers for what only a real GPU knows: values of tensors, and the sizes that depend on them. Each stand-in is counted, with the place that asked.

Numbers are 1 (no division by nothing, a loss that prints), truths are False (nothing is NaN, nothing overflowed) except what asks whether all is
finite; sizes are as large as they can be.
"""
from __future__ import annotations

import collections
import pathlib
import sys

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import _disable_current_modes

from dryfit.tracing import known

LIBRARIES = (str(pathlib.Path(torch.__file__).parent), str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).resolve().parent))
MOST_ELEMENTS = 1 << 24  # copied to the host as real numbers; more stays fake there too
TOKEN = 7      # of the first ten no tokenizer's end of a text, which are 0 to 2 where they are small
WORDS = 1000   # more than a router has experts
aten = torch.ops.aten
DRAWS = {aten.multinomial, aten.argmax}


def _hits(mask):
    """How many elements of a mask are true: all, where that is not known."""
    host = known.value(mask)
    if host is None:
        return mask.numel()
    with _disable_current_modes():
        return int(host.count_nonzero())


def caller():
    """file:line of the nearest frame outside torch and this package."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(LIBRARIES) and not name.startswith("<"):
            path = pathlib.Path(name)
            return f"{path.parent.name + '/' if 'site-packages' in name else ''}{path.name}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


class Answers:
    """What was answered, by place and kind."""

    def __init__(self):
        self.given = collections.Counter()
        self.quiet = 0        # inside torch's own checks, where the answer is known: nothing overflows
        self._finite = {}     # storages that say "all is finite": address -> weak reference

    def told(self, what):
        self.given[(caller(), what)] += 1

    def notes(self):
        def one(place, what, count):
            return f"{place}: {what}" + (f" ({count} times)" if count > 1 else "")
        return [one(place, what, count) for (place, what), count in self.given.most_common(20)]

    def number(self, dtype, truth=False):
        if dtype is torch.bool:
            return truth
        if self.quiet:
            return 0.0 if dtype.is_floating_point else 0
        return complex(1) if dtype.is_complex else 1.0 if dtype.is_floating_point else 1

    def finite(self, tensor):
        storage = tensor.untyped_storage()
        self._finite[storage._cdata] = StorageWeakRef(storage)
        return tensor

    def says_finite(self, tensor):
        known = self._finite.get(tensor.untyped_storage()._cdata)
        return known is not None and not known.expired()

    def item(self, tensor):
        host = known.value(tensor)
        if host is not None:
            return host.item()
        value = self.number(tensor.dtype, self.says_finite(tensor))
        if not self.quiet:
            self.told(f"a value was read from the GPU; {value} stood in")
        return value

    def host(self, tensor, dtype=None):
        """A copy on the host: stand-ins of the same shape, real while they are few."""
        dtype = dtype or tensor.dtype
        host = known.value(tensor)
        if host is not None:
            return host.to(dtype, copy=True)
        if tensor.numel() > MOST_ELEMENTS:
            return None
        value = self.number(dtype, self.says_finite(tensor))
        if not self.quiet:
            self.told(f"values were copied from the GPU; {value} stood in")
        with _disable_current_modes():  # which would make a large one fake
            return torch.full(tuple(tensor.shape), value, dtype=dtype)

    def equal(self, one, other):
        hosts = known.value(one), known.value(other)
        if None not in hosts:
            return torch.equal(*hosts)
        self.told("two tensors were compared by their values; they were taken to differ")
        return False

    def drawn(self, packet, args, result):
        """Tokens that a model writes, by chance or the likeliest: each is TOKEN, so that a text goes on until it is as long as it may be, and what is counted of it agrees."""
        if packet not in DRAWS or args[0].dim() == 0:
            return
        wide = args[0].shape[-1]
        if packet is aten.multinomial or (wide >= WORDS and result.numel() <= known.MOST and args[0].dtype.is_floating_point and not torch.is_grad_enabled()):
            token = min(TOKEN, wide - 1)
            self.told(f"tokens were drawn; {token} stood in")
            with _disable_current_modes():
                known.arrived(result, torch.full(tuple(result.shape), token, dtype=torch.int64))

    # -- results whose shape is a value: everything is hit

    def largest(self, function, args, kwargs):
        """The result of an op whose size depends on values, as large as it can be; NotImplemented for any other op."""
        packet = getattr(function, "overloadpacket", None)
        if packet is aten.nonzero:
            source, = args
            rows = _hits(source)
            result = source.new_empty((rows, source.dim()), dtype=torch.int64)
        elif packet is aten.masked_select:
            source, mask = args
            result = source.new_empty((torch.broadcast_shapes(source.shape, mask.shape).numel() if source.shape != mask.shape else _hits(mask),))
        elif packet in (aten._unique2, aten.unique_dim, aten.unique_consecutive):
            source, host = args[0], known.value(args[0])
            count = source.numel() if packet is not aten.unique_dim else source.shape[args[1]]
            if host is not None:
                with _disable_current_modes():
                    count = function(host, *args[1:], **kwargs)[0].shape[0 if packet is not aten.unique_dim else args[1]]
            values = source.new_empty((count,)) if packet is not aten.unique_dim else torch.empty_like(source)
            result = (values, source.new_empty(source.shape, dtype=torch.int64), source.new_empty((count,), dtype=torch.int64))
        elif packet in (aten.index, aten.index_put, aten.index_put_) and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
            indices = []
            for index in args[1]:
                if index is None or index.dtype not in (torch.bool, torch.uint8):
                    indices.append(index)
                else:
                    indices += [index.new_empty((_hits(index),), dtype=torch.int64) for _ in range(index.dim())]
            if packet is not aten.index and args[2].dim() == 1 and args[2].numel() not in (1, *(i.numel() for i in indices if i is not None)):
                args = (args[0], args[1], args[2].new_empty(()), *args[3:])  # as many as the mask has hits, which are not known
            result = function(args[0], indices, *args[2:], **kwargs)
        elif packet is aten.repeat_interleave and not isinstance(args[0], int) and (len(args) < 2 or args[1] is None) and kwargs.get("output_size") is None:
            source, host = args[0], known.value(args[0])
            if host is None:
                self.told("how often elements are repeated depends on values; once was taken")
                return source.new_empty((source.numel(),), dtype=torch.int64)
            with _disable_current_modes():
                rows = int(host.sum())
            result = source.new_empty((rows,), dtype=torch.int64)
        else:
            return NotImplemented
        looked_at = [i for i in args[1] if i is not None] if packet in (aten.index, aten.index_put, aten.index_put_) else args[:1]
        if any(known.value(t) is None for t in looked_at):
            self.told(f"the size of a result ({packet}) depends on values; it is counted as large as it can be")
        return result
