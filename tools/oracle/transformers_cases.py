"""What is recorded of Hugging Face transformers: small models of each family, two optimizer steps each. As cases.py: `seen()` is what the
engine is fixed against, `unseen()` judges it.
"""
import dataclasses
import hashlib
import itertools
import json
import re

# model_type -> (architecture fields of config.json, small). Vocabularies are odd on purpose.
MODELS = {
    "llama": dict(architectures=["LlamaForCausalLM"], hidden_size=256, intermediate_size=688, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=1003,
                  max_position_embeddings=512),
    "gpt2": dict(architectures=["GPT2LMHeadModel"], n_embd=192, n_layer=3, n_head=3, vocab_size=1003, n_positions=512),
    "qwen2": dict(architectures=["Qwen2ForCausalLM"], hidden_size=256, intermediate_size=704, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=1007,
                  tie_word_embeddings=True, max_position_embeddings=512),
    "qwen3": dict(architectures=["Qwen3ForCausalLM"], hidden_size=256, intermediate_size=704, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=96,
                  vocab_size=1007, tie_word_embeddings=False, max_position_embeddings=512),
    "gemma2": dict(architectures=["Gemma2ForCausalLM"], hidden_size=256, intermediate_size=704, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=64,
                   vocab_size=1011, max_position_embeddings=512, sliding_window=96),
    "mixtral": dict(architectures=["MixtralForCausalLM"], hidden_size=256, intermediate_size=448, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=1003,
                    num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=512),
    "olmo": dict(architectures=["OlmoForCausalLM"], hidden_size=256, intermediate_size=688, num_hidden_layers=3, num_attention_heads=4, vocab_size=1003, max_position_embeddings=512,
                 tie_word_embeddings=True),
    "olmo2": dict(architectures=["Olmo2ForCausalLM"], hidden_size=256, intermediate_size=688, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=1003,
                  max_position_embeddings=512),
    "gpt_neox": dict(architectures=["GPTNeoXForCausalLM"], hidden_size=256, intermediate_size=1024, num_hidden_layers=3, num_attention_heads=4, vocab_size=1003, max_position_embeddings=512),
    "phi": dict(architectures=["PhiForCausalLM"], hidden_size=256, intermediate_size=1024, num_hidden_layers=3, num_attention_heads=4, vocab_size=1003, max_position_embeddings=512),
    "phi3": dict(architectures=["Phi3ForCausalLM"], hidden_size=256, intermediate_size=688, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=1003,
                 max_position_embeddings=512, original_max_position_embeddings=512, pad_token_id=0),
    "gemma3_text": dict(architectures=["Gemma3ForCausalLM"], hidden_size=256, intermediate_size=704, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=64,
                        vocab_size=1011, max_position_embeddings=512, sliding_window=96),
    "distilbert": dict(architectures=["DistilBertForMaskedLM"], dim=192, hidden_dim=768, n_layers=3, n_heads=3, vocab_size=1009, max_position_embeddings=512),
    "xlm-roberta": dict(architectures=["XLMRobertaForMaskedLM"], hidden_size=192, intermediate_size=768, num_hidden_layers=3, num_attention_heads=3, vocab_size=1009,
                        max_position_embeddings=514),
    "olmoe": dict(architectures=["OlmoeForCausalLM"], hidden_size=256, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, vocab_size=1003,
                  num_experts=8, num_experts_per_tok=2, max_position_embeddings=512, output_router_logits=False),
    "qwen2_moe": dict(architectures=["Qwen2MoeForCausalLM"], hidden_size=256, intermediate_size=704, moe_intermediate_size=192, shared_expert_intermediate_size=448, num_hidden_layers=2,
                      num_attention_heads=4, num_key_value_heads=2, vocab_size=1003, num_experts=8, num_experts_per_tok=2, max_position_embeddings=512),
    "qwen3_moe": dict(architectures=["Qwen3MoeForCausalLM"], hidden_size=256, intermediate_size=704, moe_intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
                      num_key_value_heads=2, head_dim=96, vocab_size=1003, num_experts=8, num_experts_per_tok=2, max_position_embeddings=512, norm_topk_prob=True),
    "deepseek_v2": dict(architectures=["DeepseekV2ForCausalLM"], hidden_size=256, intermediate_size=704, moe_intermediate_size=192, num_hidden_layers=3, num_attention_heads=4,
                        num_key_value_heads=4, vocab_size=1003, n_routed_experts=8, n_shared_experts=2, num_experts_per_tok=2, first_k_dense_replace=1, q_lora_rank=None, kv_lora_rank=64,
                        qk_nope_head_dim=48, qk_rope_head_dim=16, v_head_dim=48, topk_method="greedy", n_group=1, topk_group=1, max_position_embeddings=512),
    "deepseek_v3": dict(architectures=["DeepseekV3ForCausalLM"], hidden_size=256, intermediate_size=704, moe_intermediate_size=192, num_hidden_layers=3, num_attention_heads=4,
                        num_key_value_heads=4, vocab_size=1003, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2, first_k_dense_replace=1, q_lora_rank=96, kv_lora_rank=64,
                        qk_nope_head_dim=48, qk_rope_head_dim=16, v_head_dim=48, n_group=4, topk_group=2, norm_topk_prob=True, max_position_embeddings=512),
    "mistral": dict(architectures=["MistralForCausalLM"], hidden_size=256, intermediate_size=688, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=1003,
                    max_position_embeddings=512, sliding_window=None),
    "gemma": dict(architectures=["GemmaForCausalLM"], hidden_size=256, intermediate_size=704, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=64, vocab_size=1011,
                  max_position_embeddings=512),
    "smollm3": dict(architectures=["SmolLM3ForCausalLM"], hidden_size=256, intermediate_size=688, num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=2, vocab_size=1003,
                    max_position_embeddings=512, pad_token_id=0),
    "olmo3": dict(architectures=["Olmo3ForCausalLM"], hidden_size=256, intermediate_size=688, num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=2, vocab_size=1003,
                  max_position_embeddings=512, sliding_window=96),
    "granite": dict(architectures=["GraniteForCausalLM"], hidden_size=256, intermediate_size=688, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=1003,
                    max_position_embeddings=512, embedding_multiplier=12.0, logits_scaling=16.0, residual_multiplier=0.22, attention_multiplier=0.0078125, tie_word_embeddings=True),
    "seed_oss": dict(architectures=["SeedOssForCausalLM"], hidden_size=256, intermediate_size=688, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2, head_dim=64, vocab_size=1003,
                     max_position_embeddings=512),
    "arcee": dict(architectures=["ArceeForCausalLM"], hidden_size=256, intermediate_size=1024, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=1003,
                  max_position_embeddings=512),
    "starcoder2": dict(architectures=["Starcoder2ForCausalLM"], hidden_size=256, intermediate_size=1024, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=1003,
                       max_position_embeddings=512, residual_dropout=0.1, embedding_dropout=0.1, attention_dropout=0.1),
    "exaone4": dict(architectures=["Exaone4ForCausalLM"], hidden_size=256, intermediate_size=688, num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=2, vocab_size=1003,
                    max_position_embeddings=512, sliding_window=96),
    "gpt_oss": dict(architectures=["GptOssForCausalLM"], hidden_size=256, intermediate_size=192, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=64, vocab_size=1003,
                    num_local_experts=8, num_experts_per_tok=2, max_position_embeddings=512, sliding_window=96),
    "bert": dict(architectures=["BertForMaskedLM"], hidden_size=192, intermediate_size=768, num_hidden_layers=3, num_attention_heads=3, vocab_size=1009, max_position_embeddings=512),
    "roberta": dict(architectures=["RobertaForMaskedLM"], hidden_size=192, intermediate_size=768, num_hidden_layers=3, num_attention_heads=3, vocab_size=1009, max_position_embeddings=514),
}


LATER = ("smollm3", "olmo3", "granite", "seed_oss", "arcee", "starcoder2", "exaone4")  # fewer recordings each: they are written down by the same rules


# Widths of real models, a few layers of them.
SIZES = {
    "1b": dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=4, num_attention_heads=32, num_key_value_heads=8, vocab_size=128256, tie_word_embeddings=True, max_position_embeddings=8192),
    "0.5b": dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=4, num_attention_heads=14, num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True, max_position_embeddings=8192),
    "124m": dict(n_embd=768, n_layer=4, n_head=12, vocab_size=50304, n_positions=1024),
    "8x7b": dict(hidden_size=4096, intermediate_size=14336, num_hidden_layers=2, num_attention_heads=32, num_key_value_heads=8, vocab_size=32000, num_local_experts=8, max_position_embeddings=32768),
    "30b": dict(hidden_size=2048, intermediate_size=6144, moe_intermediate_size=768, num_hidden_layers=2, num_attention_heads=32, num_key_value_heads=4, head_dim=128, vocab_size=151936,
                num_experts=128, num_experts_per_tok=8, max_position_embeddings=32768),
    "160m": dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=4, num_attention_heads=12, vocab_size=50304, max_position_embeddings=2048),
    "70b": dict(hidden_size=8192, intermediate_size=28672, num_hidden_layers=2, num_attention_heads=64, num_key_value_heads=8, vocab_size=128256, tie_word_embeddings=False, max_position_embeddings=8192),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One recording: load, then two whole optimizer steps."""
    model: str
    batch: int = 4
    length: int = 160
    precision: str = "bf16"       # bf16: a bf16 model · autocast: an fp32 model under bf16 autocast · bf16+autocast · fp32 · fp16: an fp32 model under fp16 autocast, with GradScaler
    attention: str = "sdpa"       # attn_implementation
    checkpoint: str = "none"      # none · reentrant · nonreentrant
    optimizer: str = "foreach"    # torch.optim.AdamW: foreach · fused · loop; sgd (momentum and decay) · plain_sgd · rmsprop · adagrad, "+decay" · adafactor; muon, and AdamW beside it; "bnb_" and a word of --optim
    accumulation: int = 1
    lora: int = 0                 # rank; 0: full fine-tuning
    lora_targets: str = ""        # comma separated; empty: peft's default
    use_cache: bool = False
    liger: bool | str = False     # Trainer's use_liger_kernel; of its parts "rms_norm+swiglu+rope", as axolotl's plugin takes them
    cut: bool = False             # axolotl's cut_cross_entropy
    kernels: bool = False         # axolotl's LoRA kernels
    padded: bool = False          # rows are filled up to the longest: the mask has zeros
    packed: bool = False          # the batch's texts in one row, with positions and no mask
    lora_dropout: float = 0.05
    ema: bool = False             # torch.optim.swa_utils.AveragedModel of the model
    quantized: bool = False       # beside them, frozen weights in 4 bits, scales quantized too
    adapter: str = ""             # of LoRA, what is not its default: "dora", "bias", "save=lm_head+embed_tokens"; "kbit": what is not in 4 bits is raised to fp32; instead of it "prompt" with `lora` virtual tokens
    parallel: str = "none"        # ddp · ddp_rebuilt (find_unused_parameters=False) · fsdp2 · fsdp2_keep (reshard_after_forward=False) · fsdp2_offload (CPUOffloadPolicy) · fsdp1 · fsdp1_grad_op · zero0 (DeepSpeed's engine alone) · zero1 · zero2 · zero3
    gpus: int = 1                 # ranks
    rank: int = 0                 # the recorded one
    zero: str = ""                # of DeepSpeed's zero_optimization, what is not its default: "reduce_bucket_size=65536,overlap_comm"
    trl: bool = False             # SFTTrainer's head in tiles and its loss
    dpo: str = ""                 # DPOTrainer's loss of `batch` pairs: "reference" (a copy of the model, or the model without its adapters) · "precomputed" (precompute_ref_log_probs)
    pairs: str = ""               # another trainer's loss of `batch` pairs, or of KTO's answers (pairs.py): "reward", "kto", "factory_dpo", ...
    grpo: str = ""                # GRPOTrainer, `batch` completions of `length` tokens with their prompts: "new=12,generations=2" says how long completions are (rollouts_of)
    compiled: bool = False        # Trainer's torch_compile: the model's forward as one graph
    vocab: int = 0                # other than the model's
    size: str = ""                # of SIZES
    trainer: bool = False         # under autocast, outputs in 16 bits become fp32, as accelerate does for Trainer
    transformers: str = "4.57.1"
    by_transformers: bool = False # experts' grouped products by its own operator, as where torch has none for the GPU
    fsdp: str = ""                # of FSDP1, what is not accelerate's default: "prefetch=none,orig=false" (fsdp_session.py)
    torch: str = "2.9.1"          # only this version records it
    clip: float = 1.0             # max_grad_norm; 0: no clipping
    evaluation: str = ""          # Trainer's, after the steps: "batch=8,keeps=loss,accumulation=0" says its batch, what stays of each (loss, argmax, logits) and eval_accumulation_steps
    shape: str = ""               # fields of config.json over the model's, as JSON

    kind = "transformers"

    def architecture(self):
        """Of config.json, all but the model's type."""
        return MODELS[self.model] | SIZES.get(self.size, {}) | ({"vocab_size": self.vocab} if self.vocab else {}) | (json.loads(self.shape) if self.shape else {})

    def header(self):
        """What the recording says of itself: these fields, and the model's config.json."""
        config = {"model_type": self.model, **self.architecture()}
        fields = dataclasses.asdict(self)
        del fields["vocab"], fields["size"], fields["shape"], fields["torch"]  # pack.py tells the latter of all recordings
        if self.parallel == "none":
            del fields["parallel"], fields["gpus"]
        for name in ("liger", "adapter", "compiled", "trl", "dpo", "grpo", "pairs", "cut", "kernels", "quantized", "packed", "padded", "ema", "trainer", "by_transformers"):
            if not fields[name]:
                del fields[name]
        if self.transformers == "4.57.1":
            del fields["transformers"]
        if self.lora_dropout == 0.05:
            del fields["lora_dropout"]
        if self.clip == 1.0:
            del fields["clip"]
        if not self.evaluation:
            del fields["evaluation"]
        if not self.parallel.startswith(("zero", "fsdp1")):
            del fields["rank"]
        if not self.parallel.startswith("zero"):
            del fields["zero"]
        if not self.parallel.startswith("fsdp1"):
            del fields["fsdp"]
        return {"kind": self.kind, **fields, "config": config}

    def name(self):
        parts = [self.kind, self.model, f"B{self.batch}", f"T{self.length}", self.precision, self.attention, self.optimizer]
        parts += [self.checkpoint] if self.checkpoint != "none" else []
        parts += [f"A{self.accumulation}"] if self.accumulation > 1 else []
        parts += [f"lora{self.lora}"] if self.lora else []
        parts += [self.lora_targets.replace(",", "+")] if self.lora_targets else []
        parts += ["cache"] if self.use_cache else []
        parts += ["liger" if self.liger is True else f"liger_{self.liger}"] if self.liger else []
        parts += [name for name in ("cut", "kernels", "quantized", "packed", "padded", "ema") if getattr(self, name)]
        parts += [f"drop{self.lora_dropout}"] if self.lora_dropout != 0.05 else []
        parts += ["trl"] if self.trl else []
        parts += ["dpo" if self.dpo == "reference" else f"dpo_{self.dpo}"] if self.dpo else []
        parts += [self.pairs] if self.pairs else []
        parts += [f"grpo_{self.grpo.replace('=', '_').replace(',', '+')}"] if self.grpo else []
        parts += ["compiled"] if self.compiled else []
        parts += [f"V{self.vocab}"] if self.vocab else []
        parts += [self.size] if self.size else []
        parts += [self.adapter.replace("=", "_")] if self.adapter else []
        parts += [self.parallel, f"W{self.gpus}"] if self.parallel != "none" else []
        parts += [f"r{self.rank}"] if self.rank else []
        parts += [self.zero.replace(",", "+").replace("=", "_").replace("stage3_", "")] if self.zero else []
        parts += [self.fsdp.replace(",", "+").replace("=", "_")] if self.fsdp else []
        parts += ["trainer"] if self.trainer else []
        parts += ["by_transformers"] if self.by_transformers else []
        parts += [self.transformers] if self.transformers != "4.57.1" else []
        parts += [f"torch{self.torch}"] if self.torch != "2.9.1" else []
        parts += ["noclip"] if self.clip == 0 else []
        parts += [f"eval_{self.evaluation.replace('=', '_').replace(',', '+')}"] if self.evaluation else []
        parts += [hashlib.sha256(self.shape.encode()).hexdigest()[:7]] if self.shape else []
        return "-".join(parts)


