// The seed's calculator to the last character, against rows its own Python wrote (tests/golden/make_rule_of_thumb.py).
#include "plan/rule_of_thumb.hpp"

#include <gtest/gtest.h>

#include <fstream>

#include "base/text.hpp"

namespace dryfit {
namespace {

TEST(RuleOfThumb, matchesPythonInEveryField) {
  std::ifstream in(DRYFIT_SOURCE_DIR "/tests/golden/rule_of_thumb.tsv");
  std::string line;
  int rows = 0;
  while (std::getline(in, line)) {
    const auto f = split(line, '\t');
    const auto r = rule_of_thumb(f[0], *parse_int(f[1], ""), *parse_int(f[2], ""));
    ++rows;
    if (f.size() == 4) {
      ASSERT_FALSE(r) << line;
      EXPECT_NE(r.error().message.find(f[3]), std::string::npos) << line << " / " << r.error().message;
      continue;
    }
    ASSERT_TRUE(r) << line << r.error().message;
    EXPECT_EQ(r->gpu_memory, f[3]) << line;
    EXPECT_EQ(r->model_params, f[5]) << line;
    EXPECT_EQ(r->model_memory, f[6]) << line;
    EXPECT_EQ(r->optimizer_memory, f[7]) << line;
    EXPECT_EQ(r->available_for_activations, f[8]) << line;
    EXPECT_EQ(std::to_string(r->recommended_batch_size), f[9]) << line;
    EXPECT_EQ(std::to_string(r->safe_batch_size), f[10]) << line;
  }
  EXPECT_GT(rows, 1000);
}

TEST(RuleOfThumb, negativeRoomIsSaid) {
  const auto r = rule_of_thumb("2", 24, 1024);
  ASSERT_TRUE(r);
  EXPECT_TRUE(r->negative_room);
  EXPECT_FALSE(r->note.empty());
}

}  // namespace
}  // namespace dryfit
