// --capture FILE|-: a training script's allocations, as python -m dryfit.capture wrote them.
#pragma once

#include "capture/capture.hpp"
#include "cli/cli.hpp"

namespace dryfit::cli {

// Errors: "unreadable_file", those of CaptureReader with the file named, and "bad_value" where other flags describe a run too.
Result<Capture> read_capture(const Options& options, const Env& env);

}  // namespace dryfit::cli
