// Out-of-memory messages as text to values: every wording of PyTorch (1.0 to 2.14; CUDA, ROCm, XPU, MPS, cudaMallocAsync), of the CUDA
// libraries beside it, of JAX and TensorFlow, of Triton's shared memory and of a host that ran out. Says what a message says, not why.
// Sources of the wordings: docs/doctor.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"

namespace dryfit {

inline constexpr auto npos = std::string_view::npos;  // the readers of text compare with it on every other line

enum class Wording : std::uint8_t {
  allocator,          // "CUDA out of memory. Tried to allocate ...": PyTorch's caching allocator
  allocator_warning,  // its first attempt failed; the retry after a flush often works, so this alone is no failure
  malloc_async,       // backend:cudaMallocAsync
  mps,
  exabyte,            // "more than 1EB": a size gone wrong, not a lack of memory
  runtime,            // a plain driver or runtime error: something outside the pool asked
  pinned,             // page-locked host memory
  cublas, cudnn, nccl,
  xla, tensorflow,
  shared_memory,      // Triton: on-chip memory of one kernel
  host_allocator,     // an allocation on the CPU failed
  host_killed,        // the kernel, a cgroup or a scheduler killed the process
};
std::string_view name_of(Wording wording);

enum class Backend : std::uint8_t { cuda, hip, xpu, mps, tpu, host, unknown };
std::string_view name_of(Backend backend);

// As printed: the true value lies within +- slack of bytes.
struct Amount {
  Bytes bytes, slack;
  bool may_be(Bytes other) const { return other >= bytes - slack && other <= bytes + slack; }
};

struct Tenant { std::int64_t pid = 0; Amount memory; };  // "Process <pid> has <memory> in use"

// What one message says. Empty: it does not say. Sizes on the GPU but for wordings of the host.
struct Oom {
  Wording wording = Wording::allocator;
  Backend backend = Backend::unknown;
  std::string torch;                         // which PyTorch words it so ("2.2 or newer"); may be empty
  std::optional<std::int64_t> device;
  std::optional<Amount> requested;           // what was asked for; shared_memory: what the kernel needs
  std::optional<Amount> total, free;         // of the device, as the driver tells
  std::optional<Amount> allocated, reserved, idle;  // tensors; held from the driver; reserved - allocated
  std::optional<Amount> private_pools;       // of CUDA graphs, within allocated
  std::optional<Amount> allowed;             // a set limit; shared_memory: the hardware's
  std::optional<Amount> this_process;        // with what lies outside PyTorch
  std::optional<Amount> other_allocations;   // MPS
  std::vector<Tenant> processes;
  std::string detail;                        // a short word: which library, which signal, "shm"
};
bool same_numbers(const Oom& a, const Oom& b);

struct OomStart { Wording wording; std::size_t at; };
// Where messages begin in one line (usually none or one). Code that merely mentions one is left out.
std::vector<OomStart> find_oom(std::string_view line);

// A message that runs over lines: whether all of it is there, and whether this line belongs to it.
bool oom_complete(Wording wording, std::string_view text);
bool oom_continues(Wording wording, std::string_view text, std::string_view line);

// The message that begins `text`, which may have been wrapped anywhere between words.
Oom parse_oom(Wording wording, std::string_view text);

// "1014.25 MiB", "0 bytes", "372.76MiB", "2.12G" at the start of text; binary units whatever the spelling. Empty: no size there.
std::optional<Amount> read_amount(std::string_view text, std::size_t* end = nullptr);

}  // namespace dryfit
