// Program: a training run's memory as the ordered allocations and frees of named tensors, from an empty device: loading, the
// validation, the first step, two steady steps, CORE evaluation. Sizes hold for one device batch; `batched` tensors grow in proportion to it.
// Nothing here knows a machine's capacity.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "base/dtype.hpp"
#include "base/text.hpp"
#include "graph/graph.hpp"
#include "passes/column_sum.hpp"
#include "passes/work.hpp"
#include "workload/workload.hpp"

namespace dryfit {

enum class Category : std::uint8_t { weights, gradients, optimizer, activations, logits, workspace, communication, context, fragmentation };
constexpr int kCategories = 9;
std::string_view name_of(Category category);
enum class Provenance : std::uint8_t { exact, modelled, calibrated, unknown };
std::string_view name_of(Provenance provenance);

struct TensorInfo {
  const char* role = "";            // static text: "attn.q", "logits"
  std::int16_t layer = -1;          // block, or -1
  Dtype dtype = Dtype::bf16;
  Category category = Category::activations;
  std::int8_t stream = 0;           // CUDA stream it is allocated on; the allocator gives no block of one stream to another
  bool batched = false;             // bytes beyond `fixed` are proportional to the device batch
  Shape shape;
  std::int64_t bytes = 0;           // storage, not rounded
  std::int64_t fixed = 0;           // of a batched one: those that every device batch has
  std::int32_t summed_rows = 0;     // of a kernel's partial sums (column_sum.hpp): the rows of one sequence, whatever `batched` says; 0 of all else
  std::int32_t sorted_ids = 0;      // of a row for every ten ids whose gradients are summed, beside `fixed`, or where that is 0 one for each: those of one sequence; 0 of all else
  std::string name() const;         // "h.3.attn.q"
  friend bool operator==(const TensorInfo&, const TensorInfo&) = default;
};

struct Event {
  enum class Kind : std::uint8_t { alloc, free } kind;
  std::int32_t tensor;              // index into Program::tensors; may live several times, never twice at once
  std::int32_t op;                  // index into Program::tensors of what the kernel writes: names it
  std::int32_t from = -1;           // of an alloc: the tensor, freed by the event before, whose block it takes over: the allocator is not asked
};

// A stretch of events: which phase, which micro-step, which part of it.
struct Segment {
  std::int32_t first_event;
  const char* phase;                // "load", "validation", "first_step", "train_step", "core_evaluation"
  const char* part;                 // "forward", "backward", "optimizer", "data", ...
  std::int32_t micro_step;          // 1-based; 0 outside the micro-steps
  Provenance provenance;
};

// Tensors that live through the run, in bytes as stored: weights; gradients; this GPU's optimizer state.
struct StaticBytes { Bytes weights, gradients, optimizer; };

// A stretch of events after which everything is as it was before them, but for where it lies: one or a few training steps, which a run goes through again and again.
struct Steady {
  std::int32_t first_event, last_event;   // the latter not among them
  int steps;
  std::int64_t between = 0;               // steps of the run until something else comes between (validation), after which no stash is left; 0: nothing does
  std::vector<std::array<std::int32_t, 2>> handed = {};  // what the stretch finds and lets go, what it leaves in its place: the next round finds it under the first's name
};

struct Program {
  std::vector<TensorInfo> tensors;
  std::vector<Event> events;
  std::vector<Segment> segments;    // ascending by first_event; the first at 0
  std::int64_t device_batch = 1;
  Multiprocessors gpu;              // that its kernels' partial sums are of
  StepWork work;                    // the same step as arithmetic and traffic
  std::optional<StaticBytes> fixed = {};  // of its workload, where whoever built it knew them
  std::optional<Steady> steady = {};
  const Segment& segment_of(std::int32_t event) const;
};

// The events from first_event on, once more after themselves, with their segments: what they leave alive takes the place of what they found alive and let go, in the order in which each was
// allocated. False, and nothing is done, where these are not alike.
bool repeat_events(Program& program, std::int32_t first_event);

// The program's events from first_event to its end, if they are such a stretch.
std::optional<Steady> steady_stretch(const Program& program, std::int32_t first_event, int steps);

// The same run where torch.compile's caches know its kernels: without what timing them takes. nullopt: nothing is timed.
std::optional<Program> without_timings(const Program& program);

// The same run with another device batch: bytes of what is batched, in proportion; shapes and accumulation as they are laid out.
Program at_batch(Program program, std::int64_t device_batch);

// What of the machine moves memory.
struct Target {
  int compute_major = 9, compute_minor = 0;
  double bf16_tflops = 0;           // 0: unknown; decides whether steps are shorter than NCCL's watchdog period
  int multiprocessors = 132;        // an H100's
  std::int64_t memory = 0;          // bytes that a process can have; 0: unknown. Bounds what transformers' loader asks for at once
  std::int64_t l2_cache = 50 << 20; // bytes; an H100's
  int capability() const { return 10 * compute_major + compute_minor; }
  bool fake_tensors = false;        // recorded: SDPA is FlashAttention 2's wherever that may be, and all that kernels return lies on the GPU
};

// Whether scaled_dot_product_attention asks for cuDNN's kernel before all others, where that is newer than 9.15.0: in torch's wheels from 2.11 on (aten/src/ATen/native/transformers/
// cuda/sdp_utils.cpp, check_prefer_cudnn_attention).
inline bool prefers_cudnn(const Target& t, std::string_view torch) { return version_from(torch, 2, 11) && (t.compute_major == 9 || t.compute_major == 10) && t.compute_minor == 0; }

// Whether a transformers run is laid out alike on both: what of a Target its passes look at. by_multiprocessors: Liger-Kernel's and compiled runs.
inline bool laid_out_alike(const Target& a, const Target& b, bool by_multiprocessors, std::string_view torch) {
  const bool hopper = a.compute_major == 9 && a.compute_minor == 0, same_hopper = hopper == (b.compute_major == 9 && b.compute_minor == 0);
  return same_hopper && prefers_cudnn(a, torch) == prefers_cudnn(b, torch) && (a.compute_major >= 8) == (b.compute_major >= 8) && (!by_multiprocessors || (a.multiprocessors == b.multiprocessors && a.l2_cache == b.l2_cache));
}

// What torch's cuBLAS takes for each handle and stream it runs on (aten/src/ATen/cuda/CublasHandlePool.cpp).
constexpr std::int64_t cublas_workspace_bytes(const Target& t) { return t.compute_major == 9 && t.compute_minor == 0 ? 33554432 : 8519680; }

// What cuBLASLt takes likewise (CUBLASLT_WORKSPACE_SIZE's default), kept since torch 2.7: products with a bias, and fp8's.
constexpr std::int64_t kCublasLtWorkspace = 1 << 20;

// The same where the environment may say otherwise. Of cuBLASLt 0 where it works in cuBLAS' own.
inline std::int64_t cublas_workspace_bytes(const Target& t, const ProductWorkspaces& said) { return said.cublas.value_or(cublas_workspace_bytes(t)); }
inline std::int64_t cublaslt_workspace_bytes(const ProductWorkspaces& said) { return said.unified ? 0 : said.cublaslt.value_or(kCublasLtWorkspace); }

// Most bytes (of whole 512-byte blocks) alive at once.
Bytes peak_of(std::span<const TensorInfo> tensors, std::span<const Event> events);
inline Bytes peak_of(const Program& program) { return peak_of(program.tensors, program.events); }

// automatic -> what nanochat of this version picks on this GPU: FlashAttention 3 on Hopper in bf16, else SDPA's choice.
Attention resolve_attention(const Workload& workload, const Target& target);

// How much memory a program that is being written has and had.
class HighWater {
 public:
  // Bytes that may be taken after its last event without a new peak: torch.cuda.max_memory_allocated() - memory_allocated().
  std::int64_t spare(const Program& program);

 private:
  std::size_t counted_ = 0;  // events
  std::int64_t alive_ = 0, most_ = 0;
};

// nanochat's. accumulate: whether to lay out two micro-steps per step (true when the workload accumulates gradients).
Program build_program(const Workload& workload, const Target& target, bool accumulate);

// Of either kind of workload. Errors: "unsupported_training", for transformers.
Result<Program> program_for(const Workload& workload, const Target& target, bool accumulate);

// The same whatever the device batch and the accumulation.
StaticBytes static_bytes(const Workload& workload);
// The same of a program whose workload is not described: the most of each that is there at once.
StaticBytes static_bytes(const Program& program);

}  // namespace dryfit
