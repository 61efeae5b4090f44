// The passes against recordings of PyTorch itself: saved tensors, bytes in order, peaks and ends. What differs today is listed with its size
// in tests/golden/oracle/known_differences.tsv; a difference that grows, or a new one, fails. docs/oracle.md tells how to renew the list.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include "graph/nanochat.hpp"
#include "passes/compile.hpp"
#include "passes/program.hpp"
#include "recording.hpp"

namespace dryfit {
namespace {

using oracle::Change;
using oracle::Part;
using oracle::Recording;

const std::string kFolder = DRYFIT_SOURCE_DIR "/tests/golden/oracle/";
constexpr std::int64_t kSmallest = 4096;  // smaller buffers, and differences up to this size, are scalars of the loss

Workload workload_of(const Recording& r) {
  WorkloadFlags f;
  f.nanochat = r.nanochat;
  f.depth = r.depth;
  f.vocab_size = r.vocab;
  f.device_batch_size = r.batch;
  f.max_seq_len = r.length;
  f.window_pattern = r.window_pattern;
  f.gpus = r.gpus;
  f.fp8 = r.fp8;
  f.total_batch_size = r.batch * r.length * r.gpus * r.accumulation;
  if (r.nanochat == "E1") f.window_pattern.reset();
  const Result<Workload> w = make_nanochat_workload(f);
  if (!w) throw std::runtime_error(r.name + ": " + w.error().message);
  return *w;
}

Attention attention_of(const Recording& r) { return r.attention == "fa3" ? Attention::fa3 : Attention::flash; }

// Adds a change to a part and keeps its live bytes, peak and end.
void add(Part& part, std::int64_t& live, bool alloc, const std::string& dtype, std::int64_t elements, std::int64_t bytes, std::string name) {
  const std::int64_t size = oracle::blocks(bytes);
  live += alloc ? size : -size;
  part.changes.push_back({alloc, dtype, elements, size, live, std::move(name)});
  part.peak = std::max(part.peak, live);
  part.end = live;
}

// Forward and backward of one compiled micro-step.
std::vector<Part> engine_step(const Recording& r) {
  const CompiledStep step = compile_step(nanochat_forward(workload_of(r), attention_of(r)), true);
  std::vector<Part> parts;
  std::int64_t live = 0;
  for (const auto* steps : {&step.forward, &step.backward}) {
    Part part{parts.empty() ? "forward" : "backward", {}, live, live, live};
    for (const BufferStep& s : *steps) {
      const Node& n = step.joint.graph.nodes[static_cast<std::size_t>(s.node)];
      add(part, live, s.alloc, std::string(name_of(n.dtype)), n.shape.numel(), n.bytes(), step.joint.graph.name_of(s.node));
    }
    parts.push_back(std::move(part));
  }
  return parts;
}

// Every segment of a whole program, without what no recording can see (library workspaces, scratch inside kernels, the tokenizer's table)
// and without the roles named.
std::vector<Part> engine_program(const Recording& r, std::set<std::string> left_out = {}) {
  left_out.insert({"cublas_workspace", "attn.softmax_d", "attn.dq_accum", "token_bytes"});
  const Program p = build_program(workload_of(r), {9, 0, 0}, r.accumulation > 1);
  std::vector<Part> parts;
  std::int64_t live = 0;
  for (std::size_t i = 0, next = 0; i < p.events.size(); ++i) {
    if (next < p.segments.size() && p.segments[next].first_event == static_cast<std::int32_t>(i)) {
      const Segment& s = p.segments[next++];
      const std::string micro = s.micro_step > 0 ? " " + std::to_string(s.micro_step) : "";
      parts.push_back({std::string(s.phase) + micro + " " + s.part, {}, live, live, live});
    }
    const TensorInfo& t = p.tensors[static_cast<std::size_t>(p.events[i].tensor)];
    if (!left_out.contains(t.role)) add(parts.back(), live, p.events[i].kind == Event::Kind::alloc, std::string(name_of(t.dtype)), t.shape.numel(), t.bytes, t.name());
  }
  return parts;
}

// Differences of one recording by measure: bytes, or events where the name says so.
using Differences = std::map<std::string, std::int64_t>;

std::int64_t census_difference(const oracle::Census& truth, const oracle::Census& mine, std::string* detail) {
  std::int64_t bytes = 0;
  std::set<std::pair<std::string, std::int64_t>> keys;
  for (const auto& [key, count] : truth) keys.insert(key);
  for (const auto& [key, count] : mine) keys.insert(key);
  for (const auto& key : keys) {
    const auto count = [&](const oracle::Census& c) { return c.contains(key) ? c.at(key) : 0; };
    const std::int64_t item = key.first == "fp32" || key.first == "int32" ? 4 : key.first == "int64" ? 8 : key.first.starts_with("fp8") ? 1 : 2;
    if (count(truth) == count(mine) || key.second <= 2) continue;
    bytes += std::abs(count(truth) - count(mine)) * key.second * item;
    *detail += "  saved " + key.first + " x " + std::to_string(key.second) + ": PyTorch " + std::to_string(count(truth)) + ", engine " + std::to_string(count(mine)) + "\n";
  }
  return bytes;
}

const Change& at_peak(const Part& part) {
  return *std::ranges::find(part.changes, part.peak, &Change::live);
}

Differences compare_compiled(const Recording& r, std::string* detail) {
  // the recording starts after the model is loaded: what is alive then is not the step's
  const std::int64_t before = r.part("load")->end;
  std::vector<Part> mine = engine_step(r);
  Differences d;
  d["saved"] = census_difference(oracle::left_alive(r.part("forward")->changes), oracle::left_alive(mine[0].changes), detail);
  std::int64_t peak = 0, my_peak = 0;
  const Part *where = nullptr, *my_where = nullptr;
  for (const Part& part : mine) {
    const Part& truth = *r.part(part.name);
    d[part.name + " end"] = std::abs(truth.end - before - part.end);
    d[part.name + " order, events"] = oracle::unmatched_events(truth.changes, part.changes, kSmallest);
    if (truth.peak - before > peak) peak = truth.peak - before, where = &truth;
    if (part.peak > my_peak) my_peak = part.peak, my_where = &part;
  }
  d["peak"] = std::abs(peak - my_peak);
  const Change &top = at_peak(*where), &my_top = at_peak(*my_where);
  const bool same = where->name == my_where->name && top.dtype == my_top.dtype && top.elements == my_top.elements;
  d["peak elsewhere, events"] = same ? 0 : 1;
  *detail += "  peak: PyTorch " + std::to_string(peak) + " in " + where->name + " at " + top.dtype + " x " + std::to_string(top.elements) + "; engine " + std::to_string(my_peak) +
             " in " + my_where->name + " at " + my_where->name + " " + my_top.dtype + " x " + std::to_string(my_top.elements) + " " + my_top.name + "\n";
  return d;
}

// Every segment of two optimizer steps. In a recording, clipping and dropping gradients stand apart; the engine counts them with the optimizer.
Differences compare_steps(const Recording& r) {
  Differences d;
  for (const Part& part : engine_program(r)) {
    const std::string phase = part.name.substr(0, part.name.find(' '));
    std::vector<const Part*> truth{r.part(part.name)};
    if (part.name.ends_with("optimizer")) truth = {r.part(phase + " clip"), r.part(part.name), r.part(phase + " zero_grad")};
    std::erase(truth, nullptr);
    if (truth.empty() || part.name.starts_with("load")) continue;
    d[part.name + " peak"] = std::abs(std::ranges::max(truth, {}, &Part::peak)->peak - part.peak);
    d[part.name + " end"] = std::abs(truth.back()->end - part.end);
  }
  return d;
}

// One validation batch: how far it rises above what is alive before.
Differences compare_validation(const Recording& r) {
  const Part& truth = *r.part("validation");
  Differences d;
  for (const Part& part : engine_program(r, {"loader_buffer"})) {
    if (part.name == "validation forward") d["peak"] = std::abs(truth.peak - truth.start - (part.peak - part.start));
  }
  return d;
}

Differences compare(const Recording& r, std::string* detail) {
  if (r.kind == "compiled") return compare_compiled(r, detail);
  return r.kind == "step" ? compare_steps(r) : compare_validation(r);
}

std::int64_t tolerance(const std::string& measure) { return measure.ends_with("events") || measure == "saved" ? 0 : kSmallest; }

// recording -> measure -> size, as it was when the list was last renewed
std::map<std::string, Differences> known_differences() {
  std::map<std::string, Differences> known;
  std::ifstream in(kFolder + "known_differences.tsv");
  for (std::string line; std::getline(in, line);) {
    std::istringstream fields(line);
    std::string name, measure, size;
    if (line.empty() || line[0] == '#' || !std::getline(fields, name, '\t') || !std::getline(fields, measure, '\t') || !std::getline(fields, size)) continue;
    known[name][measure] = std::stoll(size);
  }
  return known;
}

void write_known(const std::map<std::string, Differences>& all) {
  std::ofstream out(kFolder + "known_differences.tsv");
  out << "# Where the engine differs from recordings.jsonl: recording, measure, size (bytes, or events). Written by oracle_test with\n"
         "# DRYFIT_RENEW_DIFFERENCES=1; the test fails when one of them grows or a new one appears. docs/oracle.md\n";
  for (const auto& [name, differences] : all) {
    for (const auto& [measure, size] : differences) out << name << '\t' << measure << '\t' << size << '\n';
  }
}

TEST(Oracle, differencesFromPyTorchDoNotGrow) {
  const auto known = known_differences();
  const bool renew = std::getenv("DRYFIT_RENEW_DIFFERENCES") != nullptr;
  std::map<std::string, Differences> now;
  int compared = 0, exact = 0, smaller = 0;
  for (const Recording& r : oracle::read_recordings(kFolder + "recordings.jsonl")) {
    if (r.kind == "evaluation") continue;
    std::string detail;
    bool differs = false;
    for (const auto& [measure, size] : compare(r, &detail)) {
      if (size <= tolerance(measure)) continue;
      differs = true;
      now[r.name][measure] = size;
      const auto row = known.find(r.name);
      const std::int64_t allowed = row != known.end() && row->second.contains(measure) ? row->second.at(measure) : tolerance(measure);
      if (size < allowed) ++smaller;
      if (!renew) {
        EXPECT_LE(size, allowed) << r.name << ": " << measure << (allowed == tolerance(measure) ? " is new" : " grew") << "\n" << detail
                                 << "If this is meant, renew the list: DRYFIT_RENEW_DIFFERENCES=1 passes_test --gtest_filter=Oracle.*";
      }
    }
    ++compared;
    exact += differs ? 0 : 1;
  }
  if (renew) write_known(now);
  EXPECT_GT(compared, 1);
  std::printf("%d recordings, %d without any difference; %d differences became smaller\n", compared, exact, smaller);
}

}  // namespace
}  // namespace dryfit
