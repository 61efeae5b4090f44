// Calibration: constants of one machine, learned from its own runs. Rows are measurements; every constant is a function of rows, so
// nothing is learned twice and nothing is lost. Only what lies outside PyTorch's allocator, the driver's reserve and achieved speed
// are learned: what the engine derives (allocated) never is. Files and clocks live in src/cli/calibration_file.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "machine/machine.hpp"
#include "memory/outside.hpp"
#include "passes/program.hpp"
#include "workload/workload.hpp"

namespace dryfit {

// One run, as measured. Empty: not measured.
struct CalibrationRow {
  std::string id;                     // of the run, so that reading a file again renews its row
  std::string file, date;             // where from; date of the file, ISO
  std::string gpu;                    // as the driver names it
  std::int64_t world_size = 1;
  std::string configuration;          // configuration_of
  std::optional<Bytes> process_peak;  // NVML, this process, largest; of the GPU of rank 0. Of a snapshot: all that was taken of the card when a request failed
  std::optional<Bytes> allocated_peak;  // printed by the run: torch.cuda.max_memory_allocated; or the peak of a snapshot
  std::optional<Bytes> reserved_peak;   // of a snapshot: PyTorch's pool at its largest; with process_peak, when the request failed
  std::optional<Bytes> allocated_derived, reserved_derived;  // the engine's for the same run
  std::optional<Bytes> driver_reserve;
  std::optional<double> tokens_per_second, mfu;
  std::int64_t steps = 0;             // step lines behind the speed
};

struct Calibration { std::vector<CalibrationRow> rows; };

// Shapes, batches, version and dtype of a run as one line: runs with equal lines are the same run on the same GPUs.
std::string configuration_of(const Workload& workload);

// Memory of the row's process outside PyTorch's allocator: process - reserved. reserved is, in this order: measured by the row itself; by
// a snapshot of the same run on the same GPUs that saw a peak as high; allocated as printed (else as derived) + what the simulated
// allocator holds beyond it. Empty when not measured, or when it is none a process can have (< 0 or > 8 GiB).
std::optional<Bytes> outside_of(const Calibration& calibration, const CalibrationRow& row);

struct LearnedBytes { Bytes low, middle, high; std::int64_t rows = 0; };  // 95 % interval for the next run
struct LearnedSpeed { double tokens_per_second = 0; std::optional<double> low, high, mfu; std::int64_t rows = 0; };  // no interval from one run

// Context and NCCL together for this GPU and world size; context alone is world size 1.
std::optional<LearnedBytes> learned_outside(const Calibration& calibration, const GpuKind& gpu, std::int64_t world_size);
std::optional<LearnedBytes> learned_driver_reserve(const Calibration& calibration, std::string_view gpu);
std::optional<LearnedSpeed> learned_speed(const Calibration& calibration, std::string_view gpu, std::string_view configuration);

struct OutsideEstimate { OutsideMemory memory; Provenance provenance = Provenance::modelled; std::string note; };
// What lies outside the allocator: learned for this GPU and world size; or the learned context and the table's NCCL; or the table.
OutsideEstimate outside_estimate(const Calibration* calibration, const GpuKind& gpu, std::int64_t world_size, std::string_view torch);

// A machine named by a flag, with the reserve its own driver showed.
void apply_driver_reserve(const Calibration& calibration, Machine& machine);

// A row of a known id renews what it measured and leaves the rest (a log after a recording of the same run); others are added.
// True: it was new.
bool merge(Calibration& calibration, CalibrationRow row);

}  // namespace dryfit
