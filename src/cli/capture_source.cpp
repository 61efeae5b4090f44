// See capture_source.hpp.
#include "cli/capture_source.hpp"

#include <algorithm>

#include "base/text.hpp"

namespace dryfit::cli {

namespace {

constexpr const char* kMachineAndOutput[] = {"capture", "gpu", "gpus", "memory", "reserve", "alloc-conf", "json", "color", "ascii", "quiet", "verbose", "alternatives", "timeline", "svg"};

}  // namespace

Result<Capture> read_capture(const Options& options, const Env& env) {
  const std::string path = options.get("capture").value_or("");
  if (path.empty()) return fail("missing_value", "--capture has an empty name", "write --capture FILE, or - for standard input", "--capture");
  for (const auto& [flag, value] : options.flags) {
    if (std::ranges::find(kMachineAndOutput, std::string_view(flag)) == std::end(kMachineAndOutput)) return fail("bad_value", "--" + flag + " and --capture do not go together", "a capture is a run as it is: capture the changed script instead", "--" + flag);
  }
  if (options.has_pasted) return fail("bad_value", "a pasted command and --capture do not go together", "to capture a script: python -m dryfit.capture -- train.py", "--capture");
  CaptureReader reader;
  const auto read = env.stream_file(path, [&](std::string_view chunk, const ReadProgress&) { return reader.feed(chunk); });
  if (!read) return std::unexpected(read.error());
  auto capture = reader.finish();
  if (capture) {
    const auto gpus = parse_int(options.get("gpus").value_or(std::to_string(capture->gpus)), "--gpus");
    if (!gpus) return std::unexpected(gpus.error());
    const std::string wanted = std::to_string(*gpus);
    if (*gpus != capture->gpus) return fail("bad_value", "--gpus " + wanted + ", and this was captured as one of " + std::to_string(capture->gpus), "capture it so: python -m dryfit.capture --gpus " + wanted + " -- train.py", "--gpus");
    return capture;
  }
  Error error = capture.error();
  error.where = (path == "-" ? "standard input" : path) + ", " + error.where;
  return std::unexpected(error);
}

}  // namespace dryfit::cli
