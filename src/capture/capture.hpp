// A capture file: the allocations and frees of a training script as PyTorch made them on a GPU that was not there, as text (docs/capture.md).
// Lines to a Program, any input; what the program means for a GPU is plan's, opening files is cli's.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "passes/attention_scratch.hpp"
#include "passes/program.hpp"
#include "workload/captured.hpp"

namespace dryfit {

inline constexpr std::int64_t kCaptureVersion = 1;
inline constexpr std::size_t kLongestCaptureLine = 1 << 16;

// A call of one of torch's operators that allocates beside its results, and lets that go before it returns.
struct CapturedKernel {
  enum class Kind : std::uint8_t { attention, attention_backward, embedding_backward } kind;
  std::int32_t before_event = 0;   // of the program as it was written: its results are there, what follows is not
  std::int16_t layer = -1;
  std::int8_t stream = 0;
  AttentionBackwardCall attention = {};
  std::int64_t ids = 0, rows = 0, width = 0;  // of an embedding: looked up, its table's
};

struct Capture {
  CapturedRun run;
  std::int64_t gpus = 1;
  Program program;  // as it was written: cuBLAS workspaces are as large as on an H100, kernels take nothing inside
  std::vector<CapturedKernel> kernels;
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

// The program with workspaces, and what kernels take inside, as this GPU has them.
Program fit_to(const Capture& capture, const Target& target);

}  // namespace dryfit
