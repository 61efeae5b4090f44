"""What torch does with the Python objects of parameters, where some are fake and some are not: conversions, `.data`, copies, subclasses of Parameter."""
from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensor, in_kernel_invocation_manager

from dryfit.tracing import known


def install():
    _swap_on_conversion()
    new = FakeTensor.__new__
    _make_anew(new)
    _make_subclasses(new)
    _give_data()
    torch.Tensor.__deepcopy__ = _deepcopy(torch.Tensor.__deepcopy__)


def _swap_on_conversion():
    """model.to("cuda") keeps a parameter's identity, ties, and what a script has noted on it; load_state_dict copies into what is there, as ever."""
    swap, load, swap_tensors = torch.__future__.set_swap_module_params_on_conversion, torch.nn.Module.load_state_dict, torch.utils.swap_tensors
    swap(True)

    def swap_all_but_notes(parameter, converted):
        if parameter is converted:
            return
        noted = {key: value for key, value in vars(parameter).items() if key not in vars(converted) and key != "_dryfit_value"}
        swap_tensors(parameter, converted)
        vars(parameter).update(noted)
    torch.utils.swap_tensors = swap_all_but_notes

    def load_state_dict(module, *args, **options):
        swap(False)
        try:
            return load(module, *args, **options)
        finally:
            swap(True)
    torch.nn.Module.load_state_dict = load_state_dict


def _make_anew(new):
    """type(parameter)(data, **vars(parameter)): models that are first made on torch's meta device, as transformers' from_pretrained makes them."""
    def anew(cls, first, *args, **options):
        return torch.nn.Parameter(first, requires_grad=options.get("requires_grad", True)) if isinstance(first, torch.Tensor) else new(cls, first, *args, **options)
    FakeTensor.__new__ = staticmethod(anew)


def _make_subclasses(new):
    """Tensor._make_subclass over a fake: a fake that is one of that class too (the 4-bit parameters of bitsandbytes)."""
    make, both = torch.Tensor._make_subclass, {}

    def both_of(cls):
        own = cls.__new__

        def without_fakes(made, *args, **options):  # cls(data, **vars(parameter))
            return own(made, *args, **{key: value for key, value in options.items() if key not in vars_of_fakes})
        cls.__new__ = staticmethod(without_fakes)
        return type(cls)(cls.__name__, (cls, FakeTensor), {"__module__": cls.__module__, "__qualname__": cls.__qualname__})

    def make_subclass(cls, data, require_grad=False, **options):
        if not isinstance(data, FakeTensor):
            return make(cls, data, require_grad, **options)
        with in_kernel_invocation_manager(data.fake_mode):
            bare = data.detach()
        if not issubclass(cls, FakeTensor):
            if cls not in both:
                both[cls] = both_of(cls)
            cls = both[cls]
        made = new(cls, data.fake_mode, bare, data.fake_device)
        vars_of_fakes.update(vars(made))
        return made.requires_grad_(require_grad) if require_grad else made
    vars_of_fakes = set()
    torch.Tensor._make_subclass = staticmethod(make_subclass)
    parameter = torch.nn.Parameter.__new__

    def parameter_of(cls, data=None, requires_grad=True):  # one that is a parameter already stays of its class
        return data.requires_grad_(requires_grad) if type(data) in both.values() else parameter(cls, data, requires_grad)
    torch.nn.Parameter.__new__ = staticmethod(parameter_of)


def _give_data():
    """parameter.data = ..., which on the GPU changes what a parameter is and where; a fake's device is a matter of its Python object."""
    data = torch.Tensor.data

    def give(tensor, what):
        if isinstance(what, FakeTensor) and not isinstance(tensor, FakeTensor):
            twin = what.detach()
            if isinstance(tensor, torch.nn.Parameter):
                twin = torch.nn.Parameter(twin, tensor.requires_grad) if type(tensor) is torch.nn.Parameter else torch.Tensor._make_subclass(type(tensor), twin, tensor.requires_grad)
            torch.utils.swap_tensors(tensor, twin)
            return
        data.__set__(tensor, what)
        if isinstance(tensor, FakeTensor) and isinstance(what, FakeTensor):
            tensor.fake_device = what.fake_device
    torch.Tensor.data = property(data.__get__, give)


def _deepcopy(own):
    """copy.deepcopy of tensors: a storage that several of them view is copied once, as torch does where tensors have data."""
    def deepcopy(tensor, memo):
        if id(tensor) in memo or not isinstance(tensor, FakeTensor) or not tensor.is_leaf:
            return own(tensor, memo)
        with torch.no_grad():
            storage = tensor.untyped_storage()
            if ("storage", storage._cdata) not in memo:
                memo["storage", storage._cdata] = torch.empty((storage.nbytes() // tensor.itemsize,), dtype=tensor.dtype, device=tensor.device)
            copied = memo["storage", storage._cdata].as_strided(tensor.size(), tensor.stride(), tensor.storage_offset()).detach()
        host = known.value(tensor)
        if host is not None:
            known.arrived(copied, host)
        copied.requires_grad = tensor.requires_grad
        if isinstance(tensor, torch.nn.Parameter):
            copied._is_param = True
        copied.grad = None if tensor.grad is None else deepcopy(tensor.grad, memo)
        memo[id(tensor)] = copied
        return copied
    return deepcopy
