// One recording of PyTorch's own run (tests/golden/oracle/*.jsonl, docs/oracle.md), and how far a list of events lies from it.
// Reads and compares; knows nothing of the passes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace dryfit::oracle {

// A buffer that comes to life (+) or dies (-); `live`: bytes alive afterwards, in blocks of 512.
struct Change {
  bool alloc = true;
  std::string dtype;                // as dryfit names it: "bf16"
  std::int64_t elements = 0;
  std::int64_t bytes = 0;           // in blocks of 512
  std::int64_t live = 0;
  std::string name;                 // the engine's name; empty in a recording
};

struct Part {
  std::string name;                 // "forward", "train_step 1 backward", ...
  std::vector<Change> changes;
  std::int64_t start = 0, peak = 0, end = 0;  // live before it, at most, after it
};

struct Recording {
  std::string name, kind, nanochat, torch, attention, window_pattern, dtype, script;
  std::int64_t depth = 0, batch = 0, length = 0, vocab = 0, gpus = 1, accumulation = 1, new_tokens = 0, head_dim = 128, aspect_ratio = 64;
  bool fp8 = false, checkpoints = false, compile = true, torchrun = false;
  std::vector<Part> parts;
  const Part* part(const std::string& wanted) const {
    const auto it = std::ranges::find(parts, wanted, &Part::name);
    return it == parts.end() ? nullptr : &*it;
  }
};

inline std::int64_t blocks(std::int64_t bytes) { return (bytes + 511) / 512 * 512; }

inline std::string dtype_name(const std::string& torch_name) {
  static const std::map<std::string, std::string> names = {
      {"float32", "fp32"}, {"bfloat16", "bf16"}, {"float16", "fp16"}, {"float8_e4m3fn", "fp8_e4m3"}, {"float8_e5m2", "fp8_e5m2"}, {"uint64", "int64"}};
  const auto it = names.find(torch_name);
  return it == names.end() ? torch_name : it->second;
}

// [1, [3, 2, -2], 4] -> 1 2 -2 2 -2 2 -2 4
inline void unfold(const nlohmann::json& folded, std::size_t from, std::vector<std::int64_t>& out) {
  for (std::size_t i = from; i < folded.size(); ++i) {
    if (!folded[i].is_array()) {
      out.push_back(folded[i].get<std::int64_t>());
      continue;
    }
    std::vector<std::int64_t> stretch;
    unfold(folded[i], 1, stretch);
    for (std::int64_t n = folded[i][0].get<std::int64_t>(); n > 0; --n) out.insert(out.end(), stretch.begin(), stretch.end());
  }
}

inline std::vector<Part> read_parts(const nlohmann::json& j) {
  std::vector<Part> parts;
  std::int64_t live = 0;
  for (const auto& segment : j["segments"]) {
    Part part{segment["name"], {}, live, live, live};
    std::vector<std::int64_t> tokens;
    unfold(segment["events"], 0, tokens);
    for (std::int64_t token : tokens) {
      const auto& row = j["tensors"][static_cast<std::size_t>(std::abs(token)) - 1];
      const bool complex = row[0] == "complex64";  // two numbers to the engine
      Change c{token > 0, complex ? "fp32" : dtype_name(row[0]), complex ? 2 : 1, blocks(row[2].get<std::int64_t>()), 0, ""};
      for (const auto& d : row[1]) c.elements *= d.get<std::int64_t>();
      live += c.alloc ? c.bytes : -c.bytes;
      c.live = live;
      part.peak = std::max(part.peak, live);
      part.changes.push_back(std::move(c));
    }
    part.end = live;
    parts.push_back(std::move(part));
  }
  return parts;
}

inline Recording read_recording(const nlohmann::json& j) {
  Recording r;
  r.name = j["name"], r.kind = j["kind"], r.nanochat = j["nanochat"], r.torch = j["torch"], r.attention = j["attention"], r.window_pattern = j["window_pattern"], r.dtype = j.value("dtype", "bf16"), r.checkpoints = j.value("checkpoints", false);
  r.depth = j["depth"], r.batch = j["device_batch_size"], r.length = j["max_seq_len"], r.vocab = j["vocab_size"];
  r.gpus = j["gpus"], r.accumulation = j["grad_accum_steps"], r.fp8 = j["fp8"];
  r.new_tokens = j.value("new_tokens", std::int64_t{0}), r.head_dim = j.value("head_dim", std::int64_t{128}), r.aspect_ratio = j.value("aspect_ratio", std::int64_t{64});
  r.script = j.value("script", "base_train"), r.compile = j.value("compile", true), r.torchrun = j.value("torchrun", false);
  r.parts = read_parts(j);
  return r;
}

inline std::vector<Recording> read_recordings(const std::string& path) {
  std::vector<Recording> all;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) all.push_back(read_recording(nlohmann::json::parse(line)));
  return all;
}

// What a part leaves alive of what it made: how many of each (dtype, elements).
using Census = std::map<std::pair<std::string, std::int64_t>, std::int64_t>;
inline Census left_alive(const std::vector<Change>& changes) {
  Census count;
  for (const Change& c : changes) count[{c.dtype, c.elements}] += c.alloc ? 1 : -1;
  std::erase_if(count, [](const auto& entry) { return entry.second <= 0; });
  return count;
}

// Signed sizes in order. A buffer dropped and made again at once is the same memory, taken over: no event. Buffers smaller than `smallest`
// are left out.
inline std::vector<std::int64_t> sizes_in_order(const std::vector<Change>& changes, std::int64_t smallest) {
  std::vector<std::int64_t> out;
  for (const Change& c : changes) {
    if (c.bytes < smallest) continue;
    if (c.alloc && !out.empty() && out.back() == -c.bytes) out.pop_back();
    else out.push_back(c.alloc ? c.bytes : -c.bytes);
  }
  return out;
}

// Events that one list has and the other has not, in order: the length of the shortest edit script (Myers, 1986).
inline std::int64_t unmatched_events(const std::vector<Change>& a, const std::vector<Change>& b, std::int64_t smallest) {
  const std::vector<std::int64_t> x = sizes_in_order(a, smallest), y = sizes_in_order(b, smallest);
  const auto n = static_cast<std::int64_t>(x.size()), m = static_cast<std::int64_t>(y.size());
  std::vector<std::int64_t> furthest(static_cast<std::size_t>(2 * (n + m) + 3), 0);
  const auto at = [&](std::int64_t diagonal) -> std::int64_t& { return furthest[static_cast<std::size_t>(diagonal + n + m + 1)]; };
  for (std::int64_t d = 0; d <= n + m; ++d) {
    for (std::int64_t k = -d; k <= d; k += 2) {
      std::int64_t i = k == -d || (k != d && at(k - 1) < at(k + 1)) ? at(k + 1) : at(k - 1) + 1;
      while (i < n && i - k < m && x[static_cast<std::size_t>(i)] == y[static_cast<std::size_t>(i - k)]) ++i;
      at(k) = i;
      if (i >= n && i - k >= m) return d;
    }
  }
  return n + m;
}

}  // namespace dryfit::oracle