def _head(model, task, labels=2, **more):
    """A `shape`: the class of a model that ends in `task`, as its file names it, with so many labels. Causal ones find a row's last token by the padding's number."""
    owner = re.sub("(ForCausalLM|ForMaskedLM|LMHeadModel)$", "", MODELS[model]["architectures"][0]) + task
    words = {"architectures": [owner]} | ({} if labels == 2 else {"num_labels": labels}) | ({} if "Masked" in MODELS[model]["architectures"][0] else {"pad_token_id": 0})
    return json.dumps(words | more, separators=(",", ":"))


def task_of(case):
    """SequenceClassification, TokenClassification, QuestionAnswering, or nothing where the head is of words."""
    owner = case.architecture()["architectures"][0]
    return owner.partition("For")[2] if owner.endswith(("Classification", "QuestionAnswering")) else ""


def evaluation_of(case):
    """The words of a case's evaluation."""
    words = dict(word.split("=") for word in case.evaluation.split(","))
    return {"batch": int(words["batch"]), "keeps": words.get("keeps", "loss"), "accumulation": int(words["accumulation"]) if "accumulation" in words else None}


def rollouts_of(case):
    """The words of a case's rollouts, over TRL's defaults; prompts: padded where they differ in length; vllm: a server of its writes."""
    words = {"new": 8, "generations": 2, "steps": case.accumulation, "iterations": 1, "beta": 0.0, "loss": "dapo", "level": "token", "prompts": "alike", "temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": None, "penalty": 1.0, "delta": None, "vllm": 0}
    for word in case.grpo.split(","):
        key, value = word.split("=")
        words[key] = value if isinstance(words[key], str) else float(value) if words[key] is None or isinstance(words[key], float) else int(value)
    return words


def seen():
    for model, precision, attention in itertools.product(MODELS, ("bf16", "autocast"), ("sdpa", "eager")):
        if model not in (*LATER, "gpt_oss", "roberta"):
            yield Case(model, precision=precision, attention=attention)
    for model in ("llama", "gpt2"):
        yield Case(model, precision="fp32")
        yield Case(model, checkpoint="reentrant")
        yield Case(model, precision="autocast", checkpoint="reentrant")
        yield Case(model, checkpoint="nonreentrant")
        yield Case(model, optimizer="fused", accumulation=2)
        yield Case(model, optimizer="loop")
        yield Case(model, optimizer="sgd")
        yield Case(model, optimizer="adafactor")
        yield Case(model, precision="autocast", optimizer="fused", accumulation=2)
        yield Case(model, lora=8)
        yield Case(model, precision="autocast", lora=8)
    yield Case("llama", use_cache=True)
    for model in ("gpt2", "gpt_neox", "phi3"):
        for precision in ("bf16", "autocast"):
            yield Case(model, precision=precision, use_cache=True)
    yield Case("llama", lora=16, lora_targets="q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj", checkpoint="reentrant")
    yield Case("llama", batch=3, length=96, optimizer="fused")
    yield Case("llama", batch=1, length=352, precision="autocast", accumulation=2)
    yield Case("gpt2", batch=2, length=224, precision="autocast", attention="eager", optimizer="fused")
    yield Case("qwen2", batch=2, length=192, checkpoint="reentrant")
    yield Case("qwen3", batch=5, length=64, lora=4, lora_targets="q_proj,v_proj,down_proj")
    yield Case("bert", batch=6, length=128, precision="autocast", optimizer="fused")
    yield Case("gemma2", batch=2, length=128)
    yield Case("gemma3_text", shape=BOTH_KINDS, precision="autocast", checkpoint="nonreentrant")
    yield Case("mixtral", batch=2, length=128, optimizer="fused")
    for precision in ("bf16", "autocast"):
        for model in ("llama", "gemma2"):
            yield Case(model, precision=precision, liger=True)
        for adapter in ("dora", "save=lm_head", "prompt"):
            yield Case("llama", precision=precision, lora=8, adapter=adapter)
    yield Case("llama", precision="fp32", liger=True)
    yield Case("llama", precision="autocast", liger=True, accumulation=2, checkpoint="nonreentrant", optimizer="fused")
    yield Case("llama", liger=True, lora=8)
    yield Case("qwen2", lora=8, adapter="bias")
    for model in ("mistral", "gemma", "qwen2", "phi3", "olmo2", "mixtral", "qwen3"):
        yield Case(model, batch=2, liger=True)
    yield Case("llama", lora=8, lora_targets="q_proj,down_proj", adapter="dora", checkpoint="nonreentrant")
    yield Case("llama", lora=8, adapter="save=embed_tokens+lm_head", accumulation=2)
    yield Case("gpt2", lora=8, adapter="dora")
    yield Case("llama", batch=2, length=300, precision="autocast", attention="eager", checkpoint="nonreentrant")
    again = dict(attention="eager", precision="autocast", checkpoint="nonreentrant", optimizer="fused")
    for model in LATER:
        yield Case(model, use_cache=True)
        yield Case(model, **again)
    yield Case("olmo2", **again)
    yield Case("olmo3", lora=8, lora_targets="q_proj,v_proj", checkpoint="reentrant")
    for model in ("smollm3", "olmo3"):
        yield Case(model, batch=2, liger=True)
    yield Case("gpt_oss", attention="eager", use_cache=True)
    yield Case("gpt_oss", **again)
    yield Case("gpt_oss", batch=2, attention="eager", checkpoint="reentrant")
    yield Case("gpt_oss", attention="eager", lora=8, lora_targets="q_proj,v_proj", checkpoint="nonreentrant")
    yield Case("gemma", batch=1, length=96, precision="autocast", checkpoint="nonreentrant", optimizer="adafactor", accumulation=3)
    yield Case("llama", optimizer="muon")
    yield Case("gpt2", optimizer="muon", precision="autocast", accumulation=2)
    yield Case("llama", optimizer="muon", lora=8, lora_targets=ALL_LINEAR)
    yield Case("llama", optimizer="plain_sgd+decay")
    yield Case("llama", optimizer="adagrad", accumulation=2)
    yield Case("llama", ema=True)
    yield Case("gpt2", ema=True, precision="autocast", optimizer="fused", accumulation=2)
    yield Case("gpt_oss", batch=1, length=168, precision="bf16+autocast", attention="eager", checkpoint="nonreentrant", optimizer="adafactor", accumulation=2)
    yield Case("deepseek_v3", batch=2, length=224, precision="bf16+autocast", checkpoint="nonreentrant", liger=True, lora=16, lora_targets="o_proj,kv_b_proj", lora_dropout=0.0, optimizer="sgd", accumulation=2)
    yield Case("gpt_neox", batch=1, length=224, precision="autocast", checkpoint="nonreentrant", lora=16, lora_targets="query_key_value,dense", lora_dropout=0.0)


# Of Gemma 3's layers the last of each so many sees all; a small model's all have a window.
BOTH_KINDS = '{"sliding_window_pattern": 2}'


def newest():
    """transformers 5, dense models."""
    def case(model, **rest):
        return Case(model, transformers="5.17.0", **rest)
    dense = [model for model in MODELS if model not in LATER and not any(part in model for part in ("moe", "mixtral", "deepseek", "gpt_oss"))]
    for model, precision in itertools.product(dense, ("bf16", "autocast")):
        yield case(model, precision=precision, trainer=precision == "autocast")
    for model in ("llama", "gpt2", "bert", "gemma3_text"):
        yield case(model, attention="eager", precision="autocast", trainer=True)
        yield case(model, checkpoint="nonreentrant", precision="autocast", trainer=True, optimizer="fused", accumulation=2)
    for model in ("llama", "gpt2", "qwen3"):
        yield case(model, lora=8, precision="bf16+autocast", trainer=True)
        yield case(model, compiled=True, vocab=512)
        yield case(model, compiled=True, vocab=512, precision="autocast")
    yield case("gpt_neox", compiled=True, vocab=512, use_cache=True)
    yield case("gpt_neox", compiled=True, vocab=512, precision="autocast")
    for checkpoint in ("none", "nonreentrant", "reentrant"):  # layers of both kinds
        yield case("gemma3_text", shape=BOTH_KINDS, checkpoint=checkpoint)
    yield case("gemma3_text", shape=BOTH_KINDS, checkpoint="nonreentrant", precision="autocast", trainer=True)
    yield case("exaone4")
    yield case("exaone4", checkpoint="nonreentrant", precision="autocast", trainer=True)


def newest_evaluations():
    """Two steps and Trainer's evaluation, of transformers 5: no cache, and of Liger-Kernel's loss no logits where nothing else is asked for."""
    def case(model, **rest):
        return Case(model, transformers="5.17.0", **rest)
    yield case("gpt2", precision="autocast", trainer=True, evaluation="batch=8")
    yield case("llama", evaluation="batch=6,keeps=argmax")
    yield case("llama", liger=True, evaluation="batch=6")
    yield case("qwen3", lora=8, precision="bf16+autocast", trainer=True, checkpoint="nonreentrant", evaluation="batch=5")
    yield case("llama", batch=2, length=200, liger=True, precision="autocast", trainer=True, evaluation="batch=4,keeps=argmax")


def newest_evaluations_unseen():
    def case(model, **rest):
        return Case(model, transformers="5.17.0", **rest)
    yield case("qwen2", batch=2, length=300, precision="autocast", trainer=True, optimizer="fused", evaluation="batch=5")
    yield case("gemma3_text", batch=2, length=144, evaluation="batch=3,keeps=argmax")
    yield case("mistral", batch=2, length=256, liger=True, lora=8, precision="bf16+autocast", trainer=True, evaluation="batch=7")


def newest_unseen():
    def case(model, **rest):
        return Case(model, transformers="5.17.0", **rest)
    yield case("gpt2", batch=3, length=320, precision="autocast", trainer=True, optimizer="fused")
    yield case("gpt2", batch=2, length=96, checkpoint="nonreentrant", optimizer="adafactor")
    yield case("distilbert", batch=5, length=200, precision="autocast", trainer=True)
    yield case("xlm-roberta", batch=3, length=144, precision="fp32", accumulation=2)
    yield case("qwen2", batch=2, length=333, precision="bf16+autocast", trainer=True, lora=16, checkpoint="nonreentrant")
    yield case("phi3", batch=3, length=128, precision="autocast", trainer=True, checkpoint="reentrant")
    yield case("gemma2", batch=2, length=224, precision="autocast", trainer=True)
    yield case("mistral", batch=2, length=256, compiled=True, vocab=1024, precision="autocast")
    yield case("gpt2", batch=2, length=192, compiled=True, vocab=1536, precision="autocast")
    yield case("gpt2", batch=3, length=112, precision="bf16+autocast", trainer=True, lora=4, checkpoint="nonreentrant")
    yield case("olmo2", batch=4, length=100, attention="eager", optimizer="sgd")
    yield case("gpt_neox", batch=2, length=320, vocab=1536, compiled=True, precision="autocast", use_cache=True, optimizer="fused")
    yield case("gpt_neox", batch=3, length=192, vocab=768, compiled=True, checkpoint="nonreentrant")
    yield case("gemma3_text", batch=2, length=224, shape=BOTH_KINDS, optimizer="fused")
    yield case("gemma3_text", batch=3, length=333, checkpoint="nonreentrant", precision="bf16+autocast", trainer=True, lora=8, lora_targets="q_proj,v_proj")
    yield case("gemma3_text", batch=1, length=480, shape=BOTH_KINDS, checkpoint="nonreentrant", precision="bf16+autocast", trainer=True, accumulation=2)
    yield case("exaone4", batch=2, length=200, precision="bf16+autocast", trainer=True, lora=8, lora_targets="q_proj,v_proj", checkpoint="reentrant")


def newest_experts():
    """transformers 5's mixtures, whose experts are grouped products over sorted rows."""
    def case(model, **rest):
        return Case(model, transformers="5.17.0", **rest)
    for model, precision in itertools.product(("mixtral", "qwen3_moe", "olmoe", "qwen2_moe", "deepseek_v2", "deepseek_v3", "gpt_oss"), ("bf16", "autocast")):
        yield case(model, precision=precision, trainer=precision == "autocast", attention="eager" if model == "gpt_oss" else "sdpa")
    yield case("mixtral", precision="fp32", batch=2, length=128)
    yield case("mixtral", checkpoint="nonreentrant")
    yield case("mixtral", checkpoint="reentrant", precision="autocast", trainer=True)
    yield case("mixtral", optimizer="fused", accumulation=2)
    yield case("mixtral", lora=8, lora_targets="q_proj,v_proj", precision="bf16+autocast", trainer=True)
    yield case("qwen3_moe", checkpoint="nonreentrant", precision="autocast", trainer=True, optimizer="fused", accumulation=2)
    yield case("qwen3_moe", lora=8, lora_targets="q_proj,v_proj", checkpoint="nonreentrant")
    yield case("qwen3_moe", lora=8, lora_targets="q_proj,v_proj", precision="bf16+autocast", trainer=True, batch=2)
    yield case("olmoe", checkpoint="reentrant", batch=2, length=224)
    yield case("gpt_oss", attention="eager", checkpoint="nonreentrant", batch=2)
    yield case("mixtral", by_transformers=True)
    yield case("qwen3_moe", by_transformers=True, lora=8, lora_targets="q_proj,v_proj", checkpoint="nonreentrant", precision="bf16+autocast", trainer=True)
    yield case("deepseek_v3", lora=8, lora_targets="o_proj,kv_b_proj", precision="bf16+autocast", trainer=True)


