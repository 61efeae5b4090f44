// Kernels that torch.compile times before their first launch: which, and what it copies for that, against PyTorch's own heuristics (tools/oracle/timed.py) and runs on an H100.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

#include "base/text.hpp"
#include "graph/nanochat.hpp"
#include "memory/timeline.hpp"
#include "passes/compile.hpp"
#include "passes/program.hpp"

namespace dryfit {
namespace {

using Copies = std::vector<std::int64_t>;  // bytes of what one kernel writes in place
constexpr std::int64_t kL2 = 50 << 20;     // an H100's
constexpr Target kH100{9, 0, 989};

struct Words {
  std::string version;
  std::int64_t depth, batch, length, vocabulary;
  std::string window, dtype, attention;
};

WorkloadFlags flags_of(const Words& words) {
  WorkloadFlags f;
  f.nanochat = words.version;
  f.depth = words.depth, f.device_batch_size = words.batch, f.max_seq_len = words.length, f.vocab_size = words.vocabulary, f.gpus = 1;
  f.total_batch_size = words.batch * words.length;
  if (find_nanochat_version(words.version)->window) f.window_pattern = words.window;
  if (words.dtype != "bf16") f.dtype = words.dtype;
  f.attention = words.attention;
  return f;
}

std::vector<Copies> copies_of(const Graph& graph, const std::vector<Timing>& timings) {
  std::vector<Copies> out;
  for (const Timing& t : timings) {
    out.emplace_back();
    for (NodeId v : t.in_place) out.back().push_back(graph.nodes[static_cast<std::size_t>(v)].bytes());
  }
  return out;
}

std::vector<std::string> lines_of(const std::string& file) {
  std::ifstream in(std::string(DRYFIT_SOURCE_DIR "/tests/golden/") + file);
  EXPECT_TRUE(in.is_open()) << file;
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with('#')) lines.push_back(line);
  }
  return lines;
}

// "compiled-E7-d4-B8-T512-V32768-L-fp32-sdpa": the timed kernels of its halves.
std::vector<Copies> timed_here(const std::string& name, const std::string& half) {
  const auto parts = split(name, '-');
  const auto number = [&](std::size_t i) { return *parse_int(parts[i].substr(1), ""); };
  const auto has = [&](std::string_view part) { return std::ranges::find(parts, part) != parts.end(); };
  const std::string dtype = has("fp32") ? "fp32" : "bf16";
  const Words words{std::string(parts[1]), number(2), number(3), number(4), number(5), has("L") ? "L" : "SSSL", dtype, !has("sdpa") ? "fa3" : dtype == "fp32" ? "efficient" : "flash"};
  const Workload w = *make_nanochat_workload(flags_of(words));
  const Attention attention = resolve_attention(w, kH100);
  if (parts[0] == "validation") {
    const CompiledForward forward = compile_forward(nanochat_forward(w, attention, true));
    return copies_of(forward.graph, forward.timings);
  }
  const CompiledStep step = compile_step(nanochat_forward(w, attention), true);
  return copies_of(step.joint.graph, half == "forward" ? step.forward_timings : step.backward_timings);
}

TEST(Timing, whatPyTorchWouldTime) {
  std::size_t kernels = 0;
  for (const std::string& line : lines_of("oracle/timed_kernels.tsv")) {
    const auto fields = split(line, '\t');
    const std::string name(fields[0]), half(fields[1]);
    const std::vector<Copies> here = timed_here(name, half);
    ASSERT_EQ(here.size(), fields.size() - 2) << name << ' ' << half;
    for (std::size_t k = 0; k < here.size(); ++k, ++kernels) {
      const auto told = fields[k + 2] == "-" ? std::vector<std::string_view>{} : split(fields[k + 2], '+');
      ASSERT_EQ(here[k].size(), told.size()) << name << ' ' << half << ", kernel " << k;
      for (std::size_t i = 0; i < told.size(); ++i) {
        const std::int64_t bytes = *parse_int(told[i], "");
        if (bytes > 0) {  // 0: not told
          EXPECT_EQ(here[k][i], bytes) << name << ' ' << half << ", kernel " << k;
        }
      }
    }
  }
  EXPECT_GT(kernels, 100u);
}

struct Change { bool alloc; std::size_t block; std::int64_t bytes; };

// The kernels that were timed, one after the other: what lives beside a buffer that clears the L2 cache. Configurations, between which nothing else happens, are one.
std::vector<Copies> timed_in(const std::vector<Change>& changes) {
  std::vector<Copies> out;
  std::size_t others = 0;  // changes since the last
  for (std::size_t i = 0; i < changes.size(); ++i) {
    if (changes[i].bytes != kL2) {
      ++others;
      continue;
    }
    Copies copies;
    bool complete = false;
    const std::size_t clears = changes[i++].block;
    for (; changes[i].block != clears; ++i) {
      complete = complete || !changes[i].alloc;  // they are let go when all are there
      if (!complete) copies.push_back(changes[i].bytes);
    }
    const bool next_configuration = others == 2 * copies.size() && !out.empty() && out.back() == copies;  // its first try, before the cache is cleared
    if (!next_configuration) out.push_back(copies);
    others = 0;
  }
  return out;
}

