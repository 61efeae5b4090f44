// The speed part of dryfit-accuracy: rows of data/measured/speed.csv against the model.
#pragma once

namespace dryfit {

// mode: "" prints each row, the summary and the share of pairs ranked right; "--summary" a line a kind of GPU (README) and the summary; "--parts" milliseconds by kind of kernel; "--intervals" data/speed_intervals.csv; "--errors" and
// "--check" the golden of the tests; argument: the date, or the golden's path. Returns the exit status.
int speed_accuracy(const char* path, const char* mode, const char* argument);

}  // namespace dryfit
