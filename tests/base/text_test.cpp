// Numbers, sizes, suggestions; saturating bytes.
#include "base/text.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>

namespace dryfit {
namespace {

TEST(ParseInt, readsWholeNumbersOnly) {
  EXPECT_EQ(parse_int("-42", "--x").value(), -42);
  EXPECT_EQ(parse_int("524_288", "--x").value(), 524288);
  for (const char* bad : {"", "-", "1.5", "1e3", "nan", "0x10", " 1", "1 ", "_1", "1_", "99999999999999999999"}) {
    const auto r = parse_int(bad, "--x");
    ASSERT_FALSE(r) << bad;
    EXPECT_EQ(r.error().where, "--x");
    EXPECT_FALSE(r.error().hint.empty());
  }
}

TEST(ParseSize, knowsUnits) {
  EXPECT_EQ(parse_size("24GiB", "").value(), gib(24));
  EXPECT_EQ(parse_size("24GB", "").value(), Bytes(24'000'000'000));
  EXPECT_EQ(parse_size("24g", "").value(), gib(24));
  EXPECT_EQ(parse_size("1.5 MiB", "").value(), Bytes(1572864));
  for (const char* bad : {"", "GiB", "-1GiB", "1e30", "nan", "24XB", "99999999TiB"}) EXPECT_FALSE(parse_size(bad, "")) << bad;
}

TEST(DidYouMean, isCloseOrSilent) {
  const std::vector<std::string_view> names = {"plan", "check", "explain"};
  EXPECT_EQ(closest("chekc", names), "check");
  EXPECT_EQ(closest("zzzzz", names), "");
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
}

TEST(BytesSums, saturateInsteadOfWrapping) {
  const Bytes most(Bytes::kMax);
  EXPECT_EQ(most + Bytes(1), most);
  EXPECT_EQ(gib(1) * Bytes::kMax, most);
  EXPECT_EQ(Bytes(-5) + Bytes(3), Bytes(-2));
}

TEST(Text, roundTripsProperty) {
  EXPECT_TRUE(rc::check("parse_int reads what to_string prints", [](std::int64_t n) { RC_ASSERT(parse_int(std::to_string(n), "").value() == n); }));
  EXPECT_TRUE(rc::check("distance is symmetric", [](const std::string& a, const std::string& b) { RC_ASSERT(edit_distance(a, b) == edit_distance(b, a)); }));
  EXPECT_TRUE(rc::check("any text is a value or an error with a hint", [](const std::string& t) {
    const auto r = parse_size(t, "x");
    RC_ASSERT(r.has_value() || !r.error().hint.empty());
  }));
}

}  // namespace
}  // namespace dryfit
