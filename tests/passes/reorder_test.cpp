// Inductor's choice among orders of kernels: whatever the graph, an order of its own that is never worse by its own count.
#include "passes/reorder.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <numeric>

namespace dryfit {
namespace {

std::int32_t add_node(Schedule& s, std::vector<std::int32_t> reads, std::int64_t bytes, bool output = false) {
  const auto n = static_cast<std::int32_t>(s.nodes.size());
  const auto b = static_cast<std::int32_t>(s.buffers.size());
  std::ranges::sort(reads);
  reads.erase(std::ranges::unique(reads).begin(), reads.end());
  for (std::int32_t r : reads) s.buffers[static_cast<std::size_t>(r)].readers.push_back(n);
  s.nodes.push_back({{b}, reads});
  s.buffers.push_back({bytes, bytes, output, n, {}});
  return b;
}

std::int32_t add_given(Schedule& s, std::int64_t bytes) {
  s.buffers.push_back({bytes, bytes, false, -1, {}});
  return static_cast<std::int32_t>(s.buffers.size()) - 1;
}

std::vector<std::int32_t> as_given(const Schedule& s) {
  std::vector<std::int32_t> order(s.nodes.size());
  std::iota(order.begin(), order.end(), 0);
  return order;
}

// Two branches from one input, each a large value that shrinks to a small one: one after the other takes one large value at a time.
TEST(Reorder, finishesOneBranchBeforeTheNext) {
  Schedule s;
  const std::int32_t in = add_given(s, 10);
  const std::int32_t a = add_node(s, {in}, 100), b = add_node(s, {in}, 100);
  const std::int32_t small_a = add_node(s, {a}, 1), small_b = add_node(s, {b}, 1);
  add_node(s, {small_a, small_b}, 1, true);
  EXPECT_EQ(memory_at_steps(s, as_given(s)), (std::vector<std::int64_t>{109, 209, 200, 101, 2, 0}));  // the output, 1, is taken off from the start
  const std::vector<std::int32_t> order = least_peak_order(s).order;
  EXPECT_EQ(order, (std::vector<std::int32_t>{0, 2, 1, 3, 4}));
  EXPECT_EQ(peak_of(memory_at_steps(s, order)), 110);
}

// What is as good as the rest stays as it is.
TEST(Reorder, keepsTheGivenOrderAmongEquals) {
  Schedule s;
  const std::int32_t in = add_given(s, 8);
  for (int i = 0; i < 4; ++i) add_node(s, {in}, 8, true);
  EXPECT_EQ(least_peak_order(s).order, as_given(s));
}

Schedule any_schedule() {
  Schedule s;
  const auto bytes = [] { return *rc::gen::inRange<std::int64_t>(0, 1000); };
  for (int i = *rc::gen::inRange(1, 4); i > 0; --i) add_given(s, bytes());
  for (int i = *rc::gen::inRange(1, 24); i > 0; --i) {
    const auto most = static_cast<std::int32_t>(s.buffers.size());
    add_node(s, *rc::gen::container<std::vector<std::int32_t>>(static_cast<std::size_t>(*rc::gen::inRange(0, 4)), rc::gen::inRange(0, most)), bytes(), *rc::gen::inRange(0, 5) == 0);
  }
  return s;
}

RC_GTEST_PROP(Reorder, ordersAreWholeLegalAndNoWorse, ()) {
  const Schedule s = any_schedule();
  const std::vector<std::int32_t> order = least_peak_order(s).order;
  std::vector<std::int32_t> step(s.nodes.size(), -1);
  RC_ASSERT(order.size() == s.nodes.size());
  for (std::size_t i = 0; i < order.size(); ++i) step[static_cast<std::size_t>(order[i])] = static_cast<std::int32_t>(i);
  for (const Schedule::Buffer& b : s.buffers) {
    for (std::int32_t reader : b.readers) RC_ASSERT(step[static_cast<std::size_t>(reader)] > (b.node < 0 ? -1 : step[static_cast<std::size_t>(b.node)]));
  }
  RC_ASSERT(least_peak_order(s).memory == memory_at_steps(s, order));
  RC_ASSERT(peak_of(memory_at_steps(s, order)) <= peak_of(memory_at_steps(s, as_given(s))));
}

// The same count, made step by step.
RC_GTEST_PROP(Reorder, memoryIsWhatIsAliveLessWhatIsReturned, ()) {
  const Schedule s = any_schedule();
  const std::vector<std::int32_t> order = as_given(s);
  const std::vector<std::int64_t> memory = memory_at_steps(s, order);
  for (std::size_t i = 0; i < order.size(); ++i) {
    std::int64_t alive = 0;
    for (const Schedule::Buffer& b : s.buffers) {
      const std::int64_t born = std::max(b.node, 0), last = b.readers.empty() ? born : b.readers.back(), now = static_cast<std::int64_t>(i);
      if (b.output) alive -= b.freed;
      if (born <= now && (b.output || last >= now)) alive += b.made;
    }
    RC_ASSERT(memory[i] == alive);
  }
}

}  // namespace
}  // namespace dryfit
