// See transformers.hpp. A row's `flags` are dryfit's own, read by the command line's reader; `loop` says what its loop does that no flag says.
#include "transformers.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <iostream>
#include <map>
#include <set>
#include <sstream>

#include "measured_rows.hpp"
#include "base/text.hpp"
#include "cli/model_source.hpp"
#include "cli/terminal.hpp"
#include "plan/plan.hpp"

namespace dryfit {

namespace {

struct Row {
  std::map<std::string, std::string> field;
  bool known = false, oom = false;
  double measured = 0, predicted = 0;  // MiB
  Verdict verdict = Verdict::fits;
  double error() const { return oom ? 0 : predicted / measured - 1; }
};

std::vector<std::string_view> words_of(std::string_view text) {
  std::vector<std::string_view> out;
  for (const std::string_view word : split(text, ' ')) {
    if (!word.empty()) out.push_back(word);
  }
  return out;
}

// What the program around the model does, in words: Training's fields that are no flags.
Result<void> apply_loop(std::string_view loop, Training& t) {
  for (const std::string_view word : words_of(loop)) {
    if (word == "padded") t.padded = true;
    else if (word == "cache") t.use_cache = true;
    else if (word == "names-outputs") t.holds_outputs = true, t.converts_outputs = t.holds_batches = false;  // and no accelerate around the model, nor Trainer's loop
    else if (word == "last-stage") t.megatron.stage = t.megatron.pipeline - 1;  // the figure is of the last rank
    else if (word == "thunder") t.loss_chunk = 0, t.holds_outputs = false, t.max_grad_norm = 0;  // LitGPT's extensions/thunder/pretrain.py
    else if (word.starts_with("litgpt-")) {  // the date of its code
      const auto date = parse_int(word.substr(7), "loop");
      if (!date) return std::unexpected(date.error());
      t.litgpt.date = static_cast<std::int32_t>(*date);
    }
    else if (word.starts_with("torchtune-")) {
      const auto date = parse_int(word.substr(10), "loop");
      if (!date) return std::unexpected(date.error());
      t.torchtune.date = static_cast<std::int32_t>(*date);
    }
    else if (word.starts_with("torchtitan-")) {
      const auto date = parse_int(word.substr(11), "loop");
      if (!date) return std::unexpected(date.error());
      t.torchtitan.date = static_cast<std::int32_t>(*date);
    }
    else return fail("bad_row", "loop: " + std::string(word) + " is not known", "see apply_loop", "loop");
  }
  return {};
}

}  // namespace

Result<Report> transformers_report(const FieldMap& f) {
  std::string flags = f.at("flags");
  std::ranges::replace(flags, ';', ',');  // lists, in a table whose fields hold no commas
  std::vector<std::string_view> words{"check", "--transformers", "4.57.1"};  // what these rows were measured with, or older
  for (const std::string_view word : words_of(flags)) words.push_back(word);
  const auto options = cli::parse_options(words);
  if (!options) return std::unexpected(options.error());
  const cli::Env env = cli::machine_env();
  const auto request = cli::transformers_request(*options, env);
  if (!request) return std::unexpected(request.error());
  auto workload = cli::transformers_workload(*request, env);
  if (!workload) return std::unexpected(workload.error());
  if (auto ok = apply_loop(f.at("loop"), workload->transformers->training); !ok) return std::unexpected(ok.error());
  const auto machine = machine_from_flags({f.at("gpu"), 1, std::nullopt, std::nullopt});
  if (!machine) return std::unexpected(machine.error());
  EstimateOptions how;
  if (request->alloc_conf) {
    const auto conf = parse_alloc_conf(*request->alloc_conf);
    if (!conf) return std::unexpected(conf.error());
    how.allocator = *conf;
  }
  return estimate(*workload, *machine, how);
}

namespace {

// Of the whole run, or of the one phase in which the row was measured.
double predicted_mib(const Report& r, const std::string& kind, const std::string& phase) {
  for (const PhaseResult& p : r.phases) {
    if (p.name == phase) return (kind == "reserved" ? p.reserved : p.allocated).mib();
  }
  return (kind == "reserved" ? r.reserved : r.allocated).bytes.mib();
}

Result<Row> predict(std::map<std::string, std::string> f) {
  const auto report = transformers_report(f);
  if (!report) return std::unexpected(report.error());
  Row row;
  row.known = f.at("known") == "yes";
  row.oom = f.at("kind") == "oom";
  row.verdict = report->verdict;
  row.predicted = predicted_mib(*report, f.at("kind"), f.at("phase"));
  if (!row.oom) row.measured = parse_real(f.at("measured_mib"), "measured_mib").value_or(0);
  row.field = std::move(f);
  return row;
}

struct Sum {
  int rows = 0;
  double total = 0, worst = 0;
  void add(double error) {
    ++rows;
    total += std::fabs(error);
    if (std::fabs(error) > std::fabs(worst)) worst = error;
  }
  std::string shown() const { return rows == 0 ? "- | - | -" : fmt::format("{} | {:.1f} % | {:+.1f} %", rows, total / rows * 100, worst * 100); }
};

// Of the fully known rows.
template <class Chosen>
Band band_of(const std::vector<Row>& rows, Chosen chosen) {
  Band b;
  for (const Row& r : rows) {
    if (r.known && !r.oom && chosen(r)) b.add(r.measured, r.predicted);
  }
  return b;
}

constexpr std::array<std::string_view, 2> kFamiliesWithIntervals = {"litgpt", "megatron"};  // those with fully known rows enough; torchtune has one of a step

// What rows must not share to judge each other: the model, its name or its file; of Megatron-LM, whose models are all of one size, the command.
std::string subject_of(const Row& r) {
  if (r.field.at("family") == "megatron") return r.field.at("flags");
  const auto words = words_of(r.field.at("flags"));
  const auto config = std::ranges::find(words, "--config");
  if (config != words.end() && config + 1 != words.end()) return std::string(config[1]);
  return words.size() < 2 ? "" : std::string(words[1]);
}

void print_summary(const std::vector<Row>& rows) {
  std::map<std::string, std::pair<Sum, Sum>> families;
  std::map<std::string, std::pair<int, int>> ooms;
  Sum known, others;
  int oom = 0, called_fitting = 0;
  for (const Row& r : rows) {
    const std::string& family = r.field.at("family");
    if (r.oom) {
      ++oom, ++ooms[family].first;
      if (r.verdict == Verdict::fits) ++called_fitting, ++ooms[family].second;
      families[family];
      continue;
    }
    (r.known ? families[family].first : families[family].second).add(r.error());
    (r.known ? known : others).add(r.error());
  }
  std::cout << "| family | fully known rows | mean error | largest | other rows | mean error | largest | out of memory | of these called fitting |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n";
  for (const auto& [family, sums] : families) std::cout << fmt::format("| {} | {} | {} | {} | {} |\n", family, sums.first.shown(), sums.second.shown(), ooms[family].first, ooms[family].second);
  std::cout << fmt::format("| all | {} | {} | {} | {} |\n\n", known.shown(), others.shown(), oom, called_fitting);
  for (const std::string_view family : kFamiliesWithIntervals) {
    std::set<std::string> subjects;
    int inside = 0, judged = 0;
    for (const Row& r : rows) {
      if (!r.known || r.oom || r.field.at("family") != family) continue;
      subjects.insert(subject_of(r));
      const Band b = band_of(rows, [&](const Row& o) { return o.field.at("family") == family && subject_of(o) != subject_of(r); });
      if (b.rows == 0) continue;
      ++judged;
      inside += b.holds(r.measured, r.predicted) ? 1 : 0;
    }
    std::cout << fmt::format("{}: leave one {} out ({} of them): {} of {} fully known rows lie inside the interval that the others give\n", family, family == "megatron" ? "command" : "model", subjects.size(), inside, judged);
  }
}

void print_rows(const std::vector<Row>& rows) {
  std::cout << "| row | run | kind | measured MiB | predicted MiB | error | not known |\n| --- | --- | --- | ---: | ---: | ---: | --- |\n";
  for (const Row& r : rows) {
    const auto& f = r.field;
    const std::string run = f.at("flags") + (f.at("loop").empty() ? "" : " (" + f.at("loop") + ")") + ", " + f.at("gpu");
    if (r.oom) std::cout << fmt::format("| {} | {} | out of memory | - | {:.0f} | {} | {} |\n", f.at("id"), run, r.predicted, name_of(r.verdict), f.at("unknown"));
    else std::cout << fmt::format("| {} | {} | {} | {:.0f} | {:.0f} | {:+.1f} % | {} |\n", f.at("id"), run, f.at("kind"), r.measured, r.predicted, r.error() * 100, f.at("unknown"));
  }
  std::cout << "\n";
}

// No error may grow, and no run that went out of memory may be called fitting.
int check(const std::vector<Row>& rows, const char* path) {
  return check_rows(rows, path, " of transformers", "%", 2, 0.011, [](const Row& r) { return r.error() * 100; },
                    [](const Row& r) { return r.oom && r.verdict == Verdict::fits ? fmt::format("ran out of memory, called {}", name_of(r.verdict)) : ""; });
}

}  // namespace

int transformers_accuracy(const char* path, const char* mode, const char* argument) {
  const auto rows = read_rows(path, predict);
  if (!rows) return refuse(rows.error());
  const std::string_view m = mode;
  if (m == "--check") return check(*rows, argument);
  if (m == "--errors") return print_errors(*rows, "each measured run of a Hugging Face model in percent", "percent", 2, [](const Row& r) { return r.error() * 100; });
  if (m == "--intervals") {
    for (const std::string_view family : kFamiliesWithIntervals) {
      const Band b = band_of(*rows, [&](const Row& r) { return r.field.at("family") == family; });
      std::cout << fmt::format("{},{:.4f},{:.4f},{},{}\n", family, b.below, b.above, b.rows, argument);
    }
    return 0;
  }
  if (m != "--summary") print_rows(*rows);
  print_summary(*rows);
  return 0;
}

}  // namespace dryfit
