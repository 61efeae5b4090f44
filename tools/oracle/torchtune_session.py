"""A model under torchtune's own recipe and FakeTensorMode, for two optimizer steps. The recipe's file, its model, loop, loss and optimizer are
torchtune's; files (weights, data, logs) are not there. Segments are marked in the tracker.
"""
import contextlib
import gc
import importlib.util
import pathlib
import types

import hopper  # noqa: F401  (before anything asks torch.cuda)

import torch
import torchtune
from omegaconf import OmegaConf
from torchtune import config, training
from torchtune.modules import TransformerSelfAttentionLayer, attention_utils
from torchtune.models.llama3_1._position_embeddings import Llama3ScaledRoPE

import torchtune_cases
from compiled import Broken
from recipe_run import RecipeRun


def _recipe_module(name):
    path = pathlib.Path(torchtune.__file__).parent.parent / "recipes" / f"{name}.py"  # no package: torchtune runs it as a script
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _answer_values():
    """What the recipes look at and is not there: the loss to log, frequencies that are scaled one by one, statistics of the allocator."""
    torch.Tensor.item = lambda self: 1
    torch.cuda.reset_peak_memory_stats = lambda *_: None
    torch.Tensor.record_stream = lambda *_: None
    Llama3ScaledRoPE.apply_scaling = lambda self, freqs, *_: torch.empty_like(freqs)


