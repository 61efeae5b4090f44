"""A transformers model under torch's FullyShardedDataParallel (FSDP1), as one rank of several: wrapped as accelerate does for Trainer, on a process
group that does not communicate. Stand-ins only where FSDP asks for addresses, which fake tensors have not.
"""
import contextlib
import functools
import os
import types

import hopper  # noqa: F401  (before anything asks torch.cuda)

os.environ["FSDP_SKIP_WRITEBACK_CHECK"] = "1"  # it compares addresses

import torch  # noqa: E402
import torch.distributed.fsdp as fsdp  # noqa: E402
import torch.distributed.fsdp._runtime_utils as runtime  # noqa: E402
from torch.distributed.algorithms._checkpoint import checkpoint_wrapper as checkpoints  # noqa: E402
from torch.distributed.fsdp import wrap  # noqa: E402

from accelerate.utils.operations import convert_outputs_to_fp32  # noqa: E402
from peft.utils.other import fsdp_auto_wrap_policy  # noqa: E402

import on_host  # noqa: E402
import transformers_session  # noqa: E402

torch.cuda.default_stream = torch.cuda.current_stream
torch.Tensor.record_stream = lambda *_args: None
torch.Tensor.pin_memory = lambda self, *_args: self


def _catch_all_reshard(state):
    """torch's, which asks by address whether the flat parameter is the shard already."""
    handle = state._handle
    if handle is None or (handle.is_sharded(handle.flat_param) and not handle._skipped_use_sharded_views):
        return
    runtime._reshard(state, handle, runtime._should_free_in_backward(state, handle))


runtime._catch_all_reshard = _catch_all_reshard


class Run(transformers_session.Run):
    def _words(self):
        """"prefetch=none,orig=false" as a dict; what is not given is accelerate's default."""
        pairs = (word.partition("=") for word in self.case.fsdp.split(",") if word)
        return {key: value or "true" for key, _, value in pairs}

    def _with_lora(self, model, cast=False):
        """Adapters in the model's own dtype, as LitGPT has them: one flat parameter takes no two. As Trainer has them ("peft") each is a unit of its own."""
        return super()._with_lora(model, self._units() == "peft")

    def _units(self):
        return self._words().get("wrap", "blocks")

    def _parallel(self, model):
        case, words = self.case, self._words()
        if self.offloads():
            on_host.let_data_move()
        self.tracker.adopt([*model.parameters(), *model.buffers()], "load")
        self.tracker.mark("parallel")
        layers = {type(m) for m in model.modules() if type(m).__name__ in model._no_split_modules}
        mixed = case.precision.endswith("autocast")
        if mixed:  # accelerate puts it around the model's forward, inside FSDP
            model.forward = types.MethodType(torch.amp.autocast("cuda", dtype=torch.bfloat16)(model.forward.__func__), model)
            if case.dpo:
                model.forward = types.MethodType(convert_outputs_to_fp32(model.forward.__func__), model)
        if words.get("checkpoint") == "outside":
            checkpoints.apply_activation_checkpointing(
                model, checkpoint_wrapper_fn=functools.partial(checkpoints.checkpoint_wrapper, checkpoint_impl=checkpoints.CheckpointImpl.NO_REENTRANT), check_fn=lambda m: type(m) in layers)
        model = fsdp.FullyShardedDataParallel(model, device_id=torch.device("cuda", 0), **self._arguments(model))
        if mixed:  # Accelerator.prepare_model: what trains is kept in fp32
            for module in fsdp.FullyShardedDataParallel.fsdp_modules(model):
                if module._has_params and module._flat_param.dtype != torch.float32 and module._flat_param.requires_grad:
                    module._flat_param.data = module._flat_param.data.to(torch.float32)
                    module._handle._orig_param_dtype = torch.float32
        return model

    def _arguments(self, model):
        """Of FullyShardedDataParallel, as accelerate's plugin has them."""
        case, words = self.case, self._words()
        layers = {type(m) for m in model.modules() if type(m).__name__ in model._no_split_modules}
        policy = functools.partial(wrap.transformer_auto_wrap_policy, transformer_layer_cls=layers)
        if self._units() == "peft":
            policy = fsdp_auto_wrap_policy(model)
        reduce = {"fp32": torch.float32, "bf16": torch.bfloat16}[words.get("reduce", "bf16")]
        # Trainer._fsdp_qlora_plugin_updates sets it to what 4-bit values are packed into, whatever was asked for
        precision = fsdp.MixedPrecision(param_dtype=torch.bfloat16, reduce_dtype=reduce, buffer_dtype=torch.bfloat16) if case.precision.endswith("autocast") or case.quantized else None
        prefetch = {"pre": fsdp.BackwardPrefetch.BACKWARD_PRE, "post": fsdp.BackwardPrefetch.BACKWARD_POST, "none": None}[words.get("prefetch", "pre")]
        return {
            "mixed_precision": precision, "backward_prefetch": prefetch, "limit_all_gathers": True,
            "sharding_strategy": fsdp.ShardingStrategy.FULL_SHARD if case.parallel == "fsdp1" else fsdp.ShardingStrategy.SHARD_GRAD_OP,
            "auto_wrap_policy": None if self._units() == "none" else policy, "forward_prefetch": words.get("forward_prefetch") == "true", "cpu_offload": fsdp.CPUOffload(self.offloads()),
            "use_orig_params": words.get("orig", "true") == "true"}

    def _accelerator(self):
        """What TRL's prepare_fsdp asks for the reference model."""
        plugin = types.SimpleNamespace(fsdp_version=1, reshard_after_forward=None, sync_module_states=False, param_init_fn=None, ignored_modules=None)

        def choose(model):
            arguments = self._arguments(model)
            plugin.mixed_precision_policy = arguments.pop("mixed_precision")
            vars(plugin).update(arguments)

        plugin.set_auto_wrap_policy = choose
        return types.SimpleNamespace(state=types.SimpleNamespace(fsdp_plugin=plugin), device=torch.device("cuda", 0))

    def autocast(self):
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def _accumulating(self, micro):
        with self.model.no_sync() if micro + 1 < self.case.accumulation and self._words().get("no_sync") != "false" else contextlib.nullcontext():
            yield

    def clip(self):
        self.model.clip_grad_norm_(1.0)
