// nanochat's data loader: the rows of the table against a loader played here, and how its versions differ.
#include "workload/data_loader.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <random>
#include <set>

namespace dryfit {
namespace {

Workload make(const std::string& version, std::int64_t batch = 8, std::int64_t length = 2048, const std::string& script = "base_train") {
  WorkloadFlags f;
  f.nanochat = version;
  f.depth = 4;
  f.device_batch_size = batch;
  f.max_seq_len = length;
  f.total_batch_size = batch * length;
  f.script = script;
  return *make_nanochat_workload(f);
}

// Documents of a lognormal length of which 22.9 % of the tokens lie beyond a document's 2049th where the mean is 1030 (dev/LOG.md): sigma 1.094.
PackedRow played(double mean, std::int64_t length) {
  constexpr double kSigma = 1.094;
  constexpr int kBefore = 20000, kRows = 10000;
  std::mt19937_64 random(7);
  std::lognormal_distribution<double> lengths(std::log(mean) - kSigma * kSigma / 2, kSigma);
  std::multiset<std::int64_t> buffer;
  PackedRow sum;
  for (int row = -kBefore; row < kRows; ++row) {
    if (row == 0) sum = {};
    for (std::int64_t left = length + 1; left > 0;) {
      while (buffer.size() < 1000) {
        for (int i = 0; i < 128; ++i) {
          const auto tokens = std::max<std::int64_t>(1, std::llround(lengths(random))) + 1;
          buffer.insert(tokens);
          sum.tokens += static_cast<double>(tokens);
        }
      }
      auto taken = buffer.upper_bound(left);
      if (taken == buffer.begin()) {
        left = 0;  // the shortest is cut
      } else {
        --taken;
        left -= *taken;
      }
      buffer.erase(taken);
      ++sum.documents;
    }
  }
  return {sum.tokens / kRows, sum.documents / kRows};
}

TEST(DataLoader, ItsRowsAreThoseOfALoaderPlayedHere) {
  NanochatVersion version;
  for (const bool climbmix : {false, true}) {
    version.climbmix = climbmix;
    for (const std::int64_t length : {256, 2048}) {
      const PackedRow told = packed_row(version, length), here = played(climbmix ? 723 : 1030, length);
      EXPECT_NEAR(told.tokens / here.tokens, 1, 0.06) << climbmix << " " << length;
      EXPECT_NEAR(told.documents / here.documents, 1, 0.06) << climbmix << " " << length;
    }
  }
}

TEST(DataLoader, TheFirstReleaseAssignsTokensOneByOne) {
  const double first = loader_seconds(make("E1")), queue = loader_seconds(make("E1b")), packed = loader_seconds(make("E7"));
  EXPECT_GT(first, 10 * queue);
  EXPECT_GT(packed, queue);  // looks through a thousand documents for each one that it takes
  EXPECT_LT(packed, first / 4);
  EXPECT_EQ(loader_seconds(make("E7", 8, 2048, "chat_sft")), 0);
}

RC_GTEST_PROP(DataLoader, AsManyTokensInLongerRowsCostNoMore, ()) {
  const auto length = *rc::gen::inRange<std::int64_t>(1, 3000) * 8, rows = *rc::gen::inRange<std::int64_t>(1, 64);
  const std::string version = *rc::gen::element<std::string>("E1", "E2", "E4", "E7");
  const double one = loader_seconds(make(version, rows, length)), two = loader_seconds(make(version, rows, length * 2)), many = loader_seconds(make(version, rows * 2, length));
  RC_ASSERT(two >= one * 0.999);
  RC_ASSERT(two <= many * 1.02);
  RC_ASSERT(std::abs(many / one - 2) < 1e-9);
}

}  // namespace
}  // namespace dryfit
