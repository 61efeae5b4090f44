"""TRL's DPOTrainer beside a recorded model: its own _compute_loss, on a trainer that is only as much of one as that asks for. `batch` of a case are pairs."""
import types
from collections import defaultdict

import peft
import torch
import torch.distributed.fsdp as fsdp
from trl import DPOTrainer
from trl.models.utils import prepare_deepspeed, prepare_fsdp  # noqa: F401  (for sessions of several ranks)
from trl.trainer import dpo_trainer
from trl.trainer.utils import add_fused_lm_head, disable_dropout_in_model

from pairs import as_prepared  # noqa: F401  (for sessions)

OUTPUTS = ("log_probs", "entropy", "mean_logits", "is_top1")  # DPOTrainer.__init__: of the model that trains


def put_head(model, reference=False):
    """The fused head, and no dropout; model: without peft's wrapper."""
    disable_dropout_in_model(model)
    add_fused_lm_head(model, **({} if reference else {"outputs": OUTPUTS}))


def unwrapped(model):
    """What FSDP1 wraps: its own class keeps it under this name."""
    return model.module if isinstance(model, fsdp.FullyShardedDataParallel) else model


class Preference:
    """model: as peft wraps it, and FSDP around that; reference: the copy, None beside adapters and where its log-probabilities were computed before."""

    def __init__(self, model, reference, precomputed, checkpoint):
        dpo_trainer.is_peft_model = lambda m: isinstance(unwrapped(m), peft.PeftModel)  # accelerate's asks DeepSpeed, which asks for a CUDA toolkit
        trainer = self.trainer = DPOTrainer.__new__(DPOTrainer)
        trainer.model, trainer.ref_model, trainer.precompute_ref_logps = model, reference, precomputed
        trainer.accelerator = types.SimpleNamespace(device=torch.device("cuda"), unwrap_model=unwrapped, gather_for_metrics=lambda t: t, gather=lambda t: t)
        trainer.args = types.SimpleNamespace(gradient_checkpointing_kwargs={"use_reentrant": checkpoint == "reentrant"} if checkpoint != "none" else None)
        trainer.beta, trainer.loss_types, trainer.loss_weights, trainer.ld_alpha, trainer.use_weighting = 0.1, ["sigmoid"], [1.0], None, False
        trainer.f_divergence_type, trainer.label_smoothing, trainer.aux_loss_enabled = "reverse_kl", 0.0, False
        trainer._metrics, trainer._total_train_tokens, trainer._tp_size = {"train": defaultdict(list), "eval": defaultdict(list)}, 0, 1

    def loss(self, model, inputs):
        """model: what trains, as accelerate wrapped it; DistributedDataParallel and DeepSpeed's engine are not the trainer's."""
        return self.trainer.compute_loss(model, inputs)


def batch(pairs, length, precomputed):
    """DataCollatorForPreference's, on the GPU: chosen and rejected one after the other, prompts of one token."""
    tokens = {name: torch.empty(2 * pairs, length, dtype=torch.int64, device="cuda") for name in ("input_ids", "attention_mask", "completion_mask")}
    scores = {name: torch.empty(pairs, dtype=torch.float32, device="cuda") for name in ("ref_chosen_logps", "ref_rejected_logps")} if precomputed else {}
    return tokens | scores
