"""GRPO as TRL's first example has it: texts are drawn, rewarded by a function, and trained on. And adapters on 4-bit weights, where bitsandbytes is."""
import sys
import tempfile

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedTokenizerFast

model, what = sys.argv[1:]


def texts():
    """A tokenizer of bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(["<end>", *alphabet])}, merges=[]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", pad_token="<end>")


def grpo(folder):
    from trl import GRPOConfig, GRPOTrainer
    arguments = GRPOConfig(folder, per_device_train_batch_size=4, num_generations=4, max_completion_length=12, max_steps=4, bf16=True, report_to=[], save_strategy="no")
    GRPOTrainer(model=AutoModelForCausalLM.from_pretrained(model), processing_class=texts(), reward_funcs=lambda completions, **_: [float(len(c)) for c in completions], args=arguments,
                train_dataset=Dataset.from_dict({"prompt": [f"number {i:2}" for i in range(32)]})).train()


def quantized(_folder):
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    small = prepare_model_for_kbit_training(AutoModelForCausalLM.from_pretrained(model, quantization_config=bits, dtype=torch.bfloat16, device_map="auto"), gradient_checkpointing_kwargs={"use_reentrant": False})
    small = get_peft_model(small, LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")).train()
    assert len({type(p) for p in small.parameters() if type(p).__name__ == "Params4bit"}) == 1  # one class for all of them
    optimizer = torch.optim.AdamW([p for p in small.parameters() if p.requires_grad])
    for _ in range(3):
        ids = torch.randint(1000, (4, 160), device="cuda")
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = small(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


with tempfile.TemporaryDirectory() as name:
    {"grpo": grpo, "quantized": quantized}[what](name)
