// Pieces of the doctor's JSON that a log's and a snapshot's answer share. Only doctor_json.cpp and snapshot_json.cpp include it.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "doctor/diagnosis.hpp"

namespace dryfit::doctor_json_parts {

nlohmann::ordered_json bytes(const std::optional<Bytes>& b);
nlohmann::ordered_json number(const std::optional<double>& x);
nlohmann::ordered_json text(const std::string& s);  // empty: null
nlohmann::ordered_json strings(const std::vector<std::string>& list);
nlohmann::ordered_json cause_json(const CauseFinding& cause);
nlohmann::ordered_json fix_json(const Fix& fix);

}  // namespace dryfit::doctor_json_parts
