// Which phases a run meets, and what each script trains on.
#include "workload/scripts.hpp"

#include <gtest/gtest.h>

namespace dryfit {
namespace {

WorkloadFlags flags(const char* version, const char* script = nullptr) {
  WorkloadFlags f;
  f.nanochat = version;
  f.depth = 12;
  if (script != nullptr) f.script = script;
  return f;
}

Workload make(const WorkloadFlags& f) {
  const auto w = make_nanochat_workload(f);
  EXPECT_TRUE(w) << w.error().message;
  return w ? *w : Workload();
}

std::string met(const Workload& w) {
  std::string out;
  for (int p = 0; p < kPhases; ++p) {
    if (meets(w, static_cast<RunPhase>(p))) out += (out.empty() ? "" : " ") + std::string(name_of(static_cast<RunPhase>(p)));
  }
  return out;
}

TEST(Scripts, MeetWhatNanochatDoes) {
  EXPECT_EQ(met(make(flags("E7"))), "load validation first_step train_step core_evaluation sampling checkpoint");
  EXPECT_EQ(met(make(flags("E4d", "mid_train"))), "load validation first_step train_step checkpoint");
  EXPECT_EQ(met(make(flags("E1", "chat_sft"))), "load validation first_step train_step chat_evaluation checkpoint");
  EXPECT_EQ(met(make(flags("E4e", "chat_sft"))), "load validation first_step train_step checkpoint");
  EXPECT_EQ(met(make(flags("E7", "chat_sft"))), "load validation train_step chat_evaluation checkpoint");  // with the optimizer of the base run
  EXPECT_EQ(met(make(flags("E7", "chat_rl"))), "load rollout first_step train_step checkpoint");
}

TEST(Scripts, FlagsSwitchPhasesOff) {
  WorkloadFlags f = flags("E7");
  f.eval_every = f.sample_every = f.core_metric_every = -1;
  EXPECT_EQ(met(make(f)), "load first_step train_step checkpoint");
  f.nanochat = "E1f";  // -1 meant every step then
  EXPECT_EQ(met(make(f)), "load validation first_step train_step sampling checkpoint");
  f = flags("E7", "chat_sft");
  f.chatcore_every = f.eval_every = -1;
  f.load_optimizer = false;
  EXPECT_EQ(met(make(f)), "load validation first_step train_step checkpoint");  // its last step evaluates all the same
}

TEST(Scripts, ResumedRunsHaveNoFirstStep) {
  WorkloadFlags f = flags("E7");
  f.resume_from_step = 2000;
  EXPECT_EQ(met(make(f)), "load resume validation train_step core_evaluation sampling checkpoint");
  f.nanochat = "E1";
  EXPECT_EQ(make_nanochat_workload(f).error().code, "bad_value");
}

TEST(Scripts, PhasesAreCountedAsNamed) {
  WorkloadFlags f = flags("E7");
  f.phases = "validation, Core_Evaluation";
  EXPECT_EQ(met(make(f)), "load validation core_evaluation");
  EXPECT_EQ(phases_text(make(f).run), "validation,core_evaluation");
  f.phases = "validatoin";
  const auto wrong = make_nanochat_workload(f);
  ASSERT_FALSE(wrong);
  EXPECT_NE(wrong.error().hint.find("validation"), std::string::npos);
  f.phases = "load,,";
  EXPECT_FALSE(make_nanochat_workload(f));
}

TEST(Scripts, BatchesAndRowsAreTheirOwn) {
  WorkloadFlags f = flags("E7", "chat_rl");
  const Workload rl = make(f);
  EXPECT_EQ(rl.run.device_batch_size, 8);
  EXPECT_EQ(rl.run.max_seq_len, 209 + 4 + 256 - 1);
  EXPECT_EQ(rl.run.grad_accum_steps, 32);  // 16 questions of 16 samples, 8 at a time
  EXPECT_FALSE(rl.run.compile);
  EXPECT_EQ(rl.model.windows.back(), 2048);
  EXPECT_EQ(legal_device_batches(rl), (std::vector<std::int64_t>{16, 8, 4, 2, 1}));
  f.device_batch_size = 32;
  EXPECT_EQ(make_nanochat_workload(f).error().code, "illegal_batch");
  f.device_batch_size.reset();
  f.gpus = 3;
  EXPECT_EQ(make_nanochat_workload(f).error().code, "illegal_gpus");
  const Workload old = make(flags("E1", "chat_sft"));
  EXPECT_EQ(old.run.max_seq_len, 2047);
  EXPECT_EQ(old.run.device_batch_size, 4);
  EXPECT_EQ(old.run.grad_accum_steps, 8);
  f = flags("E1", "chat_sft");
  f.device_batch_size = 3;
  EXPECT_NE(make_nanochat_workload(f).error().message.find("32 rows"), std::string::npos);
}

TEST(Scripts, RefuseWhatTheyDoNotHave) {
  for (const auto& [version, script] : {std::pair{"E7", "mid_train"}, std::pair{"E7", "chat_stf"}, std::pair{"E1", ""}}) EXPECT_FALSE(make_nanochat_workload(flags(version, script))) << script;
  WorkloadFlags f = flags("E7", "chat_sft");
  f.fp8 = true;
  EXPECT_FALSE(make_nanochat_workload(f));
  f = flags("E7");
  f.num_samples = 4;
  EXPECT_FALSE(make_nanochat_workload(f));
  f = flags("E7");
  f.eval_every = -5;
  EXPECT_FALSE(make_nanochat_workload(f));
}

TEST(Scripts, SayWhatIsInherited) {
  const Workload w = make(flags("E7", "chat_sft"));
  int inherited = 0;
  for (const Assumption& a : w.assumptions) inherited += a.source.starts_with("inherited") ? 1 : 0;
  EXPECT_EQ(inherited, 3);  // length, device batch, total batch
}

}  // namespace
}  // namespace dryfit
