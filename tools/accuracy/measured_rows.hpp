// What the three reports of dryfit-accuracy share: the rows of a file, and whether an error has grown past what the tests' golden has.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/text.hpp"

namespace dryfit {

using FieldMap = std::map<std::string, std::string>;

// Each row of a CSV file by the names in its first line, as `predict` makes of it. Errors: "bad_row" and those of predict; `where` is the row.
template <class Predict>
auto read_rows(const char* path, Predict predict) -> Result<std::vector<typename decltype(predict(FieldMap()))::value_type>> {
  std::ifstream in(path);
  std::string line;
  std::vector<std::string> header;
  std::vector<typename decltype(predict(FieldMap()))::value_type> rows;
  while (std::getline(in, line)) {
    const std::vector<std::string_view> fields = split(line, ',');
    if (header.empty()) {
      header.assign(fields.begin(), fields.end());
      continue;
    }
    if (fields.size() != header.size()) return fail("bad_row", "a row has " + std::to_string(fields.size()) + " fields, not " + std::to_string(header.size()), "commas separate fields", line);
    FieldMap f;
    for (std::size_t i = 0; i < header.size(); ++i) f[header[i]] = fields[i];
    auto row = predict(std::move(f));
    if (!row) return fail(row.error().code, row.error().message, row.error().hint, line);
    rows.push_back(std::move(*row));
  }
  return rows;
}

// Twice the largest error of some rows on each side, at least 0.1 %, as fractions of the prediction: how much too high and too low predictions were.
struct Band {
  double below = 0.001, above = 0.001;
  int rows = 0;
  void add(double measured, double predicted) {
    const double off = measured / predicted - 1;
    ++rows, below = std::max(below, -2 * off), above = std::max(above, 2 * off);
  }
  bool holds(double measured, double predicted) const { return measured >= predicted * (1 - below) && measured <= predicted * (1 + above); }
};

// Why a file could not be read, and the exit status.
inline int refuse(const Error& e) {
  std::cerr << e.message << "\n  " << e.where << "\n";
  return 2;
}

// The golden that check_rows() reads. what: "measured speed in percent"; column: its unit's name, "percent".
template <class Row, class Value>
int print_errors(const std::vector<Row>& rows, std::string_view what, std::string_view column, int digits, Value error) {
  std::cout << "# error of " << what << ", as of the commit that last wrote this; a larger one fails the tests\nid\terror_" << column << "\n";
  for (const Row& r : rows) std::cout << fmt::format("{}\t{:.{}f}\n", r.field.at("id"), error(r), digits);
  return 0;
}

// Fails when a row's error has grown past what the golden ("id<TAB>error" lines) has by more than `slack`, is not in it, or is `wrong` whatever it is.
// error: of a row, in `unit`, shown with `digits` after the point; what: " of speed" and the like.
template <class Row, class Error, class Wrong>
int check_rows(const std::vector<Row>& rows, const char* golden, std::string_view what, std::string_view unit, int digits, double slack, Error error, Wrong wrong) {
  std::ifstream in(golden);
  std::map<std::string, double> known;
  std::string line, id;
  double old = 0;
  while (std::getline(in, line)) {
    std::istringstream fields(line);
    if (fields >> id >> old) known[id] = old;
  }
  const auto shown = [&](double e) { return fmt::format("{:+.{}f} {}", e, digits, unit); };
  int worse = 0;
  for (const Row& r : rows) {
    const auto before = known.find(r.field.at("id"));
    const double now = error(r);
    const std::string fault = wrong(r);
    if (before != known.end() && std::fabs(now) <= std::fabs(before->second) + slack && fault.empty()) continue;
    ++worse;
    std::cout << fmt::format("{}: {}\n", r.field.at("id"), !fault.empty() ? fault : fmt::format("error {}, was {}", shown(now), before == known.end() ? "not recorded" : shown(before->second)));
  }
  std::cout << fmt::format("{} rows{}, {} worse than recorded\n", rows.size(), what, worse);
  return worse == 0 && !rows.empty() ? 0 : 1;
}

}  // namespace dryfit
