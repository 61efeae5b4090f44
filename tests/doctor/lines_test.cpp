// Lines come out the same however the bytes are cut, in every encoding.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "doctor/lines.hpp"
#include "doctor/word_filter.hpp"
#include "base/text.hpp"

namespace dryfit {
namespace {

struct Got { std::string text; std::int64_t number, column; bool operator==(const Got&) const = default; };

std::vector<Got> read(const std::string& bytes, const std::vector<std::size_t>& cuts) {
  std::vector<Got> out;
  LineReader reader([&](const Line& l) { out.push_back({std::string(l.text), l.number, l.column}); });
  std::size_t at = 0;
  for (std::size_t n : cuts) {
    n = std::min(n, bytes.size() - at);
    reader.feed(std::string_view(bytes).substr(at, n));
    at += n;
  }
  reader.feed(std::string_view(bytes).substr(at));
  reader.finish();
  return out;
}

std::string utf16(std::string_view ascii, bool little, bool mark) {
  std::string out = mark ? (little ? "\xFF\xFE" : "\xFE\xFF") : "";
  for (char c : ascii) out += little ? std::string{c, '\0'} : std::string{'\0', c};
  return out;
}

TEST(Lines, EndsAreLfCrlfAndLoneCr) {
  EXPECT_EQ(read("a\nb\r\nc\rd\n\ne", {}), (std::vector<Got>{{"a", 1, 0}, {"b", 2, 0}, {"c", 3, 0}, {"d", 3, 2}, {"e", 5, 0}}));
  EXPECT_EQ(read("  1/10\r  2/10\r  3/10\r\n", {}), (std::vector<Got>{{"  1/10", 1, 0}, {"  2/10", 1, 7}, {"  3/10", 1, 14}}));
  EXPECT_TRUE(read("", {}).empty());
  EXPECT_TRUE(read("\n\r\n\r", {}).empty());
}

TEST(Lines, CountsThem) {
  for (const auto& [text, lines] : {std::pair{"", 0}, std::pair{"a", 1}, std::pair{"a\n", 1}, std::pair{"a\nb", 2}, std::pair{"\n\n", 2}}) {
    LineReader reader([](const Line&) {});
    reader.feed(text);
    reader.finish();
    EXPECT_EQ(reader.lines(), lines) << text;
  }
}

TEST(Lines, Utf16WithAndWithoutMark) {
  const std::string text = "first line of some length\r\nsecond one\n";
  for (bool little : {true, false}) {
    for (bool mark : {true, false}) EXPECT_EQ(read(utf16(text, little, mark), {3}), (std::vector<Got>{{"first line of some length", 1, 0}, {"second one", 2, 0}}));
  }
  EXPECT_EQ(read(std::string("\xFF\xFE\x3D\xD8\x00\xDE\x41\x00", 8), {1, 2, 2}), (std::vector<Got>{{"\xF0\x9F\x98\x80" "A", 1, 0}}));  // a surrogate pair
  EXPECT_EQ(read(std::string("\xFF\xFE\x00\xDE\x41", 5), {})[0].text, "\xEF\xBF\xBD\xEF\xBF\xBD");                                 // half of one, half a unit
  EXPECT_EQ(read("\xEF\xBB\xBFmark", {}), (std::vector<Got>{{"mark", 1, 0}}));
}

TEST(Lines, VeryLongLinesComeInOverlappingPieces) {
  std::string line(200000, 'x');
  line.replace(65536 - 10, 20, "needle in the middle");
  const auto got = read(line + "\nshort\n", {});
  ASSERT_GT(got.size(), 3u);
  int seen = 0;
  for (const Got& g : got) {
    EXPECT_LE(g.text.size(), LineReader::kLongest);
    if (g.number == 1) {
      EXPECT_EQ(g.text, line.substr(static_cast<std::size_t>(g.column), g.text.size()));
      seen += g.text.find("needle in the middle") != std::string::npos;
    }
  }
  EXPECT_GE(seen, 1);
  EXPECT_EQ(got.back(), (Got{"short", 2, 0}));
}

TEST(Lines, SameLinesHoweverCut) {
  EXPECT_TRUE(rc::check([] {
    const auto parts = *rc::gen::container<std::vector<std::string>>(rc::gen::element<std::string>("\n", "\r", "\r\n", "step 1", "x", std::string(70000, 'y'), "\xC3\xA9", std::string("\0", 1)));
    std::string text;
    for (const std::string& p : parts) text += p;
    if (*rc::gen::arbitrary<bool>()) text = utf16(text, *rc::gen::arbitrary<bool>(), true);
    auto cuts = *rc::gen::container<std::vector<std::size_t>>(rc::gen::inRange<std::size_t>(0, 40000));
    RC_ASSERT(read(text, cuts) == read(text, {}));
    std::vector<std::size_t> bytes(std::min<std::size_t>(text.size(), 3000), 1);
    RC_ASSERT(read(text, bytes) == read(text, {}));
  }));
}

TEST(Lines, HoldsLittle) {
  std::size_t longest = 0;
  LineReader reader([&](const Line& l) { longest = std::max(longest, l.text.size()); });
  const std::string piece(1 << 20, 'z');
  for (int i = 0; i < 64; ++i) reader.feed(piece);
  reader.finish();
  EXPECT_EQ(longest, LineReader::kLongest);
}

TEST(WordFilter, FindsWhatASearchFinds) {
  EXPECT_TRUE(rc::check([] {
    const auto words = *rc::gen::nonEmpty(rc::gen::container<std::vector<std::string>>(rc::gen::nonEmpty(rc::gen::container<std::string>(rc::gen::element('a', 'b', 'C', '\0')))));
    const auto text = *rc::gen::container<std::string>(rc::gen::element('a', 'b', 'c', 'A', 'B', '\0', 'x')) + std::string(*rc::gen::inRange<std::size_t>(0, 60), 'x') + words[0] + std::string(*rc::gen::inRange<std::size_t>(0, 60), 'x');
    std::vector<WordFilter::Word> table;
    std::uint32_t expected = 0;
    for (std::size_t i = 0; i < words.size(); ++i) {
      table.push_back({words[i], 1u << (i % 32)});
      if (to_lower(text).find(to_lower(words[i])) != std::string::npos) expected |= 1u << (i % 32);
    }
    RC_ASSERT(WordFilter(table).match(text) == expected);
  }));
}

}  // namespace
}  // namespace dryfit
