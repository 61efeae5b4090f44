// How categories look on screens and charts, and a stacked area chart as SVG. Nothing here knows where the bytes come from.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "passes/program.hpp"

namespace dryfit {

struct Look { char letter; const char* colour; const char* hex; };  // plain, terminal colour code, SVG
Look look_of(Category category);

struct Chart {
  struct Area { std::string name; const char* hex; std::vector<double> bytes; };  // one value for each x
  struct Line { double bytes; std::string text; };
  std::string title;
  std::vector<double> x;                 // ascending, from 0
  double last_x = 1, most = 1;           // ends of the axes
  std::vector<Area> areas;               // from the bottom; those of nothing are left out
  std::vector<Line> lines;               // level ones
  std::vector<std::pair<double, std::string>> marks;  // upright lines at x
  std::vector<double> outline;           // bytes for each x, drawn above the areas; may be empty
};
std::string chart_svg(const Chart& chart);

}  // namespace dryfit
