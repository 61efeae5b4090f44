"""TRL's GRPOTrainer beside a recorded model: its own _prepare_inputs, which generates with transformers' own generate() and scores what comes, and compute_loss, on a trainer that is only
as much of one as those ask for. `batch` of a case are completions of a micro-step, `length` a prompt and its completion; a completion never ends before it is as long as it may be.
"""
import collections
import contextlib
import types

import peft
import torch
import transformers
import transformers.masking_utils as masking
from torch._subclasses.fake_tensor import FakeTensor
from transformers.generation.utils import GenerationMixin
from trl import GRPOTrainer
from trl.trainer import grpo_trainer
from trl.trainer.utils import add_fused_lm_head

import transformers_cases

PAD = 0
REAL_GETITEM = torch.Tensor.__getitem__  # before a session answers for masks


class _Masks:
    """Whether rows of a mask differ, which transformers finds by looking at its values: of prompts while it generates, of completions after that."""

    def __init__(self):
        self.differ = False
        real = masking._ignore_causal_mask_sdpa
        masking._ignore_causal_mask_sdpa = lambda padding, *args, **rest: real(padding if self.differ else None, *args, **rest)


masks = _Masks()


def put_head(model, reference=False):
    """GRPOTrainer.__init__; model: without peft's wrapper."""
    add_fused_lm_head(model, temperature=1.0, **({} if reference else {"outputs": ("log_probs", "entropy")}))


