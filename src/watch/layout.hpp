// Layout: which panel stands where on a screen of any size. A pure function of what there is to show and the size; nothing is drawn here.
#pragma once

#include <vector>

namespace dryfit {

enum class WatchPanel { title, gpus, verdict, findings, graph, progress, processes, notes, footer };

struct PanelBox { WatchPanel panel; int x = 0, y = 0, width = 0, height = 0; };

// Rows each panel would like; 0: nothing to show there. graph: whether there is anything to plot.
struct WatchNeeds {
  int gpus = 1, verdict = 1, findings = 0, progress = 0, processes = 0, notes = 0, footer = 1;
  bool graph = true;
};

// Boxes within width x height, from top to bottom, that never overlap; at least the title. Sizes below 1 are taken as 1.
// What matters most is kept when rows run out: title, one GPU, the worst finding, the verdict, the progress, the other GPUs.
std::vector<PanelBox> layout(const WatchNeeds& needs, int width, int height);

}  // namespace dryfit
