// See calibration.hpp.
#include "plan/calibration.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <span>

#include "passes/optimizer.hpp"

namespace dryfit {

namespace {

constexpr std::size_t kNewestRows = 20;           // a driver update moves the constants: old rows fade
constexpr Bytes kPage = mib(2);                   // the driver hands memory out, and NVML counts it, in pages of 2 MiB
constexpr Bytes kMostOutside = gib(8);
constexpr Bytes kAsHigh = mib(1);                 // a peak is printed in rounded MiB

// 97.5 % quantile of Student's t by degrees of freedom 1..10, then the normal's neighbourhood.
double student(std::size_t freedom) {
  static constexpr std::array kT = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228};
  return freedom == 0 ? 0 : freedom <= kT.size() ? kT[freedom - 1] : 2.1;
}

struct Spread { double mean, half; };  // half: of the 95 % interval for one more value; infinite from one value
Spread spread_of(std::span<const double> values) {
  const double n = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  if (values.size() < 2) return {mean, INFINITY};
  double squares = 0;
  for (double v : values) squares += (v - mean) * (v - mean);
  return {mean, student(values.size() - 1) * std::sqrt(squares / (n - 1)) * std::sqrt(1 + 1 / n)};
}

template <class Value>
std::vector<double> newest(const Calibration& calibration, Value value) {
  std::vector<double> out;
  for (auto row = calibration.rows.rbegin(); row != calibration.rows.rend() && out.size() < kNewestRows; ++row) {
    if (const auto v = value(*row)) out.push_back(*v);
  }
  return out;
}

Bytes rounded(double bytes) { return Bytes(static_cast<std::int64_t>(bytes)); }

// No narrower than a page, no wider than what is known without any row.
LearnedBytes learned(std::span<const double> values, const OutsideMemory& prior) {
  const Spread s = spread_of(values);
  const Bytes middle = rounded(s.mean);
  const auto side = [&](Bytes known) { return std::max(kPage, std::isfinite(s.half) ? std::min(known, rounded(std::min(s.half, 1e15))) : known); };
  return {std::max(Bytes(0), middle - side(prior.middle - prior.low)), middle, middle + side(prior.high - prior.middle), static_cast<std::int64_t>(values.size())};
}

// The pool of the row's run, as measured where it was.
std::optional<Bytes> reserved_of(const Calibration& calibration, const CalibrationRow& row) {
  if (row.reserved_peak) return row.reserved_peak;
  if (!row.allocated_derived || !row.reserved_derived) return std::nullopt;
  const Bytes allocated = row.allocated_peak.value_or(*row.allocated_derived);
  for (auto s = calibration.rows.rbegin(); s != calibration.rows.rend(); ++s) {  // a snapshot of a part of the run may have missed the peak
    const bool same = s->gpu == row.gpu && s->configuration == row.configuration && s->world_size == row.world_size;
    if (same && s->reserved_peak && !s->process_peak && s->allocated_peak && *s->allocated_peak >= allocated - kAsHigh) return s->reserved_peak;
  }
  return allocated + (*row.reserved_derived - *row.allocated_derived);
}

std::string count(std::int64_t n, const char* what) { return std::to_string(n) + " " + what + (n == 1 ? "" : "s"); }

}  // namespace

std::string configuration_of(const Workload& workload) {
  const Model& m = workload.model;
  const Run& r = workload.run;
  std::string out = "nanochat " + m.version.epoch + " depth " + std::to_string(m.depth) + " width " + std::to_string(m.width) + " heads " + std::to_string(m.heads) + " vocab " + std::to_string(m.padded_vocab) +
                    " batch " + std::to_string(r.device_batch_size) + " x " + std::to_string(r.max_seq_len) + " total " + std::to_string(r.total_batch_size) + " gpus " + std::to_string(r.world_size) + (is_distributed_alone(m, r) ? " torchrun " : " ") +
                    std::string(name_of(r.compute)) + (r.fp8 ? " fp8" : "") + (r.compile ? "" : " eager");
  if (m.version.window) out += " window " + m.window_pattern;
  return out;
}

std::optional<Bytes> outside_of(const Calibration& calibration, const CalibrationRow& row) {
  const auto reserved = reserved_of(calibration, row);
  if (!row.process_peak || !reserved) return std::nullopt;
  const Bytes outside = *row.process_peak - *reserved;
  return outside >= Bytes(0) && outside <= kMostOutside ? std::optional(outside) : std::nullopt;
}

