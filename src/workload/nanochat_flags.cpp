// See nanochat_flags.hpp.
#include "workload/nanochat_flags.hpp"

#include <algorithm>
#include <array>

#include "base/text.hpp"

namespace dryfit {

namespace {

constexpr std::array kNanochatFlags = {
    NanochatFlag{"depth", true, true}, NanochatFlag{"aspect-ratio", true, true}, NanochatFlag{"head-dim", true, true}, NanochatFlag{"max-seq-len", true, true}, NanochatFlag{"window-pattern", true, true},
    NanochatFlag{"device-batch-size", true, true}, NanochatFlag{"total-batch-size", true, true}, NanochatFlag{"fp8", false, true}, NanochatFlag{"fp8-recipe", true, false}, NanochatFlag{"run", true, false},
    NanochatFlag{"device-type", true, false}, NanochatFlag{"dtype", true, false}, NanochatFlag{"num-iterations", true, false}, NanochatFlag{"target-flops", true, false}, NanochatFlag{"target-param-data-ratio", true, false},
    NanochatFlag{"embedding-lr", true, false}, NanochatFlag{"unembedding-lr", true, false}, NanochatFlag{"weight-decay", true, false}, NanochatFlag{"matrix-lr", true, false}, NanochatFlag{"scalar-lr", true, false},
    NanochatFlag{"adam-beta1", true, false}, NanochatFlag{"adam-beta2", true, false}, NanochatFlag{"warmup-ratio", true, false}, NanochatFlag{"warmup-steps", true, false}, NanochatFlag{"warmdown-ratio", true, false},
    NanochatFlag{"final-lr-frac", true, false}, NanochatFlag{"init-lr-frac", true, false}, NanochatFlag{"grad-clip", true, false}, NanochatFlag{"resume-from-step", true, true}, NanochatFlag{"eval-every", true, true},
    NanochatFlag{"eval-tokens", true, false}, NanochatFlag{"core-metric-every", true, true}, NanochatFlag{"core-metric-max-per-task", true, true}, NanochatFlag{"sample-every", true, true}, NanochatFlag{"save-every", true, true},
    NanochatFlag{"model-tag", true, true}, NanochatFlag{"model-step", true, false}, NanochatFlag{"step", true, false}, NanochatFlag{"source", true, false}, NanochatFlag{"dry-run", false, false},
    NanochatFlag{"load-optimizer", true, true}, NanochatFlag{"chatcore-every", true, true}, NanochatFlag{"chatcore-max-cat", true, false}, NanochatFlag{"chatcore-max-sample", true, false}, NanochatFlag{"eval-metrics-every", true, true},
    NanochatFlag{"eval-metrics-max-problems", true, false}, NanochatFlag{"eval-steps", true, false}, NanochatFlag{"mmlu-epochs", true, false}, NanochatFlag{"gsm8k-epochs", true, false}, NanochatFlag{"num-epochs", true, false},
    NanochatFlag{"max-iterations", true, false}, NanochatFlag{"target-examples-per-step", true, true}, NanochatFlag{"examples-per-step", true, true}, NanochatFlag{"num-samples", true, true}, NanochatFlag{"max-new-tokens", true, true},
    NanochatFlag{"temperature", true, false}, NanochatFlag{"top-k", true, false}, NanochatFlag{"eval-examples", true, false}};

// Which scripts have a flag from a day on, and until the day before another. mid_train itself went on 2026-01-31.
constexpr unsigned kBase = 1, kMid = 2, kSft = 4, kRl = 8, kAll = 15;
constexpr std::string_view kFirst = "2025-10-13", kArgparse = "2026-01-04", kDashes = "2026-01-13", kNoMid = "2026-01-31", kChatcore = "2026-02-16", kStill = "9999";
struct Period { std::string_view name; unsigned scripts; std::string_view since = kFirst, until = kStill; };
constexpr std::array kPeriods = {
    Period{"depth", kBase}, Period{"target-flops", kBase}, Period{"target-param-data-ratio", kBase}, Period{"core-metric-every", kBase}, Period{"core-metric-max-per-task", kBase}, Period{"sample-every", kBase},
    Period{"run", kAll}, Period{"device-batch-size", kAll}, Period{"embedding-lr", kAll}, Period{"unembedding-lr", kAll}, Period{"matrix-lr", kAll}, Period{"eval-every", kAll},
    Period{"max-seq-len", kBase | kMid}, Period{"total-batch-size", kBase | kMid}, Period{"eval-tokens", kBase | kMid}, Period{"max-seq-len", kSft, kNoMid}, Period{"total-batch-size", kSft, kNoMid}, Period{"eval-tokens", kSft, kNoMid},
    Period{"model-tag", kBase | kMid | kSft}, Period{"model-tag", kRl, "2025-12-27"}, Period{"weight-decay", kBase | kMid | kRl}, Period{"weight-decay", kSft, kFirst, kChatcore}, Period{"init-lr-frac", kMid | kSft | kRl},
    Period{"num-iterations", kBase}, Period{"num-iterations", kMid | kSft, "2025-10-21"}, Period{"device-type", kBase | kMid | kSft, "2025-10-21"}, Period{"device-type", kRl, kArgparse},
    Period{"final-lr-frac", kBase, "2025-10-24"}, Period{"final-lr-frac", kMid, kFirst, "2025-10-15"}, Period{"final-lr-frac", kSft, kChatcore}, Period{"warmup-ratio", kBase, "2025-10-24", "2026-03-09"}, Period{"warmup-ratio", kSft, kChatcore},
    Period{"warmdown-ratio", kBase, "2025-10-24"}, Period{"warmdown-ratio", kSft, kChatcore}, Period{"warmup-steps", kBase, "2026-03-09"}, Period{"grad-clip", kBase, kFirst, "2026-01-08"},
    Period{"adam-beta1", kBase, "2026-01-07", "2026-03-09"}, Period{"adam-beta2", kBase, "2026-01-07", "2026-03-09"}, Period{"aspect-ratio", kBase, "2026-01-07"}, Period{"head-dim", kBase, "2026-01-07"},
    Period{"scalar-lr", kBase, "2026-01-11"}, Period{"window-pattern", kBase, "2026-01-11"}, Period{"fp8", kBase, "2026-02-03"}, Period{"fp8-recipe", kBase, "2026-02-03"},
    Period{"resume-from-step", kBase, "2025-11-13"}, Period{"save-every", kBase, "2025-11-13"}, Period{"save-every", kRl},
    Period{"dtype", kMid}, Period{"dtype", kSft, kFirst, kChatcore}, Period{"dtype", kRl, kFirst, "2026-03-04"}, Period{"step", kMid | kSft, kFirst, kArgparse}, Period{"step", kRl, "2025-12-27", kArgparse}, Period{"model-step", kMid | kSft | kRl, kArgparse},
    Period{"dry-run", kMid, "2025-10-15"}, Period{"dry-run", kSft, kNoMid, kChatcore}, Period{"source", kSft, kFirst, kNoMid}, Period{"source", kRl, kFirst, "2026-02-02"}, Period{"num-epochs", kSft, kFirst, kNoMid}, Period{"num-epochs", kRl},
    Period{"max-iterations", kSft, kFirst, "2025-10-21"}, Period{"eval-steps", kSft, kFirst, kNoMid}, Period{"eval-metrics-every", kSft, kFirst, kNoMid}, Period{"eval-metrics-max-problems", kSft, "2025-10-21", kNoMid}, Period{"target-examples-per-step", kSft, kFirst, kNoMid},
    Period{"load-optimizer", kSft, kChatcore}, Period{"chatcore-every", kSft, kChatcore}, Period{"chatcore-max-cat", kSft, kChatcore}, Period{"chatcore-max-sample", kSft, kChatcore}, Period{"mmlu-epochs", kSft, kChatcore}, Period{"gsm8k-epochs", kSft, kChatcore},
    Period{"examples-per-step", kRl}, Period{"num-samples", kRl}, Period{"max-new-tokens", kRl}, Period{"temperature", kRl}, Period{"top-k", kRl}, Period{"eval-examples", kRl}};

unsigned bit_of(Script script) { return 1U << static_cast<unsigned>(script); }

// "--device_batch_size" and "--device-batch-size" -> "device-batch-size"
std::string name_in(std::string_view written) { return dashed(written.substr(written.starts_with("--") ? 2 : 0)); }

// The first day of the next version.
std::string_view end_of(const NanochatVersion& version) {
  const auto& rows = nanochat_versions();
  const auto next = std::ranges::find_if(rows, [&](const NanochatVersion& v) { return v.epoch == version.epoch; }) + 1;
  return next == rows.end() ? kStill : std::string_view(next->date);
}

bool has_name(const NanochatVersion& version, Script script, std::string_view written) {
  if (script == Script::mid_train && version.date >= kNoMid) return false;
  const std::string name = name_in(written);
  return std::ranges::any_of(kPeriods, [&](const Period& p) { return p.name == name && (p.scripts & bit_of(script)) != 0 && version.date < p.until && p.since < end_of(version); });
}

bool is_spelt(const NanochatVersion& version, std::string_view written) { return written.find(version.flags_with_dashes ? '_' : '-', 2) == std::string_view::npos; }

const NanochatVersion* newest_with(Script script, std::span<const std::string> written, int compute_major, bool spelling) {
  const auto& rows = nanochat_versions();
  const auto runs = [&](const NanochatVersion& v) { return v.sdpa_fallback || compute_major == 0 || compute_major == 9; };
  const auto found = std::ranges::find_if(rows.rbegin(), rows.rend(), [&](const NanochatVersion& v) {
    return runs(v) && std::ranges::all_of(written, [&](const std::string& flag) { return has_name(v, script, flag) && (!spelling || is_spelt(v, flag)); });
  });
  return found == rows.rend() ? nullptr : &*found;
}

// The day on which a flag went from a script.
std::string_view last_day(Script script, std::string_view written) {
  std::string_view until;
  for (const Period& p : kPeriods) {
    if (p.name == name_in(written) && (p.scripts & bit_of(script)) != 0) until = std::max(until, p.until);
  }
  return script == Script::mid_train ? std::min(until, kNoMid) : until;
}

Script told_script(const WorkloadFlags& flags) {
  const std::string wanted = to_lower(flags.script.value_or(""));
  for (Script s : {Script::mid_train, Script::chat_sft, Script::chat_rl}) {
    if (wanted == name_of(s)) return s;
  }
  return Script::base_train;
}

// What the newest version that has the script says against the flags; empty: nothing.
std::string against_newest(Script script, std::span<const std::string> written) {
  const auto& rows = nanochat_versions();
  const NanochatVersion& newest = *std::ranges::find_if(rows.rbegin(), rows.rend(), [&](const NanochatVersion& v) { return script != Script::mid_train || v.date < kNoMid; });
  constexpr std::size_t kMost = 3;
  std::vector<std::string> gone, misspelt;
  for (const std::string& flag : written) {
    if (!has_name(newest, script, flag)) gone.push_back(flag + " went on " + std::string(last_day(script, flag)));
    else if (!is_spelt(newest, flag)) misspelt.push_back(flag);
  }
  if (gone.size() > kMost) gone.resize(kMost), gone.emplace_back("...");
  if (!misspelt.empty()) {
    const std::size_t more = misspelt.size() - 1;
    gone.push_back(misspelt[0] + (more == 0 ? " is" : " and " + std::to_string(more) + (more == 1 ? " other are" : " others are")) + " written with dashes since " + std::string(kDashes));
  }
  std::string out;
  for (const std::string& one : gone) out += (out.empty() ? "" : ", ") + one;
  return out;
}

}  // namespace

std::span<const NanochatFlag> nanochat_flags() { return kNanochatFlags; }

bool script_has(Script script, std::string_view name) {
  return std::ranges::any_of(kPeriods, [&](const Period& p) { return p.name == name && (p.scripts & bit_of(script)) != 0; });
}

bool version_has(const NanochatVersion& version, Script script, std::string_view written) { return has_name(version, script, written) && is_spelt(version, written); }

bool has_written(const NanochatVersion& version, const WorkloadFlags& flags) {
  return std::ranges::all_of(flags.written, [&](const std::string& flag) { return version_has(version, told_script(flags), flag); });
}

VersionByFlags version_by_flags(const WorkloadFlags& flags) {
  const Script script = told_script(flags);
  VersionByFlags out;
  out.version = newest_with(script, flags.written, flags.compute_major, true);
  out.as_written = out.version != nullptr;
  if (out.version == nullptr) out.version = newest_with(script, flags.written, flags.compute_major, false);
  out.reason = against_newest(script, flags.written);
  return out;
}

}  // namespace dryfit
