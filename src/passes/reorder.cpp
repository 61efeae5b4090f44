// See reorder.hpp.
#include "passes/reorder.hpp"

#include <algorithm>
#include <numeric>
#include <queue>
#include <tuple>
#include <utility>

namespace dryfit {

namespace {

std::size_t at_place(std::int32_t i) { return static_cast<std::size_t>(i); }

using Order = std::vector<std::int32_t>;

class Reorderer {
 public:
  explicit Reorderer(const Schedule& s) : s_(s), waits_for_(s.nodes.size()), followers_(s.nodes.size()), read_(s.nodes.size()), size_(s.nodes.size(), 0) {
    for (std::size_t b = 0; b < s.buffers.size(); ++b) {
      for (std::int32_t reader : s.buffers[b].readers) {
        const std::int32_t maker = s.buffers[b].node;
        if (maker == reader) continue;
        read_[at_place(reader)].push_back(static_cast<std::int32_t>(b));
        if (maker < 0) continue;
        waits_for_[at_place(reader)].push_back(maker);
        followers_[at_place(maker)].push_back(reader);
      }
    }
    for (std::size_t n = 0; n < s.nodes.size(); ++n) {
      for (std::vector<std::int32_t>* list : {&waits_for_[n], &followers_[n]}) {
        std::ranges::sort(*list);
        list->erase(std::ranges::unique(*list).begin(), list->end());
      }
      for (std::int32_t b : s.nodes[n].makes) size_[n] += s.buffers[at_place(b)].made;
    }
  }

  // Greedy: the node that raises the peak least; where none does, the one after which least is left. topological_sort_lpmf.
  Order least_peak_first() const {
    Order missing = counts(), uses;
    std::vector<std::int64_t> frees(s_.nodes.size(), 0);
    std::int64_t live = 0, returned = 0;
    for (const Schedule::Buffer& b : s_.buffers) {
      uses.push_back(static_cast<std::int32_t>(b.readers.size()) + (b.output ? 1 : 0));
      if (b.node < 0) live += b.freed;
      if (b.output) returned += b.freed;
    }
    for (std::size_t n = 0; n < s_.nodes.size(); ++n) {
      for (std::int32_t b : read_[n]) frees[n] += uses[at_place(b)] == 1 ? s_.buffers[at_place(b)].freed : 0;
      for (std::int32_t b : s_.nodes[n].makes) frees[n] += uses[at_place(b)] == 0 ? s_.buffers[at_place(b)].freed : 0;
    }
    std::int64_t peak = std::max(live, returned);
    Order ready, order;
    for (std::size_t n = 0; n < missing.size(); ++n) {
      if (missing[n] == 0) ready.push_back(static_cast<std::int32_t>(n));
    }
    while (!ready.empty()) {
      const auto chosen = std::ranges::min_element(ready, {}, [&](std::int32_t n) {
        return std::tuple(std::max(live + size_[at_place(n)], peak), size_[at_place(n)] - frees[at_place(n)], n);
      });
      const std::int32_t n = *chosen;
      *chosen = ready.back();
      ready.pop_back();
      order.push_back(n);
      live += size_[at_place(n)];
      peak = std::max(peak, live);
      live -= frees[at_place(n)];
      for (std::int32_t next : followers_[at_place(n)]) {
        if (--missing[at_place(next)] == 0) ready.push_back(next);
      }
      for (std::int32_t b : read_[at_place(n)]) {
        if (--uses[at_place(b)] != 1) continue;
        for (std::int32_t reader : s_.buffers[at_place(b)].readers) frees[at_place(reader)] += s_.buffers[at_place(b)].freed;
      }
    }
    return order;
  }

  // The node whose predecessors ran earliest. topological_sort_bfs.
  Order first_in_first_out() const {
    using Waiting = std::pair<Order, std::int32_t>;  // when its predecessors ran, in order; the node
    std::priority_queue<Waiting, std::vector<Waiting>, std::greater<>> ready;
    Order missing = counts(), ran(s_.nodes.size(), -1), order;
    const auto push = [&](std::int32_t n) {
      Order when;
      for (std::int32_t before : waits_for_[at_place(n)]) when.push_back(ran[at_place(before)]);
      std::ranges::sort(when);
      ready.emplace(std::move(when), n);
    };
    for (std::size_t n = 0; n < missing.size(); ++n) {
      if (missing[n] == 0) push(static_cast<std::int32_t>(n));
    }
    while (!ready.empty()) {
      const std::int32_t n = ready.top().second;
      ready.pop();
      ran[at_place(n)] = static_cast<std::int32_t>(order.size());
      order.push_back(n);
      for (std::int32_t next : followers_[at_place(n)]) {
        if (--missing[at_place(next)] == 0) push(next);
      }
    }
    return order;
  }

