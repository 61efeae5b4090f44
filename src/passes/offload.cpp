// Activations on the host: what torchtune's hooks of saved tensors keep on the GPU, how long, and when it comes back. See Tape::offload().
// Source: pytorch/torchtune v0.6.1, torchtune/training/_activation_offloading.py (OffloadActivations with streams, as the recipes make it).
#include <algorithm>
#include <utility>

#include "passes/eager.hpp"

namespace dryfit::eager {

namespace {

constexpr std::int64_t kLeast = 1024;  // min_offload_size, bytes
constexpr std::int64_t kStash = 5;     // max_fwd_stash_size: numbers, of what was saved, in which it may still be on its way
constexpr int kCopies = 1;             // the stream

}  // namespace

// pack_tensor: every tensor that is saved gets a number; a large one stays until five more were saved and the next large one comes.
Tape::Saved Tape::packed(Saved s) {
  ++packed_;
  if (s.dims.numel() * size_of(s.dtype) < kLeast) return s;
  while (!leaving_.empty() && leaving_.front().packed <= packed_ - kStash) {
    drop_storage(leaving_.front().storage);
    leaving_.pop_front();
  }
  s.packed = packed_;
  leaving_.push_back({packed_, std::exchange(s.storage, -1)});
  return s;
}

// unpack_tensor_with_streams: what has not left yet is taken as it is, the rest comes into new memory.
void Tape::unpack(std::int32_t n) {
  for (Saved& s : node(n).saved) {
    if (s.packed == 0) continue;
    if (std::exchange(unpacker_, n) < 0) back_before_ = std::exchange(back_, {});
    const auto here = std::ranges::find(leaving_, s.packed, &Stashed::packed);
    s.packed = 0;
    if (here != leaving_.end()) {
      s.storage = here->storage;
    } else {
      const std::int8_t outer = std::exchange(stream_, static_cast<std::int8_t>(kCopies));
      const Tensor back = empty(node(n).role, eager::contiguous(s.dims), s.dtype);
      stream_ = outer;
      s.storage = value(back).storage;
      keep_storage(s.storage);
      back_.push_back(s.storage);
    }
    keep_storage(s.storage);
  }
}

// The hook after the node for which something was unpacked: what came back for those before it goes, and what was still leaving; its own stays until the next,
// or goes with what else names it.
void Tape::after_unpacking() {
  const std::vector<Saved>& own = node(std::exchange(unpacker_, -1)).saved;
  std::erase_if(back_, [&](std::int32_t s) {
    const bool named = storage_refs_[static_cast<std::size_t>(s)] > 1 + std::ranges::count(own, s, &Saved::storage);
    if (named) drop_storage(s);
    return named;
  });
  for (const Stashed& s : std::exchange(leaving_, {})) drop_storage(s.storage);
  for (const std::int32_t s : std::exchange(back_before_, {})) drop_storage(s);
}

// wait_and_del_remaining_references, when backward() ends.
void Tape::forget_unpacked() {
  for (const std::int32_t s : std::exchange(back_, {})) drop_storage(s);
}

}  // namespace dryfit::eager
