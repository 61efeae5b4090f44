// doctor --live at the edge: some seconds of a running job, from this machine's driver or from a recording. The judgement is doctor/.
#pragma once

#include <optional>
#include <string>

#include "cli/cli.hpp"
#include "doctor/known_run.hpp"
#include "report/text.hpp"

namespace dryfit::cli {

struct DoctorLiveRequest {
  Given given;
  std::optional<std::int64_t> pid;
  std::string log, replay;             // empty: none
  std::optional<double> seconds;       // none: 5; of a recording its last minute
  bool json = false;
};

// Exit status: 0 a job was judged, 1 nothing trains here, or every GPU was lost. Ctrl-C ends the reading early and judges what was read.
// Errors: those of watch's sources, "bad_recording", and those of the flags.
Result<int> doctor_live(const DoctorLiveRequest& request, const Env& env, const Style& style);

}  // namespace dryfit::cli
