// See speed.hpp.
#include "speed.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "measured_rows.hpp"
#include "speed_rows.hpp"
#include "transformers_speed.hpp"
#include "base/text.hpp"
#include "plan/plan.hpp"

namespace dryfit {

namespace {

struct Row { std::map<std::string, std::string> field; double measured = 0, predicted = 0; double slowest = 0, fastest = 0; bool stock = false; StepTime parts; };
double error_of(const Row& r) { return r.predicted / r.measured - 1; }

std::optional<std::int64_t> number(const std::string& text) {
  const auto n = parse_int(text, "");
  return n ? std::optional(*n) : std::nullopt;
}

Result<Row> predict(std::map<std::string, std::string> f) {
  WorkloadFlags flags;
  flags.nanochat = f["nanochat"];
  flags.depth = number(f["depth"]);
  flags.gpus = number(f["gpus"]);
  flags.vocab_size = number(f["vocab_size"]);
  flags.max_seq_len = number(f["max_seq_len"]);
  flags.device_batch_size = number(f["device_batch_size"]);
  flags.total_batch_size = number(f["total_batch_size"]);
  flags.fp8 = f["fp8"] == "yes";
  flags.torch = f["torch"];
  if (!f["window_pattern"].empty()) flags.window_pattern = f["window_pattern"];
  if (!f["attention"].empty()) flags.attention = f["attention"];
  const auto w = make_nanochat_workload(flags);
  if (!w) return std::unexpected(w.error());
  const auto m = machine_from_flags({f["gpu"], flags.gpus, std::nullopt, std::nullopt});
  if (!m) return std::unexpected(m.error());
  const auto speed = estimate_speed(*w, *m, build_program(*w, target_of(*m), w->run.grad_accum_steps > 1).work);
  if (!speed) return fail("no_speed", "no speed for " + f["id"], "", f["gpu"]);
  const SpeedBand band = speed_band("all");
  Row row{std::move(f), 0, speed->tokens_per_second, speed->low / (1 - band.below), speed->high / (1 + band.above), false, speed->parts};
  row.measured = parse_real(row.field["tokens_per_s"], "tokens_per_s").value_or(0);
  if (!(row.measured > 0)) return fail("bad_number", "no tokens_per_s in " + row.field["id"], "", "");
  row.stock = row.field["stock"] == "yes";
  return row;
}

// A family: one GPU kind under one epoch of nanochat, fp8 apart.
std::string family_of(const Row& r) { return r.field.at("gpu") + " " + r.field.at("nanochat").substr(0, 2) + (r.field.at("fp8") == "yes" ? " fp8" : ""); }

bool is_stock(const Row& r) { return r.stock; }
bool tells_of_the_model(const Row& r) { return r.stock && r.parts.loading == 0; }  // else its host's CPU decides

// README's table: one line a kind of GPU.
void print_by_gpu(const std::vector<Row>& rows) {
  struct Sum { double error = 0, worst = 0; int rows = 0; };
  std::map<std::string, Sum> by_gpu;
  for (const Row& r : rows) {
    if (!r.stock) continue;
    Sum& s = by_gpu[r.field.at("gpu")];
    s.error += std::fabs(error_of(r));
    if (std::fabs(error_of(r)) >= std::fabs(s.worst)) s.worst = error_of(r);
    ++s.rows;
  }
  std::cout << "| GPU | rows | mean error | largest |\n| --- | ---: | ---: | ---: |\n";
  for (const auto& [gpu, s] : by_gpu) std::cout << fmt::format("| {} | {} | {:.1f} % | {:+.1f} % |\n", gpu, s.rows, s.error / s.rows * 100, s.worst * 100);
  std::cout << "\n";
}

void print_summary(const std::vector<Row>& rows) {
  double sum = 0, worst = 0;
  std::vector<double> errors;
  for (const Row& r : rows) {
    if (!r.stock) continue;
    sum += std::fabs(error_of(r));
    worst = std::max(worst, std::fabs(error_of(r)));
    errors.push_back(std::fabs(error_of(r)));
  }
  if (errors.empty()) return;
  std::ranges::sort(errors);
  const std::size_t n = errors.size();
  std::cout << fmt::format("stock rows: {}, median error {:.1f} %, mean {:.1f} %, largest {:.1f} %\n", n, errors[n / 2] * 100, sum / static_cast<double>(n) * 100, worst * 100);
  print_ranking(rows, "stock rows", is_stock, [](const Row&, const Row&) { return true; });
  print_left_out(rows, "stock rows", "GPU, epoch and fp8", is_stock, family_of, tells_of_the_model, [](const Row& r) { return std::pair(r.slowest, r.fastest); });
}

int print_all(const std::vector<Row>& rows) {
  std::cout << "| row | nanochat | run | measured tok/s | predicted | error | stock |\n| --- | --- | --- | ---: | ---: | ---: | --- |\n";
  for (const Row& r : rows) {
    const auto& f = r.field;
    std::cout << fmt::format("| {} | {} | d{} B{} {}x{}{} | {:.0f} | {:.0f} | {:+.1f} % | {} |\n", f.at("id"), f.at("nanochat"), f.at("depth"), f.at("device_batch_size"), f.at("gpus"), f.at("gpu"), f.at("fp8") == "yes" ? " fp8" : "", r.measured, r.predicted, error_of(r) * 100, f.at("stock"));
  }
  std::cout << "\n";
  print_summary(rows);
  return 0;
}

void print_parts(const std::vector<Row>& rows) {
  for (const Row& r : rows) {
    std::cout << fmt::format("{} {:8.2f} ms:", r.field.at("id"), r.parts.seconds * 1e3);
    for (int k = 0; k < kWorkKinds; ++k) std::cout << fmt::format(" {} {:.2f}", name_of(static_cast<WorkKind>(k)), r.parts.by_kind[static_cast<std::size_t>(k)] * 1e3);
    const double measured = std::stod(r.field.at("total_batch_size")) / r.measured;
    std::cout << fmt::format(" waiting {:.2f} loading {:.2f} roofline {:.2f} measured {:.2f}\n", r.parts.waiting * 1e3, r.parts.loading * 1e3, r.parts.roofline * 1e3, measured * 1e3);
  }
}

int check(const std::vector<Row>& rows, const char* path) {
  return check_rows(rows, path, " of speed", "%", 1, 0.11, [](const Row& r) { return error_of(r) * 100; }, [](const Row&) { return std::string(); });
}

// Rows of Hugging Face models have flags where nanochat's have columns.
bool of_models(const char* path) {
  std::ifstream in(path);
  std::string header;
  return std::getline(in, header) && header.find(",flags,") != std::string::npos;
}

}  // namespace

int speed_accuracy(const char* path, const char* mode, const char* argument) {
  if (of_models(path)) return transformers_speed_accuracy(path, mode, argument);
  const auto rows = read_rows(path, predict);
  if (!rows) return refuse(rows.error());
  const std::string_view m = mode;
  if (m == "--check") return check(*rows, argument);
  if (m == "--parts") {
    print_parts(*rows);
  } else if (m == "--summary") {
    print_by_gpu(*rows);
    print_summary(*rows);
  } else if (m == "--errors") {
    print_errors(*rows, "each measured speed in percent", "percent", 1, [](const Row& r) { return error_of(r) * 100; });
  } else if (m == "--intervals") {
    const Width w = width_of(*rows, tells_of_the_model, family_of);
    std::cout << fmt::format("family,below,above,rows,date\nall,{:.3f},{:.3f},{},{}\n", w.below, w.above, w.rows, argument);
  } else {
    return print_all(*rows);
  }
  return 0;
}

}  // namespace dryfit
