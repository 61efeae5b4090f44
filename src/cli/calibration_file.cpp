// See calibration_file.hpp.
#include "cli/calibration_file.hpp"

#include <nlohmann/json.hpp>

#include <cerrno>
#include <cmath>
#include <cstring>

#include "base/version.hpp"
#include "machine/probe_os.hpp"

namespace dryfit::cli {

namespace {

using Json = nlohmann::json;

constexpr std::int64_t kLargest = 8 << 20, kMostBytes = std::int64_t{1} << 60;
constexpr std::size_t kMostRows = 10000, kMostText = 4096;
#ifdef _WIN32
constexpr const char* kSeparators = "/\\";
#else
constexpr const char* kSeparators = "/";
#endif

std::unexpected<Error> bad(const char* code, const std::string& path, const std::string& what) {
  const bool writing = std::string_view(code) == "unwritable_file";
  return fail(code, (writing ? "cannot write '" : "cannot read '") + path + "': " + what, writing ? "set XDG_DATA_HOME to a folder you may write to" : "dryfit calibrate --reset puts it aside and begins anew", path);
}

// ---- one row
bool get(const Json& j, const char* key, std::string& out) {
  const auto it = j.find(key);
  if (it == j.end() || !it->is_string() || it->get_ref<const std::string&>().size() > kMostText) return false;
  out = it->get<std::string>();
  return true;
}
bool get(const Json& j, const char* key, std::optional<Bytes>& out) {
  const auto it = j.find(key);
  if (it == j.end() || it->is_null()) return true;
  if (!it->is_number_integer() || it->get<std::int64_t>() < 0 || it->get<std::int64_t>() > kMostBytes) return false;
  out = Bytes(it->get<std::int64_t>());
  return true;
}
bool get(const Json& j, const char* key, std::optional<double>& out) {
  const auto it = j.find(key);
  if (it == j.end() || it->is_null()) return true;
  if (!it->is_number() || !(it->get<double>() > 0) || it->get<double>() > 1e15) return false;
  out = it->get<double>();
  return true;
}
bool get(const Json& j, const char* key, std::int64_t& out, std::int64_t least) {
  const auto it = j.find(key);
  if (it == j.end() || !it->is_number_integer() || it->get<std::int64_t>() < least || it->get<std::int64_t>() > (std::int64_t{1} << 40)) return false;
  out = it->get<std::int64_t>();
  return true;
}

std::optional<CalibrationRow> row_of(const Json& j) {
  CalibrationRow r;
  const bool ok = j.is_object() && get(j, "id", r.id) && get(j, "file", r.file) && get(j, "date", r.date) && get(j, "gpu", r.gpu) && get(j, "configuration", r.configuration) && get(j, "world_size", r.world_size, 1) &&
                  get(j, "steps", r.steps, 0) && get(j, "process_peak_bytes", r.process_peak) && get(j, "allocated_peak_bytes", r.allocated_peak) && get(j, "allocated_derived_bytes", r.allocated_derived) &&
                  get(j, "reserved_peak_bytes", r.reserved_peak) && get(j, "reserved_derived_bytes", r.reserved_derived) && get(j, "driver_reserve_bytes", r.driver_reserve) && get(j, "tokens_per_second", r.tokens_per_second) && get(j, "mfu", r.mfu);
  return ok ? std::optional(std::move(r)) : std::nullopt;
}

Json or_null(const std::optional<Bytes>& v) { return v ? Json(v->count) : Json(); }
Json or_null(const std::optional<double>& v) { return v ? Json(*v) : Json(); }

Result<void> make_folders(const std::string& path) {
  for (std::size_t at = path.find_first_of(kSeparators, 1); at != std::string::npos; at = path.find_first_of(kSeparators, at + 1)) {
    if (const int problem = os::make_folder(path.substr(0, at)); problem != 0) return bad("unwritable_file", path, std::strerror(problem));
  }
  return {};
}

// Temporary file beside it, flushed, renamed over it, and the folder flushed: whole, or as before.
Result<void> write_durably(const std::string& path, const std::string& text) {
  const std::string temporary = path + ".tmp" + std::to_string(os::process_number());
  const int file = os::open(temporary, os::Access::write_own);
  if (file < 0) return bad("unwritable_file", path, std::strerror(errno));
  int problem = os::write(file, text);
  if (problem == 0) problem = os::flush(file);
  const int closing = os::close(file);
  if (problem == 0) problem = closing;
  if (problem == 0) problem = os::replace(temporary, path);
  if (problem != 0) {
    os::remove(temporary);
    return bad("unwritable_file", path, std::strerror(problem));
  }
  os::flush_folder(path.substr(0, path.find_last_of(kSeparators) + 1));
  return {};
}

// Held while the file is read and written; a second dryfit waits.
class Lock {
 public:
  explicit Lock(const std::string& path) : file_(os::open(path + ".lock", os::Access::lock)) {
    if (file_ >= 0) os::lock(file_);
  }
  ~Lock() {
    if (file_ >= 0) os::close(file_);
  }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;
  bool held() const { return file_ >= 0; }

