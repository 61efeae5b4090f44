"""Linear modules whose frozen weights are bitsandbytes' in nf4, scales too: its own modules, its own code that makes them of weights; its kernels do not run."""
import bitsandbytes
import bitsandbytes.functional
import torch
from bitsandbytes.functional import quantize_4bit


bitsandbytes.functional.create_dynamic_map = lambda *_args, **_rest: torch.empty(256)  # its values are made one by one
bitsandbytes.functional.QuantState.as_dict = lambda _self, packed=False: {}  # for a state_dict it is read, number by number


class _Fake(type):
    """In place of a class of tensors, as fake tensors have no subclasses: what it makes are parameters, and all are its own."""
    def __call__(cls, data, requires_grad=False, **_rest):
        return torch.nn.Parameter(data, requires_grad)

    def __instancecheck__(cls, instance):
        return isinstance(instance, torch.Tensor)


class _Params4bit(metaclass=_Fake):
    pass


bitsandbytes.nn.modules.Params4bit = _Params4bit


def put_into(model, dtype, storage=torch.uint8):
    """As transformers does before it loads, and before there are adapters. dtype: what products are computed in, the weights' own; storage: what 4-bit values
    are packed into, which a strategy that shares weights out takes for their dtype."""
    for name, module in list(model.named_modules()):
        if not isinstance(module, torch.nn.Linear) or name == "lm_head":
            continue
        with torch.device("meta"):
            packed = bitsandbytes.nn.Linear4bit(module.in_features, module.out_features, module.bias is not None, compute_dtype=dtype, compress_statistics=True, quant_type="nf4", quant_storage=storage)
        if module.bias is not None:
            packed.bias = module.bias
        packed.weight = torch.nn.Parameter(module.weight.data, requires_grad=False)
        packed.weight.compress_statistics, packed.weight.quant_type = True, "nf4"  # peft asks
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, packed)
    model.is_loaded_in_4bit = True
    for parameter in model.parameters():
        parameter.requires_grad = False
    return model


def raise_rest(model):
    """What is not in 4 bits becomes fp32."""
    packed = weights(model)
    for parameter in model.parameters():
        if id(parameter) not in packed:
            parameter.data = parameter.data.float()


def weights(model):
    """ids of the weights that come to the GPU in 4 bits."""
    return {id(module.weight) for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)}


def in_4_bits(weight, storage=torch.uint8, place="cuda"):
    """As Params4bit comes to the GPU: whole, then quantized. place: where what is packed waits; its scales stay."""
    packed, state = quantize_4bit(weight.contiguous(), blocksize=64, compress_statistics=True, quant_type="nf4", quant_storage=storage)
    out = torch.nn.Parameter(packed.to(place), requires_grad=False)
    out.quant_state = state
    return out


def keep_states(model):
    """What quantize_4bit says of each weight, at its module too: there it is looked for once the parameter is replaced."""
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.quant_state = module.weight.quant_state
