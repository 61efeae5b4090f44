// See nanochat_rules.hpp.
#include "speed/nanochat_rules.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/text.hpp"

namespace dryfit {

namespace {

struct Peak { std::array<std::string_view, 2> words; double flops; };  // all words occur in the lower-case name; the first row wins
constexpr Peak kPeaks[] = {
    {{"gb200", ""}, 2.5e15}, {{"grace blackwell", ""}, 2.5e15}, {{"b200", ""}, 2.25e15}, {{"b100", ""}, 1.8e15}, {{"h200", "nvl"}, 836e12}, {{"h200", "pcie"}, 836e12},
    {{"h200", ""}, 989e12}, {{"h100", "nvl"}, 835e12}, {{"h100", "pcie"}, 756e12}, {{"h100", ""}, 989e12}, {{"h800", "nvl"}, 989e12}, {{"h800", ""}, 756e12},
    {{"a100", ""}, 312e12}, {{"a800", ""}, 312e12}, {{"a40", ""}, 149.7e12}, {{"a30", ""}, 165e12}, {{"l40s", ""}, 362e12}, {{"l40-s", ""}, 362e12}, {{"l40 s", ""}, 362e12},
    {{"l4", ""}, 121e12}, {{"mi355", ""}, 2.5e15}, {{"mi325", ""}, 1.3074e15}, {{"mi300x", ""}, 1.3074e15}, {{"mi300a", ""}, 980.6e12}, {{"mi250x", ""}, 383e12},
    {{"mi250", ""}, 362.1e12}, {{"5090", ""}, 209.5e12}, {{"4090", ""}, 165.2e12}, {{"3090", ""}, 71e12}};

// The value of --name=VALUE among the flags kept for the command; the last one counts.
Result<std::optional<double>> kept(const Workload& workload, std::string_view name) {
  std::optional<double> out;
  const std::string start = "--" + std::string(name) + "=";
  for (const std::string& flag : workload.passthrough) {
    if (!flag.starts_with(start)) continue;
    const auto value = parse_real(std::string_view(flag).substr(start.size()), start.substr(0, start.size() - 1));
    if (!value) return std::unexpected(value.error());
    out = *value;
  }
  return out;
}

}  // namespace

double flops_per_token(const Workload& workload) {
  const Model& m = workload.model;
  std::int64_t products = m.param_count(ParamGroup::transformer_matrices) + m.param_count(ParamGroup::lm_head);
  if (m.version.date >= std::string("2026-07-03") && m.version.smear_backout) products += 24;  // counts every Linear, the smear gate too
  std::int64_t keys = 0;
  for (std::int64_t w : m.windows) keys += std::min(w, workload.run.max_seq_len);
  return 6.0 * static_cast<double>(products) + 12.0 * static_cast<double>(m.heads * m.head_dim) * static_cast<double>(keys);
}

std::optional<double> logged_peak_flops(std::string_view device_name, const NanochatVersion& version) {
  if (version.date < std::string("2026-01-17")) return 989e12;  // until 2955650: the H100's, whatever the card
  const std::string name = to_lower(device_name);
  for (const Peak& p : kPeaks) {
    if (name.find(p.words[0]) != std::string::npos && name.find(p.words[1]) != std::string::npos) return p.flops;
  }
  return std::nullopt;
}

Result<Horizon> horizon_of(const Workload& workload) {
  const Model& m = workload.model;
  const auto iterations = kept(workload, "num-iterations"), flops = kept(workload, "target-flops"), given = kept(workload, "target-param-data-ratio");
  for (const auto* flag : {&iterations, &flops, &given}) {
    if (!*flag) return std::unexpected(flag->error());
  }
  const double total = static_cast<double>(workload.run.total_batch_size), ratio = given->value_or(m.version.default_data_ratio);
  Horizon h;
  double steps = 0;
  if (iterations->value_or(-1) > 0) {
    steps = **iterations;
    h.rule = "--num-iterations";
  } else if (flops->value_or(-1) > 0) {
    steps = std::nearbyint(**flops / (flops_per_token(workload) * total));
    h.rule = "--target-flops";
  } else if (ratio > 0) {
    // until 2026-01-27 of all parameters, since then of matrices and lm_head
    const bool scaling = m.version.date >= std::string("2026-01-27");
    const std::int64_t params = scaling ? m.param_count(ParamGroup::transformer_matrices) + m.param_count(ParamGroup::lm_head) : m.param_count();
    steps = std::floor(std::floor(ratio * static_cast<double>(params)) / total);
    const auto tenths = static_cast<std::int64_t>(std::llround(ratio * 10));
    h.rule = "ratio " + (tenths % 10 == 0 ? std::to_string(tenths / 10) : std::to_string(tenths / 10) + "." + std::to_string(tenths % 10));
  }
  if (!(steps >= 1) || steps > 1e12) return fail("bad_value", "the run has no optimizer step by its horizon", "give --num-iterations, --target-flops or a larger --target-param-data-ratio", "--target-param-data-ratio");
  h.iterations = static_cast<std::int64_t>(steps);
  h.tokens = static_cast<double>(h.iterations) * total;
  return h;
}

}  // namespace dryfit
