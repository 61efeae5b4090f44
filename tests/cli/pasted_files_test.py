"""Files that a pasted command names, read by the real binary: YAML and JSON of the same say the same, what is used and what is not is told, hostile files are errors with a place."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DRYFIT = os.path.abspath(os.environ.get("DRYFIT", ROOT / "build/release/dryfit"))
CONFIGS = ROOT / "tests/workload/configs"
CLEAN = {k: v for k, v in os.environ.items() if k not in ("HF_HOME", "XDG_CACHE_HOME", "DRYFIT_PROBE")} | {"HOME": "/nonexistent", "XDG_DATA_HOME": "/nonexistent"}
failures = []


def expect(holds, what):
    if not holds:
        failures.append(what)


def check(*words, cwd=None, more=None, gpu="h100", before=()):
    done = subprocess.run([DRYFIT, "check", "--gpu", gpu, *before, "--json", "--", *words], capture_output=True, text=True, timeout=60, cwd=cwd, env=CLEAN | (more or {}))
    return done.returncode, json.loads(done.stdout), done.stderr


def allocated(answer):
    return answer.get("memory", {}).get("allocated", {}).get("bytes")


LLAMA = ["--model_name_or_path", "meta-llama/Llama-3.2-1B", "--per_device_train_batch_size", "4", "--block_size", "2048"]
with tempfile.TemporaryDirectory() as name:
    here = pathlib.Path(name)
    # accelerate: YAML, JSON and the launcher's own flags
    config = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "FSDP", "mixed_precision": "bf16", "num_processes": 8, "downcast_bf16": "no",
              "fsdp_config": {"fsdp_version": 2, "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "fsdp_activation_checkpointing": True, "fsdp_offload_params": False, "fsdp_reshard_after_forward": True}}
    (here / "a.json").write_text(json.dumps(config))
    (here / "a.yaml").write_text((CONFIGS / "fsdp2.yaml").read_text())
    answers = [check("accelerate", "launch", *how, "run_clm.py", *LLAMA, cwd=here) for how in (
        ["--config_file", "a.yaml"], ["--config_file", "a.json"], ["--num_processes", "8", "--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP", "--fsdp_activation_checkpointing", "true", "--mixed_precision", "bf16"])]
    expect([a[0] for a in answers] == [0, 0, 0], f"accelerate: exits {[a[0] for a in answers]} {answers[0][1]}")
    expect(len({allocated(a[1]) for a in answers}) == 1 and allocated(answers[0][1]), f"accelerate: {[allocated(a[1]) for a in answers]}")
    expect("note: used of a.yaml: fsdp_config.fsdp_activation_checkpointing" in answers[0][2] and "num_processes" in answers[0][2] and "not used" not in answers[0][2], f"accelerate, told: {answers[0][2]}")
    expect(check("accelerate", "launch", "--config_file", "a.yaml", "--num_processes", "4", "run_clm.py", *LLAMA, cwd=here)[1]["machine"]["gpus"] == 4, "the launcher's words win")
    # what `accelerate config` wrote is read without being named, unless another is
    home = here / "home"
    (home / ".cache/huggingface/accelerate").mkdir(parents=True)
    (home / ".cache/huggingface/accelerate/default_config.yaml").write_text((here / "a.yaml").read_text())
    for more in ({"HOME": str(home)}, {"XDG_CACHE_HOME": str(home / ".cache")}, {"HF_HOME": str(home / ".cache/huggingface")}):
        told = check("accelerate", "launch", "run_clm.py", *LLAMA, more=more)
        expect(allocated(told[1]) == allocated(answers[0][1]) and "default_config.yaml: fsdp_config" in told[2], f"default_config.yaml: {more} {told[2]}")
    expect("default_config" not in check("torchrun", "run_clm.py", *LLAMA, more={"HOME": str(home)})[2], "torchrun reads no accelerate configuration")
    # a DeepSpeed file inside accelerate's, relative to the current folder
    (here / "ds.json").write_text((CONFIGS / "ds_zero3.json").read_text())
    (here / "z.yaml").write_text("distributed_type: DEEPSPEED\nnum_processes: 8\ndeepspeed_config: {deepspeed_config_file: ds.json}\n")
    inside = check("accelerate", "launch", "--config_file", "z.yaml", "run_clm.py", "--bf16", *LLAMA, cwd=here)
    beside = check("deepspeed", "--num_gpus", "8", "run_clm.py", "--deepspeed", "ds.json", "--bf16", *LLAMA, cwd=here)
    expect(allocated(inside[1]) and allocated(inside[1]) == allocated(beside[1]), f"DeepSpeed inside accelerate: {inside} {beside}")
    expect("not used: ds.json: zero_optimization.zero_quantized_weights" in inside[2], f"DeepSpeed, told: {inside[2]}")
    # a file of arguments: alone, or TRL's --config with the command's words over it
    (here / "args.yaml").write_text("model_name_or_path: meta-llama/Llama-3.2-1B\nper_device_train_batch_size: 4\nblock_size: 2048\nbf16: yes\nneftune_noise_alpha: 5\nlearning_rate: 1e-5\n")
    (here / "args.json").write_text('{"model_name_or_path": "meta-llama/Llama-3.2-1B", "per_device_train_batch_size": 4, "block_size": 2048, "bf16": true}')
    plain = check("python", "run_clm.py", "--bf16", *LLAMA)
    for how in (["python", "run_clm.py", "args.yaml"], ["python", "run_clm.py", "args.json"], ["python", "run_clm.py", "--config", "args.yaml"], ["python", "run_clm.py", "--config=args.json"]):
        told = check(*how, cwd=here)
        expect(allocated(told[1]) == allocated(plain[1]), f"{how}: {told}")
        expect("per_device_train_batch_size" in told[2] and ("neftune_noise_alpha" in told[2]) == ("args.yaml" in " ".join(how)), f"{how}, told: {told[2]}")
    more = check("python", "sft.py", "--config", "args.yaml", "--per_device_train_batch_size", "8", cwd=here)
    expect(more[1]["workload"]["run"]["device_batch_size"] == 8, "the command's words win over its file")
    # LitGPT's --config: nested names, and what follows it over it
    (here / "q.yaml").write_text((CONFIGS / "litgpt_qlora.yaml").read_text())
    told = check("litgpt", "finetune_lora", "--config", "q.yaml", "--train.micro_batch_size", "4", cwd=here)
    same = check(*"litgpt finetune_lora meta-llama/Llama-2-7b-hf --precision bf16-true --quantize bnb.nf4 --lora_r 32 --train.micro_batch_size 4 --train.global_batch_size 8 --train.max_seq_length 512".split())
    expect(allocated(told[1]) and allocated(told[1]) == allocated(same[1]), f"litgpt: {told} {same}")
    expect("used of q.yaml: checkpoint_dir, precision" in told[2] and "not used" not in told[2], f"litgpt, told: {told[2]}")
    # torchtune's configuration: a shipped one and the same as a file, its words over it, and what is said of both
    words = "batch_size=4 tokenizer.max_seq_len=1024 model.lora_rank=16".split()
    (here / "tune.yaml").write_text("model: {_component_: torchtune.models.llama3_2.lora_llama3_2_1b, lora_attn_modules: [q_proj, v_proj, output_proj], apply_lora_to_mlp: True, lora_rank: 64, lora_alpha: 128}\noptimizer: {_component_: torch.optim.AdamW, fused: True}\n"
                                    "loss: {_component_: torchtune.modules.loss.CEWithChunkedOutputLoss}\nbatch_size: 2\ngradient_accumulation_steps: 8\nenable_activation_checkpointing: False\nsecret: 1\n")
    shipped = check("tune", "run", "lora_finetune_single_device", "--config", "llama3_2/1B_lora_single_device", "enable_activation_checkpointing=False", *words, cwd=here)
    own = check("tune", "run", "lora_finetune_single_device", "--config", "tune.yaml", *words, cwd=here)
    expect(allocated(shipped[1]) and allocated(shipped[1]) == allocated(own[1]), f"torchtune: {shipped} {own}")
    expect("as torchtune 0.6.1 ships it" in shipped[2] and "not used: tune.yaml: secret" in own[2] and "model.lora_rank" in own[2], f"torchtune, told: {shipped[2]} {own[2]}")
    run = own[1]["workload"]["run"]
    expect((run["device_batch_size"], run["max_seq_len"], run["grad_accum_steps"]) == (4, 1024, 8), f"torchtune, over the file: {run}")
    again = check(own[1]["command"], cwd=here)
    expect(allocated(again[1]) and "lora_finetune_single_device --config tune.yaml" in own[1]["command"], f"torchtune, its own command: {own[1]['command']} {again}")
    for more in (["--config", "none.yaml"], ["--config", "llama3_2/1B_lora"], ["--config", "llama3_2/1B_lora_single"], ["--config", "tune.yaml", "compile=True"], ["--config", "tune.yaml", "batch_size.a=2"], ["--config", "tune.yaml", "batch_size=[2"]):
        status, answer, _ = check("tune", "run", "full_finetune_single_device", *more, cwd=here)
        expect(status == 2 and answer.get("error", {}).get("hint") and answer["error"].get("where"), f"{more}: {status} {answer}")
    # torchtitan's TOML: one that ships and the same as a file, its words over it under each launcher, and what is said of both
    titan = "[job]\ndescription = 'x'\n[model]\nname = \"llama3\"\nflavor = \"8B\"\n[training]\nlocal_batch_size = 1\nseq_len = 8192\nsteps = 1000\n[activation_checkpoint]\nmode = \"selective\"\nselective_ac_option = \"op\"\n"
    (here / "titan.toml").write_text(titan + "[metrics]\nlog_freq = 1\n[validation]\nenable = true\n")
    module = "torchrun --nproc_per_node 8 -m torchtitan.train --job.config_file".split()
    shipped = check(*module, "somewhere/llama3_8b.toml", cwd=here)
    own = check(*module, "titan.toml", cwd=here)
    expect(allocated(shipped[1]) and allocated(shipped[1]) == allocated(own[1]), f"torchtitan: {shipped} {own}")
    expect("as torchtitan 0.2.2 ships it" in shipped[2] and "not used: titan.toml: validation.enable" in own[2] and "training.seq_len" in own[2], f"torchtitan, told: {shipped[2]} {own[2]}")
    over = "--training.local_batch_size=2 --training.seq-len 4096 --training.global_batch_size 64 --activation_checkpoint.mode full --parallelism.fsdp_reshard_after_forward always".split()
    runs = [check(*how, *over, cwd=here) for how in ([*module, "titan.toml"], ["python", "-m", "torch.distributed.run", "--nproc_per_node=8", "torchtitan/train.py", "--job.config-file=titan.toml"], ["CONFIG_FILE=titan.toml", "./run_train.sh"], ["NGPU=8", "CONFIG_FILE=titan.toml", "bash", "run_train.sh"])]
    expect(len({allocated(one[1]) for one in runs}) == 1 and 0 < allocated(runs[0][1]) < allocated(own[1]), f"torchtitan's launchers: {runs}")
    run = runs[0][1]["workload"]["run"]
    expect((run["device_batch_size"], run["max_seq_len"], run["grad_accum_steps"], run["recompute"]) == (2, 4096, 4, "full"), f"torchtitan, over the file: {run}")
    again = check(runs[0][1]["command"], cwd=here)
    expect(allocated(again[1]) == allocated(runs[0][1]), f"torchtitan, its own command: {runs[0][1]['command']} {again}")
    compiled = check(*module, "titan.toml", *over, "--compile.enable", cwd=here)
    expect(0 < allocated(compiled[1]) != allocated(runs[0][1]) and "--compile.enable" in compiled[1]["command"], f"torchtitan, compiled: {compiled}")
    for more in (["none.toml"], ["titan.toml", "--compile.enable", "--compile.backend", "eager"], ["titan.toml", "--training.local_batch_size", "many"], ["titan.toml", "--training.global_batch_size", "12"], ["titan.toml", "--model.a.b", "1", "--model.flavor.c", "2"], ["titan.toml", "seq_len"], ["titan.toml", "--module", "llama3"]):
        status, answer, _ = check(*module, *more, cwd=here)
        expect(status == 2 and answer.get("error", {}).get("hint"), f"{more}: {status} {answer}")
    points = "a" + ".a" * 5000 + " = 1\n"
    for text, code, where in (("a = 1\nb = \n", "bad_toml", "x.toml:2:5"), ("[training]\nseq_len = 1\nseq_len = 2\n", "bad_toml", "x.toml:3"), (points, "too_large", "x.toml"), ("a = " + "[" * 4000, "too_large", "x.toml"), ("#" * (2 << 20), "too_large", "x.toml"), ("[training]\nseq_len = \"many\"\n", "bad_config", "x.toml: training.seq_len"),
                              ("[model]\nflavor = 8\n", "bad_config", "x.toml: model.flavor"), ("model = 1\n", "bad_config", "x.toml: model"), ("[activation_checkpoint]\nselective_ac_option = 2\n", "bad_config", "x.toml: activation_checkpoint.selective_ac_option")):
        (here / "x.toml").write_text(text)
        status, answer, _ = check(*module, "x.toml", cwd=here)
        error = answer.get("error", {})
        expect(status == 2 and error.get("code") == code and error.get("where", "").startswith(where) and error.get("hint"), f"{text[:60]!r}: {status} {answer}")
    (here / "x.toml").write_bytes(b"a = \"\xff\xfe\"\n")
    status, answer, _ = check(*module, "x.toml", cwd=here)
    expect(status == 2 and answer["error"]["where"].startswith("x.toml:1"), f"no UTF-8: {answer}")
    # axolotl's file under its launchers, a DeepSpeed file inside it, the command's words over it
    (here / "ax.yml").write_text((CONFIGS / "axolotl_qlora.yml").read_text())
    launched = [check(*how.split(), cwd=here) for how in ("axolotl train ax.yml --launcher python", "python -m axolotl.cli.train ax.yml", "accelerate launch --num_processes 1 -m axolotl.cli.train ax.yml", "axolotl train ax.yml -- --num_processes 1")]
    expect(len({allocated(a[1]) for a in launched}) == 1 and allocated(launched[0][1]), f"axolotl: {launched}")
    expect("used of ax.yml: base_model" in launched[0][2] and "sample_packing" in launched[0][2] and "not used" not in launched[0][2], f"axolotl, told: {launched[0][2]}")
    run = check("axolotl", "train", "ax.yml", "--launcher", "python", "--micro-batch-size", "4", "--sequence_len=1024", cwd=here)[1]["workload"]["run"]
    expect((run["device_batch_size"], run["max_seq_len"], run["grad_accum_steps"]) == (4, 1024, 4), f"axolotl, over the file: {run}")
    (here / "full.yml").write_text("base_model: meta-llama/Llama-3.2-1B\nattn_implementation: flash_attention_2\nmicro_batch_size: 4\nsequence_len: 2048\ndeepspeed: ds.json\n")
    inside = check("axolotl", "train", "full.yml", "--num-processes", "8", cwd=here)
    beside = check("deepspeed", "--num_gpus", "8", "run_clm.py", "--deepspeed", "ds.json", "--bf16", "--attn_implementation", "flash_attention_2", *LLAMA, cwd=here, before=["--padded", "1"])
    expect(allocated(inside[1]) and allocated(inside[1]) == allocated(beside[1]), f"DeepSpeed inside axolotl: {inside} {beside}")
    for words in (["axolotl", "train", "none.yml"], ["axolotl", "preprocess", "ax.yml"], ["axolotl", "train", "ax.yml", "--rl", "dpo"], ["axolotl", "train", "ax.yml", "--micro-batch-size", "[1"]):
        status, answer, _ = check(*words, cwd=here)
        expect(status == 2 and answer.get("error", {}).get("hint"), f"{words}: {status} {answer}")
    # LLaMA-Factory's file under its launchers: what the Trainer's arguments say of the same run, words over it, a DeepSpeed file inside it
    (here / "lf.yaml").write_text("model_name_or_path: meta-llama/Llama-3.2-1B\nstage: sft\ndo_train: true\nfinetuning_type: lora\nlora_rank: 8\nlora_target: all\ndataset: identity\ntemplate: llama3\ncutoff_len: 2048\nper_device_train_batch_size: 4\nbf16: true\noutput_dir: x\n")
    launched = [check(*how.split(), cwd=here) for how in ("llamafactory-cli train lf.yaml", "python src/train.py lf.yaml", "CUDA_VISIBLE_DEVICES=0 llamafactory-cli train lf.yaml", "torchrun --nproc_per_node 1 src/train.py lf.yaml",
                                                          "python src/train.py --stage sft --model_name_or_path meta-llama/Llama-3.2-1B --do_train --finetuning_type lora --lora_rank 8 --lora_target all --cutoff_len 2048 --per_device_train_batch_size 4 --bf16 --output_dir x")]
    same = check("python", "t.py", *LLAMA, "--bf16", "--dtype", "bfloat16", "--use_peft", "--lora_r", "8", "--lora_target_modules", "all-linear", "--gradient_checkpointing", "--gradient_checkpointing_kwargs", '{"use_reentrant": true}', before=["--padded", "1"])
    expect({allocated(a[1]) for a in launched} == {allocated(same[1])} != {None}, f"LLaMA-Factory: {launched} {same}")
    expect("used of lf.yaml: model_name_or_path, stage, finetuning_type" in launched[0][2] and "not used" not in launched[0][2] and "using checkpoints (LLaMA-Factory's default)" in launched[0][2], f"LLaMA-Factory, told: {launched[0][2]}")
    again = check(launched[0][1]["command"], cwd=here, before=["--padded", "1"])
    expect(allocated(again[1]) == allocated(same[1]), f"LLaMA-Factory, the printed command: {launched[0][1]['command']} {again}")
    run = check("llamafactory-cli", "train", "lf.yaml", "per_device_train_batch_size=2", "cutoff_len=1024", cwd=here)[1]["workload"]["run"]
    expect((run["device_batch_size"], run["max_seq_len"], run["lora_rank"], run["recompute"]) == (2, 1024, 8, "full"), f"LLaMA-Factory, over the file: {run}")
    inside = check(*"FORCE_TORCHRUN=1 NPROC_PER_NODE=8 llamafactory-cli train lf.yaml finetuning_type=full deepspeed=ds.json disable_gradient_checkpointing=true".split(), cwd=here)
    beside = check("PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True", "deepspeed", "--num_gpus", "8", "run_clm.py", "--deepspeed", "ds.json", "--bf16", "--dtype", "bfloat16", *LLAMA, cwd=here, before=["--padded", "1"])
    full = check(*"llamafactory-cli train lf.yaml packing=true".split(), cwd=here)
    expect(allocated(full[1]) and allocated(full[1]) < allocated(same[1]), f"LLaMA-Factory, packed: {full}")
    expect(allocated(inside[1]) and allocated(inside[1]) == allocated(beside[1]) and inside[1]["machine"]["gpus"] == 8, f"DeepSpeed inside LLaMA-Factory: {inside} {beside}")
    for words in ("stage=dpo", "stage=dpo pref_loss=orpo disable_gradient_checkpointing=true", "stage=dpo finetuning_type=full optim=adafactor", "stage=rm quantization_bit=4 lora_dropout=0.1", "stage=rm finetuning_type=full pure_bf16=true bf16=false max_grad_norm=0.5", "stage=dpo torchrun"):
        launched = ("FORCE_TORCHRUN=1", "NPROC_PER_NODE=4") if "torchrun" in words else ()
        words = words.replace(" torchrun", "")
        pairs = check(*launched, "llamafactory-cli", "train", "lf.yaml", *words.split(), "per_device_train_batch_size=1", "cutoff_len=512", cwd=here)
        again = check(pairs[1]["command"])
        expect(allocated(pairs[1]) and allocated(again[1]) == allocated(pairs[1]) and again[1]["command"] == pairs[1]["command"], f"LLaMA-Factory's pairs, the printed command: {words} {pairs[1].get('command')} {again}")
    for words in (["llamafactory-cli", "chat", "lf.yaml"], ["llamafactory-cli", "train", "none.yaml"], ["llamafactory-cli", "train", "lf.yaml", "stage=kto"], ["llamafactory-cli", "train", "lf.yaml", "stage=dpo", "pref_loss=kto_pair"], ["llamafactory-cli", "train", "lf.yaml", "stage=rm", "enable_liger_kernel=true"], ["llamafactory-cli", "train", "lf.yaml", "stage=dpo", "deepspeed=ds.json"], ["llamafactory-cli", "train", "lf.yaml", "quantization_bit=8"], ["llamafactory-cli", "train", "lf.yaml", "cutoff_len=[1"], ["llamafactory-cli", "train"]):
        status, answer, _ = check(*words, cwd=here)
        expect(status == 2 and answer.get("error", {}).get("hint"), f"{words}: {status} {answer}")
    status, answer, _ = check("llamafactory-cli", "train", "lf.yaml", cwd=here, before=("--emit", "slurm"))
    expect(status == 2 and "LLaMA-Factory" in answer["error"]["message"], f"a job of LLaMA-Factory: {answer}")
    # a script in one string: variables, exports, wrappers, the lines around it
    plain = check("torchrun", "--nproc_per_node", "2", "run_clm.py", "--bf16", *LLAMA)
    script = "#!/bin/bash\n#SBATCH --nodes=1\nmodule load cuda\nMODEL=meta-llama/Llama-3.2-1B\nARGS=(--per_device_train_batch_size 4\n  --block_size 2048)\nexport OMP_NUM_THREADS=8\nsrun torchrun --nproc_per_node 2 run_clm.py \\\n  --bf16 --model_name_or_path \"$MODEL\" ${ARGS[@]}\necho done\n"
    pasted = check(script)
    expect(allocated(pasted[1]) and allocated(pasted[1]) == allocated(plain[1]) and "OMP_NUM_THREADS" in pasted[2], f"a script: {pasted}")
    # what an unknown script makes of an argument is asked for, and answered by an option before the --
    words = ["python", "t.py", *LLAMA, "--bf16", "--my_lora_rank", "16"]
    status, answer, _ = check(*words)
    expect(status == 2 and answer["error"]["code"] == "unsupported_flag" and answer["error"]["where"] == "--my-lora-rank", f"an unclear argument: {answer}")
    answered = check(*words, before=("--lora-rank", "16"))
    expect(answered[1]["workload"]["run"]["lora_rank"] == 16 and "in whose place --lora-rank is taken" in answered[2], f"an answered one: {answered}")
    expect(check(*words, before=("--lora-rank", "0"))[1]["workload"]["run"]["lora_rank"] is None, "no adapters")
    glue = check("python", "run_glue.py", "--model_name_or_path", "bert-base-cased", "--max_seq_length", "128", "--per_device_train_batch_size", "32")
    expect(glue[1]["warnings"] == [] and glue[1]["workload"]["version"] == "BertForSequenceClassification" and "using num_labels 2" not in glue[2], f"run_glue: {glue[1]['warnings']} {glue[2]}")
    (here / "classifier").mkdir()
    (here / "classifier" / "config.json").write_text('{"model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": 28996, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 512, "type_vocab_size": 2}')
    named = check("python", "train.py", "--model_name_or_path", str(here / "classifier"), "--max_seq_length", "128", "--per_device_train_batch_size", "32", before=["--padded", "1"])
    expect(allocated(named[1]) == allocated(glue[1]), f"a class that config.json names: {named} {glue}")
    # hostile and wrong files: exit 2, a place, a hint
    bomb = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 8)}]\n" for i in range(12))
    for text, code, where in (("a: 1\n\tb: 2\n", "bad_yaml", "x.yaml:2:1"), ("num_processes: 2\nnum_processes: 4\n", "bad_yaml", "x.yaml:2:1"), (bomb, "too_large", "x.yaml"), ("[" * 4000, "too_large", "x.yaml"), ("x" * (2 << 20), "too_large", "x.yaml"),
                              ("a: !!python/object/apply:os.system [ls]\n", "bad_yaml", "x.yaml:1:4"), ("", "bad_yaml", "x.yaml"), ("a: \u0007\n", "bad_yaml", "x.yaml:1:4"), ("num_processes: many\n", "bad_config", "x.yaml: num_processes"),
                              ("distributed_type: FSDP\nfsdp_config: {fsdp_sharding_strategy: HYBRID_SHARD}\n", "bad_config", "x.yaml: fsdp_config.fsdp_sharding_strategy"), ("- 1\n", "bad_config", "x.yaml"), ("distributed_type: FSDP\nparallelism_config: {parallelism_config_cp_size: 2}\n", "unsupported_training", "x.yaml: parallelism_config.parallelism_config_cp_size")):
        (here / "x.yaml").write_text(text)
        status, answer, _ = check("accelerate", "launch", "--config_file", "x.yaml", "run_clm.py", *LLAMA, cwd=here)
        error = answer.get("error", {})
        expect(status == 2 and error.get("code") == code and error.get("where", "").startswith(where) and error.get("hint"), f"{text[:60]!r}: {status} {answer}")
    (here / "x.yaml").write_bytes(b"a: 1\nb: \xff\xfe\n")
    status, answer, _ = check("accelerate", "launch", "--config_file", "x.yaml", "run_clm.py", *LLAMA, cwd=here)
    expect(status == 2 and answer["error"]["where"] == "x.yaml:2:4", f"no UTF-8: {answer}")
    for path in ("/nonexistent.yaml", "https://example.com/a.yaml", "/tmp", "/dev/zero"):
        status, answer, _ = check("accelerate", "launch", "--config_file", path, "run_clm.py", *LLAMA, cwd=here)
        expect(status == 2 and answer.get("error", {}).get("hint"), f"{path}: {answer}")
    (here / "x.yaml").write_text("learning_rate: 0.1\n")
    status, answer, _ = check("python", "run_clm.py", "x.yaml", cwd=here)
    expect(status == 2 and answer["error"]["code"] == "unsupported_script", f"no arguments of the Trainer: {answer}")

for line in failures:
    print("FAILED", line)
print(f"{len(failures)} failures")
sys.exit(1 if failures else 0)
