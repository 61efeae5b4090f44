// Any bytes as a recording: a view that draws at any size and prints as JSON, a diagnosis of the job, or an error with a hint and a place.
#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "doctor/diagnosis.hpp"
#include "report/doctor.hpp"
#include "report/watch.hpp"
#include "watch/probe_recording.hpp"

namespace {

void expect(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace dryfit;
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  const int width = size > 0 ? 1 + data[0] % 160 : 80, height = size > 1 ? 1 + data[1] % 50 : 24;
  const auto line = [&] {
    const std::string_view out = rest.substr(0, std::min(rest.find('\n'), rest.size()));
    rest.remove_prefix(std::min(rest.size(), out.size() + 1));
    return out;
  };
  RecordingReader reader;
  const auto header = reader.read_header(line());
  if (!header) {
    expect(!header.error().hint.empty() && !header.error().where.empty());
    return 0;
  }
  Watcher watcher({});
  Readings readings;
  LogScanner scanner;
  Given given;
  std::vector<std::size_t> used;
  while (!rest.empty()) {
    const auto moment = reader.read_moment(line());
    if (!moment) {
      expect(!moment.error().hint.empty() && !moment.error().where.empty());
      break;
    }
    watcher.take(*moment);
    readings.add(moment->sample);
    for (const std::string& text : moment->log) scanner.feed(text + "\n");
    if (moment->job) given.running = job_of(*moment->job).flags;
  }
  const WatchView view = watcher.view();
  const auto lines = watch_frame(view, width, height, {});
  expect(!lines.empty() && static_cast<int>(lines.size()) <= height);
  for (const std::string& l : lines) expect(std::ranges::all_of(l, [](char c) { return static_cast<unsigned char>(c) >= 32; }));
  expect(!watch_json(view).empty() && !watch_prometheus(view).empty() && !watch_line(view).empty());
  if (watcher.history().samples == 0) return 0;
  if (auto machine = machine_of(watcher.history(), MachineSource::nvml)) given.here = std::move(*machine);
  const auto diagnosis = diagnose_live({}, readings, job_gpus(watcher.history()), scanner.finish(), given);
  if (!diagnosis) return 0;
  expect(!doctor_json(*diagnosis, "x").empty());
  for (char c : doctor_text(*diagnosis, "x", {})) expect(c == '\n' || static_cast<unsigned char>(c) >= 32);
  return 0;
}
