"""Hugging Face runs drawn blindly: nobody chose them, and whoever has the seed draws them again. `record.sh --transformers --draw SEED,COUNT,KIND` records them,
docs/oracle.md tells how they are compared.

Every family that the engine describes is drawn alike often, with shapes and switches of its config.json that transformers itself would train, and ways to train
that transformers, peft, TRL or axolotl would run. KIND: "plain" (one GPU, op by op), "parallel" (a rank of several), "compiled" (torch.compile), "mixed" (mostly
the first), "tuning" (the first with rows that are filled up, Trainer's evaluation, preference training).
"""
import json
import random

import transformers_cases as cases

ENCODERS = ("bert", "distilbert", "xlm-roberta", "roberta")
LATENT = ("deepseek_v2", "deepseek_v3")
MIXTURES = ("mixtral", "olmoe", "qwen2_moe", "qwen3_moe", *LATENT, "gpt_oss")
COMPILED = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "mixtral", "qwen3_moe")
LIGER = ("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3_text", "phi3", "olmo2", "olmo3", "smollm3", "deepseek_v3")
CUT = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "granite")  # whose head axolotl's loss takes as it is
OWN_HEADS = ("llama", "mistral", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3_text", "seed_oss", "gpt_oss", "smollm3")  # head_dim in the file
UNDRAWN = ("exaone4",)  # described after the kept runs were drawn: a longer list would draw others
WINDOWS = ("mistral", "mixtral", "phi3", "qwen2", "qwen3", "gemma2", "gemma3_text", "olmo3", "starcoder2", "gpt_oss", "smollm3")
LINEAR = {  # modules that adapters are put on
    "gpt2": ("c_attn", "c_proj", "c_fc"), "gpt_neox": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"), "phi": ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"),
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"), "starcoder2": ("q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj"), "arcee": ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"),
    "deepseek_v2": ("o_proj", "kv_b_proj"), "deepseek_v3": ("o_proj", "kv_b_proj"), "gpt_oss": ("q_proj", "k_proj", "v_proj", "o_proj"),
}
OPTIMIZERS = ("fused", "fused", "fused", "foreach", "foreach", "loop", "sgd", "plain_sgd+decay", "adafactor", "adagrad", "rmsprop", "rmsprop+decay", "muon", "bnb_adamw_8bit", "bnb_paged_adamw_8bit", "bnb_lion_8bit", "bnb_ademamix")


def _some(pick, of):
    """At least one, in the order they have."""
    chosen = [one for one in of if pick.random() < 0.5]
    return chosen or [pick.choice(of)]


