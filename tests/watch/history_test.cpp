// History in constant memory, and what it finds: a leak and no leak, nearly full, drift, the job among processes.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>

#include "watch/history.hpp"
#include "watch/job.hpp"

namespace dryfit {
namespace {

GpuSample gpu(Bytes used, std::int64_t pid = 7) {
  GpuSample g;
  g.name = "NVIDIA H100 80GB HBM3";
  g.total = mib(81559), g.reserved = mib(479), g.used = used;
  g.processes = std::vector<GpuProcess>{{pid, used}};
  return g;
}

LogRun training(std::int64_t steps) {
  LogRun run;
  run.steps = steps;
  run.validations = 1;
  return run;
}

// Memory as a function of seconds, sampled every `interval`.
template <class F>
History watched(F memory, double seconds, double interval = 1) {
  History h;
  const LogRun run = training(100);
  for (double t = 0; t <= seconds; t += interval) {
    MachineSample s;
    s.seconds = t;
    s.gpus = {gpu(memory(t))};
    add_sample(h, s, {7}, &run);
  }
  return h;
}

bool has(const std::vector<Finding>& findings, FindingKind kind) {
  return std::ranges::any_of(findings, [&](const Finding& f) { return f.kind == kind; });
}
std::vector<Finding> judged(const History& h) {
  const LogRun run = training(100);
  return judge(h, nullptr, &run);
}

RC_GTEST_PROP(ByteSeries, forgetsNothingInConstantMemory, (const std::vector<std::uint16_t>& values)) {
  ByteSeries series;
  Bytes low(Bytes::kMax), high(Bytes::kMin);
  double t = 0;
  for (int round = 0; round < 20; ++round) {
    for (std::uint16_t v : values) {
      series.add(t, Bytes(v));
      t += 0.5 + v % 7;
      low = std::min(low, Bytes(v)), high = std::max(high, Bytes(v));
    }
  }
  RC_ASSERT(series.buckets().size() <= ByteSeries::kMost);
  if (values.empty()) return;
  RC_ASSERT(series.highest(0) == high);
  RC_ASSERT(series.lowest(0, t) == low);
  for (std::size_t i = 1; i < series.buckets().size(); ++i) RC_ASSERT(series.buckets()[i - 1].last <= series.buckets()[i].first);
}

TEST(Judge, aSteadyRampIsALeak) {
  const History h = watched([](double t) { return mib(30000) + Bytes(static_cast<std::int64_t>(t * 0.2 * (1 << 20))); }, 900);
  const auto findings = judged(h);
  const auto leak = std::ranges::find(findings, FindingKind::leak, &Finding::kind);
  ASSERT_NE(leak, findings.end());
  EXPECT_NEAR(leak->amount.mib(), 720, 15);                                         // 0.2 MiB/s
  EXPECT_NEAR(*leak->seconds, (81559 - 479 - 30000 - 180) / 0.2, 0.03 * 255000);
}

RC_GTEST_PROP(Judge, noiseAboutALevelIsNoLeak, ()) {
  const auto noise = *rc::gen::container<std::vector<int>>(901, rc::gen::inRange(0, 400));
  const History h = watched([&](double t) { return mib(30000 + noise[static_cast<std::size_t>(t)]); }, 900);
  RC_ASSERT(!has(judged(h), FindingKind::leak));
}

TEST(Judge, aCacheThatFillsUpIsNoLeak) {
  EXPECT_FALSE(has(judged(watched([](double t) { return mib(30000) + Bytes(static_cast<std::int64_t>((1 - std::exp(-t / 60)) * 4e9)); }, 900)), FindingKind::leak));
  EXPECT_FALSE(has(judged(watched([](double t) { return mib(t < 400 ? 30000 : 38000); }, 900)), FindingKind::leak));           // one validation
  EXPECT_FALSE(has(judged(watched([](double t) { return mib(30000 + static_cast<int>(t) % 60 * 50); }, 900)), FindingKind::leak));  // a saw
  EXPECT_FALSE(has(judged(watched([](double) { return mib(30000); }, 900)), FindingKind::leak));
}

TEST(Judge, nearlyFullIsAnAlarmOnlyWhileItGrows) {
  const auto full = judged(watched([](double) { return mib(80000); }, 100));
  ASSERT_FALSE(full.empty());
  EXPECT_EQ(full[0].kind, FindingKind::near_full);
  EXPECT_EQ(full[0].level, Level::warning);
  EXPECT_FALSE(full[0].seconds);
  const auto growing = judged(watched([](double t) { return mib(78000) + mib(10) * static_cast<std::int64_t>(t); }, 100));
  ASSERT_FALSE(growing.empty());
  EXPECT_EQ(growing[0].level, Level::alarm);
  EXPECT_NEAR(*growing[0].seconds, (81080 - 79000) / 10.0, 2);
  EXPECT_FALSE(has(judged(watched([](double) { return mib(70000); }, 100)), FindingKind::near_full));
}

JobPrediction predicted(Bytes low, Bytes middle, Bytes high) {
  JobPrediction p;
  p.process = {middle, low, high, Provenance::modelled};
  p.usable = gib(79);
  p.phases = {{"load", gib(5)}, {"first_step", middle}, {"train_step", middle}};
  return p;
}

TEST(Judge, besideThePrediction) {
  const JobPrediction p = predicted(gib(28), gib(30), gib(32));
  const LogRun run = training(100), early = training(0);
  const auto at = [&](Bytes used, const LogRun& log) { return judge(watched([&](double) { return used; }, 10), &p, &log); };
  EXPECT_TRUE(at(gib(30), run).empty());
  EXPECT_TRUE(has(at(gib(33), run), FindingKind::above_prediction));
  EXPECT_TRUE(has(at(gib(20), run), FindingKind::below_prediction));
  EXPECT_FALSE(has(at(gib(5), early), FindingKind::below_prediction));  // only loaded so far
  EXPECT_EQ(predicted_by_now(p, &early), gib(5));
  EXPECT_EQ(predicted_by_now(p, nullptr), gib(30));
}

TEST(Judge, othersAreNotTheJob) {
  History h;
  MachineSample s;
  s.gpus = {gpu(gib(10)), gpu(gib(4), 99)};
  s.gpus[0].processes->push_back({99, gib(2)});
  add_sample(h, s, {7}, nullptr);
  EXPECT_EQ(h.gpus[0].job, gib(10));
  EXPECT_EQ(h.gpus[0].others, gib(2));
  EXPECT_FALSE(h.gpus[1].job);
  EXPECT_EQ(job_gpus(h), std::vector<std::size_t>{0});
}

TEST(Judge, aLostGpuIsSaid) {
  History h;
  MachineSample s;
  s.gpus = {gpu(gib(1))};
  add_sample(h, s, {7}, nullptr);
  s.seconds = 1;
  s.gpus[0] = {};
  s.gpus[0].lost = true;
  add_sample(h, s, {7}, nullptr);
  EXPECT_TRUE(has(judge(h, nullptr, nullptr), FindingKind::gpu_lost));
}

ProcessSample process(std::int64_t pid, std::int64_t parent, std::uint64_t started, std::vector<std::string> command, std::vector<std::string> environment = {}) {
  ProcessSample p;
  p.pid = pid, p.parent = parent, p.started = started, p.command = std::move(command), p.environment = std::move(environment);
  p.name = "python3";
  return p;
}

const std::vector<ProcessSample>& machine() {
  static const std::vector<ProcessSample> all = {
      process(1, 0, 1, {"/sbin/init"}), process(50, 1, 5, {"bash", "speedrun.sh"}),
      process(60, 50, 10, {"/usr/bin/python3", "/opt/venv/bin/torchrun", "--standalone", "--nproc_per_node=2", "-m", "scripts.base_train", "--", "--depth=20", "--device-batch-size=8"}),
      process(61, 60, 11, {"/usr/bin/python3", "-u", "-m", "scripts.base_train", "--depth=20", "--device-batch-size=8"}, {"WORLD_SIZE=2", "LOCAL_RANK=0", "CUBLAS_WORKSPACE_CONFIG=:4096:8", "TORCH_COMPILE_DISABLE=1", "PYTORCH_ALLOC_CONF=expandable_segments:True"}),
      process(62, 60, 11, {"/usr/bin/python3", "-u", "-m", "scripts.base_train", "--depth=20", "--device-batch-size=8"}, {"WORLD_SIZE=2", "LOCAL_RANK=1"}),
      process(63, 61, 12, {"/usr/bin/python3", "-c", "loader"}), process(70, 1, 99, {"python3", "-m", "jupyter"})};
  return all;
}

TEST(Job, treeClimbsToTheLauncherAndTakesAllBelow) {
  const auto tree = process_tree(machine(), 62);
  ASSERT_EQ(tree.size(), 4U);
  EXPECT_EQ(tree[0].pid, 60);
  EXPECT_TRUE(process_tree(machine(), 1234).empty());
}

TEST(Job, newestTrainingBeatsNewerPython) {
  const auto pid = newest_training(machine());
  ASSERT_TRUE(pid);
  EXPECT_TRUE(*pid == 61 || *pid == 62 || *pid == 60);
  EXPECT_EQ(newest_training(std::vector<ProcessSample>{machine()[6]}), 70);
  ProcessSample init = machine()[0];
  init.name = "systemd";
  EXPECT_FALSE(newest_training(std::vector<ProcessSample>{init}));
}

TEST(Job, flagsComeFromCommandAndEnvironment) {
  const Job job = read_job(process_tree(machine(), 61), 61);
  ASSERT_TRUE(job.flags) << job.unread;
  EXPECT_EQ(job.flags->depth, 20);
  EXPECT_EQ(job.flags->gpus, 2);
  EXPECT_EQ(job.flags->torchrun, true);
  EXPECT_EQ(job.alloc_conf, "expandable_segments:True");
  EXPECT_EQ(job.flags->compile, false);
  EXPECT_EQ(job.flags->workspaces, (Variables{{"CUBLAS_WORKSPACE_CONFIG", ":4096:8"}}));  // once, though each rank has it
  EXPECT_TRUE(job.command.starts_with("/opt/venv/bin/torchrun"));
  // a rank alone, its launcher not readable
  const Job rank = read_job(std::vector<ProcessSample>{machine()[3]}, 61);
  ASSERT_TRUE(rank.flags);
  EXPECT_EQ(rank.flags->gpus, 2);
  const Job other = read_job(std::vector<ProcessSample>{process(9, 1, 1, {"python", "train_gpt.py", "--lr", "1"})}, 9);
  EXPECT_FALSE(other.flags);
  EXPECT_FALSE(other.unread.empty());
  EXPECT_FALSE(read_job(std::vector<ProcessSample>{process(9, 1, 1, {})}, 9).unread.empty());
}

RC_GTEST_PROP(Job, anyForestGivesABoundedTree, (const std::vector<std::pair<std::uint8_t, std::uint8_t>>& links)) {
  std::vector<ProcessSample> all;
  for (const auto& [pid, parent] : links) all.push_back(process(pid, parent, pid, {parent % 2 ? "torchrun" : "python"}));
  for (const ProcessSample& p : all) {
    const auto tree = process_tree(all, p.pid);
    RC_ASSERT(!tree.empty() && tree.size() <= kMostTree);
    read_job(tree, p.pid);
  }
}

}  // namespace
}  // namespace dryfit
