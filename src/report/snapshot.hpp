// A snapshot's account as a screen, as JSON (docs/schema/snapshot.schema.json) and as a chart. Pure: values and a style in, a string out.
#pragma once

#include <string>

#include "doctor/snapshot_report.hpp"
#include "report/text.hpp"

namespace dryfit {

// name: of the file as the user gave it, "-" for standard input.
std::string snapshot_text(const SnapshotReport& report, const std::string& name, const Style& style);
std::string snapshot_json(const SnapshotReport& report, const std::string& name);
// Allocated memory over the trace of the device that held most, by owner, with what was reserved, steps and failures.
std::string snapshot_svg(const SnapshotReport& report, const std::string& name);

// The device that held most at its peak; null without devices.
const DeviceReport* fullest(const SnapshotReport& report);

}  // namespace dryfit
