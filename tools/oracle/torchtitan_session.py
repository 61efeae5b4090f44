"""A Llama under torchtitan's own Trainer.train_step and FakeTensorMode, for two optimizer steps: its model, parallelize_llama, loss and optimizers. Files
(tokenizer, data, logs) are not there; meshes are torch's, of a process group that does not communicate. Segments are marked in the tracker.
"""
import gc
import sys
import types

import hopper  # noqa: F401  (before anything asks torch.cuda)

import torch


def _know_later_torch():
    """What torchtitan 0.2.2 imports, of a torch later than this one and of TensorBoard, and no Llama with SDPA uses. Its attention wrappers compile at import."""
    sys.modules["torch.utils.tensorboard"] = types.SimpleNamespace(SummaryWriter=None)
    sys.modules["torchtitan.distributed.context_parallel"] = types.SimpleNamespace(prepare_context_parallel_input=None, apply_cp_to_attention_module=None)
    sys.modules["torchtitan.distributed.pipeline_parallel"] = types.SimpleNamespace(pipeline_llm=None)
    varlen = types.ModuleType("torch.nn.attention.varlen")
    varlen.varlen_attn = None
    sys.modules["torch.nn.attention.varlen"] = varlen
    library = torch.library.Library("torch_attn", "DEF")
    library.define("_varlen_attn(Tensor q) -> Tensor")
    torch._higher_order_ops.inductor_compiled_code = "inductor_compiled_code"
    torch._C._dynamo.eval_frame._set_lru_cache = lambda _on: None
    torch.compile = lambda function=None, **_options: function
    return library


_later = _know_later_torch()
import torchtitan.train  # noqa: E402
torch.compile = hopper.REAL_COMPILE

import torchtitan.distributed.utils as dist_utils  # noqa: E402
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torchtitan.components.loss import build_cross_entropy_loss  # noqa: E402
from torchtitan.components.optimizer import build_optimizers  # noqa: E402
from torchtitan.config import JobConfig, TORCH_DTYPE_MAP  # noqa: E402
from torchtitan.models.llama3 import parallelize_llama, Transformer, TransformerModelArgs  # noqa: E402
import torchtitan.models.llama3.infra.parallelize as parallelize  # noqa: E402
from torchtitan.tools.utils import set_default_dtype  # noqa: E402

from dryfit.tracing import group  # noqa: E402
import torchtitan_cases  # noqa: E402
from recipe_run import RecipeRun  # noqa: E402


class CompiledBlock(torch.nn.Module):
    """torch.compile's OptimizedModule."""

    def __init__(self, block, compiled):
        super().__init__()
        self._orig_mod, self.compiled = block, compiled

    def forward(self, *args, **kwargs):
        return self.compiled(*args, **kwargs)