def newest_experts_unseen():
    def case(model, **rest):
        return Case(model, transformers="5.17.0", **rest)
    yield case("mixtral", batch=3, length=200, precision="autocast", trainer=True, checkpoint="nonreentrant", optimizer="fused")
    yield case("mixtral", batch=1, length=1024, size="8x7b", checkpoint="nonreentrant")
    yield case("qwen3_moe", batch=2, length=333, precision="bf16+autocast", trainer=True, lora=16, lora_targets="q_proj,k_proj,v_proj,o_proj", checkpoint="nonreentrant")
    yield case("qwen3_moe", batch=2, length=512, size="30b")
    yield case("qwen3_moe", batch=3, length=120, precision="fp16", optimizer="fused")
    yield case("olmoe", batch=2, length=96, optimizer="adafactor")
    yield case("olmoe", batch=2, length=150, precision="autocast", trainer=True, accumulation=2, shape='{"num_experts": 64, "num_experts_per_tok": 8}')
    yield case("qwen2_moe", batch=5, length=128, precision="autocast", trainer=True, checkpoint="reentrant")
    yield case("deepseek_v2", batch=2, length=224, lora=8, lora_targets="q_proj,o_proj")
    yield case("deepseek_v3", batch=3, length=144, checkpoint="nonreentrant")
    yield case("olmoe", batch=3, length=112, by_transformers=True, precision="autocast", trainer=True, lora=8, lora_targets="q_proj,o_proj")
    yield case("gpt_oss", batch=2, length=128, by_transformers=True, attention="eager", optimizer="fused")
    yield case("gpt_oss", batch=2, length=168, attention="eager", precision="bf16+autocast", trainer=True, checkpoint="nonreentrant", accumulation=2)


def newest_experts_parallel():
    """The same mixtures on a rank of several, and with all else in 4 bits."""
    def case(model, **rest):
        return Case(model, transformers="5.17.0", **rest)
    attention = dict(lora=8, lora_targets="q_proj,v_proj")
    yield case("mixtral", parallel="ddp", gpus=2)
    yield case("qwen3_moe", parallel="ddp_rebuilt", gpus=2, precision="autocast", checkpoint="nonreentrant", accumulation=2)
    yield case("mixtral", parallel="fsdp2", gpus=2)
    yield case("qwen3_moe", parallel="fsdp2", gpus=4, precision="autocast", checkpoint="nonreentrant")
    yield case("gpt_oss", parallel="fsdp2", gpus=4, attention="eager", checkpoint="reentrant", batch=2)
    yield case("qwen2_moe", parallel="fsdp2", gpus=4, precision="autocast", checkpoint="nonreentrant", batch=2)
    yield case("mixtral", parallel="fsdp2", gpus=2, **attention)
    yield case("mixtral", parallel="fsdp1", gpus=2)
    yield case("qwen3_moe", parallel="fsdp1", gpus=4, precision="autocast", checkpoint="nonreentrant")
    yield case("qwen3_moe", parallel="fsdp1", gpus=4, fsdp="wrap=peft", precision="bf16+autocast", **attention)
    yield case("mixtral", parallel="zero2", gpus=2, zero="reduce_bucket_size=300000")
    for model, rest in (("mixtral", {}), ("qwen3_moe", dict(checkpoint="nonreentrant")), ("gpt_oss", dict(attention="eager")), ("olmoe", {}), ("deepseek_v2", dict(checkpoint="nonreentrant"))):
        yield case(model, parallel="zero3", gpus=4, batch=2, zero=GATHERED, **rest)
    yield case("mixtral", quantized=True, **attention)
    yield case("qwen3_moe", quantized=True, adapter="kbit", precision="bf16+autocast", checkpoint="reentrant", **attention)


def newest_experts_parallel_unseen():
    def case(model, **rest):
        return Case(model, transformers="5.17.0", **rest)
    yield case("olmoe", parallel="ddp", gpus=4, batch=2, length=144, checkpoint="reentrant", optimizer="fused")
    yield case("qwen2_moe", parallel="fsdp2", gpus=8, batch=2, length=200, precision="autocast", checkpoint="nonreentrant", optimizer="fused")
    yield case("deepseek_v2", parallel="fsdp2", gpus=2, batch=3, length=96, accumulation=2)
    yield case("deepseek_v3", parallel="fsdp1", gpus=2, batch=2, length=112, checkpoint="nonreentrant")
    yield case("mixtral", parallel="fsdp1_grad_op", gpus=4, batch=2, length=128, precision="autocast", lora=8, lora_targets="q_proj,k_proj,v_proj,o_proj", fsdp="wrap=peft")
    yield case("olmoe", parallel="zero2", gpus=4, rank=1, batch=2, length=96, optimizer="fused", accumulation=2)
    yield case("qwen3_moe", parallel="zero1", gpus=2, batch=2, length=224, checkpoint="nonreentrant", zero="reduce_bucket_size=500000")
    yield case("qwen2_moe", batch=2, length=96, gpus=2, parallel="zero3", zero=GATHERED)
    yield case("mixtral", batch=1, length=128, gpus=8, checkpoint="nonreentrant", accumulation=2, optimizer="fused", parallel="zero3", zero=GATHERED)
    yield case("deepseek_v3", batch=2, length=96, gpus=4, parallel="zero3", zero=GATHERED)
    yield case("mixtral", batch=2, length=128, gpus=2, parallel="zero3", lora=8, lora_targets="q_proj,v_proj", zero=GATHERED + ",stage3_max_reuse_distance=0")
    yield case("olmoe", quantized=True, batch=2, length=256, lora=16, lora_targets="q_proj,k_proj,v_proj,o_proj", precision="bf16+autocast", checkpoint="reentrant", adapter="kbit")
    yield case("qwen3_moe", quantized=True, batch=3, length=128, lora=8, lora_targets="q_proj,o_proj", precision="bf16+autocast", optimizer="fused")


def trl():
    """TRL's loss. The first has two tiles of tokens and two of columns."""
    yield Case("llama", batch=2, length=2560, vocab=40000, precision="autocast", checkpoint="nonreentrant", trl=True)
    yield Case("llama", vocab=40000, checkpoint="nonreentrant", trl=True)
    yield Case("qwen2", precision="autocast", trl=True)
    yield Case("gemma2", precision="autocast", checkpoint="nonreentrant", trl=True)
    yield Case("llama", vocab=40000, precision="autocast", lora=8, checkpoint="nonreentrant", trl=True)
    yield Case("phi", vocab=40000, accumulation=2, trl=True)


def dpo():
    """TRL's preference training. The first has two tiles of tokens and two of columns."""
    yield Case("llama", batch=2, length=1280, vocab=40000, precision="autocast", checkpoint="nonreentrant", dpo="reference")
    yield Case("llama", dpo="reference")
    yield Case("gpt2", precision="autocast", dpo="reference")
    yield Case("llama", vocab=40000, precision="autocast", lora=8, dpo="reference")
    yield Case("llama", vocab=40000, lora=8, checkpoint="nonreentrant", dpo="reference")
    yield Case("gpt2", batch=3, precision="autocast", lora=8, dpo="reference", accumulation=2)
    yield Case("qwen2", precision="autocast", checkpoint="nonreentrant", dpo="precomputed", accumulation=2)
    yield Case("llama", vocab=40000, lora=8, quantized=True, dpo="reference", adapter="bf16", precision="bf16+autocast", checkpoint="nonreentrant")
    yield Case("llama", padded=True, dpo="reference")


def dpo_unseen():
    yield Case("qwen3", batch=3, length=1024, vocab=70000, precision="autocast", checkpoint="nonreentrant", dpo="reference")
    yield Case("mistral", batch=2, length=300, vocab=32768, precision="fp32", dpo="reference", optimizer="fused")
    yield Case("gpt2", batch=4, length=512, precision="autocast", lora=8, checkpoint="nonreentrant", dpo="reference")
    yield Case("gemma2", batch=2, length=192, dpo="reference", accumulation=2)
    yield Case("phi3", batch=3, length=200, lora=16, lora_targets="qkv_proj,o_proj", precision="bf16+autocast", dpo="reference")
    yield Case("qwen2", batch=5, length=96, checkpoint="reentrant", dpo="precomputed")
    yield Case("qwen3", batch=2, length=256, vocab=40000, lora=16, quantized=True, dpo="reference", adapter="bf16", precision="autocast", lora_targets=ALL_LINEAR)


def factory():
    """LLaMA-Factory's preference training and its reward models."""
    factory = dict(optimizer="fused", lora_dropout=0.0)
    yield Case("llama", pairs="factory_dpo", precision="autocast", checkpoint="reentrant", **factory)
    yield Case("llama", pairs="factory_dpo", precision="bf16+autocast", lora=8, lora_targets=ALL_LINEAR, checkpoint="reentrant", padded=True, **factory)
    yield Case("qwen2", batch=2, pairs="factory_dpo", precision="bf16", **factory)
    yield Case("gpt2", batch=3, pairs="factory_dpo", precision="fp32", accumulation=2, **factory)
    yield Case("llama", pairs="factory_simpo", precision="bf16+autocast", lora=8, padded=True, **factory)
    yield Case("llama", pairs="factory_orpo", precision="autocast", checkpoint="reentrant", **factory)
    yield Case("llama", pairs="factory_rm", precision="autocast", checkpoint="reentrant", **factory)
    yield Case("llama", pairs="factory_rm", precision="bf16+autocast", lora=8, lora_targets=ALL_LINEAR, checkpoint="reentrant", padded=True, **factory)
    yield Case("qwen2", batch=3, pairs="factory_rm", precision="bf16", accumulation=2, **factory)
    yield Case("gpt2", pairs="factory_rm", precision="fp32", **factory)


def factory_unseen():
    factory = dict(optimizer="fused", lora_dropout=0.0)
    yield Case("qwen3", batch=3, length=200, pairs="factory_dpo", precision="autocast", checkpoint="reentrant", padded=True, **factory)
    yield Case("mistral", batch=2, length=300, vocab=32768, pairs="factory_dpo", precision="bf16+autocast", lora=16, lora_targets="q_proj,v_proj", accumulation=2, **factory)
    yield Case("gemma2", batch=1, length=192, pairs="factory_dpo", precision="bf16", checkpoint="nonreentrant", **factory)
    yield Case("llama", batch=2, length=256, vocab=40000, pairs="factory_dpo", precision="bf16+autocast", lora=8, lora_targets=ALL_LINEAR, quantized=True, checkpoint="reentrant", padded=True, **factory)
    yield Case("phi3", batch=2, length=224, pairs="factory_orpo", precision="bf16+autocast", lora=8, lora_targets="qkv_proj,o_proj", checkpoint="reentrant", **factory)
    yield Case("qwen2", batch=5, length=96, pairs="factory_simpo", precision="autocast", accumulation=2, **factory)
    yield Case("qwen3", batch=3, length=200, pairs="factory_rm", precision="autocast", checkpoint="reentrant", padded=True, **factory)
    yield Case("mistral", batch=2, length=300, vocab=32768, pairs="factory_rm", precision="bf16+autocast", lora=16, lora_targets="q_proj,v_proj", accumulation=2, **factory)
    yield Case("gemma2", batch=1, length=192, pairs="factory_rm", precision="bf16", checkpoint="nonreentrant", **factory)


def pairs_parallel():
    """Under DistributedDataParallel, which LLaMA-Factory asks for the reference's pass without adapters, too, and KTO for the model's over other answers."""
    ddp = dict(gpus=2, optimizer="fused", lora_dropout=0.0)
    adapters = dict(precision="bf16+autocast", lora=8, lora_targets=ALL_LINEAR)
    yield Case("llama", pairs="factory_dpo", parallel="ddp_rebuilt", precision="autocast", checkpoint="reentrant", **ddp)
    yield Case("llama", pairs="factory_dpo", parallel="ddp_rebuilt", checkpoint="reentrant", padded=True, **adapters, **ddp)
    yield Case("qwen2", pairs="factory_dpo", parallel="ddp", batch=2, **ddp)
    yield Case("llama", pairs="factory_simpo", parallel="ddp_rebuilt", accumulation=2, **adapters, **ddp)
    yield Case("llama", pairs="kto", parallel="ddp_rebuilt", gpus=2, precision="autocast", checkpoint="nonreentrant", vocab=40000)
    yield Case("qwen2", pairs="kto", parallel="ddp", gpus=2, lora=8, precision="autocast", accumulation=2)


def pairs_parallel_unseen():
    ddp = dict(gpus=4, optimizer="fused", lora_dropout=0.0)
    yield Case("mistral", batch=2, length=300, vocab=32768, pairs="factory_dpo", parallel="ddp_rebuilt", precision="bf16+autocast", lora=16, lora_targets="q_proj,v_proj", checkpoint="reentrant", accumulation=2, **ddp)
    yield Case("qwen3", batch=3, length=200, pairs="factory_dpo", parallel="ddp_rebuilt", precision="bf16", checkpoint="reentrant", padded=True, **ddp)
    yield Case("phi3", batch=2, length=224, pairs="factory_orpo", parallel="ddp_rebuilt", precision="bf16+autocast", lora=8, lora_targets="qkv_proj,o_proj", **ddp)
    yield Case("qwen3", batch=4, length=256, vocab=70000, pairs="kto", parallel="ddp_rebuilt", gpus=4, precision="autocast", checkpoint="nonreentrant", padded=True, accumulation=2)
    yield Case("mistral", batch=2, length=300, vocab=32768, pairs="kto", parallel="ddp_rebuilt", gpus=2, lora=16, lora_targets="q_proj,v_proj", precision="bf16+autocast", checkpoint="nonreentrant")


def reward():
    """TRL's reward models: a head of one class over pairs."""
    def case(model, **rest):
        return Case(model, **{"pairs": "reward", "shape": _head(model, "ForSequenceClassification", 1), **rest})
    yield case("llama", precision="autocast", checkpoint="nonreentrant")
    yield case("llama", precision="autocast", checkpoint="nonreentrant", lora=8, adapter="save=score", padded=True)
    yield case("qwen2", batch=3, accumulation=2)
    yield case("gpt2", precision="fp32")
    yield case("llama", lora=8)


def reward_unseen():
    def case(model, **rest):
        return Case(model, **{"pairs": "reward", "shape": _head(model, "ForSequenceClassification", 1), **rest})
    yield case("qwen3", batch=3, length=200, precision="autocast", checkpoint="nonreentrant", padded=True)
    yield case("mistral", batch=2, length=300, vocab=32768, precision="bf16+autocast", lora=16, lora_targets="q_proj,v_proj", adapter="save=score", accumulation=2)
    yield case("gemma2", batch=2, length=192, checkpoint="reentrant", optimizer="fused")
    yield case("phi3", batch=5, length=96, lora=8, lora_targets="qkv_proj,o_proj", precision="autocast", checkpoint="nonreentrant", adapter="save=score")
    yield case("gpt2", batch=4, length=256, precision="autocast", accumulation=2)


def reward_parallel():
    """Of a rank of several."""
    def case(model, **rest):
        return Case(model, **{"pairs": "reward", "gpus": 2, "shape": _head(model, "ForSequenceClassification", 1), **rest})
    checkpoints = dict(precision="autocast", checkpoint="nonreentrant")
    yield case("llama", parallel="ddp_rebuilt", **checkpoints)
    yield case("llama", parallel="ddp", batch=2)
    yield case("qwen2", parallel="ddp_rebuilt", lora=8, adapter="save=score", precision="autocast", accumulation=2)
    yield case("llama", parallel="zero2", **checkpoints)
    yield case("llama", parallel="zero1", lora=8, adapter="save=score", precision="autocast", padded=True)


