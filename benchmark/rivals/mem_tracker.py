# PyTorch's own MemTracker (torch.distributed._tools.mem_tracker) around a training step of the real model under FakeTensorMode: what a person with an afternoon can write.
NAME = "torch MemTracker"
PACKAGES = ["torch==2.9.1", "transformers==4.57.1", "peft==0.21.2", "litgpt==0.5.13"]
TORCH = True
FIGURE = "allocated bytes (\"peak\" of the tracker)"
SETTINGS = "LitGPT's or transformers' and PEFT's own modules on a fake CPU device (a fake CUDA one asks the driver), LitGPT's loss in chunks and its logits in fp32 as Fabric gives them, AdamW as it runs on a GPU (foreach), its hooks on frozen parameters left out (it raises there), two steps (one where the row was read in the first)"

import collections

from rows import NotCovered, require

LITGPT = {"phi-1.5": "phi-1_5", "phi-2": "phi-2", "phi-3-mini-4k": "Phi-3-mini-4k-instruct", "stablelm-base-alpha-3b": "stablelm-base-alpha-3b", "llama-2-7b": "Llama-2-7b-hf", "llama-2-13b": "Llama-2-13b-hf",
          "llama-3-8b": "Llama-3-8B", "llama-3.1-8b": "Llama-3.1-8B", "llama-3.2-1b": "Llama-3.2-1B", "llama-3.2-3b": "Llama-3.2-3B", "tinyllama-1.1b": "tiny-llama-1.1b", "mistral-7b-v0.1": "Mistral-7B-v0.1",
          "gemma-2b": "Gemma-2b", "gemma-7b": "Gemma-7b", "gemma-2-2b": "Gemma-2-2b", "gemma-2-9b": "Gemma-2-9b"}
SWITCHES = {"q_proj": "lora_query", "k_proj": "lora_key", "v_proj": "lora_value", "o_proj": "lora_projection", "gate_proj": "lora_mlp", "lm_head": "lora_head"}


def settings(row):
    require(row, ("full", "lora", "adapter", "adapter_v2"), mixed=True)
    common = {"batch": row["batch"], "seq": row["seq"], "method": row["method"], "rank": row["lora_rank"], "targets": row["lora_targets"], "dtype": row["dtype"], "mixed": row["mixed"], "steps": 1 if row["phase"] == "first_step" else 2}
    if row["family"] == "litgpt":
        if row["model"] not in LITGPT:
            raise NotCovered("a model that LitGPT does not have")
        return common | {"litgpt": LITGPT[row["model"]], "chunks": "thunder" not in row["loop"]}
    return common | {"config": row["config"], "recompute": row["recompute"]}


def litgpt_model(s):
    import litgpt.adapter
    import litgpt.adapter_v2
    import litgpt.lora
    import litgpt.model

    part = {"full": litgpt.model, "lora": litgpt.lora, "adapter": litgpt.adapter, "adapter_v2": litgpt.adapter_v2}[s["method"]]
    words = {switch: name in s["targets"] for name, switch in SWITCHES.items()} | {"lora_r": s["rank"], "lora_alpha": 16, "lora_dropout": 0.05} if s["method"] == "lora" else {}
    model = part.GPT(part.Config.from_name(s["litgpt"], **words))
    mark = {"lora": "mark_only_lora_as_trainable", "adapter": "mark_only_adapter_as_trainable", "adapter_v2": "mark_only_adapter_v2_as_trainable"}.get(s["method"])
    if mark:
        getattr(part, mark)(model)
    model.max_seq_length = s["seq"]

    def loss(ids):
        from litgpt.utils import chunked_cross_entropy

        if not s["chunks"]:
            return chunked_cross_entropy(model(ids).float(), ids, chunk_size=0)
        logits = [chunk.float() for chunk in model(ids, lm_head_chunk_size=128)]
        logits[-1] = logits[-1][..., :-1, :]
        return chunked_cross_entropy(logits, ids[..., 1:])

    return model, loss


def transformers_model(s):
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**s["config"]), attn_implementation="sdpa")
    if s["recompute"]:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    if s["rank"]:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=s["rank"], target_modules=s["targets"], task_type="CAUSAL_LM"), autocast_adapter_dtype=False)
    return model, lambda ids: model(input_ids=ids, labels=ids).loss


def watch_trainable_alone(torch):
    """MemTracker hooks the gradient of every parameter and raises at a frozen one: here such a hook is left out."""
    for name in ("register_hook", "register_post_accumulate_grad_hook"):
        hook = getattr(torch.Tensor, name)
        if not hasattr(hook, "at_all"):
            setattr(torch.Tensor, name, unless_frozen(torch, hook))


def unless_frozen(torch, hook):
    def register(self, function):
        return hook(self, function) if self.requires_grad else torch.utils.hooks.RemovableHandle(collections.OrderedDict())

    register.at_all = hook
    return register


def estimate(s):
    import contextlib

    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker

    torch.set_default_dtype({"bf16": torch.bfloat16, "fp32": torch.float32}[s["dtype"]])
    cast = torch.autocast("cpu", torch.bfloat16) if s["mixed"] else contextlib.nullcontext()
    with FakeTensorMode():
        with torch.device("cpu"):
            model, loss = litgpt_model(s) if "litgpt" in s else transformers_model(s)
            ids = torch.zeros(s["batch"], s["seq"], dtype=torch.int64)
        model.train()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, foreach=True)
        watch_trainable_alone(torch)
        tracker = MemTracker()
        tracker.track_external(model, optimizer, ids)
        with tracker:
            for _ in range(s["steps"]):
                tracker.reset_mod_stats()
                with cast:
                    value = loss(ids)
                value.backward()
                optimizer.step()
                optimizer.zero_grad()
        peak = tracker.get_tracker_snapshot("peak")
    return {"allocated": max(sum(v for k, v in kinds.items() if str(k).endswith("Total")) for kinds in peak.values()) / 2**20}
