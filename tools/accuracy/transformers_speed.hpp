// The speeds of Hugging Face models in dryfit-accuracy: rows of data/measured/transformers_speed.csv against the model of eager steps.
#pragma once

namespace dryfit {

// mode: "" prints each row and the summary; "--summary" the summary by family; "--parts" milliseconds by kind of kernel; "--intervals" the row "transformers" of
// data/speed_intervals.csv; "--errors" and "--check" the golden of the tests; argument: the date, or the golden's path. Returns the exit status.
int transformers_speed_accuracy(const char* path, const char* mode, const char* argument);

}  // namespace dryfit
