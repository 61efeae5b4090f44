// Layout and frames over many sizes: nothing overlaps, nothing leaves the screen, nothing is empty.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <fstream>

#include "report/watch.hpp"
#include "watch/probe_recording.hpp"

namespace dryfit {
namespace {

bool overlap(const PanelBox& a, const PanelBox& b) { return a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height; }

void expect_sound(const std::vector<PanelBox>& boxes, int width, int height) {
  RC_ASSERT(!boxes.empty());
  RC_ASSERT(boxes.front().panel == WatchPanel::title);
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    const PanelBox& b = boxes[i];
    RC_ASSERT(b.width > 0 && b.height > 0 && b.x >= 0 && b.y >= 0 && b.x + b.width <= width && b.y + b.height <= height);
    for (std::size_t j = 0; j < i; ++j) RC_ASSERT(!overlap(b, boxes[j]) && b.panel != boxes[j].panel);
  }
}

RC_GTEST_PROP(Layout, holdsItsBoxes, ()) {
  const auto n = [](int most) { return *rc::gen::inRange(0, most); };
  WatchNeeds needs{n(20), n(2), n(9), n(2), n(9), n(7), n(2), *rc::gen::arbitrary<bool>()};
  const int width = *rc::gen::inRange(1, 400), height = *rc::gen::inRange(1, 120);
  expect_sound(layout(needs, width, height), width, height);
}

TEST(Layout, everySmallSize) {
  for (int width = 1; width <= 130; ++width) {
    for (int height = 1; height <= 40; ++height) {
      for (const WatchNeeds& needs : {WatchNeeds{}, WatchNeeds{8, 1, 3, 1, 7, 2, 1, true}, WatchNeeds{1, 1, 0, 0, 0, 1, 0, false}}) {
        const auto boxes = layout(needs, width, height);
        ASSERT_FALSE(boxes.empty());
        int rows = 0;
        for (const PanelBox& b : boxes) {
          ASSERT_LE(b.y + b.height, height);
          ASSERT_LE(b.x + b.width, width);
          if (b.x == 0) rows += b.height;
        }
        ASSERT_LE(rows, height);
      }
    }
  }
}

TEST(Layout, whatMattersMostIsKept) {
  const WatchNeeds needs{8, 1, 3, 1, 7, 2, 1, true};
  const auto has = [&](int height, WatchPanel panel) { return std::ranges::any_of(layout(needs, 80, height), [&](const PanelBox& b) { return b.panel == panel; }); };
  EXPECT_TRUE(has(2, WatchPanel::gpus));
  EXPECT_TRUE(has(3, WatchPanel::findings));
  EXPECT_TRUE(has(4, WatchPanel::verdict));
  EXPECT_TRUE(has(5, WatchPanel::progress));
  EXPECT_FALSE(has(5, WatchPanel::graph));
  EXPECT_TRUE(has(24, WatchPanel::graph));
  EXPECT_TRUE(has(40, WatchPanel::processes));
}

// A watcher fed with a recording up to a moment.
struct Played {
  explicit Played(const std::string& name, std::size_t most = 1000) : watcher({}) {
    std::ifstream in(std::string(DRYFIT_SOURCE_DIR "/tests/watch/recordings/") + name + ".jsonl");
    std::string line;
    std::getline(in, line);
    RecordingReader reader;
    EXPECT_TRUE(reader.read_header(line)) << name;
    for (std::size_t i = 0; i < most && std::getline(in, line); ++i) {
      const auto moment = reader.read_moment(line);
      EXPECT_TRUE(moment) << name << ": " << moment.error().message;
      if (moment) watcher.take(*moment);
    }
  }
  Watcher watcher;
};

std::string plain(std::string_view line) {
  std::string out;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\x1b') {
      while (i < line.size() && line[i] != 'm') ++i;
    } else {
      out += line[i];
    }
  }
  return out;
}
int columns(std::string_view text) {
  return static_cast<int>(std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

TEST(Frame, staysOnTheScreenAtEverySize) {
  for (const char* name : {"eight_h100", "leak_4090", "container_4090", "lost_gpu"}) {
    for (std::size_t moments : {1, 3, 1000}) {
      const Played played(name, moments);
      WatchView view = played.watcher.view();
      view.footer = "q quit";
      for (int width : {1, 2, 3, 7, 10, 20, 39, 40, 60, 79, 80, 100, 119, 120, 121, 200, 500}) {
        for (int height : {1, 2, 3, 5, 8, 10, 13, 20, 24, 30, 50, 100}) {
          for (const bool colour : {false, true}) {
            Style style;
            style.colour = colour;
            style.ascii = height % 2 == 1;
            const auto lines = watch_frame(view, width, height, style);
            ASSERT_GE(lines.size(), 1U);
            ASSERT_LE(static_cast<int>(lines.size()), height);
            ASSERT_NE(plain(lines[0]).find_first_not_of(' '), std::string::npos) << name << " " << width;
            for (const std::string& l : lines) {
              ASSERT_LE(columns(plain(l)), width) << name << " " << width << "x" << height << ": " << l;
              ASSERT_EQ(l.find_first_of("\n\r\t"), std::string::npos);
              ASSERT_TRUE(!style.ascii || std::ranges::all_of(plain(l), [](char c) { return static_cast<unsigned char>(c) < 128; })) << l;
            }
          }
        }
      }
    }
  }
}

TEST(Frame, hostileTextCannotDriveTheTerminal) {
  Moment moment;
  GpuSample g;
  g.name = "\x1b[2J\x1b]0;owned\x07 GPU\n\xff\xfe";
  g.total = gib(24), g.used = gib(1);
  moment.sample.gpus = {g};
  ProcessSample p;
  p.pid = 1, p.name = "a\x1b[31mb\r\n";
  moment.sample.processes = {p};
  moment.sample.notes = {"note\x1b[0m"};
  moment.job = SeenJob{1, "python -m scripts.base_train '\x1b[5m'", {}};
  Watcher watcher({});
  watcher.take(moment);
  for (const std::string& l : watch_frame(watcher.view(), 120, 40, {})) {
    for (char c : l) ASSERT_GE(static_cast<unsigned char>(c), 32) << l;
  }
  EXPECT_EQ(watch_prometheus(watcher.view()).find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace dryfit
