"""Linear modules whose frozen weights are bitsandbytes' in nf4, scales too: its own modules, its own code that makes them of weights; its kernels do not run."""
import bitsandbytes
import bitsandbytes.functional
import torch
from bitsandbytes.functional import quantize_4bit


bitsandbytes.functional.create_dynamic_map = lambda *_args, **_rest: torch.empty(256)  # its values are made one by one
bitsandbytes.nn.modules.Params4bit = lambda data, requires_grad=False, **_rest: torch.nn.Parameter(data, requires_grad)  # fake tensors have no subclasses


def put_into(model, dtype):
    """As transformers does before it loads, and before there are adapters. dtype: what products are computed in, the weights' own."""
    for name, module in list(model.named_modules()):
        if not isinstance(module, torch.nn.Linear) or name == "lm_head":
            continue
        with torch.device("meta"):
            packed = bitsandbytes.nn.Linear4bit(module.in_features, module.out_features, module.bias is not None, compute_dtype=dtype, compress_statistics=True, quant_type="nf4")
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


def weights(model):
    """ids of the weights that come to the GPU in 4 bits."""
    return {id(module.weight) for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)}


def in_4_bits(weight):
    """As Params4bit comes to the GPU: whole, then quantized."""
    packed, state = quantize_4bit(weight.contiguous(), blocksize=64, compress_statistics=True, quant_type="nf4")
    out = torch.nn.Parameter(packed, requires_grad=False)
    out.quant_state = state
    return out
