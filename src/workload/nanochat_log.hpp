// What nanochat's base_train prints, read line by line: its header, its step lines, its end. Tells what a run is and how far it got;
// knows nothing of files. Wordings: print0 calls of scripts/base_train.py from 2025-10-13 (E1) to 2026-07-03 (E7).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "workload/workload.hpp"

namespace dryfit {

// "step 00012/02205 (0.54%) | loss: 9.1 | lrm: 1.00 | dt: 380.51ms | tok/sec: 1,377,854 | bf16_mfu: 48.12 | ... | eta: 13.9m"
struct LogStep {
  std::int64_t step = 0;
  std::optional<std::int64_t> of;          // absent in fine-tuning
  std::optional<double> loss, seconds, tokens_per_second, mfu, total_seconds, eta_seconds;  // mfu 0..1
};
std::optional<LogStep> parse_step_line(std::string_view line);

enum class LogPhase { loading, first_step, training, ended };
std::string_view name_of(LogPhase phase);

// One run of a log. Empty: not printed (yet).
struct LogRun {
  std::optional<std::string> gpu, dtype, window_pattern;
  std::optional<std::int64_t> vocab, depth, width, heads, max_seq_len, device_batch_size, world_size, total_batch_size, grad_accum_steps, resumed_at;
  std::optional<bool> flash_attention3;
  bool fp8 = false, fine_tuning = false;
  std::int64_t steps = 0;                  // step lines seen
  std::optional<LogStep> first, last;
  std::optional<double> validation_bpb, core_metric;
  std::int64_t validations = 0, core_evaluations = 0;
  std::optional<Bytes> peak_allocated;     // "Peak memory usage: 75422.02MiB": max_memory_allocated, at the end
  std::optional<double> training_seconds;
  std::vector<double> rates, mfus;         // tokens/s and mfu of steps after the tenth, the newest kRates of them
  LogPhase phase() const;
  std::optional<double> median_rate() const;  // empty below five steps
  std::optional<double> median_mfu() const;
};

// Lines in order; a log may hold several runs (a speedrun's pretraining and fine-tuning, a restart).
class LogReader {
 public:
  static constexpr std::size_t kRates = 1001, kMostRuns = 64;
  void line(std::string_view text);
  const LogRun& current() const { return run_; }
  // All runs, the current one last when it holds anything.
  std::vector<LogRun> runs() const;

 private:
  bool header(std::string_view text);
  bool configuration(std::string_view text);
  void step(const LogStep& step);
  void begin();                            // a header line after steps: a new run

  LogRun run_;
  std::vector<LogRun> earlier_;
};

// The run's flags as far as its header tells them. Empty optional when it does not tell depth, batch and length.
std::optional<WorkloadFlags> flags_of(const LogRun& run);

}  // namespace dryfit
