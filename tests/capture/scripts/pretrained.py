"""A causal language model of a folder, read by from_pretrained and trained by transformers' Trainer, as most scripts do."""
import argparse
import tempfile

import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("--device-map")
parser.add_argument("--fsdp", default="")
parser.add_argument("--deepspeed")
parser.add_argument("--length", type=int, default=160)
options = parser.parse_args()

with tempfile.TemporaryDirectory() as folder:
    fsdp = {"fsdp": options.fsdp, "fsdp_config": {"transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"]}} if options.fsdp else {}
    arguments = TrainingArguments(folder, per_device_train_batch_size=4, max_steps=20, bf16=True, logging_steps=1, report_to=[], save_strategy="no", deepspeed=options.deepspeed, **fsdp)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32, device_map=options.device_map)
    rows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(model.config.vocab_size, (64, options.length))]
    Trainer(model=model, args=arguments, train_dataset=rows).train()
