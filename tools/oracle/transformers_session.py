"""A transformers model under FakeTensorMode, trained for two steps as a plain loop (and Trainer) does. Everything is transformers', peft's
and PyTorch's own code; only kernels do not run. Segments are marked in the tracker.
"""
import contextlib
import functools
import gc
import importlib
import re
import sys
import types

import hopper  # noqa: F401  (before anything asks torch.cuda)

import on_host
import packed_texts
import torch
import torch._meta_registrations
import torch.distributed.fsdp as fsdp
import transformers
import transformers.masking_utils as masking
import transformers.models.bert.modeling_bert as bert
import transformers.models.deepseek_v2.modeling_deepseek_v2 as deepseek_v2
import transformers.models.distilbert.modeling_distilbert as distilbert
import transformers.models.roberta.modeling_roberta as roberta
import transformers.models.xlm_roberta.modeling_xlm_roberta as xlm_roberta
import triton
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._python_dispatch import _disable_current_modes
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from accelerate.utils.operations import convert_outputs_to_fp32, convert_to_fp32
from transformers.modeling_attn_mask_utils import AttentionMaskConverter

import transformers_cases
from compiled import Broken, Compiled
from routed import Routed
from dryfit.tracing.tracker import Tracker


def _know_masks_are_ones():
    """No row is padded here: what transformers finds by looking at the mask's values, which fake tensors have not."""
    real = masking._ignore_causal_mask_sdpa

    def ignore(padding_mask, *args, **kwargs):
        return real(None, *args, **kwargs)

    masking._ignore_causal_mask_sdpa = ignore
    if hasattr(masking, "_ignore_bidirectional_mask_sdpa"):  # transformers 5
        masking._ignore_bidirectional_mask_sdpa = lambda *_args, **_kwargs: True
    older = AttentionMaskConverter._ignore_causal_mask_sdpa
    AttentionMaskConverter._ignore_causal_mask_sdpa = staticmethod(lambda attention_mask, **kwargs: older(None, **kwargs))
    for encoder in (bert, distilbert, roberta, xlm_roberta):
        encoder._prepare_4d_attention_mask_for_sdpa = lambda *_args, **_kwargs: None


def _share_tokens_evenly(experts, stacked):
    """Which tokens an expert gets are values, which fake tensors have not: each gets the same number here. stacked: gpt-oss, which goes over places of them."""
    real_where = torch.where

    def where(condition, *rest):
        if rest:
            return real_where(condition, *rest)
        count = condition.numel() // experts  # of top_k x tokens choices
        return tuple(torch.empty(count, dtype=torch.int64, device=condition.device) for _ in range(max(2, condition.dim())))  # a single choice's dimension is squeezed away here

    torch.where = where
    torch.Tensor.nonzero = lambda self: [(i,) for i in range(self.shape[0])] if stacked else range(self.shape[0])


def _group_products_of_any_width():
    """The kernel takes bf16, fp32 and fp16 (GroupedMMUtils.h, _grouped_mm_validate_inputs); what torch 2.9 knows of its shapes without one refuses all but bf16."""
    known = torch._meta_registrations._meta_grouped_mm_common

    def of_any_width(mat_a, mat_b, scale_a, scale_b, offs=None, bias=None, scale_result=None, out_dtype=None, use_fast_accum=False):
        if scale_a is not None or mat_a.dtype == torch.bfloat16:
            return known(mat_a, mat_b, scale_a, scale_b, offs, bias, scale_result, out_dtype, use_fast_accum)
        return torch._meta_registrations._create_grouped_mm_output_tensor(mat_a, mat_b, offs, out_dtype)

    torch._meta_registrations._meta_grouped_mm_common = of_any_width


_group_products_of_any_width()


