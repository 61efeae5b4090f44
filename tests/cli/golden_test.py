"""Screens of the real binary against tests/golden/cli. `golden_test.py --update` rewrites them: review the diff."""
import difflib
import os
import pathlib
import subprocess
import sys

DRYFIT = os.path.abspath(os.environ.get("DRYFIT", "build/release/dryfit"))
FOLDER = pathlib.Path(__file__).resolve().parent.parent / "golden" / "cli"
MEGATRON = ("torchrun --nproc_per_node 8 pretrain_gpt.py --num-layers 32 --hidden-size 4096 --num-attention-heads 32 --group-query-attention --num-query-groups 8 --ffn-hidden-size 14336 --swiglu "
            "--normalization RMSNorm --disable-bias-linear --untie-embeddings-and-output-weights --position-embedding-type rope --seq-length 8192 --max-position-embeddings 8192 --micro-batch-size 1 --global-batch-size 64 "
            "--vocab-size 128256 --bf16 --attention-dropout 0 --hidden-dropout 0 --tensor-model-parallel-size 4 --sequence-parallel --use-distributed-optimizer --data-path corpus --lr 3e-4")
SCREENS = {
    "help": ["help"], "help_check": ["help", "check"], "help_explain": ["explain", "--help"], "version": ["version"],
    "plan_4090": ["plan", "--gpu", "RTX 4090"], "plan_8xh100_d24": ["plan", "--gpu", "h100", "--gpus", "8", "--depth", "24"],
    "check_fits": ["check", "--depth", "24", "--device-batch-size", "16", "--gpu", "h100", "--gpus", "8"],
    "check_wont_fit": ["check", "--depth", "26", "--device-batch-size", "32", "--gpu", "h100", "--gpus", "8"],
    "check_apple": ["--quiet", "check", "--gpu", "m3 max", "--depth", "8", "--device-batch-size", "8", "--json"], "check_pascal": ["check", "--gpu", "p100", "--memory", "16GiB", "--depth", "8", "--device-batch-size", "4"],
    "check_machine": ["check", "--gpu", "8xH100", "--depth", "24", "--device-batch-size", "16"], "plan_nvidia_smi": ["plan", "--gpu", "NVIDIA GeForce RTX 3060, 12288 MiB", "--depth", "12"], "error_mig": ["check", "--gpu", "A100 MIG 7g.80gb", "--depth", "4"], "error_table_machines": ["table", "--gpu", "8xh100,4090"],
    "doctor_fits_but_died": ["doctor", "tests/doctor/logs/fragmentation.txt", "--depth", "20", "--device-batch-size", "4", "--gpu", "4090"],
    "check_far_too_large": ["check", "--depth", "20", "--gpu", "4090"], "check_model_far_too_large": ["check", "--model", "gpt2", "--device-batch-size", "256", "--mixed", "bf16", "--gpu", "4090"],
    "plan_nothing": ["plan", "--gpu", "RTX 4090", "--depth", "24"], "plan_nothing_json": ["plan", "--memory", "2GiB", "--depth", "4", "--json"], "plan_fixed_batch": ["plan", "--gpu", "RTX 4090", "--device-batch-size", "8"], "plan_fixed_batch_too_large": ["plan", "--gpu", "RTX 4090", "--depth", "20", "--device-batch-size", "32"],
    "error_plan_gpus": ["plan", "--gpu", "h100", "--gpus", "3"], "error_plan_batch": ["plan", "--gpu", "4090", "--depth", "20", "--device-batch-size", "12"],
    "check_pasted_script": ["check", "--gpu", "h100", "--", "export NPROC=8\nDEPTH=${1:-24} # or 26\nARGS=(\n  --depth=$DEPTH\n  --device-batch-size=16\n)\npython -m scripts.tok_train\nscreen -L -Logfile run.log -S d24 torchrun --standalone --nproc_per_node=$NPROC -m scripts.base_train -- \\\n  \"${ARGS[@]}\" --run=$RUN 2>&1 | tee run.log\ntorchrun --standalone --nproc_per_node=$NPROC -m scripts.chat_sft"],
    "check_pasted_loop": ["check", "--gpu", "h100", "--depth", "20", "--", "for d in 12 20; do torchrun --standalone --nproc_per_node=8 -m scripts.base_train -- --depth=$d; done"], "error_pasted_loop": ["check", "--gpu", "h100", "--", "for d in 12 20; do torchrun --standalone --nproc_per_node=8 -m scripts.base_train -- --depth=$d; done"],
    "check_pasted_mid_train": ["check", "--gpu", "h100", "--depth", "20", "--", "torchrun --standalone --nproc_per_node=8 -m scripts.mid_train -- --device_batch_size=16 --run=x"],
    "check_pasted": ["check", "--gpu", "h100", "--", "torchrun", "--nproc_per_node=8", "-m", "scripts.base_train", "--depth=26", "--device_batch_size", "16", "--run=x"],
    "check_pasted_fork": ["check", "--gpu", "h100", "--ignore", "my-forks-flag", "--ignore", "other", "--", "torchrun --nproc_per_node=8 -m scripts.base_train --depth=20 --my-forks-flag=3 --other 1 2 --device-batch-size=16"],
    "check_pasted_fork_json": ["--quiet", "check", "--gpu", "t4", "--ignore=--my-forks-flag", "--json", "--", "python -m scripts.base_train --depth=4 --my-forks-flag=3 --device-batch-size=1"],
    "error_pasted_flags": ["check", "--gpu", "h100", "--", "torchrun --nproc_per_node=8 -m scripts.base_train --dpeth=20 --my-forks-flag=3 --num-samples=4"], "error_ignore": ["check", "--gpu", "h100", "--depth", "20", "--ignore", "depth"],
    "check_pasted_both_spellings": ["check", "--gpu", "4090", "--", "python -m scripts.base_train --depth=12 --device_batch_size=4 --window-pattern=L"], "check_pasted_e2": ["check", "--gpu", "4090", "--", "python -m scripts.base_train --depth=12 --device_batch_size=4 --max_seq_len=1024"],
    "check_instance": ["check", "--gpu", "p4d.24xlarge", "--depth", "24", "--device-batch-size", "8"], "plan_instance": ["plan", "--gpu", "Kaggle T4 x2", "--depth", "8"], "error_instance": ["check", "--gpu", "p5.24xlarge", "--depth", "24"], "list_gpus_instance": ["list", "gpus", "Standard_NC24ads_A100_v4"],
    "check_several_sizes": ["check", "--gpu", "rtx 6000", "--depth", "12", "--device-batch-size", "4"], "table_several_sizes": ["table", "--gpu", "v100,a100-80,L40S", "--depths", "4"],
    "check_seed_example": ["check", "--gpu", "RTX 4090", "--", "python -m scripts.base_train --depth=24 --device-batch-size=8 --total-batch-size=524288 --run=my_experiment"],
    "explain_8xh100_e1": ["explain", "--nanochat", "E1", "--depth", "20", "--gpu", "h100", "--gpus", "8"],
    "explain_timeline": ["explain", "--depth", "12", "--device-batch-size", "8", "--gpu", "4090", "--timeline", "--ascii"],
    "plan_t4": ["plan", "--gpu", "t4", "--depth", "8"], "check_t4_fp16": ["check", "--gpu", "t4", "--", "NANOCHAT_DTYPE=float16", "python", "-m", "scripts.base_train", "--depth=8", "--device-batch-size=8"],
    "explain_quick_json": ["explain", "--depth", "4", "--device-batch-size", "8", "--gpu", "t4", "--alternatives", "0", "--json"],
    "explain_fp8_json": ["explain", "--depth", "4", "--device-batch-size", "8", "--gpu", "h100", "--fp8", "--json"],
    "check_json": ["check", "--depth", "20", "--device-batch-size", "8", "--gpu", "h100", "--json"],
    "plan_json": ["plan", "--gpu", "rtx 3060", "--depth", "12", "--json"],
    **{f"plan_emit_{kind}": ["plan", "--gpu", "h100", "--gpus", "16", "--depth", "26", "--emit", kind] for kind in ("torchrun", "slurm", "kubernetes", "trainjob", "skypilot", "ray")},
    "plan_offers": ["plan", "--offers", "--depth", "20"], "plan_offers_json": ["plan", "--offers", "--depth", "4", "--num-iterations", "100", "--prices", "tests/cli/prices.csv", "--json"], "help_plan": ["help", "plan"],
    "explain_speed": ["explain", "--depth", "24", "--device-batch-size", "16", "--fp8", "--gpu", "h100", "--gpus", "8", "-v"], "check_horizon": ["check", "--gpu", "4090", "--prices", "tests/cli/prices.csv", "--", "python -m scripts.base_train --depth=12 --device-batch-size=8 --target-param-data-ratio=20"],
    "table": ["table"], "table_csv": ["table", "--gpu", "h100,b200", "--depths", "20,24", "--gpus", "8", "--csv"], "table_json": ["table", "--gpu", "3090", "--depths", "12", "--json"],
    "rule_24": ["rule-of-thumb", "--gpu-memory-gb", "24", "--depth", "24"], "rule_tiny": ["rule-of-thumb", "--gpu-memory-gb", "2"], "rule_examples": ["rule-of-thumb"], "rule_json": ["rule-of-thumb", "--gpu-memory-gb", "24.0", "--json"],
    "help_watch": ["help", "watch"], "help_calibrate": ["help", "calibrate"],
    "watch_once": ["watch", "--once", "--replay", "tests/watch/recordings/eight_h100.jsonl"], "watch_once_leak_ascii": ["watch", "--once", "--ascii", "--replay", "tests/watch/recordings/leak_4090.jsonl"],
    "watch_once_json": ["watch", "--once", "--json", "--replay", "tests/watch/recordings/lost_gpu.jsonl"], "watch_lines": ["watch", "--replay", "tests/watch/recordings/container_4090.jsonl"],
    "help_mcp": ["help", "mcp"], "help_web": ["help", "web"], "list_gpu_json": ["list", "gpus", "RTX 4090", "--json"], "list_models_json": ["list", "models", "--json"], "list_versions_json": ["list", "versions", "--json"], "web_help_json": ["help", "web", "--json"],
    "check_model": ["check", "--model", "llama-3.2-1b", "--device-batch-size", "4", "--gpu", "4090"], "check_model_json": ["check", "--model", "gpt2", "--mixed", "bf16", "--gpu", "3090", "--json"],
    "explain_model": ["explain", "--model", "qwen2.5-1.5b", "--mixed", "bf16", "--recompute", "full", "--device-batch-size", "8", "--gpu", "h100"],
    "check_compiled_mixture": ["check", "--transformers", "4.57.1", "--model", "mixtral-8x7b", "--dtype", "bf16", "--compile", "1", "--no-cache", "--lora-rank", "16", "--gpu", "h200", "--device-batch-size", "2", "--max-seq-len", "2048"],
    "error_compiled_mixture": ["check", "--transformers", "4.57.1", "--model", "qwen3-30b-a3b", "--compile", "1", "--gpu", "b200"],
    "error_compiled_mixture_5": ["check", "--model", "qwen3-30b-a3b", "--compile", "1", "--gpu", "b200"],
    "check_transformers_4": ["check", "--transformers", "4.57.1", "--model", "gpt2", "--device-batch-size", "4", "--mixed", "bf16", "--gpu", "4090"],
    "explain_fsdp2": ["explain", "--model", "llama-3.1-8b", "--mixed", "bf16", "--recompute", "full", "--device-batch-size", "1", "--parallel", "fsdp2", "--gpu", "h100", "--gpus", "8"],
    "check_ddp_json": ["check", "--model", "gpt2", "--mixed", "bf16", "--gpu", "3090", "--gpus", "4", "--json"], "error_parallel": ["check", "--model", "gpt2", "--parallel", "fsdp", "--gpus", "4", "--gpu", "h100", "--lora-rank", "8", "--load-in-4bit"], "check_qlora_fsdp1": ["check", "--model", "llama-3.1-70b", "--parallel", "fsdp1", "--gpus", "2", "--gpu", "a6000", "--lora-rank", "16", "--load-in-4bit", "--recompute", "full", "--device-batch-size", "1"], "check_ema": ["check", "--model", "llama-3.2-1b", "--ema", "--device-batch-size", "2", "--gpu", "4090"], "error_ema": ["check", "--model", "llama-3.2-1b", "--ema", "--gpus", "2", "--parallel", "fsdp2", "--gpu", "4090"], "plan_muon_fa3": ["plan", "--model", "llama-3.2-1b", "--optimizer", "muon", "--attention", "fa3", "--gpu", "h100", "--recompute", "full"], "error_muon": ["check", "--model", "llama-3.2-1b", "--optimizer", "muon", "--gpus", "2", "--parallel", "fsdp2", "--gpu", "4090"], "error_fa3": ["check", "--model", "llama-3.2-1b", "--attention", "flash_attention_3", "--gpu", "4090"], "check_gpt_oss": ["check", "--model", "gpt-oss-20b", "--lora-rank", "16", "--recompute", "full", "--device-batch-size", "2", "--gpu", "h100"], "error_quant_storage": ["check", "--gpu", "4090", "--gpus", "2", "--", "trl sft --model_name_or_path Qwen/Qwen2.5-7B --dataset_name trl-lib/Capybara --use_peft --load_in_4bit --dtype bfloat16 --accelerate_config fsdp2"], "explain_fsdp1": ["explain", "--model", "llama-3.1-8b", "--mixed", "bf16", "--recompute", "full", "--device-batch-size", "1", "--parallel", "fsdp1", "--gpu", "h100", "--gpus", "8"],
    "check_fsdp1": ["check", "--gpu", "a100", "--", "torchrun --nproc_per_node 8 run_clm.py --model_name_or_path meta-llama/Llama-3.2-1B --fsdp 'full_shard auto_wrap' --bf16 --per_device_train_batch_size 4 --block_size 2048 --gradient_accumulation_steps 4"],
    "check_zero3": ["check", "--model", "llama-3.1-8b", "--mixed", "bf16", "--recompute", "full", "--device-batch-size", "1", "--parallel", "zero3", "--gpu", "a100", "--gpus", "8"],
    "explain_zero2": ["explain", "--model", "llama-3.2-3b", "--mixed", "bf16", "--recompute", "full", "--device-batch-size", "1", "--parallel", "zero2", "--gpu", "4090", "--gpus", "4"],
    "check_deepspeed": ["check", "--gpu", "a100", "--", "deepspeed --num_gpus 8 train.py --deepspeed tests/workload/configs/ds_zero3.json --model_name_or_path meta-llama/Llama-3.1-8B --bf16 --gradient_checkpointing --per_device_train_batch_size 1 --block_size 4096 --output_dir out"],
    "check_accelerate": ["check", "--gpu", "h100", "--", "accelerate launch --num_processes 4 --use_fsdp --fsdp_version 2 --fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP --mixed_precision bf16 run_clm.py --model_name_or_path meta-llama/Llama-3.2-1B --per_device_train_batch_size 4 --block_size 2048 --gradient_checkpointing"],
    "check_fsdp_offload": ["check", "--gpu", "4090", "--", "accelerate launch --num_processes 2 --use_fsdp --fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP --fsdp_offload_params true train.py --model_name_or_path meta-llama/Llama-3.1-70B --per_device_train_batch_size 1 --max_length 1024 --bf16 --gradient_checkpointing --use_peft --lora_r 16 --load_in_4bit --lora_target_modules all-linear"],
    "check_accelerate_yaml": ["check", "--gpu", "h100", "--", "accelerate launch --config_file tests/workload/configs/fsdp2.yaml run_clm.py --model_name_or_path meta-llama/Llama-3.2-1B --per_device_train_batch_size 4 --block_size 2048"],
    "check_arguments_yaml": ["check", "--gpu", "4090", "--", "python sft.py --config tests/workload/configs/sft.yaml --per_device_train_batch_size 4"], "check_litgpt_yaml": ["check", "--gpu", "4090", "--", "litgpt finetune_lora --config tests/workload/configs/litgpt_qlora.yaml --train.micro_batch_size 4"], "check_axolotl": ["check", "--gpu", "4090", "--", "axolotl train tests/workload/configs/axolotl_qlora.yml --micro-batch-size 1"], "error_axolotl": ["check", "--gpu", "h100", "--", "accelerate launch -m axolotl.cli.train tests/workload/configs/axolotl_qlora.yml --load-in-8bit true"], "check_dpo": ["check", "--gpu", "h100", "--", "trl dpo --model_name_or_path Qwen/Qwen2.5-0.5B-Instruct --dataset_name trl-lib/ultrafeedback_binarized --per_device_train_batch_size 2 --eval_strategy steps"], "check_dpo_json": ["check", "--model", "gpt2", "--script", "dpo-precomputed", "--mixed", "bf16", "--gpu", "3090", "--json"], "explain_dpo": ["explain", "--model", "llama-3.2-1b", "--script", "dpo", "--mixed", "bf16", "--recompute", "full", "--device-batch-size", "2", "--max-seq-len", "1024", "--gpu", "h100"], "check_dpo_lora": ["check", "--gpu", "4090", "--", "accelerate launch --num_processes 1 examples/scripts/dpo.py --model_name_or_path meta-llama/Llama-3.1-8B-Instruct --per_device_train_batch_size 1 --max_length 1024 --use_peft --load_in_4bit --dtype bfloat16"], "error_dpo": ["check", "--gpu", "h100", "--", "trl dpo --model_name_or_path mistralai/Mixtral-8x7B-v0.1 --num_processes 8"], "check_dpo_zero3": ["check", "--gpu", "a100-80", "--", "trl dpo --model_name_or_path meta-llama/Llama-3.1-8B-Instruct --dtype bfloat16 --accelerate_config zero3 --num_processes 8"], "explain_dpo_fsdp2": ["explain", "--gpu", "a100-80", "--", "trl dpo --model_name_or_path meta-llama/Llama-3.1-8B-Instruct --accelerate_config fsdp2 --num_processes 8 --per_device_train_batch_size 2"], "check_kto": ["check", "--gpu", "h100", "--", "trl kto --model_name_or_path Qwen/Qwen2.5-0.5B-Instruct --dataset_name trl-lib/kto-mix-14k --per_device_train_batch_size 4"],
    "error_kto": ["check", "--gpu", "h100", "--", "trl kto --model_name_or_path gpt2 --per_device_train_batch_size 1"], "error_kto_gpus": ["check", "--gpu", "h100", "--", "trl kto --model_name_or_path gpt2 --accelerate_config zero3 --num_processes 8"], "check_factory_dpo_ddp": ["check", "--gpu", "h100", "--", "FORCE_TORCHRUN=1 NPROC_PER_NODE=8 llamafactory-cli train --stage dpo --model_name_or_path meta-llama/Meta-Llama-3-8B-Instruct --finetuning_type lora --cutoff_len 2048 --bf16 --per_device_train_batch_size 1"],
    "check_reward": ["check", "--gpu", "4090", "--", "trl reward --model_name_or_path meta-llama/Llama-3.1-8B-Instruct --dataset_name trl-lib/ultrafeedback_binarized --per_device_train_batch_size 1 --use_peft --load_in_4bit --dtype bfloat16"],
    "check_reward_json": ["check", "--model", "llama-3.2-1b", "--script", "reward", "--mixed", "bf16", "--gpu", "3090", "--json"],
    "check_factory_dpo": ["check", "--gpu", "4090", "--", "llamafactory-cli train --stage dpo --model_name_or_path meta-llama/Meta-Llama-3-8B-Instruct --finetuning_type lora --pref_loss sigmoid --template llama3 --cutoff_len 2048 --bf16 --per_device_train_batch_size 1 --gradient_accumulation_steps 8"],
    "explain_factory_dpo": ["explain", "--gpu", "h100", "--", "llamafactory-cli train --stage dpo --model_name_or_path Qwen/Qwen2.5-0.5B-Instruct --finetuning_type full --cutoff_len 1024 --bf16 --per_device_train_batch_size 2"],
    "check_factory_rm": ["check", "--gpu", "a100-80", "--", "llamafactory-cli train --stage rm --model_name_or_path meta-llama/Meta-Llama-3-8B-Instruct --finetuning_type lora --cutoff_len 2048 --bf16 --per_device_train_batch_size 1"],
    "error_factory_stage": ["check", "--gpu", "h100", "--", "llamafactory-cli train --stage ppo --model_name_or_path gpt2 --reward_model other"],
    "plan_kto": ["plan", "--model", "llama-3.2-1b", "--script", "kto", "--gpu", "4090"],
    "error_swift": ["check", "--gpu", "h100", "--", "swift sft --model Qwen/Qwen2.5-7B-Instruct --train_type lora"], "error_dpo_loss": ["check", "--gpu", "h100", "--", "trl dpo --model_name_or_path gpt2 --loss_type sigmoid sft"], "plan_dpo": ["plan", "--gpu", "a100-80", "--gpus", "8", "--", "trl dpo --model_name_or_path Qwen/Qwen2.5-7B-Instruct --dataset_name trl-lib/ultrafeedback_binarized"],
    "check_trl": ["check", "--gpu", "4090", "--", "trl sft --config tests/workload/configs/sft.yaml --accelerate_config zero2 --num_processes 2"], "check_torchtune": ["check", "--gpu", "4090", "--", "tune run lora_finetune_single_device --config llama3_1/8B_lora_single_device tokenizer.max_seq_len=2048"], "error_torchtune": ["check", "--gpu", "4090", "--", "tune run lora_finetune_single_device --config llama3_1/8B_lora_singledevice"], "error_yaml": ["check", "--gpu", "h100", "--", "accelerate launch --config_file tests/workload/configs/tab.yaml run_clm.py --model_name_or_path gpt2"],
    "check_litgpt": ["check", "--framework", "litgpt", "--model", "llama-2-7b", "--dtype", "bf16", "--lora-rank", "8", "--device-batch-size", "2", "--max-seq-len", "1304", "--gpu", "A100-SXM4-40GB"],
    "check_megatron": ["check", "--gpu", "h100", "--", MEGATRON], "explain_megatron": ["explain", "--gpu", "h100", "--", MEGATRON + " --pipeline-model-parallel-size 2"], "check_megatron_json": ["check", "--gpu", "a100", "--json", "--", MEGATRON],
    "check_megatron_moe": ["check", "--gpu", "h100", "--", MEGATRON + " --num-experts 8 --expert-model-parallel-size 2 --moe-router-topk 2 --moe-grouped-gemm"],
    "error_megatron_moe": ["check", "--gpu", "h100", "--", MEGATRON + " --num-experts 8 --moe-token-dispatcher-type flex"], "error_megatron_vocab": ["check", "--gpu", "h100", "--", MEGATRON.replace("--vocab-size 128256", "")],
    "error_framework": ["check", "--framework", "lit", "--model", "llama-2-7b", "--gpu", "h100"],
    "check_glue": ["check", "--gpu", "t4", "--", "python run_glue.py --model_name_or_path bert-base-cased --task_name mrpc --do_train --do_eval --max_seq_length 128 --per_device_train_batch_size 32 --learning_rate 2e-5 --output_dir out"],
    "explain_qa": ["explain", "--gpu", "t4", "--", "python run_qa.py --model_name_or_path bert-base-uncased --dataset_name squad --do_train --do_eval --per_device_train_batch_size 12 --doc_stride 128 --fp16 --output_dir out"],
    "check_ner_json": ["check", "--gpu", "t4", "--json", "--", "python run_ner.py --model_name_or_path roberta-base --train_file train.json --max_seq_length 128 --output_dir out"],
    "error_swag": ["check", "--gpu", "t4", "--", "python run_swag.py --model_name_or_path bert-base-uncased --per_device_train_batch_size 16 --output_dir out"],
    "list_models_classes": ["list", "models", "data/measured/configs/bert-large-classifier.json"],
    "check_trainer": ["check", "--gpu", "h100", "--", "python run_clm.py --model_name_or_path meta-llama/Llama-3.2-1B-Instruct --per_device_train_batch_size 2 --block_size 1024 --torch_dtype bfloat16 --gradient_checkpointing --output_dir out --use_liger_kernel"],
    "list_models": ["list", "models"], "list_models_one": ["list", "models", "meta-llama/Llama-3.1-8B-Instruct"], "list_models_moe": ["list", "models", "deepseek-v2-lite"], "list_models_part": ["list", "models", "gemma-3"],
    "list_models_file": ["list", "models", "tests/workload/configs/future_llama.json"], "error_model": ["list", "models", "lamma-3.1-8b"], "error_architecture": ["list", "models", "tests/workload/configs/mamba.json"], "list_versions": ["list", "versions"], "error_gpu": ["check", "--gpu", "h10O"], "help_doctor": ["help", "doctor"],
    "doctor_first_step": ["doctor", "tests/doctor/logs/first_step.log"], "doctor_first_step_json": ["doctor", "tests/doctor/logs/first_step.log", "--json"], "doctor_fragmentation": ["doctor", "tests/doctor/logs/fragmentation.txt"],
    "doctor_with_flags": ["doctor", "tests/doctor/logs/neighbour.txt", "--depth", "20", "--device-batch-size", "16", "--gpus", "1", "--gpu", "h100"], "doctor_leak": ["doctor", "tests/doctor/logs/leak.log", "--quiet"],
    "doctor_model": ["doctor", "tests/doctor/logs/llama_forward.txt", "--transformers", "4.57.1", "--", "python run_clm.py --model_name_or_path meta-llama/Llama-3.2-1B --per_device_train_batch_size 8 --block_size 2048 --bf16 --torch_dtype float32 --optim adamw_torch --output_dir out"],
    "doctor_model_flags_json": ["doctor", "tests/doctor/logs/llama_forward.txt", "--json", "--transformers", "4.57.1", "--model", "llama-3.2-1b", "--device-batch-size", "2", "--max-seq-len", "1024", "--dtype", "fp32", "--mixed", "bf16", "--gpu", "4090"],
    "doctor_idle": ["doctor", "tests/doctor/logs/idle.log"], "doctor_idle_json": ["doctor", "tests/doctor/logs/idle.log", "--json"], "doctor_nothing": ["doctor", "LICENSE"], "doctor_missing": ["doctor", "no_such.log"],
    "doctor_snapshot_leak": ["doctor", "tests/doctor/snapshots/leak.pickle"], "doctor_snapshot_fragmented": ["doctor", "tests/doctor/snapshots/fragmented.pickle"], "doctor_snapshot_fragmented_json": ["doctor", "tests/doctor/snapshots/fragmented.pickle", "--json"],
    "doctor_snapshot_beside": ["doctor", "tests/doctor/snapshots/train.json", "--depth", "4", "--device-batch-size", "1", "--gpu", "4090"], "doctor_snapshot_late_verbose": ["doctor", "tests/doctor/snapshots/late_expandable.pickle", "-v", "--ascii"],
    **{f"doctor_live_{name}": ["doctor", "--live", "--replay", f"tests/watch/recordings/{file}.jsonl", *more] for name, file, more in (
        ("hot", "hot_8xh100", []), ("starved", "starved_4090", []), ("shared", "shared_2x4090", ["--ascii"]), ("nobody", "nobody_4090", []), ("container", "container_4090", []), ("leak", "leak_4090", ["--seconds", "600"]), ("json", "shared_2x4090", ["--json"]))},
    "plan_model_4090": ["plan", "--model", "llama-3.1-8b", "--gpu", "4090"], "plan_model_8xh100": ["plan", "--model", "llama-3.1-8b", "--gpu", "h100", "--gpus", "8", "--total-batch-size", "1048576"],
    "plan_model_json": ["plan", "--model", "gpt2", "--gpu", "3060", "--json"], "plan_model_nothing": ["plan", "--model", "llama-3.1-8b", "--gpu", "3080", "--ascii"],
    "plan_model_nothing_json": ["plan", "--model", "llama-3.2-1b", "--gpu", "3060", "--lora-rank", "0", "--device-batch-size", "4", "--json"],
    "plan_model_pasted": ["plan", "--gpu", "3090", "--", "torchrun --nproc_per_node 2 run_clm.py --model_name_or_path gpt2 --per_device_train_batch_size 4 --bf16 --block_size 512 --gradient_checkpointing"],
    "error_plan_megatron": ["plan", "--gpu", "h100", "--", MEGATRON], "error_plan_offers": ["plan", "--model", "gpt2", "--offers", "--max-steps", "100"],
    "plan_model_offers": ["plan", "--model", "llama-3.1-8b", "--offers", "--max-tokens", "1000000000"], "plan_model_offers_json": ["plan", "--model", "smollm2-135m", "--offers", "--max-seq-len", "512", "--prices", "tests/cli/prices.csv", "--json"],
    "plan_model_offers_rate": ["plan", "--offers", "--prices", "tests/cli/prices.csv", "--ascii", "--", "torchrun --nproc_per_node 8 run_clm.py --model_name_or_path gpt2 --per_device_train_batch_size 4 --bf16 --block_size 512"],
    **{f"plan_model_emit_{kind}": ["plan", "--model", "llama-3.1-8b", "--gpu", "h100", "--gpus", "16", "--lora-rank", "16", "--emit", kind] for kind in ("torchrun", "slurm", "kubernetes", "trainjob", "skypilot", "ray")},
    "plan_model_emit_pasted": ["plan", "--gpu", "h100", "--emit", "slurm", "--", "accelerate launch --num_processes 8 examples/run_clm.py --model_name_or_path Qwen/Qwen2.5-7B --dataset_name wikitext --do_train --per_device_train_batch_size 2 --bf16 --block_size 2048 --gradient_checkpointing --learning_rate 1e-5 --output_dir out --max_steps 2000"],
    "plan_model_emit_trl": ["plan", "--gpu", "a100", "--emit", "skypilot", "--", "trl sft --model_name_or_path Qwen/Qwen2.5-7B --dataset_name trl-lib/Capybara --use_peft --load_in_4bit --num_processes 2"],
    "check_litgpt_emit": ["check", "--gpu", "4090", "--emit", "slurm", "--", "litgpt finetune_lora EleutherAI/pythia-160m --devices 4 --train.micro_batch_size 2 --train.max_seq_length 256 --precision bf16-true"],
    "check_torchtune_emit": ["check", "--gpu", "4090", "--emit", "kubernetes", "--", "tune run lora_finetune_single_device --config llama3_1/8B_lora_single_device tokenizer.max_seq_len=2048"],
    "check_torchtitan": ["check", "--gpu", "h100", "--", "torchrun --nproc_per_node 8 -m torchtitan.train --job.config_file ./torchtitan/models/llama3/train_configs/llama3_8b.toml --training.local_batch_size 1"],
    "explain_torchtitan": ["explain", "--gpu", "a100", "--", "NGPU=1 ./run_train.sh --activation_checkpoint.selective_ac_option=op"], "plan_torchtitan": ["plan", "--gpu", "h100", "--", "NGPU=8 CONFIG_FILE=llama3_8b.toml ./run_train.sh --training.global_batch_size 64"],
    "check_torchtitan_emit": ["check", "--gpu", "h100", "--emit", "slurm", "--", "torchrun --nproc_per_node 8 -m torchtitan.train --job.config_file llama3_8b.toml --activation_checkpoint.mode full"],
    "error_torchtitan": ["check", "--gpu", "h100", "--", "torchrun --nproc_per_node 8 -m torchtitan.train --job.config_file llama3_70b.toml"],
    "error_torchtitan_python": ["check", "--gpu", "h100", "--", "MODULE=llama3 CONFIG=llama3_8b ./run_train.sh"],
    "check_megatron_emit": ["check", "--gpu", "h100", "--emit", "skypilot", "--", MEGATRON], "error_emit_litgpt": ["check", "--gpu", "h100", "--emit", "ray", "--", "litgpt finetune_lora EleutherAI/pythia-160m --devices 4 --train.micro_batch_size 2 --train.max_seq_length 256 --precision bf16-true"],
    "error_emit_axolotl": ["check", "--gpu", "4090", "--emit", "slurm", "--", "axolotl train tests/workload/configs/axolotl_qlora.yml --micro-batch-size 1"], "error_4bit": ["check", "--model", "gpt2", "--load-in-4bit", "--gpu", "4090"],
    "error_total": ["plan", "--model", "gpt2", "--gpu", "4090", "--total-batch-size", "100000"], "error_nanochat_method": ["plan", "--gpu", "4090", "--lora-rank", "8"],
    "table_model": ["table", "--model", "llama-3.2-1b", "--gpu", "3060,4090,h100"], "table_model_csv": ["table", "--model", "gpt2", "--gpu", "3090", "--gpus", "2", "--max-seq-len", "512", "--csv"],
    "table_model_json": ["table", "--model", "smollm2-135m", "--gpu", "t4", "--lora-rank", "8", "--json"], "help_table": ["help", "table"],
    "check_capture": ["check", "--capture", "tests/capture/small_gpt.capture", "--gpu", "4090"], "check_capture_json": ["check", "--capture", "tests/capture/small_gpt.capture", "--gpu", "h100", "--json"],
    "explain_capture": ["explain", "--capture", "tests/capture/small_gpt.capture", "--gpu", "4090", "--timeline", "--ascii"], "error_capture": ["check", "--capture", "LICENSE", "--gpu", "4090"],
    "error_json": ["check", "--gpu", "h10O", "--json"],
}
environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS", "NANOCHAT_DTYPE", "DRYFIT_PROBE")}
environment["XDG_DATA_HOME"] = environment["HF_HOME"] = "/nonexistent"  # what this machine learned, and its configuration of accelerate, are no part of a golden
update = "--update" in sys.argv
os.chdir(FOLDER.parent.parent.parent)  # screens name files as a user at the top of the repository would
FOLDER.mkdir(parents=True, exist_ok=True)
failures = 0
for name, words in SCREENS.items():
    done = subprocess.run([DRYFIT, *words], capture_output=True, text=True, env=environment, timeout=300, cwd=FOLDER.parent.parent.parent)
    screen = f"$ dryfit {' '.join(words)}\n[exit {done.returncode}]\n--- stdout\n{done.stdout}--- stderr\n{done.stderr}"
    path = FOLDER / f"{name}.txt"
    if update:
        path.write_text(screen)
    elif not path.exists() or path.read_text() != screen:
        failures += 1
        old = path.read_text() if path.exists() else ""
        sys.stdout.writelines(difflib.unified_diff(old.splitlines(True), screen.splitlines(True), str(path), "now"))
    if name.startswith("help") and len(done.stdout.splitlines()) > 24:
        failures += 1
        print(f"{name}: {len(done.stdout.splitlines())} lines do not fit a screen of 24")
print(f"{len(SCREENS)} screens, {failures} failures")
sys.exit(1 if failures else 0)
