// Reports as JSON, schema_version 1 (docs/schema). Integers are bytes; unknown is null.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "plan/job.hpp"
#include "plan/plan.hpp"
#include "plan/rule_of_thumb.hpp"
#include "plan/transformers_plan.hpp"

namespace dryfit {

// job: the file that starts the run (of a plan: the chosen one), when one was asked for.
std::string report_json(const Report& report, const std::optional<JobFile>& job = std::nullopt);
std::string plan_json(const PlanResult& plan, const std::optional<JobFile>& job = std::nullopt);
std::string plan_json(const TransformersPlan& plan, std::string_view check, const std::optional<JobFile>& job = std::nullopt);  // check: the command line that asks about the chosen run; empty: nothing fits
std::string offers_json(std::span<const Offer> offers);
std::string table_json(std::span<const TableRow> rows);
std::string rule_json(const RuleOfThumb& rule, std::optional<std::int64_t> engine);
std::string error_json(const Error& error);
std::string gpus_json(std::string_view filter);  // of the catalogue: names that hold the filter, in any case
std::string models_json(std::span<const Workload> models);
std::string versions_json();
std::string version_json();

}  // namespace dryfit
