// A diagnosis as a screen and as JSON (docs/schema/doctor.schema.json). Pure: values and a style in, a string out.
#pragma once

#include <string>

#include "doctor/diagnosis.hpp"
#include "report/text.hpp"

namespace dryfit {

// name: of the file as the user gave it, "-" for standard input.
std::string doctor_text(const Diagnosis& diagnosis, const std::string& name, const Style& style);
std::string doctor_json(const Diagnosis& diagnosis, const std::string& name);

}  // namespace dryfit
