// The passes against recordings of PyTorch itself: saved tensors, bytes in order, peaks and ends. What differs today is listed with its size
// in tests/golden/oracle/known_differences.tsv; a difference that grows, or a new one, fails. docs/oracle.md tells how to renew the list.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>

#include "graph/nanochat.hpp"
#include "passes/compile.hpp"
#include "passes/evaluation.hpp"
#include "passes/optimizer.hpp"
#include "passes/program.hpp"
#include "passes/sampling.hpp"
#include "recording.hpp"

namespace dryfit {
namespace {

using oracle::Change;
using oracle::Part;
using oracle::Recording;

const std::string kFolder = DRYFIT_SOURCE_DIR "/tests/golden/oracle/";
constexpr std::int64_t kSmallest = 4096;  // smaller buffers, and differences up to this size, are scalars of the loss

bool trains_on_rows_of(const Recording& r) {
  return r.script == "chat_rl" || (r.script == "chat_sft" && find_nanochat_version(r.nanochat)->sft == NanochatVersion::Sft::rows);
}

Workload workload_of(const Recording& r) {
  WorkloadFlags f;
  f.nanochat = r.nanochat;
  f.torch = r.torch;
  f.depth = r.depth;
  f.vocab_size = r.vocab;
  f.device_batch_size = r.batch;
  f.max_seq_len = r.length;
  f.window_pattern = r.window_pattern;
  f.gpus = r.gpus;
  f.torchrun = r.torchrun;
  f.fp8 = r.fp8;
  if (r.dtype != "bf16") f.dtype = r.dtype;
  f.total_batch_size = r.batch * r.length * r.gpus * r.accumulation;
  f.head_dim = r.head_dim, f.aspect_ratio = r.aspect_ratio;
  f.attention = r.attention == "fa3" ? "fa3" : r.dtype == "fp32" ? "efficient" : "flash";
  if (!find_nanochat_version(r.nanochat)->window) f.window_pattern.reset();
  if (r.kind == "resume") f.resume_from_step = 1;
  if (r.kind == "eager") {
    f.compile = false;
    f.torch = "2.9.1";
    f.total_batch_size = 2 * r.batch * r.length;
  }
  if (r.kind == "rl") {
    f.script = "chat_rl";
    f.total_batch_size.reset();
    f.max_new_tokens = r.length + 1 - (rollout_tokens(Run{}).middle - Run{}.max_new_tokens);  // rows as long as recorded
    f.num_samples = 2 * r.batch;
  }
  if (!r.compile) f.compile = false;
  if (r.kind == "run") {
    f.script = r.script;
    if (r.script == "chat_rl") f.max_new_tokens = r.new_tokens, f.num_samples = r.batch * r.accumulation, f.examples_per_step = r.gpus;
    if (trains_on_rows_of(r)) f.total_batch_size.reset();
    if (r.script == "chat_sft" && trains_on_rows_of(r)) f.examples_per_step = r.batch * r.gpus * r.accumulation;
  }
  const Result<Workload> w = make_nanochat_workload(f);
  if (!w) throw std::runtime_error(r.name + ": " + w.error().message);
  Workload workload = *w;
  workload.run.checkpoints = r.checkpoints;
  return workload;
}

Attention attention_of(const Recording& r) { return workload_of(r).run.attention; }

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

constexpr Target kRecorded{.fake_tensors = true};

// Every segment of a whole program, without what no recording can see (library workspaces, scratch inside kernels, the tokenizer's table,
// the batch of a validation that was not recorded)
// and without the roles named.
std::vector<Part> engine_program(const Recording& r, std::set<std::string> left_out = {}, bool accumulate = false) {
  left_out.insert({"cublas_workspace", "cublaslt_workspace", "attn.softmax_d", "attn.dq_accum", "attn.delta", "attn.delta_product", "attn.workspace", "timing.l2", "timing.copy"});
  if (r.kind != "run") left_out.insert({"bpb.losses", "bpb.bytes"});
  if (r.kind != "run") left_out.insert({"token_bytes", "val_loader_buffer", "val_idx", "val_targets"});
  const Program p = build_program(workload_of(r), kRecorded, accumulate || r.accumulation > 1);
  std::vector<Part> parts;
  std::int64_t live = 0;
  for (std::size_t i = 0, next = 0; i < p.events.size(); ++i) {
    if (next < p.segments.size() && p.segments[next].first_event == static_cast<std::int32_t>(i)) {
      const Segment& s = p.segments[next++];
      const std::string micro = s.micro_step > 0 ? " " + std::to_string(s.micro_step) : "";
      parts.push_back({std::string(s.phase) + micro + " " + s.part, {}, live, live, live});
    }
    const TensorInfo& t = p.tensors[static_cast<std::size_t>(p.events[i].tensor)];
    const Event* other = p.events[i].from >= 0 ? &p.events[i - 1] : i + 1 < p.events.size() && p.events[i + 1].from == p.events[i].tensor ? &p.events[i + 1] : nullptr;
    if (other != nullptr && p.tensors[static_cast<std::size_t>(other->tensor)].bytes == t.bytes) continue;  // handed over under another name: nothing is allocated
    if (!left_out.contains(t.role)) add(parts.back(), live, p.events[i].kind == Event::Kind::alloc, std::string(name_of(t.dtype)), t.shape.numel(), t.bytes, t.name());
  }
  return parts;
}

// Differences of one recording by measure: engine minus PyTorch in bytes; a count where the name says so.
using Differences = std::map<std::string, std::int64_t>;
struct Comparison {
  Differences differences;
  std::string detail;               // for the message: saved tensors, where the peaks stand
  double worst = 0;                 // largest error of a peak, as a share of everything alive there
  void peak(const std::string& measure, std::int64_t mine, std::int64_t truth, std::int64_t beneath) {
    differences[measure] = mine - truth;
    worst = std::max(worst, std::abs(static_cast<double>(mine - truth)) / static_cast<double>(truth + beneath));
  }
};

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

Comparison compare_compiled(const Recording& r) {
  // the recording starts after the model is loaded: what is alive then is not the step's
  const std::int64_t before = r.part("load")->end;
  const std::vector<Part> mine = engine_step(r);
  Comparison c;
  Differences& d = c.differences;
  d["saved"] = census_difference(oracle::left_alive(r.part("forward")->changes), oracle::left_alive(mine[0].changes), &c.detail);
  std::int64_t peak = 0, my_peak = 0;
  const Part *where = nullptr, *my_where = nullptr;
  for (const Part& part : mine) {
    const Part& truth = *r.part(part.name);
    d[part.name + " end"] = part.end - (truth.end - before);
    d[part.name + " order, events"] = oracle::unmatched_events(truth.changes, part.changes, kSmallest);
    if (truth.peak - before > peak) peak = truth.peak - before, where = &truth;
    if (part.peak > my_peak) my_peak = part.peak, my_where = &part;
  }
  c.peak("peak", my_peak, peak, before);
  const Change &top = at_peak(*where), &my_top = at_peak(*my_where);
  const bool same = where->name == my_where->name && top.dtype == my_top.dtype && top.elements == my_top.elements;
  d["peak elsewhere, events"] = same ? 0 : 1;
  c.detail += "  peak: PyTorch " + std::to_string(peak) + " in " + where->name + " at " + top.dtype + " x " + std::to_string(top.elements) + "; engine " + std::to_string(my_peak) +
              " in " + my_where->name + " at " + my_top.dtype + " x " + std::to_string(my_top.elements) + " " + my_top.name + "\n";
  return c;
}

constexpr std::int64_t kLarge = 1 << 20;  // of an optimizer's buffers: what lies in large segments; below are sums of rows and numbers of steps

// What is dropped one after the other leaves the same free memory in whatever order: by size. (Of names that Python lets go at once, the recorder keeps no order.)
std::vector<Change> large_drops_by_size(std::vector<Change> changes) {
  std::erase_if(changes, [](const Change& c) { return c.bytes < kLarge; });
  for (auto begin = changes.begin(); begin != changes.end();) {
    begin = std::find_if(begin, changes.end(), [](const Change& c) { return !c.alloc; });
    const auto end = std::find_if(begin, changes.end(), [](const Change& c) { return c.alloc; });
    std::sort(begin, end, [](const Change& a, const Change& b) { return a.bytes < b.bytes; });
    begin = end;
  }
  return changes;
}

// Every segment of two optimizer steps, of three on several GPUs. In a recording, clipping and dropping gradients stand apart; the engine counts them with the optimizer.
Comparison compare_steps(const Recording& r) {
  Comparison c;
  const bool one_by_one = updates_each_matrix(workload_of(r).model.version.optimizer);
  int train_steps = 0;
  for (const Part& part : engine_program(r)) {
    std::string phase = part.name.substr(0, part.name.find(' '));
    const std::string rest = part.name.substr(phase.size());
    if (phase == "train_step" && rest == " 1 forward") ++train_steps;
    if (phase == "train_step" && train_steps == 1 && r.part("second_step 1 forward") != nullptr) phase = "second_step";
    std::vector<const Part*> truth{r.part(phase + rest)};
    if (rest == " optimizer") truth = {r.part(phase + " clip"), r.part(phase + rest), r.part(phase + " zero_grad")};
    std::erase(truth, nullptr);
    if (truth.empty()) continue;
    c.peak(phase + rest + " peak", part.peak, std::ranges::max(truth, {}, &Part::peak)->peak, 0);
    c.differences[phase + rest + " end"] = part.end - truth.back()->end;
    if (rest != " optimizer" || (r.gpus == 1 && one_by_one)) continue;  // there the engine lets the first and the last matrix stand for all
    std::vector<Change> changes;
    for (const Part* one : truth) changes.insert(changes.end(), one->changes.begin(), one->changes.end());
    c.differences[phase + rest + " order, events"] = oracle::unmatched_events(large_drops_by_size(std::move(changes)), large_drops_by_size(part.changes), kLarge);
  }
  return c;
}

// A script from the checkpoint on, every part of it as it stands: the engine's steps are the recording's, in their order. A rollout's rows, which its generator makes, come with the step here.
Comparison compare_run(const Recording& r) {
  Comparison c;
  const std::vector<std::string> steps = r.part("second_step 1 forward") != nullptr ? std::vector<std::string>{"first_step", "second_step", "train_step"} : std::vector<std::string>{"first_step", "train_step"};
  std::size_t step = 0;
  std::set<std::string> done;
  for (const Part& part : engine_program(r)) {
    std::string name = part.name;
    if (name.find("_step ") != std::string::npos) {
      if (step == steps.size()) break;
      name = steps[step] + name.substr(name.find(' '));
      if (name.ends_with(" optimizer")) ++step;
    } else {
      name = name.substr(0, name.find(' '));
    }
    const Part* truth = r.part(name);
    if (truth == nullptr || !done.insert(name).second) continue;
    c.peak(name + " peak", part.peak, truth->peak, 0);
    const bool goes_on = step == steps.size() && r.gpus > 1 && trains_on_rows_of(r);  // nothing comes after it here that lets its works go
    if (!goes_on && name != "rollout") c.differences[name + " end"] = part.end - truth->end;
  }
  return c;
}

// One validation batch: how far it rises above what is alive before.
Comparison compare_validation(const Recording& r) {
  const Part& truth = *r.part("validation");
  Comparison c;
  for (const Part& part : engine_program(r, {"loader_buffer"})) {
    if (part.name == "validation forward") c.peak("peak", part.peak - part.start, truth.peak - truth.start, truth.start);
  }
  return c;
}

// One part: how far it rises and where it ends, above what is alive before.
void compare_rise(Comparison& c, const Part& mine, const Part& truth) {
  c.peak(truth.name + " peak", mine.peak - mine.start, truth.peak - truth.start, truth.start);
  c.differences[truth.name + " end"] = (mine.end - mine.start) - (truth.end - truth.start);
}

// One call of the engine: the caches, the prompt, the tokens.
Comparison compare_generation(const Recording& r, const Part& truth, const Generation& generation) {
  const EagerForward forward = generate(workload_of(r), attention_of(r), generation);
  Part mine;
  std::int64_t live = 0;
  for (const Event& e : forward.events) {
    const TensorInfo& t = forward.tensors[static_cast<std::size_t>(e.tensor)];
    add(mine, live, e.kind == Event::Kind::alloc, std::string(name_of(t.dtype)), t.shape.numel(), t.bytes, t.name());
  }
  Comparison c;
  compare_rise(c, mine, truth);
  return c;
}

// CORE's forward pass and ChatCORE's questions, from where the ids are there.
Comparison compare_evaluation(const Recording& r) {
  const bool core = r.kind == "evaluation";
  const EagerForward forward = core ? core_forward(workload_of(r), attention_of(r), r.batch, r.length) : chat_forward(workload_of(r), attention_of(r), r.batch, r.length);
  Part mine;
  std::int64_t live = 0;
  for (const Event& e : forward.events) {
    const TensorInfo& t = forward.tensors[static_cast<std::size_t>(e.tensor)];
    if (core && std::string_view(t.role) == "core.input_ids") continue;
    add(mine, live, e.kind == Event::Kind::alloc, std::string(name_of(t.dtype)), t.shape.numel(), t.bytes, t.name());
  }
  Comparison c;
  const Part& truth = *r.part(r.kind);
  c.peak("peak", mine.peak, std::max(truth.peak, core ? r.part("results")->peak : 0) - truth.start, truth.start);
  return c;
}

Comparison compare_resume(const Recording& r) {
  Comparison c;
  for (const Part& part : engine_program(r, {"loader_buffer", "idx", "targets"})) {
    if (part.name == "load weights") compare_rise(c, part, *r.part("load"));
    if (part.name == "resume weights") compare_rise(c, part, *r.part("resume"));
  }
  return c;
}

// Two passes, measured from where the first begins. The engine's third step stands where its optimizer has state,
// the recording has none.
void compare_passes(const Recording& r, Comparison& c) {
  std::set<std::string> done;
  std::int64_t start = -1, my_peak = 0, peak = 0;
  const std::int64_t before = r.part("train_step 1 forward")->start;
  for (const Part& part : engine_program(r, {}, true)) {
    const Part* truth = r.part(part.name);
    if (!part.name.starts_with("train_step") || truth == nullptr || !done.insert(part.name).second) continue;
    if (start < 0) start = part.start;
    c.differences[part.name + " peak"] = (part.peak - start) - (truth->peak - before);
    c.differences[part.name + " end"] = (part.end - start) - (truth->end - before);
    my_peak = std::max(my_peak, part.peak - start);
    peak = std::max(peak, truth->peak - before);
  }
  c.peak("peak", my_peak, peak, before);
}

Comparison compare_rl(const Recording& r) {
  Comparison c = compare_generation(r, *r.part("rollout"), {r.length + 1 - r.new_tokens, r.batch, r.new_tokens});
  compare_passes(r, c);
  return c;
}

Comparison compare_eager(const Recording& r) {
  Comparison c;
  compare_passes(r, c);
  return c;
}

Comparison compare(const Recording& r) {
  if (r.kind == "compiled") return compare_compiled(r);
  if (r.kind == "step") return compare_steps(r);
  if (r.kind == "sampling") return compare_generation(r, *r.part("sampling"), {r.length, r.batch, r.new_tokens});
  if (r.kind == "resume") return compare_resume(r);
  if (r.kind == "eager") return compare_eager(r);
  if (r.kind == "run") return compare_run(r);
  if (r.kind == "evaluation" || r.kind == "questions") return compare_evaluation(r);
  return r.kind == "rl" ? compare_rl(r) : compare_validation(r);
}

std::vector<Recording> comparable(std::initializer_list<const char*> files) {
  std::vector<Recording> all;
  for (const char* file : files) std::ranges::move(oracle::read_recordings(kFolder + file), std::back_inserter(all));
  return all;
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
  out << "# Where the engine differs from recordings.jsonl and torch_2_11.jsonl: recording, measure, size (engine minus PyTorch in bytes, or a count). Written by oracle_test with\n"
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
  for (const Recording& r : comparable({"recordings.jsonl", "torch_2_11.jsonl"})) {
    const Comparison c = compare(r);
    bool differs = false;
    for (const auto& [measure, size] : c.differences) {
      if (std::abs(size) <= tolerance(measure)) continue;
      differs = true;
      now[r.name][measure] = size;
      const auto row = known.find(r.name);
      const bool listed = row != known.end() && row->second.contains(measure);
      const std::int64_t allowed = listed ? std::abs(row->second.at(measure)) : tolerance(measure);
      if (std::abs(size) < allowed) ++smaller;
      if (!renew) {
        EXPECT_LE(std::abs(size), allowed) << r.name << ": " << measure << (listed ? " grew" : " is new") << "\n" << c.detail
                                           << "If this is meant, renew the list: DRYFIT_RENEW_DIFFERENCES=1 passes_test --gtest_filter=Oracle.*";
      }
    }
    ++compared;
    exact += differs ? 0 : 1;
  }
  if (renew) write_known(now);
  EXPECT_GT(compared, 100);
  std::printf("%d recordings, %d without any difference; %d differences became smaller\n", compared, exact, smaller);
}

// Runs drawn blindly (tools/oracle/record.sh --draw), beside the engine: what is equal, what differs and how much.
TEST(Oracle, drawnRecordings) {
  const char* file = std::getenv("DRYFIT_DRAWN");
  if (file == nullptr) GTEST_SKIP() << "DRYFIT_DRAWN names a file of recordings";
  for (const Recording& r : oracle::read_recordings(file)) {
    const Comparison c = compare(r);
    std::string text;
    for (const auto& [measure, size] : c.differences) text += std::abs(size) > tolerance(measure) ? "    " + measure + " " + std::to_string(size) + "\n" : "";
    std::printf("%-60s %s, worst peak %.4f %%\n%s", r.name.c_str(), text.empty() ? "equal" : "DIFFERS", 100 * c.worst, text.empty() ? "" : (text + c.detail).c_str());
  }
}

// Recordings that nobody looks at while fixing the passes: what was learned from the others must hold there too.
TEST(Oracle, unseenRecordingsAreAsNear) {
  std::map<std::string, double> seen, unseen;
  const auto group = [](const Recording& r) { return r.kind + (r.fp8 ? " fp8" : "") + (r.torch == "2.9.1" ? "" : " torch " + r.torch); };
  for (const Recording& r : comparable({"recordings.jsonl", "torch_2_11.jsonl"})) seen[group(r)] = std::max(seen[group(r)], compare(r).worst);
  for (const Recording& r : comparable({"unseen.jsonl", "torch_2_11_unseen.jsonl"})) unseen[group(r)] = std::max(unseen[group(r)], compare(r).worst);
  EXPECT_GE(unseen.size(), 4U);
  for (const auto& [name, worst] : unseen) {
    std::printf("%-24s largest error of a peak: %.3f %% seen, %.3f %% unseen\n", name.c_str(), 100 * seen[name], 100 * worst);
    EXPECT_LE(worst, seen[name] + 0.001) << name;
  }
}

}  // namespace
}  // namespace dryfit
