// See captured.hpp. Logs print whole MiB, rounded down: a captured figure within that MiB has no error.
#include "captured.hpp"

#include <fmt/format.h>

#include <cmath>
#include <iostream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/text.hpp"
#include "measured_rows.hpp"

namespace dryfit {

namespace {

struct Row {
  FieldMap field;
  double measured = 0, captured = 0;  // MiB
  double measured_reserved = 0, captured_reserved = 0;  // 0: not in the log; the capture did not come to validation
  double off() const { return std::floor(captured) - measured; }
  double off_reserved() const { return std::floor(captured_reserved) - measured_reserved; }
  bool there() const { return captured > 0; }
  bool both_reserved() const { return measured_reserved > 0 && captured_reserved > 0; }
  // The record's folder: what names it in the repository.
  std::string record() const {
    const auto parts = split(field.at("source"), '/');
    return parts.size() > 3 ? std::string(parts[3]) : field.at("source");
  }
};

Result<Row> read(FieldMap f) {
  Row row;
  const auto figure = [&](const char* name) -> double { return f[name].empty() ? 0 : parse_real(f[name], name).value_or(-1); };
  row.measured = figure("allocated_mib");
  row.captured = figure("captured_mib");
  row.measured_reserved = figure("reserved_mib");
  row.captured_reserved = figure("captured_reserved_mib");
  if (row.measured <= 0 || row.captured < 0 || row.measured_reserved < 0 || row.captured_reserved < 0) return fail("bad_row", "a figure is missing or no number", "MiB: allocated_mib, and the others where they are known", "allocated_mib");
  if (row.there() && (f["captured_torch"].empty() || f["captured_on"].empty())) return fail("bad_row", "it does not say with which torch it was captured and when", "tools/measure/capture_records.py writes both", "captured_torch");
  row.field = std::move(f);
  return row;
}

void print_rows(const std::vector<Row>& rows) {
  std::cout << "| row | record | torch of the run | allocated MiB | of its reruns | captured | error | reserved MiB | captured | peak in | not known |\n| --- | --- | --- | ---: | --- | ---: | ---: | ---: | ---: | --- | --- |\n";
  for (const Row& r : rows) {
    if (!r.there()) continue;
    const auto& f = r.field;
    const std::string reruns = f.at("lowest_mib") == f.at("highest_mib") ? "" : f.at("lowest_mib") + " to " + f.at("highest_mib") + " (" + f.at("logs") + ")";
    const std::string reserved = r.both_reserved() ? fmt::format("{:.0f} | {:.0f} ({:+.1f} %)", r.measured_reserved, r.captured_reserved, r.off_reserved() / r.measured_reserved * 100) : f.at("reserved_mib") + " | " + f.at("captured_reserved_mib");
    std::cout << fmt::format("| {} | {} | {} | {:.0f} | {} | {:.2f} | {:+.0f} ({:+.2f} %) | {} | {} | {} |\n", f.at("id"), r.record(), f.at("torch"), r.measured, reruns, r.captured, r.off(), r.off() / r.measured * 100, reserved, f.at("phase"), f.at("unknown"));
  }
  std::map<std::string, std::string> why;
  for (const Row& r : rows) {
    if (r.there() || r.field.at("refused").empty()) continue;
    std::string& ids = why[r.field.at("refused")];
    ids += (ids.empty() ? "" : ", ") + r.field.at("id");
  }
  std::cout << "\n";
  for (const auto& [reason, ids] : why) std::cout << fmt::format("- not captured: {}: {}\n", ids, reason);
  if (!why.empty()) std::cout << "\n";
}

struct Sum {
  int rows = 0, close = 0;
  double total = 0, worst = 0;
  void add(double off, double measured) {
    ++rows, total += std::fabs(off / measured);
    close += std::fabs(off) <= 1 ? 1 : 0;
    if (std::fabs(off / measured) > std::fabs(worst)) worst = off / measured;
  }
};

// What the logs of the same record print, which differ where time decides.
std::pair<double, double> reruns(const Row& r) { return {parse_real(r.field.at("lowest_mib"), "").value_or(0), parse_real(r.field.at("highest_mib"), "").value_or(0)}; }

void print_summary(const std::vector<Row>& rows) {
  Sum known, others, reserved;
  int left = 0, refused = 0, differ = 0, among = 0;
  for (const Row& r : rows) {
    if (!r.there()) {
      ++(r.field.at("refused").empty() ? left : refused);
      continue;
    }
    (r.field.at("unknown").empty() ? known : others).add(r.off(), r.measured);
    const auto [lowest, highest] = reruns(r);
    differ += lowest < highest ? 1 : 0;
    among += lowest < highest && std::floor(r.captured) >= lowest && std::floor(r.captured) <= highest ? 1 : 0;
    if (r.both_reserved()) reserved.add(r.off_reserved(), r.measured_reserved);
  }
  std::cout << "| figure | rows | within 1 MiB | mean error | largest |\n| --- | ---: | ---: | ---: | ---: |\n";
  const auto line = [](const char* name, const Sum& s) {
    if (s.rows > 0) std::cout << fmt::format("| {} | {} | {} | {:.2f} % | {:+.2f} % |\n", name, s.rows, s.close, s.total / s.rows * 100, s.worst * 100);
  };
  line("allocated, all known", known);
  line("allocated, something unknown", others);
  line("reserved", reserved);
  std::cout << fmt::format("\nof {} captured rows {} are of records whose logs differ, {} among them; {} could not be captured, {} were not tried\n", known.rows + others.rows, differ, among, refused, left);
}

}  // namespace

int captured_accuracy(const char* path, const char* mode, const char* argument) {
  auto rows = read_rows(path, read);
  if (!rows) return refuse(rows.error());
  const std::string_view m = mode;
  if (m == "--check" || m == "--errors") std::erase_if(*rows, [](const Row& r) { return !r.there(); });
  if (m == "--check") return check_rows(*rows, argument, " captured", "MiB", 0, 0.5, [](const Row& r) { return r.off(); }, [](const Row&) { return std::string(); });
  if (m == "--errors") return print_errors(*rows, "each captured script in MiB", "mib", 0, [](const Row& r) { return r.off(); });
  if (m != "--summary") print_rows(*rows);
  print_summary(*rows);
  return 0;
}

}  // namespace dryfit
