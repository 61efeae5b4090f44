// Estimates, the search and their identities; commands that round-trip.
#include "plan/plan.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>

#include "plan/alternatives.hpp"
#include "plan/calibration.hpp"
#include "plan/launch.hpp"

namespace dryfit {
namespace {

Workload make(std::int64_t depth, std::int64_t batch, std::int64_t gpus = 1) {
  WorkloadFlags f;
  f.depth = depth;
  f.device_batch_size = batch;
  f.gpus = gpus;
  return *make_nanochat_workload(f);
}

Machine machine(const char* gpu, std::int64_t gpus = 1) { return *machine_from_flags({gpu, gpus, std::nullopt, std::nullopt}); }

TEST(Estimate, printsItsIdentities) {
  const Machine m = machine("rtx 4090");
  EstimateOptions options;
  options.alternatives = options.timeline = true;
  const Report r = *estimate(make(12, 8), m, options);
  EXPECT_EQ(m.usable(), r.process.bytes + r.headroom);
  Bytes sum;
  for (const CategoryBytes& c : r.categories) sum += c.at_peak;
  EXPECT_EQ(sum, r.process.bytes);
  EXPECT_LE(r.allocated.low, r.allocated.bytes);
  EXPECT_LE(r.allocated.bytes, r.reserved.bytes);
  EXPECT_LE(r.process.bytes, r.process.high);
  Bytes most;
  for (const PhaseResult& p : r.phases) most = std::max(most, p.allocated);
  EXPECT_EQ(most, r.allocated.bytes);
  Bytes drawn;
  for (const TimelinePoint& p : r.timeline) drawn = std::max(drawn, p.allocated);
  EXPECT_LE(drawn, r.allocated.bytes);  // the picture adds up tensors; torch counts whole blocks
  Bytes tensors;
  for (const TensorInfo& t : r.live) tensors += Bytes(round_up(t.bytes, 512));
  EXPECT_EQ(drawn, tensors);
  EXPECT_GE(r.alternatives.size(), 7U);
}

TEST(Estimate, verdictFollowsTheCard) {
  EXPECT_EQ(estimate(make(20, 32, 8), machine("h100", 8))->verdict == Verdict::wont_fit, false);
  EXPECT_EQ(estimate(make(32, 32, 8), machine("h100", 8))->verdict, Verdict::wont_fit);
  EXPECT_EQ(estimate(make(12, 16), machine("rtx 3080 10gb"))->verdict, Verdict::wont_fit);
}

TEST(Search, answerFitsAndTheNextDoesNot) {
  for (const char* gpu : {"rtx 3060 12gb", "rtx 4090", "a100 40gb", "h100"}) {
    for (std::int64_t depth : {4, 12, 20}) {
      const Workload one = make(depth, 1);
      const auto best = *largest_device_batch(one, machine(gpu));
      for (std::int64_t batch : legal_device_batches(one)) {
        const Verdict v = estimate(*with_device_batch(one, batch), machine(gpu))->verdict;
        if (best && batch == *best) {
          EXPECT_EQ(v, Verdict::fits) << gpu << " d" << depth;
        } else if (!best || batch > *best) {
          EXPECT_NE(v, Verdict::fits) << gpu << " d" << depth << " B" << batch;
        }
      }
    }
  }
}

TEST(Search, neverRecommendsWhatRanOutOfMemory) {  // published failures: nanochat commit b19b4f3, README of 2025-10, PR 228
  WorkloadFlags f;
  f.nanochat = "E4f", f.depth = 24, f.gpus = 8, f.device_batch_size = 32, f.total_batch_size = 524288;
  EXPECT_NE(estimate(*make_nanochat_workload(f), machine("h100", 8))->verdict, Verdict::fits);
  f.nanochat = "E1", f.depth = 26, f.vocab_size = 65536;
  EXPECT_NE(estimate(*make_nanochat_workload(f), machine("h100", 8))->verdict, Verdict::fits);
  f.depth = 20, f.gpus = 1;
  EXPECT_NE(estimate(*make_nanochat_workload(f), machine("rtx 3080 10gb"))->verdict, Verdict::fits);
}

TEST(Plan, isOrderedAndChosenFits) {
  const auto p = plan({}, machine("rtx 4090"));
  ASSERT_TRUE(p);
  ASSERT_FALSE(p->plans.empty());
  for (const Report& r : p->plans) EXPECT_EQ(r.verdict, Verdict::fits);
  EXPECT_GE(p->plans[p->chosen].workload.run.device_batch_size, 4);
  EXPECT_FALSE(machine_from_flags({std::nullopt, 1, mib(300), std::nullopt}));  // the driver takes more
  const auto small = machine_from_flags({std::nullopt, 1, mib(1024), std::nullopt});
  ASSERT_TRUE(small);
  const auto none = plan({}, *small);
  ASSERT_TRUE(none);
  EXPECT_TRUE(none->plans.empty());
}

TEST(Plan, orderOfSearchesDoesNotMatter) {
  for (const char* gpu : {"rtx 3060", "h100"}) {
    EstimateOptions backwards;  // any order of the calls gives the same answer
    backwards.loop = [](std::size_t count, const std::function<bool(std::size_t)>& call) {
      while (count-- > 0) call(count);
    };
    const auto one = plan({}, machine(gpu)), several = plan({}, machine(gpu), backwards);
    ASSERT_TRUE(one && several);
    ASSERT_EQ(one->plans.size(), several->plans.size());
    EXPECT_EQ(one->chosen, several->chosen);
    for (std::size_t i = 0; i < one->plans.size(); ++i) {
      EXPECT_EQ(one->plans[i].command, several->plans[i].command);
      EXPECT_EQ(one->plans[i].process.bytes, several->plans[i].process.bytes);
    }
  }
}

TEST(Launch, commandsRoundTrip) {
  EXPECT_TRUE(rc::check("parsing what is printed gives the same workload", [] {
    WorkloadFlags f;
    const auto& versions = nanochat_versions();
    f.nanochat = versions[*rc::gen::inRange<std::size_t>(0, versions.size())].epoch;
    f.depth = *rc::gen::inRange<std::int64_t>(1, 33);
    f.gpus = *rc::gen::element<std::int64_t>(1, 2, 4, 8);
    f.device_batch_size = *rc::gen::element<std::int64_t>(1, 2, 4, 8);
    f.max_seq_len = *rc::gen::element<std::int64_t>(512, 1024, 2048);
    f.torchrun = *rc::gen::arbitrary<bool>();
    f.passthrough = {"--run=my experiment", "--num-iterations=20"};
    const auto w = make_nanochat_workload(f);
    RC_PRE(w.has_value());
    const std::vector<std::string> words = *shell_split(shell_join(launch_command(*w)));
    auto pasted = parse_pasted_command(words);
    RC_ASSERT(pasted.has_value());
    pasted->flags.nanochat = f.nanochat;
    const auto again = make_nanochat_workload(pasted->flags);
    RC_ASSERT(again.has_value());
    RC_ASSERT(again->model.param_count() == w->model.param_count());
    RC_ASSERT(again->model.windows == w->model.windows);
    RC_ASSERT(again->run.device_batch_size == w->run.device_batch_size);
    RC_ASSERT(again->run.total_batch_size == w->run.total_batch_size);
    RC_ASSERT(again->run.grad_accum_steps == w->run.grad_accum_steps);
    RC_ASSERT(again->run.world_size == w->run.world_size);
    RC_ASSERT(again->run.torchrun == w->run.torchrun);
    RC_ASSERT(again->run.max_seq_len == w->run.max_seq_len);
    RC_ASSERT(again->passthrough == w->passthrough);
  }));
}

TEST(Launch, commandsOfOtherScriptsRoundTrip) {
  for (const auto& [version, script] : {std::pair{"E1", "mid_train"}, std::pair{"E1", "chat_sft"}, std::pair{"E4e", "chat_sft"}, std::pair{"E7", "chat_sft"}, std::pair{"E1", "chat_rl"}, std::pair{"E7", "chat_rl"}}) {
    WorkloadFlags f;
    f.nanochat = version;
    f.script = script;
    f.depth = 12;
    f.gpus = 2;
    f.eval_every = 77;
    f.passthrough = {"--run=x"};
    if (std::string_view(script) == "chat_rl") f.num_samples = 32, f.max_new_tokens = 100, f.examples_per_step = 8, f.device_batch_size = 16;
    const auto w = make_nanochat_workload(f);
    ASSERT_TRUE(w) << w.error().message;
    auto pasted = parse_pasted_command(launch_command(*w));
    ASSERT_TRUE(pasted) << pasted.error().message;
    pasted->flags.nanochat = version;
    const auto again = make_nanochat_workload(pasted->flags);
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(launch_command(*again), launch_command(*w)) << script;
    EXPECT_EQ(again->model.depth, 12);  // from the checkpoint's tag
    EXPECT_EQ(again->run.script, w->run.script);
    EXPECT_EQ(again->run.total_batch_size, w->run.total_batch_size);
  }
}

TEST(Estimate, PeaksThatAFlagAvoidsSaySo) {
  WorkloadFlags f;
  f.depth = 4;
  f.device_batch_size = 1;
  f.total_batch_size = 2048;
  EstimateOptions options;
  options.alternatives = true;
  const auto offers = [&](const char* flag) {
    const auto r = estimate(*make_nanochat_workload(f), machine("h100"), options);
    return r && std::ranges::any_of(r->alternatives, [&](const Alternative& a) { return a.change.front().first == flag; });
  };
  EXPECT_TRUE(offers("--core-metric-every"));
  f.phases = "validation";
  EXPECT_TRUE(offers("--eval-every"));
}

// nanochat's scripts ask for a process group, not for its size: torchrun of one process runs the distributed optimizers, until E7.
TEST(Estimate, TorchrunOfOneProcessHoldsWhatCollectivesWould) {
  const auto asked = [](const char* launcher, const char* version) {
    std::vector<std::string> words = *shell_split(std::string(launcher) + " -m scripts.base_train --depth=6 --device-batch-size=4 --total-batch-size=16384");
    auto pasted = parse_pasted_command(words);
    EXPECT_TRUE(pasted.has_value()) << launcher;
    pasted->flags.nanochat = version;
    EstimateOptions options;
    options.alternatives = true;
    return *estimate(*make_nanochat_workload(pasted->flags), machine("h100"), options);
  };
  const Report alone = asked("python", "E6b"), torchrun = asked("torchrun --standalone --nproc_per_node=1", "E6b"), module = asked("python -m torch.distributed.run --nproc_per_node=1", "E6b");
  EXPECT_GT(torchrun.allocated.bytes, alone.allocated.bytes);
  EXPECT_EQ(module.allocated.bytes, torchrun.allocated.bytes);
  EXPECT_TRUE(torchrun.command.starts_with("torchrun --standalone --nproc_per_node=1 ")) << torchrun.command;
  EXPECT_TRUE(alone.command.starts_with("python ")) << alone.command;
  const auto lever = [](const Report& r) { return std::ranges::find_if(r.alternatives, [](const Alternative& a) { return change_text(a) == "--torchrun 0"; }); };
  ASSERT_NE(lever(torchrun), torchrun.alternatives.end());
  EXPECT_EQ(lever(torchrun)->allocated, alone.allocated.bytes);
  EXPECT_EQ(lever(alone), alone.alternatives.end());
  EXPECT_TRUE(std::ranges::any_of(torchrun.warnings, [](const std::string& w) { return w.starts_with("started by torchrun"); }));
  EXPECT_NE(configuration_of(torchrun.workload), configuration_of(alone.workload));
  EXPECT_EQ(asked("torchrun --nproc_per_node=1", "E7").allocated.bytes, asked("python", "E7").allocated.bytes);
}

TEST(Estimate, WarnsWhenFineTuningInheritsTooLargeABatch) {
  WorkloadFlags f;
  f.depth = 24;
  f.fp8 = true;
  f.gpus = 8;
  f.device_batch_size = 16;
  EstimateOptions options;
  options.neighbours = true;
  Machine m = machine("h100");
  m.gpus = 8;
  const auto warned = [&] {
    const auto r = estimate(*make_nanochat_workload(f), m, options);
    EXPECT_NE(r->verdict, Verdict::wont_fit);
    return std::ranges::any_of(r->warnings, [](const std::string& w) { return w.find("chat_sft") != std::string::npos; });
  };
  EXPECT_FALSE(warned());
  m.total = Bytes(std::int64_t{60} << 30);  // fp8 needs 51.5 GiB, bf16 61
  EXPECT_TRUE(warned());
}

// Half of the default batch is still too much for most cards at depth 20: what is offered is the batch that plan would choose from.
TEST(Estimate, OffersTheLargestBatchThatFits) {
  EstimateOptions options;
  options.alternatives = true;
  for (const char* gpu : {"rtx 4090", "rtx 3060 12gb", "a100 40gb"}) {
    const Report r = *estimate(make(20, 256), machine(gpu), options);
    const auto best = *largest_device_batch(make(20, 1), machine(gpu));
    const Alternative* change = smallest_change(r);
    if (!best) {
      EXPECT_TRUE(change == nullptr || change->change.front().first != "--device-batch-size") << gpu;
      continue;
    }
    ASSERT_NE(change, nullptr) << gpu;
    EXPECT_EQ(change_text(*change), "--device-batch-size " + std::to_string(*best)) << gpu;
    const Report then = *estimate(make(20, *best), machine(gpu));
    EXPECT_EQ(then.verdict, Verdict::fits) << gpu;
    EXPECT_EQ(*change->process, then.process.bytes) << gpu;
    EXPECT_EQ(change->command, then.command) << gpu;
  }
}

TEST(Plan, SaysOfWhatDoesNotFitWhatWouldChangeIt) {
  WorkloadFlags f;
  f.depth = 24;
  const auto answer = plan(f, machine("rtx 4090"));
  ASSERT_TRUE(answer && answer->plans.empty() && answer->closest);
  EXPECT_EQ(answer->closest->workload.model.depth, 24);
  EXPECT_EQ(answer->closest->workload.run.device_batch_size, 1);
  EXPECT_NE(answer->why.find("depth 24"), std::string::npos) << answer->why;
  const Alternative* change = smallest_change(*answer->closest);
  ASSERT_NE(change, nullptr);
  const std::string command = command_of(*change, *answer->closest);
  const auto pasted = parse_pasted_command(*shell_split(command));
  ASSERT_TRUE(pasted) << command;
  EstimateOptions options;
  options.allocator = *parse_alloc_conf(pasted->alloc_conf.value());
  EXPECT_EQ(estimate(*make_nanochat_workload(pasted->flags), machine("rtx 4090"), options)->verdict, Verdict::fits) << command;
  EXPECT_TRUE(plan({}, *machine_from_flags({std::nullopt, 1, Bytes(std::int64_t{1} << 30), std::nullopt}))->closest);
}

TEST(Plan, KeepsTheDeviceBatchThatIsGiven) {
  WorkloadFlags f;
  f.device_batch_size = 2;
  const auto answer = plan(f, machine("rtx 4090"));
  ASSERT_TRUE(answer && !answer->plans.empty());
  for (const Report& r : answer->plans) EXPECT_EQ(r.workload.run.device_batch_size, 2);
  EXPECT_EQ(answer->chosen, answer->plans.size() - 1);
  f.depth = 20;
  f.device_batch_size = 32;
  const auto too_large = plan(f, machine("rtx 4090"));
  ASSERT_TRUE(too_large && too_large->closest);
  EXPECT_EQ(too_large->closest->workload.run.device_batch_size, 32);
  f.device_batch_size = 3;
  EXPECT_EQ(plan(f, machine("rtx 4090")).error().code, "illegal_batch");
}

// What no depth can be trained with is an error, not a lack of memory.
TEST(Plan, RefusesWhatNoDepthCanRunOn) {
  EXPECT_EQ(plan({}, machine("h100", 3)).error().code, "illegal_gpus");
  WorkloadFlags f;
  f.fp8 = true;
  EXPECT_EQ(plan(f, machine("t4")).error().where, "--fp8");
}

// A T4 trains in fp32 with nanochat's own command: plan lays out that, and what is asked for otherwise stands in the command.
TEST(Plan, laysOutTheDtypeThatTheGpuGives) {
  WorkloadFlags f;
  f.depth = 8;
  const auto answer = plan(f, machine("t4"));
  ASSERT_TRUE(answer && !answer->plans.empty());
  const Report& usual = answer->plans.front();
  EXPECT_EQ(usual.workload.run.compute, Dtype::fp32);
  EXPECT_EQ(usual.command.find("NANOCHAT_DTYPE"), std::string::npos) << usual.command;
  for (const auto& [dtype, word] : {std::pair{"bf16", "bfloat16"}, std::pair{"fp16", "float16"}}) {
    f.dtype = dtype;
    const auto other = plan(f, machine("t4"));
    ASSERT_TRUE(other && !other->plans.empty());
    EXPECT_EQ(other->plans.front().command.find(std::string("NANOCHAT_DTYPE=") + word), 0u) << other->plans.front().command;
  }
  // and what is offered instead of fp32 is what its command then is
  Workload usual_run = *with_device_batch(usual.workload, 16);
  EstimateOptions options;
  options.alternatives = true;
  const Report over = *estimate(usual_run, machine("t4"), options);
  const auto half = std::ranges::find_if(over.alternatives, [](const Alternative& a) { return change_text(a) == "NANOCHAT_DTYPE=float16"; });
  ASSERT_NE(half, over.alternatives.end());
  EXPECT_FALSE(half->identical_training);
  usual_run.run.compute = Dtype::fp16;
  WorkloadFlags again = parse_pasted_command(launch_command(usual_run))->flags;
  again.compute_major = 7, again.vocab_size = usual_run.model.vocab;
  EXPECT_EQ(half->process, estimate(*make_nanochat_workload(again), machine("t4"), options)->process.bytes);
  f.dtype = "bf16";
  const auto newer = plan(f, machine("rtx 4090"));
  ASSERT_TRUE(newer && !newer->plans.empty());
  EXPECT_EQ(newer->plans.front().command.find("NANOCHAT_DTYPE"), std::string::npos);
}

Result<PastedCommand> paste(std::string_view text) { return parse_pasted_command(*shell_split(text)); }

TEST(Paste, readsWhatPeoplePaste) {
  auto p = paste("$ OMP_NUM_THREADS=1 NANOCHAT_DTYPE=float32 torchrun --standalone --nproc_per_node=8 -m scripts.base_train -- \\\n  --depth=24 --device_batch_size 16 --fp8 --run=x # a comment\n");
  ASSERT_TRUE(p) << p.error().message;
  EXPECT_EQ(p->flags.gpus, 8);
  EXPECT_EQ(p->flags.depth, 24);
  EXPECT_EQ(p->flags.device_batch_size, 16);
  EXPECT_EQ(p->flags.fp8, true);
  EXPECT_EQ(p->flags.dtype, "float32");
  EXPECT_EQ(p->flags.passthrough, std::vector<std::string>{"--run=x"});
  p = paste("PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True nohup python -u -m scripts.base_train --depth 12 > log 2>&1 &");
  ASSERT_TRUE(p);
  EXPECT_EQ(p->flags.gpus, 1);
  EXPECT_EQ(p->alloc_conf, "expandable_segments:True");
  EXPECT_TRUE(paste("uv run python3 scripts/base_train.py --depth=4"));
  EXPECT_FALSE(p->flags.compile);
  for (const char* off : {"TORCH_COMPILE_DISABLE=1", "TORCHDYNAMO_DISABLE=1"}) {
    p = paste((std::string(off) + " python -m scripts.base_train --depth=4 --device-batch-size=1 --fp8").c_str());
    ASSERT_TRUE(p);
    EXPECT_EQ(p->flags.compile, false) << off;
    EXPECT_TRUE(p->ignored.empty());
    EXPECT_TRUE(shell_join(launch_command(*make_nanochat_workload(p->flags))).starts_with("TORCH_COMPILE_DISABLE=1 python -m scripts.base_train"));
  }
  EXPECT_NE(paste("TORCH_COMPILE_DISABLE=0 python -m scripts.base_train --depth=4")->flags.compile, false);
  p = paste("torchrun --standalone --nproc_per_node=8 -m scripts.chat_sft -- --device-batch-size=16 --model-tag=d24 --run=x");
  ASSERT_TRUE(p) << p.error().message;
  EXPECT_EQ(p->flags.script, "chat_sft");
  EXPECT_EQ(p->flags.depth, 24);
  EXPECT_EQ(p->flags.device_batch_size, 16);
  p = paste("python -m scripts.chat_rl --num_samples 8 --max-new-tokens=64");
  ASSERT_TRUE(p);
  EXPECT_EQ(p->flags.num_samples, 8);
  EXPECT_EQ(p->flags.max_new_tokens, 64);
  p = paste("python -m scripts.base_train --resume-from-step=500 --sample-every=-1 --eval-every=100 --save-every=1000");
  ASSERT_TRUE(p);
  EXPECT_EQ(p->flags.resume_from_step, 500);
  EXPECT_EQ(p->flags.sample_every, -1);
  EXPECT_TRUE(paste("python -m torch.distributed.run --nproc-per-node 2 -m scripts.base_train"));
}

// A fork's flags, their values and what stands around them.
TEST(Paste, leavesOutWhatOnlyAForkHas) {
  const auto words = *shell_split("python -m scripts.base_train --depth 8 --my_flag 3 -1 --switch --device-batch-size=4 --path='a b' --run=x");
  EXPECT_FALSE(parse_pasted_command(words, PasteOptions{{}, {"my-flag", "switch"}, false}));
  for (const PasteOptions& options : {PasteOptions{{}, {"my-flag", "switch", "path"}, false}, PasteOptions{{}, {}, true}}) {
    const auto pasted = parse_pasted_command(words, options);
    ASSERT_TRUE(pasted) << pasted.error().message;
    EXPECT_EQ(pasted->flags.depth, 8);
    EXPECT_EQ(pasted->flags.device_batch_size, 4);
    EXPECT_EQ(pasted->flags.left_out, (std::vector<std::string>{"--my_flag", "3", "-1", "--switch", "--path=a b"}));
    const auto w = make_nanochat_workload(pasted->flags);
    ASSERT_TRUE(w);
    EXPECT_EQ(w->warnings, std::vector<std::string>{"left out, as nanochat has no such flag: --my_flag 3 -1, --switch, --path=a b; what they change is not laid out"});
    EXPECT_TRUE(shell_join(launch_command(*w)).ends_with(" --run=x --my_flag 3 -1 --switch '--path=a b'")) << shell_join(launch_command(*w));
  }
}

// The newest version that has a command's flags, as they are spelt.
TEST(Paste, tellsTheVersionByItsFlags) {
  const auto version = [](std::string_view text, int compute_major = 9) {
    auto flags = paste(text)->flags;
    flags.compute_major = compute_major;
    const auto w = make_nanochat_workload(flags);
    return w ? w->model.version.epoch + (w->warnings.empty() ? "" : " !") : w.error().message;
  };
  EXPECT_EQ(version("python -m scripts.base_train --depth=8 --device-batch-size=4"), "E7");
  EXPECT_EQ(version("python -m scripts.base_train --depth=8 --device_batch_size=4"), "E3 !");
  EXPECT_EQ(version("python -m scripts.base_train --depth=8 --device_batch_size=4", 8), "E2b !");  // E3 stops without FlashAttention 3
  EXPECT_EQ(version("python -m scripts.base_train --depth=8 --grad_clip=1.0"), "E2 !");
  EXPECT_EQ(version("python -m scripts.base_train --depth=8 --adam-beta1=0.8"), "E5 !");
  EXPECT_EQ(version("python -m scripts.base_train --depth=8 --warmup-steps=40"), "E7");
  EXPECT_EQ(version("python -m scripts.base_train --depth=8 --device_batch_size=4 --eval-every=-1"), "E7 !");  // both spellings: no version
  EXPECT_EQ(version("python -m scripts.base_train --depth=8 --grad-clip=1 --fp8"), "E7 !");
  EXPECT_EQ(version("python -m scripts.mid_train --device-batch-size=4"), "E4d");
  EXPECT_EQ(version("python -m scripts.mid_train --device_batch_size=4"), "E3 !");
  EXPECT_EQ(version("python -m scripts.chat_sft --target-examples-per-step=32"), "E4d");
  EXPECT_EQ(version("python -m scripts.chat_rl --dtype=bfloat16"), "E4h !");
  auto told = paste("python -m scripts.base_train --depth=8 --device_batch_size=4")->flags;
  told.nanochat = "E7";
  EXPECT_TRUE(make_nanochat_workload(told)->warnings.empty());
  told.nanochat.reset();
  EXPECT_EQ(make_nanochat_workload(told)->warnings[0], "laid out is nanochat E3 (2026-01-11), the newest that has all of the command's flags: --device_batch_size is written with dashes since 2026-01-13; --nanochat chooses another");
}

TEST(Paste, refusesWithAWayOut) {
  const std::pair<const char*, const char*> cases[] = {{"", "bad_command"}, {"ls -l", "bad_command"}, {"python", "bad_command"}, {"python -m scripts.chat_web", "unsupported_script"}, {"python -m scripts.chat_sft --depth=3", "unknown_flag"}, {"python -m scripts.base_train --num-samples=3", "unknown_flag"},
                                                       {"python -m scripts.base_train --dept=4", "unknown_flag"}, {"python -m scripts.base_train --depth=x", "bad_number"},
                                                       {"python -m scripts.base_train --depth", "bad_command"}, {"torchrun --nproc_per_node=0 -m scripts.base_train", "bad_value"}};
  for (const auto& [text, code] : cases) {
    const auto p = paste(text);
    ASSERT_FALSE(p) << text;
    EXPECT_EQ(p.error().code, code) << text;
    EXPECT_FALSE(p.error().hint.empty());
  }
  const auto several = paste("python -m scripts.base_train --dpeth=4 --my-flag 3 --num-samples=2 --other --depth=x");
  EXPECT_EQ(several.error().message, "nanochat has no flags --dpeth, --my-flag, --num-samples, --other");
  EXPECT_EQ(several.error().hint, "did you mean '--depth' for --dpeth? --num-samples is chat_rl's; what only your fork has is left out by --ignore my-flag,other before the --");
  EXPECT_EQ(paste("python -m scripts.base_train --my-flag=3").error().hint, "what only your fork has is left out by --ignore my-flag before the --");
  EXPECT_NE(paste("python -m scripts.base_train --seq-len=512").error().hint.find("max-seq-len"), std::string::npos);
  EXPECT_FALSE(shell_split("echo 'open"));
}

}  // namespace
}  // namespace dryfit