def _group_without_torch(rows):
    """transformers' own operator, which asks where each group of so many rows ends."""
    importlib.import_module("transformers.integrations.moe")._can_use_grouped_mm = lambda *_args: False
    FakeTensor.tolist = lambda ends: [rows * (i + 1) // ends.numel() for i in range(ends.numel())]


REAL_MOE = getattr(getattr(deepseek_v2, "DeepseekV2MoE", None), "moe", None)  # of transformers 4


def _split_tokens_evenly():
    """DeepSeek-V2 goes through the counts of tokens, one number on the GPU at a time, and cuts rows where their sums say."""
    def moe(self, hidden_states, topk_ids, topk_weight):
        experts = len(self.experts)
        rows = topk_ids.numel() // experts
        asked = iter(range(2, 2 * experts + 2))  # the end of the first, then the beginning and the end of each
        torch.Tensor.__bool__ = lambda self: False
        torch.Tensor.__index__ = lambda self: rows * (next(asked) // 2)
        return REAL_MOE(self, hidden_states, topk_ids, topk_weight)

    deepseek_v2.DeepseekV2MoE.moe = moe


def _know_what_liger_asks():
    """Its Triton kernels do not run; how many targets count and whether the loss's gradient is one are values."""
    def equal(a, b):
        torch.eq(a, b).all()
        return False

    real_addmm = torch.addmm

    def addmm(*args, out_dtype=None, out=None, **kwargs):
        return out if out_dtype else real_addmm(*args, out=out, **kwargs)  # the overload with out_dtype has no fake kernel: onto `out`, which is its first argument too

    torch.addmm = addmm
    triton.runtime.jit.KernelInterface.__getitem__ = lambda self, grid: lambda *_args, **_kwargs: None
    torch.Tensor.item = lambda self: 1
    torch.equal = equal


def _know_that_all_count():
    """TRL takes the positions whose label counts by a mask, whose values fake tensors have not: here all do."""
    _know_what_liger_asks()
    real_getitem = torch.Tensor.__getitem__

    def getitem(self, index):
        if not isinstance(index, torch.Tensor) or index.dtype != torch.bool:
            return real_getitem(self, index)
        places = torch.empty(index.numel(), index.dim(), dtype=torch.int64, device=index.device)
        return real_getitem(self, tuple(places.unbind(1)))

    torch.Tensor.__getitem__ = getitem


class Count:
    """AveragedModel's n_averaged, whose value it asks for: a tensor of the host, which goes to the GPU."""

    def __init__(self):
        self.value = 0

    def __iadd__(self, more):
        self.value += more
        return self

    def __eq__(self, other):
        return self.value == other

    def __gt__(self, other):
        return self.value > other

    def to(self, device):
        return torch.empty((), dtype=torch.int64, device=device)


class _Several:
    """Optimizers, one after the other."""

    def __init__(self, *optimizers):
        self.optimizers = optimizers

    def step(self):
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self):
        for optimizer in self.optimizers:
            optimizer.zero_grad()


class Run:
    """The state of one training process. `tracker` holds what was recorded."""

    def __init__(self, case):
        if transformers.__version__ != case.transformers:
            raise SystemExit(f"{case.name()} wants transformers {case.transformers}; this is {transformers.__version__}")
        self.case = case
        self.fake_mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.tracker = Tracker()
        self.routed = self.scaled = None
        if case.parallel != "none":
            from dryfit.tracing import group
            group.join(case.rank, case.gpus)
            self.mesh = init_device_mesh("cuda", (case.gpus,))
        if case.grpo:
            import rollouts  # noqa: F401  (which answers for masks itself)
        elif case.padded:  # not all of a mask's values are one, which fake tensors do not know
            torch.Tensor.__bool__ = lambda self: False
        else:
            _know_masks_are_ones()

    def config(self):
        fields = dict(self.case.architecture())
        fields.pop("architectures")
        config = transformers.AutoConfig.for_model(self.case.model, **fields)
        config._attn_implementation = self.case.attention
        config.use_cache = self.case.use_cache
        return config

    def know_values(self, config):
        """What fake tensors cannot say and a model asks: which expert a token goes to, where texts begin."""
        case = self.case
        for name in ("num_local_experts", "num_experts", "n_routed_experts"):
            if getattr(config, name, None):
                if case.compiled:
                    self.routed = Routed(getattr(config, name))
                else:
                    _share_tokens_evenly(getattr(config, name), config.model_type == "gpt_oss")
                break
        if case.by_transformers:
            _group_without_torch(case.batch * case.length * config.num_experts_per_tok)
        if case.model == "deepseek_v2" and REAL_MOE:
            _split_tokens_evenly()
        if case.attention.startswith("flash_attention"):
            importlib.import_module({"flash_attention_2": "attention2", "flash_attention_3": "attention3_transformers"}[case.attention])
            packed_texts.know(case.attention, case.batch if case.packed else 0, case.length, case.padded)

    def build(self):
        case, config = self.case, self.config()
        self.know_values(config)
        if isinstance(case.liger, str):  # axolotl's plugin, before the model is made
            _know_what_liger_asks()
            from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN
            MODEL_TYPE_TO_APPLY_LIGER_FN[case.model](**{part: part in case.liger.split("+") for part in ("rope", "rms_norm", "swiglu", "fused_linear_cross_entropy")})
        model = self._made(config)
        if case.pairs:
            import pairs
            if case.pairs.startswith("factory"):
                pairs.checkpoint(model, case)
        if case.quantized:
            import four_bit
            model = four_bit.put_into(model, torch.bfloat16 if case.precision.startswith("bf16") else torch.float32, self._storage())
            if case.adapter == "kbit":  # peft's prepare_model_for_kbit_training
                four_bit.raise_rest(model)
        if case.lora:
            model = self._with_lora(model)
            if case.adapter == "bf16":  # SFTTrainer beside 4-bit weights
                for parameter in model.parameters():
                    parameter.data = parameter.data.to(torch.bfloat16) if parameter.requires_grad else parameter.data
        if case.liger is True:  # Trainer does so, to the model within peft's
            _know_what_liger_asks()
            from liger_kernel.transformers import _apply_liger_kernel_to_instance
            _apply_liger_kernel_to_instance(model=model.get_base_model() if case.lora else model)
        if case.cut or case.kernels:
            import axolotl_parts
            axolotl_parts.put_into(model, case)
        self._put_head(model)
        if case.pairs:
            model = pairs.wrapped(model, case)
        self._to_gpu(model, four_bit.weights(model) if case.quantized else (), self._storage())
        if case.quantized:
            four_bit.keep_states(model)
        if case.dpo:
            self._prefer(model)
        elif case.pairs:
            self.preference = pairs.of(self, model)
        if case.grpo:
            self._roll_out(model)
        return self._ready(model)

    def _made(self, config):
        """The model as its file has it, without memory."""
        owner = getattr(transformers, self.case.architecture()["architectures"][0])
        with torch.device("meta"):
            model = owner(config)
        return model.to(torch.bfloat16) if self.case.precision.startswith("bf16") else model

    def _prefer(self, model):
        """DPOTrainer around it, with its reference model where it has one."""
        import preference
        case, reference = self.case, None
        if not case.padded:
            torch.Tensor.__bool__ = lambda self: True  # whether there are tokens to take the mean over
        if not case.lora and case.dpo != "precomputed":
            reference = self._made(self.config()).eval()
            preference.put_head(reference, reference=True)
            reference = self._prepared_reference(reference)
        if not case.parallel.startswith(("fsdp", "zero")):
            preference.as_prepared(model, torch.bfloat16 if case.precision.endswith("autocast") else None)
        self.preference = preference.Preference(model, reference, case.dpo == "precomputed", case.checkpoint)

    def _roll_out(self, model):
        """GRPOTrainer around it."""
        import preference
        import rollouts
        case, reference = self.case, None
        half = torch.bfloat16 if case.precision.endswith("autocast") else None
        if not case.lora and transformers_cases.rollouts_of(case)["beta"]:
            reference = self._made(self.config()).eval()
            rollouts.put_head(reference, reference=True)
            self._to_gpu(reference)
            preference.as_prepared(reference, half)
        preference.as_prepared(model, half)
        self.rollouts = rollouts.Rollouts(case, model, reference, self.tracker.mark)

    def _prepared_reference(self, reference):
        """As DPOTrainer.__init__ leaves it, from the host: on this GPU whole, or shared out."""
        import preference
        case = self.case
        if case.parallel.startswith("fsdp"):
            self._to_gpu(reference, on_host=True)
            on_host.let_data_move()
            return preference.prepare_fsdp(reference, self._accelerator())
        self._to_gpu(reference)
        return preference.as_prepared(reference, torch.bfloat16 if case.precision.endswith("autocast") else None)

    def offloads(self):
        """Whether FSDP keeps shards, gradients and the optimizer on the host."""
        return self.case.parallel.endswith("_offload") or "offload" in self.case.fsdp

    def _storage(self):
        """bnb_4bit_quant_storage: under FSDP the model's dtype, without which it is not shared out."""
        return torch.bfloat16 if self.case.parallel.startswith("fsdp") else torch.uint8

    def _put_head(self, model):
        """SFTTrainer's, where the case has it."""
        inner = model.get_base_model() if self.case.lora else model
        if self.case.trl:
            _know_that_all_count()
            from trl.trainer.utils import add_fused_lm_head
            add_fused_lm_head(inner, outputs=("log_probs", "entropy", "is_top1"))
        elif self.case.grpo:
            _know_that_all_count()
            import rollouts
            rollouts.put_head(inner)
        elif self.case.dpo:
            _know_that_all_count()
            import preference
            preference.put_head(inner)
            if self.case.lora:
                preference.disable_dropout_in_model(model)
        elif self.case.pairs:
            _know_that_all_count()
            pairs = sys.modules["pairs"]
            pairs.put_head(inner, self.case)
            if self.case.pairs != "factory_rm":
                pairs.drop_nothing(model)

    def _ready(self, model):
        """For training, with the checkpoints of the case."""
        case = self.case
        model.train()
        if case.checkpoint != "none" and not case.pairs.startswith("factory"):
            if case.lora:
                model.enable_input_require_grads()
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": case.checkpoint == "reentrant"})
        gc.collect()
        self.model = model
        if case.compiled:
            self._compile()
        return model

    def _compile(self):
        """torch.compile(model) as accelerate's prepare_model leaves it: autocast and the conversion of its outputs are part of the graph."""
        model = self.model

        def forward(**inputs):
            return model(**inputs)

        if self.case.precision.endswith("autocast"):
            forward = convert_outputs_to_fp32(torch.amp.autocast("cuda", dtype=torch.bfloat16)(forward))
        if transformers_cases.breaks(self.case):
            self.compiled = Broken(forward, self.fake_mode, self.tracker)
            if self.routed:
                self._vary_rows()
            return
        self.compiled = Compiled(forward, self.fake_mode, self.tracker, fullgraph=True)
        with _disable_current_modes(), self.fake_mode:  # unseen by the tracker
            example = self.batch()
        self.compiled.prepare(**example)

    def _vary_rows(self):
        """An expert's MLP is compiled for the first number of rows that any gets, and, when another comes, once for all numbers: as good as always the latter runs."""
        with _disable_current_modes(), self.tracker.unseen(), self.fake_mode, self.routed:
            self.routed.more = 8
            self.compiled(**self.batch())
            self.routed.more = 0
            gc.collect()

    def _to_gpu(self, model, four_bit=(), storage=torch.uint8, on_host=False):
        """Parameters and buffers one by one, in order; a tied one once. to_empty would untie them. four_bit: ids of those that are quantized. Under FSDP that
        keeps its shards on the host they wait there, and so does what is yet to be shared out."""
        made, place = {}, "cpu" if on_host or self.offloads() else "cuda"
        for module in model.modules():
            for group in (module._parameters, module._buffers):
                for name, tensor in group.items():
                    if tensor is None:
                        continue
                    if id(tensor) not in made:
                        gpu = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda" if id(tensor) in four_bit else place)
                        if id(tensor) in four_bit:
                            gpu = sys.modules["four_bit"].in_4_bits(gpu, storage, place)
                        made[id(tensor)] = (tensor, gpu if id(tensor) in four_bit else torch.nn.Parameter(gpu, requires_grad=tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else gpu)
                    group[name] = made[id(tensor)][1]

    def _with_lora(self, model, cast=True):
        import peft
        if self.case.adapter == "prompt":
            return peft.get_peft_model(model, peft.PromptTuningConfig(num_virtual_tokens=self.case.lora, task_type="CAUSAL_LM"), autocast_adapter_dtype=cast)
        way = self.case.adapter.partition("=")
        options = {"use_dora": way[0] == "dora", "bias": "lora_only" if way[0] == "bias" else "none", "modules_to_save": way[2].split("+") if way[0] == "save" else None}
        targets = self.case.lora_targets.split(",") if self.case.lora_targets else None
        kind = {"": "CAUSAL_LM", "SequenceClassification": "SEQ_CLS", "TokenClassification": "TOKEN_CLS", "QuestionAnswering": "QUESTION_ANS"}[transformers_cases.task_of(self.case)]
        config = peft.LoraConfig(r=self.case.lora, lora_alpha=16, lora_dropout=self.case.lora_dropout, target_modules=targets, task_type=kind, **options)
        return peft.get_peft_model(model, config, autocast_adapter_dtype=cast)

    def _parallel(self, model):
        """The model as one rank of several holds it; a group that does not communicate has no say in memory but NCCL's own."""
        case = self.case
        if case.parallel == "none":
            return model
        self.tracker.adopt([*model.parameters(), *model.buffers()], "load")
        self.tracker.mark("parallel")
        if case.parallel.startswith("ddp"):
            from dryfit.tracing import group
            # accelerate's call; init_sync would read metadata from tensors that have no data
            torch.distributed.Reducer = group.Reducer
            model = torch.nn.parallel.DistributedDataParallel(
                model, device_ids=[0], output_device=0, find_unused_parameters=case.parallel == "ddp", init_sync=False)
            model.register_comm_hook(None, group.sums)
            return model
        if self.offloads():
            on_host.let_data_move()
        torch.accelerator.current_stream = torch.cuda.current_stream  # which waits for a unit that was gathered ahead and not needed
        return fsdp2_prepare_model(self._accelerator(), model)

    def _accelerator(self):
        """What accelerate's fsdp2_prepare_model asks of its own, as its launcher leaves it."""
        case, policy = self.case, None
        if case.precision.endswith("autocast"):
            policy = fsdp.MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16, output_dtype=torch.bfloat16)
        plugin = types.SimpleNamespace(
            fsdp_version=2, set_auto_wrap_policy=lambda _model: None, auto_wrap_policy=functools.partial(transformer_auto_wrap_policy), transformer_cls_names_to_wrap=None, ignored_modules=None,
            reshard_after_forward=case.parallel != "fsdp2_keep", cpu_offload=fsdp.CPUOffloadPolicy() if self.offloads() else None, mixed_precision_policy=policy, cpu_ram_efficient_loading=False)
        # beside Params4bit it leaves adapters as they are, as without mixed precision
        return types.SimpleNamespace(
            state=types.SimpleNamespace(fsdp_plugin=plugin), mixed_precision="bf16" if policy and not case.quantized else "no", is_main_process=False, torch_device_mesh={("dp",): self.mesh},
            parallelism_config=types.SimpleNamespace(fsdp_dim_names=["dp"]), device=torch.device("cuda", 0))

    def optimizer(self):
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        kind, _, decay = self.case.optimizer.partition("+")  # "rmsprop+decay": of matrices, as Trainer.create_optimizer groups them
        matrices = [p for p in parameters if p.ndim >= 2]
        groups = [{"params": matrices, "weight_decay": 0.01 if decay else 0.0}, {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0}]
        match kind:
            case "plain_sgd":
                return torch.optim.SGD(groups, lr=1e-4, foreach=True)
            case "rmsprop":
                return torch.optim.RMSprop(groups, lr=1e-4, foreach=True)
            case "adagrad":
                return torch.optim.Adagrad(groups, lr=1e-4, foreach=True)
            case kind if kind.startswith("bnb_"):
                import bitsandbytes_optimizer
                return bitsandbytes_optimizer.of(self.model, kind.removeprefix("bnb_"), groups)
            case "sgd":
                return torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, weight_decay=0.01, foreach=True)  # on a GPU the default
            case "adafactor":
                return transformers.optimization.Adafactor(parameters, lr=1e-4, scale_parameter=False, relative_step=False)
            case "muon":  # what torch's documentation asks for: matrices of hidden layers, and AdamW of all else
                blocks = [p for name, p in self.model.named_parameters() if p.requires_grad and p.ndim == 2 and re.search(r"\.\d+\.", name)]
                of_muon = {id(p) for p in blocks}
                others = [p for p in parameters if id(p) not in of_muon]
                return _Several(torch.optim.Muon(blocks, lr=1e-4), *([torch.optim.AdamW(others, lr=1e-4, foreach=True)] if others else []))
            case kind:
                return torch.optim.AdamW(parameters, lr=1e-4, foreach=kind == "foreach", fused=kind == "fused")

    def batch(self, sequences=0):
        """So many, or those of training."""
        if self.case.dpo:
            return sys.modules["preference"].batch(self.case.batch, self.case.length, self.case.dpo == "precomputed")
        if self.case.pairs:
            return sys.modules["pairs"].batch(self.case)
        sequences = sequences or self.case.batch
        rows = 1 if self.case.packed else sequences

        def ids():
            return torch.empty(rows, sequences * self.case.length // rows, dtype=torch.int64, device="cuda")
        task = transformers_cases.task_of(self.case)
        if task:
            return self._batch_of_classes(task, sequences, ids)
        return {"input_ids": ids(), "position_ids" if self.case.packed else "attention_mask": ids(), "labels": ids()}

    def _batch_of_classes(self, task, rows, ids):
        """As transformers' examples collate it: default_data_collator brings labels first; BERT's tokenizer says of which text each token is. What an answer is evaluated on has no labels."""
        def labels():
            return torch.empty(rows, dtype=torch.float32 if self.case.architecture().get("num_labels") == 1 else torch.int64, device="cuda")
        inputs = {"input_ids": ids(), **({"token_type_ids": ids()} if self.case.model == "bert" else {}), "attention_mask": ids()}
        if task == "SequenceClassification":
            return {"labels": labels(), **inputs}
        if task == "TokenClassification":
            return {**inputs, "labels": ids()}
        return {**inputs, **({"start_positions": labels(), "end_positions": labels()} if rows == self.case.batch else {})}

    def autocast(self):
        # accelerate leaves autocast out where fully_shard computes in 16 bits
        if self.case.precision.endswith("autocast") and not self.case.parallel.startswith("fsdp2"):
            return torch.amp.autocast("cuda", dtype=torch.bfloat16)
        if self.case.precision == "fp16":
            return torch.amp.autocast("cuda", dtype=torch.float16)
        return contextlib.nullcontext()

    def scaler(self):
        """accelerate's, of fp16; whether a gradient is infinite, which its step reads from the GPU, has no answer here: none is."""
        if self.case.precision == "fp16":
            torch.Tensor.item = lambda self: 0
            return torch.amp.GradScaler()
        return None

    @contextlib.contextmanager
    def _accumulating(self, micro):
        """accelerate.Accelerator.no_sync around all micro-steps but the last."""
        more = micro + 1 < self.case.accumulation
        if self.case.parallel.startswith("ddp") and more:
            with self.model.no_sync():
                yield
            return
        if self.case.parallel.startswith("fsdp2"):
            self.model.set_requires_gradient_sync(not more)
        yield

    def micro_step(self, step, micro):
        tracker = self.tracker
        tracker.mark(f"{step} {micro + 1} data")
        inputs = self.rollouts.inputs() if self.case.grpo else self.batch()
        tracker.mark(f"{step} {micro + 1} forward")
        if self.case.compiled:
            with self.routed or contextlib.nullcontext():
                outputs = self.compiled(**inputs)  # what Dynamo's graph hands out: the cache's keys and values, the loss, the logits
            loss = outputs["loss"] if transformers_cases.breaks(self.case) else next(t for t in outputs if t.dim() == 0)
            del outputs, inputs
        elif self.case.grpo:
            loss = self.rollouts.loss(self.model, inputs)
            del inputs
        elif self.case.dpo or self.case.pairs:
            loss = self.preference.loss(self.model, inputs)
            del inputs
        elif self.case.trl:
            with self.autocast():
                outputs = self.model(**inputs, fused_lm_head=True)
            loss = self._sft_loss(outputs)
            del outputs, inputs
        else:
            with self.autocast():
                outputs = self.model(**inputs)
            if self.case.trainer:
                outputs = convert_to_fp32(outputs)  # accelerate's convert_outputs_to_fp32 around a forward pass under autocast
            loss = outputs["loss"]
            del outputs, inputs
        if self.case.accumulation > 1 and not self.case.grpo:  # GRPOTrainer's loss is scaled as it is taken
            loss = loss / self.case.accumulation
        tracker.mark(f"{step} {micro + 1} backward")
        (self.scaled.scale(loss) if self.scaled else loss).backward()

    @staticmethod
    def _sft_loss(outputs):
        """SFTTrainer.compute_loss, after the model's forward."""
        per_token_loss = -outputs.log_probs
        loss = per_token_loss.sum() / outputs.label_mask.sum().clamp(min=1)
        outputs.label_mask.sum(), outputs.entropy.detach().sum(), outputs.is_top1.sum()  # what it logs
        return loss

    @staticmethod
    def _average(model):
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
        del average.n_averaged
        average.n_averaged = Count()
        return average

    def clip(self):
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.case.clip)

    def _take_step(self, optimizer):
        """As accelerate does: gradients are unscaled before they are clipped, else by the step."""
        if not self.scaled:
            return optimizer.step()
        self.scaled.step(optimizer)
        self.scaled.update()

    def record(self):
        try:
            self._record()
        finally:
            if self.case.parallel != "none":
                torch.distributed.destroy_process_group()

    def _record(self):
        case = self.case
        with self.fake_mode, self.tracker as tracker:
            tracker.mark("load")
            model = self.model = self._parallel(self.build())
            if case.dpo and case.parallel.startswith("fsdp"):
                self.preference.trainer.model = model  # Trainer: self.model = self.model_wrapped = model
            average = self._average(model) if self.case.ema else None
            tracker.adopt([*model.parameters(), *model.buffers()], "load")
            optimizer = self.optimizer()
            self.scaled = self.scaler()
            for step in ("first_step", "train_step"):
                for micro in range(self.case.accumulation):
                    with self._accumulating(micro):
                        self.micro_step(step, micro)
                tracker.mark(f"{step} clip")
                if self.case.clip > 0:
                    if self.scaled:
                        self.scaled.unscale_(optimizer)
                    self.clip()
                tracker.mark(f"{step} optimizer")
                self._take_step(optimizer)
                tracker.mark(f"{step} zero_grad")
                model.zero_grad(set_to_none=True)
                if average:
                    average.update_parameters(model)
            if case.evaluation:
                import evaluation
                evaluation.evaluate(self)
            tracker.mark("end")
