// A diagnosis as a screen and as JSON (docs/schema/doctor.schema.json). Pure: values and a style in, a string out.
#pragma once

#include <string>

#include "doctor/diagnosis.hpp"
#include "report/text.hpp"

namespace dryfit {

// name: of the file as the user gave it, "-" for standard input.
std::string doctor_text(const Diagnosis& diagnosis, const std::string& name, const Style& style);
// Where the run comes from that the answer is about, and what was not given: talk, for stderr.
std::string doctor_sources_text(const KnownRun& known);
std::string doctor_json(const Diagnosis& diagnosis, const std::string& name);

// Pieces that a snapshot's screen has too: a cause in words, and a numbered fix with its effect.
const char* words_of(Cause cause);
std::string fix_text(const Fix& fix, std::size_t number, const Style& style);

}  // namespace dryfit