def reward_parallel_unseen():
    def case(model, **rest):
        return Case(model, **{"pairs": "reward", "shape": _head(model, "ForSequenceClassification", 1), **rest})
    yield case("qwen3", parallel="ddp_rebuilt", gpus=4, batch=3, length=200, precision="autocast", checkpoint="nonreentrant", padded=True, accumulation=2)
    yield case("mistral", parallel="zero2", gpus=4, rank=1, batch=2, length=300, vocab=32768, precision="autocast", checkpoint="nonreentrant", zero="reduce_bucket_size=300000")
    yield case("gpt2", parallel="zero0", gpus=2, batch=4, length=256, precision="autocast")
    yield case("phi3", parallel="zero1", gpus=2, batch=3, length=96, lora=8, lora_targets="qkv_proj,o_proj", adapter="save=score", precision="autocast", checkpoint="nonreentrant")


def kto():
    """TRL's training on answers that are liked or not."""
    yield Case("llama", pairs="kto", precision="autocast", checkpoint="nonreentrant", vocab=40000)
    yield Case("llama", pairs="kto")
    yield Case("llama", pairs="kto", lora=8, precision="autocast", checkpoint="nonreentrant", padded=True)
    yield Case("gpt2", pairs="kto", lora=8, precision="autocast", batch=2, accumulation=2)
    yield Case("qwen2", pairs="kto_precomputed", precision="autocast", checkpoint="nonreentrant", accumulation=2)
    yield Case("llama", pairs="kto_apo", precision="autocast", vocab=40000)


def kto_unseen():
    yield Case("qwen3", batch=6, length=512, vocab=70000, pairs="kto", precision="autocast", checkpoint="nonreentrant", padded=True)
    yield Case("mistral", batch=2, length=300, vocab=32768, pairs="kto", precision="fp32", optimizer="fused")
    yield Case("gemma2", batch=2, length=192, pairs="kto", accumulation=2)
    yield Case("phi3", batch=4, length=200, lora=16, lora_targets="qkv_proj,o_proj", precision="bf16+autocast", pairs="kto", checkpoint="nonreentrant")
    yield Case("qwen2", batch=8, length=96, checkpoint="reentrant", pairs="kto_precomputed")
    yield Case("gpt2", batch=4, length=256, precision="autocast", lora=8, checkpoint="nonreentrant", pairs="kto_apo")


def newest_pairs_unseen():
    """Reward models and KTO in transformers 5, and models that transformers 4's recordings have not."""
    newest = dict(transformers="5.17.0")
    heads = dict(pairs="reward", **newest)
    yield Case("llama", batch=3, length=224, precision="autocast", checkpoint="nonreentrant", shape=_head("llama", "ForSequenceClassification", 1), padded=True, **heads)
    yield Case("gemma2", batch=2, length=160, checkpoint="nonreentrant", shape=_head("gemma2", "ForSequenceClassification", 1), **heads)
    yield Case("qwen3", batch=2, length=128, precision="bf16+autocast", accumulation=2, shape=_head("qwen3", "ForSequenceClassification", 1), **heads)
    yield Case("gemma", batch=4, length=128, precision="autocast", checkpoint="nonreentrant", pairs="kto", **newest)
    yield Case("olmo2", batch=3, length=256, vocab=40000, lora=8, lora_targets="q_proj,v_proj", precision="bf16+autocast", checkpoint="nonreentrant", padded=True, pairs="kto", **newest)


def pairs_unseen():
    """Asked after Gemma's embeddings were repaired."""
    heads = dict(pairs="reward")
    yield Case("gemma", batch=3, length=144, precision="autocast", checkpoint="nonreentrant", shape=_head("gemma", "ForSequenceClassification", 1), padded=True, **heads)
    yield Case("gemma2", batch=2, length=256, precision="autocast", lora=8, adapter="save=score", checkpoint="nonreentrant", shape=_head("gemma2", "ForSequenceClassification", 1), **heads)
    yield Case("phi", batch=2, length=200, accumulation=2, shape=_head("phi", "ForSequenceClassification", 1), **heads)
    yield Case("gpt_neox", batch=4, length=128, vocab=50304, pairs="kto", precision="autocast")


def dpo_parallel():
    """The same on several GPUs; what holds the reference there is TRL's choice."""
    def case(model, **rest):
        return Case(model, **{"dpo": "reference", "gpus": 2, "vocab": 40000, **rest})
    checkpoints = dict(precision="autocast", checkpoint="nonreentrant")
    yield case("llama", parallel="ddp_rebuilt", **checkpoints)
    yield case("llama", parallel="ddp", batch=2)
    yield case("qwen2", parallel="ddp", lora=8, precision="autocast", accumulation=2)
    yield case("llama", parallel="ddp_rebuilt", lora=8, batch=2, **checkpoints)
    yield case("llama", parallel="zero2", checkpoint="nonreentrant")
    yield case("llama", parallel="zero1", gpus=4, batch=2, accumulation=2, zero="reduce_bucket_size=300000")
    yield case("llama", parallel="zero0")
    yield case("qwen2", parallel="zero2", lora=8, checkpoint="nonreentrant")
    yield case("llama", parallel="zero3", checkpoint="nonreentrant")
    yield case("llama", parallel="zero3", gpus=4, batch=2, accumulation=2, zero=GATHERED)
    yield case("llama", parallel="zero3", checkpoint="nonreentrant", zero="auto")
    yield case("llama", parallel="zero3", lora=8, checkpoint="reentrant", zero=GATHERED)
    yield case("qwen2", parallel="zero3", lora=8, batch=2, accumulation=2)
    yield case("llama", parallel="fsdp1", **checkpoints)
    yield case("llama", parallel="fsdp1", batch=2, accumulation=2)
    yield case("qwen2", parallel="fsdp1", lora=8, fsdp="wrap=peft", **checkpoints)
    yield case("llama", parallel="fsdp2", **checkpoints)
    yield case("llama", parallel="fsdp2", batch=2, accumulation=2)
    yield case("qwen2", parallel="fsdp2", gpus=4, lora=8, **checkpoints)
    yield case("qwen2", parallel="fsdp2", dpo="precomputed", precision="autocast")
    yield case("llama", parallel="fsdp2", lora=8, **checkpoints)
    yield case("llama", parallel="fsdp2_keep", batch=2)
    yield case("qwen2", parallel="fsdp2_offload", precision="autocast")
    yield case("llama", parallel="fsdp1", fsdp="offload", batch=2)
    yield case("llama", parallel="zero2", zero="offload_optimizer", checkpoint="nonreentrant")
    yield case("gpt2", parallel="zero3", batch=2, zero=GATHERED + ",offload_optimizer,offload_param")
    yield case("llama", parallel="zero3", precision="fp32", batch=2)
    yield case("llama", parallel="fsdp1", quantized=True, lora=8, adapter="bf16", precision="bf16+autocast", fsdp="wrap=peft", checkpoint="nonreentrant")
    yield case("llama", parallel="ddp_rebuilt", quantized=True, lora=8, adapter="bf16", precision="bf16+autocast", checkpoint="nonreentrant")


def dpo_parallel_unseen():
    def case(model, **rest):
        return Case(model, **{"dpo": "reference", "batch": 2, "length": 200, **rest})
    checkpoints = dict(precision="autocast", checkpoint="nonreentrant")
    yield case("qwen3", parallel="ddp_rebuilt", gpus=4, vocab=50000, optimizer="fused", **checkpoints)
    yield case("gpt2", parallel="ddp", gpus=8, batch=3, precision="autocast")
    yield case("mistral", parallel="zero2", gpus=4, vocab=32768, checkpoint="nonreentrant", optimizer="fused", zero="overlap_comm")
    yield case("qwen3", parallel="zero1", gpus=2, lora=16, lora_targets=ALL_LINEAR, checkpoint="nonreentrant")
    yield case("mistral", parallel="zero3", gpus=8, vocab=70000, checkpoint="nonreentrant", optimizer="fused", zero="reduce_bucket_size=5000000,stage3_prefetch_bucket_size=500000,stage3_param_persistence_threshold=2560")
    yield case("qwen2", parallel="zero3", gpus=2, batch=3, accumulation=2, zero="stage3_max_reuse_distance=0")
    yield case("qwen3", parallel="zero3", gpus=4, lora=8, lora_targets=ALL_LINEAR, checkpoint="reentrant", accumulation=2)
    yield case("qwen3", parallel="fsdp1", gpus=4, vocab=50000, optimizer="fused", **checkpoints)
    yield case("mistral", parallel="fsdp1_grad_op", gpus=2, batch=3, precision="autocast")
    yield case("llama", parallel="fsdp1", gpus=2, lora=8, fsdp="wrap=peft", lora_targets=ALL_LINEAR, **checkpoints)
    yield case("mistral", parallel="fsdp2", gpus=8, vocab=70000, optimizer="fused", **checkpoints)
    yield case("qwen3", parallel="fsdp2", gpus=2, batch=3, precision="bf16+autocast", checkpoint="nonreentrant", accumulation=2)
    yield case("mistral", parallel="fsdp2", gpus=4, lora=4, lora_targets="q_proj,v_proj", precision="autocast")
    # asked later, with what was repaired by then in place
    yield case("qwen2", parallel="fsdp1", gpus=2, fsdp="wrap=none", precision="autocast")
    yield case("llama", parallel="fsdp1", gpus=4, fsdp="orig=false,prefetch=none", accumulation=2, **checkpoints)
    yield case("mistral", parallel="fsdp1", gpus=2, rank=1, fsdp="forward_prefetch,prefetch=post")
    yield case("qwen3", parallel="fsdp1_grad_op", gpus=4, lora=8, fsdp="wrap=peft", precision="bf16+autocast")
    yield case("gemma2", parallel="zero3", gpus=4, rank=1, checkpoint="nonreentrant", zero="auto")
    yield case("phi3", parallel="zero3", gpus=2, lora=8, lora_targets="qkv_proj,o_proj", zero=GATHERED)
    yield case("llama", parallel="zero1", gpus=2, lora=8, precision="fp32", checkpoint="reentrant")
    yield case("gpt2", parallel="fsdp2", gpus=4, checkpoint="nonreentrant")
    yield case("phi", parallel="fsdp2", gpus=2, vocab=30001, lora=8, precision="autocast")
    yield case("gpt2", parallel="ddp_rebuilt", gpus=2, lora=8, checkpoint="reentrant", precision="autocast", accumulation=3)
    yield case("qwen2", parallel="zero3", gpus=2, padded=True, checkpoint="nonreentrant")
    yield case("llama", parallel="fsdp2", gpus=2, padded=True, **checkpoints)


def grpo():
    """TRL's training on what the model itself writes."""
    yield Case("llama", vocab=40000, precision="autocast", checkpoint="nonreentrant", padded=True, grpo="new=8")
    yield Case("llama", vocab=40000, length=96, padded=True, grpo="new=6,prompts=padded,beta=0.04")
    yield Case("qwen2", vocab=40000, precision="autocast", lora=8, checkpoint="nonreentrant", padded=True, grpo="new=6,beta=0.04")
    yield Case("gpt2", precision="autocast", padded=True, accumulation=2, grpo="new=5,prompts=padded")
    yield Case("gemma2", vocab=40000, batch=2, padded=True, grpo="new=6,beta=0.1,iterations=2")
    yield Case("mistral", batch=2, length=200, vocab=32768, padded=True, accumulation=2, grpo="new=7,steps=1", shape='{"sliding_window": 64}')
    yield Case("llama", precision="fp32", lora=8, padded=True, attention="eager", grpo="new=4,temperature=0.7,top_k=20,top_p=0.9,penalty=1.1,min_p=0.1,prompts=padded")
    yield Case("llama", vocab=40000, lora=8, quantized=True, adapter="bf16", precision="bf16+autocast", checkpoint="nonreentrant", padded=True, accumulation=3, grpo="new=5,steps=1")
    yield Case("qwen2", length=192, vocab=40000, precision="autocast", padded=True, checkpoint="nonreentrant", grpo="new=64,prompts=padded,beta=0.04")
    yield Case("llama", vocab=40000, precision="autocast", checkpoint="nonreentrant", padded=True, accumulation=2, grpo="new=96,vllm=1")


def grpo_unseen():
    checkpoints = dict(checkpoint="nonreentrant", padded=True)
    yield Case("qwen3", batch=8, length=256, vocab=70000, precision="autocast", optimizer="fused", grpo="new=40,generations=4", **checkpoints)
    yield Case("gpt_neox", batch=2, length=128, precision="autocast", padded=True, grpo="new=9,beta=0.02,prompts=padded")
    yield Case("phi3", batch=3, length=144, precision="bf16+autocast", lora=16, lora_targets="qkv_proj,o_proj", grpo="new=12,generations=3,beta=0.04", **checkpoints)
    yield Case("gemma2", batch=2, length=224, vocab=50000, precision="autocast", accumulation=4, grpo="new=20,generations=8", **checkpoints)
    yield Case("gpt2", batch=4, length=300, lora=8, precision="autocast", padded=True, grpo="new=30,generations=4,iterations=3")
    yield Case("llama", batch=2, length=180, precision="fp32", padded=True, accumulation=2, grpo="new=11,steps=4,prompts=padded,top_p=0.95")
    yield Case("qwen3", batch=4, length=160, vocab=40000, lora=16, lora_targets=ALL_LINEAR, quantized=True, adapter="bf16", precision="autocast", grpo="new=24,prompts=padded", **checkpoints)
    yield Case("mistral", batch=6, length=96, vocab=32768, attention="eager", grpo="new=16,prompts=padded,temperature=0.9", **checkpoints)
    yield Case("qwen3", batch=3, length=300, vocab=50000, lora=8, precision="autocast", accumulation=2, grpo="new=200,generations=3,vllm=1,beta=0.04,iterations=2", **checkpoints)


def newest_grpo():
    newest = dict(transformers="5.17.0", padded=True)
    yield Case("llama", vocab=40000, precision="autocast", checkpoint="nonreentrant", grpo="new=8", **newest)
    yield Case("qwen2", vocab=40000, precision="autocast", lora=8, checkpoint="nonreentrant", grpo="new=6,beta=0.04,prompts=padded", **newest)
    yield Case("gemma3_text", vocab=40000, batch=2, grpo="new=6,beta=0.1", **newest)
    yield Case("olmo3", batch=2, length=192, precision="autocast", checkpoint="nonreentrant", grpo="new=11,prompts=padded,iterations=2", **newest)


def newest_grpo_unseen():
    newest = dict(transformers="5.17.0", padded=True)
    yield Case("qwen3", batch=4, length=288, vocab=50000, precision="autocast", checkpoint="nonreentrant", grpo="new=32,generations=4,beta=0.001", **newest)
    yield Case("gpt2", batch=3, precision="autocast", optimizer="fused", grpo="new=10,generations=3,prompts=padded", **newest)
    yield Case("gemma2", batch=2, length=200, lora=8, lora_targets="q_proj,v_proj", precision="autocast", accumulation=2, grpo="new=14", **newest)
    yield Case("phi3", batch=4, length=120, vocab=40000, padded=True, transformers="5.17.0", checkpoint="nonreentrant", grpo="new=18,iterations=2,prompts=padded")
    yield Case("olmo2", batch=4, length=170, vocab=30000, precision="autocast", checkpoint="nonreentrant", grpo="new=9,beta=0.02,iterations=2", **newest)
    yield Case("olmo2", batch=2, length=210, lora=8, lora_targets="q_proj,v_proj", precision="autocast", checkpoint="nonreentrant", grpo="new=21,beta=0.02,prompts=padded", **newest)


