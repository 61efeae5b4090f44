"""Which tensors are fake: all on the GPU, and on the host what is too large to be worth having (a model's initial weights). The rest is real,
so that data loading, tokenizers and numpy run as ever.
"""
from __future__ import annotations

import threading

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from dryfit.tracing import known

aten = torch.ops.aten
LARGE = 1 << 16  # elements of a host tensor of floats from which on it is fake
MAKERS = {aten.empty, aten.empty_strided, aten.zeros, aten.ones, aten.full, aten.rand, aten.randn, aten.new_empty, aten.new_zeros, aten.new_ones, aten.new_full, aten.normal}
WIDENED = {aten.mm, aten.addmm, aten.bmm, aten.baddbmm}  # their overloads with an out_dtype, which torch has no fakes of
FINITE = {aten.all, aten.any, aten.logical_and, aten.bitwise_and, aten.mul, aten.view, aten.reshape, aten._to_copy, aten.clone, aten.unsqueeze, aten.squeeze}


def _large(args):
    shape = next((a for a in args if isinstance(a, (list, tuple, torch.Size)) and all(isinstance(n, int) for n in a)), None)
    if shape is None:
        return False
    count = 1
    for n in shape:
        count *= n
    return count >= LARGE


class GpuMode(TorchDispatchMode):
    """Sends every op to where it belongs: torch's FakeTensorMode, or the host. Values and sizes that a fake has not come from `answers`, what
    cuDNN's recurrent layers make from `recurrent`."""

    def __init__(self, fake_mode, answers, recurrent):
        super().__init__()
        self.fake_mode, self.answers, self.recurrent = fake_mode, answers, recurrent
        self._one_at_a_time = threading.RLock()  # torch's fakes are for one thread; scripts load in several

    @classmethod
    def is_infra_mode(cls):
        return True

    supports_higher_order_operators = True

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        with self._one_at_a_time:
            return self._dispatch(function, args, kwargs or {})

    def _dispatch(self, function, args, kwargs):
        if isinstance(function, torch._ops.HigherOrderOperator):
            with self.fake_mode:
                return function(*args, **kwargs)
        if kwargs.get("pin_memory"):
            kwargs = {**kwargs, "pin_memory": False}  # by the driver, which is not there
        packet = getattr(function, "overloadpacket", None)
        device = kwargs.get("device")
        fake = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, FakeTensor)]
        if not fake:
            if packet is aten._local_scalar_dense and hasattr(args[0], "_local_tensor"):  # of a DTensor
                return self.answers.item(args[0]._local_tensor)
            if device is not None and torch.device(device).type == "cuda":
                return self._onto_gpu(function, packet, args, kwargs)
            if packet in MAKERS and (kwargs.get("dtype") or torch.get_default_dtype()).is_floating_point and (device is None or torch.device(device).type == "cpu") and _large(args):
                with self.fake_mode:
                    return function(*args, **self._without_generator(kwargs))
            return function(*args, **kwargs)
        return self._faked(function, packet, args, kwargs, fake)

    @staticmethod
    def _widened(function, packet, args, kwargs):
        """A product of 16 bits whose result is made in another dtype; NotImplemented for any other."""
        if not function._overloadname.startswith("dtype"):
            return NotImplemented
        if kwargs.get("out") is not None:
            return kwargs["out"]
        given = 2 if packet in (aten.mm, aten.bmm) else 3
        return packet.default(*args[:given]).to(args[given])

    @staticmethod
    def _without_generator(kwargs):
        return {**kwargs, "generator": None} if kwargs.get("generator") is not None else kwargs

    def _onto_gpu(self, function, packet, args, kwargs):
        with self.fake_mode:
            if packet is aten._to_copy:  # not through a fake of the host tensor: parameters are swapped, which weak references forbid
                source = args[0]
                result = torch.empty_strided(source.shape, source.stride(), dtype=kwargs.get("dtype") or source.dtype, device=kwargs["device"])
                known.arrived(result, source)
                return result
            result = function(*args, **self._without_generator(kwargs))
        known.follow(function, packet, args, kwargs, result)
        return result

    def _faked(self, function, packet, args, kwargs, fake):
        if packet is aten._local_scalar_dense:
            return self.answers.item(fake[0])
        if packet is aten.equal:
            return self.answers.equal(*args)
        if packet is aten._to_copy and kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cpu" and fake[0].device.type == "cuda":
            host = self.answers.host(fake[0], kwargs.get("dtype"))
            if host is not None:
                return host
        if packet is aten.copy_ and not isinstance(args[0], FakeTensor):  # from the GPU into a real host tensor
            host = known.value(args[1])
            return args[0].copy_(host) if host is not None else args[0].fill_(self.answers.number(args[0].dtype))
        with self.fake_mode:
            result = self.answers.largest(function, args, kwargs)
            if result is NotImplemented:
                result = self._widened(function, packet, args, kwargs) if packet in WIDENED else self.recurrent.made(packet, args)
            if result is NotImplemented:
                result = function(*args, **self._without_generator(kwargs))
        known.follow(function, packet, args, kwargs, result)
        self.answers.drawn(packet, args, result)
        if isinstance(result, torch.Tensor) and result.dtype is torch.bool and packet in FINITE and any(self.answers.says_finite(t) for t in fake if t.dtype is torch.bool):
            self.answers.finite(result)
        if function._schema.is_mutable and args and isinstance(args[0], torch.Tensor) and not isinstance(args[0], FakeTensor) and isinstance(result, FakeTensor):
            return args[0]
        return result
