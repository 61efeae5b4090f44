// See operators.hpp. A figure is MiB with all its digits, of a 32-bit float: the benchmark keeps them in a tensor of such.
#include "operators.hpp"

#include <fmt/format.h>

#include <cmath>
#include <iostream>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/text.hpp"
#include "measured_rows.hpp"
#include "memory/timeline.hpp"
#include "operator_programs.hpp"
#include "plan/plan.hpp"

namespace dryfit {

namespace {

struct Row {
  FieldMap field;
  OperatorCode code = OperatorCode::models;
  double measured = 0, predicted = 0;  // MiB
  bool known = false;
  double off() const { return predicted - measured; }
};

// "B=8 T=2048"
Result<std::map<std::string, std::int64_t>> sizes_of(std::string_view text) {
  std::map<std::string, std::int64_t> out;
  for (const std::string_view word : split(text, ' ')) {
    const std::size_t at = word.find('=');
    const auto n = at == std::string_view::npos ? std::nullopt : std::optional(parse_int(word.substr(at + 1), "sizes"));
    if (!n || !*n || **n < 1) return fail("bad_row", "sizes are NAME=NUMBER", "\"" + std::string(word) + "\" is not", "sizes");
    out[std::string(word.substr(0, at))] = **n;
  }
  return out;
}

Result<Row> predict(FieldMap f) {
  const auto sizes = sizes_of(f["sizes"]);
  if (!sizes) return std::unexpected(sizes.error());
  const auto machine = machine_from_flags({f["gpu"], 1, std::nullopt, std::nullopt});
  if (!machine) return std::unexpected(machine.error());
  const auto made = operator_program(f["operator"], f["provider"], *sizes, target_of(*machine));
  if (!made) return std::unexpected(made.error());
  const Timeline timeline = run_timeline(made->program);
  const ReservedResult simulated = simulate_reserved(made->program, {}, std::nullopt);
  Row row;
  row.code = made->code;
  row.measured = parse_real(f["measured_mib"], "measured_mib").value_or(0);
  row.known = f["known"] == "yes";
  for (std::size_t i = 0; i < timeline.phases.size(); ++i) {
    if (timeline.phases[i].phase == kMeasuredCall) row.predicted = simulated.by_phase[i].allocated.mib();
  }
  row.predicted = static_cast<float>(row.predicted);  // the benchmark keeps its figures in a 32-bit tensor
  row.field = std::move(f);
  return row;
}

constexpr double kExact = 0.0002;  // MiB: half a block of 512 bytes

struct Sum {
  int rows = 0, exact = 0;
  double worst = 0, relative = 0;
  std::set<std::string> unknown;
  void add(const Row& r) {
    ++rows;
    exact += std::fabs(r.off()) < kExact ? 1 : 0;
    if (std::fabs(r.off()) > std::fabs(worst)) worst = r.off(), relative = r.off() / r.measured;
    if (!r.field.at("unknown").empty()) unknown.insert(r.field.at("unknown"));
  }
};

void print_summary(const std::vector<Row>& rows) {
  std::map<std::pair<std::string, std::string>, std::pair<Sum, OperatorCode>> sums;
  Sum models, report, not_known;
  for (const Row& r : rows) {
    auto& [sum, code] = sums[{r.field.at("operator"), r.field.at("provider")}];
    code = r.code;
    sum.add(r);
    (!r.known ? not_known : r.code == OperatorCode::models ? models : report).add(r);
  }
  std::cout << "| operator | of | laid out by | rows | to the byte | largest error | not known |\n| --- | --- | --- | ---: | ---: | ---: | --- |\n";
  for (const auto& [name, of] : sums) {
    const auto& [sum, code] = of;
    std::cout << fmt::format("| {} | {} | {} | {} | {} | {:+.3f} MiB ({:+.2f} %) | {} |\n", name.first, name.second, code == OperatorCode::models ? "models' code" : "the report", sum.rows, sum.exact, sum.worst, sum.relative * 100, sum.unknown.empty() ? "" : *sum.unknown.begin());
  }
  const auto told = [](const Sum& s) { return fmt::format("{} of {} to the byte, largest error {:+.3f} MiB", s.exact, s.rows, s.worst); };
  std::cout << "\nfully known, by models' code: " << told(models) << "\nfully known, written for the report: " << told(report) << "\nothers: " << told(not_known) << "\n";
}

void print_rows(const std::vector<Row>& rows) {
  std::cout << "| row | operator | of | sizes | GPU | measured MiB | predicted MiB | error |\n| --- | --- | --- | --- | --- | ---: | ---: | ---: |\n";
  for (const Row& r : rows) {
    const auto& f = r.field;
    std::cout << fmt::format("| {} | {} | {} | {} | {} | {:.4f} | {:.4f} | {:+.4f} |\n", f.at("id"), f.at("operator"), f.at("provider"), f.at("sizes"), f.at("gpu"), r.measured, r.predicted, r.off());
  }
  std::cout << "\n";
}

}  // namespace

int operators_accuracy(const char* path, const char* mode, const char* argument) {
  const auto rows = read_rows(path, predict);
  if (!rows) return refuse(rows.error());
  const std::string_view m = mode;
  if (m == "--check") return check_rows(*rows, argument, " of operators", "MiB", 4, kExact, [](const Row& r) { return r.off(); }, [](const Row&) { return std::string(); });
  if (m == "--errors") return print_errors(*rows, "each measured operator in MiB", "mib", 4, [](const Row& r) { return r.off(); });
  if (m != "--summary") print_rows(*rows);
  print_summary(*rows);
  return 0;
}

}  // namespace dryfit
