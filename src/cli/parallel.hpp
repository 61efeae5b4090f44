// A loop on several threads, for work that is a function of its index alone: what the edge hands to plan() and table().
#pragma once

#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

namespace dryfit {

// Calls f(i) for i = 0 .. count-1 on up to `threads` threads, started in order; each call stands alone. Once a call returns false no later
// index starts, but some may have: the caller looks at results in order and stops there too.
template <class F>
void for_each_until(std::size_t count, unsigned threads, F f) {
  std::atomic<std::size_t> next{0}, end{count};
  const auto work = [&] {
    for (std::size_t i = next++; i < end; i = next++) {
      if (f(i)) continue;
      std::size_t now = end;
      while (i + 1 < now && !end.compare_exchange_weak(now, i + 1)) {}
    }
  };
  struct Joined : std::vector<std::thread> {  // std::jthread, which libc++ 19 holds back as an experiment
    ~Joined() {
      for (std::thread& t : *this) t.join();
    }
  } helpers;
  for (unsigned t = 1; t < threads && t < count; ++t) helpers.emplace_back(work);
  work();
}

}  // namespace dryfit