def newest_dpo_unseen():
    newest = dict(dpo="reference", transformers="5.17.0")
    yield Case("llama", batch=2, length=320, vocab=40000, precision="autocast", checkpoint="nonreentrant", **newest)
    yield Case("gpt2", batch=3, optimizer="fused", **newest)
    yield Case("qwen3", batch=2, length=224, vocab=40000, precision="autocast", lora=8, checkpoint="nonreentrant", **newest)
    yield Case("gemma3_text", lora=8, lora_targets="q_proj,v_proj", accumulation=2, **newest)
    yield Case("mistral", vocab=40000, lora=8, quantized=True, adapter="bf16", precision="bf16+autocast", checkpoint="nonreentrant", **newest)


def trl_unseen():
    yield Case("qwen3", batch=3, length=2048, vocab=70000, precision="autocast", checkpoint="nonreentrant", trl=True)
    yield Case("mistral", batch=2, length=300, vocab=32768, precision="fp32", trl=True)
    yield Case("gpt2", batch=8, length=512, precision="autocast", lora=8, trl=True)


ALL_LINEAR = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"


def breaks(case):
    """Whether Dynamo takes the forward in several graphs: GPT-2's class has a name from which transformers knows no loss, of which it warns; experts ask which of them are hit."""
    return case.model in ("gpt2", "mixtral", "qwen3_moe")


def compiled():
    """Vocabularies are even but for a few: Inductor pads the rows of odd ones."""
    yield Case("llama", compiled=True)
    yield Case("gpt2", compiled=True)
    yield Case("qwen2", batch=2, length=157, precision="autocast", compiled=True)
    yield Case("gpt2", batch=3, length=131, precision="autocast", use_cache=True, compiled=True)
    yield Case("llama", vocab=512, compiled=True)
    yield Case("llama", vocab=512, precision="autocast", compiled=True)
    yield Case("llama", vocab=512, use_cache=True, compiled=True)
    yield Case("llama", batch=2, length=256, vocab=2048, precision="autocast", use_cache=True, compiled=True)
    yield Case("llama", batch=2, length=256, vocab=2048, precision="autocast", use_cache=True, accumulation=2, compiled=True)
    yield Case("llama", batch=8, length=512, vocab=4096, compiled=True)
    yield Case("mistral", batch=1, length=512, vocab=512, compiled=True)
    for model, precision in itertools.product(("qwen2", "qwen3"), ("bf16", "autocast")):
        yield Case(model, vocab=512, precision=precision, use_cache=True, compiled=True)
    yield Case("llama", batch=4, length=2048, size="1b", use_cache=True, compiled=True)
    yield Case("llama", batch=2, length=1024, size="1b", precision="autocast", use_cache=True, compiled=True)
    yield Case("llama", batch=2, length=2048, size="70b", precision="autocast", use_cache=True, compiled=True)
    # checkpoints, as model.config.use_cache=False leaves the graph whole
    yield Case("llama", vocab=512, compiled=True, checkpoint="nonreentrant")
    yield Case("llama", vocab=512, precision="autocast", compiled=True, checkpoint="nonreentrant")
    yield Case("qwen3", vocab=512, precision="autocast", compiled=True, checkpoint="reentrant")
    yield Case("qwen2", batch=2, length=256, vocab=2048, accumulation=2, compiled=True, checkpoint="reentrant")
    yield Case("llama", batch=4, length=2048, size="1b", compiled=True, checkpoint="reentrant")
    yield Case("llama", batch=2, length=1024, size="1b", precision="autocast", compiled=True, checkpoint="reentrant")
    yield Case("llama", batch=2, length=2048, size="70b", precision="autocast", compiled=True, checkpoint="reentrant")
    # adapters
    yield Case("llama", vocab=512, lora=8, compiled=True)
    yield Case("llama", vocab=512, lora=8, precision="autocast", compiled=True)
    yield Case("qwen2", batch=2, length=256, vocab=1024, lora=16, lora_targets="k_proj,v_proj,o_proj", compiled=True)
    yield Case("llama", batch=2, length=1024, size="1b", lora=16, precision="autocast", use_cache=True, compiled=True)
    yield Case("mistral", batch=2, length=384, vocab=1536, lora=16, lora_targets="gate_proj,up_proj,down_proj", use_cache=True, compiled=True)
    yield Case("llama", vocab=512, lora=8, lora_targets=ALL_LINEAR, precision="autocast", use_cache=True, compiled=True)
    yield Case("llama", batch=2, length=2048, size="70b", lora=8, precision="autocast", use_cache=True, compiled=True)
    # GPT-2: the loss in a graph of its own
    yield Case("gpt2", vocab=512, compiled=True)
    yield Case("gpt2", vocab=512, precision="autocast", use_cache=True, compiled=True)
    yield Case("gpt2", vocab=1024, precision="fp32", batch=2, length=256, compiled=True)
    yield Case("gpt2", batch=8, length=1024, size="124m", precision="autocast", compiled=True)
    yield Case("gpt2", batch=4, length=1024, size="124m", use_cache=True, accumulation=2, optimizer="fused", compiled=True)
    yield Case("gpt2", vocab=512, lora=8, precision="autocast", compiled=True)
    # two branches of one residual, heads turned in a part
    for precision, cache in itertools.product(("bf16", "autocast"), (False, True)):
        yield Case("gpt_neox", vocab=512, precision=precision, use_cache=cache, compiled=True)
    yield Case("gpt_neox", compiled=True)
    yield Case("gpt_neox", vocab=512, batch=2, length=192, precision="fp32", compiled=True)
    yield Case("gpt_neox", vocab=512, checkpoint="nonreentrant", compiled=True)
    yield Case("gpt_neox", vocab=1024, precision="autocast", checkpoint="reentrant", accumulation=2, compiled=True)
    yield Case("gpt_neox", batch=4, length=1024, size="160m", use_cache=True, compiled=True)
    yield Case("gpt_neox", batch=8, length=512, size="160m", precision="autocast", use_cache=True, optimizer="fused", compiled=True)
    yield Case("gpt_neox", vocab=512, lora=8, compiled=True)
    yield Case("gpt_neox", vocab=512, precision="bf16+autocast", compiled=True)
    # 4-bit weights: one graph too
    packed = dict(lora=8, quantized=True, compiled=True)
    yield Case("llama", vocab=512, lora_targets="q_proj,v_proj", precision="bf16+autocast", **packed)
    yield Case("llama", vocab=512, lora_targets="q_proj,v_proj,down_proj", precision="bf16+autocast", adapter="bf16", **packed)
    yield Case("llama", vocab=512, lora_targets=ALL_LINEAR, precision="bf16+autocast", adapter="kbit", use_cache=True, **packed)
    yield Case("qwen2", vocab=1024, lora_targets="q_proj,o_proj,up_proj", **packed)
    yield Case("llama", batch=2, length=1024, size="1b", lora_targets=ALL_LINEAR, precision="bf16+autocast", adapter="kbit", **packed)
    yield Case("llama", vocab=512, precision="bf16+autocast", compiled=True)
    yield Case("llama", vocab=512, precision="bf16+autocast", lora=8, lora_targets=ALL_LINEAR, compiled=True)
    # mixtures of experts: functions between which Python goes on
    for model, precision in itertools.product(("mixtral", "qwen3_moe"), ("bf16", "autocast")):
        yield Case(model, vocab=512, precision=precision, compiled=True)
    yield Case("mixtral", vocab=2048, batch=2, length=256, precision="fp32", compiled=True)
    yield Case("mixtral", batch=4, length=1024, size="8x7b", compiled=True)
    yield Case("mixtral", batch=2, length=1024, size="8x7b", precision="autocast", compiled=True)
    yield Case("qwen3_moe", batch=2, length=1024, size="30b", compiled=True)
    yield Case("mixtral", vocab=512, lora=8, compiled=True)
    yield Case("mixtral", vocab=512, lora=8, precision="autocast", lora_targets="q_proj,k_proj,v_proj,o_proj", compiled=True)


def compiled_unseen():
    yield Case("llama", batch=3, length=384, vocab=1536, precision="autocast", use_cache=True, compiled=True)
    yield Case("llama", batch=2, length=192, vocab=512, precision="fp32", compiled=True)
    yield Case("qwen2", batch=2, length=256, vocab=1024, compiled=True)
    yield Case("qwen2", batch=1, length=512, vocab=2048, precision="autocast", use_cache=True, accumulation=2, compiled=True)
    yield Case("qwen3", batch=6, length=128, vocab=3072, precision="autocast", compiled=True)
    yield Case("mistral", batch=4, length=256, vocab=8192, precision="autocast", use_cache=True, compiled=True)
    yield Case("qwen2", batch=4, length=1024, size="0.5b", use_cache=True, compiled=True)
    yield Case("mistral", batch=3, length=384, precision="autocast", vocab=1536, compiled=True, checkpoint="reentrant")
    yield Case("qwen2", batch=2, length=1024, size="0.5b", compiled=True, checkpoint="reentrant")
    yield Case("llama", batch=2, length=192, vocab=512, precision="fp32", compiled=True, checkpoint="nonreentrant")
    yield Case("llama", batch=2, length=2048, size="1b", lora=16, lora_targets=ALL_LINEAR, compiled=True)
    yield Case("qwen3", batch=3, length=256, vocab=2048, lora=4, lora_targets=ALL_LINEAR, precision="autocast", accumulation=2, compiled=True)
    yield Case("qwen2", batch=2, length=320, vocab=1024, precision="bf16+autocast", lora=8, use_cache=True, compiled=True)
    yield Case("llama", batch=2, length=1024, size="1b", precision="bf16+autocast", compiled=True, checkpoint="reentrant")
    yield Case("gpt2", batch=10, length=128, vocab=1536, precision="bf16+autocast", use_cache=True, compiled=True)
    yield Case("gpt2", batch=1, length=384, vocab=2048, precision="autocast", accumulation=3, optimizer="fused", compiled=True)
    yield Case("gpt2", batch=16, length=512, size="124m", precision="fp32", use_cache=True, compiled=True)
    yield Case("gpt2", batch=3, length=192, vocab=768, lora=16, lora_targets="c_attn,c_proj,c_fc", use_cache=True, compiled=True)
    yield Case("mixtral", batch=3, length=192, vocab=1536, precision="bf16+autocast", accumulation=2, optimizer="fused", compiled=True)
    yield Case("mixtral", batch=1, length=2048, size="8x7b", precision="bf16+autocast", compiled=True)
    yield Case("mixtral", batch=3, length=512, size="8x7b", precision="autocast", optimizer="fused", compiled=True)
    yield Case("qwen3_moe", batch=6, length=128, vocab=3072, precision="fp32", compiled=True)
    yield Case("qwen3_moe", batch=1, length=1536, size="30b", precision="autocast", accumulation=2, compiled=True)
    yield Case("mixtral", batch=2, length=1024, size="8x7b", lora=16, precision="bf16+autocast", lora_targets="q_proj,k_proj,v_proj,o_proj", optimizer="fused", compiled=True)
    yield Case("qwen3_moe", batch=3, length=224, vocab=1024, lora=4, lora_targets="q_proj,o_proj", precision="autocast", accumulation=2, compiled=True)
    yield Case("gpt_neox", batch=3, length=384, vocab=1536, precision="autocast", use_cache=True, compiled=True)
    yield Case("gpt_neox", batch=2, length=157, vocab=1003, precision="autocast", compiled=True)
    yield Case("gpt_neox", batch=2, length=1024, size="160m", precision="bf16+autocast", compiled=True)
    yield Case("gpt_neox", batch=4, length=512, size="160m", precision="autocast", compiled=True, checkpoint="reentrant")
    yield Case("gpt_neox", batch=3, length=224, vocab=768, lora=16, lora_targets="query_key_value,dense", precision="autocast", accumulation=2, optimizer="fused", compiled=True)
    yield Case("gpt_neox", batch=4, length=192, vocab=1024, shape='{"use_parallel_residual": false, "rotary_pct": 0.5}', compiled=True)
    packed = dict(quantized=True, compiled=True)
    yield Case("qwen3", batch=3, length=256, vocab=2048, lora=4, lora_targets=ALL_LINEAR, precision="bf16+autocast", adapter="kbit", accumulation=2, **packed)
    yield Case("mistral", batch=2, length=384, vocab=1536, lora=16, lora_targets="k_proj,gate_proj", lora_dropout=0, precision="autocast", use_cache=True, **packed)
    yield Case("qwen2", batch=2, length=512, size="0.5b", lora=16, lora_targets=ALL_LINEAR, precision="bf16+autocast", optimizer="fused", use_cache=True, **packed)


def compiled_torch_2_11():
    """By the rules of another Inductor (passes/loops.hpp); vocabularies and lengths are odd too, whose rows it pads."""
    c = dict(compiled=True, torch="2.11.0")
    for model, precision in itertools.product(("llama", "gpt2"), ("bf16", "autocast", "fp32")):
        yield Case(model, vocab=512, precision=precision, **c)
        yield Case(model, precision=precision, **c)
    for model, precision in itertools.product(("qwen2", "qwen3"), ("bf16", "autocast")):
        yield Case(model, vocab=512, precision=precision, use_cache=True, **c)
    yield Case("llama", batch=2, length=256, vocab=2048, precision="autocast", use_cache=True, accumulation=2, **c)
    yield Case("mistral", batch=1, length=512, vocab=512, **c)
    yield Case("llama", batch=4, length=2048, size="1b", use_cache=True, **c)
    yield Case("llama", batch=2, length=1024, size="1b", precision="autocast", use_cache=True, **c)
    yield Case("qwen2", batch=4, length=1024, size="0.5b", use_cache=True, **c)
    yield Case("qwen2", batch=2, length=157, **c)
    yield Case("qwen3", batch=1, length=131, precision="autocast", use_cache=True, **c)
    yield Case("llama", batch=2, length=1000, size="1b", vocab=128259, precision="autocast", **c)
    yield Case("llama", vocab=512, precision="bf16+autocast", **c)
    yield Case("llama", vocab=512, checkpoint="nonreentrant", **c)
    yield Case("llama", precision="autocast", checkpoint="nonreentrant", **c)
    yield Case("qwen3", vocab=512, precision="autocast", checkpoint="reentrant", **c)
    yield Case("llama", batch=2, length=1024, size="1b", precision="autocast", checkpoint="reentrant", **c)
    yield Case("llama", vocab=512, lora=8, **c)
    yield Case("llama", lora=8, lora_targets=ALL_LINEAR, precision="autocast", use_cache=True, **c)
    yield Case("llama", batch=2, length=1024, size="1b", lora=16, precision="autocast", use_cache=True, **c)
    yield Case("gpt2", batch=8, length=1024, size="124m", precision="autocast", use_cache=True, **c)
    yield Case("gpt2", batch=4, length=1024, size="124m", vocab=50257, accumulation=2, optimizer="fused", **c)
    yield Case("gpt2", lora=8, precision="autocast", **c)
    for precision in ("bf16", "autocast"):
        yield Case("gpt_neox", vocab=512, precision=precision, use_cache=True, **c)
    yield Case("gpt_neox", **c)
    yield Case("gpt_neox", vocab=512, precision="autocast", checkpoint="nonreentrant", **c)
    yield Case("gpt_neox", batch=4, length=1024, size="160m", use_cache=True, **c)
    yield Case("gpt_neox", vocab=512, lora=8, precision="autocast", **c)
    for model, precision in itertools.product(("mixtral", "qwen3_moe"), ("bf16", "autocast")):
        yield Case(model, vocab=512, precision=precision, **c)
    yield Case("mixtral", vocab=2049, batch=2, length=255, precision="fp32", **c)
    yield Case("mixtral", batch=4, length=1024, size="8x7b", **c)
    yield Case("mixtral", lora=8, precision="autocast", lora_targets="q_proj,k_proj,v_proj,o_proj", **c)
    packed = dict(lora=8, quantized=True, **c)
    yield Case("llama", vocab=512, lora_targets="q_proj,v_proj,down_proj", precision="bf16+autocast", adapter="bf16", **packed)
    yield Case("llama", vocab=512, lora_targets=ALL_LINEAR, precision="bf16+autocast", adapter="kbit", use_cache=True, **packed)


