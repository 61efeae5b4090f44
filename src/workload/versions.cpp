// nanochat's history as far as memory is concerned: one row per change of behaviour. Read in nanochat's own history
// (github.com/karpathy/nanochat); docs/nanochat-versions.md tells each in words.
#include <algorithm>

#include "base/text.hpp"
#include "workload/workload.hpp"

namespace dryfit {

namespace {

using Short = NanochatVersion::ShortWindow;
using Optimizer = NanochatVersion::Optimizer;

std::vector<NanochatVersion> build_versions() {
  std::vector<NanochatVersion> rows;
  NanochatVersion v;  // the first release; each later row changes what its commit changed
  v.epoch = "E1", v.commit = "3a5e0bc", v.date = "2025-10-13";
  v.default_vocab = 65536, v.vocab_multiple = 1, v.shape_flags = v.model_dim_rounded_up = false, v.autocast = true, v.float_before_softcap = false;
  v.flash_attention3 = false, v.window = false, v.short_window = Short::half, v.lambdas = false, v.value_embeds = false;
  v.ve_gate_channels = 32, v.smear_backout = false, v.grad_clip = true, v.optimizer = Optimizer::torch_adamw_muon;
  v.muon_in_compute = false, v.loader_gpu_buffer = false, v.fp8_available = false, v.auto_total_batch = false, v.flags_with_dashes = false;
  v.tables_cast_at_init = v.resumes = v.minus_one_switches_off = false, v.sft = NanochatVersion::Sft::rows, v.kv_cache = NanochatVersion::Cache::grown;
  v.default_total_batch = 524288, v.default_data_ratio = 20, v.default_eval_tokens = 20LL * 524288, v.default_window_pattern = "L", v.torch = "2.8.0";
  v.loader = NanochatVersion::Loader::one_by_one, v.climbmix = false;
  rows.push_back(v);
  const auto next = [&](const char* epoch, const char* commit, const char* date) {
    v.epoch = epoch, v.commit = commit, v.date = date;
  };
  next("E1b", "49cd02f", "2025-10-20"), v.tables_cast_at_init = true, v.loader = NanochatVersion::Loader::queue, rows.push_back(v);
  next("E1c", "c6abcdf", "2025-11-13"), v.resumes = true, rows.push_back(v);
  next("E1d", "cbf30c8", "2025-12-08"), v.float_before_softcap = true, rows.push_back(v);
  next("E1e", "f1bf69d", "2025-12-09"), v.vocab_multiple = 64, rows.push_back(v);
  next("E1f", "2874eda", "2025-12-28"), rows.push_back(v);
  next("E1g", "eb7bbc1", "2026-01-04"), v.torch = "2.9.1", rows.push_back(v);
  next("E2", "ccf4b7f", "2026-01-07"), v.shape_flags = true, v.default_vocab = 32768, v.default_data_ratio = 8, v.minus_one_switches_off = true, rows.push_back(v);
  next("E2b", "061f83c", "2026-01-08"), v.grad_clip = false, rows.push_back(v);
  next("E3", "2ff7d51", "2026-01-11"), v.sdpa_fallback = false, v.flash_attention3 = v.window = v.lambdas = true, v.default_window_pattern = "SSSL";
  v.optimizer = Optimizer::muon_per_param, v.kv_cache = NanochatVersion::Cache::bf16, rows.push_back(v);
  next("E3b", "7312ec9", "2026-01-13"), v.flags_with_dashes = true, v.loader = NanochatVersion::Loader::best_fit, rows.push_back(v);
  next("E3c", "6bb9240", "2026-01-15"), v.optimizer = Optimizer::muon_stacked_by_group, rows.push_back(v);
  next("E4", "e85db6b", "2026-01-16"), v.value_embeds = v.sdpa_fallback = v.mask_each_layer = true, v.default_data_ratio = 4, rows.push_back(v);
  next("E4b", "cf5c9e5", "2026-01-18"), v.model_dim_rounded_up = true, rows.push_back(v);
  next("E4c", "41bb2ea", "2026-01-29"), v.default_data_ratio = 10.5, rows.push_back(v);
  next("E4d", "6a341f2", "2026-01-30"), v.loader_gpu_buffer = true, rows.push_back(v);
  next("E4e", "1ddaad1", "2026-01-31"), v.mask_each_layer = false, v.sft = NanochatVersion::Sft::packed, rows.push_back(v);
  next("E4f", "6079f78", "2026-02-03"), v.fp8_available = v.fp8_swapped_on_gpu = true, v.default_eval_tokens = 40LL * 524288, rows.push_back(v);
  next("E4g", "f41dd3c", "2026-02-05"), v.auto_total_batch = true, v.default_total_batch = -1, rows.push_back(v);
  next("E4h", "8180e1d", "2026-02-16"), v.sft = NanochatVersion::Sft::inherits, rows.push_back(v);
  next("E5", "1076f97", "2026-03-04"), v.autocast = false, v.climbmix = true, rows.push_back(v);
  next("E5b", "6ed7d1d", "2026-03-09"), v.short_window = Short::third128, v.ve_gate_channels = 12, v.default_eval_tokens = 80LL * 524288, rows.push_back(v);
  next("E6", "a825e63", "2026-03-14"), v.short_window = Short::quarter128, v.smear_backout = true, rows.push_back(v);
  next("E6b", "47e983e", "2026-03-26"), v.default_data_ratio = 12, v.fp8_swapped_on_gpu = false, v.muon_in_compute = true, rows.push_back(v);
  next("E7", "a9d0a86", "2026-07-03"), v.optimizer = Optimizer::muon_all_groups, v.flash_attention3_ampere = true, v.kv_cache = NanochatVersion::Cache::compute, rows.push_back(v);
  return rows;
}

bool is_date(std::string_view t) {
  if (t.size() != 10 || t[4] != '-' || t[7] != '-') return false;
  for (std::size_t i = 0; i < t.size(); ++i) {
    if (i != 4 && i != 7 && (t[i] < '0' || t[i] > '9')) return false;
  }
  return true;
}

}  // namespace

const std::vector<NanochatVersion>& nanochat_versions() {
  static const std::vector<NanochatVersion> rows = build_versions();
  return rows;
}

Result<NanochatVersion> find_nanochat_version(std::string_view text) {
  const auto& rows = nanochat_versions();
  const std::string wanted = to_lower(trim(text));
  if (wanted == "newest" || wanted == "latest" || wanted == "head" || wanted == "master") return rows.back();
  if (is_date(wanted)) {
    if (wanted < rows.front().date) {
      return fail("unknown_version", "nanochat did not exist on " + wanted, "its first commit is of " + rows.front().date, "--nanochat");
    }
    const auto after = std::ranges::find_if(rows, [&](const NanochatVersion& v) { return v.date > wanted; });
    return *(after - 1);
  }
  for (const NanochatVersion& v : rows) {
    if (to_lower(v.epoch) == wanted) return v;
  }
  // a commit: either side may be the longer one
  if (wanted.size() >= 4) {
    for (const NanochatVersion& v : rows) {
      if (v.commit.starts_with(wanted.substr(0, v.commit.size()))) return v;
    }
  }
  std::vector<std::string_view> names;
  for (const NanochatVersion& v : rows) names.push_back(v.epoch);
  return fail("unknown_version", "nanochat version '" + std::string(text.substr(0, 40)) + "' is not known",
              did_you_mean(wanted, names, "give an epoch such as E5, a date such as 2026-02-01, or see: dryfit list versions"), "--nanochat");
}

}  // namespace dryfit
