// See calibration.hpp.
#include "report/calibration.hpp"
#include "report/speed.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <set>
#include <tuple>

namespace dryfit {

namespace {

using Json = nlohmann::ordered_json;

std::string range_text(Bytes middle, Bytes low, Bytes high) { return fmt::format("{:>8} ({} to {})", gib_text(middle), gib_text(low), gib_text(high)); }
std::string runs_text(std::int64_t n) { return fmt::format("{} run{}", n, n == 1 ? "" : "s"); }

GpuKind kind_of(const std::string& gpu) {
  auto kind = find_gpu(gpu).value_or(GpuKind{});
  kind.name = gpu;
  return kind;
}

// GPU and world size of every row with something to learn from, and GPU and configuration of every row with a speed.
struct Keys { std::set<std::pair<std::string, std::int64_t>> outside; std::set<std::pair<std::string, std::string>> speeds; std::set<std::string> gpus; };
Keys keys_of(const Calibration& calibration) {
  Keys keys;
  for (const CalibrationRow& r : calibration.rows) {
    keys.gpus.insert(r.gpu);
    if (outside_of(calibration, r)) keys.outside.emplace(r.gpu, r.world_size);
    if (r.tokens_per_second) keys.speeds.emplace(r.gpu, r.configuration);
  }
  return keys;
}

std::string row_text(const Calibration& calibration, const CalibrationRow& r) {
  std::string out = fmt::format("{} on {} x {}\n", r.configuration, r.world_size, r.gpu);
  if (r.allocated_peak && r.allocated_derived) {
    out += fmt::format("    allocated {:.2f} MiB {}, {:.2f} derived ({:+.2f} %)\n", r.allocated_peak->mib(), r.reserved_peak ? "in the snapshot" : "as printed", r.allocated_derived->mib(), (static_cast<double>(r.allocated_derived->count) / static_cast<double>(r.allocated_peak->count) - 1) * 100);
  }
  const auto outside = outside_of(calibration, r);
  if (r.reserved_peak && r.process_peak) {
    out += fmt::format("    {} of the card taken when a request failed, {} of it PyTorch's: outside {}\n", gib_text(*r.process_peak), gib_text(*r.reserved_peak), gib_text(*r.process_peak - *r.reserved_peak));
  } else if (r.reserved_peak) {
    out += fmt::format("    reserved {} at most: runs of this configuration that a recording measured now say exactly what lies outside\n", gib_text(*r.reserved_peak));
  } else if (r.process_peak) {
    out += fmt::format("    process {}, of it outside PyTorch {}{}\n", gib_text(*r.process_peak), outside ? gib_text(*outside) : "an amount that cannot be", outside ? (r.allocated_peak ? "" : " (by the derived peak: the run did not print its own)") : ": other flags or another version ran; not used");
  }
  if (r.tokens_per_second) out += fmt::format("    {}{} over {} steps\n", rate_text(*r.tokens_per_second), r.mfu ? fmt::format(", mfu {:.1f} %", *r.mfu * 100) : "", r.steps);
  return out;
}

}  // namespace

std::string calibration_report_text(const Calibration& calibration, const std::vector<CalibrationRead>& read, const std::string& path, const Style&) {
  std::string out;
  for (const CalibrationRead& r : read) {
    out += r.file + ": ";
    if (r.status == CalibrationRead::Status::skipped) out += "skipped, " + r.why + "\n";
    else out += std::string(r.status == CalibrationRead::Status::added ? "learned " : "known already, renewed ") + row_text(calibration, *r.row);
  }
  if (calibration.rows.empty()) return out + "nothing is learned yet: dryfit calibrate train.log, or a recording of dryfit watch --record\n";
  if (!out.empty()) out += "\n";
  out += fmt::format("{} in {}\n", runs_text(static_cast<std::int64_t>(calibration.rows.size())), path);
  const Keys keys = keys_of(calibration);
  for (const std::string& gpu : keys.gpus) {
    out += gpu + "\n";
    const GpuKind kind = kind_of(gpu);
    const auto context = learned_outside(calibration, kind, 1);
    for (const auto& [name, world] : keys.outside) {
      if (name != gpu) continue;
      const auto learned = *learned_outside(calibration, kind, world);
      const OutsideMemory table = outside_memory(kind.compute_major, kind.compute_minor, world);
      out += fmt::format("  {:<28} {}   {}; table {}\n", world == 1 ? "CUDA context" : fmt::format("context and NCCL, {} GPUs", world), range_text(learned.middle, learned.low, learned.high), runs_text(learned.rows), range_text(table.middle, table.low, table.high));
      if (world > 1 && context) out += fmt::format("  {:<28} {:>8}\n", fmt::format("  of it NCCL, {} GPUs", world), gib_text(learned.middle - context->middle));
    }
    if (const auto reserve = learned_driver_reserve(calibration, gpu)) out += fmt::format("  {:<28} {:>8}   {}\n", "driver's reserve", gib_text(reserve->middle), runs_text(reserve->rows));
    for (const auto& [name, configuration] : keys.speeds) {
      if (name != gpu) continue;
      const auto speed = *learned_speed(calibration, gpu, configuration);
      out += fmt::format("  {}\n    {}{}{}   {}\n", configuration, rate_text(speed.tokens_per_second), speed.low ? fmt::format(" ({} to {})", rate_text(*speed.low), rate_text(*speed.high)) : "", speed.mfu ? fmt::format(", mfu {:.1f} %", *speed.mfu * 100) : "", runs_text(speed.rows));
    }
  }
  return out;
}

std::string calibration_report_json(const Calibration& calibration, const std::vector<CalibrationRead>& read, const std::string& path, const std::string& rows_json) {
  Json files = Json::array(), constants = Json::array();
  for (const CalibrationRead& r : read) {
    static constexpr const char* kStatus[] = {"added", "renewed", "skipped"};
    files.push_back({{"file", r.file}, {"status", kStatus[static_cast<int>(r.status)]}, {"why", r.why.empty() ? Json() : Json(r.why)}, {"id", r.row ? Json(r.row->id) : Json()}});
  }
  const Keys keys = keys_of(calibration);
  const auto bytes = [&](const char* kind, const std::string& gpu, const Json& world, Bytes middle, const Json& low, const Json& high, std::int64_t rows) {
    constants.push_back({{"kind", kind}, {"gpu", gpu}, {"world_size", world}, {"configuration", Json()}, {"bytes", middle.count}, {"low", low}, {"high", high}, {"tokens_per_second", Json()}, {"mfu", Json()}, {"rows", rows}});
  };
  for (const auto& [gpu, world] : keys.outside) {
    const GpuKind kind = kind_of(gpu);
    const auto learned = *learned_outside(calibration, kind, world);
    bytes(world == 1 ? "context" : "context_and_nccl", gpu, world, learned.middle, learned.low.count, learned.high.count, learned.rows);
    if (const auto context = learned_outside(calibration, kind, 1); context && world > 1) bytes("nccl", gpu, world, learned.middle - context->middle, nullptr, nullptr, learned.rows);
  }
  for (const std::string& gpu : keys.gpus) {
    if (const auto reserve = learned_driver_reserve(calibration, gpu)) bytes("driver_reserve", gpu, nullptr, reserve->middle, reserve->low.count, reserve->high.count, reserve->rows);
  }
  for (const auto& [gpu, configuration] : keys.speeds) {
    const auto s = *learned_speed(calibration, gpu, configuration);
    constants.push_back({{"kind", "speed"}, {"gpu", gpu}, {"world_size", Json()}, {"configuration", configuration}, {"bytes", Json()}, {"low", s.low ? Json(*s.low) : Json()}, {"high", s.high ? Json(*s.high) : Json()}, {"tokens_per_second", s.tokens_per_second},
                         {"mfu", s.mfu ? Json(*s.mfu) : Json()}, {"rows", s.rows}});
  }
  Json out = Json::parse(rows_json);  // our own text: schema_version, dryfit, rows
  out["path"] = path;
  out["read"] = files;
  out["constants"] = constants;
  return out.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace dryfit
