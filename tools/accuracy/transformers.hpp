// The transformers part of dryfit-accuracy: rows of data/measured/transformers.csv, runs of Hugging Face models, against the eager engine.
#pragma once

#include "measured_rows.hpp"
#include "plan/report.hpp"

namespace dryfit {

// The answer for a row's `flags` and `loop` on its `gpu`. Errors: "bad_row" and those of the command line.
Result<Report> transformers_report(const FieldMap& row);

// mode: "" prints each row and the summary by family; "--summary" the latter alone; "--intervals" its row of data/intervals.csv; "--errors" and
// "--check" the golden of the tests; argument: the date, or the golden's path. Returns the exit status.
int transformers_accuracy(const char* path, const char* mode, const char* argument);

}  // namespace dryfit