def compiled_torch_2_11_unseen():
    c = dict(compiled=True, torch="2.11.0")
    yield Case("llama", batch=3, length=384, vocab=1537, precision="autocast", use_cache=True, **c)
    yield Case("llama", batch=2, length=193, vocab=515, precision="fp32", **c)
    yield Case("qwen2", batch=1, length=512, vocab=2048, precision="autocast", use_cache=True, accumulation=2, **c)
    yield Case("qwen3", batch=6, length=128, vocab=3072, **c)
    yield Case("mistral", batch=4, length=256, vocab=8192, precision="autocast", use_cache=True, **c)
    yield Case("llama", batch=2, length=1024, size="1b", **c)
    yield Case("qwen2", batch=4, length=1024, size="0.5b", precision="autocast", use_cache=True, **c)
    yield Case("mistral", batch=3, length=384, precision="autocast", vocab=1536, checkpoint="reentrant", **c)
    yield Case("qwen2", batch=2, length=1024, size="0.5b", checkpoint="reentrant", **c)
    yield Case("llama", batch=2, length=2048, size="1b", lora=16, lora_targets=ALL_LINEAR, **c)
    yield Case("qwen3", batch=3, length=251, vocab=2048, lora=4, lora_targets=ALL_LINEAR, precision="autocast", accumulation=2, **c)
    yield Case("gpt2", batch=10, length=128, vocab=1536, precision="bf16+autocast", use_cache=True, **c)
    yield Case("gpt2", batch=4, length=1024, size="124m", vocab=50257, precision="autocast", use_cache=True, **c)
    yield Case("gpt2", batch=8, length=512, size="124m", precision="fp32", **c)
    yield Case("gpt2", batch=3, length=192, vocab=768, lora=16, lora_targets="c_attn,c_proj,c_fc", use_cache=True, **c)
    yield Case("gpt_neox", batch=3, length=251, vocab=1537, precision="autocast", use_cache=True, **c)
    yield Case("gpt_neox", batch=2, length=192, vocab=768, precision="fp32", accumulation=2, **c)
    yield Case("gpt_neox", batch=8, length=512, size="160m", precision="autocast", use_cache=True, **c)
    yield Case("gpt_neox", batch=2, length=1024, size="160m", checkpoint="reentrant", **c)
    yield Case("mixtral", batch=3, length=512, size="8x7b", precision="autocast", optimizer="fused", **c)
    yield Case("mixtral", batch=3, length=191, precision="bf16+autocast", accumulation=2, **c)
    yield Case("qwen3_moe", batch=2, length=1024, size="30b", **c)
    yield Case("qwen2", batch=2, length=512, size="0.5b", lora=16, lora_targets=ALL_LINEAR, precision="bf16+autocast", optimizer="fused", use_cache=True, quantized=True, **c)


QLORA = dict(precision="bf16+autocast", lora_targets=ALL_LINEAR, kernels=True, quantized=True)


def axolotl():
    """FlashAttention 2 (without its own memory in forward) and 3, packed rows, and what axolotl puts in place of parts of the model."""
    flash = dict(attention="flash_attention_2")
    yield Case("llama", **flash)
    yield Case("llama", packed=True, **flash)
    yield Case("llama", packed=True)
    yield Case("qwen3", batch=2, length=256, packed=True, precision="autocast", checkpoint="nonreentrant", **flash)
    yield Case("gemma2", batch=2, length=160, **flash)
    flash3 = dict(attention="flash_attention_3")
    yield Case("llama", **flash3)
    yield Case("gpt2", precision="autocast", **flash3)
    yield Case("qwen3", batch=2, length=256, packed=True, precision="autocast", checkpoint="nonreentrant", **flash3)
    yield Case("mistral", batch=2, length=300, precision="bf16+autocast", checkpoint="reentrant", accumulation=2, **flash3)
    yield Case("llama", cut=True)
    yield Case("qwen2", liger="rms_norm+fused_linear_cross_entropy", accumulation=2)
    yield Case("llama", liger="rms_norm+rope+swiglu", cut=True, packed=True, precision="bf16+autocast", checkpoint="nonreentrant", **flash)
    yield Case("llama", lora=8, lora_targets=ALL_LINEAR, kernels=True, checkpoint="nonreentrant")
    yield Case("llama", lora=8, **QLORA)
    yield Case("llama", lora=8, lora_dropout=0, **QLORA)
    yield Case("llama", lora=8, cut=True, checkpoint="nonreentrant", liger="rms_norm+rope+swiglu", **QLORA)
    yield Case("qwen3", batch=2, length=256, vocab=4096, lora=16, lora_targets="q_proj,k_proj,v_proj,o_proj", kernels=True, cut=True, optimizer="fused", accumulation=2)
    yield Case("gemma", lora=8, lora_targets="gate_proj,up_proj,down_proj,q_proj", kernels=True)
    for word in ("lion_32bit", "paged_lion_8bit", "ademamix_8bit", "rmsprop_bnb_8bit", "adamw_8bit", "paged_adamw_8bit"):
        yield Case("llama", optimizer=f"bnb_{word}")


def four_bit():
    """Weights in 4 bits under peft's layers; of TRL adapters in bf16 beside them."""
    yield Case("llama", lora=8, quantized=True)
    yield Case("llama", lora=8, lora_targets=ALL_LINEAR, quantized=True, precision="bf16+autocast", checkpoint="nonreentrant")
    yield Case("llama", vocab=40000, lora=8, quantized=True, trl=True, adapter="bf16", precision="bf16+autocast", checkpoint="nonreentrant")


def four_bit_unseen():
    yield Case("qwen3", batch=2, length=256, vocab=40000, lora=16, quantized=True, trl=True, adapter="bf16", precision="autocast", lora_targets=ALL_LINEAR)
    yield Case("qwen2", batch=2, length=320, lora=16, lora_targets=ALL_LINEAR, lora_dropout=0, quantized=True, precision="bf16+autocast", checkpoint="nonreentrant", accumulation=2, optimizer="fused")


def axolotl_unseen():
    yield Case("qwen3", batch=3, length=200, vocab=8192, lora=16, lora_dropout=0, cut=True, packed=True, attention="flash_attention_2", checkpoint="nonreentrant", liger="rms_norm", **QLORA)
    yield Case("mistral", batch=2, length=300, vocab=32768, lora=4, lora_dropout=0, lora_targets="q_proj,k_proj,v_proj", kernels=True, optimizer="fused")
    yield Case("qwen2", batch=2, length=512, size="0.5b", lora=32, cut=True, packed=True, attention="flash_attention_2", checkpoint="nonreentrant", **QLORA)
    yield Case("llama", batch=2, length=1024, size="1b", precision="bf16+autocast", cut=True, checkpoint="nonreentrant", accumulation=2)
    yield Case("gemma3_text", batch=2, length=144, attention="flash_attention_2", optimizer="fused")
    yield Case("gemma3_text", batch=2, length=200, attention="flash_attention_3", precision="autocast", optimizer="fused")
    yield Case("qwen2", batch=3, length=176, packed=True, attention="flash_attention_3", checkpoint="reentrant", accumulation=2)
    yield Case("phi3", batch=1, length=320, attention="flash_attention_3", precision="autocast", checkpoint="nonreentrant")
    yield Case("llama", optimizer="bnb_paged_ademamix_32bit")
    yield Case("gpt2", batch=2, length=96, optimizer="bnb_ademamix_8bit", precision="autocast", accumulation=2)
    yield Case("qwen2", batch=2, length=144, lora=8, lora_targets="q_proj,v_proj", optimizer="bnb_paged_adamw_8bit")


def evaluations():
    """Two steps, and Trainer's evaluation after them."""
    for model in ("gpt2", "llama", "qwen2"):
        yield Case(model, evaluation="batch=8")
        yield Case(model, precision="autocast", trainer=True, evaluation="batch=8")
        yield Case(model, precision="autocast", trainer=True, use_cache=True, evaluation="batch=6")
    for keeps in ("argmax", "logits"):
        yield Case("llama", precision="autocast", trainer=True, evaluation=f"batch=5,keeps={keeps}")
        yield Case("gpt2", evaluation=f"batch=5,keeps={keeps}")
    yield Case("gpt2", precision="autocast", trainer=True, use_cache=True, evaluation="batch=3,keeps=logits,accumulation=2")
    yield Case("llama", checkpoint="nonreentrant", use_cache=True, evaluation="batch=4")
    yield Case("llama", lora=8, precision="bf16+autocast", trainer=True, use_cache=True, evaluation="batch=8")
    yield Case("llama", lora=8, checkpoint="reentrant", evaluation="batch=2")
    yield Case("qwen2", precision="fp32", evaluation="batch=4")
    yield Case("llama", attention="eager", precision="autocast", trainer=True, evaluation="batch=4")
    yield Case("llama", liger=True, evaluation="batch=4")
    yield Case("bert", precision="autocast", trainer=True, evaluation="batch=6,keeps=argmax")
    yield Case("gpt_neox", precision="fp16", optimizer="fused", evaluation="batch=4")
    yield Case("mixtral", batch=2, length=128, evaluation="batch=2")
    yield Case("llama", trl=True, precision="autocast", checkpoint="nonreentrant", vocab=40000, evaluation="batch=8")
    yield Case("qwen2", trl=True, precision="bf16+autocast", lora=8, checkpoint="nonreentrant", vocab=40000, evaluation="batch=4")


def evaluations_unseen():
    yield Case("qwen3", batch=2, length=224, precision="autocast", trainer=True, optimizer="fused", use_cache=True, evaluation="batch=7")
    yield Case("gpt2", batch=3, length=320, precision="autocast", trainer=True, accumulation=2, evaluation="batch=4,keeps=argmax")
    yield Case("mistral", batch=2, length=200, lora=16, lora_targets="q_proj,v_proj,down_proj", checkpoint="nonreentrant", precision="bf16+autocast", trainer=True, evaluation="batch=5")
    yield Case("phi3", batch=2, length=136, evaluation="batch=3,keeps=logits")
    yield Case("gemma2", batch=2, length=112, precision="autocast", trainer=True, evaluation="batch=6,keeps=logits,accumulation=1")
    yield Case("llama", batch=1, length=512, size="1b", checkpoint="nonreentrant", optimizer="fused", evaluation="batch=4")
    yield Case("qwen2", batch=2, length=333, precision="fp32", accumulation=2, use_cache=True, evaluation="batch=3,keeps=argmax")
    yield Case("llama", batch=2, length=300, trl=True, precision="autocast", lora=8, checkpoint="nonreentrant", vocab=50000, evaluation="batch=3")
    yield Case("distilbert", batch=4, length=96, evaluation="batch=9")
    yield Case("qwen3_moe", batch=2, length=104, precision="autocast", trainer=True, evaluation="batch=3")


def unseen():
    yield Case("llama", optimizer="rmsprop+decay", precision="autocast")
    yield Case("llama", optimizer="adagrad+decay", precision="autocast")
    yield Case("mixtral", batch=2, length=96, optimizer="muon")
    yield Case("qwen2", batch=2, length=112, precision="fp32", optimizer="muon", checkpoint="nonreentrant", accumulation=2)
    yield Case("phi3", batch=1, length=136, precision="autocast", optimizer="muon")
    yield Case("llama", batch=2, length=80, precision="autocast", attention="eager", checkpoint="reentrant", optimizer="fused")
    yield Case("gpt2", batch=3, length=96, attention="eager", accumulation=2)
    yield Case("qwen2", batch=1, length=416, precision="autocast", optimizer="sgd")
    yield Case("qwen3", batch=2, length=136, checkpoint="nonreentrant", optimizer="adafactor")
    yield Case("gemma2", batch=3, length=112, precision="autocast", optimizer="fused")
    yield Case("mixtral", batch=4, length=72, attention="eager", optimizer="loop")
    yield Case("bert", batch=2, length=64, attention="eager", optimizer="fused")
    yield Case("llama", batch=2, length=208, precision="autocast", lora=8, lora_targets="q_proj,o_proj,up_proj", checkpoint="nonreentrant")
    yield Case("qwen3", batch=3, length=96, precision="autocast", liger=True, optimizer="fused", accumulation=2)
    yield Case("gemma3_text", batch=2, length=144, liger=True, checkpoint="nonreentrant")
    yield Case("qwen2", batch=2, length=112, lora=4, lora_targets="q_proj,o_proj", adapter="dora", precision="autocast")
    yield Case("deepseek_v3", batch=2, length=96, precision="autocast", checkpoint="nonreentrant", optimizer="fused")
    yield Case("deepseek_v2", batch=3, length=64, attention="eager", checkpoint="reentrant")
    yield Case("qwen3_moe", batch=2, length=104, attention="eager", precision="autocast", accumulation=2)
    yield Case("qwen3_moe", batch=2, length=88, liger=True, precision="autocast")
    yield Case("deepseek_v3", batch=2, length=112, liger=True, checkpoint="nonreentrant")
    yield Case("qwen2", batch=2, length=144, precision="fp32", optimizer="fused")
    yield Case("phi3", batch=2, length=120, precision="autocast", lora=8, lora_targets="qkv_proj,o_proj", adapter="save=lm_head", checkpoint="nonreentrant")
    yield Case("gemma", batch=1, length=200, lora=12, adapter="prompt", precision="autocast", accumulation=2)
    yield Case("qwen2", batch=3, length=96, ema=True, precision="autocast", checkpoint="nonreentrant")
    yield Case("smollm3", batch=3, length=112, precision="autocast", lora=8, lora_targets=ALL_LINEAR, checkpoint="reentrant")
    yield Case("olmo3", batch=2, length=200, precision="autocast", liger=True, checkpoint="nonreentrant")
    yield Case("granite", batch=2, length=144, precision="autocast", accumulation=2, optimizer="adafactor")
    yield Case("seed_oss", batch=3, length=96, attention="eager", checkpoint="nonreentrant")
    yield Case("starcoder2", batch=2, length=176, precision="autocast", lora=4, lora_targets="q_proj,c_fc,c_proj")
    yield Case("arcee", batch=1, length=256, precision="fp32")
    yield Case("exaone4", batch=2, length=144, precision="autocast", lora=8, lora_targets=ALL_LINEAR, checkpoint="nonreentrant")
    yield Case("exaone4", batch=3, length=80, attention="eager", precision="fp32", accumulation=2, use_cache=True)
    yield Case("gpt_oss", batch=3, length=120, attention="eager", precision="autocast", accumulation=2)
    yield Case("gpt_oss", batch=2, length=96, attention="eager", precision="autocast", lora=8, lora_targets="q_proj,k_proj,v_proj,o_proj", checkpoint="reentrant")


