// Data files (data/*.csv, data/models/*.json) built into the binary (cmake/embed.cmake).
#pragma once

#include <string_view>

namespace dryfit {

extern const std::string_view embedded_gpus_csv;
extern const std::string_view embedded_gpu_rates_csv;
extern const std::string_view embedded_instances_csv;
extern const std::string_view embedded_intervals_csv;
extern const std::string_view embedded_speed_intervals_csv;
extern const std::string_view embedded_core_prompts_csv;
extern const std::string_view embedded_prices_csv;
extern const std::string_view embedded_torchtune_configs_tsv;
extern const std::string_view embedded_torchtitan_configs_tsv;
extern const std::string_view embedded_plan_schema_json;
extern const std::string_view embedded_report_schema_json;
extern const std::string_view embedded_table_schema_json;
extern const std::string_view embedded_doctor_schema_json;
extern const std::string_view embedded_gpt2_json;
extern const std::string_view embedded_pythia_json;
extern const std::string_view embedded_llama_json;
extern const std::string_view embedded_mistral_json;
extern const std::string_view embedded_qwen_json;
extern const std::string_view embedded_gemma_json;
extern const std::string_view embedded_phi_json;
extern const std::string_view embedded_olmo_json;
extern const std::string_view embedded_deepseek_json;
extern const std::string_view embedded_gpt_oss_json;
extern const std::string_view embedded_other_decoders_json;
extern const std::string_view embedded_bert_json;
extern const std::string_view embedded_snapshot_schema_json;
extern const std::string_view embedded_offers_schema_json;

}  // namespace dryfit
