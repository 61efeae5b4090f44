// See transformers_speed.hpp. A row's `flags` and `loop` are read as those of data/measured/transformers.csv; `known` says whether all of it is; `differs` what is not the same.
#include "transformers_speed.hpp"

#include "measured_rows.hpp"
#include "speed_rows.hpp"
#include "transformers.hpp"
#include "plan/plan.hpp"

namespace dryfit {

namespace {

struct Row { FieldMap field; double measured = 0, predicted = 0; bool known = false; StepTime parts; double tokens = 0; };
double error_of(const Row& r) { return r.predicted / r.measured - 1; }
bool is_known(const Row& r) { return r.known; }
std::string family_of(const Row& r) { return r.field.at("family") + ", " + r.field.at("gpu"); }

// FlashAttention 1 as it was written in Triton: FlashAttention 2 is 1.3 to 1.5 times as fast forward and twice backward (arXiv 2307.08691, 4.1).
SpeedEstimate by_triton(const Report& r) {
  GpuRates rates = *rates_of(r.machine.gpu);
  rates.attention_forward = 1 / 1.4;
  rates.attention_backward = 1 / 2.0;
  return *estimate_speed(r.workload, r.machine, program_for(r.workload, target_of(r.machine), r.workload.run.grad_accum_steps > 1)->work, {.rates = &rates});
}

Result<Row> predict(FieldMap f) {
  const auto report = transformers_report(f);
  if (!report) return std::unexpected(report.error());
  if (!report->speed) return fail("no_speed", "no speed for " + f["id"], "", f["gpu"]);
  const SpeedEstimate speed = f["attention"] == "triton" ? by_triton(*report) : *report->speed;
  Row row{std::move(f), 0, speed.tokens_per_second, false, speed.parts, static_cast<double>(report->workload.run.total_batch_size)};
  row.measured = parse_real(row.field["tokens_per_s"], "tokens_per_s").value_or(0);
  if (!(row.measured > 0)) return fail("bad_number", "no tokens_per_s in " + row.field["id"], "", "");
  row.known = row.field["known"] == "yes";
  return row;
}

void print_summary(const std::vector<Row>& rows) {
  struct Sum { std::vector<double> errors; double bias = 0, worst = 0; };
  std::map<std::string, Sum> families;
  Sum all;
  for (const Row& r : rows) {
    if (!r.known) continue;
    for (Sum* s : {&families[family_of(r)], &all}) {
      s->errors.push_back(std::fabs(error_of(r)));
      s->bias += error_of(r);
      if (std::fabs(error_of(r)) >= std::fabs(s->worst)) s->worst = error_of(r);
    }
  }
  std::cout << "| runs, GPU | rows | median error | mean, signed | largest |\n| --- | ---: | ---: | ---: | ---: |\n";
  const auto line = [](const std::string& name, Sum s) {
    if (s.errors.empty()) return;
    std::ranges::sort(s.errors);
    std::cout << fmt::format("| {} | {} | {:.1f} % | {:+.1f} % | {:+.1f} % |\n", name, s.errors.size(), s.errors[s.errors.size() / 2] * 100, s.bias / static_cast<double>(s.errors.size()) * 100, s.worst * 100);
  };
  for (const auto& [name, sum] : families) line(name, sum);
  line("all", all);
  std::cout << "\n";
  print_ranking(rows, "rows", is_known, [](const Row&, const Row&) { return true; });
  print_ranking(rows, "rows of one family", is_known, [](const Row& a, const Row& b) { return family_of(a) == family_of(b); });
  print_left_out(rows, "rows", "program and GPU", is_known, family_of, is_known, [](const Row& r) { return std::pair(r.predicted, r.predicted); });
}

void print_rows(const std::vector<Row>& rows) {
  std::cout << "| row | run | measured tok/s | predicted | error | known |\n| --- | --- | ---: | ---: | ---: | --- |\n";
  for (const Row& r : rows) {
    std::string flags = r.field.at("flags");
    if (const auto folder = flags.find("data/measured/configs/"); folder != std::string::npos) flags.erase(folder, 22);
    std::cout << fmt::format("| {} | `{}`, {} | {:.0f} | {:.0f} | {:+.1f} % | {} |\n", r.field.at("id"), flags, r.field.at("gpu"), r.measured, r.predicted, error_of(r) * 100, r.field.at("known"));
  }
  std::cout << "\n";
}

void print_parts(const std::vector<Row>& rows) {
  for (const Row& r : rows) {
    std::cout << fmt::format("{} {:9.2f} ms:", r.field.at("id"), r.parts.seconds * 1e3);
    for (int k = 0; k < kWorkKinds; ++k) std::cout << fmt::format(" {} {:.2f}", name_of(static_cast<WorkKind>(k)), r.parts.by_kind[static_cast<std::size_t>(k)] * 1e3);
    std::cout << fmt::format(" waiting {:.2f} roofline {:.2f} measured {:.2f}\n", r.parts.waiting * 1e3, r.parts.roofline * 1e3, r.tokens / r.measured * 1e3);
  }
}

}  // namespace

int transformers_speed_accuracy(const char* path, const char* mode, const char* argument) {
  const auto rows = read_rows(path, predict);
  if (!rows) return refuse(rows.error());
  const std::string_view m = mode;
  if (m == "--check") return check_rows(*rows, argument, " of speed", "%", 1, 0.11, [](const Row& r) { return error_of(r) * 100; }, [](const Row&) { return std::string(); });
  if (m == "--errors") return print_errors(*rows, "each measured speed of a Hugging Face model in percent", "percent", 1, [](const Row& r) { return error_of(r) * 100; });
  if (m == "--intervals") {
    const Width w = width_of(*rows, is_known, family_of);
    std::cout << fmt::format("transformers,{:.3f},{:.3f},{},{}\n", w.below, w.above, w.rows, argument);
    return 0;
  }
  if (m == "--parts") {
    print_parts(*rows);
    return 0;
  }
  if (m != "--summary") print_rows(*rows);
  print_summary(*rows);
  return 0;
}

}  // namespace dryfit
