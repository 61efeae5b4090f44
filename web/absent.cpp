// Commands of a machine that a web page is not on: their entry points, so that the command line's own code links. None is ever reached: api/call.cpp
// refuses what needs a machine. YAML and TOML are the exception: where they are met, they are refused here.
#include "cli/calibrate.hpp"
#include "cli/calibration_file.hpp"
#include "cli/doctor_live.hpp"
#include "cli/watch.hpp"
#include "workload/probe_document.hpp"

namespace dryfit {

Result<Document> document_from_yaml(std::string_view, std::string_view name) { return fail("not_here", "YAML is not read by this page", "give the same as JSON, or use the dryfit program", std::string(name)); }
Result<Document> document_from_toml(std::string_view, std::string_view name) { return fail("not_here", "TOML is not read by this page", "give its keys as words of the command, or use the dryfit program", std::string(name)); }

}  // namespace dryfit

namespace dryfit::cli {

namespace {
std::unexpected<Error> not_here(const char* command) { return fail("not_here", std::string(command) + " is not part of this page", "use the dryfit program", command); }
}  // namespace

Result<int> watch(WatchRequest, const Env&, const Style&) { return not_here("watch"); }
Result<int> calibrate(const CalibrateRequest&, const Env&, const Style&) { return not_here("calibrate"); }
Result<int> doctor_live(const DoctorLiveRequest&, const Env&, const Style&) { return not_here("doctor --live"); }
Result<std::string> calibration_path(const Env&) { return not_here("calibrate"); }
Result<Calibration> read_calibration(const std::string&) { return not_here("calibrate"); }

}  // namespace dryfit::cli
