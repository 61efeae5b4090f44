// TOML as tomllib reads it, and texts made to do harm.
#include <gtest/gtest.h>

#include "workload/probe_document.hpp"

namespace dryfit {
namespace {

using Kind = Document::Kind;

std::string error_of(std::string_view text) {
  const auto d = document_from_toml(text, "a.toml");
  return d ? "none" : d.error().code + " " + d.error().where;
}

TEST(Toml, valuesInTheirOrder) {
  const auto d = document_from_toml("# a comment\nb = 2\na.x = 'it''s'\n[t]\nlong = 1_000\nhex = 0xff\nreal = 3e-4\non = true\nwords = [\"model\", 'loss',]\n[t.u]\n\"quoted key\" = \"tab\\t\"\n[[many]]\nn = 1\n[[many]]\nn = 2\n", "a.toml");
  EXPECT_FALSE(d);  // 'it''s' is no TOML
  const auto good = document_from_toml("# a comment\nb = 2\na.x = 'its'\n[t]\nlong = 1_000\nhex = 0xff\nreal = 3e-4\non = true\nwords = [\"model\", 'loss',]\n[t.u]\n\"quoted key\" = \"tab\\t\"\n[[many]]\nn = 1\n[[many]]\nn = 2\n", "a.toml");
  ASSERT_TRUE(good) << good.error().message;
  ASSERT_EQ(good->fields.size(), 4u);
  EXPECT_EQ(good->fields[0].first, "b");
  EXPECT_EQ(good->fields[1].first, "a");
  EXPECT_EQ(good->find("a")->find("x")->text, "its");
  const Document& t = *good->find("t");
  EXPECT_EQ(t.find("long")->whole, 1000);
  EXPECT_EQ(t.find("hex")->whole, 255);
  EXPECT_DOUBLE_EQ(t.find("real")->real, 3e-4);
  EXPECT_TRUE(t.find("on")->flag);
  ASSERT_EQ(t.find("words")->items.size(), 2u);
  EXPECT_EQ(t.find("words")->items[1].text, "loss");
  EXPECT_EQ(t.find("u")->find("quoted key")->text, "tab\t");
  EXPECT_EQ(good->find("many")->items[1].find("n")->whole, 2);
  const auto dates = document_from_toml("when = 1979-05-27T07:32:00Z\n", "a.toml");
  ASSERT_TRUE(dates);
  EXPECT_EQ(dates->find("when")->kind, Kind::text);
}

TEST(Toml, faultsHaveAPlace) {
  EXPECT_EQ(error_of("a = 1\nb = \n"), "bad_toml a.toml:2:5");
  EXPECT_EQ(error_of("a = 1\na = 2\n").substr(0, 17), "bad_toml a.toml:2");
  EXPECT_EQ(error_of("a = yes\n").substr(0, 17), "bad_toml a.toml:1");
  EXPECT_EQ(error_of("[a\n").substr(0, 17), "bad_toml a.toml:1");
  EXPECT_EQ(error_of("a = \"\xff\"\n").substr(0, 17), "bad_toml a.toml:1");
  EXPECT_EQ(error_of("[#"), "bad_toml a.toml:1:2");
  EXPECT_EQ(error_of("\xef\xb7\xaf = 1\n").substr(0, 17), "bad_toml a.toml:1");
  EXPECT_EQ(error_of("a = 99999999999999999999\n").substr(0, 17), "bad_toml a.toml:1");
}

TEST(Toml, harmIsRefused) {
  EXPECT_TRUE(error_of("a = " + std::string(5000, '[')).starts_with("too_large"));
  EXPECT_EQ(error_of(std::string(2 << 20, '#')), "too_large a.toml");
  std::string points = "a";
  for (int i = 0; i < 5000; ++i) points += ".a";
  EXPECT_EQ(error_of(points + " = 1\n"), "too_large a.toml");
  std::string deep = "a";
  for (int i = 0; i < 3000; ++i) deep += ".a";
  EXPECT_TRUE(error_of(deep + " = 1\n").starts_with("too_large a.toml:1"));
  std::string tables;
  for (int i = 0; i < 60; ++i) tables += "{a.a.a.a.a.a.a.a.a.a = ";
  EXPECT_TRUE(error_of("a = " + tables + "1" + std::string(60, '}') + "\n").starts_with("too_large"));
}

}  // namespace
}  // namespace dryfit