class Rollouts:
    """model: as peft wraps it; reference: the copy, None where there is none."""

    def __init__(self, case, model, reference, mark):
        self.case, self.words, self.mark = case, transformers_cases.rollouts_of(case), mark
        self.generations = 0
        self.trainer = self._trainer(model, reference)
        self._know_values()
        self._know_windows()
        self._follow(model.get_base_model() if case.lora else model)

    def _trainer(self, model, reference):
        case, words = self.case, self.words
        same = lambda tensors, **_rest: tensors  # noqa: E731  (of one process)
        grpo_trainer.is_peft_model = lambda m: isinstance(m, peft.PeftModel)
        grpo_trainer.gather = grpo_trainer.gather_object = same
        trainer = GRPOTrainer.__new__(GRPOTrainer)
        trainer.model = trainer.model_wrapped = model
        trainer.ref_model = reference
        half = torch.bfloat16 if case.precision.endswith("autocast") else None
        trainer.accelerator = types.SimpleNamespace(
            device=torch.device("cuda", 0), process_index=0, num_processes=1, is_main_process=True, sync_gradients=True, state=types.SimpleNamespace(deepspeed_plugin=None), gather=same, gather_for_metrics=same,
            reduce=lambda tensor, reduction: tensor, pad_across_processes=same, unwrap_model=lambda m, **_rest: m, autocast=lambda: torch.autocast("cuda", dtype=half) if half else contextlib.nullcontext())
        kept = {"use_reentrant": case.checkpoint == "reentrant"} if case.checkpoint != "none" else None
        trainer.args = types.SimpleNamespace(
            steps_per_generation=words["steps"], gradient_accumulation_steps=case.accumulation, per_device_train_batch_size=case.batch, ds3_gather_for_generation=True, gradient_checkpointing_kwargs=kept, delta=words["delta"],
            use_bias_correction_kl=True, device=torch.device("cuda", 0), past_index=-1, report_to=[], bf16=False, fp16=False, sapo_temperature_pos=1.0, sapo_temperature_neg=1.05)
        trainer.current_gradient_accumulation_steps = case.accumulation
        trainer.num_generations = trainer.num_generations_eval = words["generations"]
        trainer.max_completion_length, trainer.num_iterations, trainer.beta, trainer.loss_type = words["new"], words["iterations"], words["beta"], words["loss"]
        trainer.epsilon_low = trainer.epsilon_high = 0.2
        trainer.importance_sampling_level, trainer.scale_rewards, trainer.multi_objective_aggregation = words["level"], "group", "sum_then_normalize"
        trainer.top_entropy_quantile, trainer.off_policy_mask_threshold, trainer._entropy_bonus_enabled, trainer.aux_loss_enabled = 1.0, None, False, False
        trainer.use_vllm = trainer.vllm_importance_sampling_correction = bool(words["vllm"])
        trainer.vllm_importance_sampling_mode, trainer.vllm_importance_sampling_clip_max, trainer.vllm_importance_sampling_clip_min, trainer._last_loaded_step = "sequence_mask", 3.0, None, -1
        trainer.vllm_generation = types.SimpleNamespace(sync_weights=lambda: None, generate=lambda prompts, **_rest: (None, [[3] * words["new"] for _ in prompts], [[[0.0]] * words["new"] for _ in prompts], None))
        trainer.use_transformers_continuous_batching = trainer.mask_truncated_completions = trainer._is_vlm = False
        trainer.rollout_func = trainer.environment_factories = trainer.environments = trainer.pad_to_multiple_of = None
        trainer.tools, trainer.log_multimodal, trainer.is_deepspeed_enabled = [], False, False
        trainer.eos_token_ids = [1]
        trainer._tokenizer = types.SimpleNamespace(pad_token_id=PAD, bos_token_id=2)
        trainer.processing_class = types.SimpleNamespace(batch_decode=lambda ids, **_rest: ["" for _ in ids])
        trainer._tokenize_prompts = lambda prompts: ([[3] * (case.length - words["new"]) for _ in prompts], None, {})
        trainer.reward_funcs, trainer.reward_func_names, trainer.reward_processing_classes = [lambda prompts, **_rest: [0.0 for _ in prompts]], ["reward"], [None]
        trainer.reward_weights = torch.ones(1)
        trainer.state = types.SimpleNamespace(global_step=0, num_input_tokens_seen=0)
        trainer._metrics = {"train": collections.defaultdict(list), "eval": collections.defaultdict(list)}
        trainer._logs = {"prompt": [], "completion": [], "advantages": [], "rewards": collections.defaultdict(list), "extra": collections.defaultdict(list)}
        trainer._pending_extra_logs, trainer._pending_metrics = collections.defaultdict(list), collections.defaultdict(list)
        trainer._step, trainer._buffered_inputs = 0, None
        trainer._dist = types.SimpleNamespace(summon_full_params=lambda *_args, **_rest: contextlib.nullcontext())
        arguments = {"max_new_tokens": words["new"], "do_sample": True, "pad_token_id": PAD, "bos_token_id": 2, "eos_token_id": [1], "temperature": words["temperature"], "top_p": words["top_p"], "top_k": words["top_k"], "min_p": words["min_p"],
                     "repetition_penalty": words["penalty"], "cache_implementation": None}
        trainer.generation_config, trainer.generation_kwargs = transformers.GenerationConfig(**arguments, disable_compile=True), arguments
        return trainer

    def _know_values(self):
        """Positions of completions count, all of them; where prompts differ in length their masks have zeros."""
        case, new = self.case, self.words["new"]
        counted, real_getitem, real_setitem = torch.Tensor.__getitem__, REAL_GETITEM, torch.Tensor.__setitem__

        def getitem(this, index):
            if isinstance(index, torch.Tensor) and index.dtype == torch.bool and index.dim() == 2 and index.shape[1] == case.length - 1:
                places = torch.empty(index.shape[0] * new, 2, dtype=torch.int64, device=index.device)
                return real_getitem(this, tuple(places.unbind(1)))
            return counted(this, index)

        def setitem(this, index, value):  # of rows that ended early, or have no reward: none
            if not (isinstance(index, torch.Tensor) and index.dtype == torch.bool):
                real_setitem(this, index, value)

        torch.Tensor.__getitem__, torch.Tensor.__setitem__ = getitem, setitem
        torch.Tensor.__bool__ = lambda _this: False
        FakeTensor.tolist = lambda this: [0] * this.numel()

    @staticmethod
    def _know_windows():
        """transformers 5 puts a layer's window on the GPU, of which nothing runs here."""
        layer = transformers.cache_utils.DynamicSlidingWindowLayer
        if transformers.__version__ < "5":
            return

        def initialize(this, keys, values):
            super(layer, this).lazy_initialization(keys, values)
            this._sliding_window_tensor = torch.empty((), dtype=torch.int64, device="cuda")

        layer.lazy_initialization = initialize

    def _follow(self, model):
        """Marks where generate() stands; it ends when there is no room for another token."""
        mark, asked = self.mark, [0]
        model.generation_config.use_cache = True  # transformers' default, whatever training wants
        real_update, real_generate = model._update_model_kwargs_for_generation, model.generate

        def update(*args, **rest):
            if asked[0] == 1:
                mark(f"rollout {self.generations} decode")
            return real_update(*args, **rest)

        def unfinished(_this, *_args, **_rest):
            asked[0] += 1
            return asked[0] <= self.words["new"]

        def generate(*args, **rest):
            asked[0] = 0
            mark(f"rollout {self.generations} prefill")
            out = real_generate(*args, **rest)
            mark(f"rollout {self.generations} batch")
            return out

        model._update_model_kwargs_for_generation = update
        model.generate = generate
        GenerationMixin._has_unfinished_sequences = unfinished
        trainer, real_turn, real_score, real_rewards = self.trainer, self.trainer._generate_single_turn, self.trainer._get_per_token_logps_and_entropies, self.trainer._calculate_rewards

        def turn(*args):
            masks.differ = self.words["prompts"] == "padded"
            out = real_turn(*args)
            masks.differ = self.case.padded
            if self.words["vllm"]:
                mark(f"scoring {self.generations} batch")
            return out

        def score(scored, *args, **rest):
            if "batch_size" in rest:
                mark(f"scoring {self.generations} {'reference' if self.scored_old or self.aligned() else 'own'}")
                self.scored_old = True
            return real_score(scored, *args, **rest)

        def rewards(*args):
            mark(f"scoring {self.generations} rewards")
            return real_rewards(*args)

        masks.differ = self.case.padded
        trainer._generate_single_turn, trainer._get_per_token_logps_and_entropies, trainer._calculate_rewards = turn, score, rewards

    def aligned(self):
        """Whether generations end with an optimizer's step, which needs no log-probabilities of before."""
        return self.case.accumulation % (self.words["steps"] * self.words["iterations"]) == 0 and not self.words["vllm"]

    def inputs(self):
        """What Trainer.training_step does first."""
        words, case = self.words, self.case
        if self.trainer._step % (words["steps"] * words["iterations"]) == 0:
            self.generations += 1
            self.scored_old = False
            self.mark(f"rollout {self.generations} inputs")
        return self.trainer._prepare_inputs([{"prompt": ""} for _ in range(case.batch * words["steps"])])

    def loss(self, model, inputs):
        loss = self.trainer.compute_loss(model, inputs)
        self.trainer._step += 1  # Trainer.training_step, when it is done
        return loss
