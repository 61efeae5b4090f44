// Programs of the eager engine against recordings of PyTorch (tests/golden/oracle/{transformers,torchtune}*.jsonl): bytes in order, saved tensors, peaks
// and ends of every part of two optimizer steps. docs/oracle.md. How a recording becomes a Training is its test's.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "passes/training_program.hpp"
#include "recording.hpp"
#include "workload/hf_config.hpp"
#include "workload/probe_document.hpp"

namespace dryfit::eager_recordings {

using nlohmann::json;
using oracle::Change;
using oracle::Part;

inline Architecture architecture_of(const json& j) {
  const auto config = document_from_json(j["config"].dump(), "config");
  const auto model = config ? architecture_from(*config, "config") : std::unexpected(config.error());
  if (!model) throw std::runtime_error(j["name"].get<std::string>() + ": " + model.error().message);
  return model->architecture;
}

// As the oracle's tensors are: nothing is added in place.
inline Program program_of(const json& j, const Training& t) {
  Result<Program> built = build_program(architecture_of(j), t, {9, 0, 0}, {.add_in_place = false});
  if (!built) throw std::runtime_error(j["name"].get<std::string>() + ": " + built.error().message);
  return std::move(*built);
}

// The engine's parts, without what no recording sees: library workspaces and scratch inside kernels (FlashAttention 2's is recorded).
inline std::vector<Part> engine_parts(const json& j, const Program& p) {
  static const std::set<std::string> of_flash = {"attn.softmax_d", "attn.dq_accum", "attn.dk_expanded", "attn.dv_expanded"};
  const bool flash = j.value("attention", "").starts_with("flash_attention");
  static const std::set<std::string> hidden = {"cublas_workspace", "cublaslt_workspace", "attn.softmax_d", "attn.dq_accum", "attn.dk_expanded", "attn.dv_expanded", "attn.delta", "attn.delta_product", "attn.workspace", "attn.out_sums", "index.sorted", "wte.sorted", "wte.partial_sums", "sum.partials", "sum.counters", "zero.overflow_abs", "grouped.arguments", "grouped.descriptors", "loss.rows"};
  std::vector<Part> parts;
  std::int64_t live = 0;
  for (std::size_t i = 0, next = 0; i < p.events.size(); ++i) {
    while (next < p.segments.size() && p.segments[next].first_event <= static_cast<std::int32_t>(i)) {
      const Segment& s = p.segments[next++];
      const std::string micro = s.micro_step > 0 ? " " + std::to_string(s.micro_step) : "";
      parts.push_back({std::string(s.phase) + micro + " " + s.part, {}, live, live, live});
    }
    const TensorInfo& info = p.tensors[static_cast<std::size_t>(p.events[i].tensor)];
    if (hidden.contains(info.role) && !(flash && of_flash.contains(info.role))) continue;
    const bool alloc = p.events[i].kind == Event::Kind::alloc;
    if (p.events[i].from >= 0) {  // the memory of what was freed just before, taken over: no event
      live += parts.back().changes.back().bytes;
      parts.back().changes.pop_back();
      parts.back().end = live;
      continue;
    }
    const std::int64_t bytes = oracle::blocks(info.bytes);
    live += alloc ? bytes : -bytes;
    Part& part = parts.back();
    const std::int64_t elements = info.bytes / size_of(info.dtype), shown = info.shape.numel();  // Inductor pads rows and texts, which recordings count in bytes alone
    part.changes.push_back({alloc, std::string(name_of(info.dtype)), j.contains("compiled") && j["compiled"] == true && info.shape.rank > 0 ? std::min(elements, shown) : elements, bytes, live, info.name()});
    part.peak = std::max(part.peak, live);
    part.end = live;
  }
  // not every micro-step is laid out; the last one is
  const auto of_steps = [](std::string_view phase) { return phase != "rollout" && phase != "scoring"; };  // which are counted on from one step to the next
  std::int32_t laid_out = 0;
  for (const Segment& s : p.segments) laid_out = of_steps(s.phase) ? std::max(laid_out, s.micro_step) : laid_out;
  if (const int all = j.value("accumulation", 1); all > laid_out) {
    for (Part& part : parts) {
      const std::string last = " " + std::to_string(laid_out) + " ";
      if (!of_steps(std::string_view(part.name).substr(0, part.name.find(' ')))) continue;
      if (const auto at = part.name.find(last); at != std::string::npos) part.name.replace(at, last.size(), " " + std::to_string(all) + " ");
    }
  }
  return parts;
}

inline const Part* part_named(const std::vector<Part>& parts, const std::string& name) {
  const auto it = std::ranges::find(parts, name, &Part::name);
  return it == parts.end() ? nullptr : &*it;
}

constexpr double kAllowed = 0.001;  // the share by which a peak may differ
constexpr std::int64_t kLoss = 2048, kScalars = 262144;  // bytes: of the loss and its kin; of what stays where it is scalars, the scales of 4-bit weights and rotary tables

// Recordings whose peaks differ by more, and how much: docs/oracle.md.
constexpr std::pair<std::string_view, double> kKnownPeaks[] = {
    {"transformers-qwen3-B1-T131-autocast-sdpa-foreach-cache-compiled-torch2.11.0", 0.0016},
    {"transformers-gpt_neox-B4-T160-autocast-sdpa-foreach-cache-compiled-V512", 0.0021},
    {"transformers-gpt_neox-B2-T157-autocast-sdpa-foreach-compiled-V1003", 0.0087},
    {"transformers-gpt_neox-B4-T160-autocast-sdpa-foreach-reentrant-A2-compiled-V1024", 0.054}};

inline double allowed(const std::string& name) {
  const auto* known = std::ranges::find(kKnownPeaks, name, [](const auto& k) { return k.first; });
  return known == std::end(kKnownPeaks) ? kAllowed : known->second;
}

struct Worst { double peak = 0; std::int64_t saved = 0; int parts = 0, exact = 0; };

inline void compare(const json& j, const Program& program, Worst& worst) {
  const std::string name = j["name"];
  const std::vector<Part> truth = oracle::read_parts(j), mine = engine_parts(j, program);
  for (const Part& t : truth) {
    const bool optimizer = t.name.ends_with("optimizer");
    // of several ranks what is there before training is the part after the load, in which the model is split
    const bool split = j.contains("parallel");
    if (split && t.name == "load") continue;  // there every rank still has the whole model
    if (j.value("quantized", false) && t.name == "load") continue;  // transformers' loader, which brings weights in 4 bits, is not recorded
    const Part* m = part_named(mine, t.name == (split ? "parallel" : "load") ? "load weights" : t.name);
    if (m == nullptr) continue;  // clipping and zero_grad stand with the optimizer in the engine
    const Part& last = optimizer ? *part_named(truth, t.name.substr(0, t.name.find(' ')) + " zero_grad") : t;
    // the engine's optimizer part holds clipping too, whose norms may be all that rises in it
    const Part* clip = optimizer ? part_named(truth, t.name.substr(0, t.name.find(' ')) + " clip") : nullptr;
    const std::int64_t highest = clip != nullptr ? std::max(clip->peak, t.peak) : t.peak;
    // beside states on the host next to nothing stays, and the loss's own scalar, which a Trainer holds on to and the recording's loop does not, is a share of it
    const auto error = [](std::int64_t ours, std::int64_t theirs) { return theirs < kScalars && std::abs(ours - theirs) <= kLoss ? 0 : std::abs(static_cast<double>(ours - theirs)) / static_cast<double>(theirs); };
    const double peak = error(m->peak, highest), end = error(m->end, last.end);
    EXPECT_LE(end, 2 * kAllowed) << name << " " << t.name << ": end " << m->end << ", PyTorch " << last.end;
    if (t.name == "parallel") continue;  // its peak depends on how the model came to this GPU
    EXPECT_LE(peak, allowed(name)) << name << " " << t.name << ": peak " << m->peak << ", PyTorch " << highest;
    ++worst.parts;
    worst.exact += std::abs(m->peak - highest) <= kLoss ? 1 : 0;
    worst.peak = std::max(worst.peak, peak);
    if (!t.name.ends_with("forward")) continue;
    // what forward leaves for backward: dtypes, sizes and how many of each
    oracle::Census kept = oracle::left_alive(t.changes), ours = oracle::left_alive(m->changes);
    if (j.value("parallel", "none") == "ddp_rebuilt" && !t.name.starts_with("first_step")) continue;  // no recording can make buckets anew
    std::int64_t differing = 0;
    for (const auto& [key, count] : kept) differing += std::max<std::int64_t>(0, count - ours[key]) * key.second;
    for (const auto& [key, count] : ours) differing += std::max<std::int64_t>(0, count - kept[key]) * key.second;
    EXPECT_LE(differing, 2048) << name << " " << t.name << ": elements saved by one alone";
    worst.saved = std::max(worst.saved, differing);
  }
}

// With DRYFIT_RECORDING=TEXT: where the allocations of recordings whose names contain it first differ, part by part.
inline void show(const json& j, const Program& program) {
  const std::vector<Part> truth = oracle::read_parts(j), mine = engine_parts(j, program);
  for (const Part& t : truth) {
    const Part* m = part_named(mine, t.name == "load" ? "load weights" : t.name);
    if (m == nullptr) continue;
    const auto births = [](const Part& part) {
      std::vector<Change> out;
      for (const Change& c : part.changes) {
        if (c.alloc) out.push_back(c);
      }
      return out;
    };
    const std::vector<Change> theirs = births(t), ours = births(*m);
    std::printf("%s %s: peak %lld, PyTorch %lld; %zu tensors, PyTorch %zu\n", j["name"].get<std::string>().c_str(), t.name.c_str(), static_cast<long long>(m->peak), static_cast<long long>(t.peak), ours.size(), theirs.size());
    oracle::Census kept = oracle::left_alive(t.changes);
    for (const auto& [key, count] : oracle::left_alive(m->changes)) kept[key] -= count;
    for (const auto& [key, count] : kept) {
      if (count != 0 && key.second > 8) std::printf("  left alive: %s %lld: PyTorch %+lld\n", key.first.c_str(), static_cast<long long>(key.second), static_cast<long long>(count));
    }
    const auto at_peak = [](const std::vector<Part>& parts, const std::string& wanted) {
      std::map<std::pair<std::string, std::int64_t>, std::int64_t> now, most;
      for (const Part& part : parts) {
        for (const Change& c : part.changes) {
          now[{c.dtype, c.elements}] += c.alloc ? 1 : -1;
          if (part.name == wanted && c.live == part.peak && most.empty()) most = now;
        }
      }
      return most;
    };
    auto highest = at_peak(truth, t.name);
    for (const auto& [key, count] : at_peak(mine, m->name)) highest[key] -= count;
    for (const auto& [key, count] : highest) {
      if (count != 0 && key.second > 8) std::printf("  at the peak: %s %lld: PyTorch %+lld\n", key.first.c_str(), static_cast<long long>(key.second), static_cast<long long>(count));
    }
    std::size_t i = 0;
    while (i < std::min(theirs.size(), ours.size()) && theirs[i].dtype == ours[i].dtype && theirs[i].elements == ours[i].elements) ++i;
    if (i == theirs.size() && i == ours.size()) continue;
    for (std::size_t k = i < 4 ? 0 : i - 4; k < i + 8; ++k) {
      const auto text = [k](const std::vector<Change>& all) { return k < all.size() ? all[k].dtype + " " + std::to_string(all[k].elements) + " " + all[k].name : std::string("-"); };
      std::printf("  %s%-40s | %s\n", k == i ? "> " : "  ", text(theirs).c_str(), text(ours).c_str());
    }
  }
}

// Every recording of a file of tests/golden/oracle, or with DRYFIT_RECORDING=TEXT those whose names contain it. Returns how many the file has.
template <class Use>
int for_each_recording(const std::string& file, Use use) {
  int recordings = 0;
  const char* only = std::getenv("DRYFIT_RECORDING");
  std::ifstream in(DRYFIT_SOURCE_DIR "/tests/golden/oracle/" + file);
  for (std::string line; std::getline(in, line); ++recordings) {
    const json j = json::parse(line);
    if (only == nullptr || j["name"].get<std::string>().find(only) != std::string::npos) use(j);
  }
  return recordings;
}

// Every recording of a file against what `build` makes of it.
inline Worst compare_all(const std::string& file, int& recordings, Program (*build)(const json&)) {
  Worst worst;
  recordings = for_each_recording(file, [&](const json& j) {
    const Program program = build(j);
    if (std::getenv("DRYFIT_RECORDING") != nullptr) show(j, program);
    compare(j, program, worst);
  });
  return worst;
}

// How far a program is from a recording that was drawn: events of 4 KiB and more that one of both has alone, and the largest error of a peak, part by part.
struct Drawn {
  std::int64_t events = 0;
  double part = 0, step = 0;  // shares: of a part's peak, of the highest
  std::string text;
  const char* verdict() const { return part != 0 ? "DIFFERS" : events > 0 ? "order" : "equal"; }
};

inline Drawn look_at(const json& j, const Program& program) {
  const std::vector<Part> truth = oracle::read_parts(j), mine = engine_parts(j, program);
  Drawn d;
  std::int64_t ours_of_all = 0, theirs_of_all = 0;
  std::set<std::string> seen;
  for (const Part& m : mine) {
    if (m.name.starts_with("load")) continue;
    if (!seen.insert(m.name).second) break;  // the third step, which is as the second
    const std::string phase = m.name.substr(0, m.name.find(' '));
    std::vector<const Part*> parts{part_named(truth, m.name)};
    if (m.name.ends_with("optimizer")) parts = {part_named(truth, phase + " clip"), parts[0], part_named(truth, phase + " zero_grad")};
    std::erase(parts, nullptr);
    if (parts.empty()) continue;
    std::vector<Change> changes;
    std::int64_t peak = 0;
    for (const Part* one : parts) {
      changes.insert(changes.end(), one->changes.begin(), one->changes.end());
      peak = std::max(peak, one->peak);
    }
    const std::int64_t differing = oracle::unmatched_events(changes, m.changes, 4096);
    const double error = static_cast<double>(m.peak - peak) / static_cast<double>(peak);
    ours_of_all = std::max(ours_of_all, m.peak), theirs_of_all = std::max(theirs_of_all, peak);
    if (std::abs(m.peak - peak) > 4096 && std::abs(error) > std::abs(d.part)) d.part = error;
    d.events += differing;
    if (std::abs(m.peak - peak) > 4096) d.text += "    " + m.name + ": peak " + std::to_string(m.peak) + ", PyTorch " + std::to_string(peak) + "; " + std::to_string(differing) + " events differ\n";
  }
  d.step = static_cast<double>(ours_of_all - theirs_of_all) / static_cast<double>(theirs_of_all);
  return d;
}

// All recordings of a file agree, and there are at least so many. what: how the figures call them.
inline void expect_all_agree(const std::string& file, Program (*build)(const json&), int at_least, const char* what) {
  int recordings = 0;
  const Worst worst = compare_all(file, recordings, build);
  EXPECT_GE(recordings, at_least);
  std::printf("%d %s, %d parts, %d with the same peak; largest error of a peak %.4f %%\n", recordings, what, worst.parts, worst.exact, 100 * worst.peak);
}

// The third step is the second once more, with what that leaves in the place of what it found: the allocator is asked for the same in the same order as by a step that runs.
inline void expect_same_requests(const std::string& name, const Program& copied, const Program& run) {
  ASSERT_EQ(copied.events.size(), run.events.size()) << name;
  ASSERT_EQ(copied.segments.size(), run.segments.size()) << name;
  for (std::size_t i = 0; i < run.segments.size(); ++i) ASSERT_EQ(copied.segments[i].first_event, run.segments[i].first_event) << name;
  std::vector<std::int32_t> stands_for(run.tensors.size(), -1);
  for (std::size_t i = 0; i < run.events.size(); ++i) {
    const Event &a = copied.events[i], &b = run.events[i];
    const TensorInfo &x = copied.tensors[static_cast<std::size_t>(a.tensor)], &y = run.tensors[static_cast<std::size_t>(b.tensor)];
    ASSERT_TRUE(a.kind == b.kind && x == y && (a.from < 0) == (b.from < 0)) << name << " event " << i << ": " << x.name() << ", run: " << y.name();
    if (a.kind == Event::Kind::alloc) stands_for[static_cast<std::size_t>(b.tensor)] = a.tensor;
    else ASSERT_EQ(stands_for[static_cast<std::size_t>(b.tensor)], a.tensor) << name << " event " << i << ": " << x.name();
  }
}

// The same of every recording's run as the engine itself behaves. Returns in how many of them a step was copied.
inline int expect_copies_as_run(const std::string& file, Training (*training)(const json&)) {
  int copied = 0;
  for_each_recording(file, [&](const json& j) {
    const Architecture a = architecture_of(j);
    const Result<Program> usual = build_program(a, training(j), {9, 0, 0}, {}), run = build_program(a, training(j), {9, 0, 0}, {.every_step = true});
    ASSERT_TRUE(usual && run) << j["name"];
    expect_same_requests(j["name"], *usual, *run);
    copied += usual->tensors.size() < run->tensors.size() ? 1 : 0;
  });
  return copied;
}

}  // namespace dryfit::eager_recordings
