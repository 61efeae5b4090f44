// Stacks to places: the line of the user's program that asked for memory, and the part of the step it stood in. Derived from the frames
// that were recorded, so every answer is modelled; a stack without frames has no place.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "doctor/log_text.hpp"
#include "doctor/snapshot.hpp"

namespace dryfit {

struct StackPlace {
  std::uint32_t site = 0;        // the frame that names it: innermost Python outside torch, else innermost Python, else innermost; 0: none
  bool named = false;            // whether there is a frame at all
  bool compiled = false;         // asked for by code that torch.compile wrote
  bool accumulates = false;      // autograd's AccumulateGrad: a gradient of a parameter
  bool workspace = false;        // a cuBLAS or cuDNN workspace, by its C++ frames
  bool moves_model = false;      // Module.to, cuda, _apply: parameters and buffers
  Phase phase = Phase::unknown;
  Part part = Part::unknown;
};

class StackPlaces {
 public:
  explicit StackPlaces(const Snapshot& snapshot);
  const StackPlace& of(std::uint32_t stack) const { return places_[stack]; }

 private:
  std::vector<StackPlace> places_;  // by stack
};

// "train.py:120 train_step", control characters dropped, the path's last parts only.
std::string site_text(const Snapshot& snapshot, const StackPlace& place);
// The stack as a traceback has it, outermost first, Python frames only, at most `most` of the innermost.
std::vector<Frame> python_frames(const Snapshot& snapshot, std::uint32_t stack, std::size_t most);

}  // namespace dryfit
