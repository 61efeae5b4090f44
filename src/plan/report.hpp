// Report: the whole answer for one workload on one machine, as values. report/ turns it into text, JSON and pictures.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "machine/machine.hpp"
#include "memory/allocator.hpp"
#include "passes/program.hpp"
#include "plan/speed_estimate.hpp"
#include "workload/workload.hpp"

namespace dryfit {

enum class Verdict { fits, tight, wont_fit };
std::string_view name_of(Verdict verdict);

struct Estimate {  // bytes with a 95 % interval
  Bytes bytes, low, high;
  Provenance provenance = Provenance::modelled;
};

struct PhaseResult {
  std::string name;                 // "train_step"
  Bytes allocated, reserved;        // peaks within the phase
  std::string event;                // the op at its allocated peak
  Provenance provenance = Provenance::modelled;
};

struct CategoryBytes { Category category; Bytes at_peak; };

struct Alternative {
  std::vector<std::pair<std::string, std::string>> change;  // {"--device-batch-size","16"}
  std::optional<Bytes> allocated, process;                  // none where a code change is needed and it is not derived
  std::optional<Verdict> verdict;
  std::optional<double> step_time_ratio;                    // > 1 slower
  bool identical_training = false;
  bool needs_code_change = false;
  std::string note;
  std::string command;                                      // to start the run so changed; empty: not one command, or a variable before the present one
};

// As it is typed: "--device-batch-size 16", "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True".
std::string change_text(const Alternative& alternative);
bool is_variable(std::string_view key);  // of the environment, not a flag or a word

// Memory over the step, thinned to at most a few hundred points that keep every local maximum of note.
struct TimelinePoint { std::int64_t event; Bytes allocated; std::array<Bytes, kCategories> by_category; std::string phase, part; std::int32_t micro_step; std::string op; };

struct Report {
  Workload workload;
  Machine machine;
  AllocatorConfig allocator;
  Verdict verdict = Verdict::fits;
  Estimate allocated, reserved, process;
  Bytes context;                    // memory outside PyTorch's allocator
  Bytes weights, gradients, optimizer;  // static, exact, not rounded
  std::string alloc_conf_note;      // which allocator settings were simulated, and why
  Attention attention = Attention::flash;  // resolved
  Bytes headroom;                   // usable - process; may be negative
  std::string peak_phase, peak_event;
  std::int32_t peak_micro_step = 0;
  std::vector<TensorInfo> live;     // at the allocated peak, largest first
  std::vector<PhaseResult> phases;
  std::vector<CategoryBytes> categories;  // every category, in declaration order
  std::optional<SpeedEstimate> speed;
  std::vector<Alternative> alternatives;
  std::vector<TimelinePoint> timeline;    // only when asked for
  std::string command;              // complete training command, one line per argument group joined by spaces
  std::vector<Assumption> assumptions;
  std::vector<std::string> warnings;
};

struct PlanResult {
  std::vector<Report> plans;
  std::size_t chosen = 0;
  std::string why;
  std::optional<Report> closest = {};  // where nothing fits: the least that was asked for, with its alternatives
};

struct TableRow {
  std::string gpu;
  Bytes usable;
  std::int64_t depth;
  std::optional<std::int64_t> device_batch_size;
  std::optional<Bytes> allocated;
  struct Way { std::string method; Recompute recompute; Sharding sharding; };
  std::optional<Way> way = {};  // of a transformers run
  std::optional<double> tokens_per_second = {};  // likewise, at that device batch
};

}  // namespace dryfit
