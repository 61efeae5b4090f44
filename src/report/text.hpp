// Screens: reports as text for people. Pure: values and a style in, a string out.
#pragma once

#include <span>
#include <string>

#include "plan/plan.hpp"
#include "plan/rule_of_thumb.hpp"

namespace dryfit {

struct Style {
  bool colour = false;
  bool ascii = false;
  bool verbose = false;
  bool quiet = false;
  int width = 80;
};

std::string gib_text(Bytes b);          // "55.1 GiB", "-4.0 GiB"; below 1 GiB "312 MiB"
std::string short_gpu(std::string_view name);  // without its maker
std::string count_text(std::int64_t n); // "1.38 B", "561 M"

std::string check_text(const Report& report, const Style& style);
std::string explain_text(const Report& report, const Style& style);
std::string timeline_text(const Report& report, const Style& style);
std::string plan_text(const PlanResult& plan, const Machine& machine, const Style& style);
std::string table_text(std::span<const TableRow> rows, std::int64_t gpus, const Style& style);
std::string table_csv(std::span<const TableRow> rows);
// beside: the engine's largest device batch for the same memory, depth and length; none when nothing fits.
std::string rule_text(const RuleOfThumb& rule, std::optional<std::int64_t> engine, const Style& style);
std::string models_text(std::span<const Workload> models);
std::string versions_text();
std::string gpus_text(std::string_view filter);
std::string assumptions_text(const Report& report);  // "using --max-seq-len 2048 (nanochat default)"
std::string error_text(const Error& error, const Style& style);
std::string timeline_svg(const Report& report);

}  // namespace dryfit
