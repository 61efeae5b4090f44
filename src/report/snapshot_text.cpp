// A snapshot's screen: what was held at the peak and by whom, how the pools are cut up, what grows, what failed, what would help.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "doctor/words.hpp"
#include "report/chart.hpp"
#include "report/doctor.hpp"
#include "report/screen.hpp"
#include "report/snapshot.hpp"

namespace dryfit {

namespace {

struct Sign { std::string letter; const char* colour; };
Sign sign_of(std::size_t owner) {
  if (owner == kBeforeTrace) return {"B", "90"};
  if (owner == kUnknownOwner) return {"#", "37"};
  const Look look = look_of(static_cast<Category>(owner));
  return {std::string(1, look.letter), look.colour};
}
std::string words_of_owner(std::size_t owner) { return owner == kBeforeTrace ? "before the trace" : std::string(owner_name(owner)); }

std::string cells(std::size_t owner, std::size_t n, const Style& style) {
  const Sign sign = sign_of(owner);
  std::string out;
  if (!style.colour || style.ascii) {
    for (std::size_t i = 0; i < n; ++i) out += sign.letter;
    return out;
  }
  for (std::size_t i = 0; i < n; ++i) out += "█";
  return fmt::format("\x1b[{}m{}\x1b[0m", sign.colour, out);
}

std::string seconds(std::int64_t us) { return us < 1000 ? fmt::format("{} us", us) : us < 1'000'000 ? fmt::format("{:.1f} ms", static_cast<double>(us) / 1e3) : fmt::format("{:.2f} s", static_cast<double>(us) / 1e6); }
std::string times(std::int64_t n) { return fmt::format("{} x", n); }
const char* plural(std::int64_t n) { return n == 1 ? "" : "s"; }
std::string at_entry(std::size_t entry, const DeviceReport& d, std::int64_t us) { return fmt::format("entry {} of {}{}", entry + 1, d.entries, us > 0 ? ", " + seconds(us) : ""); }
std::string part_words(Part part) { return part == Part::unknown ? "" : std::string(name_of(part)); }
std::string joined(const std::string& a, const std::string& b) { return a.empty() ? b : b.empty() ? a : a + ", " + b; }

std::string moments(const DeviceReport& d, const Style& style) {
  std::string out;
  const auto line = [&](const char* what, Bytes bytes, const std::string& note, bool strong) {
    const std::string head = fmt::format("  {:<14} {:>12}", what, exact_text(bytes));
    out += (strong ? paint(head, "1", style) : head) + "   " + wrapped(note, 32, style) + "\n";
  };
  if (d.traced) {
    line("peak", d.peak.allocated, fmt::format("allocated, {} reserved, at {}", exact_text(d.peak.reserved), at_entry(d.peak.entry, d, d.peak.time_us)), true);
    if (!d.peak_site.empty()) out += fmt::format("  {:<27}   {}\n", "", wrapped("reached by " + (d.peak_site.starts_with("(no frames:") ? d.peak_site : joined(d.peak_site, part_words(d.peak_part))), 32, style));
    line("at its start", d.start.allocated, d.begins_empty ? "allocated: the trace begins with an empty device" : fmt::format("allocated, {} reserved: made before the trace begins", exact_text(d.start.reserved)), false);
  }
  line("at the end", d.end.allocated, fmt::format("allocated, {} reserved{}", exact_text(d.end.reserved), d.end.pending > Bytes(0) ? fmt::format(", {} freed and waiting for another stream", exact_text(d.end.pending)) : ""), !d.traced);
  return out;
}

std::string owners(const DeviceReport& d, const Style& style) {
  const std::int64_t total = std::max<std::int64_t>(1, d.peak.allocated.count);
  if (d.at_peak[kBeforeTrace] + d.at_peak[kUnknownOwner] == d.peak.allocated) return "";
  const int room = std::clamp(style.width - 8, 20, 72);
  std::string bar, rows;
  double position = 0;
  int drawn = 0;
  for (std::size_t o = 0; o < kOwners; ++o) {
    if (d.at_peak[o] <= Bytes(0)) continue;
    position += static_cast<double>(d.at_peak[o].count) / static_cast<double>(total) * room;
    const int upto = std::min(room, static_cast<int>(std::lround(position)));
    if (upto > drawn) bar += cells(o, static_cast<std::size_t>(upto - drawn), style);
    drawn = std::max(drawn, upto);
    rows += fmt::format("  {} {:<16} {:>12}  {:>3.0f} %\n", sign_of(o).letter, words_of_owner(o), exact_text(d.at_peak[o]), static_cast<double>(d.at_peak[o].count) / static_cast<double>(total) * 100);
  }
  return "\nat the peak, by frames and lifetimes (modelled)\n  " + bar + "\n" + rows;
}

std::string sites(const DeviceReport& d, const Style& style) {
  if (d.sites.empty()) return "";
  std::string out = d.traced ? "\nlargest at the peak, by the line that asked\n" : "\nlargest, by the line that asked\n";
  const std::size_t most = style.quiet ? 3 : style.verbose ? d.sites.size() : 8;
  for (std::size_t i = 0; i < d.sites.size() && i < most; ++i) {
    const SiteBytes& s = d.sites[i];
    std::string what = s.site;
    if (s.owner < static_cast<std::size_t>(kCategories)) what += fmt::format("  ({})", joined(part_words(s.part), words_of_owner(s.owner) == part_words(s.part) ? "" : words_of_owner(s.owner)));
    out += fmt::format("  {:>12}  {:>7}  {}\n", exact_text(s.bytes), times(s.count), wrapped(what, 25, style));
  }
  const std::size_t rest = d.sites.size() - std::min(d.sites.size(), most) + d.sites_beyond;
  if (rest > 0 && !style.quiet) out += fmt::format("  {:>12}  and {} more line{}{}\n", "", rest, plural(static_cast<std::int64_t>(rest)), style.verbose ? "" : " (-v)");
  return out;
}

std::string pools(const DeviceReport& d) {
  if (d.pools.empty()) return "";
  std::string out = fmt::format("\n{:<23} {:>12} {:>12} {:>12} {:>12}\n", "pools at the end", "reserved", "free", "largest free", "split");
  for (const PoolState& p : d.pools) {
    out += fmt::format("  {:<14} {:>6} {:>12} {:>12} {:>12} {:>12}\n", p.name, times(p.segments), exact_text(p.reserved), exact_text(p.free), exact_text(p.largest_free), exact_text(p.inactive_split));
  }
  return out;
}

std::string map(const DeviceReport& d, const Style& style) {
  if (d.map.empty() || style.quiet) return "";
  const std::size_t most = style.verbose ? std::min<std::size_t>(d.map.size(), 200) : 6;
  const int room = std::clamp(style.width - 40, 16, 72);
  std::string out = "\nsegments, those with most free bytes first ('.' free, '~' waiting)\n";
  std::size_t rows = 0;
  for (std::size_t i = 0; i < d.map.size() && rows < most; ++i, ++rows) {
    const SegmentMap& s = d.map[i];
    if (s.free == Bytes(0) && !style.verbose) break;
    std::size_t alike = 1;  // of empty ones
    while (s.free == s.size && i + alike < d.map.size() && d.map[i + alike].free == s.free && d.map[i + alike].size == s.size && d.map[i + alike].small == s.small) ++alike;
    if (alike > 1) {
      out += fmt::format("  {:>12} {:<5} |{}| {} of them empty\n", exact_text(s.size), s.small ? "small" : "large", std::string(static_cast<std::size_t>(room), '.'), alike);
      i += alike - 1;
      continue;
    }
    std::string bar;
    double position = 0;
    int drawn = 0;
    for (const SegmentMap::Piece& p : s.pieces) {
      position += static_cast<double>(p.size.count) / static_cast<double>(s.size.count) * room;
      const int upto = std::min(room, static_cast<int>(std::lround(position)));
      if (upto > drawn) bar += p.free ? std::string(static_cast<std::size_t>(upto - drawn), '.') : p.pending ? std::string(static_cast<std::size_t>(upto - drawn), '~') : cells(p.owner, static_cast<std::size_t>(upto - drawn), style);
      drawn = std::max(drawn, upto);
    }
    out += fmt::format("  {:>12} {:<5} |{}| {} free\n", exact_text(s.size), s.small ? "small" : "large", bar, exact_text(s.free));
  }
  return out;
}

std::string growth(const DeviceReport& d, const Style& style) {
  std::string out;
  if (d.steps.count > 0) out += paragraph("steps", fmt::format("{}, told by {}", d.steps.count, d.steps.source), style);
  for (std::size_t i = 0; i < d.suspects.size() && i < (style.verbose ? d.suspects.size() : 3); ++i) {
    const LeakSuspect& s = d.suspects[i];
    out += paragraph("leak?", s.kind == LeakSuspect::Kind::grows
                                  ? fmt::format("{}: {} more with each step, {} live at the end in {} allocation{}", s.site, exact_text(s.per_step), exact_text(s.live), s.count, plural(s.count))
                                  : fmt::format("{}: {} in {} allocation{} stay though {} others of this line were freed", s.site, exact_text(s.live), s.count, plural(s.count), s.freed), style);
  }
  if (d.traced && d.suspects.empty() && d.steps.count >= 4) out += paragraph("leak?", "no line's memory grows from step to step", style);
  return out.empty() ? out : "\n" + out;
}

std::string failures(const DeviceReport& d, const Style& style) {
  std::string out;
  for (const SnapshotOom& o : d.ooms) {
    out += "\n" + paint(fmt::format("out of memory at {}", at_entry(o.entry, d, o.time_us)), "1", style) + "\n";
    out += fmt::format("  {:<14} {:>12}   {}\n", "asked for", exact_text(o.requested), wrapped(joined(o.site, part_words(o.part)), 32, style));
    out += fmt::format("  {:<14} {:>12}   {}\n", "allocated", exact_text(o.allocated), "tensors");
    out += fmt::format("  {:<14} {:>12}   {}\n", "idle", exact_text(o.reserved - o.allocated), o.largest_free ? fmt::format("largest piece in its pool {}", exact_text(*o.largest_free)) : "reserved, in no tensor");
    out += fmt::format("  {:<14} {:>12}   {}\n\n", "free", exact_text(o.device_free), "left by the driver");
    out += paragraph("cause", fmt::format("{}{}: {}", words_of(o.cause.cause), o.cause.confidence == Confidence::certain ? "" : fmt::format(" ({})", name_of(o.cause.confidence)), o.cause.summary), style);
    for (const std::string& text : o.cause.evidence) out += paragraph("why", text, style);
    for (const std::string& text : o.cause.also) out += paragraph("also", text, style);
    for (const std::string& text : o.cause.not_this) out += paragraph("not", text, style);
  }
  if (d.ooms_beyond > 0) out += paragraph("also", fmt::format("{} more failed requests", d.ooms_beyond), style);
  return out;
}

std::string replayed(const DeviceReport& d, const Style& style) {
  if (!d.replayed) return "";
  const Replay& r = *d.replayed;
  std::string text = fmt::format("{} of {} addresses, {} of {} segment events and {} of {} blocks come out as recorded", r.equal_allocations, r.allocations, r.equal_segment_events, r.segment_events, r.equal_blocks, r.blocks);
  if (r.first_difference) text += fmt::format("; the first difference is at {}", *r.first_difference < d.entries ? fmt::format("entry {}", *r.first_difference + 1) : "the end");
  text += fmt::format("; {} reserved at most", exact_text(r.peak_reserved));
  std::string out = "\n" + paragraph("replay", text, style);
  if (d.expandable && d.fixes.empty() && !style.quiet) out += paragraph("", fmt::format("with expandable_segments:True it would be {}", exact_text(d.expandable->peak_reserved)), style);
  return out;
}

std::string compared(const SnapshotComparison& c, const DeviceReport& d, const Style& style) {
  const auto signed_text = [](Bytes b) { return (b.count < 0 ? "-" : "+") + exact_text(b.count < 0 ? -b : b); };
  std::string out = fmt::format("\nbeside the prediction {:>14} {:>12} {:>14}\n", "predicted", "snapshot", "unaccounted");
  const auto row = [&](std::string_view what, Bytes predicted, Bytes seen) { out += fmt::format("  {:<18} {:>14} {:>12} {:>14}\n", what, exact_text(predicted), exact_text(seen), signed_text(seen - predicted)); };
  row("peak allocated", c.predicted_allocated, c.seen_allocated);
  row("reserved then", c.predicted_reserved, c.seen_reserved);
  const bool owners = d.at_peak[kBeforeTrace] + d.at_peak[kUnknownOwner] < d.peak.allocated;
  for (std::size_t o = 0; owners && o < static_cast<std::size_t>(kCategories); ++o) {
    if (c.predicted_by_category[o] > Bytes(0) || d.at_peak[o] > Bytes(0)) row("  " + std::string(owner_name(o)), c.predicted_by_category[o], d.at_peak[o]);
  }
  for (const std::size_t o : {kBeforeTrace, kUnknownOwner}) {
    if (owners && d.at_peak[o] > Bytes(0)) row("  " + words_of_owner(o), Bytes(0), d.at_peak[o]);
  }
  out += "  " + wrapped(fmt::format("tensors of the same size: {} in both, {} only predicted, {} only in the snapshot", exact_text(c.matched), exact_text(c.only_predicted), exact_text(c.only_seen)), 2, style) + "\n";
  const std::size_t most = style.verbose ? c.sizes.size() : 6;
  for (std::size_t i = 0; i < c.sizes.size() && i < most; ++i) {
    const SizeMatch& m = c.sizes[i];
    out += fmt::format("  {:>12}  predicted {:>4}, seen {:>4}{}\n", exact_text(m.size), times(m.predicted), times(m.seen), m.tensor.empty() ? "" : "   " + m.tensor);
  }
  out += "  " + wrapped(fmt::format("predicted here: {} at {}{}", c.phase, c.event, c.run_phase == c.phase ? "" : fmt::format("; over the whole run {} in {}", exact_text(c.run_allocated), c.run_phase)), 2, style) + "\n";
  return out;
}

std::string device_text(const DeviceReport& d, const SnapshotReport& r, const Style& style) {
  std::string out = "\n" + paint(fmt::format("GPU {}", d.device), "1", style);
  out += d.traced ? fmt::format("  {} entries{}: {} allocation{}, {} free{}{}\n", d.entries, d.duration_us ? " over " + seconds(*d.duration_us) : "", d.allocations, plural(static_cast<std::int64_t>(d.allocations)), d.frees, plural(static_cast<std::int64_t>(d.frees)), d.ooms.empty() ? "" : fmt::format(", {} failed request{}", d.ooms.size() + d.ooms_beyond, plural(static_cast<std::int64_t>(d.ooms.size() + d.ooms_beyond)))) : "  no trace\n";
  out += moments(d, style) + owners(d, style) + sites(d, style);
  if (!style.quiet) out += pools(d) + map(d, style);
  out += growth(d, style) + failures(d, style) + replayed(d, style);
  if (r.comparison && r.comparison->device == d.device) out += compared(*r.comparison, d, style);
  if (!d.fixes.empty()) out += "\nfixes, best first\n";
  for (std::size_t i = 0; i < d.fixes.size(); ++i) out += fix_text(d.fixes[i], i + 1, style);
  return out;
}

}  // namespace

const DeviceReport* fullest(const SnapshotReport& report) {
  const auto it = std::ranges::max_element(report.devices, {}, [](const DeviceReport& d) { return std::pair(!d.ooms.empty(), d.peak.allocated); });
  return it == report.devices.end() ? nullptr : &*it;
}

std::string snapshot_text(const SnapshotReport& r, const std::string& name, const Style& style) {
  const std::string shown = name == "-" ? "(stdin)" : printable(name, 200);
  std::string out = paint(shown, "1", style) + fmt::format("  memory snapshot, {} device{}{}\n", r.devices.size(), plural(static_cast<std::int64_t>(r.devices.size())), r.conf.empty() ? "" : ", PYTORCH_CUDA_ALLOC_CONF=" + r.conf);
  const DeviceReport* chosen = fullest(r);
  if (chosen == nullptr) {
    out += "\nnothing: no segments and no trace\n";
    if (!style.quiet) out += "hint: take it while the memory is held, after torch.cuda.memory._record_memory_history()\n";
    return out;
  }
  out += device_text(*chosen, r, style);
  for (const DeviceReport& d : r.devices) {
    if (&d == chosen) continue;
    if (style.verbose) out += device_text(d, r, style);
    else out += fmt::format("\nGPU {}  peak {} allocated, {} reserved; {} at the end{} (-v: all of it)\n", d.device, exact_text(d.peak.allocated), exact_text(d.peak.reserved), exact_text(d.end.allocated), d.ooms.empty() ? "" : fmt::format("; {} failed requests", d.ooms.size() + d.ooms_beyond));
  }
  if (!style.quiet && !r.notes.empty()) out += "\n";
  for (const std::string& note : r.notes) {
    if (!style.quiet) out += paragraph("note", note, style);
  }
  return out;
}

std::string snapshot_svg(const SnapshotReport& r, const std::string& name) {
  Chart chart;
  const DeviceReport* d = fullest(r);
  if (d == nullptr || d->timeline.empty()) {
    chart.title = "no trace";
    return chart_svg(chart);
  }
  chart.title = fmt::format("{}: GPU {}, peak {} allocated, {} reserved", printable(name == "-" ? "(stdin)" : name, 60), d->device, exact_text(d->peak.allocated), exact_text(d->peak.reserved));
  chart.last_x = std::max<double>(1, static_cast<double>(d->timeline.back().entry));
  double most = 1;
  for (const UsagePoint& p : d->timeline) {
    chart.x.push_back(static_cast<double>(p.entry));
    chart.outline.push_back(static_cast<double>(p.reserved.count));
    most = std::max({most, static_cast<double>(p.reserved.count), static_cast<double>(p.allocated.count)});
  }
  chart.most = most * 1.05;
  for (const std::size_t o : {kBeforeTrace, std::size_t{0}, std::size_t{1}, std::size_t{2}, std::size_t{3}, std::size_t{4}, std::size_t{5}, std::size_t{6}, kUnknownOwner}) {
    Chart::Area area{words_of_owner(o), o == kBeforeTrace ? "#d0d0d0" : o == kUnknownOwner ? "#888888" : look_of(static_cast<Category>(o)).hex, {}};
    for (const UsagePoint& p : d->timeline) area.bytes.push_back(static_cast<double>(std::max(Bytes(0), p.by_owner[o]).count));
    chart.areas.push_back(std::move(area));
  }
  chart.lines.push_back({static_cast<double>(d->peak.allocated.count), exact_text(d->peak.allocated) + " peak"});
  for (const SnapshotOom& oom : d->ooms) chart.marks.emplace_back(static_cast<double>(oom.entry), "out of memory: " + exact_text(oom.requested));
  return chart_svg(chart);
}

}  // namespace dryfit
