// Values to JSON. Order of fields as docs/schema documents them. See json.hpp.
#include "report/json.hpp"

#include <nlohmann/json.hpp>

#include "base/version.hpp"
#include "base/text.hpp"
#include "report/json_parts.hpp"

namespace dryfit {

namespace {

using Json = nlohmann::ordered_json;
using json_parts::estimate_json;
using json_parts::shape_json;

// What only the script knows is null.
Json captured_json(const Report& r) {
  const CapturedRun& c = *r.workload.captured;
  const Run& run = r.workload.run;
  Json notes = Json::array();
  for (const std::string& note : c.notes) notes.push_back(note);
  return {{"family", "captured"}, {"version", c.torch}, {"depth", nullptr}, {"params", c.parameters}, {"param_groups", nullptr},
          {"model", {{"script", c.script}, {"gpu", c.gpu}, {"compile", c.compile}, {"steps", c.steps}, {"notes", notes}}},
          {"run", {{"script", nullptr}, {"device_batch_size", nullptr}, {"total_batch_size", nullptr}, {"max_seq_len", nullptr}, {"grad_accum_steps", run.grad_accum_steps}, {"world_size", run.world_size}, {"dtype", nullptr}, {"fp8", nullptr}, {"compile", run.compile}, {"attention", nullptr}, {"torch", run.torch}}}};
}

Json workload_json(const Report& r) {
  if (r.workload.captured) return captured_json(r);
  const Model& m = r.workload.model;
  const Run& run = r.workload.run;
  Json groups;
  for (ParamGroup g : {ParamGroup::wte, ParamGroup::value_embeds, ParamGroup::lm_head, ParamGroup::transformer_matrices, ParamGroup::scalars}) groups[std::string(name_of(g))] = m.param_count(g);
  const auto& hf = r.workload.transformers;
  Json out = {{"family", hf ? "transformers" : "nanochat"}, {"version", hf ? hf->architecture.class_name : m.version.epoch}, {"depth", m.depth}, {"params", m.param_count()}, {"param_groups", groups},
          {"model", {{"width", m.width}, {"heads", m.heads}, {"kv_heads", m.kv_heads}, {"head_dim", m.head_dim}, {"ffn", m.ffn}, {"vocab_size", m.vocab}, {"padded_vocab_size", m.padded_vocab}, {"aspect_ratio", m.aspect_ratio}, {"window_pattern", m.window_pattern}}},
          {"run", {{"script", name_of(run.script)}, {"device_batch_size", run.device_batch_size}, {"total_batch_size", run.total_batch_size}, {"max_seq_len", run.max_seq_len}, {"grad_accum_steps", run.grad_accum_steps}, {"world_size", run.world_size}, {"dtype", name_of(run.compute)}, {"fp8", run.fp8}, {"compile", run.compile}, {"attention", name_of(r.attention)}, {"torch", run.torch}}}};
  if (hf) {
    const Architecture& a = hf->architecture;
    const Training& t = hf->training;
    out["model"] = {{"name", a.name}, {"model_type", a.model_type}, {"layers", a.layers}, {"width", a.width}, {"heads", a.heads}, {"kv_heads", a.kv_heads}, {"head_dim", a.head_dim}, {"ffn", a.ffn}, {"vocab_size", a.vocab},
                    {"experts", a.moe ? Json(a.moe->experts) : Json()}, {"experts_per_token", a.moe ? Json(a.moe->top_k) : Json()}, {"tied_head", a.tied_head}};
    out["run"]["weights_dtype"] = name_of(t.weights);
    out["run"]["optimizer"] = name_of(t.optimizer);
    out["run"]["recompute"] = name_of(t.recompute);
    out["run"]["shard"] = name_of(t.sharding);
    out["run"]["lora_rank"] = t.lora ? Json(t.lora->rank) : Json();
    out["run"]["load_in_4bit"] = t.quantized;
    if (t.rollouts) out["run"]["training"] = "grpo";
    if (t.preference) out["run"]["training"] = name_of(*t.preference);
  }
  return out;
}

Json peak_json(const Report& r) {
  Json live = Json::array();
  for (std::size_t i = 0; i < r.live.size() && i < 40; ++i) {
    const TensorInfo& t = r.live[i];
    live.push_back({{"name", t.name()}, {"bytes", t.bytes}, {"shape", shape_json(t.shape)}, {"dtype", name_of(t.dtype)}, {"category", name_of(t.category)}});
  }
  return {{"phase", r.peak_phase}, {"micro_step", r.peak_micro_step}, {"event", r.peak_event}, {"live", live}};
}

Json alternative_json(const Alternative& a) {
  Json change;
  for (const auto& [key, value] : a.change) change[key] = value;
  return {{"change", change}, {"allocated_bytes", a.allocated ? Json(a.allocated->count) : Json()}, {"process_bytes", a.process ? Json(a.process->count) : Json()},
          {"verdict", a.verdict ? Json(name_of(*a.verdict)) : Json()}, {"step_time_ratio", a.step_time_ratio ? Json(*a.step_time_ratio) : Json()},
          {"identical_training", a.identical_training}, {"needs_code_change", a.needs_code_change}, {"note", a.note}};
}

Json speed_json(const Report& r) {
  if (!r.speed) return {};
  const SpeedEstimate& s = *r.speed;
  Json kinds;
  for (int k = 0; k < kWorkKinds; ++k) kinds[std::string(name_of(static_cast<WorkKind>(k)))] = s.parts.by_kind[static_cast<std::size_t>(k)];
  kinds["waiting"] = s.parts.waiting;
  kinds["loading"] = s.parts.loading;
  Json horizon, cost;
  if (s.horizon) horizon = {{"rule", s.horizon->rule}, {"iterations", s.horizon->iterations}, {"tokens", s.horizon->tokens}, {"seconds", *s.horizon_seconds()}};
  if (const auto usd = s.horizon_usd(r.machine.gpus)) {
    cost = {{"usd", *usd}, {"usd_per_gpu_hour", s.price->usd_per_gpu_hour}, {"provider", s.price->provider}, {"kind", s.price->kind}, {"seen", s.price->seen.empty() ? Json() : Json(s.price->seen)}};
  }
  return {{"tokens_per_second", s.tokens_per_second}, {"step_seconds", s.step_seconds}, {"mfu", s.mfu ? Json(*s.mfu) : Json()}, {"low", s.low}, {"high", s.high}, {"provenance", name_of(s.provenance)},
          {"modelled_step_seconds", s.parts.seconds}, {"modelled_seconds_by_kind", kinds}, {"horizon", horizon}, {"cost", cost}, {"usd_per_million_tokens", json_parts::number(s.usd_per_million_tokens(r.machine.gpus))}};
}

// A column per category, a row per moment; only where a timeline was asked for.
Json timeline_json(const Report& r) {
  Json points = Json::array();
  for (const TimelinePoint& p : r.timeline) {
    Json by_category = Json::array();
    for (Bytes b : p.by_category) by_category.push_back(b.count);
    points.push_back({{"event", p.event}, {"phase", p.phase}, {"part", p.part}, {"micro_step", p.micro_step}, {"op", p.op}, {"allocated_bytes", p.allocated.count}, {"by_category", by_category}});
  }
  Json names = Json::array();
  for (int c = 0; c < kCategories; ++c) names.push_back(name_of(static_cast<Category>(c)));
  return {{"categories", names}, {"points", points}};
}

Json to_json(const Report& r) {
  Json phases = Json::array(), categories = Json::array(), alternatives = Json::array(), assumptions = Json::array(), notes = Json::array();
  for (const PhaseResult& p : r.phases) phases.push_back({{"name", p.name}, {"allocated_bytes", p.allocated.count}, {"reserved_bytes", p.reserved.count}, {"event", p.event}, {"provenance", name_of(p.provenance)}});
  for (const CategoryBytes& c : r.categories) categories.push_back({{"name", name_of(c.category)}, {"at_peak_bytes", c.at_peak.count}});
  for (const Alternative& a : r.alternatives) alternatives.push_back(alternative_json(a));
  for (const Assumption& a : r.assumptions) assumptions.push_back({{"key", a.key}, {"value", a.value}, {"source", a.source}});
  Json warnings = Json::array();
  for (const std::string& w : r.warnings) warnings.push_back(w);
  for (const std::string& n : r.machine.notes) notes.push_back(n);
  Json out = {{"schema_version", 1}, {"dryfit", DRYFIT_VERSION}, {"verdict", name_of(r.verdict)}, {"workload", workload_json(r)},
          {"machine", {{"gpu", r.machine.gpu.name}, {"gpus", r.machine.gpus}, {"total_bytes", r.machine.total.count}, {"usable_bytes", r.machine.usable().count}, {"source", name_of(r.machine.source)}, {"notes", notes}}},
          {"memory", {{"allocated", estimate_json(r.allocated)}, {"reserved", estimate_json(r.reserved)}, {"process", estimate_json(r.process)},
                      {"static", {{"weights", r.weights.count}, {"gradients", r.gradients.count}, {"optimizer", r.optimizer.count}}}, {"headroom_bytes", r.headroom.count}, {"allocator", r.alloc_conf_note}}},
          {"peak", peak_json(r)}, {"phases", phases}, {"categories", categories}, {"speed", speed_json(r)}, {"alternatives", alternatives}, {"command", r.command}, {"assumptions", assumptions}, {"warnings", warnings}};
  if (!r.timeline.empty()) out["timeline"] = timeline_json(r);
  return out;
}

std::string dump(const Json& json) { return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n"; }

Json job_json(const JobFile& job) { return {{"kind", name_of(job.kind)}, {"file", file_of(job.kind)}, {"text", job.text}}; }

}  // namespace

std::string report_json(const Report& report, const std::optional<JobFile>& job) {
  Json out = to_json(report);
  if (job) out["job"] = job_json(*job);
  return dump(out);
}

std::string plan_json(const PlanResult& plan, const std::optional<JobFile>& job) {
  Json plans = Json::array();
  for (const Report& r : plan.plans) plans.push_back(to_json(r));
  Json out = {{"schema_version", 1}, {"plans", plans}, {"chosen", plan.plans.empty() ? Json() : Json(plan.chosen)}, {"why", plan.why}};
  if (plan.closest) out["closest"] = to_json(*plan.closest);
  if (job) out["job"] = job_json(*job);
  return dump(out);
}

namespace {

Json candidate_json(const Candidate& c, bool chosen) {
  const Report& r = c.report;
  const Training& t = r.workload.transformers->training;
  return {{"method", name_of(c.method)}, {"recompute", name_of(t.recompute)}, {"shard", name_of(t.sharding)}, {"device_batch_size", c.fits ? Json(r.workload.run.device_batch_size) : Json()}, {"grad_accum_steps", r.workload.run.grad_accum_steps},
          {"verdict", name_of(r.verdict)}, {"allocated_bytes", r.allocated.bytes.count}, {"process_bytes", r.process.bytes.count}, {"headroom_bytes", r.headroom.count}, {"at_least", c.at_least}, {"least_seconds_per_token", json_parts::number(c.least_seconds_per_token())}, {"tokens_per_second", c.fits && r.speed ? Json(r.speed->tokens_per_second) : Json()}, {"command", r.command}, {"plan", chosen ? Json(0) : Json()}};
}

Json rent_json(const Rent& rent) {
  const Report& r = rent.report;
  const Training& t = r.workload.transformers->training;
  return {{"gpu", rent.price.gpu}, {"gpus", r.machine.gpus}, {"provider", rent.price.provider}, {"kind", rent.price.kind}, {"usd_per_gpu_hour", rent.price.usd_per_gpu_hour}, {"usd_per_hour", rent.usd_per_hour()},
          {"seen", rent.price.seen.empty() ? Json() : Json(rent.price.seen)}, {"source", rent.price.source}, {"recompute", name_of(t.recompute)}, {"shard", name_of(t.sharding)}, {"device_batch_size", r.workload.run.device_batch_size}, {"process_bytes", r.process.bytes.count}};
}

}  // namespace

std::string plan_json(const TransformersPlan& plan, std::string_view check, const std::optional<JobFile>& job) {
  Json plans = Json::array(), candidates = Json::array(), missed = Json::array();
  for (std::size_t i = 0; i < plan.candidates.size(); ++i) candidates.push_back(candidate_json(plan.candidates[i], i == plan.chosen));
  if (plan.chosen) plans.push_back(to_json(plan.candidates[*plan.chosen].report));
  for (const Missed& m : plan.missed) missed.push_back({{"method", name_of(m.method)}, {"change", m.change ? alternative_json(*m.change) : Json()}, {"rent", m.rent ? rent_json(*m.rent) : Json()}, {"on_host", m.on_host ? alternative_json(*m.on_host) : Json()}});
  Json out = {{"schema_version", 1}, {"plans", plans}, {"chosen", plan.chosen ? Json(0) : Json()}, {"why", plan.why}, {"candidates", candidates}, {"missed", missed}, {"check", check.empty() ? Json() : Json(check)}};
  if (job) out["job"] = job_json(*job);
  return dump(out);
}

std::string offers_json(std::span<const Offer> offers) {
  Json out = Json::array();
  for (const Offer& o : offers) {
    const Run& run = o.report.workload.run;
    out.push_back({{"gpu", o.price.gpu}, {"gpus", o.report.machine.gpus}, {"provider", o.price.provider}, {"kind", o.price.kind}, {"usd_per_gpu_hour", o.price.usd_per_gpu_hour}, {"seen", o.price.seen.empty() ? Json() : Json(o.price.seen)}, {"source", o.price.source},
                   {"depth", o.report.workload.model.depth}, {"device_batch_size", run.device_batch_size}, {"speed", speed_json(o.report)}, {"best", o.best}, {"command", o.report.command}});
    if (!o.report.workload.transformers) continue;
    const Training& t = o.report.workload.transformers->training;
    out.back().update({{"method", name_of(method_of(t))}, {"recompute", name_of(t.recompute)}, {"shard", name_of(t.sharding)}, {"grad_accum_steps", run.grad_accum_steps}, {"total_batch_size", run.total_batch_size}, {"process_bytes", o.report.process.bytes.count}});
  }
  return dump({{"schema_version", 1}, {"offers", out}});
}

std::string table_json(std::span<const TableRow> rows) {
  Json out = Json::array();
  for (const TableRow& row : rows) {
    out.push_back({{"gpu", row.gpu}, {"usable_bytes", row.usable.count}, {"depth", row.depth}, {"device_batch_size", row.device_batch_size ? Json(*row.device_batch_size) : Json()}, {"allocated_bytes", row.allocated ? Json(row.allocated->count) : Json()}});
    if (row.way) out.back().update({{"method", row.way->method}, {"recompute", name_of(row.way->recompute)}, {"shard", name_of(row.way->sharding)}, {"tokens_per_second", json_parts::number(row.tokens_per_second)}});
  }
  return dump({{"schema_version", 1}, {"rows", out}});
}

std::string rule_json(const RuleOfThumb& r, std::optional<std::int64_t> engine) {
  Json memory = r.gpu_memory.find_first_of(".e") == std::string::npos ? Json(static_cast<std::int64_t>(r.gpu_memory_gb)) : Json(r.gpu_memory_gb);
  return dump({{"schema_version", 1},
               {"seed", {{"gpu_memory", memory}, {"depth", r.depth}, {"model_params", r.model_params}, {"model_memory", r.model_memory}, {"optimizer_memory", r.optimizer_memory}, {"available_for_activations", r.available_for_activations}, {"recommended_batch_size", r.recommended_batch_size}, {"safe_batch_size", r.safe_batch_size}}},
               {"engine", {{"device_batch_size", engine ? Json(*engine) : Json()}}}, {"note", r.note}});
}

std::string error_json(const Error& e) {
  return dump({{"schema_version", 1}, {"error", {{"code", e.code}, {"message", e.message}, {"hint", e.hint}, {"where", e.where}}}});
}

std::string gpus_json(std::string_view filter) {
  Json out = Json::array();
  for (const GpuKind& g : gpu_catalogue()) {
    if (to_lower(g.name).find(to_lower(filter)) == std::string::npos) continue;
    Json aliases = Json::array();
    for (const std::string& alias : g.aliases) aliases.push_back(alias);
    out.push_back({{"name", g.name}, {"aliases", aliases}, {"vendor", g.vendor}, {"architecture", g.architecture}, {"total_bytes", g.total.count}, {"usable_bytes", (g.total - g.driver_reserve).count},
                   {"compute_capability", g.compute_major > 0 ? Json(std::to_string(g.compute_major) + "." + std::to_string(g.compute_minor)) : Json()}});
  }
  return dump({{"schema_version", 1}, {"gpus", out}});
}

std::string models_json(std::span<const Workload> models) {
  Json out = Json::array();
  for (const Workload& w : models) {
    const Model& m = w.model;
    Bytes weights;
    for (const Parameter& p : m.parameters) weights += p.bytes();
    out.push_back({{"depth", m.depth}, {"width", m.width}, {"heads", m.heads}, {"params", m.param_count()}, {"weights_bytes", weights.count}, {"total_batch_size", w.run.total_batch_size}});
  }
  return dump({{"schema_version", 1}, {"models", out}});
}

std::string versions_json() {
  Json out = Json::array();
  for (const NanochatVersion& v : nanochat_versions()) out.push_back({{"epoch", v.epoch}, {"date", v.date}, {"commit", v.commit}, {"default_vocab_size", v.default_vocab}});
  return dump({{"schema_version", 1}, {"versions", out}});
}

std::string version_json() { return dump({{"schema_version", 1}, {"dryfit", DRYFIT_VERSION}}); }

}  // namespace dryfit
