"""A transformers model under DeepSpeed's ZeRO, as rank 0 of several: DeepSpeed's own engine and optimizers, driven as accelerate does for Trainer.
Stand-ins only where DeepSpeed reads values or asks the driver.
"""
import importlib
import json
import os
import types

import hopper  # noqa: F401  (before anything asks torch.cuda)

import torch

os.environ.update(DS_ACCELERATOR="cuda", DS_BUILD_OPS="0", RANK="0", LOCAL_RANK="0")
_available, torch.cuda.is_available = torch.cuda.is_available, lambda: False  # else it looks for a compiler of its kernels
import deepspeed  # noqa: E402
import deepspeed.runtime.zero.partitioned_param_coordinator as coordinator  # noqa: E402

torch.cuda.is_available = _available
import transformers  # noqa: E402
from deepspeed.runtime.zero.partition_parameters import InsertPostInitMethodToModuleSubClasses  # noqa: E402
from deepspeed.utils import groups  # noqa: E402

import transformers_cases  # noqa: E402
import transformers_session  # noqa: E402

for _name in ("reset_peak_memory_stats", "memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved"):
    setattr(torch.cuda, _name, lambda *_args: 0)  # DeepSpeed prints them


class _ByNumber(set):
    """What DeepSpeed fetches is a set of tensors, which comes in the order of their addresses: which buffers of a module's gathers stay longest is chance. Here it comes in the model's order."""
    def __iter__(self):
        return iter(sorted(super().__iter__(), key=lambda p: getattr(p, "ds_id", p)))


coordinator.set = _ByNumber
coordinator.assert_ints_same_as_other_ranks = lambda *_args: None  # asks the other ranks
torch.cuda.default_stream, torch.cuda.memory_stats = torch.cuda.current_stream, lambda *_args: {}
torch.Tensor.record_stream = lambda *_args: None
torch.Tensor.pin_memory = lambda self, *_args: self
torch.Tensor.item = lambda self: 1  # norms and counts of steps are values, which fake tensors have not
torch.Tensor.__float__ = lambda self: 1.0
torch.Tensor.__bool__ = lambda self: False
_linear = torch.nn.functional.linear
_check = deepspeed.runtime.utils.CheckOverflow.check


def _no_overflow(self, *arguments):
    """Looks as it does, and finds nothing."""
    _check(self, *arguments)
    return False


deepspeed.runtime.utils.CheckOverflow.check = _no_overflow
_untouched = {name: value for name, value in vars(groups).items() if name.startswith("_") and not callable(value)}


def _forget_last_run():
    """DeepSpeed keeps process groups and counts of parameters in its modules; a process records several runs."""
    vars(groups).update(_untouched)
    deepspeed.comm.comm.cdb = None
    torch.nn.functional.linear = _linear  # ZeRO-3 puts its own there, once and for good
    if hasattr(InsertPostInitMethodToModuleSubClasses, "linear_bk"):
        del InsertPostInitMethodToModuleSubClasses.linear_bk
    init = deepspeed.zero.Init
    init.param_id = init.num_persisted_parameters = init.num_persisted_elements = 0
    init.apply_param_persistence = False


NO_INIT_WEIGHTS = importlib.import_module("transformers.initialization" if transformers.__version__.startswith("5") else "transformers.modeling_utils").no_init_weights


