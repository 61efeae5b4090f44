// Jobs: what of a run's command goes into them for each framework, and what is refused. Their text before real engines: tests/cli/jobs_test.py, engines_test.py.
#include "plan/job.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "plan/job_parts.hpp"
#include "plan/launch.hpp"
#include "plan/plan.hpp"
#include "plan/trainer_command.hpp"
#include "workload/probe_presets.hpp"

namespace dryfit {
namespace {

Report report_of(const TransformersFlags& flags, const char* model = "qwen2.5-0.5b") {
  const auto workload = make_transformers_workload(find_preset(model)->preset->model, flags);
  EXPECT_TRUE(workload) << workload.error().message;
  return *estimate(*workload, *machine_from_flags({"h100", flags.gpus.value_or(1), std::nullopt, std::nullopt}));
}

TransformersFlags pasted(std::string_view text) {
  const auto launch = parse_launch(*shell_split(text));
  EXPECT_TRUE(launch) << text;
  auto command = read_trainer_command(*launch);
  EXPECT_TRUE(command) << text;
  return command->flags;
}

TEST(JobParts, theUsersOwnCommandComesBackWhole) {
  TransformersFlags f = pasted("accelerate launch --num_processes 2 -m my.train --model_name_or_path gpt2 --torch_dtype bfloat16 --max_seq_length 512 --per_device_train_batch_size 4 --bf16 --eval_steps -1 --dataset_name a --lora_alpha 32 --use_peft --lora_r 4 --max_steps 7");
  const auto parts = job_parts(report_of(f, "gpt2"), std::nullopt);
  ASSERT_TRUE(parts) << parts.error().message;
  EXPECT_EQ(parts->script, (std::vector<std::string>{"-m", "my.train"}));
  const std::string arguments = shell_join(parts->arguments);
  for (const char* kept : {"--dataset_name a", "--lora_alpha 32", "--eval_steps -1", "--torch_dtype bfloat16", "--max_seq_length 512", "--per_device_train_batch_size 4", "--lora_r 4", "--max_steps 7"}) {
    EXPECT_NE(arguments.find(kept), std::string::npos) << kept << " in " << arguments;
  }
  for (const char* name : {"--max_length", "--max_steps", "--per_device_train_batch_size", "--lora_r"}) {
    EXPECT_LE(std::ranges::count(parts->arguments, name), 1) << name;
  }
  EXPECT_EQ(std::ranges::count(parts->arguments, "--max_length"), 0);
  EXPECT_EQ(std::ranges::count(parts->arguments, "--dtype"), 0);
  EXPECT_EQ(parts->name, "gpt2-lora");
  EXPECT_TRUE(parts->note.empty());
}

TEST(JobParts, withoutACommandTheScriptIsTheUsersToName) {
  TransformersFlags f;
  f.max_seq_len = 256, f.gpus = 2;
  const auto parts = job_parts(report_of(f), std::nullopt);
  ASSERT_TRUE(parts);
  EXPECT_EQ(parts->script, std::vector<std::string>{"train.py"});
  EXPECT_FALSE(parts->note.empty());
  EXPECT_TRUE(parts->one_process_alone);
  EXPECT_EQ(parts->arguments.front(), "--model_name_or_path");
  EXPECT_EQ(parts->setup, std::vector<std::string>{"pip install torch==2.9.1 transformers accelerate datasets"});
}

TEST(JobParts, aNameIsOneForEveryEngine) {
  TransformersFlags f;
  f.max_seq_len = 256;
  Report r = report_of(f);
  for (const auto& [given, name] : {std::pair("/models/My Model_v1.5/config.json", "config-json-full"), std::pair("7B\n$(rm x)", "run-7b-rm-x-full"), std::pair("", "full"), std::pair("qwen2.5-0.5b", "qwen2-5-0-5b-full")}) {
    r.workload.transformers->architecture.name = given;
    EXPECT_EQ(job_parts(r, std::nullopt)->name, name);
    const auto job = write_job(r, JobKind::torchrun, std::nullopt);
    ASSERT_TRUE(job);
    EXPECT_EQ(job->text.find("\n$(rm"), std::string::npos);
  }
}

TEST(JobParts, allocatorSettingsAreTheUsersOrTheReports) {
  TransformersFlags f;
  f.max_seq_len = 256;
  Report r = report_of(f);
  Alternative growing;
  growing.change = {{"PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"}};
  growing.identical_training = true;
  growing.verdict = Verdict::fits;
  r.alternatives = {growing};
  const auto conf = [](const JobParts& p) { return std::ranges::count(p.environment, "PYTORCH_CUDA_ALLOC_CONF", &std::pair<std::string, std::string>::first); };
  EXPECT_EQ(conf(*job_parts(r, std::nullopt)), 1);
  const auto given = *job_parts(r, "max_split_size_mb:64");
  EXPECT_EQ(conf(given), 1);
  EXPECT_EQ(given.environment.front().second, "max_split_size_mb:64");
}

// Also of commands that start their processes themselves, which are written as they are.
TEST(JobParts, workspacesOfProductsStandInTheEnvironment) {
  for (const Framework framework : {Framework::transformers, Framework::litgpt}) {
    TransformersFlags f;
    f.framework = framework, f.max_seq_len = 256, f.weights = Dtype::bf16;
    f.workspaces = {{"CUBLAS_WORKSPACE_CONFIG", ":4096:8"}};
    const auto parts = *job_parts(report_of(f, "pythia-160m"), std::nullopt);
    EXPECT_EQ(parts.environment.front(), (std::pair<std::string, std::string>("CUBLAS_WORKSPACE_CONFIG", ":4096:8")));
    EXPECT_TRUE(parts.own.empty() || parts.own.front() == "litgpt");
    EXPECT_NE(parts.own.empty(), framework == Framework::litgpt);
  }
}

TEST(Job, whatStartsItsProcessesItselfIsOfOneMachine) {
  TransformersFlags f;
  f.framework = Framework::litgpt, f.max_seq_len = 256, f.gpus = 4, f.weights = Dtype::bf16;
  const Report r = report_of(f, "pythia-160m");
  const auto slurm = write_job(r, JobKind::slurm, std::nullopt);
  ASSERT_TRUE(slurm) << slurm.error().message;
  EXPECT_NE(slurm->text.find("srun --kill-on-bad-exit=1 env SLURM_JOB_NAME=bash litgpt pretrain"), std::string::npos) << slurm->text;
  EXPECT_EQ(slurm->text.find("torchrun"), std::string::npos);
  EXPECT_EQ(write_job(r, JobKind::slurm, 2).error().where, "--gpus");
  EXPECT_EQ(write_job(r, JobKind::ray, std::nullopt).error().where, "--emit");
}

TEST(Job, axolotlsFileIsTheUsers) {
  TransformersFlags f;
  f.max_seq_len = 256, f.users.script = {"-m", "axolotl.cli.train"};
  EXPECT_FALSE(write_job(report_of(f), JobKind::slurm, std::nullopt));
}

}  // namespace
}  // namespace dryfit
