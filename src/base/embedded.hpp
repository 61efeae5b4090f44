// Data files built into the binary (cmake/embed.cmake).
#pragma once

#include <string_view>

namespace dryfit {

extern const std::string_view embedded_gpus_csv;
extern const std::string_view embedded_gpu_rates_csv;
extern const std::string_view embedded_intervals_csv;
extern const std::string_view embedded_speed_intervals_csv;
extern const std::string_view embedded_core_prompts_csv;
extern const std::string_view embedded_prices_csv;
extern const std::string_view embedded_plan_schema_json;
extern const std::string_view embedded_report_schema_json;
extern const std::string_view embedded_table_schema_json;
extern const std::string_view embedded_doctor_schema_json;

}  // namespace dryfit
