// Prices: the embedded list, a user's own, and lists that are wrong.
#include "speed/prices.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace dryfit {
namespace {

std::string code(std::string_view csv) {
  const auto p = read_prices(csv, "mine.csv");
  return p ? "ok" : p.error().code + " " + p.error().where;
}

TEST(Prices, EveryEmbeddedRowNamesACardAndASource) {
  ASSERT_GT(known_prices().size(), 20U);
  for (const Price& p : known_prices()) {
    EXPECT_NE(std::ranges::find(gpu_catalogue(), p.gpu, &GpuKind::name), gpu_catalogue().end()) << p.gpu;
    EXPECT_GT(p.usd_per_gpu_hour, 0) << p.gpu;
    EXPECT_FALSE(p.source.empty()) << p.gpu;
    EXPECT_TRUE(p.kind == "on-demand" || p.kind == "spot" || p.kind == "marketplace") << p.kind;
  }
}

TEST(Prices, ReadsAUsersOwn) {
  const auto p = read_prices("# ours\r\nusd_per_gpu_hour,gpu,gpus\r\n0.40, rtx 4090 ,8\n\n2,abacus,\n", "mine.csv");
  ASSERT_TRUE(p) << p.error().message;
  ASSERT_EQ(p->size(), 2U);
  EXPECT_EQ((*p)[0].gpu, "NVIDIA GeForce RTX 4090");
  EXPECT_EQ((*p)[0].gpus, 8);
  EXPECT_DOUBLE_EQ((*p)[0].usd_per_gpu_hour, 0.4);
  EXPECT_EQ((*p)[0].kind, "on-demand");
  EXPECT_EQ((*p)[1].gpu, "abacus");
}

TEST(Prices, SaysWhatIsWrongAndWhere) {
  EXPECT_EQ(code(""), "bad_prices mine.csv:1");
  EXPECT_EQ(code("gpu,price\nh100,2\n"), "bad_prices mine.csv:1");
  EXPECT_EQ(code("gpu,usd_per_gpu_hour\nh100,cheap\n"), "bad_prices mine.csv:2");
  EXPECT_EQ(code("gpu,usd_per_gpu_hour\nh100,-1\n"), "bad_prices mine.csv:2");
  EXPECT_EQ(code("gpu,usd_per_gpu_hour\nh100,nan\n"), "bad_prices mine.csv:2");
  EXPECT_EQ(code("gpu,usd_per_gpu_hour\n,2\n"), "bad_prices mine.csv:2");
  EXPECT_EQ(code("gpu,usd_per_gpu_hour,gpus\nh100,2,1\nh100,2,0\n"), "bad_prices mine.csv:3");
  EXPECT_EQ(code("gpu,usd_per_gpu_hour\nh100\x1b[31m,2\n"), "bad_prices mine.csv:2");
  EXPECT_EQ(code("gpu,usd_per_gpu_hour\n"), "ok");
}

TEST(Prices, TakesTheCheapestThatCanBeRented) {
  const auto prices = *read_prices("gpu,gpus,usd_per_gpu_hour,kind\nh100 80gb hbm3,8,2.0,on-demand\nh100 80gb hbm3,1,2.5,on-demand\nh100 80gb hbm3,1,1.0,spot\n", "mine.csv");
  const GpuKind h100 = *find_gpu("NVIDIA H100 80GB HBM3");
  EXPECT_DOUBLE_EQ(price_of(prices, h100, 8)->usd_per_gpu_hour, 2.0);
  EXPECT_DOUBLE_EQ(price_of(prices, h100, 1)->usd_per_gpu_hour, 2.5);  // eight at once cannot be rented one by one
  EXPECT_FALSE(price_of(prices, *find_gpu("rtx 4090"), 1).has_value());
}

}  // namespace
}  // namespace dryfit