def _shape(pick, model):
    """config.json's fields, as they are named for this family."""
    heads = pick.choice((1, 2, 3, 4, 5, 6, 8, 12))
    size = pick.choice((16, 32, 40, 48, 64, 64, 64, 64, 80, 96, 128, 128, 20, 72, 160))
    layers = pick.choice((1, 2, 2, 3, 3, 4, 5))
    width = heads * size
    ffn = pick.choice((2 * width, 3 * width, 4 * width, 8 * width // 3, width + 37, 1000, 1024, 77))
    vocab = pick.choice((257, 1000, 1003, 2048, 5003, 10001, 32000, 32064, 50257))
    length = 8192
    if model == "gpt2":
        return dict(n_embd=width, n_layer=layers, n_head=heads, n_inner=pick.choice((None, ffn)), vocab_size=vocab, n_positions=length)
    if model == "distilbert":
        return dict(dim=width, hidden_dim=ffn, n_layers=layers, n_heads=heads, vocab_size=vocab, max_position_embeddings=length)
    fields = dict(hidden_size=width, intermediate_size=ffn, num_hidden_layers=layers, num_attention_heads=heads, vocab_size=vocab, max_position_embeddings=length)
    if model in OWN_HEADS:
        fields["head_dim"] = size
        if pick.random() < 0.5:
            fields["hidden_size"] = pick.choice((128, 200, 256, 288, 320, 384, 512))
    if model not in ("gpt_neox", *ENCODERS, *LATENT):
        fields["num_key_value_heads"] = pick.choice([k for k in range(1, heads + 1) if heads % k == 0])
    if model in LATENT:
        fields.update(num_key_value_heads=heads, q_lora_rank=pick.choice((None, 96, 50)), kv_lora_rank=pick.choice((64, 40)), qk_nope_head_dim=pick.choice((48, 32, 64)), qk_rope_head_dim=pick.choice((16, 32)), v_head_dim=pick.choice((48, 64, 80)))
    return fields


def _switches(pick, model, fields):
    """What the family's configuration can say beside sizes."""
    def may(key, *values, chance=0.4):
        if pick.random() < chance:
            fields[key] = pick.choice(values)

    if model not in ENCODERS and model not in ("gpt_neox", "phi", "phi3", "gpt_oss"):
        may("tie_word_embeddings", True, False)
    if model in ("llama", "olmo", "olmo2", "olmo3", "qwen3", "smollm3", "granite", "arcee", "gemma", "gemma2", "gemma3_text", "gpt_neox", "seed_oss", "qwen3_moe", "olmoe", "deepseek_v2", "deepseek_v3"):
        may("attention_bias", True, False)
    if model in ("llama", "smollm3", "granite", "arcee"):
        may("mlp_bias", True, chance=0.2)
    if model in WINDOWS:
        may("sliding_window", 32, 96, 100, 4096)
        if model in ("qwen2", "qwen3", "smollm3") and "sliding_window" in fields:
            fields["use_sliding_window"] = True
            if model != "smollm3":
                fields["max_window_layers"] = pick.choice((0, 1, 2))
    if model in ENCODERS:
        may("activation" if model == "distilbert" else "hidden_act", "gelu", "gelu_new", "relu", chance=0.3)
        if pick.random() < 0.3:
            fields.update(dict(dropout=0.0, attention_dropout=0.0) if model == "distilbert" else dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
        return
    if model == "gpt2":
        may("activation_function", "gelu", "relu", "gelu_new", chance=0.3)
        if pick.random() < 0.4:
            fields.update(embd_pdrop=0.0, resid_pdrop=pick.choice((0.0, 0.1)), attn_pdrop=pick.choice((0.0, 0.1)))
        may("scale_attn_by_inverse_layer_idx", True, chance=0.1)
        return
    may("attention_dropout", 0.1, chance=0.2)
    if model in ("llama", "mistral", "qwen2", "olmo", "granite"):
        may("hidden_act", "gelu", "relu", "gelu_pytorch_tanh", chance=0.15)
    if model in ("phi", "gpt_neox"):
        may("hidden_act", "gelu", "gelu_new", "gelu_fast", chance=0.4)
    if model == "gpt_neox":
        may("rotary_pct", 0.5, 1.0)
        may("use_parallel_residual", False)
        may("hidden_dropout", 0.1)
    if model == "phi":
        may("partial_rotary_factor", 0.4, 1.0)
        may("qk_layernorm", True)
        may("resid_pdrop", 0.1)
        may("embd_pdrop", 0.1)
    if model == "phi3":
        fields.update(original_max_position_embeddings=fields["max_position_embeddings"], pad_token_id=0)
        may("partial_rotary_factor", 0.75, 0.5)
        may("resid_pdrop", 0.1)
    if model == "smollm3":
        fields["pad_token_id"] = 0
    if model in ("olmo", "olmoe"):
        may("clip_qkv", 8.0)
    if model in ("gemma2", "gemma3_text"):
        may("attn_logit_softcapping", 20.0, None)
        may("final_logit_softcapping", 10.0, None)
    if model == "starcoder2":
        may("use_bias", False)
        for key in ("residual_dropout", "embedding_dropout", "attention_dropout"):
            fields[key] = pick.choice((0.0, 0.1))
    if model == "seed_oss":
        may("residual_dropout", 0.0)
        may("attention_dropout", 0.0)
    if model in MIXTURES:
        experts = pick.choice((2, 3, 4, 8))
        fields[{"mixtral": "num_local_experts", "gpt_oss": "num_local_experts"}.get(model, "n_routed_experts" if model in LATENT else "num_experts")] = experts
        fields["num_experts_per_tok"] = pick.choice([k for k in (1, 2, 3) if k <= experts])
        if model in ("qwen2_moe", "qwen3_moe", *LATENT):
            fields["moe_intermediate_size"] = pick.choice((64, 192, 200))
        if model == "qwen2_moe":
            fields["shared_expert_intermediate_size"] = pick.choice((64, 448))
        if model in ("qwen2_moe", "qwen3_moe"):
            may("decoder_sparse_step", 2, chance=0.3)
        if model in ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe"):
            may("output_router_logits", True, chance=0.3)
        if model in ("qwen2_moe", "qwen3_moe", "olmoe", *LATENT):
            may("norm_topk_prob", True, False)
    if model in LATENT:
        fields.update(n_group=1, topk_group=1, n_shared_experts=pick.choice((1, 2)), first_k_dense_replace=pick.choice((0, 1)), num_experts_per_tok=min(2, experts))
        if model == "deepseek_v2":
            fields["topk_method"] = "greedy"
        if experts % 2 == 0 and experts > 2 and pick.random() < 0.5:
            fields.update(n_group=2, topk_group=1, **({"topk_method": "group_limited_greedy"} if model == "deepseek_v2" else {}))


def _adapters(pick, model):
    of = LINEAR.get(model, cases.ALL_LINEAR.split(","))
    if model in MIXTURES and model not in LATENT:
        of = of[:4]  # those of attention; a table of all experts' is long
    rest = dict(lora=pick.choice((4, 8, 16, 33, 64)), lora_targets=",".join(pick.choice((of, _some(pick, of)))), lora_dropout=pick.choice((0.05, 0.05, 0, 0.1)))
    kind = pick.random()
    if kind < 0.15:
        rest["adapter"] = "dora"
    elif kind < 0.2 and model == "llama":
        rest["adapter"] = "save=lm_head"
    elif kind < 0.25 and model in ("qwen2", "starcoder2", "gpt2"):
        rest["adapter"] = "bias"
    elif kind < 0.5 and model != "gpt2" and model not in MIXTURES:
        rest.update(quantized=True, adapter=pick.choice(("", "kbit")))
    return rest


def _training(pick, model, kind):
    rest = dict(batch=pick.choice((1, 1, 2, 2, 3, 4, 5, 7, 8)), length=pick.choice((17, 64, 96, 100, 127, 128, 160, 255, 256, 300, 384, 512, 777)))
    rest["precision"] = pick.choice(("bf16", "autocast", "autocast", "bf16+autocast", "fp32", "fp16"))
    rest["optimizer"] = pick.choice(OPTIMIZERS)
    rest["accumulation"] = pick.choice((1, 1, 1, 2, 3, 4))
    rest["clip"] = pick.choice((1.0, 1.0, 1.0, 0.0))
    rest["checkpoint"] = pick.choice(("none", "none", "reentrant", "nonreentrant"))
    rest["attention"] = "eager" if model == "gpt_oss" else pick.choice(("sdpa", "sdpa", "sdpa", "eager"))
    if model not in ENCODERS and kind != "compiled" and pick.random() < 0.3:
        rest.update(_adapters(pick, model))
    if rest["checkpoint"] == "none" and model not in ENCODERS:
        rest["use_cache"] = pick.random() < 0.5
    if kind != "parallel" and model in LIGER and pick.random() < 0.25:
        rest["liger"] = True
    elif kind == "plain" and model not in ENCODERS and pick.random() < 0.12:
        rest.update(trl=True, use_cache=False)
    elif kind == "plain" and model in CUT and pick.random() < 0.2:
        rest.update(cut=True)
    if kind == "plain" and model not in (*ENCODERS, *LATENT, "gpt_oss", "gpt2") and rest["precision"] != "fp32" and pick.random() < 0.2:
        rest.update(attention=pick.choice(("flash_attention_2", "flash_attention_3")), packed=pick.random() < 0.5, use_cache=False)
    if kind == "plain" and pick.random() < 0.05:
        rest["ema"] = True
    if kind == "parallel":
        rest["parallel"] = pick.choice(("ddp", "ddp", "fsdp2", "fsdp2", "fsdp2_keep", "fsdp1", "fsdp1_grad_op", "zero1", "zero2", "zero2", "zero3", "zero3"))
        rest["gpus"] = pick.choice((2, 2, 4, 8))
        rest["optimizer"] = pick.choice(("fused", "foreach"))
        if rest["parallel"].startswith("zero"):
            rest["zero"] = "reduce_bucket_size=300000" + (",stage3_prefetch_bucket_size=100000,stage3_param_persistence_threshold=2560" if rest["parallel"] == "zero3" else "")
    if kind == "compiled":
        rest.update(compiled=True, attention="sdpa", optimizer=pick.choice(("fused", "foreach")), precision=pick.choice(("bf16", "autocast", "bf16+autocast", "fp32")))
        if cases.breaks(cases.Case(model)):
            rest.update(checkpoint="none", use_cache=False)
        elif rest["checkpoint"] != "none":
            rest["use_cache"] = False
        elif pick.random() < 0.3:
            rest.update(lora=pick.choice((4, 8, 16)), lora_targets=",".join(_some(pick, cases.ALL_LINEAR.split(","))))
    return rest


def _tuning(pick, model):
    """What "plain" has, as fine-tuning on texts does it."""
    rest = _training(pick, model, "plain")
    rest.update(packed=False, ema=False, padded=pick.random() < 0.7, trainer=rest["precision"].endswith("autocast"))
    kind = pick.random()
    if kind < 0.3 and model not in (*ENCODERS, *MIXTURES):
        rest.update(liger=False, cut=False, trl=False, use_cache=False, trainer=False, dpo=pick.choice(("reference", "reference", "precomputed")))
    elif kind < 0.75 and not rest.get("cut"):
        keeps = "" if rest.get("trl") or rest.get("liger") else pick.choice(("", "", ",keeps=argmax", ",keeps=logits"))
        rest["evaluation"] = f"batch={pick.choice((1, 2, 3, 5, 8))}{keeps}" + (f",accumulation={pick.choice((1, 2))}" if keeps and pick.random() < 0.4 else "")
    return rest


def _one(pick, kind):
    if kind == "mixed":
        kind = pick.choice(("plain",) * 7 + ("parallel",) * 2 + ("compiled",))
    model = pick.choice(COMPILED if kind == "compiled" else [m for m in cases.MODELS if m not in UNDRAWN])
    fields = _shape(pick, model)
    _switches(pick, model, fields)
    rest = _tuning(pick, model) if kind == "tuning" else _training(pick, model, kind)
    if kind == "compiled":
        fields["vocab_size"] = pick.choice((512, 1024, 2048, 10000, 32000))
        fields.pop("sliding_window", None), fields.pop("use_sliding_window", None), fields.pop("max_window_layers", None)
    return cases.Case(model, shape=json.dumps(fields, separators=(",", ":")), **rest)


def _runs(case):
    """Whether transformers and the recorder would get through."""
    c, a = case, case.architecture()
    heads = a.get("num_attention_heads", a.get("n_head", a.get("n_heads", 1)))
    width = a.get("hidden_size", a.get("n_embd", a.get("dim")))
    size = a.get("head_dim") or width // heads
    turned = int(size * a.get("partial_rotary_factor", a.get("rotary_pct", 0.5 if c.model == "phi" else 0.25 if c.model == "gpt_neox" else 1)))
    experts = a.get("num_local_experts", a.get("num_experts", a.get("n_routed_experts", 0)))
    rows = c.batch * c.length * a.get("num_experts_per_tok", 0)
    return (turned % 2 == 0 and turned > 0 and (not experts or (rows >= experts and (c.model != "deepseek_v2" or rows % experts == 0)))
            and not (c.quantized and (c.precision.startswith("fp16") or c.packed and c.attention == "sdpa"))
            and not (c.precision == "fp16" and (c.parallel != "none" or c.lora or c.liger or c.trl or c.cut or c.dpo or c.evaluation or c.optimizer == "muon" or c.optimizer.startswith("bnb_")))  # with GradScaler
            and not (c.clip == 0 and c.parallel not in ("none", "ddp", "fsdp2", "fsdp2_keep"))
            and not (c.liger and c.optimizer == "muon")
            and not (c.attention.startswith("flash") and (size % 8 or size > 256 or a.get("attn_logit_softcapping") is None and c.model == "gemma2"))
            and not (c.cut and (c.use_cache or c.lora))
            and not (c.padded and c.batch == 1)  # nothing to fill it up to
            and not (c.lora and c.parallel != "none" and (c.quantized or c.adapter or not c.precision.startswith("bf16")))
            and len(f"{c.name()}.json") < 250)


def draw(seed, count, kind="mixed"):
    pick, drawn = random.Random(seed), []
    while len(drawn) < count:
        case = _one(pick, kind)
        if _runs(case) and case not in drawn:
            drawn.append(case)
    return drawn


# Of drawn runs those that are kept, by the last word of their names (a digest of the shape): what showed something and was repaired; and others, kept apart.
SEEN = {(20261129, 70, "plain"): "eaa2ea1 619e013 ef560cd aef2c9f 0e7d3f8 8695cbd fb3179e fd60c73 cf4c20a", (20261130, 24, "parallel"): "10d6437 c6105fb ec2b492", (20261202, 16, "parallel"): "aa9c3bd",
        (20261301, 56, "plain"): "c09a060", (20261302, 24, "parallel"): "732cac3", (20261305, 50, "tuning"): "78880b5 2b5d2df ef1be90"}
UNSEEN = {(20261201, 44, "plain"): "2cac440 2542b3b 1621520 5bb19ac 4f63a99 9e22ea8 c87839b 20a42df dd4a21c", (20261202, 16, "parallel"): "cfaa988 1514a38 2f5e379 ba8143c",
          (20261305, 50, "tuning"): "74eeb3c d9f1ce6 b0dfeff cab41ce 967788d a4b47a2"}


def kept(of):
    for drawn, digests in of.items():
        by_digest = {case.name()[-7:]: case for case in draw(*drawn)}
        for digest in digests.split():
            yield by_digest[digest]  # another way of drawing: draw_transformers.py must not change under what is kept
