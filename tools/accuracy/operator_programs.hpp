// Programs of single operators: what Liger-Kernel's benchmark scripts (benchmark/scripts/benchmark_*.py) have on the GPU, then what they measure, three times over.
// Operators of models are the models' own code (passes/); kernels of Liger-Kernel that no model of dryfit has, or not in that version, are written here.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "passes/program.hpp"

namespace dryfit {

enum class OperatorCode : std::uint8_t { models, report };  // whose: what dryfit lays models out with; written for this report alone

struct OperatorProgram {
  Program program;
  OperatorCode code = OperatorCode::models;
};

constexpr std::string_view kMeasuredCall = "third";  // the phase of the call whose peak is the figure: nothing is made for the first time in it

// operation, provider: as the benchmark calls them; sizes: by its names ("V" to 4096). Errors: "bad_row".
Result<OperatorProgram> operator_program(std::string_view operation, std::string_view provider, const std::map<std::string, std::int64_t>& sizes, const Target& target);

}  // namespace dryfit
