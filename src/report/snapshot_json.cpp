// A snapshot's JSON. Order of fields as docs/schema/snapshot.schema.json documents them. See snapshot.hpp.
#include <nlohmann/json.hpp>

#include "base/version.hpp"
#include "report/json_parts.hpp"
#include "report/snapshot.hpp"

namespace dryfit {

namespace {

using Json = nlohmann::ordered_json;
using namespace json_parts;

Json part(Part p) { return p == Part::unknown ? Json() : Json(name_of(p)); }

Json moment(const SnapshotMoment& m, bool traced) {
  return {{"entry", traced ? Json(m.entry) : Json()}, {"time_us", m.time_us > 0 ? Json(m.time_us) : Json()}, {"allocated_bytes", m.allocated.count}, {"pending_bytes", m.pending.count}, {"reserved_bytes", m.reserved.count}};
}

Json oom_json(const SnapshotOom& o) {
  return {{"entry", o.entry}, {"time_us", o.time_us > 0 ? Json(o.time_us) : Json()}, {"requested_bytes", o.requested.count}, {"device_free_bytes", o.device_free.count}, {"allocated_bytes", o.allocated.count}, {"reserved_bytes", o.reserved.count},
          {"largest_free_bytes", bytes(o.largest_free)}, {"pool_free_bytes", bytes(o.pool_free)}, {"site", text(o.site)}, {"part", part(o.part)}, {"cause", cause_json(o.cause)}};
}

Json replay_json(const Replay& r) {
  return {{"equal", r.equal()}, {"allocations", r.allocations}, {"equal_allocations", r.equal_allocations}, {"segment_events", r.segment_events}, {"equal_segment_events", r.equal_segment_events}, {"blocks", r.blocks}, {"equal_blocks", r.equal_blocks},
          {"ooms", r.ooms}, {"equal_ooms", r.equal_ooms}, {"first_difference", r.first_difference ? Json(*r.first_difference) : Json()}, {"peak_allocated_bytes", r.peak_allocated.count}, {"peak_reserved_bytes", r.peak_reserved.count}};
}

Json pools_json(const DeviceReport& d) {
  Json out = Json::array();
  for (const PoolState& p : d.pools) {
    out.push_back({{"name", p.name}, {"segments", p.segments}, {"reserved_bytes", p.reserved.count}, {"allocated_bytes", p.allocated.count}, {"pending_bytes", p.pending.count}, {"free_bytes", p.free.count},
                   {"largest_free_bytes", p.largest_free.count}, {"inactive_split_bytes", p.inactive_split.count}, {"empty_segments_bytes", p.empty_segments.count}});
  }
  return out;
}

Json map_json(const DeviceReport& d) {
  Json out = Json::array();
  for (std::size_t i = 0; i < d.map.size() && i < 200; ++i) {
    const SegmentMap& s = d.map[i];
    Json pieces = Json::array();
    for (const SegmentMap::Piece& p : s.pieces) pieces.push_back({{"bytes", p.size.count}, {"state", p.free ? "free" : p.pending ? "pending" : "allocated"}, {"owner", p.free ? Json() : Json(owner_name(p.owner))}});
    out.push_back({{"address", s.address}, {"bytes", s.size.count}, {"free_bytes", s.free.count}, {"largest_free_bytes", s.largest_free.count}, {"pool", s.small ? "small" : "large"}, {"expandable", s.expandable}, {"private", s.private_pool}, {"pieces", pieces}});
  }
  return out;
}

Json device_json(const DeviceReport& d) {
  Json owners, sites = Json::array(), suspects = Json::array(), ooms = Json::array(), fixes = Json::array(), timeline = Json::array();
  for (std::size_t o = 0; o < kOwners; ++o) owners[std::string(owner_name(o))] = d.at_peak[o].count;
  for (const SiteBytes& s : d.sites) sites.push_back({{"site", s.site}, {"bytes", s.bytes.count}, {"largest_bytes", s.largest.count}, {"count", s.count}, {"part", part(s.part)}, {"owner", owner_name(s.owner)}});
  for (const LeakSuspect& s : d.suspects) {
    suspects.push_back({{"kind", s.kind == LeakSuspect::Kind::grows ? "grows" : "stays"}, {"site", s.site}, {"live_bytes", s.live.count}, {"per_step_bytes", s.kind == LeakSuspect::Kind::grows ? Json(s.per_step.count) : Json()}, {"live_count", s.count}, {"freed_count", s.freed}, {"steps", s.steps}});
  }
  for (const SnapshotOom& o : d.ooms) ooms.push_back(oom_json(o));
  for (const Fix& f : d.fixes) fixes.push_back(fix_json(f));
  for (const UsagePoint& p : d.timeline) timeline.push_back({p.entry, p.time_us, p.allocated.count, p.reserved.count});
  return {{"device", d.device}, {"traced", d.traced}, {"entries", d.entries}, {"allocations", d.allocations}, {"frees", d.frees}, {"duration_us", whole(d.duration_us)}, {"begins_empty", d.begins_empty}, {"has_frames", d.has_frames},
          {"start", d.traced ? moment(d.start, false) : Json()}, {"peak", moment(d.peak, d.traced)}, {"end", moment(d.end, false)},
          {"peak_site", text(d.peak_site)}, {"peak_part", part(d.peak_part)}, {"owners_at_peak", owners}, {"owners_provenance", "modelled"}, {"sites", sites}, {"sites_beyond", d.sites_beyond},
          {"pools", pools_json(d)}, {"segments", map_json(d)}, {"steps", {{"count", d.steps.count}, {"source", text(d.steps.source)}}}, {"suspects", suspects}, {"ooms", ooms}, {"ooms_beyond", d.ooms_beyond},
          {"replay", d.replayed ? replay_json(*d.replayed) : Json()}, {"expandable_segments", d.expandable ? Json{{"peak_reserved_bytes", d.expandable->peak_reserved.count}, {"ooms", d.expandable->ooms}} : Json()}, {"fixes", fixes}, {"timeline", timeline}};
}

Json comparison_json(const SnapshotComparison& c) {
  Json categories, sizes = Json::array();
  for (int i = 0; i < kCategories; ++i) categories[std::string(name_of(static_cast<Category>(i)))] = c.predicted_by_category[static_cast<std::size_t>(i)].count;
  for (const SizeMatch& m : c.sizes) sizes.push_back({{"bytes", m.size.count}, {"predicted", m.predicted}, {"seen", m.seen}, {"tensor", text(m.tensor)}});
  return {{"device", c.device}, {"predicted_allocated_bytes", c.predicted_allocated.count}, {"allocated_bytes", c.seen_allocated.count}, {"unaccounted_bytes", (c.seen_allocated - c.predicted_allocated).count},
          {"predicted_reserved_bytes", c.predicted_reserved.count}, {"reserved_bytes", c.seen_reserved.count}, {"phase", c.phase}, {"event", c.event}, {"run_allocated_bytes", c.run_allocated.count}, {"run_phase", c.run_phase}, {"predicted_categories", categories},
          {"matched_bytes", c.matched.count}, {"only_predicted_bytes", c.only_predicted.count}, {"only_seen_bytes", c.only_seen.count}, {"sizes", sizes}};
}

}  // namespace

std::string snapshot_json(const SnapshotReport& r, const std::string& name) {
  Json devices = Json::array();
  for (const DeviceReport& d : r.devices) devices.push_back(device_json(d));
  const Json out = {{"schema_version", 1}, {"dryfit", DRYFIT_VERSION}, {"source", {{"name", printable(name, 4096)}, {"bytes", r.bytes}, {"format", r.json ? "json" : "pickle"}}}, {"finding", r.devices.empty() ? "nothing" : "snapshot"},
                    {"alloc_conf", text(r.conf)}, {"devices", devices}, {"comparison", r.comparison ? comparison_json(*r.comparison) : Json()}, {"notes", strings(r.notes)}};
  return out.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace dryfit