class Run(RecipeRun):
    def config(self):
        case = self.case
        module, builder, arguments, _ = torchtune_cases.MODELS[case.model]
        model = {"_component_": f"torchtune.models.{module}._component_builders.{'lora_' if case.lora else ''}{builder}", **arguments}
        if case.lora:
            model |= dict(lora_attn_modules=case.lora_modules.split(","), apply_lora_to_mlp=case.lora_mlp, apply_lora_to_output=case.lora_output, lora_rank=case.lora,
                          lora_alpha=16, lora_dropout=case.dropout, quantize_base=case.quantized)
        optimizer = {"_component_": "torch.optim.SGD" if case.optimizer == "sgd" else "torch.optim.AdamW", "lr": 2e-5}
        optimizer |= {"fused": True} if case.optimizer == "fused" else {"foreach": True}  # on a GPU the default
        loss = "torchtune.modules.loss.CEWithChunkedOutputLoss" if case.chunked else "torch.nn.CrossEntropyLoss"
        return OmegaConf.create(dict(
            device="cuda", dtype=case.dtype, output_dir="", seed=0, epochs=1, max_steps_per_epoch=None, resume_from_checkpoint=False, checkpointer=dict(model_type="LLAMA3"),
            gradient_accumulation_steps=case.accumulation, optimizer_in_bwd=case.in_backward, clip_grad_norm=1.0 if case.clip else None, compile=False,
            enable_activation_checkpointing=case.checkpoint, enable_activation_offloading=case.offload, batch_size=case.batch, model=model, optimizer=optimizer,
            loss={"_component_": loss}, lr_scheduler={"_component_": "torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup", "num_warmup_steps": 100}))

    def weights(self, cfg):
        """As a checkpoint has them: on the host, without adapters."""
        dtype = torch.float32 if self.case.dtype == "fp32" else torch.bfloat16
        with torch.device("meta"), training.set_default_dtype(dtype):
            plain = OmegaConf.to_container(cfg.model)
            if self.case.quantized:
                plain["quantize_base"] = False
            model = config.instantiate(OmegaConf.create(plain))
        names = {k: v for k, v in model.state_dict().items() if "lora_" not in k}
        return {k: torch.empty(v.shape, dtype=dtype) for k, v in names.items()}

    def batches(self):
        case = self.case
        for self.step in ("first_step", "train_step"):
            for self.micro in range(1, case.accumulation + 1):
                self.mark("data")
                batch = {"tokens": torch.empty(case.batch, case.length, dtype=torch.int64), "labels": torch.empty(case.batch, case.length, dtype=torch.int64)}
                if case.packed:
                    batch["input_pos"] = torch.empty(case.batch, case.length, dtype=torch.int64)
                    batch["mask"] = self.mask()
                yield batch
                del batch
        self.tracker.mark("end")

    def mask(self):
        case = self.case
        if case.packed == "mask":
            return torch.empty(case.batch, case.length, case.length, dtype=torch.bool)
        attention_utils._get_document_ids_from_seq_lens = lambda _: torch.empty(case.batch, case.length, dtype=torch.int64)  # lengths are values
        return attention_utils.packed_block_causal_mask(None)

    def how_it_lies(self):
        return dict(compile_model=False)

    def set_up(self, module):
        """The recipe, as its setup() does it, but for what lies in files."""
        cfg, case = self.config(), self.case
        weights = self.weights(cfg)
        recipe = next(v for k, v in vars(module).items() if k.endswith(("RecipeSingleDevice", "RecipeDistributed")))(cfg)
        recipe._compile = False
        options = dict(cfg_model=cfg.model, enable_activation_checkpointing=case.checkpoint, enable_activation_offloading=case.offload, **self.how_it_lies())
        options["base_model_state_dict" if case.lora else "model_state_dict"] = weights
        recipe._model = recipe._setup_model(**options)
        del weights, options
        recipe._optimizer = recipe._setup_optimizer(cfg_optimizer=cfg.optimizer, **({} if case.lora else {"optimizer_in_bwd": case.in_backward}))
        recipe._loss_fn = config.instantiate(cfg.loss)
        if case.chunked:
            recipe._model.set_num_output_chunks(recipe._loss_fn.num_output_chunks)
        recipe._steps_per_epoch = 2
        recipe._lr_scheduler = recipe._setup_lr_scheduler(cfg_lr_scheduler=cfg.lr_scheduler if case.lora else None, num_training_steps=2, last_epoch=-1)
        recipe._profiler = contextlib.nullcontext(types.SimpleNamespace(start=int, stop=int, step=int)) if case.lora and case.gpus == 1 else types.SimpleNamespace(start=int, stop=int, step=int)
        recipe.profiler_profile_memory = False
        recipe._metric_logger = types.SimpleNamespace(log_dict=lambda *_args, **_kwargs: None)
        recipe.ignore_labels_cache = torch.full((case.batch, 1), recipe._loss_fn.ignore_index, device=recipe._device)
        recipe.save_checkpoint = lambda epoch: None
        if case.packed == "flex":
            attention_utils.flex_attention_compiled = self.broken(attention_utils.flex_attention)
        if case.compiled:
            self.compile(recipe)
        return recipe

    def compile(self, recipe):
        """training.compile_model and compile_loss."""
        for module in recipe._model.modules():
            if isinstance(module, TransformerSelfAttentionLayer):
                module._compiled_call_impl = self.broken(module._call_impl) if self.case.packed == "flex" else self.compiled(module._call_impl)
        if self.case.chunked:
            recipe._loss_fn.compute_cross_entropy = self.compiled(recipe._loss_fn.compute_cross_entropy)
        else:
            loss = self.compiled(recipe._loss_fn)
            loss.ignore_index = recipe._loss_fn.ignore_index
            recipe._loss_fn = loss

    def broken(self, function):
        return Broken(function, self.fake_mode, self.tracker)

    def mark_forward(self, recipe):
        recipe._loss_step = self.marked("forward", recipe._loss_step)

    def record(self):
        module = _recipe_module(self.case.recipe())
        _answer_values()
        backward, scale = torch.Tensor.backward, training.scale_grads
        try:
            with self.fake_mode, self.tracker as tracker:
                tracker.mark("load")
                recipe = self.set_up(module)
                gc.collect()
                tracker.adopt([*recipe._model.parameters(), *recipe._model.buffers()], "load")
                self.mark_forward(recipe)
                torch.Tensor.backward = self.marked("backward", backward)
                training.scale_grads = self.marked("clip", scale)
                if recipe._optimizer is not None:
                    recipe._optimizer.step = self.marked("optimizer", recipe._optimizer.step)
                    zero = self.marked("zero_grad", recipe._optimizer.zero_grad)
                    recipe._optimizer.zero_grad = lambda *args, **kwargs: zero(*args, **kwargs) if self.micro else None
                recipe._dataloader = Loader(self.batches())
                recipe.train()
        finally:
            torch.Tensor.backward, training.scale_grads = backward, scale


class Loader:
    """What the loop asks of its data loader."""

    sampler = types.SimpleNamespace(set_epoch=int)

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return self.batches

    def state_dict(self):
        return {}
