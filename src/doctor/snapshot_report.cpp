// Puts the account of a snapshot together, device by device. See snapshot_report.hpp.
#include "doctor/snapshot_report.hpp"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "doctor/snapshot_trace.hpp"
#include "doctor/words.hpp"

namespace dryfit {

namespace {

constexpr std::size_t kMostOoms = 8, kMostSites = 40, kMostPoints = 600;

SnapshotMoment moment_of(const TraceView& view, std::size_t i, const TraceView::State& state) {
  return {i, view.elapsed(i), Bytes(state.allocated), Bytes(state.pending), Bytes(state.reserved)};
}

// The highest moment of every stretch of entries, with what is reserved there.
class Points {
 public:
  Points(const TraceView& view, std::vector<UsagePoint>& out) : view_(view), out_(out), stride_(std::max<std::size_t>(1, view.count() / kMostPoints)) {}
  void see(std::size_t i, const TraceView::State& state) {
    if (i / stride_ != bucket_) {
      flush();
      bucket_ = i / stride_;
    }
    if (have_ && Bytes(state.allocated) <= best_.allocated) {
      best_.reserved = std::max(best_.reserved, Bytes(state.reserved));
      return;
    }
    best_ = {i, view_.elapsed(i), Bytes(state.reserved), state.by_owner, Bytes(state.allocated)};
    have_ = true;
  }
  void flush() {
    if (have_) out_.push_back(best_);
    have_ = false;
  }

 private:
  const TraceView& view_;
  std::vector<UsagePoint>& out_;
  std::size_t stride_, bucket_ = 0;
  UsagePoint best_{};
  bool have_ = false;
};

void group_sites(const TraceView& view, const std::map<std::int64_t, LiveBlock>& live, DeviceReport& d) {
  struct Sum { Bytes bytes, largest; std::int64_t count = 0; std::uint32_t stack = 0; Part part = Part::unknown; std::size_t owner = kUnknownOwner; };
  std::unordered_map<std::uint64_t, Sum> sums;  // site, owner, and whether it was there before the trace
  for (const auto& [address, b] : live) {
    if (b.pending) continue;
    Sum& sum = sums[std::uint64_t{view.site_number(b.stack)} << 9 | std::uint64_t{b.owner} << 1 | (b.entry == LiveBlock::kStart && b.stack == 0 ? 1 : 0)];
    if (b.bytes > sum.largest.count) {
      sum.stack = b.stack;
      sum.part = b.entry == LiveBlock::kStart ? view.places().of(b.stack).part : view.part(b.entry);
    }
    sum.largest = std::max(sum.largest, Bytes(b.bytes));
    sum.bytes += Bytes(b.bytes);
    sum.owner = b.owner;
    ++sum.count;
    d.live_at_peak.push_back(Bytes(b.bytes));
  }
  std::ranges::sort(d.live_at_peak, std::greater<>{});
  for (const auto& [key, sum] : sums) {
    d.sites.push_back({(key & 1) != 0 ? "(allocated before the trace begins)" : view.site(sum.stack), sum.bytes, sum.largest, sum.count, sum.part, sum.owner});
  }
  std::ranges::sort(d.sites, [](const SiteBytes& a, const SiteBytes& b) { return std::tie(b.bytes, a.site, a.owner) < std::tie(a.bytes, b.site, b.owner); });
  d.sites_beyond = d.sites.size() - std::min(d.sites.size(), kMostSites);
  d.sites.resize(std::min(d.sites.size(), kMostSites));
}

// A failed request as the message would have told it; the card is what was reserved and what the driver had left.
Oom oom_of(const SnapshotOom& o, std::int64_t device) {
  Oom out;
  out.backend = Backend::cuda;
  out.device = device;
  const auto exact = [](Bytes b) { return Amount{b, Bytes(0)}; };
  out.requested = exact(o.requested);
  out.total = exact(o.reserved + o.device_free);
  out.free = exact(o.device_free);
  out.allocated = exact(o.allocated);
  out.reserved = exact(o.reserved);
  out.idle = exact(o.reserved - o.allocated);
  return out;
}

void judge(SnapshotOom& o, const DeviceReport& d, std::int64_t steps_done) {
  OomEvent event;
  event.oom = oom_of(o, d.device);
  event.steps_done = steps_done;
  RunLog run;
  run.steps.seen = steps_done;
  if (steps_done > 0) run.steps.last = steps_done - 1;
  const Phase phase = steps_done == 1 ? Phase::second_step : steps_done > 1 ? Phase::train_step : Phase::unknown;
  const std::optional<Prediction> prediction;
  const std::optional<Machine> machine;
  o.cause = find_cause({event, run, phase, o.part, prediction, machine, 1});
  if (o.largest_free && o.pool_free) o.cause.evidence.push_back(said("the largest free piece in its pool was ", *o.largest_free, " of ", *o.pool_free, " free there"));
  if (d.expandable && o.cause.cause == Cause::fragmentation && d.expandable->ooms == 0) {
    o.cause.confidence = Confidence::certain;
    o.cause.evidence.push_back("played again with expandable_segments:True, every request of this trace goes through");
  } else if (d.expandable && d.expandable->ooms == 0) {
    o.cause.also.push_back("played again with expandable_segments:True, every request of this trace goes through");
  }
  o.cause.evidence.push_back("the card here is what was reserved and what the driver had left: the context and other processes lie beside it");
}

class DeviceAnalysis {
 public:
  DeviceAnalysis(const Snapshot& snapshot, std::int64_t device, const Snapshot::Trace& trace, const StackPlaces& places) : s_(snapshot), t_(trace), places_(places) { d_.device = device; }