def padded():
    """Rows of different lengths, as SFTTrainer and DataCollatorWithPadding fill them up."""
    yield Case("llama", padded=True)
    yield Case("llama", padded=True, precision="autocast", checkpoint="nonreentrant", optimizer="fused")
    yield Case("gpt2", padded=True, precision="autocast")
    yield Case("qwen2", padded=True, lora=8, batch=3, length=144)
    yield Case("bert", padded=True, precision="autocast", optimizer="fused", batch=6, length=128)
    yield Case("distilbert", padded=True, precision="fp32", batch=5, length=112)
    yield Case("gemma3_text", padded=True)
    yield Case("llama", padded=True, attention="eager")
    yield Case("llama", padded=True, attention="flash_attention_2")
    yield Case("qwen3", padded=True, attention="flash_attention_2", precision="autocast", checkpoint="nonreentrant", batch=3, length=144)
    yield Case("llama", padded=True, attention="flash_attention_3", lora=8, precision="bf16+autocast")
    yield Case("gemma2", padded=True, attention="flash_attention_2", batch=2, length=160)


def newest_padded():
    """The same with transformers 5."""
    yield Case("llama", padded=True, transformers="5.17.0", precision="autocast", trainer=True)
    yield Case("bert", padded=True, transformers="5.17.0", batch=6, length=128)
    yield Case("gpt2", padded=True, transformers="5.17.0", precision="autocast", trainer=True, checkpoint="nonreentrant")
    yield Case("llama", padded=True, transformers="5.17.0", attention="flash_attention_2", precision="autocast", trainer=True)


def newest_padded_unseen():
    yield Case("qwen3", padded=True, transformers="5.17.0", batch=3, length=104, lora=8)
    yield Case("distilbert", padded=True, transformers="5.17.0", batch=3, length=136, precision="autocast", trainer=True, optimizer="fused")
    yield Case("qwen3", padded=True, transformers="5.17.0", attention="flash_attention_2", batch=3, length=200, lora=8, checkpoint="nonreentrant")


def padded_unseen():
    yield Case("qwen3", padded=True, precision="autocast", accumulation=2, batch=3, length=136)
    yield Case("phi3", padded=True, batch=2, length=152, lora=8, lora_targets="qkv_proj,o_proj")
    yield Case("roberta", padded=True, batch=3, length=120)
    yield Case("mixtral", padded=True, batch=2, length=128, optimizer="fused")
    yield Case("olmo2", padded=True, batch=5, length=88, precision="fp32", checkpoint="reentrant")
    yield Case("mistral", padded=True, attention="flash_attention_2", precision="bf16+autocast", batch=5, length=200, accumulation=2)
    yield Case("gpt2", padded=True, attention="flash_attention_3", precision="autocast", batch=3, length=176)
    yield Case("phi3", padded=True, attention="flash_attention_2", batch=4, length=136, checkpoint="reentrant", lora=8, lora_targets="qkv_proj,o_proj")
    yield Case("gemma3_text", padded=True, attention="flash_attention_3", batch=3, length=120, optimizer="fused")


SEQUENCES, TOKENS, ANSWERS = "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"


def heads():
    """Heads of classes in place of one of words: of texts, of tokens, and of where an answer begins and ends."""
    def case(model, task, labels=2, more=None, **rest):
        return Case(model, shape=_head(model, task, labels, **(more or {})), **rest)
    for precision in ("fp32", "fp16", "autocast", "bf16"):
        yield case("bert", SEQUENCES, precision=precision, padded=precision != "bf16", trainer=precision == "autocast", batch=6, length=128, optimizer="fused" if precision == "fp16" else "foreach")
    yield case("bert", SEQUENCES, 1, precision="autocast", trainer=True)
    yield case("bert", SEQUENCES, 3, attention="eager", precision="autocast", trainer=True, optimizer="loop", accumulation=2)
    yield case("bert", SEQUENCES, 3, checkpoint="nonreentrant", precision="fp32")
    yield case("bert", TOKENS, 9, precision="autocast", trainer=True, padded=True)
    yield case("bert", TOKENS, 9, precision="fp32")
    yield case("bert", ANSWERS, precision="autocast", trainer=True, padded=True)
    yield case("bert", ANSWERS, precision="fp32", checkpoint="reentrant")
    yield case("roberta", SEQUENCES, precision="autocast", trainer=True, padded=True)
    yield case("roberta", SEQUENCES, 1, precision="fp32")
    yield case("xlm-roberta", SEQUENCES, 3, precision="fp16", optimizer="fused")
    yield case("distilbert", SEQUENCES, precision="autocast", trainer=True, padded=True)
    yield case("distilbert", TOKENS, 9, precision="fp32", padded=True)
    yield case("distilbert", ANSWERS, precision="fp16", optimizer="fused")
    for model in ("gpt2", "llama"):
        yield case(model, SEQUENCES, precision="autocast", trainer=True)
        yield case(model, SEQUENCES, 5, padded=True)
        yield case(model, TOKENS, 9, precision="autocast", trainer=True)
        yield case(model, ANSWERS)
    yield case("gpt_neox", SEQUENCES, precision="fp16", optimizer="fused")
    yield case("llama", SEQUENCES, lora=8, precision="bf16+autocast", trainer=True, checkpoint="nonreentrant", adapter="save=score")
    yield case("bert", SEQUENCES, precision="autocast", trainer=True, evaluation="batch=8,keeps=logits")
    yield case("bert", TOKENS, 9, precision="autocast", trainer=True, padded=True, evaluation="batch=6,keeps=logits")
    yield case("bert", ANSWERS, precision="fp32", evaluation="batch=6,keeps=logits")
    yield case("llama", SEQUENCES, 3, evaluation="batch=5,keeps=logits")


def heads_unseen():
    def case(model, task, labels=2, more=None, **rest):
        return Case(model, shape=_head(model, task, labels, **(more or {})), **rest)
    yield case("bert", SEQUENCES, batch=1, length=200, precision="autocast", trainer=True, padded=True, optimizer="fused")
    yield case("bert", ANSWERS, batch=3, length=384, precision="fp16", padded=True, optimizer="fused", more={"num_hidden_layers": 5})
    yield case("roberta", ANSWERS, batch=5, length=144, precision="autocast", trainer=True, padded=True, checkpoint="nonreentrant")
    yield case("roberta", TOKENS, 17, batch=3, length=104, optimizer="adafactor", precision="fp32", accumulation=2)
    yield case("xlm-roberta", SEQUENCES, 1, batch=7, length=88, precision="autocast", trainer=True, padded=True)
    yield case("distilbert", SEQUENCES, 4, batch=3, length=216, attention="eager", precision="fp32", optimizer="sgd", more={"seq_classif_dropout": 0.0})
    yield case("gpt2", SEQUENCES, 6, batch=2, length=96, precision="fp16", checkpoint="nonreentrant", optimizer="fused")
    yield case("gpt2", TOKENS, 4, batch=3, length=120, precision="fp32", padded=True, accumulation=2)
    yield case("qwen3", SEQUENCES, 1, batch=3, length=136, precision="autocast", trainer=True, padded=True)
    yield case("mistral", ANSWERS, batch=2, length=208, precision="autocast", trainer=True, checkpoint="nonreentrant")
    yield case("phi3", TOKENS, 3, batch=4, length=72, padded=True)
    yield case("gpt_neox", ANSWERS, batch=2, length=176, precision="autocast", trainer=True)
    yield case("qwen2", SEQUENCES, 8, batch=2, length=333, lora=8, lora_targets="q_proj,v_proj", adapter="save=score", precision="bf16+autocast", trainer=True)
    yield case("distilbert", TOKENS, 9, batch=3, length=112, precision="autocast", trainer=True, padded=True, evaluation="batch=4,keeps=logits,accumulation=2")
    yield case("roberta", SEQUENCES, batch=5, length=96, precision="fp16", optimizer="fused", evaluation="batch=9,keeps=logits")


def newest_heads():
    """The same with transformers 5."""
    def case(model, task, labels=2, **rest):
        return Case(model, shape=_head(model, task, labels), transformers="5.17.0", **rest)
    yield case("bert", SEQUENCES, precision="autocast", trainer=True, padded=True)
    yield case("bert", ANSWERS, precision="fp32", padded=True)
    yield case("distilbert", TOKENS, 9, precision="autocast", trainer=True)
    yield case("llama", SEQUENCES, precision="autocast", trainer=True, padded=True)
    yield case("gpt2", SEQUENCES, 3)
    yield case("bert", SEQUENCES, 3, precision="autocast", trainer=True, evaluation="batch=8,keeps=logits")


def newest_heads_unseen():
    def case(model, task, labels=2, **rest):
        return Case(model, shape=_head(model, task, labels), transformers="5.17.0", **rest)
    yield case("roberta", SEQUENCES, 3, batch=3, length=120, precision="autocast", trainer=True, padded=True, optimizer="fused")
    yield case("qwen2", TOKENS, 9, batch=2, length=184, precision="autocast", trainer=True, checkpoint="nonreentrant")
    yield case("olmo2", SEQUENCES, 2, batch=3, length=96)
    yield case("xlm-roberta", TOKENS, 7, batch=5, length=88, precision="fp32", padded=True, evaluation="batch=3,keeps=logits")
    yield case("distilbert", ANSWERS, batch=2, length=320, precision="autocast", trainer=True, padded=True)


def parallel():
    """Several ranks: torch's own DistributedDataParallel and fully_shard on a process group that does not communicate."""
    for kind in ("ddp", "ddp_rebuilt", "fsdp2", "fsdp2_keep"):
        yield Case("llama", parallel=kind, gpus=2)
        yield Case("llama", precision="autocast", parallel=kind, gpus=8)
        yield Case("gpt2", parallel=kind, gpus=4, optimizer="fused", accumulation=2)
    yield Case("llama", parallel="ddp_rebuilt", gpus=2, checkpoint="nonreentrant")
    yield Case("llama", parallel="fsdp2", gpus=2, checkpoint="nonreentrant")
    yield Case("qwen2", parallel="fsdp2", gpus=8, precision="autocast", checkpoint="nonreentrant", optimizer="fused")
    yield Case("llama", parallel="ddp", gpus=2, lora=8)
    yield Case("llama", parallel="fsdp2", gpus=2, lora=8, precision="autocast")
    yield Case("llama", parallel="fsdp2", gpus=2, lora=8, precision="autocast", checkpoint="nonreentrant", lora_targets=ALL_LINEAR, optimizer="fused", accumulation=2)
    yield Case("llama", parallel="fsdp2", gpus=4, lora=8, precision="bf16+autocast", checkpoint="nonreentrant")
    yield Case("gpt_oss", batch=2, attention="eager", precision="autocast", checkpoint="nonreentrant", optimizer="fused", parallel="fsdp2", gpus=2)
    yield Case("llama", parallel="fsdp2_offload", gpus=2)
    yield Case("llama", parallel="fsdp2_offload", gpus=2, lora=8, lora_targets="q_proj,v_proj", precision="autocast")


def trl_parallel():
    yield Case("llama", vocab=40000, trl=True, parallel="fsdp2", gpus=2, precision="autocast", checkpoint="nonreentrant")
    yield Case("qwen2", vocab=40000, trl=True, parallel="fsdp2", gpus=4, precision="autocast", lora=8, checkpoint="nonreentrant", accumulation=2)
    yield Case("llama", vocab=40000, trl=True, parallel="fsdp1", gpus=2, precision="autocast", checkpoint="nonreentrant")
    yield Case("llama", vocab=40000, trl=True, parallel="zero3", gpus=2, checkpoint="nonreentrant")
    yield Case("llama", vocab=40000, trl=True, parallel="zero3", gpus=4, batch=2, accumulation=2, zero="reduce_bucket_size=300000,stage3_prefetch_bucket_size=100000,stage3_param_persistence_threshold=2560,stage3_max_live_parameters=400000,stage3_max_reuse_distance=0")
    yield Case("llama", vocab=40000, trl=True, parallel="zero3", gpus=2, lora=8, checkpoint="reentrant")
    yield Case("qwen2", vocab=40000, trl=True, parallel="zero3", gpus=2, zero="stage3_max_reuse_distance=0")


def parallel_unseen():
    yield Case("mistral", batch=2, length=300, vocab=70000, trl=True, parallel="fsdp2", gpus=8, precision="autocast", checkpoint="nonreentrant", optimizer="fused")
    yield Case("qwen3", batch=3, length=200, vocab=50000, trl=True, parallel="fsdp1", gpus=4, precision="autocast", optimizer="fused")
    yield Case("qwen2", parallel="fsdp2", gpus=4, batch=2, lora=16, lora_targets=ALL_LINEAR, precision="bf16+autocast", checkpoint="nonreentrant", optimizer="fused")
    yield Case("qwen3", parallel="fsdp2", gpus=4, batch=3, length=200, precision="autocast", checkpoint="nonreentrant", accumulation=3)
    yield Case("mistral", parallel="fsdp2_keep", gpus=8, batch=2, length=256, lora=4, lora_targets="q_proj,v_proj", precision="autocast")
    yield Case("qwen2", parallel="fsdp2_offload", gpus=4, batch=2, length=200, precision="bf16+autocast", checkpoint="nonreentrant", accumulation=2)
    yield Case("mistral", parallel="fsdp2_offload", gpus=8, batch=2, length=300, precision="autocast", checkpoint="nonreentrant", optimizer="fused")
    yield Case("mistral", batch=2, length=300, vocab=70000, trl=True, parallel="zero3", gpus=8, checkpoint="nonreentrant", optimizer="fused", zero="reduce_bucket_size=5000000,stage3_prefetch_bucket_size=500000")
    yield Case("qwen3", batch=3, length=200, vocab=50000, trl=True, parallel="zero3", gpus=4, lora=8, lora_targets=ALL_LINEAR, checkpoint="reentrant", accumulation=2)


