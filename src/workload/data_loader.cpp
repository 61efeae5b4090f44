// See data_loader.hpp. Sources: nanochat/dataloader.py and tokenizer.py by version; the pieces' times by tools/measure/loader.py --text on 2026-11-28 (an AMD EPYC's two cores, Python 3.10 as
// nanochat pins it, torch 2.9.1, English prose); rows by tools/measure/loader.py --documents, from how long documents are (docs/speed.md).
#include "workload/data_loader.hpp"

#include <algorithm>
#include <cmath>
#include <span>

namespace dryfit {

namespace {

using Loader = NanochatVersion::Loader;

// Seconds. The tokenizer's threads share no lock: two of them take half of what one does.
constexpr double kAssign = 2253e-9, kPop = 97e-9, kPack = 57e-9;                       // a token: into the tensor one by one; out of the queue and into a tensor at once; into a tensor
constexpr double kLook = 55.6e-9, kCompare = 84.5e-9, kPlace = 6.2e-6;                 // a document
constexpr double kThreads = 4, kTokenize = 366.7e-9 / kThreads, kRead = 6.7e-9;        // a token of the text
constexpr double kBuffer = 1000 + 128 / 2.0;                                           // documents that are looked through: refilled by 128 below 1000

struct Rows { std::int64_t length; PackedRow row; };
constexpr Rows kFineWebEdu[] = {{128, {1035.02, 1.05}}, {256, {1177.23, 1.14}}, {512, {1405.15, 1.32}}, {1024, {1922.78, 1.83}}, {2048, {2774.19, 2.69}}, {4096, {5322.92, 5.11}}, {8192, {9070.88, 8.60}}, {16384, {16960.19, 16.16}}};
constexpr Rows kClimbMix[] = {{128, {771.37, 1.09}}, {256, {899.83, 1.22}}, {512, {1143.80, 1.53}}, {1024, {1568.05, 2.18}}, {2048, {2523.56, 3.47}}, {4096, {4922.90, 6.78}}, {8192, {8559.99, 12.11}}, {16384, {16421.93, 23.16}}};

}  // namespace

PackedRow packed_row(const NanochatVersion& version, std::int64_t length) {
  const std::span<const Rows> table = version.climbmix ? std::span<const Rows>(kClimbMix) : std::span<const Rows>(kFineWebEdu);
  if (length <= table.front().length) return table.front().row;  // a document a row
  const double t = static_cast<double>(length), last = static_cast<double>(table.back().length);
  if (t >= last) return {table.back().row.tokens * t / last, table.back().row.documents * t / last};
  const auto above = std::ranges::upper_bound(table, length, {}, &Rows::length);
  const Rows &a = *(above - 1), &b = *above;
  const double at = std::log2(t / static_cast<double>(a.length)) / std::log2(static_cast<double>(b.length) / static_cast<double>(a.length));
  const auto between = [&](double x, double y) { return x * std::pow(y / x, at); };
  return {between(a.row.tokens, b.row.tokens), between(a.row.documents, b.row.documents)};
}

double loader_seconds(const Workload& workload) {
  const Run& run = workload.run;
  if (workload.transformers || workload.captured || run.script != Script::base_train) return 0;
  const NanochatVersion& version = workload.model.version;
  const double rows = static_cast<double>(run.device_batch_size), length = static_cast<double>(run.max_seq_len);
  if (version.loader != Loader::best_fit) return rows * length * ((version.loader == Loader::one_by_one ? kAssign : kPop) + kTokenize + kRead);
  const PackedRow row = packed_row(version, run.max_seq_len);
  // nearly every row ends in a document that is cut, the shortest of the buffer
  return rows * (row.documents * (kBuffer * kLook + kPlace) + kBuffer * kCompare + length * kPack + row.tokens * (kTokenize + kRead));
}

}  // namespace dryfit