  DeviceReport run() {
    start_ = trace_start(s_, t_);
    d_.traced = t_.count > 0;
    d_.begins_empty = d_.traced && start_.empty();
    d_.entries = t_.count;
    play();
    const TraceView view(s_, t_, start_, places_, d_.replayed ? std::exchange(d_.replayed->slack, {}) : std::vector<std::uint32_t>());
    d_.has_frames = view.has_frames();
    d_.steps = find_steps(view);
    follow(view);
    d_.suspects = find_suspects(view, d_.steps);
    for (SnapshotOom& o : d_.ooms) {
      std::int64_t done = 0;
      for (const std::size_t end : d_.steps.ends) done += end < o.entry ? 1 : 0;
      judge(o, d_, d_.steps.source.starts_with("the optimizer") ? done : 0);
    }
    find_fixes();
    return std::move(d_);
  }

 private:
  void play() {
    if (!d_.traced) return;
    std::vector<std::size_t> stops;
    for (std::size_t i = 0; i < t_.count && stops.size() < kMostOoms; ++i) {
      if (s_.entries[t_.first + i].action == Action::oom) stops.push_back(i);
    }
    std::vector<std::pair<Bytes, Bytes>> free;  // largest, all: in the pool that a failed request asked
    d_.replayed = replay(s_, t_, start_, stops, [&](std::size_t i, const CachingAllocator& allocator) {
      std::pair<Bytes, Bytes> sum;
      const TraceEntry& e = s_.entries[t_.first + i];
      for (const SegmentView& segment : allocator.segments()) {
        if (segment.small_pool != (e.bytes() <= mib(1)) || segment.stream != s_.streams[e.stream]) continue;
        for (const BlockView& b : segment.blocks) {
          if (b.allocated) continue;
          sum.first = std::max(sum.first, b.size);
          sum.second += b.size;
        }
      }
      free.push_back(sum);
    });
    for (std::size_t k = 0; k < free.size(); ++k) {
      SnapshotOom o;
      o.entry = stops[k];
      if (!d_.replayed->first_difference || *d_.replayed->first_difference >= stops[k]) o.largest_free = free[k].first, o.pool_free = free[k].second;
      d_.ooms.push_back(o);
    }
    AllocatorConfig other = settings_of(s_);
    if (other.expandable_segments) return;
    other.expandable_segments = true;
    d_.expandable = replay_with(s_, t_, start_, other);
  }

  void follow(const TraceView& view) {
    const TraceView::State first = view.first_state();
    d_.start = {0, 0, Bytes(first.allocated), Bytes(0), Bytes(first.reserved)};
    d_.peak = d_.start;
    d_.at_peak = first.by_owner;
    bool rose = false;
    Points points(view, d_.timeline);
    std::size_t failure = 0;
    TraceView::State last = first;
    view.walk([&](std::size_t i, const TraceView::State& state, const LiveBlock&) {
      const TraceEntry& e = view.entry(i);
      d_.allocations += e.action == Action::alloc ? 1 : 0;
      d_.frees += e.action == Action::free_requested ? 1 : 0;
      if (Bytes(state.allocated) > d_.peak.allocated) {
        d_.peak = moment_of(view, i, state);
        d_.at_peak = state.by_owner;
        rose = true;
      }
      if (e.action == Action::oom) {
        if (failure < d_.ooms.size()) fill(d_.ooms[failure], view, i, state);
        else ++d_.ooms_beyond;
        ++failure;
      }
      points.see(i, state);
      if (i + 1 == view.count()) last = state;
      return true;
    });
    points.flush();
    if (view.count() > 0 && view.elapsed(view.count() - 1) > 0) d_.duration_us = view.elapsed(view.count() - 1);
    if (rose) {
      d_.peak_site = view.site(view.entry(d_.peak.entry).stack);
      d_.peak_part = view.part(d_.peak.entry);
      d_.peak_phase = places_.of(view.entry(d_.peak.entry).stack).phase;
      view.walk([&](std::size_t i, const TraceView::State& state, const LiveBlock&) {
        if (i < d_.peak.entry) return true;
        group_sites(view, state.live, d_);
        return false;
      });
    } else {
      group_sites(view, first.live, d_);
    }
    d_.pools = pools_of(s_, d_.device);
    d_.map = map_of(s_, d_.device, places_, d_.traced ? last.live : std::map<std::int64_t, LiveBlock>());
    d_.end.entry = t_.count;
    d_.end.time_us = d_.duration_us.value_or(0);
    for (const PoolState& p : d_.pools) d_.end.allocated += p.allocated, d_.end.pending += p.pending, d_.end.reserved += p.reserved;
  }

