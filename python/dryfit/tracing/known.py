"""Values that a GPU tensor has because they came from the host or follow from such: token ids, padding masks, positions, counts. A script
that looks at them gets the truth; what depends on weights has no value.

Each known tensor carries a host tensor of its own; an op whose inputs are all known is done on the host as well.
"""
from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map

MOST = 1 << 20  # elements
aten = torch.ops.aten
NEW = {aten.arange, aten.zeros, aten.ones, aten.full, aten.scalar_tensor, aten.zeros_like, aten.ones_like, aten.full_like, aten.new_zeros, aten.new_ones, aten.new_full}  # their values do not depend on an input's
SETTLED_BY_ALL = {aten.bitwise_or, aten.logical_or, aten.__or__}         # all true, whatever the other is
SETTLED_BY_NONE = {aten.bitwise_and, aten.logical_and, aten.__and__, aten.mul}  # nothing, likewise (whole numbers and truths: 0 times NaN is NaN)
EMPTY = {aten.empty, aten.empty_strided, aten.empty_like, aten.new_empty, aten.new_empty_strided}


def value(tensor):
    """The host's copy of a known tensor, a host tensor itself, or None."""
    if not isinstance(tensor, FakeTensor):
        return tensor
    held = tensor.__dict__.get("_dryfit_value")
    return held[0] if held is not None and held[1][0] else None


def _attach(fake, real, valid):
    if isinstance(fake, FakeTensor) and isinstance(real, torch.Tensor) and fake.shape == real.shape:
        fake._dryfit_value = (real, valid)


def arrived(fake, host):
    """A copy of a host tensor: whole numbers and truths are kept, and single numbers."""
    if host.numel() > MOST or isinstance(host, FakeTensor) or (host.dim() > 0 and (host.dtype.is_floating_point or host.dtype.is_complex)):
        return
    with _disable_current_modes(), torch.no_grad():
        _attach(fake, host.detach().to(fake.dtype, copy=True), [True])


def _written(function, args, kwargs):
    for i, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[i] if i < len(args) else kwargs.get(argument.name)
            yield from (t for t in tree_flatten(given)[0] if isinstance(t, torch.Tensor))


def lose(tensor):
    """Something unknown was written into it."""
    held = getattr(tensor, "__dict__", {}).get("_dryfit_value")
    if held is not None:
        held[1][0] = False


def forget(function, args, kwargs):
    """An op wrote into tensors what is not known."""
    for tensor in _written(function, args, kwargs):
        lose(tensor)


def _on_host(x):
    if isinstance(x, torch.Tensor):
        host = value(x)
        return host if host is not None else torch.empty(x.shape, dtype=x.dtype)  # of which only the shape is read
    return torch.device("cpu") if isinstance(x, torch.device) else x


def _settled(packet, args, result):
    """Attaches a result that one known operand settles: a text is at its longest, whatever its last token is."""
    if packet not in SETTLED_BY_ALL and packet not in SETTLED_BY_NONE or not isinstance(result, FakeTensor) or result.numel() > MOST:
        return False
    for one in args[:2]:
        host = value(one) if isinstance(one, torch.Tensor) else None
        if host is None or host.numel() == 0 or result.dtype.is_floating_point or result.dtype.is_complex:
            continue
        with _disable_current_modes(), torch.no_grad():
            if packet in SETTLED_BY_ALL and host.dtype is torch.bool and bool(host.all()):
                _attach(result, torch.ones(result.shape, dtype=result.dtype), [True])
                return True
            if packet in SETTLED_BY_NONE and not bool(host.any()):
                _attach(result, torch.zeros(result.shape, dtype=result.dtype), [True])
                return True
    return False


def follow(function, packet, args, kwargs, result):
    """Does the op on the host too, where everything it reads is known."""
    if not function._schema.is_mutable and _settled(packet, args, result):
        return
    given = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
    made = [t for t in tree_flatten(result)[0] if isinstance(t, FakeTensor)]
    unknown = packet not in NEW and (not given or any(value(t) is None for t in given)) or packet in EMPTY or torch.Tag.nondeterministic_seeded in function.tags
    unknown = unknown or any(t.numel() > MOST for t in given)
    if unknown or not made or any(t.numel() > MOST or (t.dim() > 1 and not given) for t in made):
        if function._schema.is_mutable:
            forget(function, args, kwargs)
        return
    options = {k: v for k, v in kwargs.items() if k not in ("device", "pin_memory", "generator")}
    if packet is not None and "device" in kwargs:
        options["device"] = torch.device("cpu")
    try:
        with _disable_current_modes(), torch.no_grad():
            real = function(*tree_map(_on_host, args), **tree_map(_on_host, options))
    except Exception:  # not an op of the host
        return forget(function, args, kwargs) if function._schema.is_mutable else None
    holders = {t.untyped_storage()._cdata: t.__dict__["_dryfit_value"][1] for t in given if isinstance(t, FakeTensor) and "_dryfit_value" in t.__dict__}
    for fake, host in zip(tree_flatten(result)[0], tree_flatten(real)[0]):
        if isinstance(fake, FakeTensor):
            _attach(fake, host, holders.get(fake.untyped_storage()._cdata, [True]))
