// Where watch's moments come from: this machine, or a recording. The edge that opens files and asks the driver.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "machine/process.hpp"
#include "machine/sampler.hpp"
#include "watch/moment.hpp"

namespace dryfit::cli {

class WatchSource {
 public:
  virtual ~WatchSource() = default;
  // The next moment; empty at the end of a recording. A live source never ends. Errors: "gpu_lost", "bad_recording", ...
  virtual Result<std::optional<Moment>> next() = 0;
  virtual std::vector<GpuSample> gpus() const = 0;   // fixed readings, for a recording's first line
  virtual MachineSource kind() const = 0;
  virtual std::string name() const = 0;              // "nvml"; of a recording: the one it was made with
  virtual std::vector<std::string> notes() const = 0;
  virtual bool live() const = 0;
};

struct LiveRequest { std::optional<std::int64_t> pid; std::string log; };  // log: empty for none
// Errors: "no_gpu", "no_process", "unreadable_file", ...
Result<std::unique_ptr<WatchSource>> open_live_source(const LiveRequest& request);
// Errors: "unreadable_file", "not_a_recording", "newer_recording", "bad_recording".
Result<std::unique_ptr<WatchSource>> open_replay_source(const std::string& path);

}  // namespace dryfit::cli
