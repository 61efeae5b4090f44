// The transformers part of dryfit-accuracy: rows of data/measured/transformers.csv, runs of Hugging Face models, against the eager engine.
#pragma once

namespace dryfit {

// mode: "" prints each row and the summary by family; "--summary" the latter alone; "--intervals" its row of data/intervals.csv; "--errors" and
// "--check" the golden of the tests; argument: the date, or the golden's path. Returns the exit status.
int transformers_accuracy(const char* path, const char* mode, const char* argument);

}  // namespace dryfit
