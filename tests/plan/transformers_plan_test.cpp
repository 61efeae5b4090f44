// plan and table of Hugging Face models: what is chosen fits and the next larger batch does not, what was fixed stays, the command says the same run.
#include "plan/transformers_plan.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "passes/training_program.hpp"
#include "plan/alternatives.hpp"
#include "plan/batch_search.hpp"
#include "plan/launch.hpp"
#include "plan/rent.hpp"
#include "plan/trainer_command.hpp"
#include "plan/ways.hpp"
#include "workload/probe_document.hpp"
#include "workload/probe_presets.hpp"

namespace dryfit {
namespace {

const HfModel& preset(const char* name) { return find_preset(name)->preset->model; }
Machine machine(const char* gpu, std::int64_t gpus = 1) { return *machine_from_flags({gpu, gpus, std::nullopt, std::nullopt}); }
Machine card(const char* memory_of, Bytes memory) {
  Machine m = machine(memory_of);
  m.total = memory;
  return m;
}

TransformersFlags none() { return {}; }

// The workload that a command says, read as check reads it.
Result<Workload> read_back(const HfModel& model, const std::string& command) {
  const auto words = shell_split(command);
  const auto launch = parse_launch(*words);
  const auto read = read_trainer_command(*launch);
  if (!read) return std::unexpected(read.error());
  TransformersFlags flags = read->flags;
  if (read->deepspeed_file) {
    TransformersFlags under;
    KeysTold told;
    if (auto ok = apply_deepspeed(*document_from_json(*read->deepspeed_file, "command"), "command", under, told); !ok) return std::unexpected(ok.error());
    flags.zero = under.zero, flags.sharding = under.sharding, flags.deepspeed = true;
    flags.auto_reduce_bucket = under.auto_reduce_bucket, flags.auto_prefetch_bucket = under.auto_prefetch_bucket, flags.auto_persistence = under.auto_persistence;
  }
  return make_transformers_workload(model, flags);
}

void expect_consistent(const HfModel& model, const TransformersPlan& plan, const Machine& m) {
  const Candidate* chosen = plan.chosen ? &plan.candidates[*plan.chosen] : nullptr;
  for (const Candidate& c : plan.candidates) {
    const Workload& w = c.report.workload;
    const std::string what = std::string(name_of(c.method)) + " " + c.report.command;
    EXPECT_EQ(c.fits, c.report.verdict == Verdict::fits) << what;
    EXPECT_EQ(estimate(w, m)->verdict, c.report.verdict) << what;
    // of the chosen one to the byte; the others are scaled from a program of another batch
    const Bytes slack = &c == chosen ? Bytes(0) : mib(1);
    if (c.at_least) EXPECT_GT(estimate(w, m)->process.bytes, c.report.process.bytes) << what;
    else EXPECT_NEAR(static_cast<double>(estimate(w, m)->process.bytes.count), static_cast<double>(c.report.process.bytes.count), static_cast<double>(slack.count)) << what;
    const auto legal = legal_device_batches(w);
    if (c.fits) {
      const auto larger = std::ranges::find_if(legal.rbegin(), legal.rend(), [&](std::int64_t b) { return b > w.run.device_batch_size; });
      if (larger != legal.rend()) {
        EXPECT_NE(estimate(*with_device_batch(w, *larger), m)->verdict, Verdict::fits) << what;
      }
    } else {
      EXPECT_EQ(w.run.device_batch_size, legal.back()) << what;
    }
    const auto again = read_back(model, c.report.command);
    ASSERT_TRUE(again) << what << ": " << again.error().message;
    const auto told = estimate(*again, m);
    ASSERT_TRUE(told) << what;
    EXPECT_EQ(told->process.bytes, estimate(w, m)->process.bytes) << what;
    EXPECT_EQ(told->verdict, c.report.verdict) << what;
    EXPECT_EQ(again->run.world_size, m.gpus) << what;
  }
  for (const Candidate& c : plan.candidates) {
    if (!c.fits || chosen == nullptr) continue;
    EXPECT_EQ(c.method, chosen->method);
    if (c.seconds_per_token()) {
      EXPECT_LE(*chosen->seconds_per_token(), *c.seconds_per_token() * 1.01);
      EXPECT_GE(*c.seconds_per_token(), *c.least_seconds_per_token());
    }
  }
}

// TRL's own script and a compiled model come back from the command as they were; each batch is a program of its own.
TEST(TransformersPlan, commandsOfTrlAndOfCompiledModelsAreReadBack) {
  TransformersFlags trl;
  trl.head = HeadLoss::trl, trl.mixed = MixedPrecision::bf16, trl.max_seq_len = 1024;
  TransformersFlags compiled;
  compiled.compile = true, compiled.mixed = MixedPrecision::bf16, compiled.max_seq_len = 1024;
  for (const TransformersFlags& flags : {trl, compiled}) {
    const HfModel& model = preset("qwen2.5-0.5b");
    const Machine m = machine("4090");
    const auto plan = plan_transformers(model, flags, m);
    ASSERT_TRUE(plan) << plan.error().message;
    ASSERT_TRUE(plan->chosen);
    const Training& t = plan->candidates[*plan->chosen].report.workload.transformers->training;
    EXPECT_EQ(t.compile, flags.compile.value_or(false));
    EXPECT_EQ(t.head, flags.head.value_or(HeadLoss::logits));
    expect_consistent(model, *plan, m);
  }
}

TEST(TransformersPlan, whatIsChosenFitsAndTheNextBatchDoesNot) {
  struct Case { const char* model; const char* gpu; std::int64_t gpus; std::int64_t length; };
  for (const Case& c : {Case{"gpt2", "rtx 3060 12gb", 1, 1024}, Case{"qwen2.5-0.5b", "rtx 4090", 1, 512}, Case{"smollm2-135m", "t4", 1, 256}, Case{"llama-3.2-1b", "rtx 3090", 4, 1024}, Case{"bert-base-uncased", "v100", 2, 128}}) {
    const Machine m = machine(c.gpu, c.gpus);
    TransformersFlags flags;
    flags.max_seq_len = c.length;
    const auto plan = plan_transformers(preset(c.model), flags, m);
    ASSERT_TRUE(plan) << c.model << ": " << plan.error().message;
    EXPECT_TRUE(plan->chosen) << c.model;
    expect_consistent(preset(c.model), *plan, m);
  }
}

TEST(TransformersPlan, goesOnToMethodsThatTrainLess) {
  TransformersFlags flags;
  flags.max_seq_len = 256;
  const HfModel& model = preset("qwen2.5-0.5b");
  const auto method_on = [&](std::int64_t mebibytes) {
    const Machine m = card("rtx 4090", mib(mebibytes));
    const auto plan = plan_transformers(model, flags, m);
    EXPECT_TRUE(plan);
    expect_consistent(model, *plan, m);
    return plan->chosen ? std::optional(plan->candidates[*plan->chosen].method) : std::nullopt;
  };
  EXPECT_EQ(method_on(24576), Method::full);
  EXPECT_EQ(method_on(5000), Method::lora);
  EXPECT_EQ(method_on(2000), std::nullopt);
  const auto plan = plan_transformers(model, flags, card("rtx 4090", mib(5000)));
  ASSERT_EQ(plan->missed.size(), 1U);
  EXPECT_EQ(plan->missed[0].method, Method::full);
  ASSERT_TRUE(plan->missed[0].rent);
  EXPECT_EQ(plan->missed[0].rent->report.verdict, Verdict::fits);
  if (plan->missed[0].change) {
    EXPECT_EQ(plan->missed[0].change->verdict, Verdict::fits);
  }
  ASSERT_TRUE(plan->missed[0].on_host);
  EXPECT_EQ(plan->missed[0].on_host->verdict, Verdict::fits);
  TransformersFlags there = flags;  // as the flags that it names ask for it
  for (const auto& [key, value] : plan->missed[0].on_host->change) {
    if (key == "--parallel") there.sharding = *sharding_of(value, "");
    else if (key == "--offload") there.offload = true;
    else if (key == "--recompute") there.recompute = Recompute::full;
    else if (key == "--device-batch-size") there.device_batch_size = std::stoll(value);
    else FAIL() << key;
  }
  there.all_weights = true;
  const auto asked = plan_transformers(model, there, card("rtx 4090", mib(5000)));
  ASSERT_TRUE(asked && asked->chosen);
  EXPECT_EQ(asked->candidates[*asked->chosen].report.process.bytes, *plan->missed[0].on_host->process);
}

TEST(TransformersPlan, whatIsFixedStays) {
  TransformersFlags flags;
  flags.max_seq_len = 256, flags.recompute = Recompute::full, flags.mixed = MixedPrecision::none, flags.optimizer = OptimizerKind::adafactor;
  flags.device_batch_size = 3, flags.grad_accum_steps = 2, flags.sharding = Sharding::zero2;
  flags.lora.emplace().rank = 4;
  const auto plan = plan_transformers(preset("smollm2-135m"), flags, machine("rtx 4090", 2));
  ASSERT_TRUE(plan) << plan.error().message;
  ASSERT_EQ(plan->candidates.size(), 1U);
  const Workload& w = plan->candidates[0].report.workload;
  const Training& t = w.transformers->training;
  EXPECT_EQ(t.recompute, Recompute::full);
  EXPECT_EQ(t.optimizer, OptimizerKind::adafactor);
  EXPECT_EQ(t.sharding, Sharding::zero2);
  EXPECT_EQ(t.lora->rank, 4);
  EXPECT_EQ(w.run.device_batch_size, 3);
  EXPECT_EQ(w.run.grad_accum_steps, 2);
  flags = none();
  flags.all_weights = true;
  EXPECT_EQ(methods_of(flags), std::vector<Method>{Method::full});
  flags = none();
  flags.quantized = true;
  EXPECT_EQ(methods_of(flags), std::vector<Method>{Method::qlora});
}

TEST(TransformersPlan, accumulationFollowsTheTotal) {
  TransformersFlags flags;
  flags.max_seq_len = 256, flags.total_batch_size = 36 * 256 * 2, flags.recompute = Recompute::none, flags.sharding = Sharding::ddp;
  for (std::int64_t memory : {2600, 4000, 24576}) {
    Machine m = machine("rtx 4090", 2);
    m.total = mib(memory);
    const auto plan = plan_transformers(preset("smollm2-135m"), flags, m);
    ASSERT_TRUE(plan) << plan.error().message;
    expect_consistent(preset("smollm2-135m"), *plan, m);
    for (const Candidate& c : plan->candidates) {
      const auto& run = c.report.workload.run;
      EXPECT_EQ(run.total_batch_size, 36 * 256 * 2);
      EXPECT_EQ(run.device_batch_size * run.grad_accum_steps, 36);
    }
  }
  flags.total_batch_size = 36 * 256 * 2 + 1;
  EXPECT_EQ(plan_transformers(preset("smollm2-135m"), flags, machine("rtx 4090", 2)).error().code, "illegal_batch");
}

TEST(TransformersPlan, aWrongValueIsAnError) {
  TransformersFlags flags;
  flags.max_seq_len = 5000;
  EXPECT_EQ(plan_transformers(preset("gpt2"), flags, machine("rtx 4090")).error().where, "--max-seq-len");
}

// Every tensor and every event of two batches that are laid out alike.
void expect_scaled(const Workload& from, std::int64_t batch, const Machine& m, const std::string& what) {
  const auto small = program_for(from, target_of(m), false);
  if (!small) return;  // not laid out at all
  const Program scaled = at_batch(*small, batch), built = *program_for(*with_device_batch(from, batch), target_of(m), false);
  ASSERT_EQ(scaled.tensors.size(), built.tensors.size()) << what;
  ASSERT_EQ(scaled.events.size(), built.events.size()) << what;
  for (std::size_t i = 0; i < built.tensors.size(); ++i) {
    const TensorInfo &a = scaled.tensors[i], &b = built.tensors[i];
    ASSERT_EQ(a.bytes, b.bytes) << what << " " << b.name();
  }
  for (std::size_t i = 0; i < built.events.size(); ++i) {
    const Event &a = scaled.events[i], &b = built.events[i];
    ASSERT_TRUE(a.kind == b.kind && a.tensor == b.tensor && a.from == b.from) << what << " event " << i;
  }
}

TEST(BatchSearch, aScaledProgramIsTheBuiltOne) {
  struct Case { const char* model; Method method; std::int64_t gpus; };
  for (const Case& c : {Case{"gpt2", Method::full, 2}, Case{"llama-3.2-1b", Method::lora, 1}, Case{"gemma-2-2b", Method::qlora, 1}, Case{"pythia-160m", Method::full, 1}, Case{"bert-base-uncased", Method::qlora, 2}, Case{"olmoe-1b-7b", Method::full, 1}}) {
    const Machine m = machine("rtx 4090", c.gpus);
    TransformersFlags flags;
    flags.max_seq_len = 128;
    for (const Way& way : ways_of(flags, c.method, m)) {
      const auto one = workload_of(preset(c.model), way, m);
      if (!one) continue;
      const std::string what = std::string(c.model) + " " + std::string(name_of(c.method)) + " " + std::string(name_of(one->transformers->training.sharding));
      expect_scaled(*with_device_batch(*one, 2), 5, m, what);
      expect_scaled(*with_device_batch(*one, 25), 31, m, what + ", sorted");
      expect_scaled(*with_device_batch(*one, 401), 467, m, what + ", more ids than rows");
    }
  }
}

// TRL's preferences: a reference model under FSDP1, which wraps its blocks. What a file leaves to the trainer, its engine does not know, so the command leaves it too.
TEST(TransformersPlan, preferencesAreSearchedToo) {
  TransformersFlags flags;
  flags.preference.emplace();
  flags.mixed = MixedPrecision::bf16, flags.max_seq_len = 256, flags.all_weights = true;
  const Machine m = machine("rtx 3060", 2);
  const HfModel& model = preset("gpt2");
  const auto plan = plan_transformers(model, flags, m, {});
  ASSERT_TRUE(plan) << plan.error().message;
  expect_consistent(model, *plan, m);
  std::set<Sharding> tried;
  for (const Candidate& c : plan->candidates) {
    const Training& t = c.report.workload.transformers->training;
    tried.insert(t.sharding);
    if (t.sharding != Sharding::zero3) continue;
    EXPECT_NE(c.report.command.find("\"stage3_param_persistence_threshold\": \"auto\""), std::string::npos) << c.report.command;
    const auto again = read_back(model, c.report.command);
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(again->transformers->training.preference->zero->param_persistence_threshold, 100'000);
    EXPECT_EQ(again->transformers->training.zero.param_persistence_threshold, 7680);
  }
  EXPECT_EQ(tried, (std::set{Sharding::ddp, Sharding::fsdp1, Sharding::zero1, Sharding::zero2, Sharding::zero3}));
}

TEST(BatchSearch, layoutsEndWhereKernelsDo) {
  const Architecture& a = preset("gpt2").architecture;  // 50257 rows
  EXPECT_EQ(layout_of(a, 3, 1024, 1), layout_of(a, 2, 1024, 1));
  EXPECT_EQ(layout_of(a, 3, 340, 1), layout_of(a, 2, 1, 1));
  EXPECT_NE(layout_of(a, 3, 341, 1), layout_of(a, 2, 1, 1));
  EXPECT_NE(layout_of(a, 2, 1, 1), layout_of(a, 1, 1, 1));
  EXPECT_NE(layout_of(a, 3, 1024, 1), layout_of(a, 4, 1024, 1));
  EXPECT_EQ(layout_of(a, 49, 1024, 1), layout_of(a, 4, 1024, 1));
  EXPECT_NE(layout_of(a, 49, 1024, 1), layout_of(a, 50, 1024, 1));
  EXPECT_NE(layout_of(a, 4, 1024, 1), layout_of(a, 4, 1024, 2));
  EXPECT_EQ(layout_of(a, 4, 1024, 3), layout_of(a, 4, 1024, 64));
}

// The largest that fits is the one that asking every batch gives.
TEST(BatchSearch, ligersBatchesAreAskedOneByOne) {
  for (const auto& [gpu, length] : {std::pair("rtx 3060", 1024), std::pair("rtx 4090", 600), std::pair("rtx 3050", 2048)}) {
    TransformersFlags f;
    f.max_seq_len = length, f.weights = Dtype::bf16, f.liger = true, f.gpus = 1, f.optimizer = OptimizerKind::adamw_8bit;
    const auto w = make_transformers_workload(preset("qwen2.5-0.5b"), f);
    ASSERT_TRUE(w) << w.error().message;
    ASSERT_TRUE(w->transformers->training.liger.any());
    const Machine m = machine(gpu, 1);
    const auto found = search_device_batch(*w, m, {});
    ASSERT_TRUE(found) << found.error().message;
    for (std::int64_t b : legal_device_batches(*w)) {
      if (b > 64) continue;
      const Verdict verdict = estimate(*with_device_batch(*w, b), m)->verdict;
      if (found->fits ? b > found->report.workload.run.device_batch_size : b >= 1) {
        EXPECT_NE(verdict, Verdict::fits) << gpu << " " << b;
      } else {
        EXPECT_EQ(verdict, Verdict::fits) << gpu << " " << b;
      }
    }
  }
}

// What the command says is what was asked.
TEST(TransformersPlan, adaptersAndLigerAreReadBack) {
  const Machine m = machine("h100", 1);
  const auto expect_read_back = [&](const char* name, auto change) {
    TransformersFlags f;
    f.max_seq_len = 256, f.device_batch_size = 2, f.weights = Dtype::bf16, f.gpus = 1;
    const auto plain = make_transformers_workload(preset("llama-3.2-1b"), f);
    change(f);
    const auto w = make_transformers_workload(preset("llama-3.2-1b"), f);
    ASSERT_TRUE(w) << name << w.error().message;
    const auto report = estimate(*w, m);
    const auto again = read_back(preset("llama-3.2-1b"), report->command);
    ASSERT_TRUE(again) << name << " " << report->command << ": " << again.error().message;
    EXPECT_EQ(estimate(*again, m)->process.bytes, report->process.bytes) << name << " " << report->command;
    EXPECT_NE(estimate(*plain, m)->process.bytes, report->process.bytes) << name;
  };
  const auto lora = [](TransformersFlags& f) -> Lora& { return f.lora.emplace(); };
  expect_read_back("liger", [](TransformersFlags& f) { f.liger = true; });
  expect_read_back("dora", [&](TransformersFlags& f) { lora(f).dora = true; });
  expect_read_back("biases", [&](TransformersFlags& f) { lora(f).biases = Lora::Biases::all; });
  expect_read_back("prompt", [&](TransformersFlags& f) { lora(f).virtual_tokens = 24, f.lora->rank = 0; });
}

TEST(Rent, noCheaperMachineFits) {
  const std::vector<Price> prices = {{"NVIDIA GeForce RTX 3090", "a", 1, 0.2, "on-demand", "", ""}, {"NVIDIA GeForce RTX 4090", "b", 1, 0.4, "on-demand", "", ""}, {"NVIDIA A100 80GB PCIe", "c", 1, 1.4, "on-demand", "", ""}, {"Tesla V100-SXM2-16GB", "d", 1, 0.01, "on-demand", "", ""}};
  EstimateOptions options;
  options.prices = &prices;
  TransformersFlags flags;
  flags.max_seq_len = 512;
  const HfModel& model = preset("llama-3.2-3b");
  const auto rent = cheapest_machine(model, flags, Method::full, options);
  ASSERT_TRUE(rent);
  EXPECT_EQ(rent->report.verdict, Verdict::fits);
  EXPECT_NE(rent->price.provider, "d");  // no tensor cores for bf16
  flags.device_batch_size = 1, flags.all_weights = true, flags.recompute = Recompute::full;
  for (const Price& p : prices) {
    for (std::int64_t gpus : {1, 2, 4, 8}) {
      if (p.provider == "d" || p.usd_per_gpu_hour * static_cast<double>(gpus) >= rent->usd_per_hour()) continue;
      const auto there = plan_transformers(model, flags, machine(p.gpu.c_str(), gpus), options);
      EXPECT_FALSE(there && there->chosen) << p.gpu << " x " << gpus;
    }
  }
}

TEST(Table, sharesOutAllWeightsAndNoAdapters) {
  TransformersFlags flags;
  flags.max_seq_len = 256;
  const auto rows = table_transformers(preset("qwen2.5-0.5b"), flags, {machine("rtx 3090", 2)});
  ASSERT_TRUE(rows) << rows.error().message;
  ASSERT_EQ(rows->size(), 6U);
  for (const TableRow& row : *rows) {
    EXPECT_EQ(row.way->sharding, row.way->method == "full" ? Sharding::fsdp2 : Sharding::ddp);
    EXPECT_TRUE(row.device_batch_size);
  }
  // an encoder has no FSDP: what is laid out is taken
  EXPECT_EQ(table_transformers(preset("bert-base-uncased"), flags, {machine("rtx 3090", 2)})->front().way->sharding, Sharding::ddp);
}

// Inductor pads what products dislike where that is quicker on the user's GPU: two copies of the logits' gradient in bf16 above the interval of 5 %.
TEST(TransformersPlan, anOddVocabularyMayBePadded) {
  TransformersFlags flags;
  flags.compile = true, flags.mixed = MixedPrecision::bf16, flags.device_batch_size = 4, flags.max_seq_len = 512;
  HfModel model = preset("gpt2");
  const auto allocated = [&](std::int64_t vocabulary) {
    model.architecture.vocab = vocabulary;
    return estimate(*make_transformers_workload(model, flags), machine("rtx 4090"))->allocated;
  };
  const Estimate odd = allocated(50257), even = allocated(50304);
  const double usual = static_cast<double>(even.high.count) / static_cast<double>(even.bytes.count);
  EXPECT_GT(usual, 1);
  EXPECT_LT(usual, 1.02);
  EXPECT_NEAR(static_cast<double>(odd.high.count) - usual * static_cast<double>(odd.bytes.count), 2.0 * 4 * 512 * 50264 * 2, 8);
}

// No single change of these fits: what fits together leaves the training as it is, and its own command is that run.
TEST(TransformersLevers, changesFitTogether) {
  TransformersFlags ddp;
  ddp.gpus = 4, ddp.sharding = Sharding::ddp, ddp.weights = Dtype::fp32, ddp.mixed = MixedPrecision::bf16, ddp.device_batch_size = 8, ddp.max_seq_len = 2048;
  TransformersFlags alone;
  alone.weights = Dtype::bf16, alone.device_batch_size = 6, alone.max_seq_len = 4096, alone.optimizer = OptimizerKind::adamw_8bit;
  struct Asked { const char* model; TransformersFlags flags; Machine machine; const char* first; };
  for (const Asked& a : {Asked{"qwen2.5-7b", ddp, machine("a100-80", 4), "--parallel fsdp2"}, Asked{"llama-3.2-3b", alone, card("rtx 5090", gib(36)), "--recompute full"}}) {
    const auto w = make_transformers_workload(preset(a.model), a.flags);
    ASSERT_TRUE(w) << w.error().message;
    EstimateOptions options;
    options.alternatives = true;
    const auto report = estimate(*w, a.machine, options);
    ASSERT_TRUE(report) << report.error().message;
    ASSERT_EQ(report->verdict, Verdict::wont_fit);
    const Alternative* change = smallest_change(*report);
    ASSERT_NE(change, nullptr) << a.model;
    EXPECT_TRUE(change_text(*change).starts_with(a.first)) << change_text(*change);
    EXPECT_GT(change->change.size(), 1U);
    EXPECT_TRUE(change->identical_training);
    for (const Alternative& other : report->alternatives) EXPECT_TRUE(&other == change || other.verdict != Verdict::fits || !other.identical_training) << change_text(other);
    const auto again = read_back(preset(a.model), change->command);
    ASSERT_TRUE(again) << change->command << ": " << again.error().message;
    EXPECT_EQ(estimate(*again, a.machine)->process.bytes, *change->process) << change->command;
    EXPECT_EQ(again->run.device_batch_size * again->run.grad_accum_steps, report->workload.run.device_batch_size * report->workload.run.grad_accum_steps);
  }
}

}  // namespace
}  // namespace dryfit