std::vector<Copies> timed_on_the_gpu(const std::string& trace) {
  std::vector<Change> changes;
  std::vector<std::int64_t> bytes{0};
  for (const std::string& line : lines_of("traces/" + trace + ".txt")) {
    std::istringstream words(line);
    std::string kind;
    std::int64_t number = 0;
    if (!(words >> kind) || (kind != "+" && kind != "-") || !(words >> number)) continue;
    if (kind == "+") bytes.push_back(number);
    const std::size_t block = kind == "+" ? bytes.size() - 1 : static_cast<std::size_t>(number);
    changes.push_back({kind == "+", block, bytes[block]});
  }
  return timed_in(changes);
}

std::vector<Copies> timed_by(const Program& p) {
  std::vector<Change> changes;
  for (const Event& e : p.events) {
    if (e.from >= 0) changes.pop_back();  // handed over: no allocator is asked
    else changes.push_back({e.kind == Event::Kind::alloc, static_cast<std::size_t>(e.tensor), p.tensors[static_cast<std::size_t>(e.tensor)].bytes});
  }
  return timed_in(changes);
}

// Those that copy more than next to nothing, which leaves no trace.
std::vector<Copies> that_copy(std::vector<Copies> timed) {
  constexpr std::int64_t kLittle = 2048;
  std::erase_if(timed, [](const Copies& c) { return std::reduce(c.begin(), c.end()) <= kLittle; });
  return timed;
}

TEST(Timing, whatAnH100Timed) {
  // beside: of the GPU's, what is not laid out. Products of nanochat's gates, as they are and padded (pad_mm), 10, 0 and 5; with depth 12 some of the gates' own, and two kernels with rows of 3,072, which
  // get a second configuration by the number of registers they turn out to need.
  struct Trace { const char* name; std::int64_t depth, batch; std::size_t beside; };
  for (const Trace& trace : {Trace{"nanochat_d4", 4, 1, 10}, Trace{"nanochat_d12_rounded", 12, 8, 5}, Trace{"nanochat_d12_unsplit", 12, 8, 9}}) {
    WorkloadFlags f = flags_of({"E7", trace.depth, trace.batch, 2048, 32768, "L", "bf16", "flash"});
    f.torch = "2.11.0";
    f.phases = "load,first_step";
    const std::vector<Copies> here = that_copy(timed_by(build_program(*make_nanochat_workload(f), kH100, false))), gpu = that_copy(timed_on_the_gpu(trace.name));
    std::size_t next = 0;
    for (const Copies& c : gpu) next += next < here.size() && c == here[next];
    EXPECT_EQ(next, here.size()) << trace.name << ": " << (next < here.size() ? testing::PrintToString(here[next]) : "");
    EXPECT_LE(gpu.size() - here.size(), trace.beside) << trace.name << ": of " << gpu.size();
    EXPECT_GE(here.size(), 17u);
  }
}

// Where the caches know every kernel nothing is timed; nothing else changes.
TEST(Timing, filledCaches) {
  const WorkloadFlags cold = flags_of({"E7", 4, 2, 512, 32768, "L", "bf16", "flash"});
  WorkloadFlags filled = cold;
  filled.cold_caches = false;
  const Program with = build_program(*make_nanochat_workload(cold), kH100, true), without = build_program(*make_nanochat_workload(filled), kH100, true);
  EXPECT_TRUE(timed_by(without).empty());
  ASSERT_FALSE(timed_by(with).empty());
  const auto others = [](const Program& p) {
    std::vector<std::pair<std::string, bool>> out;
    for (const Event& e : p.events) {
      const TensorInfo& t = p.tensors[static_cast<std::size_t>(e.tensor)];
      if (!std::string_view(t.role).starts_with("timing.")) out.emplace_back(t.name(), e.kind == Event::Kind::alloc);
    }
    return out;
  };
  EXPECT_EQ(others(with), others(without));
}

// Copies of what backward and the optimizer write in place never make a new peak by themselves: then they are the host's.
TEST(Timing, copiesAreSpared) {
  const Program p = build_program(*make_nanochat_workload(flags_of({"E7", 6, 8, 2048, 32768, "L", "bf16", "flash"})), kH100, false);
  std::int64_t alive = 0, most = 0;
  bool copied = false;
  for (std::size_t i = 0; i < p.events.size(); ++i) {
    const TensorInfo& t = p.tensors[static_cast<std::size_t>(p.events[i].tensor)];
    const bool alloc = p.events[i].kind == Event::Kind::alloc, copy = std::string_view(t.role) == "timing.copy";
    alive += (alloc ? 1 : -1) * ((t.bytes + 511) / 512 * 512);
    const std::string_view part = p.segment_of(static_cast<std::int32_t>(i)).part;
    const bool beside_l2 = alive > most && copy && alloc && i > 0 && std::string_view(p.tensors[static_cast<std::size_t>(p.events[i - 1].tensor)].role).starts_with("timing.");
    if (copy && alloc && part != "forward") {
      copied = true;
      EXPECT_TRUE(alive <= most || beside_l2) << t.bytes;
    }
    most = std::max(most, alive);
  }
  EXPECT_TRUE(copied);
}

}  // namespace
}  // namespace dryfit
