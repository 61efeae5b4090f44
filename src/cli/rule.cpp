// See rule.hpp.
#include "cli/rule.hpp"

#include <fmt/format.h>

#include "plan/plan.hpp"
#include "plan/rule_of_thumb.hpp"
#include "report/json.hpp"

namespace dryfit::cli {

namespace {

// The engine's answer to the rule's question: one GPU of that much memory, nanochat as it is.
Result<std::optional<std::int64_t>> engine_beside(const RuleOfThumb& r, std::int64_t seq_len) {
  if (r.depth < 1 || r.depth > 128 || seq_len < 2 || !(r.gpu_memory_gb >= 1) || r.gpu_memory_gb > 1e6) return std::optional<std::int64_t>();
  const auto m = machine_from_flags({std::nullopt, 1, Bytes(static_cast<std::int64_t>(r.gpu_memory_gb * (1 << 30))), std::nullopt});
  WorkloadFlags f;
  f.depth = r.depth;
  f.max_seq_len = seq_len;
  f.device_batch_size = -1;
  f.window_pattern = "L";
  const auto w = make_nanochat_workload(f);
  if (!m || !w) return std::optional<std::int64_t>();
  return largest_device_batch(*w, *m);
}

}  // namespace

Result<std::string> rule_answer(const Options& options, const Style& style) {
  const bool json = options.has("json");
  const auto depth = number_of(options, "depth");
  if (!depth) return std::unexpected(depth.error());
  const auto seq_len = number_of(options, "seq-len");
  if (!seq_len) return std::unexpected(seq_len.error());
  const auto memory = options.get("gpu-memory-gb");
  if (!memory) {
    std::string out;
    for (const char* gb : {"8", "16", "24", "40", "80"}) {
      const auto r = rule_of_thumb(gb, depth->value_or(24), seq_len->value_or(1024));
      if (!r) return std::unexpected(r.error());
      const auto engine = engine_beside(*r, seq_len->value_or(1024));
      out += fmt::format("{}GB GPU: batch={} (safe: {}){}", gb, r->recommended_batch_size, r->safe_batch_size, json ? "" : fmt::format("      engine: {}\n", engine && *engine ? std::to_string(**engine) : "does not fit"));
    }
    if (json) return fail("missing_value", "rule-of-thumb --json needs --gpu-memory-gb", "write --gpu-memory-gb 24", "--gpu-memory-gb");
    return out;
  }
  const auto r = rule_of_thumb(*memory, depth->value_or(24), seq_len->value_or(1024));
  if (!r) return std::unexpected(r.error());
  const auto engine = engine_beside(*r, seq_len->value_or(1024));
  if (!engine) return std::unexpected(engine.error());
  return json ? rule_json(*r, *engine) : rule_text(*r, *engine, style);
}

}  // namespace dryfit::cli