  void fill(SnapshotOom& o, const TraceView& view, std::size_t i, const TraceView::State& state) const {
    const TraceEntry& e = view.entry(i);
    o.time_us = view.elapsed(i);
    o.requested = e.bytes();
    o.device_free = Bytes(e.address);
    o.allocated = Bytes(state.allocated);
    o.reserved = Bytes(state.reserved);
    o.site = view.site(e.stack);
    o.part = view.part(i);
  }

  // What can be done, with the bytes that this very trace gives.
  void find_fixes() {
    if (d_.expandable && d_.replayed) {
      const Bytes saving = d_.replayed->peak_reserved - d_.expandable->peak_reserved;
      const bool cures = !d_.ooms.empty() && d_.expandable->ooms == 0;
      if (cures || saving.count * 50 > d_.replayed->peak_reserved.count) {
        Fix fix;
        fix.change = "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True";
        if (saving > Bytes(0)) fix.saving = saving;
        fix.speed = "no slower to speak of";
        fix.identical_training = true;
        fix.note = said("this trace played again with it: ", d_.expandable->peak_reserved, " reserved at most instead of ", d_.replayed->peak_reserved, cures ? "; every request goes through" : "");
        d_.fixes.push_back(std::move(fix));
      }
    }
    for (const LeakSuspect& suspect : d_.suspects) {
      if (suspect.kind != LeakSuspect::Kind::grows || suspect.per_step <= Bytes(0)) continue;
      Fix fix;
      fix.change = "let go of what " + suspect.site + " makes";
      fix.saving = suspect.live;
      fix.needs_code_change = true;
      fix.note = "keep numbers instead of tensors (loss.item(), .detach()), empty lists between steps, use zero_grad(set_to_none=True)";
      d_.fixes.push_back(std::move(fix));
      break;
    }
  }

  const Snapshot& s_;
  const Snapshot::Trace& t_;
  const StackPlaces& places_;
  TraceStart start_;
  DeviceReport d_;
};

}  // namespace

Result<SnapshotReport> report_snapshot(const Snapshot& snapshot, const Given& given) {
  SnapshotReport out;
  out.bytes = snapshot.bytes;
  out.json = snapshot.json;
  out.conf = snapshot.conf;
  out.notes = snapshot.notes;
  RunLog run;
  run.alloc_conf = snapshot.conf;
  out.known = known_run(run, nullptr, given);
  if (!given.allocator && snapshot.settings) out.known.allocator = snapshot.settings;
  if (out.known.problem && given.flags.depth) return std::unexpected(*out.known.problem);
  std::vector<std::int64_t> devices;
  for (const SnapshotSegment& s : snapshot.segments) devices.push_back(s.device);
  for (const Snapshot::Trace& t : snapshot.traces) devices.push_back(t.device);
  std::ranges::sort(devices);
  devices.erase(std::unique(devices.begin(), devices.end()), devices.end());
  const StackPlaces places(snapshot);
  for (const std::int64_t device : devices) {
    const auto trace = std::ranges::find(snapshot.traces, device, &Snapshot::Trace::device);
    out.devices.push_back(DeviceAnalysis(snapshot, device, trace == snapshot.traces.end() ? Snapshot::Trace{device, 0, 0} : *trace, places).run());
  }
  if (snapshot.traces.empty() && !out.devices.empty()) out.notes.push_back("no trace was recorded: torch.cuda.memory._record_memory_history() before the run adds peaks, growth and replay");
  for (const std::string& note : out.known.notes) out.notes.push_back(note);
  const auto fullest = std::ranges::max_element(out.devices, {}, [](const DeviceReport& d) { return d.peak.allocated; });
  if (fullest != out.devices.end()) out.comparison = compare_prediction(*fullest, out.known, out.notes);
  return out;
}

}  // namespace dryfit
