"""torchtune's recipes for several GPUs, as one rank of them, on a process group that does not communicate."""
import functools
import types

import on_host
import torchtune_session

import torch
from torch.distributed import init_device_mesh
from torchtune import training
from torchtune.modules.peft import LoRALinear

from dryfit.tracing import group


class Run(torchtune_session.Run):
    def __init__(self, case):
        super().__init__(case)
        group.join(0, case.gpus)
        self.mesh = init_device_mesh("cuda", (case.gpus,), mesh_dim_names=("dp",))  # it looks at values

    def how_it_lies(self):
        return dict(fsdp_cpu_offload=self.case.host, reshard_after_forward=self.case.reshards, custom_sharded_layers=self.case.apart.split(",") if self.case.apart else None)

    def set_up(self, module):
        if self.case.host:
            on_host.let_data_move()
        module.init_process_group = lambda *_args: None
        module.init_device_mesh = lambda *_args, **_kwargs: {"dp": self.mesh}
        training.shard_model = functools.partial(training.shard_model, dp_mesh=self.mesh)
        LoRALinear.initialize_parameters = lambda _self: None  # DTensor's generator asks a GPU for its state
        torch.distributed.barrier = lambda *_args, **_kwargs: None
        recipe = super().set_up(module)
        recipe._checkpoint_client = types.SimpleNamespace(save_checkpoint=lambda **_kwargs: None)
        return recipe

    def mark_forward(self, recipe):
        recipe._model.register_forward_pre_hook(lambda *_: self.mark("forward"), prepend=True)

    def record(self):
        try:
            super().record()
        finally:
            torch.distributed.destroy_process_group()
