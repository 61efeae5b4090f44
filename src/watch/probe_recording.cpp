// See probe_recording.hpp. At the edge because the JSON library may throw; nothing here lets it.
#include "watch/probe_recording.hpp"

#include <nlohmann/json.hpp>

#include <cmath>
#include <limits>

#include "base/version.hpp"

namespace dryfit {

namespace {

using Json = nlohmann::json;

constexpr std::size_t kMostRecordedGpus = 1024, kMostRecordedProcesses = 4096, kMostLog = 4096, kMostText = 64 << 10;
constexpr std::int64_t kMostBytes = std::int64_t{1} << 60;

// ---- writing: unknown readings are left out
void put(Json& j, const char* key, const std::optional<Bytes>& v) {
  if (v) j[key] = v->count;
}
void put(Json& j, const char* key, const std::optional<int>& v) {
  if (v) j[key] = *v;
}
void put(Json& j, const char* key, const std::optional<double>& v, double unit) {
  if (v && std::isfinite(*v)) j[key] = std::round(*v / unit) * unit;
}
void put(Json& j, const char* key, const std::string& v) {
  if (!v.empty()) j[key] = v;
}
std::string line(const Json& j) { return j.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"; }

Json fixed(const GpuSample& g) {
  Json j = {{"index", g.index}};
  put(j, "name", g.name), put(j, "uuid", g.uuid);
  if (g.mig) j["mig"] = true;
  put(j, "compute_major", g.compute_major), put(j, "compute_minor", g.compute_minor);
  put(j, "total", g.total), put(j, "reserved", g.reserved);
  put(j, "sm_clock_max", g.sm_clock_max_mhz), put(j, "memory_clock_max", g.memory_clock_max_mhz);
  put(j, "pcie_generation_max", g.pcie_generation_max), put(j, "pcie_width_max", g.pcie_width_max);
  put(j, "power_limit", g.power_limit_watts, 0.001);
  return j;
}

Json moving(const GpuSample& g) {
  Json j = Json::object();
  if (g.lost) {
    j["lost"] = true;
    return j;
  }
  put(j, "used", g.used);
  put(j, "util", g.utilization, 0.001), put(j, "mem_util", g.memory_utilization, 0.001);
  put(j, "power", g.power_watts, 0.1), put(j, "temp", g.temperature_c, 0.1);
  put(j, "sm_clock", g.sm_clock_mhz), put(j, "memory_clock", g.memory_clock_mhz);
  if (g.throttle) j["throttle"] = *g.throttle;
  put(j, "pcie_generation", g.pcie_generation), put(j, "pcie_width", g.pcie_width);
  if (!g.processes) return j;
  j["processes"] = Json::array();
  for (const GpuProcess& p : *g.processes) j["processes"].push_back({p.pid, p.used ? Json(p.used->count) : Json()});
  return j;
}

// ---- reading: a field is absent, or of its kind and within its bounds, or an error
struct Fault { std::string what; };

class Fields {
 public:
  Fields(const Json& json, std::string place, std::optional<Fault>& fault) : j_(json), place_(std::move(place)), fault_(fault) {
    if (!j_.is_object()) bad("is no object");
  }
  const Json* find(const char* key) {
    if (!j_.is_object()) return nullptr;
    const auto it = j_.find(key);
    return it == j_.end() || it->is_null() ? nullptr : &*it;
  }
  std::optional<std::int64_t> whole(const char* key, std::int64_t low, std::int64_t high) {
    const Json* v = find(key);
    if (v == nullptr) return std::nullopt;
    if (!v->is_number_integer() || (v->is_number_unsigned() && v->get<std::uint64_t>() > static_cast<std::uint64_t>(high)) || v->get<std::int64_t>() < low || v->get<std::int64_t>() > high) {
      bad(key, "is no whole number from " + std::to_string(low) + " to " + std::to_string(high));
      return std::nullopt;
    }
    return v->get<std::int64_t>();
  }
  std::optional<int> small(const char* key) {
    const auto n = whole(key, 0, 1'000'000);
    return n ? std::optional(static_cast<int>(*n)) : std::nullopt;
  }
  std::optional<Bytes> bytes(const char* key) {
    const auto n = whole(key, 0, kMostBytes);
    return n ? std::optional(Bytes(*n)) : std::nullopt;
  }
  std::optional<double> real(const char* key, double low, double high) {
    const Json* v = find(key);
    if (v == nullptr) return std::nullopt;
    const double x = v->is_number() ? v->get<double>() : std::numeric_limits<double>::quiet_NaN();
    if (!(x >= low && x <= high)) {
      bad(key, "is no number in its range");
      return std::nullopt;
    }
    return x;
  }
  std::string text(const char* key) {
    const Json* v = find(key);
    if (v == nullptr) return "";
    if (v->is_string() && v->get_ref<const std::string&>().size() <= kMostText) return v->get<std::string>();
    bad(key, "is no text of at most " + std::to_string(kMostText) + " bytes");
    return "";
  }
  bool yes(const char* key) {
    const Json* v = find(key);
    if (v != nullptr && !v->is_boolean()) bad(key, "is neither true nor false");
    return v != nullptr && v->is_boolean() && v->get<bool>();
  }
  // Items of an array; nothing when it is absent.
  const Json* list(const char* key, std::size_t most) {
    const Json* v = find(key);
    if (v == nullptr) return nullptr;
    if (v->is_array() && v->size() <= most) return v;
    bad(key, "is no list of at most " + std::to_string(most) + " items");
    return nullptr;
  }
  std::vector<std::string> texts(const char* key, std::size_t most) {
    std::vector<std::string> out;
    const Json* items = list(key, most);
    if (items == nullptr) return out;
    for (const Json& item : *items) {
      if (!item.is_string() || item.get_ref<const std::string&>().size() > kMostText) {
        bad(key, "holds something that is no text");
        break;
      }
      out.push_back(item.get<std::string>());
    }
    return out;
  }
  void bad(const char* key, const std::string& what) { bad("field '" + place_ + key + "' " + what); }

 private:
  void bad(std::string what) {
    if (!fault_) fault_ = Fault{std::move(what)};
  }
  const Json& j_;
  std::string place_;
  std::optional<Fault>& fault_;
};

GpuSample read_fixed(const Json& json, const std::string& place, std::optional<Fault>& fault) {
  Fields f(json, place, fault);
  GpuSample g;
  g.index = f.small("index").value_or(0);
  g.name = f.text("name").substr(0, 200), g.uuid = f.text("uuid").substr(0, 200);
  g.mig = f.yes("mig");
  g.compute_major = f.small("compute_major"), g.compute_minor = f.small("compute_minor");
  g.total = f.bytes("total"), g.reserved = f.bytes("reserved");
  g.sm_clock_max_mhz = f.small("sm_clock_max"), g.memory_clock_max_mhz = f.small("memory_clock_max");
  g.pcie_generation_max = f.small("pcie_generation_max"), g.pcie_width_max = f.small("pcie_width_max");
  g.power_limit_watts = f.real("power_limit", 0, 1e6);
  return g;
}

void read_moving(const Json& json, const std::string& place, GpuSample& g, std::optional<Fault>& fault) {
  Fields f(json, place, fault);
  g.lost = f.yes("lost");
  g.used = f.bytes("used");
  if (g.total && g.used) g.free = *g.total - g.reserved.value_or(Bytes(0)) - *g.used;
  g.utilization = f.real("util", 0, 1), g.memory_utilization = f.real("mem_util", 0, 1);
  g.power_watts = f.real("power", 0, 1e6), g.temperature_c = f.real("temp", -300, 1e4);
  g.sm_clock_mhz = f.small("sm_clock"), g.memory_clock_mhz = f.small("memory_clock");
  if (const auto bits = f.whole("throttle", 0, std::numeric_limits<std::int64_t>::max())) g.throttle = static_cast<std::uint64_t>(*bits);
  g.pcie_generation = f.small("pcie_generation"), g.pcie_width = f.small("pcie_width");
  const Json* processes = f.list("processes", kMostRecordedProcesses);
  if (processes == nullptr) return;
  g.processes.emplace();
  for (const Json& p : *processes) {
    const bool shaped = p.is_array() && p.size() == 2 && p[0].is_number_integer() && (p[1].is_null() || p[1].is_number_integer());
    const std::int64_t pid = shaped ? p[0].get<std::int64_t>() : 0, used = shaped && !p[1].is_null() ? p[1].get<std::int64_t>() : 0;
    if (!shaped || pid <= 0 || used < 0 || used > kMostBytes) return f.bad("processes", "holds something other than [pid, bytes or null]");
    g.processes->push_back({pid, p[1].is_null() ? std::nullopt : std::optional(Bytes(used))});
  }
}

ProcessSample read_process(const Json& json, std::optional<Fault>& fault) {
  Fields f(json, "processes.", fault);
  ProcessSample p;
  p.pid = f.whole("pid", 1, std::int64_t{1} << 32).value_or(0);
  p.parent = f.whole("parent", 0, std::int64_t{1} << 32).value_or(0);
  p.name = f.text("name").substr(0, 200);
  p.resident = f.bytes("resident");
  p.cpu = f.real("cpu", 0, 1e5);
  return p;
}

constexpr const char* kHint = "recordings are made by: dryfit watch --record FILE";

}  // namespace

std::string write_recording_header(const RecordingHeader& header) {
  Json j = {{"dryfit_recording", kRecordingVersion}, {"dryfit", DRYFIT_VERSION}, {"started_ms", header.started_ms}, {"source", header.source}, {"gpus", Json::array()}};
  for (const GpuSample& g : header.gpus) j["gpus"].push_back(fixed(g));
  return line(j);
}

std::string write_recording_moment(const Moment& moment) {
  Json j = {{"t", std::round(moment.sample.seconds * 1000) / 1000}, {"gpus", Json::array()}};
  for (const GpuSample& g : moment.sample.gpus) j["gpus"].push_back(moving(g));
  if (!moment.sample.processes.empty()) {
    Json list = Json::array();
    for (const ProcessSample& p : moment.sample.processes) {
      Json one = {{"pid", p.pid}, {"parent", p.parent}, {"name", p.name}};
      put(one, "resident", p.resident), put(one, "cpu", p.cpu, 0.001);
      list.push_back(std::move(one));
    }
    j["processes"] = std::move(list);
  }
  if (moment.job) j["job"] = {{"pid", moment.job->pid}, {"command", moment.job->command}, {"environment", moment.job->environment}};
  if (!moment.log.empty()) j["log"] = moment.log;
  if (!moment.sample.notes.empty()) j["notes"] = moment.sample.notes;
  return line(j);
}

Result<void> RecordingReader::read_header(std::string_view text) {
  line_ = 1;
  const Json j = Json::parse(text, nullptr, false);
  const auto version = j.is_object() ? j.find("dryfit_recording") : j.end();
  if (!j.is_object() || version == j.end() || !version->is_number_integer()) return fail("not_a_recording", "this is no recording of dryfit watch", kHint, "line 1");
  if (*version != kRecordingVersion) return fail("newer_recording", "the recording has version " + version->dump() + "; this dryfit reads version " + std::to_string(kRecordingVersion), "use the dryfit that made it, or a newer one", "line 1");
  std::optional<Fault> fault;
  Fields f(j, "", fault);
  header_.started_ms = f.whole("started_ms", 0, std::int64_t{1} << 53).value_or(0);
  header_.source = f.text("source").substr(0, 40);
  if (const Json* gpus = f.list("gpus", kMostRecordedGpus)) {
    for (const Json& g : *gpus) header_.gpus.push_back(read_fixed(g, "gpus.", fault));
  }
  if (fault) return fail("bad_recording", fault->what, kHint, "line 1");
  if (header_.gpus.empty()) return fail("bad_recording", "the recording names no GPU", kHint, "line 1");
  return {};
}

Result<Moment> RecordingReader::read_moment(std::string_view text) {
  const std::string where = "line " + std::to_string(++line_);
  if (text.size() > kLongestRecordingLine) return fail("bad_recording", "the line is longer than " + std::to_string(kLongestRecordingLine) + " bytes", kHint, where);
  const Json j = Json::parse(text, nullptr, false);
  if (!j.is_object()) return fail("bad_recording", "the line is no JSON object", "cut the recording before this line", where);
  std::optional<Fault> fault;
  Fields f(j, "", fault);
  Moment out;
  out.sample.seconds = f.real("t", 0, 1e10).value_or(last_);
  if (!f.find("t")) f.bad("t", "is missing");
  if (out.sample.seconds < last_ && !fault) f.bad("t", "goes back in time");
  out.sample.gpus = header_.gpus;
  if (const Json* gpus = f.list("gpus", kMostRecordedGpus)) {
    if (gpus->size() != header_.gpus.size()) f.bad("gpus", "has " + std::to_string(gpus->size()) + " items where the first line names " + std::to_string(header_.gpus.size()) + " GPUs");
    for (std::size_t i = 0; i < std::min(gpus->size(), out.sample.gpus.size()); ++i) read_moving((*gpus)[i], "gpus.", out.sample.gpus[i], fault);
  } else {
    f.bad("gpus", "is missing");
  }
  if (const Json* processes = f.list("processes", kMostRecordedProcesses)) {
    for (const Json& p : *processes) out.sample.processes.push_back(read_process(p, fault));
  }
  if (const Json* job = f.find("job")) {
    Fields fields(*job, "job.", fault);
    out.job = SeenJob{fields.whole("pid", 0, std::int64_t{1} << 32).value_or(0), fields.text("command"), fields.texts("environment", 64)};
  }
  out.log = f.texts("log", kMostLog);
  out.sample.notes = f.texts("notes", 64);
  if (fault) return fail("bad_recording", fault->what, kHint, where);
  last_ = out.sample.seconds;
  return out;
}

}  // namespace dryfit