 private:
  int file_;
};

}  // namespace

Result<std::string> calibration_path(const Env& env) {
  const std::string data = env.variable("XDG_DATA_HOME").value_or(""), windows = env.variable("LOCALAPPDATA").value_or(""), home = env.variable("HOME").value_or("");
  if (os::is_absolute(data)) return data + "/dryfit/calibration.json";  // relative ones are to be ignored, says the XDG specification
  if (os::kWindows && os::is_absolute(windows)) return windows + "\\dryfit\\calibration.json";
  if (os::is_absolute(home)) return home + "/.local/share/dryfit/calibration.json";
  return fail("no_home", "neither XDG_DATA_HOME nor HOME names a folder for the calibration", "set XDG_DATA_HOME to a folder you may write to", "XDG_DATA_HOME");
}

Result<Calibration> parse_calibration(std::string_view text, const std::string& path) {
  const Json j = Json::parse(text, nullptr, false);
  const auto corrupt = [&](const std::string& what) { return bad("corrupt_calibration", path, what); };
  if (!j.is_object()) return corrupt("it is no JSON object");
  const auto version = j.find("schema_version"), rows = j.find("rows");
  if (version == j.end() || !version->is_number_integer()) return corrupt("it has no schema_version");
  if (*version != 1) return fail("newer_calibration", "'" + path + "' has schema_version " + version->dump() + "; this dryfit knows 1", "use a newer dryfit, or put the file aside: dryfit calibrate --reset", path);
  if (rows == j.end() || !rows->is_array() || rows->size() > kMostRows) return corrupt("it has no list of rows");
  Calibration out;
  for (std::size_t i = 0; i < rows->size(); ++i) {
    auto row = row_of((*rows)[i]);
    if (!row) return corrupt("row " + std::to_string(i + 1) + " is not one of calibrate's");
    out.rows.push_back(std::move(*row));
  }
  return out;
}

Result<Calibration> read_calibration(const std::string& path) {
  const int file = os::open(path, os::Access::read_now);
  if (file < 0) return errno == ENOENT || errno == ENOTDIR ? Result<Calibration>(Calibration{}) : Result<Calibration>(bad("unreadable_file", path, std::strerror(errno)));
  std::string text;
  char buffer[16384];
  std::ptrdiff_t n = 0;
  while (static_cast<std::int64_t>(text.size()) <= kLargest && (n = os::read(file, buffer, sizeof buffer)) > 0) text.append(buffer, static_cast<std::size_t>(n));
  const int problem = n < 0 ? errno : 0;
  os::close(file);
  if (problem != 0) return bad("unreadable_file", path, std::strerror(problem));
  if (static_cast<std::int64_t>(text.size()) > kLargest) return bad("corrupt_calibration", path, "it is far larger than calibrate writes");
  return parse_calibration(text, path);
}

std::string calibration_text(const Calibration& calibration) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const CalibrationRow& r : calibration.rows) {
    rows.push_back({{"id", r.id}, {"file", r.file}, {"date", r.date}, {"gpu", r.gpu}, {"world_size", r.world_size}, {"configuration", r.configuration}, {"process_peak_bytes", or_null(r.process_peak)},
                    {"allocated_peak_bytes", or_null(r.allocated_peak)}, {"allocated_derived_bytes", or_null(r.allocated_derived)}, {"reserved_peak_bytes", or_null(r.reserved_peak)}, {"reserved_derived_bytes", or_null(r.reserved_derived)},
                    {"driver_reserve_bytes", or_null(r.driver_reserve)}, {"tokens_per_second", or_null(r.tokens_per_second)}, {"mfu", or_null(r.mfu)}, {"steps", r.steps}});
  }
  const nlohmann::ordered_json out = {{"schema_version", 1}, {"dryfit", DRYFIT_VERSION}, {"rows", rows}};
  return out.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<Calibration> update_calibration(const std::string& path, const std::function<void(Calibration&)>& change) {
  if (const auto ok = make_folders(path); !ok) return std::unexpected(ok.error());
  const Lock lock(path);
  if (!lock.held()) return bad("unwritable_file", path, std::strerror(errno));
  auto calibration = read_calibration(path);
  if (!calibration) return calibration;
  change(*calibration);
  if (calibration->rows.size() > kMostRows) calibration->rows.erase(calibration->rows.begin(), calibration->rows.end() - static_cast<std::ptrdiff_t>(kMostRows));
  if (const auto ok = write_durably(path, calibration_text(*calibration)); !ok) return std::unexpected(ok.error());
  return calibration;
}

Result<bool> reset_calibration(const std::string& path) {
  const int problem = os::replace(path, path + ".old");
  if (problem == 0) return true;
  if (problem == ENOENT || problem == ENOTDIR) return false;
  return bad("unwritable_file", path, std::strerror(problem));
}

}  // namespace dryfit::cli