class Run(RecipeRun):
    def __init__(self, case):
        super().__init__(case)
        self.mesh = None
        if case.gpus > 1:
            group.join(0, case.gpus)
            self.mesh = init_device_mesh("cuda", (case.gpus,), mesh_dim_names=("fsdp",))

    def config(self):
        case, job = self.case, JobConfig()
        job.training.local_batch_size, job.training.seq_len = case.batch, case.length
        job.training.dtype, job.training.mixed_precision_param = case.dtype, case.param
        job.parallelism.fsdp_reshard_after_forward = case.reshard
        checkpoint = job.activation_checkpoint
        checkpoint.mode = case.checkpoint if case.checkpoint in ("none", "full") else "selective"
        checkpoint.selective_ac_option, checkpoint.early_stop = case.checkpoint, case.early_stop
        job.compile.enable, job.compile.components = bool(case.compiled), case.compiled.split("+")
        job.optimizer.implementation = case.optimizer
        return job

    def dimensions(self):
        """What of ParallelDims a run of data parallelism alone asks."""
        several = self.case.gpus > 1
        answers = {name: False for name in ("tp_enabled", "pp_enabled", "cp_enabled", "ep_enabled", "dp_replicate_enabled")}
        answers |= {name: several for name in ("dp_enabled", "dp_cp_enabled", "dp_shard_enabled", "fsdp_enabled")}
        return types.SimpleNamespace(**answers, seq_len_divisor=1, tp=1, cp=1, get_mesh=lambda _names: self.mesh, get_optional_mesh=lambda _name: None)

    def batches(self):
        case = self.case
        while True:
            self.micro = 1
            self.mark("data")
            for _ in range(case.accumulation):
                yield {"input": torch.empty(case.batch, case.length, dtype=torch.int64)}, torch.empty(case.batch, case.length, dtype=torch.int64)

    def set_up(self):
        """The trainer, as its __init__ makes it."""
        case, job, dimensions = self.case, self.config(), self.dimensions()
        arguments = TransformerModelArgs(**torchtitan_cases.MODELS[case.model][0])
        arguments.update_from_config(job)
        with torch.device("meta"), set_default_dtype(TORCH_DTYPE_MAP[case.dtype]):
            model = Transformer(arguments)
        if "model" in case.compiled:
            parallelize.apply_compile = self.compile_blocks
        model = parallelize_llama(model, dimensions, job)
        model.to_empty(device="cuda")
        with torch.no_grad(), torch.device("cuda"):
            model.freqs_cis = model._precompute_freqs_cis()  # of init_weights; the rest writes in place
        model.train()
        trainer = torchtitan.train.Trainer.__new__(torchtitan.train.Trainer)
        trainer.job_config, trainer.parallel_dims, trainer.model_args, trainer.model_parts = job, dimensions, arguments, [model]
        trainer.device, trainer.gradient_accumulation_steps, trainer.step = torch.device("cuda", 0), case.accumulation, 0
        if "loss" in case.compiled:
            job.compile.enable = False
        trainer.loss_fn = build_cross_entropy_loss(job)
        if "loss" in case.compiled:
            trainer.loss_fn = self.compiled(trainer.loss_fn)
        trainer.optimizers = build_optimizers([model], job.optimizer, dimensions)
        trainer.lr_schedulers = types.SimpleNamespace(step=int, schedulers=[types.SimpleNamespace(get_last_lr=lambda: [0.0])])
        trainer.checkpointer = types.SimpleNamespace(maybe_wait_for_staging=int)
        trainer.metrics_processor = types.SimpleNamespace(should_log=lambda _step: False)
        trainer.train_context = dist_utils.get_train_context(False)
        trainer.maybe_enable_amp = dist_utils.maybe_enable_amp(dimensions, case.param, "cuda")
        return trainer

    def compile_blocks(self, model, _config):
        """apply_compile: each block, within its checkpoint's wrapper or not, as one graph; what FSDP does around it stays outside."""
        for name, block in model.layers.named_children():
            model.layers.register_module(name, CompiledBlock(block, self.compiled(block)))

    def mark_inside(self, trainer):
        step = trainer.forward_backward_step

        def forward_backward_step(**arguments):
            self.mark("forward")
            loss = step(**arguments)
            if self.micro < self.case.accumulation:
                self.micro += 1
                self.mark("data")
            return loss

        trainer.forward_backward_step = forward_backward_step
        trainer.optimizers.step = self.marked("optimizer", trainer.optimizers.step)

    def record(self):
        backward, item, clip = torch.Tensor.backward, torch.Tensor.item, dist_utils.clip_grad_norm_
        try:
            with self.fake_mode, self.tracker as tracker:
                torch.Tensor.item = lambda _self: 1.0
                torch.Tensor.backward = self.marked("backward", backward)
                dist_utils.clip_grad_norm_ = self.marked("clip", clip)
                tracker.mark("load")
                trainer = self.set_up()
                gc.collect()
                if self.case.gpus > 1:
                    tracker.mark("parallel")
                tracker.adopt([*trainer.model_parts[0].parameters(), *trainer.model_parts[0].buffers()], "load")
                self.mark_inside(trainer)
                batches = self.batches()
                for self.step in ("first_step", "train_step"):
                    trainer.train_step(batches)
                    self.mark("zero_grad")
                    trainer.optimizers.zero_grad()  # the next step's first line
                tracker.mark("end")
        finally:
            torch.Tensor.backward, torch.Tensor.item, dist_utils.clip_grad_norm_ = backward, item, clip
            if self.case.gpus > 1:
                torch.distributed.destroy_process_group()
