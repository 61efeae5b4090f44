// What torch.compile allocates to time kernels before their first launch, where its caches on disk know none of them.
// Source: torch/_inductor/runtime/{triton_heuristics,benchmarking}.py (2.9.1, 2.11.0).
#include <algorithm>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "passes/eager.hpp"
#include "passes/program_layout.hpp"

namespace dryfit {

namespace {

constexpr const char* kCleared = "timing.l2";   // what clears the L2 cache
constexpr const char* kCopied = "timing.copy";  // of what a kernel writes in place

// Which copies of so many bytes are made on the GPU, one after the other, as long as they do not make a new peak.
std::vector<std::size_t> made_here(const std::vector<std::int64_t>& bytes, HighWater& high_water, const Program& program, bool spares) {
  std::vector<std::size_t> made;
  std::int64_t left = spares ? high_water.spare(program) : std::numeric_limits<std::int64_t>::max();
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] > left) continue;
    left -= bytes[i];
    made.push_back(i);
  }
  return made;
}

}  // namespace

std::optional<Program> without_timings(const Program& program) {
  std::vector<bool> of_timing;
  for (const TensorInfo& t : program.tensors) of_timing.push_back(std::string_view(t.role) == kCleared || std::string_view(t.role) == kCopied);
  if (std::ranges::none_of(program.events, [&](const Event& e) { return of_timing[static_cast<std::size_t>(e.tensor)]; })) return std::nullopt;
  Program out = program;
  out.events.clear();
  std::vector<std::int32_t> moved;  // by event of the old program: how many are left before it
  for (const Event& e : program.events) {
    moved.push_back(static_cast<std::int32_t>(out.events.size()));
    if (!of_timing[static_cast<std::size_t>(e.tensor)]) out.events.push_back(e);
  }
  moved.push_back(static_cast<std::int32_t>(out.events.size()));
  for (Segment& s : out.segments) s.first_event = moved[static_cast<std::size_t>(s.first_event)];
  if (out.steady) out.steady->first_event = moved[static_cast<std::size_t>(out.steady->first_event)], out.steady->last_event = moved[static_cast<std::size_t>(out.steady->last_event)];
  return out;
}

bool ProgramLayout::has_choices(std::int64_t elements) const { return run_.cold_caches && elements > kTinyLoop; }

ProgramLayout::Timings ProgramLayout::timings_of(std::vector<Timing> all, bool spares) const { return {{run_.cold_caches ? std::move(all) : std::vector<Timing>{}}, spares}; }

// Those of the kernel that is launched when so many steps of a half are done.
void ProgramLayout::time_kernels(const Graph& of, Timings& timed, std::size_t done) {
  while (const Timing* timing = timed.to_come.after(done)) {
    std::vector<Copied> copied;
    for (const NodeId v : timing->in_place) copied.push_back({of.nodes[static_cast<std::size_t>(v)].dtype, of.nodes[static_cast<std::size_t>(v)].shape});
    time_kernel(copied, timed.spares);
  }
}

// Each configuration runs with fresh copies of what the kernel writes in place, then again and again with a buffer beside it that clears the L2 cache. spares: copies that would be a new
// peak are the host's; the second configuration has the buffer's bytes more to spare. What a third asks for it finds where the second had it.
void ProgramLayout::time_kernel(const std::vector<Copied>& in_place, bool spares) {
  if (l2_ < 0) l2_ = tensor(kCleared, Category::workspace, Dtype::uint8, shape({target_.l2_cache}, false));
  std::vector<std::int32_t> copies;
  std::vector<std::int64_t> bytes;
  for (const Copied& c : in_place) {
    copies.push_back(tensor(kCopied, Category::workspace, c.dtype, c.shape));
    bytes.push_back(p_.tensors.back().bytes);
  }
  for (int configuration = 0; configuration < kTimedConfigurations; ++configuration) {
    const std::vector<std::size_t> here = made_here(bytes, high_water_, p_, spares);
    const auto run = [&] {
      for (const std::size_t i : here) alloc(copies[i]);
      for (auto i = here.rbegin(); i != here.rend(); ++i) free(copies[*i]);
    };
    run();
    alloc(l2_);
    run();
    free(l2_);
  }
}

// nanochat's compiled AdamW: one kernel, compiled for each size, which writes both moments and the parameter, each of them an argument twice.
void ProgramLayout::time_adamw(const Parameter& parameter, std::int64_t elements) {
  if (!has_choices(elements) || !timed_.insert({elements, static_cast<std::int64_t>(parameter.dtype)}).second) return;
  time_kernel(std::vector<Copied>(6, {parameter.dtype, shape({elements}, false)}), true);
}

namespace eager {

void Tape::time_kernel(std::span<const Tensor> in_place, bool spares) {
  if (options_.l2_cache == 0) return;
  std::vector<std::int64_t> bytes;
  for (const Tensor& t : in_place) bytes.push_back(t.dims().numel() * size_of(t.dtype()));
  for (int configuration = 0; configuration < kTimedConfigurations; ++configuration) {
    const std::vector<std::size_t> here = made_here(bytes, high_water_, p_, spares);
    const auto run = [&] {
      std::vector<Tensor> copies;
      for (const std::size_t i : here) copies.push_back(scratch(kCopied, eager::contiguous(in_place[i].dims()), in_place[i].dtype()));
      while (!copies.empty()) copies.pop_back();
    };
    run();
    const Tensor cleared = scratch(kCleared, dims({options_.l2_cache}, false), Dtype::uint8);
    run();
  }
}

}  // namespace eager

}  // namespace dryfit
