// Recordings: what watch saw, as JSON lines. The first line says what machine and job, each further line is one moment. Text in, values
// out, any input: fields of the wrong kind, counts and lengths beyond reason are errors with their place. Files are opened elsewhere.
// Format: docs/watch.md.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "watch/moment.hpp"

namespace dryfit {

inline constexpr int kRecordingVersion = 1;
inline constexpr std::size_t kLongestRecordingLine = 1 << 20;

struct RecordingHeader {
  std::int64_t started_ms = 0;         // wall clock of the first moment, ms since 1970; 0: not known
  std::string source;                  // "nvml"
  std::vector<GpuSample> gpus;         // what does not change
};

std::string write_recording_header(const RecordingHeader& header);  // one line, with its end
std::string write_recording_moment(const Moment& moment);

// Lines in order. Errors: "not_a_recording", "newer_recording", "bad_recording"; `where` is "line N".
class RecordingReader {
 public:
  Result<void> read_header(std::string_view line);
  Result<Moment> read_moment(std::string_view line);
  const RecordingHeader& header() const { return header_; }

 private:
  RecordingHeader header_;
  double last_ = 0;
  std::int64_t line_ = 0;
};

}  // namespace dryfit
