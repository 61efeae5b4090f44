// Numbers, sizes, suggestions; saturating bytes.
#include "base/text.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <bit>
#include <charconv>
#include <clocale>
#include <cstdint>

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

TEST(ParseCount, readsCountsAsPeopleWriteThem) {
  for (const auto& [text, count] : std::initializer_list<std::pair<const char*, std::int64_t>>{{"524_288", 524288}, {"1e9", 1000000000}, {"1.5B", 1500000000}, {"500m", 500000000}, {"15T", 15000000000000}, {"10k", 10000}, {"0.1k", 100}, {"-3", -3}}) {
    EXPECT_EQ(parse_count(text, "--x").value(), count) << text;
  }
  for (const char* bad : {"", "B", "1.5", "1e-3", "0.0001k", "1e99", "99999T", "1 B", "1BB", "nan", "infB", "0x1B", "1Q"}) {
    const auto r = parse_count(bad, "--x");
    ASSERT_FALSE(r) << bad << " is " << *r;
    EXPECT_EQ(r.error().where, "--x");
    EXPECT_FALSE(r.error().hint.empty());
  }
}

TEST(ReadReal, readsWhatFromCharsReads) {
  const auto same = [](const std::string& text) {
    double ours = 7, theirs = 7;
    const std::errc error = read_real(text, ours);
    const auto [end, expected] = std::from_chars(text.data(), text.data() + text.size(), theirs);
    const bool whole = end == text.data() + text.size();
    EXPECT_EQ(error, whole ? expected : std::errc::invalid_argument) << text;
    if (whole && expected == std::errc()) {
      EXPECT_EQ(std::bit_cast<std::uint64_t>(ours), std::bit_cast<std::uint64_t>(theirs)) << text;
    }
  };
  for (const char* text : {"", "-", "+1", "-+1", "--1", " 1", "1 ", "0", "-0", "1.", ".5", ".", "1e5", "1E+5", "1e", "1e+", "1.5.", "0x10", "1,5", "1_0", "inf", "-inf", "INFINITY", "nan", "in",
                           "5e-324", "2.2250738585072011e-308", "1e-310", "1e-400", "1e308", "1.8e308", "1e999", "0e999", "0.1", "123456789012345678901234567890"}) same(text);
  EXPECT_TRUE(rc::check("any double, as printed", [&](std::uint64_t bits) {
    char text[32];
    same(std::string(text, std::to_chars(text, text + sizeof text, std::bit_cast<double>(bits)).ptr));
  }));
  // a library's host may have chosen a locale with decimal commas, where the machine has one
  if (std::setlocale(LC_NUMERIC, "de_DE.UTF-8") != nullptr) same("1.5");
  std::setlocale(LC_NUMERIC, "C");
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

TEST(Text, comparesVersions) {
  for (const char* new_enough : {"2.10", "2.10.0", "2.11.0+cu130", "2.12.0a0", "3.0", "3"}) EXPECT_TRUE(version_from(new_enough, 2, 10)) << new_enough;
  for (const char* older : {"2.9.1", "2.8.0", "1.13", "2", "", "later", "2.x"}) EXPECT_FALSE(version_from(older, 2, 10)) << older;
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
