// Steps of a trace, and lines of the program whose memory grows with them or stays where it usually goes. See snapshot_trace.hpp.
#include <algorithm>
#include <tuple>
#include <unordered_map>

#include "doctor/snapshot_trace.hpp"
#include "doctor/words.hpp"

namespace dryfit {

namespace {

// The largest size asked for three times or more at even distances: one request of every step.
StepInfo by_period(const TraceView& view) {
  std::unordered_map<std::int64_t, std::vector<std::uint32_t>> uses;
  for (std::size_t i = 0; i < view.count(); ++i) {
    if (view.entry(i).action == Action::alloc && view.entry(i).bytes() > mib(1)) uses[view.entry(i).bytes().count].push_back(static_cast<std::uint32_t>(i));
  }
  StepInfo best;
  std::int64_t best_size = 0;
  for (const auto& [size, at] : uses) {
    if (at.size() < 3 || at.size() > 10000 || size < best_size) continue;
    std::uint32_t shortest = UINT32_MAX, longest = 0;
    for (std::size_t i = 1; i < at.size(); ++i) shortest = std::min(shortest, at[i] - at[i - 1]), longest = std::max(longest, at[i] - at[i - 1]);
    if (shortest < 16 || longest > shortest + shortest / 4) continue;
    best_size = size;
    best = {static_cast<std::int64_t>(at.size()), said("a request of ", Bytes(size), " that returns evenly"), {}};
    for (const std::uint32_t i : at) best.ends.push_back(i == 0 ? 0 : i - 1);
  }
  return best;
}

struct SiteSeries {
  std::int64_t first = 0, last = 0;
  int rises = 0, falls = 0, seen = 0;
};

}  // namespace

StepInfo find_steps(const TraceView& view) {
  for (const auto& [part, source] : {std::pair{Part::optimizer, "the optimizer's frames"}, std::pair{Part::backward, "backward passes"}}) {
    std::vector<std::size_t> ends = view.part_ends(part);
    if (ends.size() < 2 && part == Part::backward) continue;
    if (!ends.empty()) return {static_cast<std::int64_t>(ends.size()), source, std::move(ends)};
  }
  return by_period(view);
}

std::vector<LeakSuspect> find_suspects(const TraceView& view, const StepInfo& steps, std::size_t most) {
  std::vector<LeakSuspect> out;
  if (view.count() == 0) return out;
  std::vector<std::size_t> ends = steps.ends;
  while (ends.size() > 64) {  // every second one, the last kept
    for (std::size_t i = 0; 2 * i + 1 < ends.size(); ++i) ends[i] = ends[2 * i + 1];
    ends.resize(ends.size() / 2);
  }
  const std::size_t sites = view.snapshot().frames.size() + 1;
  struct Site { std::int64_t live = 0, count = 0, freed = 0, old_bytes = 0, old_count = 0; std::uint32_t stack = 0; };
  std::vector<Site> site(sites);
  std::vector<SiteSeries> series(sites);
  std::size_t next = 0, step = 0;
  const auto look = [&] {
    if (step++ == 0) return;  // the first step makes what stays
    for (std::size_t k = 0; k < sites; ++k) {
      SiteSeries& now = series[k];
      if (now.seen++ == 0) now.first = site[k].live;
      else now.rises += site[k].live > now.last, now.falls += site[k].live < now.last;
      now.last = site[k].live;
    }
  };
  const std::size_t old = ends.size() >= 3 ? ends[ends.size() - 3] : 0;  // what was made two steps before the end, or earlier
  view.walk([&](std::size_t i, const TraceView::State&, const LiveBlock& gone) {
    if (gone.bytes > 0 && gone.entry != LiveBlock::kStart) {
      Site& k = site[view.site_number(gone.stack)];
      k.live -= gone.bytes;
      --k.count;
      ++k.freed;
      if (gone.entry <= old) k.old_bytes -= gone.bytes, --k.old_count;
    }
    const TraceEntry& e = view.entry(i);
    if (e.action == Action::alloc) {
      Site& k = site[view.site_number(e.stack)];
      const std::int64_t bytes = view.bytes(i);
      k.live += bytes;
      ++k.count;
      k.stack = e.stack;
      if (i <= old) k.old_bytes += bytes, ++k.old_count;
    }
    for (; next < ends.size() && ends[next] == i; ++next) look();
    return true;
  });
  for (std::size_t k = 0; k < sites; ++k) {
    const SiteSeries& now = series[k];
    const Site& at = site[k];
    if (now.seen >= 3 && now.falls == 0 && now.rises * 3 >= (now.seen - 1) * 2) {
      out.push_back({LeakSuspect::Kind::grows, view.site(at.stack), Bytes(at.live), Bytes((now.last - now.first) / (now.seen - 1)), at.count, at.freed, now.seen});
    } else if (k != 0 && ends.size() >= 3 && at.old_count > 0 && at.freed >= 4 && at.freed >= 2 * at.count && at.old_bytes >= (1 << 20)) {
      const std::size_t owner = owner_of_place(view.places().of(at.stack));
      if (owner == static_cast<std::size_t>(Category::weights) || owner == static_cast<std::size_t>(Category::optimizer) || owner == static_cast<std::size_t>(Category::workspace) || owner == static_cast<std::size_t>(Category::gradients)) continue;
      out.push_back({LeakSuspect::Kind::stays, view.site(at.stack), Bytes(at.old_bytes), Bytes(0), at.old_count, at.freed, static_cast<std::int64_t>(ends.size())});
    }
  }
  std::ranges::sort(out, [](const LeakSuspect& a, const LeakSuspect& b) { return std::tie(a.kind, b.live.count, a.site) < std::tie(b.kind, a.live.count, b.site); });
  if (out.size() > most) out.resize(most);
  return out;
}

}  // namespace dryfit