def zero():
    """Rank 0 (or another) under DeepSpeed's own ZeRO optimizers: buckets that hold everything, a few gradients, less than one; boundaries of
    partitions within tensors; ranks with more and with less."""
    few, less = "reduce_bucket_size=300000", "reduce_bucket_size=70000"
    for stage in ("zero2", "zero1"):
        yield Case("llama", parallel=stage, gpus=2)
        yield Case("llama", parallel=stage, gpus=8, rank=7, zero=few)
        yield Case("gpt2", parallel=stage, gpus=4, rank=1, zero=less, optimizer="fused", accumulation=2)
        yield Case("llama", parallel=stage, gpus=2, zero=few + ",overlap_comm", checkpoint="nonreentrant")
        yield Case("qwen2", parallel=stage, gpus=2, rank=1, zero=less + ",overlap_comm,round_robin_gradients", batch=1, optimizer="fused", accumulation=2)
        yield Case("llama", parallel=stage, gpus=4, zero=few + ",contiguous_gradients=false,overlap_comm=false", batch=1)
        yield Case("llama", parallel=stage, gpus=2, zero=few + ",offload_optimizer")
    yield Case("llama", parallel="zero2", gpus=4, zero=few + ",contiguous_gradients=false,overlap_comm", batch=1, accumulation=2)
    yield Case("gpt2", parallel="zero2", gpus=2, zero=few + ",reduce_scatter=false", batch=1)
    yield Case("gpt2", parallel="zero2", gpus=2, precision="fp32", zero=few, batch=1, length=64)
    yield Case("llama", parallel="zero2", gpus=2, zero=few, lora=8)
    small = few + ",stage3_prefetch_bucket_size=100000,stage3_param_persistence_threshold=2560"
    live = small + ",stage3_max_live_parameters=400000,stage3_max_reuse_distance=0"
    yield Case("llama", parallel="zero3", gpus=2)
    yield Case("llama", parallel="zero3", gpus=8, zero=small)
    yield Case("llama", parallel="zero3", gpus=2, zero=live)
    yield Case("llama", parallel="zero3", gpus=2, zero=live, checkpoint="nonreentrant", batch=2)
    yield Case("llama", parallel="zero3", gpus=4, zero=small + ",stage3_max_reuse_distance=500000,overlap_comm=false", optimizer="fused", accumulation=2)
    yield Case("qwen2", parallel="zero3", gpus=4, rank=3, zero=less + ",sub_group_size=200000,stage3_max_reuse_distance=0", batch=2, optimizer="fused")
    yield Case("gpt2", parallel="zero3", gpus=4, zero=live, batch=2)
    yield Case("llama", parallel="zero3", gpus=2, zero=live + ",contiguous_gradients=false", batch=2)
    yield Case("llama", parallel="zero3", gpus=2, zero=live + ",offload_optimizer", batch=2)
    yield Case("llama", parallel="zero3", gpus=2, zero=live + ",offload_optimizer,offload_param", batch=2)
    yield Case("llama", parallel="zero3", gpus=2, zero=live + ",stage3_prefetch_bucket_size=0", batch=2)
    yield Case("llama", parallel="zero3", gpus=2, zero=small, batch=2, lora=8)
    yield Case("llama", parallel="zero3", gpus=2, zero=live, batch=2, checkpoint="reentrant")
    yield Case("gpt_oss", batch=2, attention="eager", precision="autocast", checkpoint="nonreentrant", optimizer="fused", parallel="zero2", gpus=2, rank=1)
    for case in (dict(model="mixtral"), dict(model="qwen3_moe", checkpoint="nonreentrant"), dict(model="gpt_oss", attention="eager"), dict(model="gpt_neox"), dict(model="deepseek_v2")):
        yield Case(**case, batch=2, parallel="zero3", gpus=4, zero=GATHERED)
    yield Case("llama", parallel="zero0", gpus=2)
    yield Case("llama", parallel="zero0", gpus=4, batch=2, precision="fp32", optimizer="fused", accumulation=2)


GATHERED = "reduce_bucket_size=200000,stage3_prefetch_bucket_size=150000,stage3_param_persistence_threshold=1000"


def zero_unseen():
    """Mixtures whose weights are gathered, which DeepSpeed takes for one module (Mixtral, Qwen) or for many."""
    of = dict(parallel="zero3", zero=GATHERED)
    yield Case("mixtral", batch=1, length=128, gpus=8, checkpoint="nonreentrant", accumulation=2, optimizer="fused", **of)
    yield Case("gpt_oss", batch=1, length=128, gpus=2, attention="eager", checkpoint="nonreentrant", **of)
    yield Case("deepseek_v3", batch=2, length=96, gpus=4, checkpoint="reentrant", **of)
    yield Case("qwen2_moe", batch=2, length=96, gpus=2, **of)
    yield Case("olmoe", batch=2, length=96, gpus=2, checkpoint="nonreentrant", **of)
    yield Case("deepseek_v2", batch=1, length=144, gpus=2, checkpoint="nonreentrant", optimizer="fused", parallel="zero3")
    yield Case("mixtral", batch=1, length=128, gpus=8, checkpoint="reentrant", accumulation=2, optimizer="fused", **of)
    yield Case("qwen3_moe", batch=2, gpus=4, checkpoint="reentrant", **of)
    yield Case("qwen2_moe", batch=2, length=96, gpus=2, checkpoint="reentrant", **of)
    yield Case("gpt2", parallel="zero0", gpus=4, batch=2, precision="autocast", accumulation=3)
    yield Case("qwen2", parallel="zero0", gpus=2, batch=2, length=200, lora=8, checkpoint="reentrant", optimizer="fused")


def fsdp1():
    """A rank under torch's FullyShardedDataParallel: both strategies, precisions, prefetching, accumulation with and without no_sync, checkpoints
    inside and outside the wrapper, whole flat parameters, odd sizes that need padding."""
    for kind in ("fsdp1", "fsdp1_grad_op"):
        yield Case("llama", parallel=kind, gpus=2)
        yield Case("llama", parallel=kind, gpus=8, precision="autocast")
        yield Case("gpt2", parallel=kind, gpus=4, precision="autocast", optimizer="fused", accumulation=2)
        yield Case("llama", parallel=kind, gpus=4, accumulation=2, batch=1, fsdp="no_sync=false")
        yield Case("llama", parallel=kind, gpus=2, checkpoint="nonreentrant")
        yield Case("llama", parallel=kind, gpus=2, precision="autocast", fsdp="prefetch=none")
        yield Case("gpt2", parallel=kind, gpus=4, batch=2, optimizer="fused", fsdp="orig=false")
    yield Case("gpt2", parallel="fsdp1", gpus=2, batch=1, length=64, precision="fp32")
    yield Case("llama", parallel="fsdp1", gpus=2, checkpoint="reentrant")
    yield Case("llama", parallel="fsdp1", gpus=2, batch=2, fsdp="checkpoint=outside")
    yield Case("llama", parallel="fsdp1", gpus=4, batch=2, fsdp="forward_prefetch")
    yield Case("llama", parallel="fsdp1", gpus=4, batch=2, fsdp="prefetch=post")
    yield Case("llama", parallel="fsdp1", gpus=2, batch=1, fsdp="wrap=none")
    yield Case("llama", parallel="fsdp1", gpus=4, rank=3, batch=1, precision="autocast", fsdp="reduce=fp32")
    yield Case("llama", parallel="fsdp1", gpus=2, lora=8)
    yield Case("gpt2", parallel="fsdp1", gpus=7, rank=5, batch=1, precision="autocast", accumulation=2, fsdp="orig=false")
    yield Case("llama", parallel="fsdp1", gpus=2, fsdp="offload")
    yield Case("llama", parallel="fsdp1", gpus=4, precision="bf16+autocast", checkpoint="reentrant", accumulation=2, fsdp="offload")
    yield Case("qwen2", parallel="fsdp1_grad_op", gpus=2, batch=1, length=120, checkpoint="nonreentrant", accumulation=2, fsdp="offload")


def fsdp1_unseen():
    yield Case("qwen2", parallel="fsdp1", gpus=8, rank=7, batch=2, length=192, precision="autocast", checkpoint="nonreentrant", optimizer="fused")
    yield Case("qwen3", parallel="fsdp1_grad_op", gpus=4, rank=1, batch=3, length=96, accumulation=2)
    yield Case("gemma2", parallel="fsdp1", gpus=2, batch=2, length=112, precision="autocast", accumulation=2, fsdp="prefetch=none")
    yield Case("gpt2", parallel="fsdp1", gpus=8, batch=3, length=96, attention="eager", fsdp="orig=false,prefetch=post")
    yield Case("qwen2", parallel="fsdp1_grad_op", gpus=3, rank=2, batch=1, length=224, precision="autocast", checkpoint="nonreentrant", fsdp="forward_prefetch,reduce=fp32")
    yield Case("llama", parallel="fsdp1", gpus=8, batch=2, length=208, lora=8, lora_targets="q_proj,o_proj,up_proj", checkpoint="nonreentrant")
    yield Case("llama", parallel="fsdp1", gpus=2, batch=2, length=144, fsdp="offload,orig=false")
    yield Case("gpt2", parallel="fsdp1_grad_op", gpus=2, batch=2, precision="autocast", fsdp="offload,orig=false")


TRL_QLORA = dict(quantized=True, adapter="bf16", trl=True, vocab=40000, precision="bf16+autocast", checkpoint="nonreentrant")  # as SFTTrainer has it by itself


def shared_adapters():
    """Adapters under FSDP as Trainer has them: under FSDP1 a unit of each matrix. Beside weights in 4 bits, packed into the model's dtype, too. Under ZeRO-3
    with checkpoints of the older form."""
    peft = dict(lora=8, fsdp="wrap=peft", precision="bf16+autocast")
    yield Case("llama", parallel="fsdp1", gpus=2, **peft)
    yield Case("llama", parallel="fsdp1_grad_op", gpus=2, **peft)
    yield Case("llama", parallel="fsdp1", gpus=2, lora=8, fsdp="wrap=peft")
    yield Case("llama", parallel="fsdp1", gpus=8, rank=3, precision="autocast", lora=8, fsdp="wrap=peft", accumulation=2)
    yield Case("llama", parallel="fsdp1", gpus=4, lora_targets=ALL_LINEAR, checkpoint="nonreentrant", optimizer="fused", **peft)
    yield Case("llama", parallel="fsdp1", gpus=4, lora_targets=ALL_LINEAR, checkpoint="reentrant", **peft)
    yield Case("llama", parallel="fsdp1_grad_op", gpus=4, lora_targets=ALL_LINEAR, checkpoint="nonreentrant", accumulation=2, **peft)
    yield Case("llama", parallel="fsdp1", gpus=2, lora=8, precision="bf16+autocast", fsdp="wrap=peft,orig=false,prefetch=none", lora_targets=ALL_LINEAR, checkpoint="nonreentrant")
    yield Case("gpt2", parallel="fsdp1", gpus=2, lora=8, precision="bf16+autocast", fsdp="wrap=peft,orig=false,prefetch=none", batch=2)
    yield Case("qwen2", parallel="fsdp1", gpus=2, lora=8, precision="autocast", fsdp="wrap=peft,prefetch=none", checkpoint="nonreentrant", vocab=40000, trl=True)
    yield Case("llama", parallel="fsdp1", gpus=2, lora=8, quantized=True, fsdp="wrap=peft")
    yield Case("llama", parallel="fsdp1", gpus=2, lora=8, lora_targets=ALL_LINEAR, fsdp="wrap=peft,prefetch=none", **TRL_QLORA)
    yield Case("llama", parallel="fsdp1_grad_op", gpus=4, lora=8, lora_targets=ALL_LINEAR, fsdp="wrap=peft,orig=false", accumulation=2, **TRL_QLORA)
    yield Case("llama", parallel="fsdp2", gpus=2, lora=8, quantized=True, precision="bf16+autocast")
    yield Case("qwen2", parallel="fsdp2", gpus=4, lora=8, lora_targets=ALL_LINEAR, accumulation=2, **TRL_QLORA)
    yield Case("llama", parallel="fsdp1", gpus=2, batch=2, lora=8, lora_targets="q_proj,v_proj", precision="bf16+autocast", checkpoint="nonreentrant", fsdp="offload,wrap=peft")
    small = "reduce_bucket_size=300000,stage3_prefetch_bucket_size=100000,stage3_param_persistence_threshold=2560"
    yield Case("llama", parallel="zero3", gpus=2, batch=2, lora=8, checkpoint="reentrant", zero=small)
    yield Case("llama", parallel="zero3", gpus=2, batch=2, lora=8, lora_targets="q_proj,down_proj", checkpoint="reentrant", accumulation=2, zero=small + ",stage3_max_live_parameters=400000,stage3_max_reuse_distance=0")
    yield Case("llama", parallel="zero3", gpus=2, lora=8, lora_targets=ALL_LINEAR, checkpoint="reentrant", optimizer="fused")


def shared_adapters_unseen():
    peft = dict(fsdp="wrap=peft", precision="bf16+autocast")
    yield Case("mistral", parallel="fsdp1", gpus=8, batch=2, length=256, lora=16, lora_targets=ALL_LINEAR, checkpoint="nonreentrant", optimizer="fused", **peft)
    yield Case("qwen3", parallel="fsdp1_grad_op", gpus=4, rank=1, batch=3, length=200, lora=4, lora_targets="q_proj,o_proj,gate_proj", accumulation=2, **peft)
    yield Case("gemma2", parallel="fsdp1", gpus=2, batch=2, length=112, lora=8, precision="autocast", fsdp="wrap=peft,prefetch=none,orig=false", checkpoint="reentrant", lora_targets=ALL_LINEAR)
    yield Case("llama", parallel="fsdp1", gpus=8, batch=2, length=1024, size="1b", lora=16, lora_targets=ALL_LINEAR, fsdp="wrap=peft,prefetch=none", **{**TRL_QLORA, "vocab": 0})
    yield Case("qwen2", parallel="fsdp1", gpus=4, batch=2, length=320, lora=16, lora_targets="q_proj,v_proj,down_proj", lora_dropout=0, quantized=True, fsdp="wrap=peft", precision="bf16+autocast", optimizer="fused")
    yield Case("mistral", parallel="fsdp2", gpus=4, batch=2, length=300, lora=16, lora_targets=ALL_LINEAR, quantized=True, precision="bf16+autocast", checkpoint="nonreentrant", optimizer="fused")
    yield Case("qwen3", parallel="fsdp2_keep", gpus=2, batch=2, length=256, lora=8, quantized=True, accumulation=2)
    of_qlora = dict(batch=2, length=200, lora=8, lora_targets="q_proj,v_proj", quantized=True, precision="bf16+autocast", checkpoint="nonreentrant", gpus=2)
    yield Case("llama", parallel="fsdp2_offload", **of_qlora)
    yield Case("qwen2", parallel="fsdp1", fsdp="offload,wrap=peft", **of_qlora)
    yield Case("mistral", parallel="zero3", gpus=4, batch=3, length=200, lora=16, lora_targets=ALL_LINEAR, checkpoint="reentrant", accumulation=2, optimizer="fused", zero="reduce_bucket_size=500000,stage3_prefetch_bucket_size=200000")
    yield Case("qwen2", parallel="zero3", gpus=8, rank=3, batch=2, length=256, lora=4, lora_targets="q_proj,o_proj", checkpoint="reentrant", zero="stage3_prefetch_bucket_size=0,stage3_max_reuse_distance=0")
