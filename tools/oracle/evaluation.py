"""Trainer's evaluation loop, and SFTTrainer's, after the steps of transformers_session.py: their own code, on a Trainer that was never set up. Only the loader is a
stand-in, which holds on to a batch as accelerate's does, and what goes to the host, which has no values.
"""
import collections
import contextlib
import inspect
import types

import numpy
import torch
import transformers
import transformers.trainer_pt_utils as containers
from accelerate.utils.operations import convert_outputs_to_fp32

import transformers_cases

BATCHES = 3  # the second finds what the first left, the third what both did

containers.nested_numpify = lambda _tensors: numpy.zeros(1)


def _as_accelerate_prepares(model, precision):
    """Accelerator.prepare_model: autocast inside forward, and outputs in 16 bits are cast."""
    dtype = {"autocast": torch.bfloat16, "fp16": torch.float16}.get(precision.split("+")[-1])
    if dtype is None:
        return
    inner = torch.amp.autocast("cuda", dtype=dtype)(model.forward.__func__)
    model.forward = types.MethodType(convert_outputs_to_fp32(types.MethodType(inner, model).__func__), model)


def _evaluator(case, model, marks):
    if case.trl:
        import trl
        owner = trl.SFTTrainer
        torch.Tensor.__bool__ = lambda self: True  # whether any label counts
    else:
        owner = transformers.Trainer

    class Evaluator(owner):
        def __init__(self):
            pass

        def _wrap_model(self, model, *_args, **_kwargs):
            return model

        def prediction_step(self, *args, **kwargs):
            marks("forward")
            out = super().prediction_step(*args, **kwargs)
            marks("gather")
            return out

    words = transformers_cases.evaluation_of(case)
    trainer = Evaluator()
    trainer.args = types.SimpleNamespace(
        prediction_loss_only=False, eval_batch_size=words["batch"], past_index=-1, eval_do_concat_batches=True, include_for_metrics=[], batch_eval_metrics=False, n_gpu=1, world_size=1,
        eval_accumulation_steps=words["accumulation"], device=torch.device("cuda", 0), fp16_full_eval=False, bf16_full_eval=False, average_tokens_across_devices=True, loss_type="chunked_nll", use_liger_kernel=case.liger is True)
    trainer.model, trainer.is_in_train, trainer.can_return_loss = model, True, False
    trainer.label_names = ["start_positions", "end_positions"] if transformers_cases.task_of(case) == "QuestionAnswering" else ["labels"]
    trainer.is_deepspeed_enabled = trainer.is_fsdp_enabled = trainer.aux_loss_enabled = False
    trainer.use_cpu_amp = trainer.is_tp_enabled = False
    trainer.optimizer = trainer.label_smoother = trainer.compute_loss_func = trainer._past = None
    trainer.compute_metrics = None if words["keeps"] == "loss" else lambda _prediction: {}
    trainer.preprocess_logits_for_metrics = (lambda logits, _labels: logits.argmax(dim=-1)) if words["keeps"] == "argmax" else None  # run_clm.py's
    trainer._total_train_tokens, trainer._metrics = 0, {"eval": collections.defaultdict(list)}
    base = model.get_base_model() if case.lora else model
    trainer.model_accepts_loss_kwargs = any(k.kind == inspect.Parameter.VAR_KEYWORD for k in inspect.signature(base.forward).parameters.values())
    trainer.callback_handler = types.SimpleNamespace(on_prediction_step=lambda _args, _state, control: control)
    trainer.state = trainer.control = None
    same = lambda tensors, **_rest: tensors  # noqa: E731  (of one process)
    trainer.accelerator = types.SimpleNamespace(
        _models=[model], gather=same, gather_for_metrics=same, pad_across_processes=same, parallelism_config=None, num_processes=1, unwrap_model=lambda model, **_rest: model)
    trainer.gather_function = same
    trainer._prepare_context_parallel_inputs = lambda _model, inputs: (contextlib.nullcontext, inputs)
    trainer._prepare_inputs = dict  # all is on the GPU
    return trainer, words


def evaluate(run):
    """What `_maybe_log_save_evaluate` does between two steps of `run`, in segments of each batch."""
    case, count = run.case, [0]

    def marks(part):
        run.tracker.mark(f"validation {count[0]} {part}")

    class Loader:
        dataset = None

        def __iter__(self):
            for _ in range(BATCHES):
                count[0] += 1
                marks("data")
                batch = run.batch(words["batch"])
                yield batch
                del batch  # DataLoaderShard: the next one takes its name before it goes to the GPU

    trainer, words = _evaluator(case, run.model, marks)
    _as_accelerate_prepares(run.model, case.precision)
    trainer.evaluation_loop(Loader(), "Evaluation", prediction_loss_only=True if trainer.compute_metrics is None else None)
