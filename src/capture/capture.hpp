// A capture file: the allocations and frees of a training script as PyTorch made them on a GPU that was not there, as text (docs/capture.md).
// Lines to a Program, any input; what the program means for a GPU is plan's, opening files is cli's.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "passes/program.hpp"
#include "workload/captured.hpp"

namespace dryfit {

inline constexpr std::int64_t kCaptureVersion = 1;
inline constexpr std::size_t kLongestCaptureLine = 1 << 16;

struct Capture {
  CapturedRun run;
  std::int64_t gpus = 1;
  Program program;  // cuBLAS workspaces are as large as on an H100 until fit_to()
};

// Fed a file piece by piece, however it is cut; memory grows with the events alone.
// Errors: "not_a_capture", "newer_capture", "bad_capture", "empty_capture"; `where` is "line N".
class CaptureReader {
 public:
  CaptureReader();
  ~CaptureReader();
  CaptureReader(CaptureReader&&) noexcept;
  CaptureReader& operator=(CaptureReader&&) noexcept;
  bool feed(std::string_view bytes);  // false: no use in reading on, finish() says why
  Result<Capture> finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Workspaces as this GPU has them.
void fit_to(Capture& capture, const Target& target);

}  // namespace dryfit
