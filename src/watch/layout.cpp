// See layout.hpp.
#include "watch/layout.hpp"

#include <algorithm>
#include <array>

namespace dryfit {

namespace {

constexpr int kPanels = 9, kGraphLeast = 5, kGraphMost = 14, kSideBySide = 120, kGraphGap = 1;

class Rows {
 public:
  explicit Rows(int height) : left_(height) {}
  // Grants up to `wanted` rows in total to the panel, all or as many as are left.
  void upto(WatchPanel panel, int wanted) {
    int& have = rows_[static_cast<std::size_t>(panel)];
    const int more = std::clamp(wanted - have, 0, left_);
    have += more;
    left_ -= more;
  }
  void all_or_nothing(WatchPanel panel, int wanted) {
    if (wanted <= left_) upto(panel, wanted);
  }
  int of(WatchPanel panel) const { return rows_[static_cast<std::size_t>(panel)]; }
  int left() const { return left_; }

 private:
  std::array<int, kPanels> rows_{};
  int left_;
};

}  // namespace

std::vector<PanelBox> layout(const WatchNeeds& needs, int width, int height) {
  using enum WatchPanel;
  width = std::max(1, width);
  height = std::max(1, height);
  Rows rows(height);
  const bool beside = width >= kSideBySide && needs.graph && needs.processes > 0;  // processes right of the graph
  rows.upto(title, 1);
  rows.upto(gpus, std::min(needs.gpus, 1));
  rows.upto(findings, std::min(needs.findings, 1));
  rows.upto(verdict, needs.verdict);
  rows.upto(progress, needs.progress);
  rows.upto(gpus, needs.gpus);
  rows.upto(footer, needs.footer);
  rows.upto(findings, needs.findings);
  if (needs.graph) rows.all_or_nothing(graph, kGraphLeast);
  rows.upto(notes, needs.notes);
  if (!beside) rows.upto(processes, needs.processes);
  if (rows.of(graph) > 0) rows.upto(graph, kGraphMost);

  std::vector<PanelBox> out;
  int y = 0;
  const auto place = [&](WatchPanel panel) {
    if (rows.of(panel) == 0) return;
    out.push_back({panel, 0, y, width, rows.of(panel)});
    y += rows.of(panel);
  };
  for (WatchPanel panel : {title, gpus, verdict, findings}) place(panel);
  if (rows.of(graph) > 0) {
    const int graph_width = beside ? width * 3 / 5 : width;
    out.push_back({graph, 0, y, graph_width, rows.of(graph)});
    if (beside) out.push_back({processes, graph_width + kGraphGap, y, width - graph_width - kGraphGap, std::min(rows.of(graph), needs.processes)});
    y += rows.of(graph);
  }
  for (WatchPanel panel : {progress, processes, notes, footer}) place(panel);
  return out;
}

}  // namespace dryfit
