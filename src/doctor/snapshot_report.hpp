// What a memory snapshot tells, as values: what each device held at the peak of its trace and at its end, who asked for it, how the pools
// are cut up, what grows, why requests failed, what other allocator settings would have needed; the predicted run beside it.
// Reading is snapshot_store.hpp, screens are report/.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "doctor/diagnosis.hpp"
#include "doctor/snapshot.hpp"
#include "doctor/snapshot_replay.hpp"
#include "doctor/snapshot_sites.hpp"

namespace dryfit {

// Category of what a stack and a lifetime tell; none: not derivable.
constexpr std::size_t kOwners = kCategories + 2;      // categories, then: before the trace, unknown
constexpr std::size_t kBeforeTrace = kCategories, kUnknownOwner = kCategories + 1;
std::string_view owner_name(std::size_t owner);       // "weights", ..., "before_trace", "unknown"
using ByOwner = std::array<Bytes, kOwners>;

struct SnapshotMoment {
  std::size_t entry = 0;                              // of the trace; its state after that entry
  std::int64_t time_us = 0;                           // since the first entry; 0: not recorded
  Bytes allocated, pending, reserved;                 // pending: freed, and still used by another stream
};

// Live bytes of one line of the program, of one owner.
struct SiteBytes {
  std::string site;
  Bytes bytes, largest;
  std::int64_t count = 0;
  Part part = Part::unknown;
  std::size_t owner = kUnknownOwner;
};

struct PoolState {
  std::string name;                                   // "large", "small", "private large", "private small"
  Bytes reserved, allocated, pending, free, inactive_split, largest_free, empty_segments;
  std::int64_t segments = 0;
};

struct SegmentMap {
  std::int64_t address = 0;
  Bytes size, free, largest_free;
  bool small = false, expandable = false, private_pool = false;
  struct Piece { Bytes size; std::size_t owner; bool free, pending; };
  std::vector<Piece> pieces;                          // in order of address; of long segments neighbours are joined
};

struct LeakSuspect {
  enum class Kind { grows, stays } kind;              // more live bytes step by step; or: freed as a rule, and here not
  std::string site;
  Bytes live, per_step;                               // at the end of the trace; growth of a step (kind grows)
  std::int64_t count = 0, freed = 0, steps = 0;       // allocations still live, freed; steps over which it was seen
};

struct SnapshotOom {
  std::size_t entry = 0;
  std::int64_t time_us = 0;
  Bytes requested, device_free, allocated, reserved;
  std::optional<Bytes> largest_free, pool_free;       // in the pool asked, by replay; none: the replay had gone astray
  std::string site;
  Part part = Part::unknown;
  CauseFinding cause;
};

struct StepInfo { std::int64_t count = 0; std::string source; std::vector<std::size_t> ends; };  // ends: entries after which a step is over

struct UsagePoint { std::size_t entry; std::int64_t time_us; Bytes reserved; ByOwner by_owner; Bytes allocated; };

struct DeviceReport {
  std::int64_t device = 0;
  std::size_t entries = 0, allocations = 0, frees = 0;
  std::optional<std::int64_t> duration_us;
  bool traced = false, begins_empty = false, has_frames = false;
  SnapshotMoment start, peak, end;
  ByOwner at_peak{};
  std::vector<SiteBytes> sites;                       // live at the peak, largest first
  std::size_t sites_beyond = 0;
  std::string peak_site;                              // that asked for the last bytes
  Part peak_part = Part::unknown;
  Phase peak_phase = Phase::unknown;
  std::vector<PoolState> pools;                       // at the end
  std::vector<SegmentMap> map;                        // at the end, most free bytes first
  StepInfo steps;
  std::vector<LeakSuspect> suspects;
  std::vector<SnapshotOom> ooms;
  std::size_t ooms_beyond = 0;
  std::optional<Replay> replayed;
  std::optional<Counterfactual> expandable;           // the same trace with expandable_segments:True, where it was off
  std::vector<Fix> fixes;
  std::vector<UsagePoint> timeline;
  std::vector<Bytes> live_at_peak;                    // sizes, largest first
};

// The predicted run beside the device that held most: its training steps, or its evaluations where the snapshot's peak lies in one.
struct SizeMatch { Bytes size; std::int64_t predicted = 0, seen = 0; std::string tensor; };
struct SnapshotComparison {
  std::int64_t device = 0;
  Bytes predicted_allocated, predicted_reserved, seen_allocated, seen_reserved;
  std::string phase, event;                           // where the predicted peak of these phases stands
  Bytes run_allocated;                                // predicted over all phases
  std::string run_phase;
  std::array<Bytes, kCategories> predicted_by_category{};
  Bytes matched, only_predicted, only_seen;           // bytes of tensors of equal size; the rest of either
  std::vector<SizeMatch> sizes;                       // largest first
};

struct SnapshotReport {
  std::int64_t bytes = 0;
  bool json = false;
  std::string conf;
  std::vector<DeviceReport> devices;                  // with segments or a trace
  std::optional<SnapshotComparison> comparison;
  KnownRun known;
  std::vector<std::string> notes;
};

// given: flags or a command of the run, for the comparison. Errors: those of the flags.
Result<SnapshotReport> report_snapshot(const Snapshot& snapshot, const Given& given);

// The pieces, for tests.
std::vector<PoolState> pools_of(const Snapshot& snapshot, std::int64_t device);
std::optional<SnapshotComparison> compare_prediction(const DeviceReport& device, const KnownRun& known, std::vector<std::string>& notes);

}  // namespace dryfit
