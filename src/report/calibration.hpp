// What calibrate read and learned, as text and JSON. Pure.
#pragma once

#include <string>
#include <vector>

#include "plan/calibration.hpp"
#include "report/text.hpp"

namespace dryfit {

// One run found in a file.
struct CalibrationRead {
  std::string file;
  enum class Status { added, renewed, skipped } status = Status::skipped;
  std::string why;                      // of a skipped one
  std::optional<CalibrationRow> row;
};

std::string calibration_report_text(const Calibration& calibration, const std::vector<CalibrationRead>& read, const std::string& path, const Style& style);
std::string calibration_report_json(const Calibration& calibration, const std::vector<CalibrationRead>& read, const std::string& path, const std::string& rows_json);

}  // namespace dryfit
