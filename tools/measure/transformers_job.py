"""Training steps of a Hugging Face model with random weights and synthetic tokens, measured. Nothing is downloaded. See job.py.

dtype: bf16 (weights, gradients and optimizer state in bf16), autocast (fp32 weights, bf16 autocast), fp32.
"""
import contextlib
import sys
import time

import torch

import job

# Shapes only; names say whose they are like. Keyword arguments of the library's own configuration classes.
MODELS = {
    "gpt2": ("GPT2Config", dict(n_layer=12, n_head=12, n_embd=768, vocab_size=50257, n_positions=2048)),
    "llama-160m": ("LlamaConfig", dict(num_hidden_layers=12, num_attention_heads=12, num_key_value_heads=12, hidden_size=768, intermediate_size=2048, vocab_size=32000,
                                       max_position_embeddings=4096, tie_word_embeddings=False)),
    "qwen-500m": ("Qwen2Config", dict(num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2, hidden_size=896, intermediate_size=4864, vocab_size=151936,
                                      max_position_embeddings=4096, tie_word_embeddings=True)),
    "tiny": ("LlamaConfig", dict(num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, hidden_size=32, intermediate_size=64, vocab_size=128,
                                 max_position_embeddings=64)),
}


def build(configuration, device):
    import transformers
    name, settings = MODELS[configuration.model]
    model_configuration = getattr(transformers, name)(**settings)
    if configuration.attention == "sdpa":
        model_configuration._attn_implementation = "sdpa"
    dtype = torch.bfloat16 if configuration.dtype == "bf16" else torch.float32
    model = transformers.AutoModelForCausalLM.from_config(model_configuration).to(device=device, dtype=dtype)
    model.train()
    model.config.use_cache = False
    if configuration.checkpointing:
        model.gradient_checkpointing_enable()
    return model


def run(configuration, meter):
    import transformers
    meter.extra["transformers"] = transformers.__version__
    if meter.on_gpu:
        torch.empty(1, device="cuda")
    meter.stage("context")
    with meter.phase("load"):
        model = build(configuration, meter.device)
        meter.extra["attention"] = str(getattr(model.config, "_attn_implementation", ""))
        stepped = torch.compile(model) if configuration.compile else model
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        tokens = torch.randint(0, model.config.vocab_size, (configuration.device_batch_size, configuration.max_seq_len), device=meter.device)
    autocast = (lambda: torch.amp.autocast(meter.device, dtype=torch.bfloat16)) if configuration.dtype == "autocast" else contextlib.nullcontext

    def step():
        for _ in range(configuration.grad_accum_steps):
            with autocast():
                loss = stepped(input_ids=tokens, labels=tokens).loss
            (loss / configuration.grad_accum_steps).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for name in ("first_step", "second_step"):
        with meter.phase(name):
            step()
    with meter.phase("train_step"):
        began = time.perf_counter()
        for _ in range(configuration.steps):
            step()
        meter._sync()
        meter.step_seconds = (time.perf_counter() - began) / configuration.steps
    if configuration.snapshot:
        with meter.phase("snapshot_step"):
            meter.summarise_step(step)


if __name__ == "__main__":
    sys.exit(job.main(run))
