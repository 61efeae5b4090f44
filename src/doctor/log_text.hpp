// Single lines of training logs to values: who wrote the line, a frame of a traceback, a step, a memory reading, a training command,
// nanochat's printed configuration. Each is a pure function of one line; doctor/log.hpp puts them together.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.hpp"
#include "doctor/oom_text.hpp"

namespace dryfit {

// Text safe to print: control characters dropped, cut at a character, at most `most` bytes.
std::string printable(std::string_view text, std::size_t most);
// Without terminal escape sequences, NULs and backspaces.
std::string without_escapes(std::string_view text);

// "[rank3]: ", "[default3]:", "[1,3]<stderr>:", "3: ", "(Worker pid=12, ip=...) ": which process wrote a line of an interleaved log.
struct StreamPrefix { std::string_view key; std::optional<std::int64_t> rank; std::string_view rest; };
StreamPrefix stream_prefix(std::string_view line);

struct Frame { std::string file, function, code; std::int64_t line = 0; };
std::optional<Frame> read_frame(std::string_view line);

struct StepLine {
  std::optional<std::int64_t> step, planned;
  std::optional<double> milliseconds, tokens_per_second, mfu;  // mfu: 0..1
  bool bar = false;                                            // a progress bar's count, not a printed step
};
std::optional<StepLine> read_step(std::string_view line);

struct MemoryReading { std::string label; Amount used; std::optional<Amount> total; };
std::optional<MemoryReading> read_memory(std::string_view line);

// A training command within a line, with the assignments before it: "NANOCHAT_DTYPE=float32 torchrun ...". Empty: none.
std::string_view find_command(std::string_view line);

// Where a traceback stood.
enum class Phase : std::uint8_t { unknown, startup, first_step, second_step, train_step, evaluation, sampling, checkpoint };
std::string_view name_of(Phase phase);
enum class Part : std::uint8_t { unknown, load, resume, data, forward, loss, backward, optimizer, compile, collective };
std::string_view name_of(Part part);

// What one frame tells: where in the step, or that the run was not training.
struct FramePlace { Phase phase = Phase::unknown; Part part = Part::unknown; int rank = 0; };  // higher rank outweighs
FramePlace place_of(const Frame& frame);

// "empty_strided_cuda((65536, 32768), (32768, 1), torch.bfloat16)": the tensor that compiled code was making. Empty: not such a line.
struct AskedTensor { std::string shape, dtype; };
std::optional<AskedTensor> read_asked_tensor(std::string_view code);

}  // namespace dryfit
