// Runs a program's events: live bytes at every moment, the peak (largest live sum, the earliest when tied), who is alive there,
// and the peak at any other device batch as an upper envelope of lines.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "memory/allocator.hpp"
#include "passes/program.hpp"

namespace dryfit {

// Bytes a tensor occupies in PyTorch's count: whole 512-byte blocks.
std::int64_t block_bytes(std::int64_t bytes);

constexpr std::int32_t kNothing = -1;  // in place of an event: nothing is allocated there

struct PhasePeak {
  std::string phase;
  std::int32_t event = 0;           // the earliest event at the phase's peak, or kNothing
  Bytes allocated;
  Provenance provenance = Provenance::modelled;
};

struct Timeline {
  std::vector<std::int64_t> live;   // after each event
  std::int32_t peak_event = 0;
  Bytes peak;
  std::vector<PhasePeak> phases;    // in the order they are first met
};
Timeline run_timeline(const Program& program);

// Tensors alive right after an event, largest first (indices into program.tensors).
std::vector<std::int32_t> live_tensors(const Program& program, std::int32_t event);

// The peak of allocated memory as a function of the device batch: max over lines fixed + per_sequence * B.
struct Envelope {
  struct Line { std::int64_t fixed, per_sequence; };
  std::vector<Line> lines;          // none below another for every B >= 1
  Bytes at(std::int64_t device_batch) const;
};
Envelope make_envelope(const Program& program);

// A program's events on an allocator, one after the other; what takes over a block asks the allocator for nothing, what is not there is not freed.
class Playback {
 public:
  Playback(const Program& program, CachingAllocator& allocator) : program_(program), allocator_(allocator), blocks_(program.tensors.size(), 0) {}
  enum class Played : std::uint8_t { without_asking, asked, out_of_memory };
  Played play(std::size_t event);
  BlockId& block_of(std::int32_t tensor) { return blocks_[static_cast<std::size_t>(tensor)]; }

 private:
  const Program& program_;
  CachingAllocator& allocator_;
  std::vector<BlockId> blocks_;
};

// Peaks per phase and overall, by simulating the caching allocator on the program's events. `allocated` is what
// torch.cuda.max_memory_allocated counts: blocks as handed out, with the remainder (up to 1 MiB) that ordinary segments do not split off.
// capacity: what the driver can give in all; out_of_memory says whether the run died there.
struct ReservedResult {
  struct Peak { Bytes allocated, reserved; std::int64_t retries = 0; };  // retries: times the cache was flushed to go on
  Peak peak;
  std::vector<Peak> by_phase;       // as Timeline::phases
  bool out_of_memory = false;
};
// undisturbed: ends early once the cache is flushed in this phase, or memory runs out.
// steps: how many optimizer steps the run has. On several GPUs what collectives hold from one step to the next lies elsewhere each time, so which blocks keep a remainder changes from
// step to step: all of them are played that come before the first validation, and again as many after the last evaluation (fewer once they repeat). 0: those that are laid out.
ReservedResult simulate_reserved(const Program& program, const AllocatorConfig& config, std::optional<Bytes> capacity, std::string_view undisturbed = {}, std::int64_t steps = 0);

}  // namespace dryfit
