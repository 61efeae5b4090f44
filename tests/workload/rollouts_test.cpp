// TRL's rollouts: how many completions are written at once, and which batches TRL takes.
#include <gtest/gtest.h>

#include "workload/rollouts.hpp"

namespace dryfit {
namespace {

Training training_of(std::int64_t batch, std::int64_t accumulated, const RolloutFlags& flags) {
  Training t;
  t.device_batch_size = batch, t.seq_len = 1024, t.grad_accum_steps = accumulated;
  EXPECT_TRUE(put_rollouts(flags, t, t.seq_len));
  t.rollouts->resolve(batch, 1, accumulated);
  return t;
}

TEST(Rollouts, asManyStepsAreWrittenAtOnceAsAreAccumulated) {
  EXPECT_EQ(training_of(8, 4, {}).rollouts->steps, 4);
  EXPECT_EQ(training_of(8, 4, {.steps = 2}).rollouts->steps, 2);
  EXPECT_EQ(training_of(8, 4, {.batch = 64}).rollouts->steps, 8);
  EXPECT_EQ(training_of(8, 4, {.steps = 2, .iterations = 3}).rollouts->every(), 6);
}

TEST(Rollouts, completionsOfOnePromptHaveNothingToFillUp) {
  EXPECT_TRUE(training_of(8, 1, {}).rollouts->alike);
  EXPECT_FALSE(training_of(8, 2, {}).rollouts->alike);
  EXPECT_FALSE(training_of(16, 1, {}).rollouts->alike);
  EXPECT_TRUE(training_of(2, 4, {}).rollouts->alike);
}

// GRPOConfig.__post_init__
TEST(Rollouts, groupsOfCompletionsAreWhole) {
  EXPECT_TRUE(rollouts_are_legal(training_of(8, 1, {})));
  EXPECT_TRUE(rollouts_are_legal(training_of(2, 4, {})));
  EXPECT_TRUE(rollouts_are_legal(training_of(6, 1, {.generations = 3})));
  for (const Training& t : {training_of(6, 1, {}), training_of(2, 3, {}), training_of(8, 4, {.generations = 7}), training_of(3, 1, {.generations = 4, .batch = 16}), training_of(4, 2, {.steps = 1})}) {
    const auto legal = rollouts_are_legal(t);
    ASSERT_FALSE(legal);
    EXPECT_EQ(legal.error().code, "illegal_batch");
    EXPECT_FALSE(legal.error().hint.empty());
  }
}

TEST(Rollouts, aSearchBeginsWithTheLeastBatchOfWholeGroups) {
  EXPECT_EQ(least_device_batch(std::nullopt, 1, 4), 1);
  EXPECT_EQ(least_device_batch(RolloutFlags{}, 1, 1), 8);
  EXPECT_EQ(least_device_batch(RolloutFlags{}, 1, 4), 2);
  EXPECT_EQ(least_device_batch(RolloutFlags{}, 1, 3), 8);
  EXPECT_EQ(least_device_batch(RolloutFlags{.generations = 6, .steps = 4}, 1, 1), 3);
}

TEST(Rollouts, whatTrlRefusesIsAnError) {
  Training t;
  for (const RolloutFlags& f : {RolloutFlags{.generations = 1}, RolloutFlags{.completion = 1}, RolloutFlags{.completion = 1024}, RolloutFlags{.steps = 2, .batch = 16}}) {
    const auto put = put_rollouts(f, t, 1024);
    ASSERT_FALSE(put);
    EXPECT_EQ(put.error().code, "bad_value");
    EXPECT_FALSE(put.error().where.empty());
  }
  EXPECT_TRUE(put_rollouts(std::nullopt, t, 1024));
  EXPECT_EQ(usual_row({}), 1024);
  EXPECT_EQ(usual_row({.completion = 100, .prompt = 40}), 140);
}

}  // namespace
}  // namespace dryfit
