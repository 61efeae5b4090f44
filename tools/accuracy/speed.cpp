// See speed.hpp.
#include "speed.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "measured_rows.hpp"
#include "base/text.hpp"
#include "plan/plan.hpp"

namespace dryfit {

namespace {

struct Row { std::map<std::string, std::string> field; double measured = 0, predicted = 0; bool stock = false; StepTime parts; };
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
  const auto w = make_nanochat_workload(flags);
  if (!w) return std::unexpected(w.error());
  const auto m = machine_from_flags({f["gpu"], flags.gpus, std::nullopt, std::nullopt});
  if (!m) return std::unexpected(m.error());
  const auto speed = estimate_speed(*w, *m, build_program(*w, target_of(*m), w->run.grad_accum_steps > 1).work);
  if (!speed) return fail("no_speed", "no speed for " + f["id"], "", f["gpu"]);
  Row row{std::move(f), 0, speed->tokens_per_second, false, speed->parts};
  row.measured = parse_real(row.field["tokens_per_s"], "tokens_per_s").value_or(0);
  if (!(row.measured > 0)) return fail("bad_number", "no tokens_per_s in " + row.field["id"], "", "");
  row.stock = row.field["stock"] == "yes";
  return row;
}

// A family: one GPU kind under one epoch of nanochat, fp8 apart.
std::string family_of(const Row& r) { return r.field.at("gpu") + " " + r.field.at("nanochat").substr(0, 2) + (r.field.at("fp8") == "yes" ? " fp8" : ""); }

struct Width { double below = 0, above = 0; int rows = 0; };  // of the prediction: how far the truth lay below it, above it

// 95 % interval of one more row: twice the root mean square of log errors, both ways, around the model as it is; a family counts once.
template <class Chosen>
Width width_of(const std::vector<Row>& rows, Chosen chosen) {
  std::map<std::string, std::pair<double, int>> families;
  int n = 0;
  for (const Row& r : rows) {
    if (!r.stock || !chosen(r)) continue;
    auto& [sum, count] = families[family_of(r)];
    sum += std::log(r.measured / r.predicted) * std::log(r.measured / r.predicted);
    ++count;
    ++n;
  }
  double mean = 0;
  for (const auto& [name, f] : families) mean += f.first / f.second;
  const double half = 2 * std::sqrt(mean / static_cast<double>(std::max<std::size_t>(1, families.size())));
  return {1 - std::exp(-half), std::exp(half) - 1, n};
}

void print_ranking(const std::vector<Row>& rows) {
  int pairs = 0, right = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (std::size_t j = i + 1; j < rows.size(); ++j) {
      if (!rows[i].stock || !rows[j].stock) continue;
      const double measured = std::log(rows[i].measured / rows[j].measured), predicted = std::log(rows[i].predicted / rows[j].predicted);
      if (std::fabs(measured) < std::log(1.05)) continue;
      ++pairs;
      right += measured * predicted > 0 ? 1 : 0;
    }
  }
  std::cout << fmt::format("ranking: {} of {} pairs of stock rows that differ by more than 5 % are in the right order ({:.1f} %)\n", right, pairs, 100.0 * right / std::max(1, pairs));
}

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
  std::set<std::string> families;
  int inside = 0;
  for (const Row& r : rows) {
    if (!r.stock) continue;
    families.insert(family_of(r));
    sum += std::fabs(error_of(r));
    worst = std::max(worst, std::fabs(error_of(r)));
    errors.push_back(std::fabs(error_of(r)));
    const Width w = width_of(rows, [&](const Row& other) { return family_of(other) != family_of(r); });
    inside += r.measured >= r.predicted * (1 - w.below) && r.measured <= r.predicted * (1 + w.above) ? 1 : 0;
  }
  if (errors.empty()) return;
  std::ranges::sort(errors);
  const std::size_t n = errors.size();
  std::cout << fmt::format("stock rows: {}, median error {:.1f} %, mean {:.1f} %, largest {:.1f} %\n", n, errors[n / 2] * 100, sum / static_cast<double>(n) * 100, worst * 100);
  print_ranking(rows);
  std::cout << fmt::format("leave one family out ({} families of GPU, epoch and fp8): {} of {} stock rows lie inside the interval that the other families give\n", families.size(), inside, n);
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
    std::cout << fmt::format(" waiting {:.2f} roofline {:.2f} measured {:.2f}\n", r.parts.waiting * 1e3, r.parts.roofline * 1e3, measured * 1e3);
  }
}

int check(const std::vector<Row>& rows, const char* path) {
  return check_rows(rows, path, " of speed", "%", 1, 0.11, [](const Row& r) { return error_of(r) * 100; }, [](const Row&) { return std::string(); });
}

}  // namespace

int speed_accuracy(const char* path, const char* mode, const char* argument) {
  const auto rows = read_rows(path, predict);
  if (!rows) {
    std::cerr << rows.error().message << " " << rows.error().where << "\n";
    return 2;
  }
  const std::string_view m = mode;
  if (m == "--check") return check(*rows, argument);
  if (m == "--parts") {
    print_parts(*rows);
  } else if (m == "--summary") {
    print_by_gpu(*rows);
    print_summary(*rows);
  } else if (m == "--errors") {
    std::cout << "# error of each measured speed in percent, as of the commit that last wrote this; a larger one fails the tests\nid\terror_percent\n";
    for (const Row& r : *rows) std::cout << fmt::format("{}\t{:.1f}\n", r.field.at("id"), error_of(r) * 100);
  } else if (m == "--intervals") {
    const Width w = width_of(*rows, [](const Row&) { return true; });
    std::cout << fmt::format("family,below,above,rows,date\nall,{:.3f},{:.3f},{},{}\n", w.below, w.above, w.rows, argument);
  } else {
    return print_all(*rows);
  }
  return 0;
}

}  // namespace dryfit
