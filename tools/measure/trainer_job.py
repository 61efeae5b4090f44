"""A Hugging Face model with random weights trained by transformers' own Trainer on random tokens, measured. Nothing is downloaded. See job.py.

Models are those of data/models by name. dtype: bf16 (the model is loaded in it) · autocast (fp32 weights, --bf16) · fp16 (fp32 weights, --fp16) · fp32.
With `trl` it is trl's SFTTrainer, with the defaults of its SFTConfig, on rows that are tokens already.
"""
import ast
import json
import pathlib
import sys
import tempfile

import torch

import job

TOP = pathlib.Path(__file__).resolve().parent.parent.parent


def config_of(name):
    """The model's config.json as fields: of a preset, or of a file below the repository."""
    if name.endswith(".json"):
        return json.loads((TOP / name).read_text(encoding="utf-8"))
    for path in sorted((TOP / "data/models").glob("*.json")):
        for model in json.loads(path.read_text(encoding="utf-8")):
            if model["name"] == name:
                return dict(model["config"])
    raise SystemExit(f"no model '{name}' in data/models")


def owner_of(fields):
    import transformers
    masked = fields["model_type"] in ("bert", "roberta", "distilbert")
    return transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM


def fill(model):
    """Small random weights, in place: nothing is allocated for them."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data.normal_(0, 0.02)


def from_config(configuration):
    import transformers
    try:
        from transformers.modeling_utils import no_init_weights
    except ImportError:  # transformers 5
        from transformers.initialization import no_init_weights
    fields = config_of(configuration.model)
    fields.pop("torch_dtype", None)
    config = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
    if configuration.attention != "auto":
        config._attn_implementation = configuration.attention
    with no_init_weights():
        model = owner_of(config_of(configuration.model)).from_config(config, torch_dtype=torch.bfloat16 if configuration.dtype == "bf16" else torch.float32)
    model.tie_weights()  # left out with the rest
    return model


def quantized(configuration, device):
    """Saved once and loaded in 4 bits, as from the Hub."""
    import peft
    import transformers
    model = from_config(configuration)
    fill(model)
    settings = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16,
                                               bnb_4bit_use_double_quant=configuration.quantized == "nf4-dq")
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        model = owner_of(config_of(configuration.model)).from_pretrained(folder, quantization_config=settings, device_map={"": device}, torch_dtype=torch.bfloat16)
    return peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=configuration.checkpointing)


def build(configuration, device):
    model = quantized(configuration, device) if configuration.quantized else from_config(configuration)
    if configuration.lora:
        import peft
        model = peft.get_peft_model(model, peft.LoraConfig(r=configuration.lora, lora_alpha=16, lora_dropout=0.05, task_type="CAUSAL_LM"))
        if configuration.checkpointing and not configuration.quantized:
            model.enable_input_require_grads()
    return model


class Rows(torch.utils.data.Dataset):
    """run_clm's rows: ids, a mask of ones, labels."""

    def __init__(self, count, length, vocab_size):
        self.count, self.length, self.vocab_size = count, length, vocab_size

    def __len__(self):
        return self.count

    def __getitem__(self, _index):
        ids = torch.randint(0, self.vocab_size, (self.length,))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}


def value_of(text):
    """Of a field of TrainingArguments: 2, 0.1, True, or the word itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def tokenizer(vocab_size):
    """As many words as the model has, for trl, which wants one and uses its special tokens."""
    import tokenizers
    import transformers
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({f"w{i}": i for i in range(vocab_size)}, unk_token="w0"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1", pad_token="w1", unk_token="w0")


def trainer_of(configuration, model, arguments, rows, phases):
    import transformers
    if not configuration.trl:
        return transformers.Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[phases], data_collator=transformers.default_data_collator)
    import datasets
    import pyarrow
    import trl
    table = pyarrow.table({"input_ids": [rows[i]["input_ids"].tolist() for i in range(len(rows))]})
    tokens = datasets.Dataset(datasets.table.InMemoryTable(table), fingerprint="random")  # a given one: nothing is hashed
    return trl.SFTTrainer(model=model, args=arguments, train_dataset=tokens, callbacks=[phases], processing_class=tokenizer(model.config.vocab_size))


def arguments_of(configuration, folder, on_gpu):
    """TrainingArguments, or SFTConfig: what the configuration says, and what a measurement has no use for switched off."""
    c = configuration
    given = {"output_dir": folder, "per_device_train_batch_size": c.device_batch_size, "gradient_accumulation_steps": c.grad_accum_steps, "max_steps": c.steps, "report_to": [],
             "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True, "use_cpu": not on_gpu, "torch_compile": c.compile, "use_liger_kernel": c.liger}
    given |= {"optim": c.optimizer} if c.optimizer else {}
    given |= {name: value_of(value) for name, _, value in (text.partition("=") for text in c.extra)}
    if c.trl:
        import trl
        return trl.SFTConfig(**given | {"max_length": c.max_seq_len, "dataset_kwargs": {"skip_prepare_dataset": True}} | ({"bf16": False} if not on_gpu else {}))
    import transformers
    return transformers.TrainingArguments(**given | {"bf16": c.dtype == "autocast", "fp16": c.dtype == "fp16", "gradient_checkpointing": c.checkpointing})


def run(configuration, meter):
    import transformers
    c = configuration
    meter.extra["transformers"] = transformers.__version__
    meter.begin()
    if meter.on_gpu:
        torch.empty(1, device="cuda")
    meter.stage("context")

    class Phases(transformers.TrainerCallback):
        def on_step_begin(self, _args, _state, _control, **_):
            if not meter.steps:
                meter.next("load")

        def on_step_end(self, _args, _state, _control, **_):
            meter.step_ended()

    model = build(c, meter.device)
    with tempfile.TemporaryDirectory() as folder:
        arguments = arguments_of(c, folder, meter.on_gpu)
        rows = Rows(c.device_batch_size * c.grad_accum_steps * c.steps, c.max_seq_len, model.config.vocab_size)
        trainer = trainer_of(c, model, arguments, rows, Phases())
        if not c.quantized:
            fill(model)
        meter.extra["attention"] = str(getattr(model.config, "_attn_implementation", ""))
        meter.extra["optim"] = str(arguments.optim)
        trainer.train()
        meter.next("end")


if __name__ == "__main__":
    sys.exit(job.main(run))
