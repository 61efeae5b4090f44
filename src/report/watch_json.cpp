// watch for programs: a line of text, a line of JSON, Prometheus' text format. Unknown is null, or left out where a format has no null.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <map>

#include "base/version.hpp"
#include "report/json_parts.hpp"
#include "report/screen.hpp"
#include "report/watch.hpp"

namespace dryfit {

namespace {

using Json = nlohmann::ordered_json;
using json_parts::estimate_json;

template <class T>
Json or_null(const std::optional<T>& v) { return v ? Json(*v) : Json(); }
Json or_null(const std::optional<Bytes>& v) { return v ? Json(v->count) : Json(); }

Json gpu_json(const GpuHistory& g, bool in_job) {
  const GpuSample& s = g.now;
  Json throttle, processes;
  if (s.throttle) {
    throttle = Json::array();
    for (std::string_view name : throttle_names(*s.throttle)) throttle.push_back(name);
  }
  if (s.processes) {
    processes = Json::array();
    for (const GpuProcess& p : *s.processes) processes.push_back({{"pid", p.pid}, {"used_bytes", or_null(p.used)}});
  }
  return {{"index", s.index}, {"name", s.name}, {"uuid", s.uuid}, {"mig", s.mig}, {"lost", s.lost}, {"in_job", in_job}, {"total_bytes", or_null(s.total)}, {"reserved_bytes", or_null(s.reserved)}, {"used_bytes", or_null(s.used)},
          {"job_bytes", or_null(g.job)}, {"job_peak_bytes", g.job_peak > Bytes(0) ? Json(g.job_peak.count) : Json()}, {"others_bytes", s.processes ? Json(g.others.count) : Json()}, {"utilization", or_null(s.utilization)},
          {"memory_utilization", or_null(s.memory_utilization)}, {"power_watts", or_null(s.power_watts)}, {"power_limit_watts", or_null(s.power_limit_watts)}, {"temperature_c", or_null(s.temperature_c)},
          {"sm_clock_mhz", or_null(s.sm_clock_mhz)}, {"sm_clock_max_mhz", or_null(s.sm_clock_max_mhz)}, {"memory_clock_mhz", or_null(s.memory_clock_mhz)}, {"memory_clock_max_mhz", or_null(s.memory_clock_max_mhz)},
          {"throttle", throttle}, {"pcie_generation", or_null(s.pcie_generation)}, {"pcie_generation_max", or_null(s.pcie_generation_max)}, {"pcie_width", or_null(s.pcie_width)}, {"pcie_width_max", or_null(s.pcie_width_max)},
          {"processes", processes}};
}

Json prediction_json(const WatchView& v) {
  if (v.prediction == nullptr) return {};
  const JobPrediction& p = *v.prediction;
  return {{"run", p.run}, {"verdict", name_of(p.verdict)}, {"allocated", estimate_json(p.allocated)}, {"reserved", estimate_json(p.reserved)}, {"process", estimate_json(p.process)},
          {"context_bytes", p.context.count}, {"usable_bytes", p.usable.count}, {"by_now_bytes", predicted_by_now(p, v.log).count},
          {"earlier_tokens_per_second", p.speed ? Json(p.speed->tokens_per_second) : Json()}, {"tokens_per_second", or_null(p.tokens_per_second)}};
}

Json log_json(const LogRun* log) {
  if (log == nullptr) return {};
  const LogStep s = log->last.value_or(LogStep{});
  return {{"phase", name_of(log->phase())}, {"step", log->last ? Json(s.step) : Json()}, {"of", or_null(s.of)}, {"loss", or_null(s.loss)}, {"step_seconds", or_null(s.seconds)}, {"tokens_per_second", or_null(s.tokens_per_second)},
          {"mfu", or_null(s.mfu)}, {"eta_seconds", or_null(s.eta_seconds)}, {"validation_bpb", or_null(log->validation_bpb)}, {"core_metric", or_null(log->core_metric)}, {"peak_allocated_bytes", or_null(log->peak_allocated)}};
}

// A label's value: backslash, quote and line feed escaped.
std::string label(std::string_view text) {
  std::string out;
  for (char c : plain_text(text, 120)) out += c == '\\' || c == '"' ? std::string("\\") + c : std::string(1, c);
  return out;
}

// One metric with its samples; nothing when it has none.
class Metric {
 public:
  Metric(std::string_view name, std::string_view help) : name_(name), head_(fmt::format("# HELP {0} {1}\n# TYPE {0} gauge\n", name, help)) {}
  void add(const std::string& labels, double value) { samples_ += fmt::format("{}{} {}\n", name_, labels.empty() ? "" : "{" + labels + "}", value); }
  void add(const std::string& labels, const std::optional<Bytes>& value) {
    if (value) samples_ += fmt::format("{}{} {}\n", name_, labels.empty() ? "" : "{" + labels + "}", value->count);
  }
  void add(const std::string& labels, const std::optional<double>& value) {
    if (value) add(labels, *value);
  }
  std::string text() const { return samples_.empty() ? "" : head_ + samples_; }

