"""bitsandbytes' optimizers as Trainer makes them: its own code and states; its kernels do not run, and managed memory is the host's."""
import bitsandbytes
import bitsandbytes.functional
import bitsandbytes.optim
import bitsandbytes.optim.optimizer
import torch

OF = {"adamw": bitsandbytes.optim.AdamW, "lion": bitsandbytes.optim.Lion, "rmsprop": bitsandbytes.optim.RMSprop, "ademamix": bitsandbytes.optim.AdEMAMix}


def _nothing(*_args, **_rest):
    pass


bitsandbytes.functional.create_dynamic_map = lambda *_args, **_rest: torch.empty(256)
bitsandbytes.functional.optimizer_update_32bit = bitsandbytes.functional.optimizer_update_8bit_blockwise = _nothing
bitsandbytes.functional.fill = bitsandbytes.optim.optimizer.sync_gpu = _nothing
bitsandbytes.functional.get_paged = lambda *shape, dtype, device: torch.empty(shape, dtype=dtype, device="cpu")


def of(model, word, groups):
    """word: of --optim, "paged_lion_8bit". Trainer.get_optimizer_cls_and_kwargs, and its create_optimizer after that."""
    paged = {} if "rmsprop" in word else {"is_paged": "paged" in word}
    made = next(kind for name, kind in OF.items() if name in word)(groups, lr=1e-4, optim_bits=8 if "8bit" in word else 32, **paged)
    if "8bit" in word:
        manager = bitsandbytes.optim.GlobalOptimManager.get_instance()
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding):
                manager.register_module_override(module, "weight", {"optim_bits": 32})
    return made