std::optional<LearnedBytes> learned_outside(const Calibration& calibration, const GpuKind& gpu, std::int64_t world_size) {
  const auto rows = [&](bool measured) {
    return newest(calibration, [&](const CalibrationRow& r) -> std::optional<double> {
      if (r.gpu != gpu.name || r.world_size != world_size || (measured && !r.allocated_peak && !r.reserved_peak)) return std::nullopt;
      const auto outside = outside_of(calibration, r);
      return outside ? std::optional(static_cast<double>(outside->count)) : std::nullopt;
    });
  };
  std::vector<double> values = rows(true);
  if (values.empty()) values = rows(false);  // runs that did not print their peak: the engine's stands in
  if (values.empty()) return std::nullopt;
  return learned(values, outside_memory(gpu.compute_major, gpu.compute_minor, world_size));
}

std::optional<LearnedBytes> learned_driver_reserve(const Calibration& calibration, std::string_view gpu) {
  const auto values = newest(calibration, [&](const CalibrationRow& r) { return r.gpu == gpu && r.driver_reserve ? std::optional(static_cast<double>(r.driver_reserve->count)) : std::nullopt; });
  if (values.empty()) return std::nullopt;
  const Bytes last = rounded(values.front());  // the driver tells it exactly; a newer driver changes it
  return LearnedBytes{last, last, last, static_cast<std::int64_t>(values.size())};
}

std::optional<LearnedSpeed> learned_speed(const Calibration& calibration, std::string_view gpu, std::string_view configuration) {
  const auto of = [&](auto field) { return newest(calibration, [&](const CalibrationRow& r) { return r.gpu == gpu && r.configuration == configuration ? r.*field : std::nullopt; }); };
  const auto rates = of(&CalibrationRow::tokens_per_second), mfus = of(&CalibrationRow::mfu);
  if (rates.empty()) return std::nullopt;
  const Spread s = spread_of(rates);
  LearnedSpeed out{s.mean, std::nullopt, std::nullopt, std::nullopt, static_cast<std::int64_t>(rates.size())};
  if (std::isfinite(s.half)) out.low = std::max(0.0, s.mean - s.half), out.high = s.mean + s.half;
  if (!mfus.empty()) out.mfu = spread_of(mfus).mean;
  return out;
}

OutsideEstimate outside_estimate(const Calibration* calibration, const GpuKind& gpu, std::int64_t world_size, std::string_view torch) {
  OutsideEstimate out{outside_memory(gpu.compute_major, gpu.compute_minor, world_size, torch), Provenance::modelled, ""};
  if (calibration == nullptr) return out;
  if (const auto whole = learned_outside(*calibration, gpu, world_size)) {
    out = {{whole->low, whole->middle, whole->high}, Provenance::calibrated, "memory outside PyTorch is learned from " + count(whole->rows, "run") + " here (dryfit calibrate --show)"};
  } else if (const auto context = learned_outside(*calibration, gpu, 1)) {
    out.memory = OutsideMemory{context->low, context->middle, context->high} + nccl_memory(world_size);
    out.note = "the CUDA context is learned from " + count(context->rows, "run") + " here (dryfit calibrate --show); NCCL on " + std::to_string(world_size) + " GPUs is not";
  }
  return out;
}

void apply_driver_reserve(const Calibration& calibration, Machine& machine) {
  if (machine.source != MachineSource::flag && machine.source != MachineSource::nvidia_smi) return;  // NVML tells its own
  const auto reserve = learned_driver_reserve(calibration, machine.gpu.name);
  if (!reserve || reserve->middle == machine.driver_reserve || reserve->middle < Bytes(0) || reserve->middle >= machine.total) return;
  machine.driver_reserve = reserve->middle;
  machine.notes.push_back("the driver's reserve is the one seen here (dryfit calibrate --show)");
}

bool merge(Calibration& calibration, CalibrationRow row) {
  const auto known = std::ranges::find(calibration.rows, row.id, &CalibrationRow::id);
  if (known == calibration.rows.end()) {
    calibration.rows.push_back(std::move(row));
    return true;
  }
  for (auto field : {&CalibrationRow::process_peak, &CalibrationRow::allocated_peak, &CalibrationRow::reserved_peak, &CalibrationRow::driver_reserve}) {
    if (!(row.*field)) row.*field = (*known).*field;
  }
  for (auto field : {&CalibrationRow::tokens_per_second, &CalibrationRow::mfu}) {
    if (!(row.*field)) row.*field = (*known).*field;
  }
  row.steps = std::max(row.steps, known->steps);
  *known = std::move(row);
  return false;
}

}  // namespace dryfit
