// Maximum flow by Dinic's algorithm on a small directed graph; answers which vertices can still reach the sink.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace dryfit {

class MaxFlow {
 public:
  static constexpr double kInfinite = 1e300;
  explicit MaxFlow(std::int32_t vertices) : head_(static_cast<std::size_t>(vertices), -1) { edges_.reserve(6 * head_.size()); }

  void add(std::int32_t from, std::int32_t to, double capacity) {
    edges_.push_back({to, head_[at(from)], capacity});
    head_[at(from)] = static_cast<std::int32_t>(edges_.size()) - 1;
    edges_.push_back({from, head_[at(to)], 0});
    head_[at(to)] = static_cast<std::int32_t>(edges_.size()) - 1;
  }

  void run(std::int32_t source, std::int32_t sink) {
    while (levels(source, sink)) {
      next_ = head_;
      while (push(source, sink, kInfinite) > 0) {}
    }
  }

  // After run(): vertices from which the sink can be reached along edges with room left.
  std::vector<bool> reaches(std::int32_t sink) const {
    std::vector<bool> seen(head_.size(), false);
    std::vector<std::int32_t> queue{sink};
    seen[at(sink)] = true;
    while (!queue.empty()) {
      const std::int32_t v = queue.back();
      queue.pop_back();
      for (std::int32_t e = head_[at(v)]; e >= 0; e = edges_[at(e)].next) {
        const std::int32_t u = edges_[at(e)].to;
        if (!seen[at(u)] && edges_[at(e ^ 1)].capacity > kLeast) {
          seen[at(u)] = true;
          queue.push_back(u);
        }
      }
    }
    return seen;
  }

 private:
  struct Edge { std::int32_t to, next; double capacity; };
  static constexpr double kLeast = 1e-6;  // capacities are bytes: anything below is rounding
  static std::size_t at(std::int32_t i) { return static_cast<std::size_t>(i); }

  bool levels(std::int32_t source, std::int32_t sink) {
    level_.assign(head_.size(), -1);
    level_[at(source)] = 0;
    std::vector<std::int32_t>& queue = queue_;
    queue.assign(1, source);
    for (std::size_t i = 0; i < queue.size(); ++i) {
      if (level_[at(sink)] >= 0 && level_[at(queue[i])] >= level_[at(sink)] - 1) break;  // what lies farther is on no shortest path
      for (std::int32_t e = head_[at(queue[i])]; e >= 0; e = edges_[at(e)].next) {
        const Edge& edge = edges_[at(e)];
        if (edge.capacity > kLeast && level_[at(edge.to)] < 0) {
          level_[at(edge.to)] = level_[at(queue[i])] + 1;
          queue.push_back(edge.to);
        }
      }
    }
    return level_[at(sink)] >= 0;
  }

  double push(std::int32_t v, std::int32_t sink, double limit) {
    if (v == sink) return limit;
    for (std::int32_t& e = next_[at(v)]; e >= 0; e = edges_[at(e)].next) {
      Edge& edge = edges_[at(e)];
      if (edge.capacity <= kLeast || level_[at(edge.to)] != level_[at(v)] + 1) continue;
      const double sent = push(edge.to, sink, std::min(limit, edge.capacity));
      if (sent > 0) {
        edges_[at(e)].capacity -= sent;
        edges_[at(e ^ 1)].capacity += sent;
        return sent;
      }
    }
    return 0;
  }

  std::vector<Edge> edges_;
  std::vector<std::int32_t> head_, next_, level_, queue_;
};

}  // namespace dryfit
