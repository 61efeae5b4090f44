// See chart.hpp.
#include "report/chart.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace dryfit {

namespace {

// text within XML
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') out += "&amp;";
    else if (c == '<') out += "&lt;";
    else if (c == '>') out += "&gt;";
    else if (static_cast<unsigned char>(c) >= 32) out += c;
  }
  return out;
}

}  // namespace

Look look_of(Category category) {
  static constexpr Look kLooks[] = {{'P', "34", "#4c78a8"}, {'G', "36", "#72b7b2"}, {'O', "35", "#b279a2"}, {'A', "32", "#54a24b"}, {'L', "33", "#eeca3b"},
                                    {'T', "31", "#e45756"}, {'N', "95", "#ff9da6"}, {'C', "90", "#9d755d"}, {'F', "37", "#bab0ac"}};
  return kLooks[static_cast<std::size_t>(category)];
}

std::string chart_svg(const Chart& chart) {
  constexpr double kWidth = 900, kHeight = 420, kLeft = 60, kTop = 30, kBottom = 40;
  const double plot_w = kWidth - kLeft - 160, plot_h = kHeight - kTop - kBottom;
  const auto x = [&](double at) { return kLeft + at / chart.last_x * plot_w; };
  const auto y = [&](double bytes) { return kTop + plot_h * (1 - bytes / chart.most); };
  std::string out = fmt::format("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
                                "<text x=\"{}\" y=\"18\" font-size=\"14\">{}</text>\n",
                                kWidth, kHeight, kLeft, escaped(chart.title));
  std::vector<double> base(chart.x.size(), 0);
  for (std::size_t c = 0; c < chart.areas.size(); ++c) {
    const Chart::Area& area = chart.areas[c];
    std::string forward, back;
    if (std::ranges::none_of(area.bytes, [](double b) { return b > 0; })) continue;
    for (std::size_t i = 0; i < chart.x.size(); ++i) {
      back = fmt::format("{:.1f},{:.1f} ", x(chart.x[i]), y(base[i])) + back;
      base[i] += area.bytes[i];
      forward += fmt::format("{:.1f},{:.1f} ", x(chart.x[i]), y(base[i]));
    }
    out += fmt::format("<polygon points=\"{}{}\" fill=\"{}\"><title>{}</title></polygon>\n", forward, back, area.hex, escaped(area.name));
    out += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{}\" y=\"{}\">{}</text>\n", kWidth - 150, kTop + 18 * static_cast<double>(c), area.hex, kWidth - 132, kTop + 18 * static_cast<double>(c) + 10, escaped(area.name));
  }
  if (!chart.outline.empty()) {
    std::string points;
    for (std::size_t i = 0; i < chart.x.size(); ++i) points += fmt::format("{:.1f},{:.1f} ", x(chart.x[i]), y(chart.outline[i]));
    out += fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"black\"><title>reserved</title></polyline>\n", points);
  }
  for (const Chart::Line& line : chart.lines) {
    const double at = y(line.bytes);
    out += fmt::format("<line x1=\"{}\" y1=\"{:.1f}\" x2=\"{}\" y2=\"{:.1f}\" stroke=\"black\" stroke-dasharray=\"5 4\"/><text x=\"{}\" y=\"{:.1f}\">{}</text>\n", kLeft, at, kLeft + plot_w, at, kLeft + 4, at - 4, escaped(line.text));
  }
  for (const auto& [at, text] : chart.marks) {
    out += fmt::format("<line x1=\"{:.1f}\" y1=\"{}\" x2=\"{:.1f}\" y2=\"{}\" stroke=\"#e45756\"><title>{}</title></line>\n", x(at), kTop, x(at), kTop + plot_h, escaped(text));
  }
  for (int tick = 0; tick <= 4; ++tick) {
    const double bytes = chart.most * tick / 4;
    out += chart.most >= 4.0 * (1 << 30) ? fmt::format("<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{:.0f} GiB</text>\n", kLeft - 6, y(bytes) + 4, bytes / (1 << 30))
                                         : fmt::format("<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{:.0f} MiB</text>\n", kLeft - 6, y(bytes) + 4, bytes / (1 << 20));
  }
  return out + "</svg>\n";
}

}  // namespace dryfit
