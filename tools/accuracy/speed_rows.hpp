// What both reports of speed share: the interval that rows give, the pairs of them that are ranked right.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace dryfit {

struct Width { double below = 0, above = 0; int rows = 0; };  // of the prediction: how far the truth lay below it, above it

// 95 % interval of one more row: twice the root mean square of log errors, both ways, around the model as it is; a family counts once. counts(row): whether
// it is judged by; family(row): its name.
template <class Row, class Counts, class Family>
Width width_of(const std::vector<Row>& rows, Counts counts, Family family) {
  std::map<std::string, std::pair<double, int>> families;
  int n = 0;
  for (const Row& r : rows) {
    if (!counts(r)) continue;
    auto& [sum, count] = families[family(r)];
    sum += std::log(r.measured / r.predicted) * std::log(r.measured / r.predicted);
    ++count;
    ++n;
  }
  double mean = 0;
  for (const auto& [name, f] : families) mean += f.first / f.second;
  const double half = 2 * std::sqrt(mean / static_cast<double>(std::max<std::size_t>(1, families.size())));
  return {1 - std::exp(-half), std::exp(half) - 1, n};
}

// kind: what the judged rows are called. comparable(a, b): whether a pair is one that somebody would choose between.
template <class Row, class Counts, class Comparable>
void print_ranking(const std::vector<Row>& rows, std::string_view kind, Counts counts, Comparable comparable) {
  int pairs = 0, right = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (std::size_t j = i + 1; j < rows.size(); ++j) {
      if (!counts(rows[i]) || !counts(rows[j]) || !comparable(rows[i], rows[j])) continue;
      const double measured = std::log(rows[i].measured / rows[j].measured), predicted = std::log(rows[i].predicted / rows[j].predicted);
      if (std::fabs(measured) < std::log(1.05)) continue;
      ++pairs;
      right += measured * predicted > 0 ? 1 : 0;
    }
  }
  std::cout << fmt::format("ranking: {} of {} pairs of {} that differ by more than 5 % are in the right order ({:.1f} %)\n", right, pairs, kind, 100.0 * right / std::max(1, pairs));
}

// gives(row): whether the interval is made of it. range(row): the speeds of the slowest and the fastest host.
template <class Row, class Counts, class Family, class Gives, class Range>
void print_left_out(const std::vector<Row>& rows, std::string_view kind, std::string_view of, Counts counts, Family family, Gives gives, Range range) {
  std::set<std::string> families;
  int inside = 0, n = 0;
  for (const Row& r : rows) {
    if (!counts(r)) continue;
    ++n;
    families.insert(family(r));
    const Width w = width_of(rows, [&](const Row& other) { return gives(other) && family(other) != family(r); }, family);
    const auto [slowest, fastest] = range(r);
    inside += r.measured >= slowest * (1 - w.below) && r.measured <= fastest * (1 + w.above) ? 1 : 0;
  }
  std::cout << fmt::format("leave one family out ({} families of {}): {} of {} {} lie inside the interval that the other families give\n", families.size(), of, inside, n, kind);
}

}  // namespace dryfit
