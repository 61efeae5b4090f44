"""Trainers of preferences and rewards beside a recorded model, all but TRL's DPOTrainer (preference.py): the own compute_loss of each, on a trainer that is only as much of one as that asks
for. A case's `pairs` names it: "reward", "kto", "kto_precomputed" and "kto_apo" of TRL; "factory_dpo", "factory_orpo", "factory_simpo" and "factory_rm" of LLaMA-Factory, which is
recorded with the TRL that it pins (record.sh --llamafactory).
"""
import importlib.util
import sys
import types
from collections import defaultdict

import peft
import torch
from accelerate.utils.operations import convert_outputs_to_fp32

KTO_OUTPUTS = ("log_probs", "entropy", "mean_logits")  # KTOTrainer.__init__: of the model that trains


def as_prepared(model, autocast):
    """accelerate.Accelerator.prepare_model: autocast around the forward pass alone."""
    if autocast:
        model.forward = types.MethodType(convert_outputs_to_fp32(torch.amp.autocast("cuda", dtype=autocast)(model.forward.__func__)), model)
    return model


def _accelerator():
    return types.SimpleNamespace(device=torch.device("cuda"), unwrap_model=lambda m: m.module if isinstance(m, torch.nn.parallel.DistributedDataParallel) else m, gather_for_metrics=lambda t: t, gather=lambda t: t)


def _factory():
    """LLaMA-Factory's modules without what its packages import beside them: data, audio, hyperparameters."""
    root = importlib.util.find_spec("llamafactory").submodule_search_locations[0]
    for name, names in (("", ()), (".extras", ()), (".train", ()), (".train.dpo", ()), (".train.rm", ()), (".hparams", ("FinetuningArguments", "ModelArguments")),
                        (".model", ("find_all_linear_modules", "load_model", "load_tokenizer", "load_valuehead_params")), (".model.model_utils", ())):
        package = types.ModuleType(f"llamafactory{name}")
        package.__path__ = [root + name.replace(".", "/")]
        for each in names:
            setattr(package, each, None)
        sys.modules.setdefault(f"llamafactory{name}", package)


def checkpoint(model, case):
    """As LLaMA-Factory's load_model has the model before it gets adapters."""
    _factory()
    from llamafactory.model.model_utils import checkpointing
    checkpointing.prepare_model_for_training(model, types.SimpleNamespace(
        upcast_layernorm=False, disable_gradient_checkpointing=case.checkpoint == "none", use_unsloth_gc=False, use_reentrant_gc=case.checkpoint == "reentrant", upcast_lmhead_output=False))


def wrapped(model, case):
    """With TRL's value head around it, where LLaMA-Factory puts one."""
    if case.pairs != "factory_rm":
        return model
    from trl import AutoModelForCausalLMWithValueHead
    with torch.device("meta"):
        return AutoModelForCausalLMWithValueHead.from_pretrained(model)


def put_head(model, case):
    """TRL's fused head, of trainers that have it, and no dropout but where the trainer leaves it. model: without peft's wrapper."""
    if case.pairs.startswith("kto"):
        from trl.trainer.utils import add_fused_lm_head
        add_fused_lm_head(model, outputs=KTO_OUTPUTS)


