// See json_parts.hpp.
#include "report/json_parts.hpp"

namespace dryfit {

namespace json_parts {

using Json = nlohmann::ordered_json;

Json bytes(const std::optional<Bytes>& b) { return b ? Json(b->count) : Json(); }
Json whole(const std::optional<std::int64_t>& n) { return n ? Json(*n) : Json(); }
Json number(const std::optional<double>& x) { return x ? Json(*x) : Json(); }
Json text(const std::string& s) { return s.empty() ? Json() : Json(s); }
Json strings(const std::vector<std::string>& list) {
  Json out = Json::array();
  for (const std::string& s : list) out.push_back(s);
  return out;
}
Json shape_json(const Shape& s) {
  Json out = Json::array();
  for (std::uint8_t i = 0; i < s.rank; ++i) out.push_back(s.dim[i]);
  return out;
}
Json estimate_json(const Estimate& e) { return {{"bytes", e.bytes.count}, {"low", e.low.count}, {"high", e.high.count}, {"provenance", name_of(e.provenance)}}; }
Json cause_json(const CauseFinding& cause) {
  return {{"name", name_of(cause.cause)}, {"confidence", name_of(cause.confidence)}, {"summary", cause.summary}, {"evidence", strings(cause.evidence)}, {"also", strings(cause.also)}, {"not", strings(cause.not_this)}};
}
Json fix_json(const Fix& f) {
  return {{"change", f.change}, {"saving_bytes", bytes(f.saving)}, {"process_bytes", bytes(f.process)}, {"verdict", f.verdict ? Json(name_of(*f.verdict)) : Json()}, {"step_time_ratio", number(f.step_time_ratio)}, {"speed", text(f.speed)},
          {"identical_training", f.identical_training ? Json(*f.identical_training) : Json()}, {"needs_code_change", f.needs_code_change}, {"command", text(f.command)}, {"note", text(f.note)}};
}

}  // namespace json_parts

}  // namespace dryfit
