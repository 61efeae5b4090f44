// The doctor's JSON. Order of fields as docs/schema/doctor.schema.json documents them. See doctor.hpp.
#include <cmath>

#include <nlohmann/json.hpp>

#include "base/version.hpp"
#include "report/doctor.hpp"
#include "report/json_parts.hpp"

namespace dryfit {

namespace {

using Json = nlohmann::ordered_json;
using namespace json_parts;

Json amount(const std::optional<Amount>& a) { return a ? Json(a->bytes.count) : Json(); }

Json message_json(const Oom& o) {
  Json processes = Json::array();
  for (const Tenant& t : o.processes) processes.push_back({{"pid", t.pid}, {"bytes", t.memory.bytes.count}});
  return {{"wording", name_of(o.wording)}, {"backend", name_of(o.backend)}, {"torch", text(o.torch)}, {"device", whole(o.device)}, {"requested_bytes", amount(o.requested)}, {"total_bytes", amount(o.total)},
          {"free_bytes", amount(o.free)}, {"allocated_bytes", amount(o.allocated)}, {"reserved_bytes", amount(o.reserved)}, {"idle_bytes", amount(o.idle)}, {"private_pools_bytes", amount(o.private_pools)},
          {"allowed_bytes", amount(o.allowed)}, {"this_process_bytes", amount(o.this_process)}, {"other_allocations_bytes", amount(o.other_allocations)}, {"processes", processes}, {"detail", text(o.detail)}};
}

Json match_json(const TensorMatch& m) {
  return {{"name", m.tensor.name()}, {"shape", shape_json(m.tensor.shape)}, {"dtype", name_of(m.tensor.dtype)}, {"bytes", m.tensor.bytes}, {"category", name_of(m.tensor.category)}, {"phase", m.phase}, {"part", m.part}, {"micro_step", m.micro_step},
          {"event", m.op}, {"allocated_before_bytes", m.before.count}, {"reachable", m.reachable}};
}

Json failure_json(const Failure& f) {
  Json holders = Json::array(), matches = Json::array(), fixes = Json::array(), ladder = Json::array(), others = Json::array(), frames = Json::array();
  for (const Holder& h : f.holders) holders.push_back({{"name", h.name}, {"bytes", bytes(h.bytes)}, {"note", text(h.note)}});
  for (const TensorMatch& m : f.matches) matches.push_back(match_json(m));
  for (const Fix& x : f.fixes) fixes.push_back(fix_json(x));
  for (const Fix& x : f.ladder) ladder.push_back(fix_json(x));
  for (const FailureGroup& g : f.others) others.push_back({{"what", g.what}, {"count", g.count}, {"first_line", g.first_line}, {"ranks", g.ranks}});
  for (const Frame& x : f.event.frames) frames.push_back({{"file", x.file}, {"line", x.line}, {"function", x.function}, {"code", text(x.code)}});
  return {{"line", f.event.line}, {"quote", f.event.quote}, {"rank", whole(f.event.rank)}, {"message", message_json(f.event.oom)},
          {"moment", {{"phase", name_of(f.phase)}, {"part", name_of(f.part)}, {"source", text(f.phase_source)}, {"steps_done", f.event.steps_done}}},
          {"asked", f.asked ? Json{{"shape", f.asked->shape}, {"dtype", f.asked->dtype}} : Json()}, {"holders", holders}, {"matches", matches},
          {"cause", cause_json(f.cause)},
          {"fixes", fixes}, {"ladder", ladder}, {"others", others}, {"frames", frames}};
}

Json run_json(const Diagnosis& d) {
  const RunLog& r = d.run;
  Json memory = Json::array();
  for (const MemorySeries& s : r.memory) memory.push_back({{"label", s.label}, {"readings", s.used.count()}, {"largest_bytes", static_cast<std::int64_t>(s.used.largest())}, {"grown_bytes", bytes(growth_of(s))}});
  return {{"nanochat", r.nanochat}, {"command", text(r.command)}, {"steps_done", r.steps_done()}, {"steps_planned", whole(r.steps.planned)}, {"step_milliseconds", number(r.steps.milliseconds.median())},
          {"tokens_per_second", number(r.steps.tokens_per_second.median())}, {"mfu", number(r.steps.mfu.median())}, {"peak_allocated_bytes", bytes(r.peak)}, {"memory", memory}};
}

Json workload_json(const KnownRun& known) {
  if (!known.workload) return {};
  const Workload& w = *known.workload;
  const Run& run = w.run;
  const auto& hf = w.transformers;
  return {{"family", hf ? "transformers" : "nanochat"}, {"version", hf ? hf->architecture.class_name : w.model.version.epoch}, {"depth", w.model.depth}, {"params", w.model.param_count()},
          {"run", {{"device_batch_size", run.device_batch_size}, {"total_batch_size", run.total_batch_size}, {"max_seq_len", run.max_seq_len}, {"grad_accum_steps", run.grad_accum_steps}, {"world_size", run.world_size}, {"dtype", name_of(run.compute)}, {"fp8", run.fp8}}},
          {"sources", strings(known.sources)}};
}

Json seen_json(const Observation& s) {
  Json reasons;
  if (s.throttle) {
    reasons = Json::array();
    for (std::string_view name : throttle_names(*s.throttle)) reasons.push_back(name);
  }
  const auto small = [](const std::optional<int>& n) { return n ? Json(*n) : Json(); };
  return {{"used_bytes", bytes(s.used)}, {"total_bytes", bytes(s.total)}, {"allocated_peak_bytes", bytes(s.allocated_peak)}, {"utilization", number(s.utilization)}, {"power_watts", number(s.power_watts)}, {"power_limit_watts", number(s.power_limit_watts)},
          {"clock_mhz", number(s.clock_mhz)}, {"max_clock_mhz", number(s.max_clock_mhz)}, {"mfu", number(s.mfu)}, {"tokens_per_second", number(s.tokens_per_second)}, {"step_milliseconds", number(s.step_milliseconds)}, {"stalled_share", number(s.stalled_share)},
          {"throttle", reasons}, {"pcie_generation", small(s.pcie_generation)}, {"pcie_generation_max", small(s.pcie_generation_max)}, {"pcie_width", small(s.pcie_width)}, {"pcie_width_max", small(s.pcie_width_max)},
          {"others_bytes", bytes(s.others)}, {"other_processes", s.others ? Json(s.other_processes) : Json()}, {"host_cores", number(s.host_cores)}};
}

Json underuse_json(const Underuse& u) {
  Json next = Json::array();
  for (const Advice& a : u.next) next.push_back({{"change", a.change}, {"expected", a.expected}, {"command", text(a.command)}});
  return {{"verdict", name_of(u.verdict)}, {"summary", u.summary}, {"why", strings(u.why)}, {"seen", seen_json(u.seen)}, {"headroom_bytes", bytes(u.headroom)}, {"device_batch_size", whole(u.device_batch)},
          {"largest_device_batch_size", whole(u.largest_device_batch)}, {"gain", number(u.gain)}, {"gain_at_most", number(u.gain_at_most)}, {"next", next}};
}

Json live_json(const Live& live) {
  Json gpus = Json::array();
  for (const Live::Gpu& g : live.gpus) gpus.push_back({{"index", g.reading.index}, {"name", g.reading.name}, {"uuid", text(g.reading.uuid)}, {"by_process", g.reading.in_job}, {"verdict", name_of(g.verdict)}, {"seen", seen_json(g.reading.seen)}});
  return {{"source", live.source}, {"replay", live.replay}, {"seconds", live.seconds}, {"samples", live.samples}, {"pid", whole(live.pid)}, {"command", text(live.command)},
          {"measured_bytes", bytes(live.measured)}, {"unaccounted_bytes", bytes(live.unaccounted)}, {"judged_gpu", live.gpus.empty() ? Json() : Json(live.gpus[live.judged].reading.index)}, {"gpus", gpus}};
}

}  // namespace

std::string doctor_json(const Diagnosis& d, const std::string& name) {
  const char* finding = d.finding == Diagnosis::Finding::failure ? "failure" : d.finding == Diagnosis::Finding::healthy ? "healthy" : "nothing";
  Json prediction, machine;
  if (d.prediction) {
    const Prediction& p = *d.prediction;
    prediction = {{"allocated_bytes", p.allocated.count}, {"process_bytes", p.process.count}, {"usable_bytes", p.usable.count}, {"verdict", name_of(p.verdict)}, {"phase", p.peak_phase}, {"event", p.peak_event},
                  {"allocated_at_request_bytes", bytes(p.at_request)}, {"unaccounted_bytes", bytes(p.unaccounted)},
                  {"dies_at", p.dies_at ? match_json(*p.dies_at) : Json()}, {"dies_asking_bytes", bytes(p.dies_asking)}};
  }
  if (d.known.machine) machine = {{"gpu", d.known.machine->gpu.name}, {"gpus", d.known.machine->gpus}, {"total_bytes", d.known.machine->total.count}, {"usable_bytes", d.known.machine->usable().count}};
  const Json out = {{"schema_version", 1}, {"dryfit", DRYFIT_VERSION}, {"source", {{"name", printable(name, 4096)}, {"bytes", d.bytes}, {"lines", d.lines}, {"encoding", name_of(d.encoding)}}}, {"finding", finding},
                    {"failure", d.failure ? failure_json(*d.failure) : Json()}, {"underuse", d.underuse ? underuse_json(*d.underuse) : Json()}, {"live", d.live ? live_json(*d.live) : Json()}, {"run", run_json(d)}, {"workload", workload_json(d.known)}, {"machine", machine}, {"prediction", prediction}, {"notes", strings(d.notes)}};
  return out.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace dryfit