class Run(transformers_session.Run):
    def __init__(self, case):
        _forget_last_run()
        os.environ.update(RANK=str(case.rank), WORLD_SIZE=str(case.gpus))
        super().__init__(case)

    def build(self):
        """As from_pretrained does: under ZeRO-3 parameters are split while modules are made."""
        case = self.case
        if case.parallel != "zero3":
            return super().build()
        self.know_values(self.config())
        model = self._split()
        if case.lora:
            torch.set_default_dtype(torch.bfloat16)  # what the engine would cast adapters to
            model = self._with_lora(model, cast=False)
            torch.set_default_dtype(torch.float32)
        self._put_head(model)
        model.bfloat16 = lambda: model
        if case.dpo:
            self._prefer(model)
        return self._ready(model)

    def _split(self):
        """The model of the case, whose parameters are split while its modules are made."""
        owner = getattr(transformers, transformers_cases.MODELS[self.case.model]["architectures"][0])
        with deepspeed.zero.Init(config_dict_or_path=self._config()), NO_INIT_WEIGHTS():
            model = owner(self.config())
        model.tie_weights()
        for module in model.modules():  # Module.bfloat16 would replace fake parameters, which DeepSpeed knows by identity; they are bf16
            for name, tensor in module._buffers.items():
                if tensor is not None and tensor.is_floating_point():
                    module._buffers[name] = tensor.to(torch.bfloat16)
        return model

    def _made(self, config):
        return self._split() if self.case.parallel == "zero3" else super()._made(config)

    def _prepared_reference(self, reference):
        """An engine of its own, which brings a whole model to this GPU."""
        import preference
        if self.case.parallel == "zero3":
            reference.bfloat16 = lambda: reference
        else:
            self._to_gpu(reference, on_host=True)
        plugin = types.SimpleNamespace(deepspeed_config=self._config(unresolved=True))
        return preference.prepare_deepspeed(reference, types.SimpleNamespace(state=types.SimpleNamespace(deepspeed_plugin=plugin)))

    def _groups(self, model):
        """Trainer.create_optimizer: what decays and what does not."""
        decays = set(transformers.Trainer.get_decay_parameter_names(None, model))
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        groups = [[p for n, p in named if (n in decays) == wanted] for wanted in (True, False)]
        return [{"params": g, "weight_decay": 0.0} for g in groups]

    def _zero_fields(self, unresolved):
        fields = {}
        for word in filter(None, self.case.zero.split(",")):
            key, _, value = word.partition("=")
            if key == "auto":  # HfTrainerDeepSpeedConfig.trainer_config_finalize, of what only the trainer knows
                width = self.config().hidden_size
                resolved = {"reduce_bucket_size": width * width, "stage3_prefetch_bucket_size": int(0.9 * width * width), "stage3_param_persistence_threshold": 10 * width}
                fields |= dict.fromkeys(resolved, "auto") if unresolved else resolved
                continue
            fields[key] = json.loads(value) if value else {"device": "cpu"} if key.startswith("offload") else True
        return fields

    def _config(self, unresolved=False):
        """unresolved: as it is before the trainer has filled in what the file leaves to it ("auto")."""
        case = self.case
        stage = int(case.parallel.removeprefix("zero"))
        return {
            "train_micro_batch_size_per_gpu": case.batch, "gradient_accumulation_steps": case.accumulation, "gradient_clipping": 1.0,
            "bf16": {"enabled": case.precision != "fp32"}, "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False, "steps_per_print": None,
            "zero_optimization": {"stage": stage, **self._zero_fields(unresolved)},
        }

    def micro_step(self, step, micro):
        """accelerate steps inside its backward(): the loss, and what its graph holds, is there until then."""
        tracker, engine = self.tracker, self.model
        last = micro + 1 == self.case.accumulation
        engine.set_gradient_accumulation_boundary(last)
        tracker.mark(f"{step} {micro + 1} data")
        inputs = self.batch()
        tracker.mark(f"{step} {micro + 1} forward")
        if self.case.dpo or self.case.pairs:
            loss = self.preference.loss(engine, inputs)
            del inputs
        else:
            outputs = engine(**inputs, **({"fused_lm_head": True} if self.case.trl else {}))
            loss = self._sft_loss(outputs) if self.case.trl else outputs["loss"]
            del outputs, inputs
        if self.case.accumulation > 1:
            loss = loss / self.case.accumulation
        tracker.mark(f"{step} {micro + 1} backward")
        engine.backward(loss, scale_wrt_gas=False)
        if not last:
            return
        tracker.mark(f"{step} optimizer")
        engine.step()
        tracker.mark(f"{step} zero_grad")

    def _record(self):
        with self.fake_mode, self.tracker as tracker:
            tracker.mark("load")
            model = self.build()
            tracker.adopt([*model.parameters(), *model.buffers()], "load")
            tracker.mark("parallel")
            optimizer = torch.optim.AdamW(self._groups(model), lr=1e-4, foreach=self.case.optimizer == "foreach", fused=self.case.optimizer == "fused")
            engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config_params=self._config())
            self.model = engine
            for step in ("first_step", "train_step"):
                for micro in range(self.case.accumulation):
                    self.micro_step(step, micro)
            tracker.mark("end")