 private:
  std::string name_, head_, samples_;
};

}  // namespace

std::string watch_line(const WatchView& v) {
  const History& h = *v.history;
  std::string out = fmt::format("{:>8.1f} s", h.now - h.first);
  for (std::size_t i : job_gpus(h)) {
    const GpuHistory& g = h.gpus[i];
    if (g.now.lost) {
      out += fmt::format("  GPU {} lost", g.now.index);
      continue;
    }
    out += fmt::format("  GPU {} {}/{}{}", g.now.index, g.now.used ? gib_text(*g.now.used) : "?", g.now.usable() ? gib_text(*g.now.usable()) : "?", g.now.utilization ? fmt::format(" {:.0f} %", *g.now.utilization * 100) : "");
  }
  if (v.prediction != nullptr) out += "  predicted " + gib_text(v.prediction->process.bytes);
  if (v.log != nullptr && v.log->last) out += fmt::format("  step {}", v.log->last->step);
  for (const Finding& f : v.findings) {
    if (f.level != Level::note) out += fmt::format("  {} {}{}{}", name_of(f.level), name_of(f.kind), f.gpu >= 0 ? fmt::format(" on GPU {}", f.gpu) : "", f.seconds ? " in " + duration_text(*f.seconds) : "");
  }
  return out + "\n";
}

std::string watch_json(const WatchView& v) {
  const History& h = *v.history;
  const auto used = job_gpus(h);
  Json gpus = Json::array(), findings = Json::array(), processes = Json::array();
  for (std::size_t i = 0; i < h.gpus.size(); ++i) gpus.push_back(gpu_json(h.gpus[i], v.job != nullptr && std::ranges::find(used, i) != used.end()));
  for (const Finding& f : v.findings) {
    findings.push_back({{"kind", name_of(f.kind)}, {"level", name_of(f.level)}, {"gpu", f.gpu >= 0 ? Json(f.gpu) : Json()}, {"text", finding_text(f)}, {"amount_bytes", f.amount.count}, {"share", f.share > 0 ? Json(f.share) : Json()}, {"seconds", or_null(f.seconds)}});
  }
  for (const ProcessSample& p : v.tree) processes.push_back({{"pid", p.pid}, {"parent", p.parent}, {"name", p.name}, {"resident_bytes", or_null(p.resident)}, {"cpu", or_null(p.cpu)}});
  const Measured measured = measured_peak(h);
  const Json peak = measured.bytes > Bytes(0) ? Json(measured.bytes.count) : Json();
  const Json unaccounted = v.prediction != nullptr && measured.bytes > Bytes(0) ? Json((measured.bytes - v.prediction->process.bytes).count) : Json();
  Json job;
  if (v.job != nullptr) job = {{"pid", v.job->pid}, {"command", v.job->command}, {"script", v.job->script.empty() ? Json() : Json(v.job->script)}};
  const Json out = {{"schema_version", 1}, {"dryfit", DRYFIT_VERSION}, {"time_ms", v.time_ms > 0 ? Json(v.time_ms) : Json()}, {"seconds", h.now - h.first}, {"source", v.source}, {"job", job}, {"prediction", prediction_json(v)},
                    {"no_prediction", v.prediction == nullptr ? Json(v.no_prediction) : Json()},
                    {"measured", {{"peak_bytes", peak}, {"by_process", measured.by_process}, {"unaccounted_bytes", unaccounted}}}, {"gpus", gpus}, {"log", log_json(v.log)}, {"findings", findings}, {"processes", processes}, {"notes", v.notes}};
  return out.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string watch_prometheus(const WatchView& v) {
  const History& h = *v.history;
  Metric up("dryfit_watch_up", "1 while dryfit watch runs"), used("dryfit_gpu_memory_used_bytes", "memory in use on the GPU, without the driver's reserve"), usable("dryfit_gpu_memory_usable_bytes", "total minus the driver's reserve"),
      job("dryfit_gpu_memory_job_bytes", "memory of the watched job's processes"), peak("dryfit_gpu_memory_job_peak_bytes", "largest memory of the watched job's processes seen"), others("dryfit_gpu_memory_others_bytes", "memory of other processes"),
      busy("dryfit_gpu_utilization_ratio", "share of time in which a kernel ran"), power("dryfit_gpu_power_watts", "power draw"), lost("dryfit_gpu_lost", "1 when the GPU no longer answers"), predicted("dryfit_job_memory_predicted_bytes", "predicted peak of the process on one GPU"),
      unaccounted("dryfit_job_memory_unaccounted_bytes", "measured peak minus predicted"), step("dryfit_job_step", "optimizer step in the log"), rate("dryfit_job_tokens_per_second", "as the log prints it"), mfu("dryfit_job_mfu_ratio", "as the log prints it"),
      findings("dryfit_finding", "1 while the finding holds");
  up.add("", 1.0);
  for (const GpuHistory& g : h.gpus) {
    const std::string gpu = fmt::format("gpu=\"{}\",uuid=\"{}\",name=\"{}\"", g.now.index, label(g.now.uuid), label(g.now.name));
    lost.add(gpu, g.now.lost ? 1.0 : 0.0);
    if (g.now.lost) continue;
    used.add(gpu, g.now.used), usable.add(gpu, g.now.usable()), job.add(gpu, g.job);
    if (g.job_peak > Bytes(0)) peak.add(gpu, std::optional(g.job_peak));
    if (g.now.processes) others.add(gpu, std::optional(g.others));
    busy.add(gpu, g.now.utilization), power.add(gpu, g.now.power_watts);
  }
  if (v.prediction != nullptr) {
    const JobPrediction& p = *v.prediction;
    for (const auto& [bound, bytes] : {std::pair{"middle", p.process.bytes}, std::pair{"low", p.process.low}, std::pair{"high", p.process.high}}) predicted.add(fmt::format("bound=\"{}\"", bound), std::optional(bytes));
    const Measured measured = measured_peak(h);
    if (measured.bytes > Bytes(0)) unaccounted.add("", static_cast<double>((measured.bytes - p.process.bytes).count));
  }
  if (v.log != nullptr && v.log->last) step.add("", static_cast<double>(v.log->last->step)), rate.add("", v.log->last->tokens_per_second), mfu.add("", v.log->last->mfu);
  for (const Finding& f : v.findings) findings.add(fmt::format("kind=\"{}\",level=\"{}\",gpu=\"{}\"", name_of(f.kind), name_of(f.level), f.gpu >= 0 ? std::to_string(f.gpu) : ""), 1.0);
  std::string out;
  for (const Metric* m : {&up, &used, &usable, &job, &peak, &others, &busy, &power, &lost, &predicted, &unaccounted, &step, &rate, &mfu, &findings}) out += m->text();
  return out;
}

std::string watch_prometheus_down() {
  Metric up("dryfit_watch_up", "1 while dryfit watch runs");
  up.add("", 0.0);
  return up.text();
}

}  // namespace dryfit
