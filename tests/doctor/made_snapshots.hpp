// Snapshots of small made-up runs, with everything a real one has: a training run whose log keeps tensors, a failure in a pool cut to
// pieces, an expandable pool that was filled before the trace began.
#pragma once

#include "snapshot_maker.hpp"

namespace dryfit::test {

inline std::vector<MadeFrame> called(std::vector<MadeFrame> inner) {
  inner.push_back({"/home/u/run/train.py", 88, "main"});
  inner.push_back({"/home/u/run/train.py", 120, "<module>"});
  return inner;
}

// layers x (weights, then each step: activations forward, gradients backward, the optimizer's state in the first step). keeps: bytes that
// train.py:61 makes in every step and never lets go; 0: none.
inline SnapshotMaker training(int steps, int layers, std::int64_t keeps, AllocatorConfig config = {}, bool marks = true) {
  SnapshotMaker m(config);
  const std::string torch = "/venv/lib/python3.12/site-packages/torch/";
  const int load = m.stack(called({{torch + "nn/modules/module.py", 1355, "convert"}, {torch + "nn/modules/module.py", 915, "_apply"}, {torch + "nn/modules/module.py", 1369, "to"}}));
  const int forward = m.stack(called({{torch + "nn/functional.py", 20, "linear"}, {"/home/u/run/model.py", 31, "forward"}, {torch + "nn/modules/module.py", 1779, "_wrapped_call_impl"}}));
  const int loss = m.stack(called({{torch + "nn/functional.py", 3000, "cross_entropy"}, {"/home/u/run/model.py", 57, "forward"}}));
  const int keep = m.stack(called({{"/home/u/run/train.py", 61, "log_step"}}));
  const int state = m.stack(called({{torch + "optim/adamw.py", 110, "_init_group"}, {torch + "optim/optimizer.py", 490, "wrapper"}}));
  std::vector<BlockId> gradients;
  for (int l = 0; l < layers; ++l) m.alloc(16 << 20, load), m.alloc(3000, load);
  for (int s = 0; s < steps; ++s) {
    std::vector<BlockId> activations;
    for (int l = 0; l < layers; ++l) {
      activations.push_back(m.alloc(24 << 20, forward));
      const BlockId temporary = m.alloc((5 << 20) + 4096, forward);
      activations.push_back(m.alloc(700 * 1024, forward));
      m.free(temporary);
    }
    activations.push_back(m.alloc(48 << 20, loss));
    if (keeps > 0) m.alloc(keeps, keep);
    for (int l = layers; l-- > 0;) {  // autograd's own thread: no Python frames
      const BlockId gradient = m.alloc(24 << 20, 0);
      gradients.push_back(m.alloc(16 << 20, 0));
      m.free(gradient);
    }
    for (auto it = activations.rbegin(); it != activations.rend(); ++it) m.free(*it);
    if (marks) m.mark("START", "Optimizer.step#AdamW.step");
    if (s == 0) {
      for (int l = 0; l < layers; ++l) m.alloc(16 << 20, state), m.alloc(16 << 20, state);
    }
    const BlockId scratch = m.alloc(16 << 20, state);
    m.free(scratch);
    if (marks) m.mark("END", "Optimizer.step#AdamW.step");
    for (const BlockId g : gradients) m.free(g);
    gradients.clear();
  }
  return m;
}

// 40 MiB pieces with every second one freed, then 60 MiB asked for on a card that has 10 MiB left.
inline SnapshotMaker fragmented() {
  const int pieces = 12;
  SnapshotMaker m({}, mib(2 * pieces * 20 + 10));
  const int batch = m.stack(called({{"/home/u/run/data.py", 14, "next_batch"}}));
  const int big = m.stack(called({{"/venv/lib/python3.12/site-packages/torch/nn/functional.py", 3000, "cross_entropy"}, {"/home/u/run/model.py", 57, "forward"}}));
  std::vector<BlockId> blocks;
  for (int i = 0; i < pieces; ++i) {
    const BlockId whole = m.alloc(40 << 20, batch);  // one segment, reused in two halves
    m.free(whole);
    blocks.push_back(m.alloc(20 << 20, batch));
    blocks.push_back(m.alloc(20 << 20, batch));
  }
  for (std::size_t i = 0; i < blocks.size(); i += 2) m.free(blocks[i]);
  m.alloc(60 << 20, big);
  return m;
}

}  // namespace dryfit::test
