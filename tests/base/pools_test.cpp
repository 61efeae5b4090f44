// Sequences kept once, and the array that grows in pieces.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "base/chunked.hpp"
#include "base/span_pool.hpp"

namespace dryfit {
namespace {

TEST(SpanPool, theEmptySequenceIsNumberZero) {
  SpanPool<char> pool;
  EXPECT_EQ(pool.intern({}), 0u);
  EXPECT_TRUE(pool[0].empty());
  EXPECT_EQ(pool.size(), 1u);
}

RC_GTEST_PROP(SpanPool, equalSequencesHaveOneNumber, (const std::vector<std::vector<std::uint32_t>>& sequences)) {
  SpanPool<std::uint32_t> pool;
  std::map<std::vector<std::uint32_t>, std::uint32_t> numbers{{{}, 0}};
  for (const auto& s : sequences) {
    const std::uint32_t number = pool.intern(s);
    const auto [it, fresh] = numbers.try_emplace(s, number);
    RC_ASSERT(it->second == number);
    RC_ASSERT(pool.size() == numbers.size());
  }
  for (const auto& [s, number] : numbers) RC_ASSERT(std::vector<std::uint32_t>(pool[number].begin(), pool[number].end()) == s);
}

TEST(SpanPool, growsPastItsTableAndItsChunks) {
  SpanPool<char> pool;
  for (int i = 0; i < 50000; ++i) pool.intern("text " + std::to_string(i));
  const std::string longer(1 << 20, 'x');
  const std::uint32_t number = pool.intern(longer);
  EXPECT_EQ(pool.intern(std::string("text 777")), pool.intern(std::string("text 777")));
  EXPECT_EQ(pool.size(), 50002u);
  EXPECT_EQ(pool.intern(longer), number);
  EXPECT_EQ(pool[number].size(), longer.size());
}

TEST(Chunked, keepsValuesAcrossPieces) {
  Chunked<std::uint64_t> array;
  for (std::uint64_t i = 0; i < 400000; ++i) array.push_back(i * i);
  ASSERT_EQ(array.size(), 400000u);
  for (std::uint64_t i = 0; i < 400000; i += 997) EXPECT_EQ(array[i], i * i);
  array.resize(500000);
  EXPECT_EQ(array[499999], 0u);
  EXPECT_EQ(array[399999], 399999ull * 399999ull);
  array.resize(10);
  array.push_back(5);
  EXPECT_EQ(array.size(), 11u);
  EXPECT_EQ(array[10], 5u);
}

}  // namespace
}  // namespace dryfit
