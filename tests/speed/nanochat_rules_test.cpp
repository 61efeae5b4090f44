// nanochat's own numbers, as its reports print them.
#include "speed/nanochat_rules.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

namespace dryfit {
namespace {

struct Printed { const char* version; std::int64_t depth, vocab, total; const char* window; const char* flops; double ratio; std::int64_t iterations; };

Workload make(const Printed& p) {
  WorkloadFlags f;
  f.nanochat = p.version;
  f.depth = p.depth;
  f.vocab_size = p.vocab;
  f.device_batch_size = 1;
  f.total_batch_size = p.total;
  if (p.window != nullptr) f.window_pattern = p.window;
  if (p.ratio > 0) f.passthrough = {"--target-param-data-ratio=" + std::to_string(p.ratio)};
  return *make_nanochat_workload(f);
}

std::string printed(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%e", x);
  return text;
}

// Public reports and dev/LEADERBOARD.md: "Number of FLOPs per token", "Calculated number of iterations".
TEST(NanochatRules, FlopsAndIterationsAsPrinted) {
  for (const Printed& p : {Printed{"E1", 20, 65536, 524288, nullptr, "3.491758e+09", 20, 21400}, Printed{"E1", 8, 65536, 524288, nullptr, "4.529848e+08", 0, 3520},
                           Printed{"E1", 10, 65536, 524288, nullptr, "7.038566e+08", 20, 5075}, Printed{"E4g", 24, 32768, 1048576, "SSSL", "4.945112e+09", 10.5, 7308},
                           Printed{"E4g", 24, 32768, 1048576, "SSSL", "4.945112e+09", 3, 2088}, Printed{"E4c", 24, 32768, 524288, "SSSL", "4.945112e+09", 12, 16704},
                           Printed{"E4f", 26, 32768, 524288, "SSSL", nullptr, 8.5, 14889}, Printed{"E4f", 26, 32768, 1048576, "SSSL", nullptr, 8.25, 7226},
                           Printed{"E6", 24, 32768, 1048576, "SSSL", "4.775225e+09", 8, 5568}}) {
    const Workload w = make(p);
    if (p.flops != nullptr) EXPECT_EQ(printed(flops_per_token(w)), p.flops) << p.version << " d" << p.depth;
    const auto horizon = horizon_of(w);
    ASSERT_TRUE(horizon) << horizon.error().message;
    EXPECT_EQ(horizon->iterations, p.iterations) << p.version << " d" << p.depth;
    EXPECT_EQ(horizon->tokens, static_cast<double>(p.iterations * p.total));
  }
}

TEST(NanochatRules, HorizonFlagsInNanochatsOrder) {
  Workload w = make({"E7", 12, 32768, 524288, nullptr, nullptr, 0, 0});
  const auto rule = [&](std::vector<std::string> flags) {
    w.passthrough = std::move(flags);
    const auto h = horizon_of(w);
    return h ? h->rule + " " + std::to_string(h->iterations) : h.error().code;
  };
  EXPECT_EQ(rule({"--num-iterations=50", "--target-flops=1e18"}), "--num-iterations 50");
  EXPECT_EQ(rule({"--num-iterations=-1", "--target-flops=1e18"}), "--target-flops " + std::to_string(std::llround(1e18 / (flops_per_token(w) * 524288))));
  EXPECT_EQ(rule({"--target-param-data-ratio=8.25", "--target-param-data-ratio=4"}).substr(0, 7), "ratio 4");
  EXPECT_EQ(rule({}).substr(0, 8), "ratio 12");
  EXPECT_EQ(rule({"--num-iterations=many"}), "bad_number");
  EXPECT_EQ(rule({"--target-param-data-ratio=-1"}), "bad_value");
  EXPECT_EQ(rule({"--num-iterations=1e300"}), "bad_value");
}

TEST(NanochatRules, PeakThatMfuIsMeasuredAgainst) {
  const auto newest = nanochat_versions().back();
  const auto first = nanochat_versions().front();
  EXPECT_EQ(logged_peak_flops("NVIDIA GeForce RTX 4090", first), 989e12);  // the first releases took every card for an H100
  EXPECT_EQ(logged_peak_flops("NVIDIA GeForce RTX 4090", newest), 165.2e12);
  EXPECT_EQ(logged_peak_flops("NVIDIA H100 80GB HBM3", newest), 989e12);
  EXPECT_EQ(logged_peak_flops("NVIDIA H100 NVL", newest), 835e12);
  EXPECT_EQ(logged_peak_flops("NVIDIA H100 PCIe", newest), 756e12);
  EXPECT_EQ(logged_peak_flops("NVIDIA L40S", newest), 362e12);
  EXPECT_EQ(logged_peak_flops("NVIDIA L4", newest), 121e12);
  EXPECT_EQ(logged_peak_flops("NVIDIA GB200", newest), 2.5e15);
  EXPECT_EQ(logged_peak_flops("NVIDIA GeForce RTX 4070", newest), std::nullopt);
}

}  // namespace
}  // namespace dryfit
