// Pieces that several JSON answers share. Unknown is null.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "doctor/diagnosis.hpp"
#include "plan/plan.hpp"

namespace dryfit::json_parts {

nlohmann::ordered_json bytes(const std::optional<Bytes>& b);
nlohmann::ordered_json whole(const std::optional<std::int64_t>& n);
nlohmann::ordered_json number(const std::optional<double>& x);
nlohmann::ordered_json text(const std::string& s);  // empty: null
nlohmann::ordered_json strings(const std::vector<std::string>& list);
nlohmann::ordered_json shape_json(const Shape& shape);
nlohmann::ordered_json estimate_json(const Estimate& e);
nlohmann::ordered_json cause_json(const CauseFinding& cause);
nlohmann::ordered_json fix_json(const Fix& fix);

}  // namespace dryfit::json_parts
