// See own.hpp. What dryfit is asked is the row's `flags`, as a user would type them; its answer is read from the JSON it prints.
#include "own.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <iostream>
#include <map>
#include <set>
#include <sstream>

#include "base/text.hpp"
#include "cli/cli.hpp"
#include "cli/terminal.hpp"
#include "measured_rows.hpp"
#include "workload/probe_document.hpp"

namespace dryfit {

namespace {

constexpr std::array<const char*, 3> kFigures = {"allocated", "reserved", "process"};

struct Figure { double measured = 0, predicted = 0; bool there = false; double off() const { return predicted - measured; } };
struct Row { FieldMap field; std::array<Figure, 3> figures; std::optional<double> step_ms; };  // step_ms: predicted

Result<Row> predict(FieldMap f) {
  Row row;
  row.field = std::move(f);
  const std::string asked = row.field["flags"];
  if (asked.empty()) return row;
  std::vector<std::string_view> words{"check", "--json", "--quiet"};
  std::vector<std::string> owned;
  for (const std::string_view word : split(asked, ' ')) {
    if (word.empty()) continue;
    owned.emplace_back(word);
    for (char& c : owned.back()) c = c == ';' ? ',' : c;  // a comma would end the field
  }
  words.insert(words.end(), owned.begin(), owned.end());
  std::string answer, said;
  cli::Env env = cli::machine_env();
  env.out = [&](std::string_view text) { answer += text; };
  env.err = [&](std::string_view text) { said += text; };
  const int status = cli::run(words, env);
  if (status != cli::kOk && status != cli::kDoesNotFit) return fail("bad_row", "dryfit check " + asked + ": " + said, "see flags");
  const auto document = document_from_json(answer, "the answer");
  if (!document) return std::unexpected(document.error());
  const Document* memory = document->find("memory");
  for (std::size_t i = 0; i < kFigures.size(); ++i) {
    const Document* one = memory == nullptr ? nullptr : memory->find(kFigures[i]);
    const auto measured = parse_real(row.field[std::string(kFigures[i]) + "_mib"], kFigures[i]);
    if (one == nullptr || one->find("bytes") == nullptr || !measured) continue;
    row.figures[i] = {*measured, Bytes(one->find("bytes")->whole).mib(), true};
  }
  const Document* speed = document->find("speed");
  const Document* step = speed == nullptr ? nullptr : speed->find("step_seconds");
  if (step != nullptr) row.step_ms = step->real * 1e3;
  return row;
}

// Of the rows that were timed.
void print_steps(const std::vector<Row>& rows) {
  std::cout << "| row | run | measured ms | predicted | measured less predicted |\n| --- | --- | ---: | ---: | ---: |\n";
  for (const Row& r : rows) {
    const auto measured = parse_real(r.field.at("step_ms"), "step_ms");
    if (!measured || !r.step_ms) continue;
    const auto& f = r.field;
    std::cout << fmt::format("| {} | {} d{} B{} T{} | {:.1f} | {:.1f} | {:+.1f} |\n", f.at("id"), f.at("nanochat"), f.at("depth"), f.at("device_batch_size"), f.at("max_seq_len"), *measured, *r.step_ms, *measured - *r.step_ms);
  }
}

void print_rows(const std::vector<Row>& rows) {
  std::cout << "| row | run | allocated MiB | dryfit | reserved MiB | dryfit | process MiB | dryfit |\n| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n";
  for (const Row& r : rows) {
    if (!r.figures[0].there) continue;
    std::cout << fmt::format("| {} | `{}`", r.field.at("id"), r.field.at("flags"));
    for (std::size_t i = 0; i < kFigures.size(); ++i) std::cout << fmt::format(" | {:.{}f} | {:+.{}f}", r.figures[i].measured, i == 0 ? 2 : 0, r.figures[i].off(), i == 0 ? 2 : 0);
    std::cout << " |\n";
  }
  std::cout << "\n";
}

// Of Trainer's rows.
template <class Chosen>
Band band_of(const std::vector<Row>& rows, Chosen chosen) {
  Band b;
  for (const Row& r : rows) {
    if (r.field.at("kind") == "trainer" && chosen(r)) b.add(r.figures[0].measured, r.figures[0].predicted);
  }
  return b;
}

// Each model's rows judged by the interval of all the others'.
void print_coverage(const std::vector<Row>& rows) {
  std::set<std::string> models;
  int inside = 0, judged = 0;
  for (const Row& r : rows) {
    if (r.field.at("kind") != "trainer") continue;
    models.insert(r.field.at("model"));
    const Band b = band_of(rows, [&](const Row& o) { return o.field.at("model") != r.field.at("model"); });
    ++judged, inside += b.holds(r.figures[0].measured, r.figures[0].predicted) ? 1 : 0;
  }
  std::cout << fmt::format("\ntrainer: leave one model out ({} of them): {} of {} rows lie inside the interval that the others give\n", models.size(), inside, judged);
}

void print_summary(const std::vector<Row>& rows) {
  struct Sum { int rows = 0, close = 0; double total = 0, worst = 0; };
  std::map<std::string, std::array<Sum, 3>> kinds;
  for (const Row& r : rows) {
    for (std::size_t i = 0; i < kFigures.size(); ++i) {
      if (!r.figures[i].there) continue;
      Sum& s = kinds[r.field.at("kind")][i];
      const double relative = r.figures[i].off() / r.figures[i].measured;
      ++s.rows, s.total += std::fabs(relative);
      s.close += std::fabs(r.figures[i].off()) <= 1 ? 1 : 0;
      if (std::fabs(relative) > std::fabs(s.worst)) s.worst = relative;
    }
  }
  std::cout << "| runs | figure | rows | within 1 MiB | mean error | largest |\n| --- | --- | ---: | ---: | ---: | ---: |\n";
  for (const auto& [kind, sums] : kinds) {
    for (std::size_t i = 0; i < kFigures.size(); ++i) {
      const Sum& s = sums[i];
      if (s.rows > 0) std::cout << fmt::format("| {} | {} | {} | {} | {:.3f} % | {:+.2f} % |\n", kind, kFigures[i], s.rows, s.close, s.total / s.rows * 100, s.worst * 100);
    }
  }
}

}  // namespace

int own_accuracy(const char* path, const char* mode, const char* argument) {
  auto rows = read_rows(path, predict);
  if (!rows) return refuse(rows.error());
  std::erase_if(*rows, [](const Row& r) { return !r.figures[0].there; });
  const std::string_view m = mode;
  if (m == "--check") return check_rows(*rows, argument, " of our own", "MiB", 2, 0.011, [](const Row& r) { return r.figures[0].off(); }, [](const Row&) { return std::string(); });
  if (m == "--errors") return print_errors(*rows, "max_memory_allocated of each run measured by tools/measure in MiB", "mib", 2, [](const Row& r) { return r.figures[0].off(); });
  if (m == "--intervals") {
    const Band b = band_of(*rows, [](const Row&) { return true; });
    std::cout << fmt::format("transformers,{:.4f},{:.4f},{},{}\n", b.below, b.above, b.rows, argument);
    return 0;
  }
  if (m == "--steps") {
    print_steps(*rows);
    return 0;
  }
  if (m != "--summary") print_rows(*rows);
  print_summary(*rows);
  print_coverage(*rows);
  return 0;
}

}  // namespace dryfit
