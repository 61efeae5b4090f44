// What a Program leaves alive, and that nothing of it is born or dies twice. For tests.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "passes/program.hpp"

namespace dryfit {

// By tensor, after the last event.
inline std::vector<bool> alive_at_end(const Program& p) {
  std::vector<bool> alive(p.tensors.size(), false);
  for (const Event& e : p.events) {
    const auto i = static_cast<std::size_t>(e.tensor);
    EXPECT_EQ(alive[i], e.kind == Event::Kind::free) << p.tensors[i].name();
    alive[i] = e.kind == Event::Kind::alloc;
  }
  return alive;
}

}  // namespace dryfit
