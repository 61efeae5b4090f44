// A training log to facts: runs with what they printed of themselves, steps, memory readings, and every out-of-memory message with
// where it stood. One pass, constant memory, the same facts however the bytes are cut and ranks interleave. Draws no conclusions.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "doctor/lines.hpp"
#include "doctor/log_text.hpp"
#include "doctor/oom_text.hpp"

namespace dryfit {

// Points (x, y) in the order they came, thinned evenly to at most kMost.
class Series {
 public:
  static constexpr std::size_t kMost = 256;
  struct Point { double x, y; };
  void add(double x, double y);
  const std::vector<Point>& points() const { return points_; }
  std::int64_t count() const { return count_; }    // all that came
  std::optional<double> median() const;            // of y
  double largest() const { return largest_; }      // of every y that came

 private:
  std::vector<Point> points_;
  std::int64_t count_ = 0, stride_ = 1;
  double largest_ = 0;
};

struct MemorySeries { std::string label; Series used; std::optional<Bytes> total; };

struct Steps {
  std::int64_t seen = 0;                           // step lines
  std::optional<std::int64_t> first, last, planned;
  bool bar = false;                                // only a progress bar tells
  Series milliseconds, tokens_per_second, mfu;     // without the first steps of the run, which compile
  double usual_ms = 0;                             // running median
  double stalled_ms = 0, total_ms = 0;             // time beyond the usual in steps over 1.5 times it, and all of it
};

// What one run printed of itself. Empty: it did not say.
struct RunLog {
  std::int64_t id = 0, line = 0;                   // where it begins
  bool nanochat = false, json_config = false;      // json_config: as nanochat prints it since 2026-02-05
  std::string command;                             // as pasted or traced by the shell
  std::int64_t command_line = 0;
  std::optional<std::int64_t> layers, heads, width, vocab, device_batch, seq_len, rank_tokens, all_tokens, total_batch, grad_accum, parameters, ranks;
  std::string window_pattern, gpu, dtype, alloc_conf;
  std::map<std::string, std::int64_t> overridden;  // "Overriding: depth = 12", of 2025
  bool fp8 = false, flash3 = false, sdpa = false;
  bool validated = false;                          // a validation was printed
  std::optional<Bytes> peak;                       // nanochat's last line
  Steps steps;
  std::vector<MemorySeries> memory;
  std::int64_t steps_done() const;                 // completed optimizer steps, as far as the log tells
};

struct OomEvent {
  Oom oom;
  std::int64_t line = 0, column = 0;
  std::string stream;                              // which process wrote it; empty: not told
  std::optional<std::int64_t> rank;
  std::int64_t run = 0;                            // RunLog::id
  std::int64_t steps_done = 0;                     // of that run, before it
  bool validated = false;                          // and whether it had validated
  std::vector<Frame> frames;                       // outermost first; the middle of a very deep stack is dropped
  std::int64_t repeats = 1;                        // the same message again in the same stream
  std::string quote;                               // how it begins
};

struct LogFacts {
  Encoding encoding = Encoding::utf8;
  std::int64_t bytes = 0, lines = 0, odd_bytes = 0;
  std::vector<RunLog> runs;                        // at least one; the oldest without a failure are dropped beyond kMostRuns
  std::vector<OomEvent> events;
  std::int64_t events_beyond = 0;                  // not kept
  const RunLog& run(std::int64_t id) const;
  const RunLog* last_run() const;                  // that says anything; null: none does
};

class LogScanner {
 public:
  static constexpr std::size_t kMostRuns = 32, kMostEvents = 96, kMostStreams = 256, kMostFrames = 48, kMostSeries = 8;

  LogScanner();
  void feed(std::string_view bytes) { reader_.feed(bytes); }
  bool binary() const { return reader_.binary(); }
  LogFacts finish();

 private:
  struct Pending { OomEvent event; Wording wording; std::string text; int lines_left; };
  struct Stream {
    std::vector<Frame> frames;
    bool wants_code = false;
    std::optional<Pending> pending;
    std::string command;                           // open: ended with a backslash
    std::int64_t command_line = 0;
  };

  void line(const Line& line);
  void clean(const Line& line);
  void oom(const Line& line, const StreamPrefix& prefix, Stream& stream);
  void frame(std::string_view text, Stream& stream);
  void config(std::string_view text, std::int64_t number);
  void step(const StepLine& step, std::int64_t number);
  void memory(std::string_view text);
  void command(std::string_view text, std::int64_t number, Stream& stream);
  void close(Stream& stream);
  void record(OomEvent event);
  void begin_run(std::int64_t number);
  RunLog& run() { return facts_.runs.back(); }
  Stream& stream_of(const StreamPrefix& prefix);

  LineReader reader_;
  LogFacts facts_;
  std::map<std::string, Stream, std::less<>> streams_;
  std::size_t open_ = 0;                           // streams that wait for their next line
  std::int64_t next_run_ = 1;
};

}  // namespace dryfit
