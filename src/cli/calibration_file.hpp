// The file calibration is kept in: where it lies, how it is read and written. What it means is plan/calibration.
#pragma once

#include <string>

#include "cli/cli.hpp"
#include "plan/calibration.hpp"

namespace dryfit::cli {

// $XDG_DATA_HOME/dryfit/calibration.json, else %LOCALAPPDATA%\dryfit\calibration.json on Windows, else ~/.local/share/dryfit/calibration.json. Errors: "no_home".
Result<std::string> calibration_path(const Env& env);

// What the file holds; nothing where there is none. Errors: "unreadable_file", "corrupt_calibration", "newer_calibration".
Result<Calibration> read_calibration(const std::string& path);
Result<Calibration> parse_calibration(std::string_view text, const std::string& path);
std::string calibration_text(const Calibration& calibration);

// Read, change, write, with other dryfits kept out: the file is whole at every moment, and on the disk when this returns.
// Errors: those of read_calibration, "unwritable_file".
Result<Calibration> update_calibration(const std::string& path, const std::function<void(Calibration&)>& change);

// Puts the file aside as <path>.old, whatever it holds. False: there was none. Errors: "unwritable_file".
Result<bool> reset_calibration(const std::string& path);

}  // namespace dryfit::cli