  // Depth first, from the nodes that read and make least. topological_sort_dfs.
  Order smallest_first() const {
    std::vector<std::int64_t> moved(size_);
    for (std::size_t n = 0; n < moved.size(); ++n) {
      for (std::int32_t b : read_[n]) moved[n] += s_.buffers[at_place(b)].freed;
    }
    const auto rank = [&](std::int32_t n) { return std::pair(moved[at_place(n)], n); };
    Order starts(s_.nodes.size()), order, stack;
    std::iota(starts.begin(), starts.end(), 0);
    std::ranges::sort(starts, {}, rank);
    std::vector<std::uint8_t> state(s_.nodes.size(), 0);  // 1: its needs are on the stack; 2: placed
    for (std::int32_t start : starts) {
      stack.push_back(start);
      while (!stack.empty()) {
        const std::int32_t n = stack.back();
        if (state[at_place(n)] != 0) {
          stack.pop_back();
          if (std::exchange(state[at_place(n)], std::uint8_t{2}) == 1) order.push_back(n);
          continue;
        }
        state[at_place(n)] = 1;
        Order needed;
        for (std::int32_t b : s_.nodes[at_place(n)].needs) {
          const std::int32_t maker = s_.buffers[at_place(b)].node;
          if (maker >= 0 && maker != n && state[at_place(maker)] == 0) needed.push_back(maker);
        }
        std::ranges::sort(needed, std::greater(), rank);  // the last put on the stack is visited first
        stack.insert(stack.end(), needed.begin(), needed.end());
      }
    }
    return order;
  }

 private:
  Order counts() const {
    Order missing;
    for (const std::vector<std::int32_t>& before : waits_for_) missing.push_back(static_cast<std::int32_t>(before.size()));
    return missing;
  }

  const Schedule& s_;
  std::vector<Order> waits_for_, followers_, read_;  // by node: nodes, nodes, buffers
  std::vector<std::int64_t> size_;                   // what a node makes
};

}  // namespace

std::vector<std::int64_t> memory_at_steps(const Schedule& schedule, const std::vector<std::int32_t>& order) {
  std::vector<std::int32_t> step(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) step[at_place(order[i])] = static_cast<std::int32_t>(i);
  std::vector<std::int64_t> memory(order.size() + 1, 0);
  for (const Schedule::Buffer& b : schedule.buffers) {
    const std::int32_t born = b.node < 0 ? 0 : step[at_place(b.node)];
    std::int32_t last = -1;
    for (std::int32_t reader : b.readers) last = std::max(last, step[at_place(reader)]);
    if (last < 0) last = born;
    memory[at_place(born)] += b.made;
    memory[b.output ? 0 : at_place(last) + 1] -= b.freed;
  }
  std::partial_sum(memory.begin(), memory.end(), memory.begin());
  return memory;
}

std::int64_t peak_of(const std::vector<std::int64_t>& memory) { return std::max<std::int64_t>(0, std::ranges::max(memory)); }

OrderedKernels least_peak_order(const Schedule& schedule) {
  const Reorderer all(schedule);
  OrderedKernels best;
  best.order.resize(schedule.nodes.size());
  std::iota(best.order.begin(), best.order.end(), 0);
  best.memory = memory_at_steps(schedule, best.order);
  for (const auto way : {&Reorderer::least_peak_first, &Reorderer::first_in_first_out, &Reorderer::smallest_first}) {
    Order other = (all.*way)();
    std::vector<std::int64_t> memory = memory_at_steps(schedule, other);
    if (peak_of(memory) < peak_of(best.memory)) best = {std::move(other), std::move(memory)};
  }
  return best;
}

}  // namespace dryfit