class Trainer:
    """model: as peft and the value head wrap it; reference: of a run with a model of its own for it."""

    def __init__(self, model, case, reference):
        self.case = case
        self.trainer = {"reward": self._reward, "kto": self._kto, "factory_rm": self._factory_rm}.get(case.pairs.split("_")[0] if case.pairs.startswith("kto") else case.pairs, self._factory_dpo)(model, reference)

    def loss(self, model, inputs):
        return self.trainer.compute_loss(model, inputs)

    def _blank(self, owner, model, reference):
        trainer = owner.__new__(owner)
        trainer.model, trainer.ref_model, trainer.accelerator = model, reference, _accelerator()
        trainer._metrics, trainer._total_train_tokens, trainer._tp_size = {"train": defaultdict(list), "eval": defaultdict(list)}, 0, 1
        return trainer

    def _reward(self, model, _reference):
        from trl import RewardTrainer
        trainer = self._blank(RewardTrainer, model, None)
        trainer.args = types.SimpleNamespace(center_rewards_coefficient=None)
        return trainer

    def _kto(self, model, reference):
        from trl.trainer import kto_trainer
        kto_trainer.is_peft_model = lambda m: isinstance(m, peft.PeftModel)  # accelerate's asks DeepSpeed, which asks for a CUDA toolkit
        trainer = self._blank(kto_trainer.KTOTrainer, model, reference)
        trainer.args = types.SimpleNamespace(gradient_checkpointing_kwargs={"use_reentrant": self.case.checkpoint == "reentrant"} if self.case.checkpoint != "none" else None)
        trainer.beta, trainer.desirable_weight, trainer.undesirable_weight, trainer.aux_loss_enabled = 0.1, 1.0, 1.0, False
        trainer.loss_type = "apo_zero_unpaired" if self.case.pairs == "kto_apo" else "kto"
        trainer.calculate_KL, trainer.precompute_ref_logps = trainer.loss_type == "kto", self.case.pairs == "kto_precomputed"
        return trainer

    def _factory_dpo(self, model, reference):
        from llamafactory.train.dpo.trainer import CustomDPOTrainer
        trainer = self._blank(CustomDPOTrainer, model, reference)
        trainer.loss_type = {"factory_orpo": "orpo", "factory_simpo": "simpo"}.get(self.case.pairs, "sigmoid")
        trainer.finetuning_args = types.SimpleNamespace(use_ref_model=self.case.pairs == "factory_dpo")
        trainer.args = types.SimpleNamespace(device=torch.device("cuda"))
        trainer.f_divergence_type, trainer.reference_free, trainer.label_smoothing, trainer.ld_alpha = "reverse_kl", False, 0.0, None
        trainer.beta, trainer.ftx_gamma, trainer.bco_gemma, trainer.simpo_gamma = 0.1, 0.0, 0.0, 0.5
        trainer._peft_has_been_casted_to_bf16, trainer._stored_metrics = False, defaultdict(lambda: defaultdict(list))
        return trainer

    def _factory_rm(self, model, _reference):
        from llamafactory.train.rm.trainer import PairwiseTrainer
        return self._blank(PairwiseTrainer, model, None)


def of(run, model):
    """The trainer, with its reference on the GPU where it has one. LLaMA-Factory loads its own in the dtype that the model computes in."""
    case, reference = run.case, None
    autocast = torch.bfloat16 if case.precision.endswith("autocast") and not case.parallel.startswith("zero") else None
    torch.Tensor.item = lambda self: 1
    if case.pairs.startswith("kto"):
        counts = iter(lambda: None, 0)  # of labels: half are chosen
        torch.nonzero = lambda of, as_tuple=False: torch.empty((of.numel() + (next(counts) or 0)) // 2, 1, dtype=torch.int64, device=of.device)
    if case.pairs.startswith(("kto", "factory_rm")) or case.padded:
        torch.Tensor.__bool__ = lambda self: not case.padded
    if not case.lora and case.pairs in ("kto", "kto_apo", "factory_dpo"):
        reference = run._made(run.config()).eval()
        if case.pairs == "factory_dpo":
            reference = reference.to(torch.bfloat16 if case.precision != "fp32" else torch.float32).requires_grad_(False)
        else:
            from trl.trainer.utils import add_fused_lm_head, disable_dropout_in_model
            disable_dropout_in_model(reference)
            add_fused_lm_head(reference)
        run._to_gpu(reference)
        as_prepared(reference, autocast)
    as_prepared(model, autocast)
    return Trainer(model, case, reference)


def drop_nothing(model):
    """disable_dropout, which is on by default in all but LLaMA-Factory's reward models."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0


def batch(case):
    """Of the trainer's collator, on the GPU: rows of chosen answers, then of rejected ones; of KTO's, rows of answers of both kinds and rows of others' answers."""
    rows = case.batch * (1 if case.pairs.startswith("kto") else 2)

    def ids():
        return torch.empty(rows, case.length, dtype=torch.int64, device="cuda")
    if case.pairs.startswith("factory"):
        return {name: ids() for name in ("input_ids", "attention_mask", "labels")}
    if case.pairs == "reward":
        return {name: ids() for name in ("input_ids", "attention_mask")}
    prefixes = ("",) if case.pairs == "kto_apo" else ("", "KL_")
    inputs = {f"{prefix}{name}": ids() for prefix in prefixes for name in ("input_ids", "attention_mask", "completion_mask")}
    scores = ("ref_logps", "ref_KL_logps") if case.pairs == "kto_precomputed" else ()
    return inputs | {name: torch.empty(rows, dtype=torch.float32, device="cuda") for name in scores} | {"label": torch.empty(rows, dtype=torch.bool, device="cuda")}
