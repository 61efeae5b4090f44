// The loop on several threads does what the plain loop does, and stops where it is told.
#include "cli/parallel.hpp"

#include <gtest/gtest.h>

namespace dryfit {
namespace {

TEST(Parallel, everyIndexOnceUpToTheFirstNo) {
  for (unsigned threads : {1U, 2U, 7U}) {
    for (std::size_t count : {0U, 1U, 5U, 300U}) {
      for (std::size_t first_no : {count, count / 2, count / 3 * 2}) {
        std::vector<std::atomic<int>> calls(count);
        for_each_until(count, threads, [&](std::size_t i) {
          ++calls[i];
          return i < first_no;
        });
        for (std::size_t i = 0; i < count; ++i) {
          EXPECT_LE(calls[i], 1);
          if (i <= first_no) {
            EXPECT_EQ(calls[i], 1) << i << " of " << count << " up to " << first_no << " on " << threads;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace dryfit
