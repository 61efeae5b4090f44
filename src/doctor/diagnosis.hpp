// What dryfit says about a log: what failed, who held the memory, which tensor was asked for, why, and what to change with its
// predicted effect; or, where nothing failed, whether the GPU had room. Values only: reading is log.hpp, screens are report/.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "doctor/known_run.hpp"
#include "doctor/log.hpp"
#include "doctor/match.hpp"
#include "doctor/readings.hpp"
#include "doctor/underuse.hpp"
#include "plan/report.hpp"

namespace dryfit {

enum class Cause : std::uint8_t {
  none,             // no failure: a warning, and the run went on
  too_big,          // the run needs more than the card has
  fragmentation,    // enough was reserved, in pieces too small
  other_process,    // somebody else holds the memory
  leak,             // memory grew from step to step
  optimizer_state,  // the optimizer's state appears with the first step
  evaluation,       // evaluation, sampling: not the training step
  host_memory,      // the host's memory, not the GPU's
  limit,            // a limit below the card's memory: a fraction, or the driver's own
  windows_spill,    // more than the card has is already allocated: Windows lends system memory
  outside_pool,     // a library beside PyTorch's pool
  kernel_limit,     // on-chip memory of one kernel
  size_bug,         // an impossible size
};
std::string_view name_of(Cause cause);
enum class Confidence : std::uint8_t { certain, likely, possible };
std::string_view name_of(Confidence confidence);

// Who held the card: rows add up to its memory where that is known. Empty bytes: not told.
struct Holder { std::string name; std::optional<Bytes> bytes; std::string note; };

struct CauseFinding {
  Cause cause = Cause::none;
  Confidence confidence = Confidence::possible;
  std::string summary;                 // one sentence with its numbers
  std::vector<std::string> evidence;   // what it rests on
  std::vector<std::string> also;       // what else played a part
  bool idle_would_do = false;          // what the pool held idle covers what was missing
  std::vector<std::string> not_this;   // usual suspects that the numbers clear
};

struct Fix {
  std::string change;                  // "--device-batch-size 16"; words where no flag does it
  std::optional<Bytes> saving;         // of the process, predicted; none: not derivable here
  std::optional<Bytes> process;        // predicted peak of the process with the change
  std::optional<Verdict> verdict;
  std::optional<double> step_time_ratio;
  std::string speed;                   // cost in words
  std::optional<bool> identical_training;  // none: not a change of training at all
  bool needs_code_change = false;
  std::string command;                 // complete, to paste; empty: none
  std::string note;
};

// What the engine says of this run on this card.
struct Prediction {
  Bytes allocated, process, usable;
  Verdict verdict = Verdict::fits;
  std::string peak_phase, peak_event;
  std::optional<Bytes> at_request;     // allocated when the matched request comes
  std::optional<Bytes> unaccounted;    // said by the message - at_request; may be negative
  std::optional<TensorMatch> dies_at;  // where the predicted run dies on this card, if it does
  std::optional<Bytes> dies_asking;    // what the message of that failure would say
};

struct FailureGroup { std::string what; std::int64_t count = 0, first_line = 0; std::vector<std::int64_t> ranks; };

struct Failure {
  OomEvent event;                      // the one explained
  Phase phase = Phase::unknown;
  Part part = Part::unknown;
  std::string phase_source;            // "traceback", "log", "prediction"; empty: not known
  std::optional<AskedTensor> asked;    // named by the failing line of compiled code itself
  std::vector<Holder> holders;
  std::vector<TensorMatch> matches;
  CauseFinding cause;
  std::vector<Fix> fixes;              // best first
  std::vector<Fix> ladder;             // the seed's steps in their order: batch, length, depth, leaks
  std::vector<FailureGroup> others;    // the rest of the file's failures
};

// A job that was read while it ran (doctor --live).
struct Live {
  struct Gpu { Readings::Gpu reading; Underuse::Verdict verdict = Underuse::Verdict::unknown; };
  std::string source;                  // "nvml"; of a recording: the one it was made with
  bool replay = false;
  double seconds = 0;                  // between the first and the last sample
  std::int64_t samples = 0;
  std::optional<std::int64_t> pid;     // of the job; none: no training process was found
  std::string command;                 // its command line; may be empty
  std::vector<Gpu> gpus;               // those the job uses
  std::size_t judged = 0;              // the one that Diagnosis::underuse is about
  std::optional<Bytes> measured;       // the job's process at its highest, on the GPU where that was most; none: the driver does not tell
  std::optional<Bytes> unaccounted;    // measured - predicted process; may be negative
};

struct Diagnosis {
  enum class Finding { failure, healthy, nothing };
  Finding finding = Finding::nothing;
  Encoding encoding = Encoding::utf8;
  std::int64_t bytes = 0, lines = 0;
  RunLog run;                          // the one that failed, or the last
  KnownRun known;
  std::optional<Prediction> prediction;
  std::optional<Failure> failure;
  std::optional<Underuse> underuse;    // where steps are seen and nothing failed; or of a running job
  std::optional<Live> live;            // doctor --live
  std::vector<std::string> notes;
};

// Errors: "not_text" for what is no text at all. Everything else is a diagnosis, if only "nothing found".
Result<Diagnosis> diagnose(LogFacts facts, const Given& given);

// The same of a running job. live: its source, pid and command; used: the GPUs it uses, as indices into readings.gpus(), none when nothing
// trains; log: what its log holds, if one is followed. Errors: of the run, where the user's flags do not make one.
Result<Diagnosis> diagnose_live(Live live, const Readings& readings, std::span<const std::size_t> used, LogFacts log, const Given& given);

// The pieces, for tests.
std::vector<Holder> holders_of(const Oom& oom);
struct CauseQuery {
  const OomEvent& event;
  const RunLog& run;
  Phase phase;
  Part part;
  const std::optional<Prediction>& prediction;
  const std::optional<Machine>& machine;
  std::int64_t world_size = 1;
};
CauseFinding find_cause(const CauseQuery& query);

// Fills d.prediction from d.known; a note where the engine cannot lay it out.
void predict_run(Diagnosis& d);

// Growth over a run: a series that keeps rising to its end. Bytes from its first to its last third; empty: it does not.
std::optional<Bytes> growth_of(const MemorySeries& series);

// report: of the run as it failed, with alternatives; empty where the engine cannot lay it out. Then savings stay empty too.
std::vector<Fix> find_fixes(const Failure& failure, const RunLog& run, const KnownRun& known, const std::optional<Report>& report);
std::vector<Fix> find_ladder(const RunLog& run, const KnownRun& known, const std::optional<Report>& report);

}  // namespace dryfit
